// lb/client_conn.cc
#include "lb/client_conn.h"

#include <errno.h>

#include <algorithm>

#include "core/base/check.h"
#include "core/tls_session.h"
#include "lb/exchange.h"
#include "lb/http2_client.h"
#include "lb/worker.h"

namespace ringway {

using http1::HeadError;
using http1::HeadParser;

ClientConn::ClientConn(Worker& worker, ShardListener& listener, const PeerAddress& peer)
    : worker_(worker),
      listener_(listener),
      stream_(*this, worker.stream_env()),
      timer_(*this),
      private_conns_(worker.session_entries()) {
  set_peer(peer);
}

ClientConn::~ClientConn() {
  RW_CHECK(exchange_ == nullptr && http2_ == nullptr);
  RW_CHECK(parser_ == nullptr);
  worker_.give_back_origin(origin_);
}

void ClientConn::set_peer(const PeerAddress& peer) {
  peer_ = peer;
  const auto& trusted = listener_.config().trusted_proxies;
  trusted_ = std::any_of(trusted.begin(), trusted.end(),
                         [&](const Network& network) { return network.contains(peer); });
}

ClientOrigin* ClientConn::origin() {
  if (origin_ == nullptr) origin_ = worker_.take_origin(listener_, stream_.fd());
  return origin_;
}

TlsVerdict ClientConn::certificate() const {
  return tls() == nullptr ? TlsVerdict::kNone : tls()->verdict();
}

const ClientIdentity* ClientConn::identity() {
  if (identity_ == nullptr && certificate() != TlsVerdict::kNone) {
    identity_ = std::make_unique<ClientIdentity>(*tls());
  }
  return identity_.get();
}

void ClientConn::start(int fd) {
  stream_.adopt(fd);
  stream_.set_receiving(true);
  if (listener_.config().proxy.accept == config::ProxyAccept::kOff) return begin({});
  awaits_proxy_ = true;
  wait_for(Wait::kProxyHeader, listener_.config().timeouts.proxy_header);
  size_t used = 0;
  // Who may send none is not even listened to.
  if (read_proxy_header({}, ProxyInput::kBytes, used)) begin({});
}

void ClientConn::go_on(int fd, ClientOrigin* origin, std::string_view bytes) {
  origin_ = origin;
  stream_.adopt(fd);
  stream_.set_receiving(true);
  begin(bytes);
}

// What the connection begins with, behind a PROXY header: a TLS handshake, or a request. `bytes`
// are what came of a handshake already.
void ClientConn::begin(std::string_view bytes) {
  const config::Timeouts& timeouts = listener_.config().timeouts;
  if (!listener_.config().tls.has_value()) {
    return wait_for(Wait::kFirstHead, timeouts.request_headers);
  }
  TlsServerContext* context = listener_.tls();
  if (context == nullptr || !stream_.start_tls_server(*context)) {
    listener_.stats().refused_memory.add();
    return close();
  }
  wait_for(Wait::kHandshake, timeouts.tls_handshake);
  if (!bytes.empty()) stream_.feed(std::as_bytes(std::span(bytes)));
}

void ClientConn::on_secured(Socket& /*socket*/) {
  version_settled_ = true;  // By ALPN: nothing else speaks HTTP/2 over TLS (RFC 9113 3.3).
  if (stream_.tls()->alpn() == "h2" && !begin_http2()) return;
  if (!in_early_data()) handshake_done();
}

void ClientConn::handshake_done() {
  listener_.stats().tls_handshakes.add();
  if (stream_.tls()->resumed()) listener_.stats().tls_resumed.add();
  wait_for(Wait::kFirstHead, listener_.config().timeouts.request_headers);
}

bool ClientConn::in_early_data() const {
  return tls() != nullptr && tls()->early();
}

// Requests that came as early data and waited for this can go on.
void ClientConn::on_confirmed(Socket& /*socket*/) {
  early_left_ = static_cast<uint32_t>(in_.size());
  const bool lingers = lingering_;
  handshake_done();
  if (lingers) {
    // The answer was the last one, and its close_notify had to wait for this.
    stream_.shutdown_send();
    return wait_for(Wait::kLinger, kLingerMs);
  }
  if (http2_ != nullptr) http2_->on_confirmed();
  if (exchange_ != nullptr && exchange_->awaits_handshake()) exchange_->on_handshake_done();
  if (stream_.open()) update_receiving();
}

bool ClientConn::read_proxy_header(std::string_view bytes, ProxyInput input, size_t& used) {
  const ProxyVerdict verdict = judge_proxy_header(listener_.config().proxy, peer_, bytes, input);
  switch (verdict.kind) {
    case ProxyVerdict::Kind::kWait:
      if (input == ProxyInput::kEnd) close();
      return false;
    case ProxyVerdict::Kind::kRefused: refuse_proxy_header(verdict.error); return false;
    case ProxyVerdict::Kind::kHeader: {
      const bool carries = !verdict.header.local;
      if (carries) {
        if (origin() == nullptr) {
          close();
          return false;
        }
        origin_->destination = carried_destination(verdict.header, origin_->destination);
        origin_->carried = verdict.header.family != proxy::Family::kUnspecified;
        origin_->keep_tlvs(verdict.header.tlvs);
        set_peer(carried_client(verdict.header, peer_));
      }
      used += verdict.header.length;
      break;
    }
    case ProxyVerdict::Kind::kNone: break;
  }
  awaits_proxy_ = false;
  return true;
}

void ClientConn::refuse_proxy_header(ProxyError error) {
  worker_.note_proxy_error(listener_, peer_, error);
  AccessRecord record;
  record.timestamp_us = worker_.wall_us();
  record.client = peer_;
  record.listener = listener_.config().name;
  record.ended_by = AccessRecord::EndedBy::kProxy;
  record.cause = kProxyErrorCauses[static_cast<size_t>(error)];
  worker_.log_access(record);
  close();
}

// Nothing of it is for a server, or for the access log.
void ClientConn::handshake_failed(std::string_view cause) {
  listener_.stats().tls_failures.add();
  char ip[46];
  const std::string_view pieces[] = {"TLS handshake failed: client ",
                                     peer_.write_ip(ip),
                                     ", listener ",
                                     listener_.config().name,
                                     ", ",
                                     cause};
  worker_.log_event(pieces);
}

void ClientConn::wait_for(Wait what, int64_t ms) {
  wait_ = what;
  // A timer that fires while nothing is waited for does nothing; cancelling it would cost more.
  if (what == Wait::kNothing || ms == config::kOff) return;
  worker_.timers().set(timer_, worker_.now_ms() + ms);
}

void ClientConn::on_connected(Socket& /*socket*/, int /*error*/) {
  RW_CHECK(false);  // Accepted sockets are connected already.
}

void ClientConn::on_receive(Socket& /*socket*/, std::span<const std::byte> bytes) {
  listener_.stats().bytes_received.add(bytes.size());
  if (lingering_) return;
  const std::string_view text{reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  if (in_.empty()) {
    const size_t used = consume(text);
    if (!stream_.open() || lingering_) return;
    if (!in_.append(worker_.chunks(), text.substr(used), SIZE_MAX)) return close();
  } else {
    if (!in_.append(worker_.chunks(), text, SIZE_MAX)) return close();
    resume_input();
  }
  update_receiving();
}

// After consume(): what is left is kept, and the deadline follows what is waited for.
void ClientConn::resume_input() {
  if (consuming_ || !stream_.open() || lingering_) return;
  const size_t used = consume(in_.view());
  if (!stream_.open() || lingering_) return in_.clear(worker_.chunks());
  in_.consume(worker_.chunks(), used);
  if (input_ended_) {
    if (exchange_ == nullptr) return begin_linger();
    // What waited has been used up, so now the exchange can be told.
    if (in_.empty()) exchange_->on_client_end(0);
    return;
  }
  update_receiving();
}

size_t ClientConn::consume(std::string_view bytes) {
  RW_CHECK(!consuming_);
  consuming_ = true;
  size_t used = 0;
  bool settled = !awaits_proxy_;
  if (!settled && read_proxy_header(bytes, ProxyInput::kBytes, used)) {
    settled = !listener_.config().tls.has_value();
    begin(settled ? std::string_view() : bytes.substr(used));
    if (!settled) used = bytes.size();
  }
  while (settled && stream_.open() && !lingering_) {
    const std::string_view rest = bytes.substr(used);
    if (!version_settled_ && !settle_version(rest)) break;
    if (http2_ != nullptr) {
      used += http2_->feed(rest);
      break;
    }
    if (exchange_ != nullptr) {
      used += exchange_->on_request_bytes(rest);
      if (exchange_ != nullptr) break;  // It waits for its server, the client, or more of the body.
      continue;
    }
    // Answers of our own could pile up for a client that pipelines and does not read.
    if (rest.empty() || stream_.above_high_water()) break;
    if (!read_head(rest, used)) break;
  }
  consuming_ = false;
  early_left_ -= static_cast<uint32_t>(std::min<size_t>(early_left_, used));
  return used;
}

bool ClientConn::read_head(std::string_view bytes, size_t& used) {
  const config::Limits& limits = listener_.config().limits;
  if (parser_ == nullptr) {
    parser_ = worker_.take_parser();
    parser_->start_request({.header_bytes = limits.header_bytes,
                            .fields = limits.headers,
                            .uri_bytes = limits.uri_bytes});
  }
  switch (parser_->parse(bytes)) {
    case HeadParser::Status::kNeedMore: return false;
    case HeadParser::Status::kError: refuse_head(); return false;
    case HeadParser::Status::kDone: break;
  }
  HeadParser* parser = parser_;
  parser_ = nullptr;
  ++requests_;
  used += parser->head().head_len;
  const bool early = in_early_data() || used <= early_left_;
  exchange_ = worker_.exchanges().take(worker_, *this);
  if (exchange_ == nullptr) {
    worker_.give_back_parser(parser);
    listener_.stats().refused_memory.add();
    refuse(503, "no memory for another request", 0);
    return false;
  }
  exchange_->start(parser, bytes.substr(0, parser->head().head_len), early);
  return true;
}

void ClientConn::refuse_head() {
  const HeadError error = parser_->error();
  refuse(static_cast<uint16_t>(http1::status_of(error)), http1::phrase_of(error),
         parser_->error_at());
}

// Answers a client whose request cannot be made sense of, and closes: where its next request would
// begin is unknown.
void ClientConn::refuse(uint16_t status, std::string_view cause, uint32_t offset) {
  note_refusal(status, cause, offset);
  char body[160];
  http1::Out text(std::span<char>(body, sizeof body));
  text.put_number(status);
  text.put(" ");
  text.put(http1::reason_phrase(status));
  text.put(": ");
  text.put(cause);
  text.put("\n");
  http1::Out out(worker_.render_buffer());
  RW_CHECK(http1::write_own_response({.status = status, .body = text.written()}, out));
  const std::string_view answer = out.written();
  const iovec piece{.iov_base = const_cast<char*>(answer.data()), .iov_len = answer.size()};
  if (write({&piece, 1})) begin_linger();
}

void ClientConn::note_refusal(uint16_t status, std::string_view cause, uint32_t offset) {
  listener_.stats().rejected_heads.add();
  listener_.stats().responses[status / 100].add();
  char ip[46];
  char number[12];
  http1::Out offset_text(std::span<char>(number, sizeof number));
  offset_text.put_number(offset);
  const std::string_view pieces[] = {"request refused: client ",
                                     peer_.write_ip(ip),
                                     ", listener ",
                                     listener_.config().name,
                                     ", ",
                                     cause,
                                     " at byte ",
                                     offset_text.written()};
  worker_.log_event(pieces);
  AccessRecord record;
  record.timestamp_us = worker_.wall_us();
  record.client = peer_;
  record.listener = listener_.config().name;
  record.status = status;
  record.ended_by = AccessRecord::EndedBy::kProxy;
  record.cause = cause;
  worker_.log_access(record);
}

bool ClientConn::write(std::span<const iovec> pieces) {
  size_t total = 0;
  for (const iovec& piece : pieces) total += piece.iov_len;
  listener_.stats().bytes_sent.add(total);
  if (!stream_.write(pieces)) {
    close();
    return false;
  }
  if (stream_.queued() > 0 && !stalled_) {
    stalled_ = true;
    rearm();
  }
  return true;
}

void ClientConn::on_writable(Socket& /*socket*/) {
  if (!stream_.open()) return;
  const size_t before = stream_.queued();
  if (!stream_.flush()) return close();
  if (lingering_) {
    if (input_ended_ && stream_.queued() == 0) close();
    return;
  }
  const size_t left = stream_.queued();
  stalled_ = left > 0;
  if (left < before) rearm();
  if (left > Stream::kLowWaterBytes) return;
  if (http2_ != nullptr) {
    http2_->on_output_drained();
    return update_receiving();
  }
  if (exchange_ != nullptr) exchange_->on_client_drained();
  if (stream_.open() && exchange_ == nullptr) resume_input();
}

void ClientConn::on_exchange_done(bool keep_alive, bool linger) {
  RW_CHECK(exchange_ != nullptr && exchange_->finished());
  exchange_ = nullptr;
  if (!stream_.open()) return;
  if (!keep_alive) {
    // What the handshake still brings would meet a closed socket, and a reset the answer.
    if (linger || in_early_data()) return begin_linger();
    return close();
  }
  resume_input();
}

// Half-closes and reads on, so that what the client is still sending does not turn into a reset
// that destroys the answer on its way (RFC 9112 9.6).
void ClientConn::begin_linger() {
  if (!stream_.open() || lingering_) return;
  lingering_ = true;
  drop_parser();
  if (!consuming_) in_.clear(worker_.chunks());
  if (input_ended_) return close_when_flushed();
  // A close_notify is possible only when the handshake is over: on_confirmed().
  if (!in_early_data()) stream_.shutdown_send();
  stream_.set_receiving(true);
  wait_for(Wait::kLinger, kLingerMs);
}

// Sets the one deadline to what the connection waits for now.
void ClientConn::rearm() {
  const config::Timeouts& timeouts = listener_.config().timeouts;
  if (awaits_proxy_ || in_early_data()) return;  // The handshake's deadline holds.
  if (stalled_) return wait_for(Wait::kFlush, timeouts.client_idle);
  if (http2_ != nullptr) return rearm_http2();
  if (exchange_ != nullptr) {
    if (exchange_->wants_body()) return wait_for(Wait::kBody, timeouts.request_body);
    return wait_for(Wait::kNothing, 0);
  }
  if (parser_ == nullptr && requests_ == 0) return;  // Only a PROXY header came so far.
  if (parser_ == nullptr) return wait_for(Wait::kKeepAlive, timeouts.keep_alive);
  // From the first byte of a head to its last, however slowly it trickles in.
  if (wait_ == Wait::kFirstHead || wait_ == Wait::kHead) return;
  wait_for(Wait::kHead, timeouts.request_headers);
}

void ClientConn::update_receiving() {
  if (!stream_.open() || input_ended_) return;
  rearm();
  if (http2_ != nullptr) return stream_.set_receiving(!stream_.above_high_water());
  // While an exchange waits, only so much may pile up behind it.
  const bool blocked = exchange_ != nullptr || stream_.above_high_water();
  const bool asked = exchange_ != nullptr && exchange_->request_done();
  if (asked && !exchange_->in_tunnel() && !in_early_data()) stream_.expect_nothing();
  stream_.set_receiving(!blocked || in_.size() < kPipelineBytes);
}

void ClientConn::on_receive_end(Socket& socket, int error) {
  input_ended_ = true;
  if (wait_ == Wait::kHandshake) {
    const std::string_view cause = stream_.tls()->failure().text();
    handshake_failed(cause.empty() ? std::string_view("tls_closed") : cause);
    return close();
  }
  if (error != 0) return on_reset(socket, error);
  if (lingering_) return close_when_flushed();
  size_t used = 0;
  if (awaits_proxy_ && !read_proxy_header(in_.view(), ProxyInput::kEnd, used)) return;
  if (http2_ != nullptr) return http2_->on_input_end();
  if (exchange_ != nullptr) {
    if (in_.empty()) exchange_->on_client_end(0);
    return;
  }
  if (parser_ != nullptr && !in_.empty()) listener_.stats().client_aborts.add();
  begin_linger();
}

void ClientConn::on_reset(Socket& /*socket*/, int error) {
  if (exchange_ != nullptr) exchange_->on_client_end(error);
  close();
}

// The client sends no more. Answers that are still queued may go out, in bounded time.
void ClientConn::close_when_flushed() {
  if (stream_.queued() == 0) return close();
  lingering_ = true;
  stream_.shutdown_send();
  wait_for(Wait::kLinger, kLingerMs);
}

void ClientConn::on_timer(Timer& /*timer*/) {
  switch (wait_) {
    case Wait::kNothing: return;
    case Wait::kHandshake:
      listener_.stats().timeouts.add();
      handshake_failed("it did not end in time");
      return close();
    case Wait::kProxyHeader: {
      size_t used = 0;
      // Without one, late: nothing of it came, or what came is no header.
      if (!read_proxy_header(in_.view(), ProxyInput::kLate, used)) return;
      return begin({});
    }
    case Wait::kGoaway:
      if (http2_ != nullptr) http2_->finish_drain();
      return;
    case Wait::kFirstHead:
    case Wait::kHead:
      listener_.stats().timeouts.add();
      if (http2_ != nullptr && !http2_->inside_head()) return http2_->end();
      if (http2_ != nullptr) {
        return http2_->fail(h2::ErrorCode::kNoError, "a header block did not end in time");
      }
      if (parser_ == nullptr) return close();  // Nothing was sent: nothing to answer.
      return refuse(408, "the head of the request did not arrive in time",
                    static_cast<uint32_t>(in_.size()));
    case Wait::kKeepAlive:
      if (http2_ != nullptr) return http2_->end();
      return close();
    case Wait::kLinger: return close();
    case Wait::kBody:
      if (exchange_ == nullptr || !exchange_->wants_body()) return;
      listener_.stats().timeouts.add();
      return exchange_->on_client_timeout(true);
    case Wait::kFlush:
      listener_.stats().timeouts.add();
      if (exchange_ != nullptr) return exchange_->on_client_timeout(false);
      return abort();
  }
}

void ClientConn::drain() {
  if (http2_ != nullptr) {
    http2_->drain();
    if (!in_early_data()) wait_for(Wait::kGoaway, kGoawayMs);
    return;
  }
  const bool idle = exchange_ == nullptr && parser_ == nullptr && in_.empty() &&
                    stream_.queued() == 0 && requests_ > 0;
  if (idle) close();
}

void ClientConn::drop_parser() {
  if (parser_ != nullptr) worker_.give_back_parser(parser_);
  parser_ = nullptr;
}

void ClientConn::close() {
  if (!stream_.open()) return;
  // Of an answer that lasts until the close, a FIN would say that it is complete.
  if (exchange_ != nullptr && exchange_->answering()) return abort();
  stream_.close();
  let_go();
}

void ClientConn::abort() {
  if (!stream_.open()) return;
  stream_.abort();
  let_go();
}

void ClientConn::let_go() {
  worker_.timers().cancel(timer_);
  drop_parser();
  // Inside consume() its caller still looks at the bytes of in_; it drops them itself.
  if (!consuming_) in_.clear(worker_.chunks());
  if (exchange_ != nullptr) exchange_->on_client_gone();
  exchange_ = nullptr;
  if (http2_ != nullptr) http2_->connection_gone();
  http2_ = nullptr;
  private_conns_.close_all();
}

void ClientConn::on_closed(Socket& /*socket*/) {
  worker_.client_gone(*this);  // Frees *this: last access.
}

}  // namespace ringway
