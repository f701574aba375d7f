// core/socket_io.cc
#include "core/socket_io.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "core/base/check.h"

namespace ringway {
namespace {

constexpr uint32_t kGenerationMask = 0xffffff;

int64_t clock_us() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000 + now.tv_nsec / 1000;
}

}  // namespace

void SocketOwner::on_reset(Socket& /*socket*/, int /*error*/) {}

void SocketOwner::on_detached(Socket& /*socket*/, int /*fd*/, bool /*clean*/) {
  RW_CHECK(false);  // Only for owners that detach.
}

void SocketOwner::on_secured(Socket& /*socket*/) {}

void SocketOwner::on_confirmed(Socket& /*socket*/) {}

void SocketOwner::on_tls_ticket(Socket& /*socket*/, TlsTicket /*ticket*/) {}

Socket::~Socket() {
  RW_CHECK(fd_ < 0);
}

SocketIo::SocketIo(uint32_t spin_us)
    : wake_fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      scratch_(std::make_unique_for_overwrite<std::byte[]>(kScratchBytes)),
      batch_(std::make_unique<Batch>()),
      spin_(spin_us) {
  RW_CHECK(wake_fd_ >= 0);
  refresh_clock();
}

SocketIo::~SocketIo() {
  ::close(wake_fd_);
  for (const Entry& entry : table_) {
    RW_CHECK(entry.socket == nullptr);  // Owners close their sockets and run turns until closed.
  }
}

void SocketIo::listen(int fd, AcceptOwner& owner) {
  auto free = std::find_if(listeners_.begin(), listeners_.end(),
                           [](const Listener& listener) { return !listener.in_use; });
  if (free == listeners_.end()) free = listeners_.emplace(listeners_.end());
  free->fd = fd;
  free->owner = &owner;
  free->armed = free->in_use = true;
  free->resume_at_ms = 0;
  const auto slot = static_cast<uint32_t>(free - listeners_.begin());
  arm({Kind::kListen, slot, free->generation}, fd, false);
}

void SocketIo::unlisten(int fd) {
  for (uint32_t i = 0; i < listeners_.size(); ++i) {
    if (listeners_[i].fd != fd || listeners_[i].owner == nullptr) continue;
    accept_all(listeners_[i], INT_MAX);
    // The ring's poll holds the socket beyond the caller's close(): without this, who connects
    // until then would be accepted by the kernel, then reset.
    ::shutdown(fd, SHUT_RD);
    Listener& listener = listeners_[i];  // Accepting may have added listeners.
    listener.owner = nullptr;
    listener.resume_at_ms = 0;
    if (listener.armed && cancel({Kind::kListen, i, listener.generation}, fd)) {
      listener.armed = false;
    }
    listener.fd = -1;
    // Events of the cancelled poll may still come: they find another generation.
    listener.generation = (listener.generation + 1) & kGenerationMask;
    listener.armed = listener.in_use = false;
    return;
  }
  RW_CHECK(false);
}

void SocketIo::discard(int fd) {
  ::close(fd);
}

void SocketIo::set_wake_owner(WakeOwner& owner) {
  RW_CHECK(wake_owner_ == nullptr);
  wake_owner_ = &owner;
  arm({Kind::kWake, 0, 0}, wake_fd_, false);
}

void SocketIo::wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_fd_, &one, sizeof one);
}

void SocketIo::refresh_clock() {
  now_us_ = clock_us();
}

void SocketIo::attach(Socket& socket, int fd) {
  RW_CHECK(!socket.open());
  RW_CHECK(fd >= 0);
  if (free_slots_.empty()) {
    table_.emplace_back();
    free_slots_.push_back(static_cast<uint32_t>(table_.size() - 1));
  }
  socket.slot_ = free_slots_.back();
  free_slots_.pop_back();
  table_[socket.slot_].socket = &socket;
  socket.fd_ = fd;
  socket.armed_ = 0;
  socket.receiving_ = socket.readable_ = socket.hangup_ = false;
  socket.ended_ = socket.half_closed_ = socket.failed_ = false;
  socket.connecting_ = socket.closing_ = socket.queued_ = false;
  socket.starved_ = socket.stopping_ = false;
  socket.leaving_ = socket.tainted_ = false;
  socket.patient_ = socket.late_ = socket.guessed_ = false;
  socket.short_waits_ = 0;
  socket.completes_ = completes_;
}

void SocketIo::adopt(Socket& socket, int fd) {
  attach(socket, fd);
  if (!socket.completes_) guess_or_watch(socket);
}

int SocketIo::connect(Socket& socket, const ServerAddress& address, const LocalEnd& local) {
  socket.local_failure_ = LocalPart::kNone;
  const int family = address.storage.ss_family;
  const int fd = ::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  if (family != AF_UNIX) {
    const int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  }
  int error = local.empty() ? 0 : bind_local(fd, local, socket.local_failure_);
  if (error == 0 && ::connect(fd, address.get(), address.length) != 0 && errno != EINPROGRESS) {
    error = errno;
  }
  if (error != 0) {
    ::close(fd);
    return error;
  }
  attach(socket, fd);
  socket.connecting_ = true;
  arm_once(socket, Kind::kOut);
  return 0;
}

SocketIo::Tag SocketIo::tag_of(const Socket& socket, Kind kind) const {
  return {kind, socket.slot_, table_[socket.slot_].generation};
}

uint8_t SocketIo::bit_of(Kind kind) {
  return static_cast<uint8_t>(1U << static_cast<unsigned>(kind));
}

void SocketIo::arm_once(Socket& socket, Kind kind) {
  const uint8_t bit = bit_of(kind);
  if ((socket.armed_ & bit) != 0) return;
  socket.armed_ |= bit;
  arm(tag_of(socket, kind), socket.fd_, kind == Kind::kOut);
}

void SocketIo::enqueue(Socket& socket) {
  if (socket.queued_) return;
  socket.queued_ = true;
  ready_.push_back(&socket);
}

void SocketIo::set_receiving(Socket& socket, bool on) {
  RW_CHECK(socket.open());
  socket.receiving_ = on;
  // Edges that came while paused were latched: without this the connection would hang.
  if (on && socket.readable_) enqueue(socket);
  if (on && socket.completes_) start_receiving(socket);
}

ssize_t SocketIo::send(Socket& socket, std::span<const iovec> pieces) {
  RW_CHECK(socket.open() && !socket.closing_);
  end_patience(socket);
  constexpr int kFlags = MSG_DONTWAIT | MSG_NOSIGNAL;
  ssize_t sent = 0;
  if (pieces.size() == 1) {  // Most are, and the kernel has less to look at.
    sent = ::send(socket.fd_, pieces[0].iov_base, pieces[0].iov_len, kFlags);
  } else {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(pieces.data());  // sendmsg(2) does not write to it.
    message.msg_iovlen = pieces.size();
    sent = sendmsg(socket.fd_, &message, kFlags);
  }
  if (sent >= 0) return sent;
  if (errno == EAGAIN || errno == EINTR) return 0;
  return -errno;
}

bool SocketIo::something_waits(const Socket& socket) const {
  RW_CHECK(socket.open());
  if (socket.ended_ || socket.held_ != nullptr) return true;
  char byte = 0;
  return recv(socket.fd_, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || errno != EAGAIN;
}

void SocketIo::want_writable(Socket& socket) {
  RW_CHECK(socket.open() && !socket.closing_);
  arm_once(socket, Kind::kOut);
}

void SocketIo::shutdown_send(Socket& socket) {
  RW_CHECK(socket.open());
  end_patience(socket);
  ::shutdown(socket.fd_, SHUT_WR);
}

void SocketIo::close(Socket& socket) {
  if (!socket.open() || socket.closing_) return;
  // Without shutdown(2) an armed poll keeps the file alive and the peer sees no FIN.
  // Most short connections are not watched any more here (core/socket_watch.cc).
  if (socket.armed_ != 0) ::shutdown(socket.fd_, SHUT_RDWR);
  start_closing(socket);
}

void SocketIo::abort(Socket& socket) {
  if (!socket.open() || socket.closing_) return;
  // No shutdown(2), which would send a FIN first; close(2) sends the reset once the polls are gone.
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  setsockopt(socket.fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  start_closing(socket);
}

void SocketIo::detach(Socket& socket) {
  RW_CHECK(socket.open() && !socket.closing_ && !socket.connecting_);
  socket.leaving_ = true;
  socket.tainted_ = socket.held_ != nullptr;
  start_closing(socket);
}

void SocketIo::start_closing(Socket& socket) {
  socket.closing_ = true;
  socket.receiving_ = false;
  cancel_armed(socket, Kind::kIn);
  cancel_armed(socket, Kind::kOut);
  cancel_armed(socket, Kind::kHangup);
  if (!socket.stopping_) cancel_armed(socket, Kind::kReceive);
  release_if_quiet(socket);
}

void SocketIo::cancel_armed(Socket& socket, Kind kind) {
  if ((socket.armed_ & bit_of(kind)) == 0 || !cancel(tag_of(socket, kind), socket.fd_)) return;
  socket.armed_ &= static_cast<uint8_t>(~bit_of(kind));
}

void SocketIo::release_if_quiet(Socket& socket) {
  if (socket.closing_ && socket.armed_ == 0) graveyard_.push_back(&socket);
}

void SocketIo::flush_graveyard() {
  while (!graveyard_.empty()) {
    Socket& socket = *graveyard_.back();
    graveyard_.pop_back();
    if (socket.queued_) *std::find(ready_.begin(), ready_.end(), &socket) = nullptr;
    drop_held(socket);
    Entry& entry = table_[socket.slot_];
    entry.generation = (entry.generation + 1) & kGenerationMask;
    entry.socket = nullptr;
    free_slots_.push_back(socket.slot_);
    const int fd = std::exchange(socket.fd_, -1);
    if (socket.leaving_) {
      socket.owner_->on_detached(socket, fd, !socket.tainted_);  // As below.
      continue;
    }
    ::close(fd);
    socket.owner_->on_closed(socket);  // May free or re-use the socket: last access.
  }
}

void SocketIo::on_wake_event(const Event& event) {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(wake_fd_, &count, sizeof count);
  if (event.last) arm(event.tag, wake_fd_, false);
  counters_.wakes.add();
  wake_owner_->on_wake();
}

void SocketIo::on_doorbell() {
  counters_.wakes.add();
  if (wake_owner_ != nullptr) wake_owner_->on_wake();
}

void SocketIo::on_listen_event(const Event& event) {
  Listener& listener = listeners_[event.tag.slot];
  if (listener.generation != event.tag.generation || listener.owner == nullptr) {
    return counters_.stale_events.add();
  }
  if (event.last) listener.armed = false;
  if (event.last && listener.resume_at_ms == 0) listener.resume_at_ms = 1;
  accept_all(listener, kAcceptsPerTurn);
}

void SocketIo::on_event(const Event& event) {
  if (event.tag.kind == Kind::kWake) return on_wake_event(event);
  if (event.tag.kind == Kind::kBell) return on_doorbell();
  if (event.tag.kind == Kind::kListen) return on_listen_event(event);
  if (event.tag.kind == Kind::kReceive) return on_receive_event(event);
  const Entry& entry = table_[event.tag.slot];
  Socket* socket = entry.socket;
  // Slots are released only when nothing is armed, so this is an event behind a last one.
  if (socket == nullptr || entry.generation != event.tag.generation) {
    return counters_.stale_events.add();
  }
  const uint8_t bit = bit_of(event.tag.kind);
  // Cancelled by an owner earlier in this batch, with nothing more to wait for.
  if ((socket->armed_ & bit) == 0) return counters_.stale_events.add();
  if (event.last) socket->armed_ &= static_cast<uint8_t>(~bit);
  if (socket->closing_) {
    if (event.last) release_if_quiet(*socket);
    return;
  }
  if (event.tag.kind == Kind::kOut) {
    if (socket->connecting_) return finish_connect(*socket);
    return socket->owner_->on_writable(*socket);
  }
  if ((event.mask & POLLERR) != 0) socket->failed_ = true;
  if (socket->ended_) {
    if (event.last) watch_late_for_reset(*socket);
    return look_for_reset(*socket);
  }
  // Where the poll has ended, read() arms it again once nothing is left to read.
  socket->readable_ = true;
  if (event.mask == 0 || (event.mask & (POLLRDHUP | POLLHUP | POLLERR)) != 0)
    socket->hangup_ = true;
  if (socket->receiving_ && !socket->queued_) read(*socket);
}

void SocketIo::finish_connect(Socket& socket) {
  socket.connecting_ = false;
  int error = 0;
  socklen_t length = sizeof error;
  getsockopt(socket.fd_, SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0) socket.ended_ = true;  // Nothing will arrive; the owner closes it.
  if (error == 0) watch(socket);
  if (socket.completes_) start_receiving(socket);
  socket.owner_->on_connected(socket, error);
}

void SocketIo::read(Socket& socket) {
  if (socket.ended_) return look_for_reset(socket);
  if (socket.held_ != nullptr) return deliver_held(socket);
  read_bytes(socket);
}

void SocketIo::read_bytes(Socket& socket) {
  for (int i = 0; i < kReadsPerTurn; ++i) {
    if (!socket.receiving_ || socket.ended_ || socket.closing_) return;
    const ssize_t got = recv(socket.fd_, scratch_.get(), kScratchBytes, MSG_DONTWAIT);
    if (socket.guessed_) learn_guess(socket, got >= 0 || errno != EAGAIN);
    if (got > 0) {
      // A short read has drained the socket, and what comes later makes a new edge. Only an end
      // that shared this edge would make none: its bit was in the event, so then read on to find
      // it.
      const bool drained = static_cast<size_t>(got) < kScratchBytes && !socket.hangup_;
      if (drained) socket.readable_ = false;
      socket.owner_->on_receive(socket, {scratch_.get(), static_cast<size_t>(got)});
      if (drained) return watch(socket);
      continue;
    }
    if (got == 0) return end_receive(socket, 0);
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return end_receive(socket, errno);
    socket.readable_ = false;
    return watch(socket);
  }
  if (socket.receiving_ && !socket.closing_) enqueue(socket);
}

void SocketIo::end_receive(Socket& socket, int error) {
  socket.ended_ = true;
  socket.half_closed_ = error == 0;
  socket.readable_ = false;
  socket.owner_->on_receive_end(socket, error);
  // Most owners have closed it: the others half-close.
  watch_late_for_reset(socket);
}

void SocketIo::run_ready_list() {
  if (ready_.empty()) return;
  running_.swap(ready_);
  for (size_t i = 0; i < running_.size(); ++i) {
    Socket* socket = running_[i];
    if (socket == nullptr) continue;
    socket->queued_ = false;
    if (socket->open() && !socket->closing_ && socket->readable_) read(*socket);
  }
  running_.clear();
  if (wake_owner_ != nullptr) wake_owner_->on_pause();
}

void SocketIo::accept_all(Listener& listener, int most) {
  const int fd = listener.fd;
  AcceptOwner& owner = *listener.owner;
  const auto slot = static_cast<size_t>(&listener - listeners_.data());
  for (int i = 0; i < most; ++i) {
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init): the kernel fills it
    sockaddr_storage peer;
    socklen_t length = sizeof peer;
    auto* address = reinterpret_cast<sockaddr*>(&peer);
    address->sa_family = AF_UNSPEC;  // A unix client without a name leaves it untouched.
    const int accepted = accept4(fd, address, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (accepted >= 0) {
      counters_.accepts.add();
      owner.on_accepted(accepted, PeerAddress::from(*address));
      if (listeners_[slot].owner != &owner) return;  // It stopped listening meanwhile.
      continue;
    }
    if (errno == EINTR || errno == ECONNABORTED) continue;
    if (errno != EAGAIN) {
      // Out of descriptors or memory: trying again at once would fail again and burn the core.
      counters_.accept_pauses.add();
      listeners_[slot].resume_at_ms = now_us_ / 1000 + kAcceptPauseMs;
    }
    return;
  }
  listeners_[slot].resume_at_ms =
      1;  // More may wait: the edge is used up, so look again next turn.
}

void SocketIo::resume_listeners(int64_t now_ms) {
  for (uint32_t i = 0; i < listeners_.size(); ++i) {
    Listener& listener = listeners_[i];
    if (listener.resume_at_ms == 0 || listener.resume_at_ms > now_ms) continue;
    listener.resume_at_ms = 0;
    if (!listener.armed) {
      listener.armed = true;
      arm({Kind::kListen, i, listener.generation}, listener.fd, false);
    }
    accept_all(listener, kAcceptsPerTurn);
  }
}

int SocketIo::bound_timeout(int timeout_ms) const {
  if (!ready_.empty() || !graveyard_.empty() || !starved_.empty()) return 0;
  const auto at_most = [&timeout_ms](int64_t pause) {
    pause = std::max<int64_t>(pause, 0);
    timeout_ms = timeout_ms < 0 ? static_cast<int>(pause)
                                : static_cast<int>(std::min<int64_t>(timeout_ms, pause));
  };
  for (const Listener& listener : listeners_) {
    if (listener.resume_at_ms != 0) at_most(listener.resume_at_ms - now_us_ / 1000);
  }
  if (late_at_ < late_.size()) at_most((late_[late_at_].due_us - now_us_ + 999) / 1000);
  return timeout_ms;
}

// Spins for a while where that pays, then sleeps.
size_t SocketIo::wait(int timeout_ms, Batch& batch) {
  const int64_t start_us = now_us_;
  const int64_t budget_us = timeout_ms == 0 ? 0 : spin_.budget_us(start_us);
  if (budget_us == 0) {
    if (timeout_ms != 0) counters_.sleeps.add();
    const size_t count = collect(timeout_ms, batch);
    refresh_clock();
    if (timeout_ms != 0) spin_.learn(now_us_ - start_us, 0);
    return count;
  }
  counters_.spins.add();
  submit();
  bool found = poll_now();
  while (!found && now_us_ - start_us < budget_us) {
    refresh_clock();
    found = poll_now();
  }
  const int64_t spun_us = now_us_ - start_us;
  counters_.spin_us.add(static_cast<uint64_t>(spun_us));
  if (!found) counters_.sleeps.add();
  const size_t count = collect(found ? 0 : timeout_ms, batch);
  refresh_clock();
  spin_.learn(now_us_ - start_us, spun_us);
  return count;
}

void SocketIo::run_once(int timeout_ms) {
  counters_.turns.add();
  refresh_clock();
  run_ready_list();
  flush_graveyard();
  resume_listeners(now_us_ / 1000);
  watch_late();
  size_t count = wait(bound_timeout(timeout_ms), *batch_);
  for (int i = 1;; ++i) {
    counters_.events.add(count);
    for (size_t at = 0; at < count; ++at) on_event((*batch_)[at]);
    // What is collected is out of the kernel, so the last batch of a turn is one that is delivered.
    if (count < kBatchEvents || i == kBatches) break;
    count = collect(0, *batch_);
  }
  feed_starved();
  flush_graveyard();
}

}  // namespace ringway
