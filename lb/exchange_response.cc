// lb/exchange_response.cc - the response's side of an exchange, and tunnels.
#include <errno.h>

#include "core/base/check.h"
#include "lb/client_conn.h"
#include "lb/exchange.h"
#include "lb/http2_client.h"
#include "lb/worker.h"
#include "proto/http1_conn_hints.h"
#include "proto/websocket.h"

namespace ringway {

using http1::BodyKind;
using http1::BodyReader;
using http1::HeadParser;

namespace {

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

void Exchange::on_server_bytes(std::span<const std::byte> bytes) {
  RW_CHECK(conn_ != nullptr);
  if (state_ == State::kTunnel) return tunnel_bytes(text_of(bytes));
  // Bytes before the request was sent: whatever this is, it is no answer to it.
  if (state_ == State::kSendHead) return bad_response("bytes before the request");
  RW_CHECK(state_ == State::kRelay);
  if (first_byte_us_ == 0) note_answered();
  if (response_started_) return relay_response({}, text_of(bytes));
  if (response_in_.empty()) return read_response_head(text_of(bytes));
  const config::Limits& limits = client_.listener().config().limits;
  if (!response_in_.append(worker_.chunks(), text_of(bytes), limits.header_bytes + 65'536U)) {
    return bad_response("the response's head is too large");
  }
  read_response_head(response_in_.view());
  if (state_ == State::kDone || response_started_) response_in_.clear(worker_.chunks());
}

void Exchange::read_response_head(std::string_view bytes) {
  const config::Limits& limits = client_.listener().config().limits;
  for (;;) {
    if (response_parser_ == nullptr) {
      response_parser_ = worker_.take_parser();
      response_parser_->start_response(
          {.header_bytes = limits.header_bytes, .fields = limits.headers, .uri_bytes = 0},
          {.request_method = request().method, .upgrade_forwarded = request().upgrade});
    }
    switch (response_parser_->parse(bytes)) {
      case HeadParser::Status::kError:
        return bad_response(http1::phrase_of(response_parser_->error()));
      case HeadParser::Status::kNeedMore:
        if (response_in_.empty() &&
            !response_in_.append(worker_.chunks(), bytes, limits.header_bytes + 65'536U)) {
          bad_response("out of buffers");
        }
        return;
      case HeadParser::Status::kDone: break;
    }
    const http1::Head& head = response_parser_->head();
    const std::string_view rest = bytes.substr(head.head_len);
    if (head.status == 101) return start_tunnel(rest);
    if (head.status >= 200) return start_response(rest);
    interim_response();
    if (state_ != State::kRelay) return;
    // What follows an interim response begins a new head.
    const size_t used = bytes.size() - rest.size();
    if (!response_in_.empty()) {
      response_in_.consume(worker_.chunks(), used);
      bytes = response_in_.empty() ? std::string_view() : response_in_.view();
    } else {
      bytes = rest;
    }
    if (bytes.empty()) return;
  }
}

// Passes a 1xx on, except to HTTP/1.0 clients, which do not know them (RFC 9110 15.2).
void Exchange::interim_response() {
  const http1::Head& head = response_parser_->head();
  if (request().version_minor > 0) {
    http1::Out out(worker_.render_buffer());
    if (!http1::write_response_head(
            head, {.client_version_minor = 1, .for_http2 = stream_ != nullptr}, out)) {
      return bad_response("an interim response does not fit");
    }
    bytes_out_ += out.written().size();
    if (!head_to_client(out.written())) return;
  }
  worker_.give_back_parser(response_parser_);
  response_parser_ = nullptr;
}

http1::ResponsePlan Exchange::plan_response(const http1::Head& response) {
  const http1::Head& asked = request();
  response_framing_ = response.body;
  if (asked.version_minor == 0 && response_framing_ == BodyKind::kChunked) {
    response_framing_ = BodyKind::kUntilClose;
  }
  if (asked.version_minor > 0 && response_framing_ == BodyKind::kUntilClose) {
    response_framing_ = BodyKind::kChunked;
  }
  // An answer before the end of the request: the rest of it is not waited for.
  if (response_framing_ == BodyKind::kUntilClose || !request_done_) keep_alive_ = false;
  if (worker_.draining()) keep_alive_ = false;
  const bool bodiless = asked.method == http1::Method::kHead || response.status == 304;
  return {
      .body = response_framing_,
      .content_length = response.content_length,
      .has_content_length = bodiless && response.find(http1::FieldId::kContentLength) != nullptr,
      .keep_alive = keep_alive_,
      .client_version_minor = asked.version_minor,
      .edits = route_->response_headers.empty() ? nullptr : &route_->response_headers,
      .upgrade = false,
      .for_http2 = stream_ != nullptr};
}

void Exchange::start_response(std::string_view rest) {
  const http1::Head& head = response_parser_->head();
  // To a stream that asked for a tunnel any 2xx would say that it has one (RFC 8441 5).
  if (stream_ != nullptr && request().upgrade && head.status < 300) {
    return bad_response("the server did not upgrade");
  }
  status_ = head.status;
  const http1::KeepAliveHint hint = http1::keep_alive_hint(head);
  notes_ = {.server_keeps = head.keep_alive && head.body != BodyKind::kUntilClose,
            .hint_ms = hint.timeout_ms,
            .hint_max = hint.requests_max};
  // Whoever is asked to log in here does so for the connection.
  if (conn_ != nullptr && (status_ == 401 || status_ == 407) && http1::binds_connection(head)) {
    login_ = true;
    reserve_connection(PrivateReason::kChallenge);
  }
  // A stream's body comes bare, and the stream says where it ends.
  response_body_.start(server_stream_ != nullptr ? BodyKind::kUntilClose : head.body,
                       head.content_length, {});
  http1::Out out(worker_.render_buffer());
  if (!http1::write_response_head(head, plan_response(head), out)) {
    return bad_response("the response's head does not fit");
  }
  response_started_ = true;
  set_server_deadline(timeouts().server_idle);
  relay_response(out.written(), rest);
}

// Sends `head` and the part of the body in `bytes`, gathered.
void Exchange::relay_response(std::string_view head, std::string_view bytes) {
  if (stream_ != nullptr) return relay_by_stream(head, bytes);
  Gather out;
  out.add(head);
  size_t used = 0;
  bool more = true;
  bool ended = false;
  while (more) {
    const BodyReader::Step step = response_body_.next(bytes.substr(used));
    used += step.consumed;
    switch (step.kind) {
      case BodyReader::Kind::kNeedMore: more = false; break;
      case BodyReader::Kind::kPiece:
        response_framing_ == BodyKind::kChunked ? out.add_chunk(step.piece) : out.add(step.piece);
        break;
      case BodyReader::Kind::kEnd:
        ended = true;
        more = false;
        if (response_framing_ == BodyKind::kChunked) {
          out.add_last_chunk(response_body_.trailers());
        }
        break;
      case BodyReader::Kind::kError: return cut_response("malformed chunk in the response");
    }
    if (!more || !out.full()) continue;
    bytes_out_ += out.bytes();
    if (!client_.write(out.pieces())) return;
    out.clear();
  }
  if (server_ends_here()) {  // on_stream_end() follows; the last chunk goes out with the last
                             // bytes.
    (void)response_body_.finish_at_close();
    if (response_framing_ == BodyKind::kChunked) out.add_last_chunk({});
  }
  bytes_out_ += out.bytes();
  if (!out.empty() && !client_.write(out.pieces())) return;
  if (ended) return end_response(used < bytes.size());
  set_server_deadline(timeouts().server_idle);
  // Back-pressure: the server is not read until the client has taken most of what waits.
  if (client_is_full()) hold_server();
}

void Exchange::on_client_drained() {
  if (state_ == State::kFlush) {
    if (client_queued() == 0) done();
    return;
  }
  if (conn_ == nullptr && server_stream_ == nullptr) return;
  if (state_ != State::kRelay && state_ != State::kTunnel) return;
  if (!server_ended_) release_server();
}

void Exchange::end_response(bool extra_bytes) {
  notes_.clean = request_done_ && !extra_bytes && !send_broken_ && !server_ended_ &&
                 conn_ != nullptr && conn_->queued() == 0;
  give_back_server(notes_);
  finish_when_flushed();
}

void Exchange::on_server_end(int error) {
  const bool again = server_ended_;
  server_ended_ = true;
  // A send that met a reset has used the socket's error up: what reads as FIN then is none.
  if (error == 0 && send_broken_) error = conn_->error();
  if (state_ == State::kTunnel) return tunnel_server_end(error, again);
  if (response_started_) {
    if (error != 0 || !response_body_.finish_at_close()) {
      return cut_response(error != 0 ? "the server reset the connection"
                                     : "the server closed before the end of the response");
    }
    // Until-close bodies end here; towards HTTP/1.1 that is a last chunk.
    if (stream_ != nullptr) {
      stream_->finish({});
    } else if (response_framing_ == BodyKind::kChunked) {
      Gather out;
      out.add_last_chunk({});
      bytes_out_ += out.bytes();
      if (!client_.write(out.pieces())) return;
    }
    return end_response(false);
  }
  if (try_again_after_stale()) return;
  const bool untouched = first_byte_us_ == 0;
  bad_response(untouched ? (was_reused_ ? "the server closed a reused connection, and the request "
                                          "may not be repeated"
                                        : "the server closed before a response")
                         : "the server closed inside the response's head");
}

void Exchange::on_server_timeout() {
  if (state_ == State::kTunnel) return cut_response("the tunnel was idle for too long");
  if (response_started_) return cut_response("the server stalled inside the response");
  upstream_->stats().timeouts.add();
  keep_alive_ = keep_alive_ && request_done_;
  let_go_of_server();
  answer(504, EndedBy::kServer, "no response in time");
}

// Nothing of it has reached the client yet: 502, and the connection is never used again.
void Exchange::bad_response(std::string_view cause) {
  RW_CHECK(!response_started_);
  upstream_->stats().bad_responses.add();
  let_go_of_server();
  answer(502, EndedBy::kServer, cause);
}

// Part of it has: the only honest end is one that the client can see, so the stream is cut.
void Exchange::cut_response(std::string_view cause) {
  ended_by_ = EndedBy::kServer;
  cause_ = cause;
  if (state_ != State::kTunnel) upstream_->stats().bad_responses.add();
  cut_client();
}

// An HTTP/2 server says 200, and leaves it to us to prove to the client that it has understood.
bool Exchange::write_tunnel_head(http1::Out& out) {
  const http1::Head& head = response_parser_->head();
  if (server_stream_ == nullptr) {
    return http1::write_response_head(head, {.client_version_minor = 1, .upgrade = true}, out);
  }
  std::array<char, http1::kWebSocketAcceptBytes + 1> accept{};
  return http1::write_websocket_response(
      head, http1::websocket_accept(http1::websocket_key(request()), accept), stream_ != nullptr,
      out);
}

void Exchange::start_tunnel(std::string_view rest) {
  http1::Out out(worker_.render_buffer());
  if (!write_tunnel_head(out)) return bad_response("the response's head does not fit");
  worker_.give_back_parser(response_parser_);  // Tunnels live long.
  response_parser_ = nullptr;
  status_ = 101;
  response_started_ = true;
  keep_alive_ = false;
  request_done_ = true;
  state_ = State::kTunnel;
  set_server_deadline(timeouts().tunnel_idle);
  Gather pieces;
  if (stream_ == nullptr) pieces.add(out.written());
  pieces.add(rest);
  bytes_out_ += pieces.bytes();
  if (!to_client(out.written(), pieces.pieces())) return;
  resume_client();  // What the client sent behind its request now belongs to the tunnel.
}

void Exchange::tunnel_bytes(std::string_view bytes) {
  bytes_out_ += bytes.size();
  const iovec piece{.iov_base = const_cast<char*>(bytes.data()), .iov_len = bytes.size()};
  set_server_deadline(timeouts().tunnel_idle);
  if (!to_client({}, {&piece, 1})) return;
  if (client_is_full()) hold_server();
}

// `again`: a reset behind its FIN. It takes no more, and all that it has said goes to the client.
void Exchange::tunnel_server_end(int error, bool again) {
  if (error != 0 && !again) return cut_response("the server reset the tunnel");
  if (!again) end_client_tunnel();
  if (client_ended_ || again) {
    server_stream_ != nullptr ? give_back_server({}) : let_go_of_server();
    return finish_when_flushed();
  }
  set_server_deadline(timeouts().half_closed);
}

}  // namespace ringway
