// tests/support/sim_net.cc - the clock, the event queue, descriptors and connecting.
#include "tests/support/sim_net.h"

#include <errno.h>
#include <string.h>

#include <algorithm>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "tests/support/sim_io.h"

namespace ringway {
namespace {

constexpr int kFirstFd = 1'000'000;  // No kernel descriptor is that high.
constexpr int kSynRepeatsMax = 6;

bool later(const auto& a, const auto& b) {
  return a.at_us != b.at_us ? a.at_us > b.at_us : a.sequence > b.sequence;
}

void set_port(ServerAddress& address, uint16_t port) {
  if (address.storage.ss_family == AF_INET) {
    reinterpret_cast<sockaddr_in&>(address.storage).sin_port = htons(port);
  } else {
    reinterpret_cast<sockaddr_in6&>(address.storage).sin6_port = htons(port);
  }
}

// The key of a listener on all addresses that takes connections to `server`; empty for unix.
std::string wildcard_of(const ServerAddress& server) {
  const std::string text = server.text();
  if (server.storage.ss_family == AF_UNIX) return {};
  const std::string port = text.substr(text.rfind(':'));
  return (server.storage.ss_family == AF_INET ? "0.0.0.0" : "[::]") + port;
}

}  // namespace

SimNet::SimNet(const SimOptions& options)
    : seed_(options.seed), prng_(options.seed), faults_(prng_, options.faults), options_(options) {}

SimNet::~SimNet() {
  RW_CHECK(members_.empty());
}

void SimNet::stop_faults() {
  faults_.stop();
  faults_stopped_ = true;
}

std::string SimNet::describe() const {
  return "seed " + std::to_string(seed_) + ", faults " + faults_.text() + ", step " +
         std::to_string(steps_) + ", at " + std::to_string(now_us_) + " us";
}

void SimNet::trace(uint64_t kind, uint64_t a, uint64_t b) {
  const uint64_t word = kind ^ (a << 8) ^ (b << 32) ^ (static_cast<uint64_t>(now_us_) << 16);
  trace_hash_ = mix_bits(trace_hash_ * 31 + word);
}

// ---- Turns and the clock.

void SimNet::attach_io(SimIo& io) {
  members_.push_back({&io, nullptr});
}

void SimNet::detach_io(SimIo& io) {
  std::erase_if(members_, [&](const Member& member) { return member.io == &io; });
}

void SimNet::set_loop(SimIo& io, SimLoop* loop) {
  for (Member& member : members_) {
    if (member.io == &io) member.loop = loop;
  }
}

void SimNet::at(int64_t at_us, Event::Kind kind, const SimRef& ref, uint64_t argument) {
  heap_.push_back({std::max(at_us, now_us_), sequence_++, kind, ref, argument});
  std::push_heap(heap_.begin(), heap_.end(), later<Event, Event>);
}

bool SimNet::run_turns() {
  bool any = false;
  order_ = members_;
  for (size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[prng_.below(i)]);
  for (const Member& member : order_) {
    const bool due = member.loop != nullptr && member.loop->deadline_us() <= now_us_;
    if (!due && !member.io->has_work() && !hit(Fault::kIdleTurn)) continue;
    any = any || due || member.io->has_work();
    if (member.loop != nullptr) {
      member.loop->turn();
    } else {
      member.io->run_once(0);
    }
  }
  return any;
}

bool SimNet::step_until(int64_t limit_us) {
  RW_CHECK(!stepping_);
  stepping_ = true;
  ++steps_;
  while (!heap_.empty() && heap_.front().at_us <= now_us_) {
    std::pop_heap(heap_.begin(), heap_.end(), later<Event, Event>);
    const Event event = heap_.back();
    heap_.pop_back();
    dispatch(event);
  }
  bool more = run_turns();
  if (more) {
    ++now_us_;  // Work takes time: what polls the clock gets on.
  } else {
    int64_t next_us = heap_.empty() ? SimLoop::kNever : heap_.front().at_us;
    for (const Member& member : members_) {
      if (member.loop != nullptr) next_us = std::min(next_us, member.loop->deadline_us());
    }
    more = next_us <= limit_us && next_us != SimLoop::kNever;
    if (more || limit_us != SimLoop::kNever) {
      now_us_ = std::max(now_us_, std::min(next_us, limit_us));
    }
  }
  stepping_ = false;
  return more;
}

bool SimNet::step() {
  return step_until(SimLoop::kNever);
}

void SimNet::run_for(int64_t us, uint64_t max_steps) {
  const int64_t end_us = now_us_ + us;
  for (uint64_t i = 0; i < max_steps && now_us_ < end_us; ++i) step_until(end_us);
}

void SimNet::wait_for(SimIo& io, int timeout_ms) {
  const uint64_t before = io.events();
  const int64_t limit_us = timeout_ms < 0 ? SimLoop::kNever : now_us_ + int64_t{1'000} * timeout_ms;
  while (step_until(limit_us) && io.events() == before && now_us_ < limit_us) {
  }
}

uint64_t SimNet::start_timer(int64_t delay_us, SimTimerOwner& owner, uint32_t tag) {
  if (free_timers_.empty()) {
    timers_.emplace_back();
    free_timers_.push_back(static_cast<uint32_t>(timers_.size() - 1));
  }
  const uint32_t slot = free_timers_.back();
  free_timers_.pop_back();
  Timer& timer = timers_[slot];
  timer.owner = &owner;
  timer.tag = tag;
  ++timer.generation;
  const uint64_t number = uint64_t{timer.generation} << 32 | slot;
  at(now_us_ + delay_us, Event::Kind::kTimer, {}, number);
  return number;
}

void SimNet::cancel_timer(uint64_t timer) {
  const auto slot = static_cast<uint32_t>(timer);
  if (slot >= timers_.size() || timers_[slot].generation != timer >> 32) return;
  if (timers_[slot].owner == nullptr) return;
  timers_[slot].owner = nullptr;
  free_timers_.push_back(slot);
}

void SimNet::dispatch(const Event& event) {
  if (event.kind == Event::Kind::kTimer) {
    const auto slot = static_cast<uint32_t>(event.argument);
    const Timer timer = timers_[slot];
    if (timer.owner == nullptr || timer.generation != event.argument >> 32) return;
    cancel_timer(event.argument);
    trace(100, timer.tag, slot);
    return timer.owner->on_sim_timer(timer.tag);
  }
  if (event.kind == Event::Kind::kTouch || event.kind == Event::Kind::kWake) {
    for (const Member& member : members_) {
      if (reinterpret_cast<uintptr_t>(member.io) != event.argument) continue;
      event.kind == Event::Kind::kTouch ? member.io->touch() : member.io->ring();
    }
    return;
  }
  Conn* conn = find(event.ref);
  if (conn == nullptr) return;
  SimEnd& end = conn->ends[event.ref.side];
  switch (event.kind) {
    case Event::Kind::kSyn: return on_syn(*conn, event.ref);
    case Event::Kind::kConnected:
      end.connect_done = true;
      end.connect_error = static_cast<int>(event.argument);
      return notify(*conn, event.ref);
    case Event::Kind::kBytes: return on_bytes(*conn, event.ref, event.argument);
    case Event::Kind::kFin: return on_fin(*conn, event.ref);
    case Event::Kind::kReset: return on_reset(*conn, event.ref, event.argument != 0);
    case Event::Kind::kAck: return on_ack(*conn, event.ref);
    case Event::Kind::kTouch:
    case Event::Kind::kWake:
    case Event::Kind::kTimer: return;
  }
}

// ---- Descriptors and connections.

SimNet::Descriptor& SimNet::descriptor(int fd) {
  RW_CHECK(fd >= kFirstFd && static_cast<size_t>(fd - kFirstFd) < descriptors_.size());
  Descriptor& found = descriptors_[static_cast<size_t>(fd - kFirstFd)];
  RW_CHECK(found.kind != Descriptor::Kind::kNone);  // Closed already.
  return found;
}

const SimNet::Descriptor& SimNet::descriptor(int fd) const {
  return const_cast<SimNet*>(this)->descriptor(fd);
}

SimNet::Conn* SimNet::find(const SimRef& ref) {
  if (ref.slot >= conns_.size()) return nullptr;
  Conn& conn = *conns_[ref.slot];
  return conn.generation == ref.generation ? &conn : nullptr;
}

int SimNet::open_fd(const SimRef& ref) {
  descriptors_.push_back({Descriptor::Kind::kEnd, ref, 0});
  const int fd = kFirstFd + static_cast<int>(descriptors_.size()) - 1;
  conns_[ref.slot]->ends[ref.side].fd = fd;
  ++live_sockets_;
  return fd;
}

// The end's owner is done with it. The slot is used again when both are.
void SimNet::release(const SimRef& ref) {
  Conn& conn = *conns_[ref.slot];
  SimEnd& end = conn.ends[ref.side];
  RW_CHECK(end.alive && end.socket == nullptr);
  if (end.fd >= 0) {
    descriptor(end.fd).kind = Descriptor::Kind::kNone;
    --live_sockets_;
  }
  end.fd = -1;
  end.alive = false;
  end.io = nullptr;
  if (conn.ends[0].alive || conn.ends[1].alive) return;
  ++conn.generation;
  free_conns_.push_back(ref.slot);
}

uint64_t SimNet::draw_capacity() {
  if (options_.window_bytes != 0) return options_.window_bytes;
  const uint64_t shift = prng_.between(12, 18);
  const uint64_t usual = prng_.between(uint64_t{1} << (shift - 1), uint64_t{1} << shift);
  return hit(Fault::kTinyWindow) ? prng_.between(1, 512) : usual;
}

SimRef SimNet::make_conn(const ServerAddress& server) {
  if (free_conns_.empty()) {
    conns_.push_back(std::make_unique<Conn>());
    free_conns_.push_back(static_cast<uint32_t>(conns_.size() - 1));
  }
  const uint32_t slot = free_conns_.back();
  free_conns_.pop_back();
  Conn& conn = *conns_[slot];
  const uint32_t generation = conn.generation;
  conn = Conn{};
  conn.generation = generation;
  conn.server = server;
  conn.record = records_.size();
  records_.emplace_back().server = server.text();
  conn.latency_us = prng_.between(options_.latency_us_min, options_.latency_us_max);
  for (SimEnd& end : conn.ends) end.in.capacity = draw_capacity();
  return {slot, generation, 0};
}

std::pair<int, int> SimNet::make_pair() {
  SimRef ref = make_conn({});
  Conn& conn = *conns_[ref.slot];
  records_[conn.record].established = true;
  conn.ends[0].alive = conn.ends[1].alive = true;
  const int first = open_fd(ref);
  ref.side = 1;
  return {first, open_fd(ref)};
}

const SimRecord& SimNet::record_of(int fd) const {
  return records_[conns_[descriptor(fd).ref.slot]->record];
}

SimFlow& SimNet::flow_to(Conn& conn, uint32_t side) {
  SimRecord& record = records_[conn.record];
  return side == 1 ? record.from_client : record.from_server;
}

// ---- Listening and connecting.

int SimNet::make_listener(const ServerAddress& address, size_t backlog) {
  auto listener = std::make_unique<Listener>();
  listener->address = address;
  if (address.storage.ss_family != AF_UNIX && address.text().ends_with(":0")) {
    set_port(listener->address, next_port_++);
  }
  listener->key = listener->address.text();
  listener->backlog = backlog;
  const auto index = static_cast<uint32_t>(listeners_.size());
  descriptors_.push_back({Descriptor::Kind::kListener, {}, index});
  listener->fd = kFirstFd + static_cast<int>(descriptors_.size()) - 1;
  groups_[listener->key].push_back(index);
  listeners_.push_back(std::move(listener));
  return listeners_.back()->fd;
}

SimNet::Listener& SimNet::listener_of(int fd) {
  const Descriptor& found = descriptor(fd);
  RW_CHECK(found.kind == Descriptor::Kind::kListener);
  return *listeners_[found.listener];
}

const ServerAddress& SimNet::address_of(int listener_fd) const {
  return const_cast<SimNet*>(this)->listener_of(listener_fd).address;
}

size_t SimNet::live_listeners() const {
  size_t count = 0;
  for (const auto& listener : listeners_) count += listener->fd >= 0 ? 1 : 0;
  return count;
}

void SimNet::close_listener(int listener_fd) {
  Listener& listener = listener_of(listener_fd);
  RW_CHECK(listener.io == nullptr);  // unlisten() comes first.
  Descriptor& closed = descriptor(listener_fd);
  stop_listening(listener);
  closed.kind = Descriptor::Kind::kNone;
  listener.fd = -1;
  for (const SimRef& ref : listener.queue) {
    close_end(ref, true);
    release(ref);
  }
  listener.queue.clear();
}

// As shutdown(2) of a listening socket: the next one who connects is refused.
void SimNet::stop_listening(Listener& listener) {
  listener.deaf = true;
  std::erase(groups_[listener.key], descriptor(listener.fd).listener);
}

void SimNet::set_unreachable(const ServerAddress& address, bool unreachable) {
  unreachable_[address.text()] = unreachable;
}

SimNet::Listener* SimNet::pick_listener(const ServerAddress& server, uint64_t hash) {
  for (const std::string& key : {server.text(), wildcard_of(server)}) {
    const auto group = groups_.find(key);
    if (group == groups_.end() || group->second.empty()) continue;
    return listeners_[group->second[hash % group->second.size()]].get();
  }
  return nullptr;
}

void SimNet::set_foreign(const PeerAddress& address, bool foreign) {
  std::erase(foreign_, address);
  if (foreign) foreign_.push_back(address);
}

int SimNet::start_connect(SimIo& io, Socket& socket, const ServerAddress& server,
                          const PeerAddress& source) {
  if (hit(Fault::kNoAttempt)) {
    constexpr std::array kErrors = {EADDRNOTAVAIL, EMFILE, ENOBUFS, ENETUNREACH};
    return kErrors[prng_.below(kErrors.size())];
  }
  const bool unix_path = server.storage.ss_family == AF_UNIX;
  if (unix_path) {  // Connecting to a path fails at once, or not at all.
    const Listener* listener = pick_listener(server, 0);
    if (listener == nullptr) return ENOENT;
    if (listener->queue.size() >= listener->backlog) return EAGAIN;
  }
  const SimRef ref = make_conn(server);
  Conn& conn = *conns_[ref.slot];
  if (!unix_path) {
    records_[conn.record].client = source;
    conn.client = source;
    conn.client.port = next_client_port_++;
    if (next_client_port_ == 0) next_client_port_ = 32'768;
  }
  SimEnd& end = conn.ends[0];
  end.alive = end.connecting = true;
  io.attach(socket, open_fd(ref));
  trace(101, ref.slot, conn.record);
  at(now_us_ + static_cast<int64_t>(conn.latency_us), Event::Kind::kSyn, ref);
  return 0;
}

void SimNet::finish_connect(Conn& conn, const SimRef& ref, int error, int64_t delay_us) {
  records_[conn.record].connect_error = error;
  const int64_t back_us = now_us_ + static_cast<int64_t>(conn.latency_us) + delay_us;
  at(back_us, Event::Kind::kConnected, ref, static_cast<uint64_t>(error));
}

void SimNet::repeat_syn(Conn& conn, const SimRef& ref) {
  if (conn.syn_repeats >= kSynRepeatsMax) return finish_connect(conn, ref, ETIMEDOUT, 0);
  at(now_us_ + (int64_t{1'000'000} << conn.syn_repeats), Event::Kind::kSyn, ref);
  ++conn.syn_repeats;
}

void SimNet::on_syn(Conn& conn, const SimRef& ref) {
  if (conn.ends[0].closing) return;
  const auto unreachable = unreachable_.find(records_[conn.record].server);
  const bool lost = hit(Fault::kLostSyn);
  if (lost || (unreachable != unreachable_.end() && unreachable->second)) {
    return repeat_syn(conn, ref);
  }
  if (hit(Fault::kRefuse)) {
    constexpr std::array kErrors = {ECONNREFUSED, ECONNREFUSED, EHOSTUNREACH, ETIMEDOUT};
    return finish_connect(conn, ref, kErrors[prng_.below(kErrors.size())], 0);
  }
  Listener* listener = pick_listener(conn.server, mix_bits(conn.client.port + conn.record));
  if (listener == nullptr) return finish_connect(conn, ref, ECONNREFUSED, 0);
  if (listener->queue.size() >= listener->backlog) return repeat_syn(conn, ref);
  conn.ends[1].alive = true;
  records_[conn.record].established = true;
  listener->queue.push_back({ref.slot, ref.generation, 1});
  if (listener->io != nullptr) listener->io->touch();
  const bool late = hit(Fault::kLateConnect);
  finish_connect(
      conn, ref, 0,
      late ? static_cast<int64_t>(prng_.below(uint64_t{1} << prng_.between(10, 24))) : 0);
  if (hit(Fault::kReset)) {
    const uint64_t delay_us = prng_.below(uint64_t{1} << prng_.between(8, 23));
    plan_hard_reset(conn, ref, now_us_ + static_cast<int64_t>(delay_us));
  }
}

int SimNet::accept(Listener& listener, PeerAddress& peer) {
  const SimRef ref = listener.queue.front();
  listener.queue.erase(listener.queue.begin());
  peer = find(ref)->client;
  trace(102, ref.slot, static_cast<uint64_t>(listener.fd));
  return open_fd(ref);
}

}  // namespace ringway
