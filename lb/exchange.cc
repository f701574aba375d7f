// lb/exchange.cc - the request's side: route, server, connection, head and body.
#include "lb/exchange.h"

#include <string.h>

#include <algorithm>

#include "core/base/check.h"
#include "lb/client_conn.h"
#include "lb/http2_client.h"
#include "lb/worker.h"
#include "proto/http1_conn_hints.h"
#include "proto/own_fields.h"

namespace ringway {

using http1::BodyKind;
using http1::BodyReader;

HeadStore::~HeadStore() {
  RW_CHECK(chunk_ == nullptr);
}

const char* HeadStore::keep(ChunkPool& pool, std::string_view bytes) {
  char* to = small_.data();
  if (bytes.size() > Chunk::kBytes) {
    large_ = std::make_unique_for_overwrite<char[]>(bytes.size());
    to = large_.get();
  } else if (bytes.size() > small_.size()) {
    chunk_ = pool.take();
    if (chunk_ == nullptr) return nullptr;
    to = chunk_->bytes;
  }
  memcpy(to, bytes.data(), bytes.size());
  return to;
}

void HeadStore::clear(ChunkPool& pool) {
  if (chunk_ != nullptr) pool.give_back(chunk_);
  chunk_ = nullptr;
  large_.reset();
}

// NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init): tried_ up to tried_count_
Exchange::Exchange(Worker& worker, ClientConn& client, Http2Stream* stream)
    : worker_(worker),
      client_(client),
      stream_(stream),
      use_(worker.use_snapshot()),
      start_us_(worker.now_us()) {}

Exchange::~Exchange() {
  RW_CHECK(state_ == State::kDone);
  RW_CHECK(conn_ == nullptr && server_stream_ == nullptr);
  RW_CHECK(server_ == nullptr && upstream_ == nullptr);
}

const config::Timeouts& Exchange::timeouts() const {
  return route_->has_timeouts ? route_->timeouts : upstream_->config().timeouts;
}

namespace {

// RFC 8470 4: what may go on though it may be a replay. A safe method asks for no change; a body or
// a tunnel could carry anything.
bool may_go_early(const http1::Head& head) {
  const bool safe = head.method == http1::Method::kGet || head.method == http1::Method::kHead ||
                    head.method == http1::Method::kOptions || head.method == http1::Method::kTrace;
  const bool empty =
      head.body == BodyKind::kNone || (head.body == BodyKind::kLength && head.content_length == 0);
  return safe && empty && !head.upgrade;
}

}  // namespace

void Exchange::start(http1::HeadParser* parser, std::string_view bytes, bool early) {
  RW_CHECK(parser_ == nullptr && state_ == State::kRoute);
  parser_ = parser;
  ListenerStats& stats = client_.listener().stats();
  stats.requests.add();
  stats.active_requests.add();
  http1::Head& head = parser->head();
  bytes_in_ = bytes.size();
  keep_alive_ = head.keep_alive && !worker_.draining() && !client_.listener().retired;
  start_body();
  const char* kept = head_.keep(worker_.chunks(), bytes);
  if (kept == nullptr) {
    answer(503, EndedBy::kProxy, "out of buffers");
    return;
  }
  head.rebase(kept);
  early_ = early;
  if (early) stats.early_requests.add();
  // Said also when the handshake is over by now: what was as early elsewhere went on (RFC
  // 8470 5.1).
  replayable_ = early && may_go_early(head);
  if (early && !replayable_ && client_.in_early_data()) state_ = State::kEarly;
  run();
}

void Exchange::on_handshake_done() {
  RW_CHECK(awaits_handshake());
  state_ = State::kRoute;
  run();
  if (state_ == State::kSendHead) resume_client();
}

// The life of a request up to its connection. The rest follows from events: bytes of the client
// (on_request_bytes), bytes of the server (on_server_bytes), and the ends of both.
void Exchange::run() {
  for (;;) {
    Step step = Step::kWait;
    switch (state_) {
      case State::kEarly: return;
      case State::kRoute: step = do_route(); break;
      case State::kPickServer: step = do_pick_server(); break;
      case State::kTakeConn: step = do_take_conn(); break;
      case State::kQueued:
      case State::kConnecting:
      case State::kSendHead:
      case State::kRelay:
      case State::kTunnel:
      case State::kFlush:
      case State::kDone: return;
    }
    if (step == Step::kWait) return;
  }
}

Exchange::Step Exchange::do_route() {
  RW_CHECK(route_ == nullptr);
  const http1::Head& head = request();
  const config::Limits& limits = client_.listener().config().limits;
  if (head.body == BodyKind::kLength && head.content_length > limits.body_bytes) {
    return answer(413, EndedBy::kProxy, "the body is larger than the listener allows");
  }
  route_ = use_.snapshot->router.find(client_.listener().index(), head, client_.certificate());
  if (route_ == nullptr) return answer(404, EndedBy::kProxy, "no route");
  switch (route_->action) {
    case config::Action::kRedirect: return redirect();
    case config::Action::kRespond: {
      const config::Route::Respond& respond_with = route_->respond;
      return respond({.status = respond_with.status,
                      .body = respond_with.body,
                      .content_type = respond_with.content_type},
                     EndedBy::kNobody, {});
    }
    case config::Action::kUpstream: break;
  }
  upstream_ = &worker_.upstream(route_->upstream);
  ++upstream_->users;
  upstream_->stats().requests.add();
  upstream_->stats().active.add();
  login_ = http1::binds_connection(head);
  state_ = State::kPickServer;
  return Step::kNext;
}

bool Exchange::wants_body() const {
  if (request_done_ || send_broken_) return false;
  return state_ == State::kRelay && !server_is_full();
}

size_t Exchange::on_request_bytes(std::string_view bytes) {
  switch (state_) {
    case State::kSendHead: return send_head(bytes);
    case State::kRelay:
      if (request_done_ || send_broken_ || server_is_full()) return 0;
      return forward_body({}, bytes);
    case State::kTunnel:
      if (bytes.empty() || server_ended_ || server_is_full()) return 0;
      return tunnel_to_server(bytes);
    case State::kEarly:
    case State::kRoute:
    case State::kPickServer:
    case State::kQueued:
    case State::kTakeConn:
    case State::kConnecting:
    case State::kFlush:
    case State::kDone: return 0;
  }
  return 0;
}

namespace {

// Trailer lines without those that only the balancer may say (HTTP/1's are dropped by BodyReader).
std::string_view without_own_names(std::string_view lines, std::span<const std::string> names,
                                   std::string& room) {
  if (names.empty()) return lines;
  room.clear();
  while (!lines.empty()) {
    const size_t end = std::min(lines.find('\n'), lines.size() - 1) + 1;
    const std::string_view line = lines.substr(0, end);
    if (!http1::is_own_name(line.substr(0, line.find(':')), names)) room.append(line);
    lines.remove_prefix(end);
  }
  return room;
}

}  // namespace

std::string_view Exchange::rewritten_path() {
  const std::string& prefix = route_->strip_prefix;
  const http1::Head& head = request();
  const std::string_view path = head.view(head.path);
  if (prefix.empty() || !path.starts_with(prefix)) return {};
  std::string& to = worker_.path_buffer();
  to.clear();
  to.push_back('/');
  const std::string_view rest = path.substr(prefix.size());
  to.append(rest.starts_with('/') ? rest.substr(1) : rest);
  if (head.has_query) {
    to.push_back('?');
    to.append(head.view(head.query));
  }
  return to;
}

namespace {

// A unix socket has no name of its own (RFC 9110 7.2 leaves it to us).
std::string_view host_of(std::string_view address) {
  return address.starts_with("unix:") ? std::string_view("localhost") : address;
}

}  // namespace

std::span<const std::string> Exchange::own_names() const {
  return own_names_for(*use_.snapshot->config, client_.listener().config(),
                       client_.from_trusted_proxy());
}

const http1::OwnFields* Exchange::own_fields() {
  // A reload may have given the listener other names than the snapshot of this request has.
  const config::ClientCertificateHeaders& headers = client_.listener().config().certificate_headers;
  const std::span<const std::string> names = own_names();
  if (names.empty() && !headers.enabled) return nullptr;
  http1::OwnFields& fields = worker_.own_fields();
  fields.start(names);
  if (headers.enabled) tell_identity(headers, client_.identity(), fields);
  return &fields;
}

http1::RequestPlan Exchange::plan_request() {
  const http1::Head& head = request();
  const config::Listener& listener = client_.listener().config();
  // What only the end of a stream ends has no length to announce.
  request_framing_ = head.body == BodyKind::kUntilClose ? BodyKind::kChunked : head.body;
  return {
      .body = request_framing_,
      .content_length = head.content_length,
      .path = rewritten_path(),
      // An HTTP/1.0 client may name no host, but HTTP/1.1 servers want one.
      .host = head.authority.len == 0 ? host_of(server_->object->address_text) : std::string_view(),
      .forwarded = {.client_ip = client_.peer().write_ip(worker_.ip_buffer()),
                    .scheme = client_.tls() != nullptr ? "https" : "http",
                    .host = head.view(head.authority),
                    .trusted = client_.from_trusted_proxy(),
                    .x_forwarded = listener.x_forwarded,
                    .forwarded = listener.forwarded},
      .own = own_fields(),
      .edits = route_->request_headers.empty() ? nullptr : &route_->request_headers,
      // A stream can become a WebSocket and nothing else (RFC 8441 5); an Upgrade may be ignored.
      .upgrade = head.upgrade && (server_stream_ == nullptr || websocket_by_stream()),
      .early_data = replayable_,
      .for_http2 = server_stream_ != nullptr};
}

size_t Exchange::send_head(std::string_view bytes) {
  RW_CHECK(state_ == State::kSendHead && (conn_ != nullptr || server_stream_ != nullptr));
  // Where that is refused, another connection may be there already.
  if (websocket_by_stream() && !may_open_websocket()) {
    if (state_ != State::kSendHead || conn_ == nullptr) return 0;
  }
  http1::Out out(worker_.render_buffer());
  if (proxy_due_) out.put(proxy_header());
  if (!http1::write_request_head(request(), plan_request(), out)) {
    // Without its PROXY header a connection must not be kept.
    give_back_server({.clean = !proxy_due_, .server_keeps = true});
    answer(500, EndedBy::kProxy, "the rewritten head does not fit");
    return 0;
  }
  proxy_due_ = false;
  state_ = State::kRelay;
  request_started_ = true;
  if (!kept_body_.empty()) return send_again(out.written(), bytes);
  return forward_body(out.written(), bytes);
}

void Exchange::start_body() {
  const http1::Head& head = request();
  const config::Limits& limits = client_.listener().config().limits;
  const bool has_body = head.body != BodyKind::kNone;
  // A stream's body comes bare, and the stream says where it ends, also where a length was
  // announced.
  const BodyKind kind = stream_ != nullptr && has_body ? BodyKind::kUntilClose : head.body;
  request_body_.start(kind, head.content_length,
                      {.body_bytes = limits.body_bytes, .own_names = own_names()});
  request_done_ = !has_body || (kind == BodyKind::kLength && head.content_length == 0);
}

// On another connection: first what was kept of the body, then what has come since.
size_t Exchange::send_again(std::string_view head, std::string_view bytes) {
  start_body();
  sending_again_ = true;
  const size_t used = forward_body(head, kept_body_.view());
  sending_again_ = false;
  if (state_ != State::kRelay || send_broken_) return 0;
  RW_CHECK(used == kept_body_.size());
  if (body_ended_) {
    end_request_body({});
    return 0;
  }
  return request_done_ ? 0 : forward_body({}, bytes);
}

bool Exchange::takes_request_end() const {
  return state_ == State::kRelay && !request_done_ && !send_broken_;
}

void Exchange::on_request_end(std::string_view trailers) {
  RW_CHECK(takes_request_end());
  body_ended_ = true;
  if (trailers.empty()) return end_request_body({});
  body_kept_ = false;  // They are not kept with it.
  end_request_body(without_own_names(trailers, own_names(), worker_.path_buffer()));
}

// Of a stream's body the last of the `bytes` at hand was `used`, and nothing follows: that goes out
// with them.
bool Exchange::client_ends_here(size_t used, size_t bytes) {
  if (stream_ == nullptr || sending_again_ || !stream_->offers_last()) return false;
  if (used == 0 || used != bytes || send_broken_ || request_done_) return false;
  (void)request_body_.finish_at_close();
  body_ended_ = request_done_ = true;
  return true;
}

void Exchange::end_request_body(std::string_view trailers) {
  (void)request_body_.finish_at_close();
  request_done_ = true;
  if (server_stream_ != nullptr) {
    server_stream_->end(trailers);
  } else if (request_framing_ == BodyKind::kChunked) {
    Gather out;
    out.add_last_chunk(trailers);
    server_->stats().bytes_sent.add(out.bytes());
    if (!conn_->write(out.pieces())) send_broken_ = true;
  }
  if (!response_started_) set_server_deadline(timeouts().response_headers);
}

// A reused connection may be dead: until its first byte nobody knows whether the server has seen
// any of this.
void Exchange::keep_body(std::string_view bytes) {
  if (sending_again_ || bytes.empty() || first_byte_us_ != 0 || !body_kept_) return;
  // A server may say that it has not looked at a stream, so that any request may be tried again.
  const bool repeatable =
      server_stream_ != nullptr || (was_reused_ && http1::is_idempotent(request().method));
  if (repeatable && kept_body_.append(worker_.chunks(), bytes, kKeptBodyBytes)) {
    return;
  }
  body_kept_ = false;
  kept_body_.clear(worker_.chunks());
}

// Sends `head` and what `bytes` holds of the body, gathered. Returns the bytes used.
size_t Exchange::forward_body(std::string_view head, std::string_view bytes) {
  if (server_stream_ != nullptr) return forward_by_stream(head, bytes);
  Gather out;
  out.add(head);
  size_t used = 0;
  bool more = !request_done_;
  while (more) {
    const BodyReader::Step step = request_body_.next(bytes.substr(used));
    used += step.consumed;
    switch (step.kind) {
      case BodyReader::Kind::kNeedMore: more = false; break;
      case BodyReader::Kind::kPiece:
        request_framing_ == BodyKind::kChunked ? out.add_chunk(step.piece) : out.add(step.piece);
        break;
      case BodyReader::Kind::kEnd:
        request_done_ = true;
        more = false;
        if (request_framing_ == BodyKind::kChunked) out.add_last_chunk(request_body_.trailers());
        break;
      case BodyReader::Kind::kError: body_is_bad(); return used;
    }
    if (!more || !out.full()) continue;
    server_->stats().bytes_sent.add(out.bytes());
    if (!conn_->write(out.pieces())) send_broken_ = true;
    out.clear();
    if (send_broken_ || conn_->above_high_water()) break;
  }
  const bool last = client_ends_here(used, bytes.size());
  if (last && request_framing_ == BodyKind::kChunked) out.add_last_chunk({});
  if (!sending_again_) bytes_in_ += used;
  keep_body(bytes.substr(0, used));
  server_->stats().bytes_sent.add(out.bytes());
  // Broken: the server may have answered already. Its bytes, or its end, tell (on_server_end).
  if (!send_broken_ && !out.empty() && !conn_->write(out.pieces())) send_broken_ = true;
  if (send_broken_ && conn_->error() == ENOBUFS && !response_started_) {
    // The server is well and would wait for the rest for ever.
    let_go_of_server();
    answer(503, EndedBy::kProxy, "out of buffers");
    return used;
  }
  wait_for_server();
  return used;
}

// The server's turn: to answer, or to take more.
void Exchange::wait_for_server() {
  if (request_done_) {
    conn_->set_deadline(timeouts().response_headers);
  } else if (!send_broken_ && !response_started_ && conn_->above_high_water()) {
    // The client is not read meanwhile, so nothing else would notice a server that takes no more.
    conn_->set_deadline(timeouts().server_idle);
  }
}

void Exchange::body_is_bad() {
  const bool too_large = request_body_.error() == http1::BodyError::kTooLarge;
  keep_alive_ = false;
  if (response_started_) return cut_response("the request body is malformed");
  let_go_of_server();
  answer(
      too_large ? 413 : 400, EndedBy::kClient,
      too_large ? "the body is larger than the listener allows" : "the request body is malformed");
}

void Exchange::on_server_drained() {
  if (state_ == State::kRelay && !request_done_ && !response_started_) {
    set_server_deadline(config::kOff);  // It is the client's turn, which has a deadline of its own.
  }
  resume_client();
}

void Exchange::on_client_timeout(bool sending_body) {
  keep_alive_ = false;
  if (sending_body && !response_started_) {
    let_go_of_server();
    answer(408, EndedBy::kClient, "the request body did not arrive in time");
    return;
  }
  ended_by_ = EndedBy::kClient;
  cause_ = sending_body ? "the request body did not arrive in time" : "the client stopped reading";
  cut_client();
}

void Exchange::on_client_end(int error) {
  if (client_ended_ && error == 0) return;
  client_ended_ = true;
  if (state_ == State::kTunnel) {
    if (error != 0) return;  // The connection is being closed: on_client_gone() follows.
    end_server_tunnel();
    if (server_ended_) return finish_when_flushed();
    set_server_deadline(timeouts().half_closed);
    return;
  }
  // A client that is gone before its answer has begun wants none (and frees its place); while the
  // answer is on its way a FIN may be just that, half a close.
  if (error == 0 && request_done_ && (response_started_ || state_ == State::kFlush)) return;
  ended_by_ = EndedBy::kClient;
  cause_ = error == 0 ? "the client closed" : "the client reset";
  if (error == 0) client_.close();
}

}  // namespace ringway
