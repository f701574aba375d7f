// lb/exchange_client.cc - the client's side of an exchange: an HTTP/1 connection, or a stream of an
// HTTP/2 one.
#include "core/base/check.h"
#include "lb/client_conn.h"
#include "lb/exchange.h"
#include "lb/http2_client.h"
#include "lb/worker.h"

namespace ringway {

using http1::BodyReader;

size_t Exchange::client_queued() const {
  return stream_ != nullptr ? stream_->queued() : client_.queued();
}

bool Exchange::client_is_full() const {
  return stream_ != nullptr ? stream_->above_high_water() : client_.above_high_water();
}

void Exchange::resume_client() {
  stream_ != nullptr ? stream_->resume_input() : client_.resume_input();
}

void Exchange::cut_client() {
  if (stream_ == nullptr) return client_.abort();
  stream_->abort(ended_by_ == EndedBy::kClient ? h2::ErrorCode::kCancel
                                               : h2::ErrorCode::kInternalError);
}

void Exchange::end_client_tunnel() {
  stream_ != nullptr ? stream_->finish({}) : client_.shutdown_send();
}

// In a tunnel and of an HTTP/1 answer everything is bytes; a stream wants the head apart.
bool Exchange::to_client(std::string_view head, std::span<const iovec> body) {
  if (stream_ == nullptr) return client_.write(body);
  if (!head.empty() && !stream_->send_head(head, false, state_ == State::kTunnel)) {
    response_started_ = false;
    bad_response("the response's head does not fit");
    return false;
  }
  for (const iovec& piece : body) {
    stream_->write({static_cast<const char*>(piece.iov_base), piece.iov_len}, false);
  }
  return true;
}

bool Exchange::head_to_client(std::string_view head) {
  if (stream_ != nullptr) return to_client(head, {});
  const iovec piece{.iov_base = const_cast<char*>(head.data()), .iov_len = head.size()};
  return client_.write({&piece, 1});
}

void Exchange::respond_by_stream(const http1::OwnResponse& response) {
  http1::OwnResponse head = response;
  head.head_only = true;
  http1::Out out(worker_.answer_buffer(head.extra.size() + 1024));
  RW_CHECK(http1::write_own_response(head, out));
  const bool bodiless = response.head_only || response.body.empty() || response.status < 200 ||
                        response.status == 204 || response.status == 304;
  response_started_ = true;
  bytes_out_ += out.written().size() + (bodiless ? 0 : response.body.size());
  if (!stream_->send_head(out.written(), bodiless)) return cut_client();
  if (!bodiless) stream_->write(response.body, true);
  finish_when_flushed();
}

// As relay_response(): the length of the body is the frames' business, and the last piece of it
// says that it is the last where that is known. Of chunks only the last one, empty, says that they
// end, so each piece waits for what is behind it.
void Exchange::relay_by_stream(std::string_view head, std::string_view bytes) {
  bool ended = response_body_.ended() || head_ends_;
  if (!head.empty()) {
    bytes_out_ += head.size();
    if (!stream_->send_head(head, ended)) {
      response_started_ = false;
      return bad_response("the response's head does not fit");
    }
    if (head_ends_) return;  // on_stream_end() follows.
    if (ended) return end_response(!bytes.empty());
  }
  size_t used = 0;
  std::string_view piece;
  for (bool more = true; more;) {
    const BodyReader::Step step = response_body_.next(bytes.substr(used));
    used += step.consumed;
    switch (step.kind) {
      case BodyReader::Kind::kNeedMore: more = false; break;
      case BodyReader::Kind::kPiece:
        if (!piece.empty()) stream_->write(piece, false);
        piece = step.piece;
        bytes_out_ += piece.size();
        ended = response_body_.ended();
        more = !ended;
        break;
      case BodyReader::Kind::kEnd:
        ended = true;
        more = false;
        break;
      case BodyReader::Kind::kError: return cut_response("malformed chunk in the response");
    }
  }
  const std::string_view trailers = ended ? response_body_.trailers() : std::string_view();
  const bool last = (ended && trailers.empty()) || server_ends_here();
  if (!piece.empty()) stream_->write(piece, last);
  if (ended) {
    stream_->finish(trailers);  // Does nothing behind a last piece.
    return end_response(used < bytes.size());
  }
  set_server_deadline(timeouts().server_idle);
  if (client_is_full()) hold_server();
}

}  // namespace ringway
