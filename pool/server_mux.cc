// pool/server_mux.cc - the session's events, and the ends of streams.
#include "pool/server_mux.h"

#include <errno.h>

#include <algorithm>

#include "core/base/check.h"
#include "pool/server_slot.h"

namespace ringway {

using h2::ErrorCode;

ServerMux::ServerMux(PoolContext& context, ServerConn& conn, h2::SessionScratch& scratch,
                     const h2::SessionLimits& limits, uint32_t first_streams)
    : context_(context),
      conn_(&conn),
      session_(h2::Role::kClient, *this, scratch, limits),
      ping_timer_(*this),
      first_streams_(first_streams) {
  RW_CHECK(first_streams > 0);
}

ServerMux::~ServerMux() {
  RW_CHECK(conn_ == nullptr && live_ == 0 && memory_ == 0 && turn_count_ == 0);
  in_.clear(context_.stream.chunks);
}

void ServerMux::begin(std::string_view preface) {
  append(preface);
  session_.begin();
  const int64_t now = context_.now_ms();
  const int64_t interval = conn_->slot().spec().idle_ping_ms;
  watch_.received(now);
  if (interval != 0) context_.timers.set(ping_timer_, now + interval);
}

// --- places ---

// What the server takes now; before it has said so, what it took lately, or the first one.
uint32_t ServerMux::startable() const {
  const uint32_t free = session_.capacity();
  if (session_.settings_received()) return free;
  const auto open = static_cast<uint32_t>(session_.streams());
  return std::min(free, first_streams_ - std::min(first_streams_, open));
}

// Streams without a head yet need their place; those that are over but not finished keep it, so
// that what slow clients leave unread is bounded.
uint32_t ServerMux::room() const {
  RW_CHECK(conn_ != nullptr && session_.streams() <= live_);
  const uint32_t most = conn_->slot().spec().max_streams;
  const uint32_t taken = live_ - static_cast<uint32_t>(session_.streams());
  const uint32_t free = startable();
  return std::min(free - std::min(free, taken), most - std::min(most, live_));
}

ServerStream* ServerMux::open_stream(StreamUser& user) {
  RW_CHECK(conn_ != nullptr);
  ServerStream* stream = context_.muxes->streams_.take(*this, user);
  if (stream == nullptr) return nullptr;
  stream->reused_ = conn_->reused();
  if (live_ == 0) woken_ = stream->reused_;
  all_.push_back(*stream);
  ++live_;
  ++memory_;
  return stream;
}

bool ServerMux::start(ServerStream& stream, std::string_view text, std::string_view scheme,
                      bool websocket, bool end) {
  if (startable() == 0) {
    lose(stream, {.unseen = true,
                  .code = ErrorCode::kNoError,
                  .cause = "the server takes fewer requests at once"});
    conn_->slot().stream_over(*conn_, false);
    return true;
  }
  stream.put_at_ = put_bytes_;
  return session_.start(stream, text, scheme, websocket, end);
}

// Whether the kernel has some of its request. What TLS has encrypted and not sent counts as sent.
bool ServerMux::was_sent(const ServerStream& stream) const {
  if (stream.id() == 0) return false;
  uint64_t handed = put_bytes_ - turn_bytes_;
  if (conn_->stream_.tls() == nullptr) handed -= std::min<uint64_t>(handed, conn_->queued());
  return stream.put_at_ < handed;
}

// --- what comes in ---

void ServerMux::receive(std::span<const std::byte> bytes) {
  RW_CHECK(!feeding_ && conn_ != nullptr);
  feeding_ = true;
  feed({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  feeding_ = false;
  if (conn_ == nullptr) return;
  if (session_.dead()) return connection_lost(EPROTO, cause_);
  if (broken_) return connection_lost(ENOBUFS, "out of memory");
  pump();
}

// A frame that is not complete is kept; the rest of it is added in small steps, so that what is
// behind it need not be copied.
void ServerMux::feed(std::string_view bytes) {
  ChunkPool& chunks = context_.stream.chunks;
  const int64_t now = context_.now_ms();
  watch_.received(now);
  while (!bytes.empty() && !session_.dead()) {
    if (in_.empty()) {
      bytes.remove_prefix(session_.feed(bytes, now));
      if (session_.dead() || bytes.empty()) return;
      if (!in_.append(chunks, bytes, SIZE_MAX)) broken_ = true;
      return;
    }
    const std::string_view step = bytes.substr(0, kStepBytes);
    if (!in_.append(chunks, step, SIZE_MAX)) {
      broken_ = true;
      return;
    }
    bytes.remove_prefix(step.size());
    in_.consume(chunks, session_.feed(in_.view(), now));
  }
}

void ServerMux::on_request(uint32_t /*id*/, const h2::HeadBuilder& /*head*/, bool /*end*/) {
  RW_CHECK(false);  // A client's side gets none.
}

void ServerMux::on_bad_request(uint32_t /*id*/, h2::BlockError /*error*/, bool /*end*/) {
  RW_CHECK(false);
}

void ServerMux::on_response(h2::Stream& stream, const h2::HeadBuilder& head, bool end) {
  woken_ = false;
  static_cast<ServerStream&>(stream).user_->on_stream_head(head, end);
}

void ServerMux::on_data(h2::Stream& stream, std::string_view bytes) {
  static_cast<ServerStream&>(stream).user_->on_stream_data(bytes);
}

void ServerMux::on_end(h2::Stream& stream, std::string_view trailers) {
  ServerStream& ended = static_cast<ServerStream&>(stream);
  ended.complete_ = true;
  ended.user_->on_stream_end(trailers);
}

void ServerMux::on_reset(h2::Stream& stream, ErrorCode code, bool ours) {
  ServerStream& gone = static_cast<ServerStream&>(stream);
  woken_ = false;
  if (gone.complete_) {
    // RFC 9113 8.1: the response is complete, and the rest of the request is not wanted.
    gone.out_.clear(context_.stream.chunks);
    gone.end_waits_ = false;
    gone.StreamHook<StreamQueueTag>::unlink();
    return gone.user_->on_stream_drained();
  }
  const bool refused = !ours && code == ErrorCode::kRefusedStream;
  lose(gone, {.unseen = refused,
              .code = code,
              .cause = ours ? "the response breaks a rule of HTTP/2"
                            : "the server has reset the stream"});
  conn_->slot().stream_over(*conn_, false);
}

// RFC 9113 6.8: what is above `last` was not looked at. The others go on.
void ServerMux::on_goaway(uint32_t last, ErrorCode /*code*/) {
  woken_ = false;
  going_away_ = true;
  ServerConn& conn = *conn_;
  conn.slot().pool().drain(conn);
  for (auto at = all_.begin(); conn_ != nullptr && at != all_.end();) {
    ServerStream& stream = *at++;
    if (stream.complete_ || (stream.id() != 0 && stream.id() <= last)) continue;
    lose(stream, {.unseen = true,
                  .code = ErrorCode::kNoError,
                  .cause = "the server ends the connection (GOAWAY)"});
    conn.slot().stream_over(conn, false);
  }
}

void ServerMux::on_capacity() {
  conn_->slot().settings_came(*conn_);
  settings_news_ = true;
  if (conn_ != nullptr) note_dirty();  // Who waits for a place gets one.
}

void ServerMux::on_fatal(ErrorCode /*code*/, h2::Flood /*flood*/, std::string_view cause) {
  cause_ = cause;
}

// --- ends ---

void ServerMux::unlink(ServerStream& stream) {
  RW_CHECK(live_ > 0 && !stream.open());
  --live_;
  stream.left_ = true;
  stream.out_.clear(context_.stream.chunks);
  stream.end_waits_ = false;
  stream.StreamHook<StreamListTag>::unlink();
  stream.StreamHook<StreamQueueTag>::unlink();
}

// Its user is told in ServerMuxes::flush(). One whose response is complete loses nothing: what is
// left of the request is dropped.
void ServerMux::lose(ServerStream& stream, const Loss& loss) {
  RW_CHECK(!stream.left_ && stream.user_ != nullptr);
  session_.forget(stream);
  unlink(stream);
  if (!stream.complete_) context_.timers.cancel(stream.timer_);
  stream.lost_ = !stream.complete_;
  stream.unseen_ = loss.unseen;
  stream.lost_code_ = loss.code;
  stream.cause_ = loss.cause;
  context_.muxes->lost_.push_back(stream);
}

void ServerMux::lose_all(std::string_view cause) {
  while (!all_.empty()) {
    ServerStream& stream = all_.front();
    lose(stream, {.unseen = !was_sent(stream), .code = ErrorCode::kNoError, .cause = cause});
  }
}

void ServerMux::close_stream(ServerStream& stream, ErrorCode code) {
  RW_CHECK(stream.user_ != nullptr);
  stream.user_ = nullptr;
  context_.timers.cancel(stream.timer_);
  context_.muxes->dead_streams_.push_back(&stream);
  if (stream.left_) return stream.StreamHook<StreamListTag>::unlink();
  session_.reset(stream, code);
  unlink(stream);
  conn_->slot().stream_over(*conn_, stream.complete_);
}

// What answers a PING is for watch_ only: the pool looks at requests, so that a connection that
// nobody uses gets no younger by it.
void ServerMux::on_timer(Timer& /*timer*/) {
  RW_CHECK(conn_ != nullptr);
  const int64_t interval = conn_->slot().spec().idle_ping_ms;
  if (interval == 0) return;  // Switched off by a reload.
  const h2::IdlePing::Step step = watch_.step(context_.now_ms(), interval);
  switch (step.act) {
    case h2::IdlePing::Act::kWait: break;
    case h2::IdlePing::Act::kPing: session_.ping(); break;
    case h2::IdlePing::Act::kLost:
      return connection_lost(ETIMEDOUT, "the server does not answer PING",
                             CloseReason::kPingTimeout);
  }
  context_.timers.set(ping_timer_, step.again_ms);
}

void ServerMux::connection_lost(int error, std::string_view cause, CloseReason reason) {
  RW_CHECK(conn_ != nullptr);
  ServerConn& conn = *conn_;
  if (session_.dead()) send_gathered();  // GOAWAY
  lose_all(cause);
  conn.scatter(error == 0 ? ECONNRESET : error);
  const bool peers = error != ENOBUFS && error != EPROTO && error != ETIMEDOUT;
  conn.slot().connection_lost(conn, woken_ && peers, reason);
  RW_CHECK(conn_ == nullptr);
}

void ServerMux::detach() {
  RW_CHECK(conn_ != nullptr);
  lose_all("the connection was closed");
  context_.timers.cancel(ping_timer_);
  conn_ = nullptr;
  session_.fail(ErrorCode::kNoError, h2::Flood::kNone, {});  // What is being fed ends here.
  while (turn_count_ > 0) context_.stream.chunks.give_back(turn_[--turn_count_]);
  context_.muxes->dead_muxes_.push_back(this);
}

}  // namespace ringway
