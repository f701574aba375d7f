// proto/http2_session.cc - the table of streams, what goes out, and the ends.
#include "proto/http2_session.h"

#include <algorithm>
#include <cstring>

#include "core/base/check.h"

namespace ringway::h2 {
namespace {

constexpr uint32_t kStreamWindowFirst = 64 * 1024;
constexpr uint32_t kAllowanceMax = 100'000;
// What a frame that a window has cut short must carry to explain further updates of windows. Who
// opens them byte by byte gets as many frames as it likes (CVE-2019-9511). Not more: a client that
// gives back each frame of a small window at once has that window in ever smaller parts.
constexpr uint32_t kExplainingBytes = 64;
constexpr uint32_t kIdMax = 0x7fff'ffff;

// For people; kFloodNames are for counters.
std::string_view cause_of(Flood kind) {
  switch (kind) {
    case Flood::kNone: break;
    case Flood::kResets: return "too many streams reset";
    case Flood::kStreams: return "too many requests above max_streams";
    case Flood::kContinuation: return "a header block without end";
    case Flood::kHeaderBomb: return "a header block that decodes to too much";
    case Flood::kPing: return "too many PING frames";
    case Flood::kSettings: return "too many SETTINGS frames";
    case Flood::kPriority: return "too many PRIORITY frames";
    case Flood::kWindowUpdate: return "too many WINDOW_UPDATE frames";
    case Flood::kEmptyData: return "too many empty DATA frames";
    case Flood::kLateReset: return "too many resets of streams that are over";
    case Flood::kGoaway: return "too many GOAWAY frames";
    case Flood::kUnknownFrame: return "too many frames of unknown types";
    case Flood::kInterim: return "too many interim responses";
  }
  return {};
}

}  // namespace

bool FloodGate::pass(const FloodLimit& limit, int64_t now_ms) {
  if (limit.count == 0) return true;
  // In units of 1/count ms, so that nothing is rounded away: one more takes period_ms of them.
  const auto count = static_cast<int64_t>(limit.count);
  const auto period = static_cast<int64_t>(limit.period_ms);
  const int64_t now = now_ms * count;
  const int64_t full = std::max(full_at_ms_, now) + period;
  if (full - now > period * count) return false;
  full_at_ms_ = full;
  return true;
}

Session::Session(Role role, SessionOwner& owner, SessionScratch& scratch,
                 const SessionLimits& limits)
    : owner_(owner),
      scratch_(scratch),
      limits_(limits),
      inflater_(limits.header_table),
      deflater_(limits.header_table),
      preface_left_(role == Role::kServer ? static_cast<uint32_t>(kPreface.size()) : 0),
      role_(role) {}

Session::~Session() {
  RW_CHECK(table_.empty());
}

void Session::begin() {
  if (role_ == Role::kClient) owner_.put(kPreface, {});
  put_settings();
  const uint32_t more = limits_.connection_window - kWindowInitial;
  if (limits_.connection_window > kWindowInitial) {
    receive_window_ += static_cast<int32_t>(more);
    put_number(FrameType::kWindowUpdate, 0, more);
  }
}

void Session::put_settings() {
  char payload[8 * 6];
  size_t used = 0;
  const auto add = [&](Setting setting, uint32_t value) {
    write16(payload + used, static_cast<uint16_t>(setting));
    write32(payload + used + 2, value);
    used += 6;
  };
  if (limits_.header_table != 4096) add(Setting::kHeaderTableSize, limits_.header_table);
  if (role_ == Role::kServer) {
    add(Setting::kMaxConcurrentStreams, limits_.max_streams);
    if (limits_.websocket) add(Setting::kEnableConnectProtocol, 1);
    add(Setting::kNoRfc7540Priorities, 1);
  } else {
    add(Setting::kEnablePush, 0);
  }
  add(Setting::kInitialWindowSize, std::min(kStreamWindowFirst, limits_.stream_window));
  add(Setting::kMaxHeaderListSize, limits_.head.header_bytes);
  put_frame(FrameType::kSettings, 0, 0, {payload, used});
}

// --- streams ---

Stream* Session::find(uint32_t id) const {
  const auto at =
      std::lower_bound(table_.begin(), table_.end(), id,
                       [](const Stream* s, uint32_t wanted) { return s->id_ < wanted; });
  return at != table_.end() && (*at)->id_ == id ? *at : nullptr;
}

bool Session::was_opened(uint32_t id) const {
  const bool ours = (id % 2 == 1) == (role_ == Role::kClient);
  return ours ? id < next_id_ : id <= last_peer_id_;
}

void Session::insert(Stream& stream, uint32_t id) {
  RW_CHECK(!stream.open_);
  RW_CHECK(table_.empty() || table_.back()->id_ < id);
  stream.id_ = id;
  stream.open_ = true;
  stream.remote_closed_ = false;
  stream.local_closed_ = false;
  stream.head_received_ = false;
  stream.end_follows_ = false;
  stream.send_window_ = static_cast<int32_t>(peer_initial_);
  stream.receive_size_ = std::min(kStreamWindowFirst, limits_.stream_window);
  stream.receive_window_ = static_cast<int32_t>(stream.receive_size_);
  promised_ += stream.receive_size_;
  stream.used_ = 0;
  stream.buffered_ = 0;
  stream.body_left_ = UINT64_MAX;
  table_.push_back(&stream);
}

void Session::remove(Stream& stream) {
  RW_CHECK(stream.open_);
  const auto at =
      std::lower_bound(table_.begin(), table_.end(), stream.id_,
                       [](const Stream* s, uint32_t wanted) { return s->id_ < wanted; });
  RW_CHECK(at != table_.end() && *at == &stream);
  table_.erase(at);
  promised_ -= stream.receive_size_;
  stream.open_ = false;
  drop_buffered(stream);
  if (draining_ && drained_ && table_.empty()) owner_.on_drained();
}

void Session::remove_if_done(Stream& stream) {
  if (stream.remote_closed_ && stream.local_closed_) remove(stream);
}

void Session::open(Stream& stream, uint64_t body_bytes) {
  RW_CHECK(role_ == Role::kServer && last_peer_id_ != 0);
  insert(stream, last_peer_id_);
  stream.body_left_ = body_bytes;
  opened_ = true;
  stream.urgency_ = scratch_.builder.urgency();
  stream.incremental_ = scratch_.builder.incremental();
}

uint32_t Session::capacity() const {
  if (dead_ || draining_ || peer_goaway_ != kWindowMax || next_id_ > kIdMax) return 0;
  const uint32_t most = std::min(peer_max_streams_, limits_.max_streams);
  const uint32_t ids = (kIdMax - next_id_) / 2 + 1;
  const auto open = static_cast<uint32_t>(table_.size());
  return most <= open ? 0 : std::min(most - open, ids);
}

bool Session::start(Stream& stream, std::string_view text, std::string_view scheme,
                    bool extended_connect, bool end) {
  RW_CHECK(role_ == Role::kClient && capacity() > 0);
  const BlockRoom room{.fields = scratch_.fields, .names = scratch_.names};
  const size_t fields = fields_of_request(text, scheme, extended_connect, room);
  if (fields == 0 || !put_block(next_id_, fields, end)) return false;
  insert(stream, next_id_);
  next_id_ += 2;
  stream.local_closed_ = end;
  return true;
}

// --- what goes out ---

void Session::put_frame(FrameType type, uint8_t flags, uint32_t stream, std::string_view payload) {
  char head[kFrameHeaderBytes];
  write_frame_header({.length = static_cast<uint32_t>(payload.size()),
                      .type = static_cast<uint8_t>(type),
                      .flags = flags,
                      .stream = stream},
                     head);
  owner_.put({head, sizeof head}, payload);
}

void Session::put_number(FrameType type, uint32_t stream, uint32_t number) {
  char payload[4];
  write32(payload, number);
  put_frame(type, 0, stream, {payload, sizeof payload});
}

// The first `fields` of the scratch as HEADERS and, if need be, CONTINUATION frames.
bool Session::put_block(uint32_t stream, size_t fields, bool end) {
  const std::span<const HeaderField> list(scratch_.fields.data(), fields);
  const size_t bytes = deflater_.encode(list, scratch_.block);
  if (bytes == 0) return false;
  std::string_view rest(scratch_.block.data(), bytes);
  FrameType type = FrameType::kHeaders;
  uint8_t flags = end ? flag::kEndStream : uint8_t{0};
  while (rest.size() > kFrameBytesMax) {
    put_frame(type, flags, stream, rest.substr(0, kFrameBytesMax));
    rest.remove_prefix(kFrameBytesMax);
    type = FrameType::kContinuation;
    flags = 0;
  }
  put_frame(type, flags | flag::kEndHeaders, stream, rest);
  return true;
}

bool Session::send_head(Stream& stream, std::string_view text, bool end, bool extended_connect) {
  RW_CHECK(stream.open_ && !stream.local_closed_);
  const BlockRoom room{.fields = scratch_.fields, .names = scratch_.names};
  const size_t fields = fields_of_response(text, extended_connect, room);
  if (fields == 0 || !put_block(stream.id_, fields, end)) return false;
  if (end) {
    stream.local_closed_ = true;
    remove_if_done(stream);
  }
  return true;
}

void Session::answer(uint32_t id, std::string_view head, std::string_view body,
                     bool request_ended) {
  opened_ = true;
  const BlockRoom room{.fields = scratch_.fields, .names = scratch_.names};
  const size_t fields = fields_of_response(head, false, room);
  const bool fits = static_cast<int64_t>(body.size()) <= send_window_ &&
                    body.size() <= peer_initial_ && body.size() <= kFrameBytesMax;
  if (fields == 0 || !fits || !put_block(id, fields, body.empty())) {
    return put_reset(id, ErrorCode::kCancel);
  }
  if (!body.empty()) {
    send_window_ -= static_cast<int32_t>(body.size());
    put_frame(FrameType::kData, flag::kEndStream, id, body);
  }
  // RFC 9113 8.1: the rest of the request is not wanted.
  if (!request_ended) put_reset(id, ErrorCode::kNoError);
}

size_t Session::sendable(const Stream& stream) const {
  if (dead_ || !stream.open_ || stream.local_closed_) return 0;
  const int32_t least = std::min(stream.send_window_, send_window_);
  return least <= 0 ? 0 : static_cast<size_t>(least);
}

size_t Session::send_data(Stream& stream, std::string_view bytes, bool end) {
  RW_CHECK(stream.open_ && !stream.local_closed_);
  const size_t allowed = std::min(sendable(stream), bytes.size());
  size_t sent = 0;
  while (sent < allowed) {
    const size_t part = std::min<size_t>(allowed - sent, kFrameBytesMax);
    const bool last = end && sent + part == bytes.size();
    put_frame(FrameType::kData, last ? flag::kEndStream : uint8_t{0}, stream.id_,
              bytes.substr(sent, part));
    sent += part;
    explain_updates(part, allowed < bytes.size());
    if (last) stream.local_closed_ = true;
  }
  stream.send_window_ -= static_cast<int32_t>(sent);
  send_window_ -= static_cast<int32_t>(sent);
  if (end && bytes.empty()) {
    put_frame(FrameType::kData, flag::kEndStream, stream.id_, {});
    stream.local_closed_ = true;
  }
  remove_if_done(stream);
  return sent;
}

// A DATA frame was put. It explains two updates, of its stream and of the connection, unless it is
// small because of a window (`cut`): one that holds all there was to send is as small as that.
void Session::explain_updates(size_t sent, bool cut) {
  if (cut) {
    unexplained_ += static_cast<uint32_t>(sent);
    if (unexplained_ < kExplainingBytes) return;
    unexplained_ = std::min(unexplained_ - kExplainingBytes, kExplainingBytes - 1);
  }
  window_allowance_ = std::min(window_allowance_ + 2, kAllowanceMax);
}

void Session::send_end(Stream& stream, std::string_view trailers) {
  RW_CHECK(stream.open_ && !stream.local_closed_);
  const BlockRoom room{.fields = scratch_.fields, .names = scratch_.names};
  const size_t fields = trailers.empty() ? 0 : fields_of_trailers(trailers, room);
  if (fields == 0 || !put_block(stream.id_, fields, true)) {
    (void)send_data(stream, {}, true);
    return;
  }
  stream.local_closed_ = true;
  remove_if_done(stream);
}

void Session::reset(Stream& stream, ErrorCode code) {
  if (!stream.open_) return;
  const bool over = stream.remote_closed_ && stream.local_closed_;
  if (!dead_ && !over) put_reset(stream.id_, code);
  remove(stream);
}

void Session::forget(Stream& stream) {
  if (stream.open_) remove(stream);
}

// --- flow control of what comes in ---

void Session::credit_connection(size_t bytes) {
  used_ += static_cast<uint32_t>(bytes);
  if (dead_ || used_ < limits_.connection_window / 2) return;
  put_number(FrameType::kWindowUpdate, 0, used_);
  receive_window_ += static_cast<int32_t>(used_);
  used_ = 0;
}

void Session::consumed(Stream& stream, size_t bytes) {
  if (!stream.open_) return;  // drop_buffered() has settled it.
  RW_CHECK(bytes <= stream.buffered_);
  stream.buffered_ -= static_cast<uint32_t>(bytes);
  credit_connection(bytes);
  credit_stream(stream, bytes);
}

void Session::credit_stream(Stream& stream, size_t bytes) {
  stream.used_ += static_cast<uint32_t>(bytes);
  if (stream.remote_closed_ || dead_ || stream.used_ < stream.receive_size_ / 2) return;
  uint32_t more = stream.used_;
  // All that came was used at once: the window is what holds it back. Not beyond what all streams
  // together may have, so that those that stall cannot use up the connection's window.
  const uint32_t grown = std::min(stream.receive_size_ * 2, limits_.stream_window);
  const uint32_t growth = grown - stream.receive_size_;
  if (stream.buffered_ == 0 && promised_ + growth <= limits_.connection_window) {
    more += growth;
    promised_ += growth;
    stream.receive_size_ = grown;
  }
  put_number(FrameType::kWindowUpdate, stream.id_, more);
  stream.receive_window_ += static_cast<int32_t>(more);
  stream.used_ = 0;
}

void Session::drop_buffered(Stream& stream) {
  const uint32_t bytes = stream.buffered_;
  stream.buffered_ = 0;
  if (bytes > 0) credit_connection(bytes);
}

// --- ends ---

void Session::stream_error(Stream& stream, ErrorCode code) {
  const uint32_t id = stream.id_;
  remove(stream);
  stream_error(id, code);
  owner_.on_reset(stream, code, true);
}

// Whoever makes us reset streams is no better than who resets them itself (CVE-2025-8671).
void Session::stream_error(uint32_t id, ErrorCode code, Flood kind) {
  if (dead_) return;
  put_reset(id, code);
  count_reset(kind);
}

void Session::put_reset(uint32_t id, ErrorCode code) {
  reset_ids_[resets_put_++ % reset_ids_.size()] = id;
  put_number(FrameType::kRstStream, id, static_cast<uint32_t>(code));
}

bool Session::was_reset(uint32_t id) const {
  // Our own streams end by our resets mostly, and however many there were, a server's answers to
  // them may be under way.
  if (role_ == Role::kClient) return true;
  return std::find(reset_ids_.begin(), reset_ids_.end(), id) != reset_ids_.end();
}

void Session::count_reset(Flood kind) {
  if (dead_ || resets_.pass(limits_.resets, now_ms_)) return;
  fail(ErrorCode::kEnhanceYourCalm, kind, cause_of(kind));
}

bool Session::count_control(Flood kind) {
  if (controls_.pass(limits_.control, now_ms_)) return true;
  fail(ErrorCode::kEnhanceYourCalm, kind, cause_of(kind));
  return false;
}

void Session::put_goaway(uint32_t last, ErrorCode code, std::string_view text) {
  char payload[8 + 64];
  text = text.substr(0, 64);
  write32(payload, last);
  write32(payload + 4, static_cast<uint32_t>(code));
  if (!text.empty()) memcpy(payload + 8, text.data(), text.size());
  put_frame(FrameType::kGoaway, 0, 0, {payload, 8 + text.size()});
}

void Session::fail(ErrorCode code, Flood flood, std::string_view cause) {
  if (dead_) return;
  put_goaway(role_ == Role::kServer ? last_peer_id_ : 0, code, cause);
  dead_ = true;
  owner_.on_fatal(code, flood, cause);
}

void Session::drain() {
  if (dead_ || draining_) return;
  draining_ = true;
  if (role_ == Role::kClient) {
    put_goaway(0, ErrorCode::kNoError, {});
    drained_ = true;
    if (table_.empty()) owner_.on_drained();
    return;
  }
  put_goaway(kIdMax, ErrorCode::kNoError, {});
  put_frame(FrameType::kPing, 0, 0, kDrainPing);
}

void Session::finish_drain() {
  if (dead_ || !draining_ || drained_) return;
  drained_ = true;
  goaway_last_ = last_peer_id_;
  put_goaway(goaway_last_, ErrorCode::kNoError, {});
  if (table_.empty()) owner_.on_drained();
}

void Session::ping() {
  if (!dead_) put_frame(FrameType::kPing, 0, 0, "ringping");
}

}  // namespace ringway::h2
