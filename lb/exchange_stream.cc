// lb/exchange_stream.cc - the server's side of an exchange: an HTTP/1 connection, or a stream of an
// HTTP/2 one.
#include "core/base/check.h"
#include "lb/client_conn.h"
#include "lb/exchange.h"
#include "lb/http2_client.h"
#include "lb/worker.h"
#include "proto/websocket.h"

namespace ringway {

using http1::BodyKind;
using http1::BodyReader;

void Exchange::on_server_moved(ServerConn& conn) {
  RW_CHECK(state_ == State::kConnecting);
  conn_ = &conn;
}

bool Exchange::server_is_full() const {
  return server_stream_ != nullptr ? server_stream_->above_high_water() : conn_->above_high_water();
}

void Exchange::set_server_deadline(int64_t ms) {
  server_stream_ != nullptr ? server_stream_->set_deadline(ms) : conn_->set_deadline(ms);
}

// Back-pressure: a stream's bytes are taken, and not credited until the client has room.
void Exchange::hold_server() {
  if (conn_ != nullptr) conn_->set_receiving(false);
}

void Exchange::release_server() {
  if (server_stream_ == nullptr) return conn_->set_receiving(true);
  const size_t bytes = held_;
  held_ = 0;
  if (bytes > 0) server_stream_->consumed(bytes);
}

void Exchange::on_server_stream(ServerStream& stream) {
  RW_CHECK(state_ == State::kConnecting);
  conn_ = nullptr;
  server_stream_ = &stream;
  state_ = State::kSendHead;
  was_reused_ = stream.reused();
  connection_ready();
  resume_client();
}

bool Exchange::websocket_by_stream() const {
  return server_stream_ != nullptr && http1::is_websocket(request());
}

// Whether the server takes WebSockets is known once its SETTINGS have come: if they have not, the
// head waits for on_stream_settings(). False: it waits, or was answered.
bool Exchange::may_open_websocket() {
  if (http1::websocket_key(request()).empty()) {
    let_go_of_server();
    answer(400, EndedBy::kClient, "a WebSocket handshake without a good Sec-WebSocket-Key");
    return false;
  }
  if (!server_stream_->settings_received()) {
    server_stream_->await_settings();
    return false;
  }
  if (server_stream_->lost() || server_stream_->takes_websocket()) return true;
  if (server_->slot.spec().http == HttpChoice::kByAlpn) {
    upgrade_by_http1();
    return false;
  }
  let_go_of_server();
  answer(502, EndedBy::kServer, "the server takes no WebSocket over HTTP/2 (RFC 8441)");
  return false;
}

// The server took WebSockets by streams once, and this connection's SETTINGS say nothing of it: by
// a connection of HTTP/1.1, as to a server that never did. Nothing of this try was sent.
void Exchange::upgrade_by_http1() {
  RW_CHECK(!only_http1_);
  only_http1_ = true;
  server_stream_->abort(h2::ErrorCode::kCancel);
  forget_server();
  --attempts_;
  state_ = State::kPickServer;
  run();
}

// The bytes at hand are the last of the response: what is made of them may say so.
bool Exchange::server_ends_here() const {
  return server_stream_ != nullptr && server_stream_->end_follows();
}

void Exchange::on_stream_settings() {
  if (state_ == State::kSendHead) resume_client();
}

// Sends `head` and what `bytes` holds of the body. Returns the bytes used.
size_t Exchange::forward_by_stream(std::string_view head, std::string_view bytes) {
  if (!head.empty()) {
    const std::string_view scheme = client_.tls() != nullptr ? "https" : "http";
    const bool websocket = http1::is_websocket(request());
    if (!server_stream_->send_head(head, scheme, websocket, request_done_ && !websocket)) {
      let_go_of_server();
      answer(500, EndedBy::kProxy, "the rewritten head does not fit");
      return 0;
    }
  }
  size_t used = 0;
  for (bool more = !request_done_; more;) {
    const BodyReader::Step step = request_body_.next(bytes.substr(used));
    used += step.consumed;
    switch (step.kind) {
      case BodyReader::Kind::kNeedMore: more = false; break;
      case BodyReader::Kind::kPiece:
        request_done_ = request_body_.ended() || client_ends_here(used, bytes.size());
        server_stream_->write(step.piece, request_done_);
        more = !request_done_ && !server_is_full();
        break;
      case BodyReader::Kind::kEnd:
        request_done_ = true;
        more = false;
        server_stream_->end(request_body_.trailers());
        break;
      case BodyReader::Kind::kError: body_is_bad(); return used;
    }
  }
  if (!sending_again_) bytes_in_ += used;
  keep_body(bytes.substr(0, used));
  if (request_done_) {
    if (!response_started_) set_server_deadline(timeouts().response_headers);
  } else if (!response_started_ && server_is_full()) {
    set_server_deadline(timeouts().server_idle);
  }
  return used;
}

void Exchange::on_stream_head(const h2::HeadBuilder& head, bool end) {
  if (first_byte_us_ == 0) note_answered();
  const config::Limits& limits = client_.listener().config().limits;
  response_parser_ = worker_.take_parser();
  response_parser_->start_response(
      {.header_bytes = limits.header_bytes, .fields = limits.headers, .uri_bytes = 0},
      {.request_method = request().method, .upgrade_forwarded = request().upgrade});
  const http1::HeadError error = response_parser_->take_built(head.built(), !end);
  if (error != http1::HeadError::kNone) return bad_response(http1::phrase_of(error));
  if (head.built().status < 200) return interim_response();
  const http1::Head& read = response_parser_->head();
  if (http1::is_websocket(request())) {
    if (read.status < 300) return start_tunnel({});
    server_stream_->end({});  // Refused: nothing follows the request.
  }
  if (!end && read.body == BodyKind::kLength) server_stream_->expect_body(read.content_length);
  // To HEAD, and with 204 or 304, there is none (RFC 9110 6.4.1): over HTTP/1 bytes of it would be
  // taken for the next response.
  if (!end && read.body == BodyKind::kNone) server_stream_->expect_body(0);
  head_ends_ = end;
  start_response({});
}

void Exchange::on_stream_data(std::string_view bytes) {
  held_ += bytes.size();
  state_ == State::kTunnel ? tunnel_bytes(bytes) : relay_response({}, bytes);
  // The stream may be gone, with what it holds.
  if (server_stream_ != nullptr && !client_is_full()) release_server();
}

// RFC 8441 5: the end of a stream is to a tunnel what a FIN is.
size_t Exchange::tunnel_to_server(std::string_view bytes) {
  bytes_in_ += bytes.size();
  set_server_deadline(timeouts().tunnel_idle);
  if (server_stream_ != nullptr) {
    server_stream_->write(bytes, false);
    return bytes.size();
  }
  const iovec piece{.iov_base = const_cast<char*>(bytes.data()), .iov_len = bytes.size()};
  server_->stats().bytes_sent.add(bytes.size());
  if (!conn_->write({&piece, 1})) cut_response("the server closed the tunnel");
  return bytes.size();
}

void Exchange::end_server_tunnel() {
  server_stream_ != nullptr ? server_stream_->end({}) : conn_->shutdown_send();
}

void Exchange::on_stream_end(std::string_view trailers) {
  server_ended_ = true;
  if (state_ == State::kTunnel) return tunnel_server_end(0, false);
  if (!response_started_) return bad_response("the server ended the stream before a response");
  const bool said = response_body_.ended();  // See relay_response().
  (void)response_body_.finish_at_close();
  if (stream_ != nullptr) {
    stream_->finish(trailers);  // Unless its last bytes have said so.
  } else if (said) {
    RW_CHECK(trailers.empty());
  } else if (response_framing_ == BodyKind::kChunked) {
    Gather out;
    out.add_last_chunk(trailers);
    bytes_out_ += out.bytes();
    if (!client_.write(out.pieces())) return;
  }
  end_response(false);
}

// The stream is gone. What the server has not looked at is tried again whatever it is; else the
// rules for a dead connection hold.
void Exchange::on_stream_lost(bool unseen, h2::ErrorCode code, std::string_view cause) {
  server_stream_ = nullptr;
  held_ = 0;
  if (response_started_) return cut_response(cause);
  const bool dead = code == h2::ErrorCode::kNoError && first_byte_us_ == 0 && was_reused_;
  const bool stale = dead && http1::is_idempotent(request().method);
  if ((unseen || stale || !request_started_) && body_kept_ && stale_picks_ < kStreamTriesMax) {
    ++stale_picks_;
    server_ended_ = false;
    --attempts_;
    next_retry_ = stale && !unseen ? RetryCause::kStale : RetryCause::kUnseen;
    (stale && !unseen ? upstream_->stats().retries_stale : upstream_->stats().retries_unseen).add();
    forget_response();
    server_->stats().responses[0].add();
    forget_server();
    state_ = State::kPickServer;
    run();
    if (state_ == State::kSendHead) resume_client();
    return;
  }
  if (dead && !unseen) note_denied();
  bad_response(cause);
}

void Exchange::on_stream_drained() {
  on_server_drained();
}

void Exchange::on_stream_timeout() {
  on_server_timeout();
}

}  // namespace ringway
