// lb/l4_session.cc
#include "lb/l4_session.h"

#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>

#include <utility>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "core/tls_session.h"
#include "lb/tls/client_facts.h"
#include "lb/worker.h"

namespace ringway {

// NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init): tried_ up to tried_count_
L4Session::L4Session(Worker& worker, ShardListener& listener, const PeerAddress& peer)
    : worker_(worker),
      listener_(listener),
      client_(*this, worker.stream_env()),
      timer_(*this),
      start_us_(worker.now_us()),
      peer_(peer) {}

L4Session::~L4Session() {
  RW_CHECK(conn_ == nullptr && server_ == nullptr && upstream_ == nullptr);
  worker_.give_back_origin(origin_);
}

void L4Session::start(int fd) {
  client_.adopt(fd);
  // Read from the start, so that a client that leaves during the connect is noticed.
  client_.set_receiving(true);
  const config::Listener& config = listener_.config();
  if (config.proxy.accept == config::ProxyAccept::kOff) return after_proxy_header();
  start_phase(Phase::kProxyHeader, config.timeouts.proxy_header);
  read_prelude(ProxyInput::kBytes);  // Who may send none is not even listened to.
}

void L4Session::start_phase(Phase phase, int64_t ms) {
  phase_ = phase;
  worker_.timers().cancel(timer_);
  if (ms != config::kOff) worker_.timers().set(timer_, worker_.now_ms() + ms);
}

void L4Session::read_prelude(ProxyInput input) {
  if (phase_ == Phase::kHello) return read_hello(input);
  if (!read_proxy_header(input)) return;
  after_proxy_header();
  if (closing_ || phase_ != Phase::kHello) return;
  // The time of the next phase runs.
  read_hello(input == ProxyInput::kLate ? ProxyInput::kBytes : input);
}

// What the client begins with, behind a PROXY header.
void L4Session::after_proxy_header() {
  const config::Listener& config = listener_.config();
  if (config.preread.sni) return start_phase(Phase::kHello, config.preread.timeout);
  start_phase(Phase::kServer, config::kOff);
  if (client_ended_ && early_.empty()) return end(EndedBy::kClient, "the client closed", false);
  // A reload has taken `preread` away meanwhile.
  if (config.protocol == config::Protocol::kHttp) return become_http();
  if (!config.tls.has_value()) return choose_route({});
  TlsServerContext* context = listener_.tls();
  if (context == nullptr || !client_.start_tls_server(*context)) {
    listener_.stats().refused_memory.add();
    return end(EndedBy::kProxy, "no room for TLS", true);
  }
  start_phase(Phase::kHandshake, config.timeouts.tls_handshake);
  if (early_.empty()) return;
  // What came behind a PROXY header, in one piece with it.
  const std::string bytes(early_.view());
  early_.clear(worker_.chunks());
  client_.feed(std::as_bytes(std::span(bytes)));
}

void L4Session::on_secured(Socket& /*socket*/) {
  start_phase(Phase::kServer, config::kOff);
  listener_.stats().tls_handshakes.add();
  if (client_.tls()->resumed()) listener_.stats().tls_resumed.add();
  choose_route({});
}

// It has failed, or not ended in time.
void L4Session::handshake_over(EndedBy by, std::string_view cause) {
  listener_.stats().tls_failures.add();
  end(by, cause.empty() ? std::string_view("tls_closed") : cause, false);
}

void L4Session::read_hello(ProxyInput input) {
  const size_t bytes_max = listener_.config().preread.hello_bytes;
  tls::ClientHello hello =
      tls::parse_client_hello(early_.view(), bytes_max, worker_.answer_buffer(bytes_max));
  switch (hello.status) {
    case tls::HelloStatus::kNeedMore:
      if (input == ProxyInput::kLate) refuse_hello(PrereadError::kTimeout);
      if (input != ProxyInput::kEnd) return;
      if (early_.empty()) return end(EndedBy::kClient, "the client closed", false);
      return refuse_hello(PrereadError::kTruncated);
    case tls::HelloStatus::kMalformed: return refuse_hello(PrereadError::kMalformed);
    case tls::HelloStatus::kTooLong: return refuse_hello(PrereadError::kTooLong);
    case tls::HelloStatus::kNotTls: hello = {}; break;
    case tls::HelloStatus::kDone: break;
  }
  if (listener_.config().protocol == config::Protocol::kHttp &&
      worker_.tcp_route(listener_.index(), hello) == nullptr) {
    return become_http();
  }
  start_phase(Phase::kServer, config::kOff);
  if (!hello.server_name.empty()) {
    if (origin_ == nullptr) origin_ = worker_.take_origin(listener_, client_.fd());
    // Only the log and PROXY headers would miss it.
    if (origin_ != nullptr) (void)origin_->set(proxy::Tlv::kAuthority, hello.server_name);
  }
  choose_route(hello);
}

// Nobody passes this hello through: the listener answers it. What a client sends before it has an
// answer is its hello only, so nothing is on its way while the socket leaves.
void L4Session::become_http() {
  start_phase(Phase::kLeaving, config::kOff);
  if (client_ended_) return end(EndedBy::kClient, "the client closed", false);
  client_.detach();
}

void L4Session::on_detached(Socket& /*socket*/, int fd, bool clean) {
  RW_CHECK(phase_ == Phase::kLeaving);
  if (closing_ || !clean) {
    worker_.discard(fd);
    early_.clear(worker_.chunks());
    return worker_.session_gone(*this);  // Frees *this: last access.
  }
  const std::string bytes(early_.view());
  early_.clear(worker_.chunks());
  worker_.session_becomes_http(*this, fd, std::exchange(origin_, nullptr), bytes);
}

void L4Session::refuse_hello(PrereadError error) {
  static constexpr std::string_view kCauses[] = {"TLS hello: malformed", "TLS hello: too long",
                                                 "TLS hello: truncated", "TLS hello: timeout"};
  listener_.stats().preread_errors[static_cast<size_t>(error)].add();
  if (error == PrereadError::kTimeout) listener_.stats().timeouts.add();
  end(EndedBy::kProxy, kCauses[static_cast<size_t>(error)], false);
}

// False: there is more to come, or the session is over.
bool L4Session::read_proxy_header(ProxyInput input) {
  const ProxyVerdict verdict =
      judge_proxy_header(listener_.config().proxy, peer_, early_.view(), input);
  switch (verdict.kind) {
    case ProxyVerdict::Kind::kWait:
      if (input == ProxyInput::kEnd) end(EndedBy::kClient, "the client closed", false);
      return false;
    case ProxyVerdict::Kind::kRefused:
      worker_.note_proxy_error(listener_, peer_, verdict.error);
      end(EndedBy::kProxy, kProxyErrorCauses[static_cast<size_t>(verdict.error)], false);
      return false;
    case ProxyVerdict::Kind::kNone: return true;
    case ProxyVerdict::Kind::kHeader: break;
  }
  const proxy::Header& header = verdict.header;
  if (!header.local) {
    origin_ = worker_.take_origin(listener_, client_.fd());
    if (origin_ == nullptr) {
      end(EndedBy::kProxy, "out of memory", true);
      return false;
    }
    origin_->destination = carried_destination(header, origin_->destination);
    origin_->keep_tlvs(header.tlvs);
    peer_ = carried_client(header, peer_);
  }
  early_.consume(worker_.chunks(), header.length);
  return true;
}

void L4Session::choose_route(const tls::ClientHello& hello) {
  const config::Route* route = worker_.tcp_route(listener_.index(), hello);
  if (route == nullptr) return end(EndedBy::kProxy, "no route", false);
  upstream_ = &worker_.upstream(route->upstream);
  ++upstream_->users;
  upstream_->stats().requests.add();
  upstream_->stats().active.add();
  connect_next();
}

// What the balancer's hash is of: the client's address.
uint64_t L4Session::balance_hash() const {
  if (upstream_->config().balance.algorithm != config::Algorithm::kHash) return 0;
  const auto ip = peer_.ip_bytes();
  return hash_bytes(std::as_bytes(ip), HashKey{});
}

void L4Session::no_connection(EndedBy by, std::string_view cause) {
  end(by, failure_.empty() ? cause : failure_, false);
}

void L4Session::connect_next() {
  while (!closing_) {
    if (tried_epoch_ != upstream_->epoch()) tried_count_ = 0;
    tried_epoch_ = upstream_->epoch();
    if (attempts_ > upstream_->config().retry.attempts + upstream_->servers().size()) {
      return no_connection(EndedBy::kServer, "no server could be connected to");
    }
    if (!in_turn_ && upstream_->anyone_waits()) return wait_in_queue();
    const ShardUpstream::Picked picked =
        upstream_->pick(balance_hash(), std::span(tried_).first(tried_count_));
    if (picked.full) return wait_in_queue();
    server_ = picked.server;
    if (server_ == nullptr) {
      upstream_->stats().no_server.add();
      return no_connection(tried_count_ > 0 ? EndedBy::kServer : EndedBy::kProxy,
                           "no server is available");
    }
    if (attempts_++ > 0) upstream_->stats().retries.add();
    std::string_view preface;
    if (!make_proxy_header(true, preface)) return;
    const ServerSlot::Taken taken = server_->slot.open_single(*this, preface);
    if (taken.conn != nullptr) {
      conn_ = taken.conn;
      return;
    }
    if (wait_for_descriptors(taken.error)) return;
    if (!server_->slot.local_failure().empty()) failure_ = server_->slot.local_failure();
    release_server();
  }
}

// Out of descriptors or memory: no server's fault, and soon over, since accepting pauses too. True:
// the same is tried again in a moment, within the connect timeout.
bool L4Session::wait_for_descriptors(int error) {
  if (error != EMFILE && error != ENFILE && error != ENOBUFS && error != ENOMEM) return false;
  const int64_t waited_ms = (worker_.now_us() - start_us_) / 1000;
  if (waited_ms >= upstream_->config().timeouts.connect) return false;
  upstream_->release(*server_);
  server_ = nullptr;
  --attempts_;
  worker_.timers().set(timer_, worker_.now_ms() + kRetryMs);
  return true;
}

void L4Session::wait_in_queue() {
  queued_ = true;
  if (in_turn_) return;
  if (upstream_->enqueue(*this)) return;
  queued_ = false;
  upstream_->stats().queue_full.add();
  end(EndedBy::kProxy, "every server is full, and so is the queue", false);
}

void L4Session::on_turn() {
  RW_CHECK(queued_ && !in_turn_);
  queued_ = false;
  in_turn_ = true;
  connect_next();
  in_turn_ = false;
  if (queued_) upstream_->wait_on(*this);
}

void L4Session::on_queue_timeout() {
  queued_ = false;
  upstream_->stats().queue_timeouts.add();
  end(EndedBy::kProxy, "no server had room in time", false);
}

// Gives up the server that was just tried.
void L4Session::release_server() {
  if (tried_count_ < tried_.size()) tried_[tried_count_++] = server_->index;
  conn_ = nullptr;
  upstream_->release(*server_);
  server_ = nullptr;
}

void L4Session::on_server_connected(int error) {
  if (error != 0) {
    release_server();
    return connect_next();
  }
  connected_us_ = worker_.now_us();
  connected_ = true;
  touch();
  send_early();
}

// What the server is told about the client; empty: nothing, or not at this time, which is before
// its TLS handshake if `preface`, else once it is connected. False: the session has ended.
bool L4Session::make_proxy_header(bool preface, std::string_view& header) {
  const config::Upstream& config = upstream_->config();
  if (config.send_proxy == config::ProxySend::kOff) return true;
  if (server_->slot.sends_preface() != preface) return true;
  if (origin_ == nullptr) origin_ = worker_.take_origin(listener_, client_.fd());
  if (origin_ == nullptr) {
    end(EndedBy::kProxy, "out of memory", true);
    return false;
  }
  header = worker_.proxy_header(config.send_proxy, config.send_proxy_tlvs, peer_, client_.tls(),
                                *origin_);
  return true;
}

// That, and what the client has said, in one send.
void L4Session::send_early() {
  std::string_view header;
  if (!make_proxy_header(false, header)) return;
  const std::string_view bytes = early_.view();
  if (!header.empty() || !bytes.empty()) {
    const iovec pieces[] = {
        {.iov_base = const_cast<char*>(header.data()), .iov_len = header.size()},
        {.iov_base = const_cast<char*>(bytes.data()), .iov_len = bytes.size()}};
    server_->stats().bytes_sent.add(header.size() + bytes.size());
    if (!conn_->write(pieces)) return server_takes_no_more();
    early_.clear(worker_.chunks());
  }
  if (client_ended_) return conn_->shutdown_send();
  client_.set_receiving(!conn_->above_high_water());
}

// It may still have something to say; its end tells (on_server_end).
void L4Session::server_takes_no_more() {
  send_broken_ = true;
  early_.clear(worker_.chunks());
  client_.set_receiving(false);
  if (!server_ended_) return;
  client_ended_ = true;
  finish_if_both_ended();
}

// Something moved: the session is not idle.
void L4Session::touch() {
  const config::Timeouts& timeouts = upstream_->config().timeouts;
  const int64_t ms = client_ended_ || server_ended_ ? timeouts.half_closed : timeouts.tunnel_idle;
  if (ms != config::kOff) worker_.timers().set(timer_, worker_.now_ms() + ms);
}

void L4Session::on_receive(Socket& /*socket*/, std::span<const std::byte> bytes) {
  bytes_in_ += bytes.size();
  listener_.stats().bytes_received.add(bytes.size());
  if (!connected_) {
    const std::string_view text{reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    if (!early_.append(worker_.chunks(), text, SIZE_MAX)) {
      return end(EndedBy::kProxy, "out of buffers", true);
    }
    if (phase_ != Phase::kServer) read_prelude(ProxyInput::kBytes);
    if (closing_ || phase_ != Phase::kServer) return;
    if (early_.size() >= Stream::kLowWaterBytes) client_.set_receiving(false);
    return;
  }
  server_->stats().bytes_sent.add(bytes.size());
  touch();
  const iovec piece{.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};
  if (!conn_->write({&piece, 1})) return server_takes_no_more();
  if (conn_->above_high_water()) client_.set_receiving(false);
}

void L4Session::on_server_drained() {
  touch();
  if (client_reset_) return end_after_reset();
  if (!client_ended_ && !send_broken_) client_.set_receiving(true);
  finish_if_both_ended();
}

void L4Session::on_receive_end(Socket& /*socket*/, int error) {
  client_ended_ = true;
  if (phase_ == Phase::kHandshake) {
    return handshake_over(EndedBy::kClient, client_.tls()->failure().text());
  }
  if (error != 0) return end(EndedBy::kClient, "the client reset", true);
  if (phase_ != Phase::kServer) return read_prelude(ProxyInput::kEnd);
  if (!connected_) {
    // With bytes it may have said all that it has to say; without, it is gone.
    if (early_.empty()) end(EndedBy::kClient, "the client closed", false);
    return;
  }
  if (!send_broken_) conn_->shutdown_send();
  touch();
  finish_if_both_ended();
}

void L4Session::on_reset(Socket& /*socket*/, int /*error*/) {
  if (!connected_) return end(EndedBy::kClient, "the client reset", true);
  client_reset_ = true;
  conn_->set_receiving(false);
  end_after_reset();
}

// A side that had said all has reset. What it said still goes out; then the other one hears of the
// reset too, unless the kernel has not delivered all of it: a reset would destroy that.
void L4Session::end_after_reset() {
  RW_CHECK(client_reset_ || server_reset_);
  const size_t queued = client_reset_ ? conn_->queued() : client_.queued();
  if (queued > 0 && !(client_reset_ && send_broken_)) return;  // on_server_drained(), on_writable()
  int left = 0;
  const int fd = client_reset_ ? conn_->fd() : client_.fd();
  const bool delivered = ioctl(fd, SIOCOUTQ, &left) != 0 || left == 0;
  client_reset_ ? end(EndedBy::kClient, "the client reset", delivered)
                : end(EndedBy::kServer, "the server reset", delivered);
}

void L4Session::on_server_bytes(std::span<const std::byte> bytes) {
  if (client_reset_) return;
  bytes_out_ += bytes.size();
  listener_.stats().bytes_sent.add(bytes.size());
  touch();
  const iovec piece{.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};
  if (!client_.write({&piece, 1})) return end(EndedBy::kClient, "the client is gone", true);
  if (client_.above_high_water()) conn_->set_receiving(false);
}

void L4Session::on_writable(Socket& /*socket*/) {
  if (closing_) return;
  if (!client_.flush()) return end(EndedBy::kClient, "the client is gone", true);
  touch();
  if (server_reset_) return end_after_reset();
  if (client_.queued() <= Stream::kLowWaterBytes && conn_ != nullptr && !server_ended_) {
    conn_->set_receiving(true);
  }
  finish_if_both_ended();
}

void L4Session::on_server_end(int error) {
  if (server_ended_ && error != 0) {
    server_reset_ = true;
    client_.set_receiving(false);
    return end_after_reset();
  }
  server_ended_ = true;
  if (error != 0) return end(EndedBy::kServer, "the server reset", true);
  if (send_broken_) client_ended_ = true;
  client_.shutdown_send();
  touch();
  finish_if_both_ended();
}

void L4Session::finish_if_both_ended() {
  if (!client_ended_ || !server_ended_) return;
  RW_CHECK(conn_ != nullptr);  // end() gives it up, and nothing comes after that.
  if (client_.queued() > 0 || (conn_->queued() > 0 && !send_broken_)) return;
  end(EndedBy::kNobody, {}, false);
}

void L4Session::on_server_timeout() {
  RW_CHECK(false);  // Layer 4 has one timer of its own.
}

void L4Session::on_timer(Timer& /*timer*/) {
  if (phase_ == Phase::kHandshake) {
    listener_.stats().timeouts.add();
    return handshake_over(EndedBy::kProxy, "the TLS handshake did not end in time");
  }
  if (phase_ != Phase::kServer) return read_prelude(ProxyInput::kLate);
  if (!connected_) return connect_next();
  const bool half = client_ended_ || server_ended_;
  end(EndedBy::kProxy, half ? "half-closed for too long" : "idle for too long", true);
}

void L4Session::on_connected(Socket& /*socket*/, int /*error*/) {
  RW_CHECK(false);  // Accepted sockets are connected already.
}

void L4Session::close() {
  end(EndedBy::kProxy, "the balancer stops", connected_);
}

// Ends both sides. A reset of one is passed on to the other, and what the balancer itself cuts is
// reset, so that neither takes a cut stream for a complete one.
void L4Session::end(EndedBy by, std::string_view cause, bool reset) {
  if (closing_) return;
  closing_ = true;
  ended_by_ = by;
  cause_ = cause;
  worker_.timers().cancel(timer_);
  early_.clear(worker_.chunks());
  if (conn_ != nullptr) {
    const bool cut = reset || send_broken_;  // Not all of the client's bytes went out.
    cut ? server_->slot.discard_with_reset(*conn_, CloseReason::kLayer4)
        : server_->slot.discard(*conn_, CloseReason::kLayer4);
    conn_ = nullptr;
  }
  if (is_waiting()) upstream_->leave_queue(*this);
  queued_ = false;
  log();
  if (server_ != nullptr) {
    upstream_->release(*server_);
    server_ = nullptr;
  }
  if (upstream_ != nullptr) {
    upstream_->stats().active.sub();
    --upstream_->users;
    upstream_ = nullptr;
  }
  listener_.stats().duration.record(static_cast<uint64_t>(worker_.now_us() - start_us_));
  if (by == EndedBy::kClient) listener_.stats().client_aborts.add();
  reset ? client_.abort() : client_.close();
}

void L4Session::on_closed(Socket& /*socket*/) {
  RW_CHECK(closing_);
  worker_.session_gone(*this);  // Frees *this: last access.
}

void L4Session::log() {
  if (!worker_.logs_access()) return;
  AccessRecord record;
  record.protocol = AccessRecord::Protocol::kTcp;
  record.timestamp_us = worker_.wall_us() - (worker_.now_us() - start_us_);
  record.client = peer_;
  record.listener = listener_.config().name;
  if (upstream_ != nullptr) record.upstream = upstream_->name();
  if (server_ != nullptr) record.server = server_->object->name;
  log_client_origin(origin_, record);
  log_client_tls(client_.tls(), record);
  record.bytes_received = bytes_in_;
  record.bytes_sent = bytes_out_;
  record.total_us = worker_.now_us() - start_us_;
  if (connected_us_ != 0) record.connect_us = connected_us_ - start_us_;
  record.attempts = attempts_;
  switch (ended_by_) {
    case EndedBy::kNobody: record.ended_by = AccessRecord::EndedBy::kNone; break;
    case EndedBy::kClient: record.ended_by = AccessRecord::EndedBy::kClient; break;
    case EndedBy::kServer: record.ended_by = AccessRecord::EndedBy::kServer; break;
    case EndedBy::kProxy: record.ended_by = AccessRecord::EndedBy::kProxy; break;
  }
  record.cause = cause_;
  worker_.log_access(record);
}

}  // namespace ringway
