// tests/support/sim_io.cc
#include "tests/support/sim_io.h"

#include <errno.h>
#include <string.h>

#include <algorithm>

#include "core/base/check.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

namespace ringway {

SimIo::SimIo(SimNet& net) : net_(net), scratch_(std::make_unique<std::byte[]>(kScratchBytes)) {
  source_.family = PeerAddress::Family::kIPv4;
  source_.ip = {127, 0, 0, 1};
  ASAN_POISON_MEMORY_REGION(scratch_.get(), kScratchBytes);
  net_.attach_io(*this);
}

SimIo::~SimIo() {
  RW_CHECK(attached_ == 0);  // Owners close their sockets and run turns until closed.
  RW_CHECK(listening_.empty());
  ASAN_UNPOISON_MEMORY_REGION(scratch_.get(), kScratchBytes);
  net_.detach_io(*this);
}

int64_t SimIo::now_us() const {
  return in_turn_ ? now_us_ : net_.now_us();
}

// ---- Calls of the owners.

void SimIo::listen(int fd, AcceptOwner& owner) {
  SimNet::Listener& listener = net_.listener_of(fd);
  RW_CHECK(listener.io == nullptr && !listener.deaf);
  listener.io = this;
  listening_.push_back({fd, &owner, 0});
  accepts_due_ = true;
}

SimIo::Listening* SimIo::listening(int fd) {
  for (Listening& entry : listening_) {
    if (entry.fd == fd) return &entry;
  }
  return nullptr;
}

void SimIo::unlisten(int fd) {
  RW_CHECK(listening(fd) != nullptr);  // REQUIRES: listen(fd) was called.
  accept_from(fd, SIZE_MAX);
  if (listening(fd) == nullptr) return;  // on_accepted() did it.
  net_.listener_of(fd).io = nullptr;
  net_.stop_listening(net_.listener_of(fd));
  std::erase_if(listening_, [&](const Listening& entry) { return entry.fd == fd; });
}

void SimIo::discard(int fd) {
  if (net_.descriptor(fd).kind == SimNet::Descriptor::Kind::kListener) {
    return net_.close_listener(fd);
  }
  const SimRef ref = net_.descriptor(fd).ref;
  RW_CHECK(net_.descriptor(fd).kind == SimNet::Descriptor::Kind::kEnd);
  RW_CHECK(net_.find(ref)->ends[ref.side].socket == nullptr);
  net_.close_end(ref, false);
  net_.release(ref);
}

void SimIo::set_wake_owner(WakeOwner& owner) {
  RW_CHECK(wake_owner_ == nullptr);
  wake_owner_ = &owner;
}

void SimIo::wake() {
  if (waking_) return;
  waking_ = true;
  const bool late = net_.hit(Fault::kLateWake);
  const uint64_t delay_us = late ? net_.prng().below(50'000) : net_.prng().below(20);
  net_.at(net_.now_us() + static_cast<int64_t>(delay_us), SimNet::Event::Kind::kWake, {},
          reinterpret_cast<uintptr_t>(this));
}

void SimIo::attach(Socket& socket, int fd) {
  RW_CHECK(!socket.open());
  const SimNet::Descriptor& found = net_.descriptor(fd);
  RW_CHECK(found.kind == SimNet::Descriptor::Kind::kEnd);
  SimEnd& end = net_.find(found.ref)->ends[found.ref.side];
  RW_CHECK(end.socket == nullptr && !end.closing);
  end.socket = &socket;
  end.io = this;
  socket.fd_ = fd;
  ++attached_;
}

void SimIo::adopt(Socket& socket, int fd) {
  attach(socket, fd);
}

int SimIo::connect(Socket& socket, const ServerAddress& address, const LocalEnd& local) {
  socket.local_failure_ = LocalPart::kNone;
  if (local.source.length == 0) return net_.start_connect(*this, socket, address, source_);
  RW_CHECK(local.source.storage.ss_family == address.storage.ss_family);
  const PeerAddress source = PeerAddress::from(*local.source.get());
  RW_CHECK(source.port == 0);
  if (net_.is_foreign(source)) {
    socket.local_failure_ = LocalPart::kSource;
    return EADDRNOTAVAIL;
  }
  return net_.start_connect(*this, socket, address, source);
}

SimRef SimIo::ref_of(const Socket& socket) const {
  RW_CHECK(socket.open());
  const SimRef ref = net_.descriptor(socket.fd()).ref;
  RW_CHECK(net_.find(ref)->ends[ref.side].io == this);  // Its own thread's Io.
  return ref;
}

SimEnd& SimIo::end_of(const Socket& socket) {
  const SimRef ref = ref_of(socket);
  return net_.find(ref)->ends[ref.side];
}

void SimIo::set_receiving(Socket& socket, bool on) {
  SimEnd& end = end_of(socket);
  if (end.closing) return;
  // An engine that receives by completions holds what comes behind a pause, up to a limit.
  if (on && !end.receiving && end.paused && end.in.readable() > 0 && !end.overflowed &&
      net_.hit(Fault::kOverflow)) {
    end.overflowed = true;
    end.held = net_.prng().below(end.in.readable());
  }
  end.paused = !on;
  end.receiving = on;
  relist(end, ref_of(socket));
}

ssize_t SimIo::send(Socket& socket, std::span<const iovec> pieces) {
  RW_CHECK(!end_of(socket).closing);
  return net_.send(ref_of(socket), pieces);
}

bool SimIo::something_waits(const Socket& socket) const {
  const SimRef ref = ref_of(socket);
  const SimEnd& end = net_.find(ref)->ends[ref.side];
  return end.in.readable() > 0 || end.in.fin_arrived || end.broken;
}

void SimIo::want_writable(Socket& socket) {
  SimEnd& end = end_of(socket);
  RW_CHECK(!end.closing);
  end.wants_writable = true;
  relist(end, ref_of(socket));
}

void SimIo::shutdown_send(Socket& socket) {
  const SimEnd& end = end_of(socket);
  if (end.closing || end.connecting) return;
  net_.send_fin(ref_of(socket));
}

void SimIo::close(Socket& socket) {
  close(socket, false);
}

void SimIo::abort(Socket& socket) {
  close(socket, true);
}

void SimIo::detach(Socket& socket) {
  SimEnd& end = end_of(socket);
  RW_CHECK(!end.closing && !end.connecting && !end.leaving);
  end.leaving = true;
  end.receiving = end.wants_writable = false;
  end.closed_turn = in_turn_ ? turns_ : 0;
  relist(end, ref_of(socket));
}

void SimIo::close(Socket& socket, bool abort) {
  if (!socket.open()) return;
  SimEnd& end = end_of(socket);
  if (end.closing) return;
  net_.close_end(ref_of(socket), abort);
  end.closed_turn = in_turn_ ? turns_ : 0;
  relist(end, ref_of(socket));
}

// ---- Turns.

void SimIo::run_once(int timeout_ms) {
  if (!net_.stepping()) return net_.wait_for(*this, timeout_ms);
  turn();
}

bool SimIo::has_work() const {
  return !listed_.empty() || accepts_due_ || wake_due_;
}

void SimIo::list(SimEnd& end, const SimRef& ref) {
  if (end.listed) return;
  end.listed = true;
  listed_.push_back(ref);
}

void SimIo::relist(SimEnd& end, const SimRef& ref) {
  if (deliverable(end, ref)) list(end, ref);
}

bool SimIo::writable(const SimEnd& end, const SimRef& ref) const {
  if (!end.wants_writable || end.connecting) return false;
  const SimPipe& out = net_.find(ref)->ends[ref.side ^ 1U].in;
  // As sk_stream_is_writeable(): a third of the buffer must be free.
  return end.broken || out.fin_sent || out.room() * 3 >= out.capacity;
}

bool SimIo::deliverable(const SimEnd& end, const SimRef& ref) const {
  if (end.closing || end.leaving) return true;
  if (end.connecting) return end.connect_done;
  const bool something =
      end.in.readable() > 0 || end.in.fin_arrived || end.broken || end.overflowed;
  return (end.receiving && !end.ended && something) || reset_waits(end) || writable(end, ref);
}

bool SimIo::reset_waits(const SimEnd& end) {
  return end.fin_told && end.broken && end.error != 0;
}

void SimIo::turn() {
  RW_CHECK(!in_turn_);  // No handler may run turns.
  now_us_ = net_.now_us();
  in_turn_ = true;
  ++turns_;
  const bool accept_first = net_.prng().chance(0.5);
  if (accept_first) accept_all();
  deliver_wake();
  deliver_all();
  if (!accept_first) accept_all();
  in_turn_ = false;
}

void SimIo::deliver_all() {
  running_.clear();
  running_.swap(listed_);
  if (net_.hit(Fault::kReorder)) {
    for (size_t i = running_.size(); i > 1; --i) {
      std::swap(running_[i - 1], running_[net_.prng().below(i)]);
    }
  }
  for (const SimRef& ref : running_) deliver(ref);
}

void SimIo::deliver(const SimRef& ref) {
  SimNet::Conn* conn = net_.find(ref);
  if (conn == nullptr) return;
  // Stays valid below: an end is released by deliver_closed() only, never inside a handler.
  SimEnd& end = conn->ends[ref.side];
  if (end.io != this) return;
  end.listed = false;
  if (net_.hit(Fault::kLateEvent)) return list(end, ref);
  if (end.closing) {
    if (end.closed_turn == turns_) return list(end, ref);  // Not in the turn of close().
    return deliver_closed(end, ref);
  }
  if (end.leaving) {
    if (end.closed_turn == turns_) return list(end, ref);
    return deliver_detached(end, ref);
  }
  if (end.connecting) {
    if (!end.connect_done) return;
    ++events_;
    net_.trace(1, ref.slot, static_cast<uint64_t>(end.connect_error));
    // A failed attempt stays "connecting": nothing else may happen to it but close().
    end.connecting = end.connect_error != 0;
    end.connect_done = false;
    end.socket->owner_->on_connected(*end.socket, end.connect_error);
    return relist(end, ref);
  }
  const bool write_first = net_.prng().chance(0.5);
  if (write_first) deliver_writable(end, ref);
  if (!end.closing) deliver_bytes(end, ref);
  if (!end.closing) deliver_reset(end, ref);
  if (!write_first && !end.closing) deliver_writable(end, ref);
  relist(end, ref);
}

void SimIo::deliver_bytes(SimEnd& end, const SimRef& ref) {
  for (uint64_t reads = net_.prng().between(1, 4); reads > 0; --reads) {
    if (!end.receiving || end.ended || end.closing) return;
    size_t size = std::min(end.in.readable(), kScratchBytes);
    if (end.overflowed) size = std::min(size, end.held);
    if (size == 0) return deliver_end(end, ref);
    if (size > 1 && net_.hit(Fault::kShortReceive)) size = net_.prng().between(1, size);
    // At the end of the scratch, so that reading past the bytes is caught too.
    std::byte* at = scratch_.get() + (kScratchBytes - size);
    ASAN_UNPOISON_MEMORY_REGION(at, size);
    net_.read(ref, {at, size});
    if (end.overflowed) end.held -= size;
    ++events_;
    net_.trace(2, ref.slot * 2 + ref.side, size);
    end.socket->owner_->on_receive(*end.socket, {at, size});
    memset(at, 0xdd, size);
    ASAN_POISON_MEMORY_REGION(at, size);
  }
}

// As tcp_recvmsg() without bytes: end of stream after FIN, else the pending error, else (a send
// has reported it already) end of stream again.
void SimIo::deliver_end(SimEnd& end, const SimRef& ref) {
  if (!end.in.fin_arrived && !end.broken && !end.overflowed) return;
  const bool fin = end.in.fin_arrived && !end.overflowed;
  const int error = end.overflowed ? ENOBUFS : fin ? 0 : std::exchange(end.error, 0);
  end.ended = true;
  end.fin_told = fin;
  if (fin) net_.flow_to(*net_.find(ref), ref.side).fin_received = true;
  ++events_;
  net_.trace(3, ref.slot * 2 + ref.side, static_cast<uint64_t>(error));
  end.socket->owner_->on_receive_end(*end.socket, error);
}

void SimIo::deliver_reset(SimEnd& end, const SimRef& ref) {
  if (!reset_waits(end)) return;
  const int error = std::exchange(end.error, 0);
  ++events_;
  net_.trace(8, ref.slot * 2 + ref.side, static_cast<uint64_t>(error));
  end.socket->owner_->on_reset(*end.socket, error);
}

void SimIo::deliver_writable(SimEnd& end, const SimRef& ref) {
  if (!writable(end, ref)) return;
  end.wants_writable = false;
  ++events_;
  net_.trace(4, ref.slot, ref.side);
  end.socket->owner_->on_writable(*end.socket);
}

void SimIo::deliver_closed(SimEnd& end, const SimRef& ref) {
  Socket& socket = *end.socket;
  net_.trace(5, ref.slot, ref.side);
  ++events_;
  end.socket = nullptr;
  socket.fd_ = -1;
  --attached_;
  net_.release(ref);
  socket.owner_->on_closed(socket);  // May free or re-use the socket: last access.
}

void SimIo::deliver_detached(SimEnd& end, const SimRef& ref) {
  Socket& socket = *end.socket;
  const int fd = socket.fd_;
  net_.trace(7, ref.slot, ref.side);
  ++events_;
  end.leaving = false;
  end.socket = nullptr;
  end.io = nullptr;
  socket.fd_ = -1;
  --attached_;
  socket.owner_->on_detached(socket, fd, true);  // May free or re-use the socket: last access.
}

void SimIo::deliver_wake() {
  if (!wake_due_) return;
  wake_due_ = waking_ = false;
  ++events_;
  net_.trace(6, 0, 0);
  if (wake_owner_ != nullptr) wake_owner_->on_wake();
}

void SimIo::accept_all() {
  constexpr size_t kAcceptsPerTurn = 64;
  if (!accepts_due_) return;
  accepts_due_ = false;
  for (size_t i = 0; i < listening_.size(); ++i) {
    if (listening_[i].resume_at_us <= now_us_) accept_from(listening_[i].fd, kAcceptsPerTurn);
  }
}

void SimIo::accept_from(int fd, size_t count_max) {
  const SimNet::Listener& listener = net_.listener_of(fd);
  for (size_t i = 0; i < count_max; ++i) {
    Listening* entry = listening(fd);
    if (entry == nullptr || listener.queue.empty()) return;
    if (net_.hit(Fault::kNoDescriptors)) {
      ++accept_pauses_;
      entry->resume_at_us = net_.now_us() + kAcceptPauseUs;
      net_.at(entry->resume_at_us, SimNet::Event::Kind::kTouch, {},
              reinterpret_cast<uintptr_t>(this));
      return;
    }
    PeerAddress peer;
    const int accepted = net_.accept(net_.listener_of(fd), peer);
    ++events_;
    entry->owner->on_accepted(accepted, peer);
  }
  accepts_due_ = true;
}

}  // namespace ringway
