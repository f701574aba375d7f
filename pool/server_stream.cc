// pool/server_stream.cc
#include "pool/server_stream.h"

#include "core/base/check.h"
#include "pool/server_mux.h"

namespace ringway {

ServerStream::ServerStream(ServerMux& mux, StreamUser& user)
    : mux_(mux), user_(&user), timer_(*this) {}

ServerStream::~ServerStream() {
  RW_CHECK(user_ == nullptr && !open());
}

ServerConn& ServerStream::conn() const {
  RW_CHECK(!left_);
  return *mux_.conn_;
}

bool ServerStream::settings_received() const {
  return mux_.session_.settings_received();
}

bool ServerStream::takes_websocket() const {
  RW_CHECK(settings_received());
  return mux_.session_.peer_websocket();
}

bool ServerStream::send_head(std::string_view text, std::string_view scheme, bool websocket,
                             bool end) {
  RW_CHECK(user_ != nullptr && untouched());
  if (lost_) return true;
  return mux_.start(*this, text, scheme, websocket, end);
}

// Behind a server that has ended the stream, or a loss not told yet, bytes are dropped.
void ServerStream::write(std::string_view bytes, bool end) {
  RW_CHECK(user_ != nullptr && !end_waits_ && (lost_ || !untouched()));
  if (!open()) return;
  RW_CHECK(!sent_end());
  size_t sent = 0;
  if (out_.empty() && !mux_.output_blocked()) {
    sent = mux_.session_.send_data(*this, bytes, end);
    if (sent == bytes.size()) return;
  }
  end_waits_ = end;
  mux_.keep(*this, bytes.substr(sent));
}

void ServerStream::end(std::string_view trailers) {
  RW_CHECK(user_ != nullptr && !end_waits_ && (lost_ || !untouched()));
  if (!open()) return;
  RW_CHECK(!sent_end());
  if (out_.empty()) return mux_.session_.send_end(*this, trailers);
  trailers_.assign(trailers);
  end_waits_ = true;
}

void ServerStream::consumed(size_t bytes) {
  mux_.session_.consumed(*this, bytes);  // It knows closed streams.
}

void ServerStream::expect_body(uint64_t bytes) {
  h2::Session::expect_body(*this, bytes);
}

void ServerStream::set_deadline(int64_t ms) {
  if (lost_) return;
  Timers& timers = mux_.context_.timers;
  if (ms == 0) return timers.cancel(timer_);
  timers.set(timer_, mux_.context_.now_ms() + ms);
}

void ServerStream::finish() {
  mux_.close_stream(*this, h2::ErrorCode::kCancel);
}

void ServerStream::abort(h2::ErrorCode code) {
  complete_ = false;
  mux_.close_stream(*this, code);
}

void ServerStream::on_timer(Timer& /*timer*/) {
  RW_CHECK(user_ != nullptr && !lost_);
  user_->on_stream_timeout();
}

}  // namespace ringway
