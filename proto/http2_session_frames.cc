// proto/http2_session_frames.cc - what comes in, frame by frame.
#include <algorithm>

#include "core/base/check.h"
#include "proto/http2_session.h"

namespace ringway::h2 {
namespace {

// A block of as many frames is no browser's.
constexpr uint32_t kContinuationsMax = 128;
constexpr size_t kSlackBytes = 4096;  // an encoded block may be that much longer than its head

}  // namespace

size_t Session::feed(std::string_view bytes, int64_t now_ms) {
  now_ms_ = now_ms;
  size_t used = 0;
  while (!dead_) {
    const std::string_view rest = bytes.substr(used);
    if (preface_left_ > 0) {
      const size_t part = take_preface(rest);
      if (part == 0) break;
      used += part;
    } else if (in_data_) {
      const size_t part = take_data(rest);
      used += part;
      if (in_data_ && part == rest.size()) break;
    } else {
      const size_t part = take_whole(rest);
      if (part == 0) break;
      used += part;
    }
  }
  return dead_ ? bytes.size() : used;
}

size_t Session::take_preface(std::string_view rest) {
  const size_t part = std::min<size_t>(rest.size(), preface_left_);
  if (rest.substr(0, part) != kPreface.substr(kPreface.size() - preface_left_, part)) {
    fail(ErrorCode::kProtocolError, Flood::kNone, "bad connection preface");
    return 0;
  }
  preface_left_ -= static_cast<uint32_t>(part);
  return part;
}

// A frame, or the beginning of a DATA frame. 0: more bytes are needed, or it is the end.
size_t Session::take_whole(std::string_view rest) {
  if (rest.size() < kFrameHeaderBytes) return 0;
  const FrameHeader frame = read_frame_header(rest.data());
  if (!may_come(frame)) return 0;
  if (frame.type == static_cast<uint8_t>(FrameType::kData)) return begin_data(frame, rest);
  if (rest.size() < kFrameHeaderBytes + frame.length) return 0;
  take_frame(frame, rest.substr(kFrameHeaderBytes, frame.length));
  return kFrameHeaderBytes + frame.length;
}

// What holds for frames of all types.
bool Session::may_come(const FrameHeader& frame) {
  if (frame.length > kFrameBytesMax) {
    fail(ErrorCode::kFrameSizeError, Flood::kNone, "a frame is too large");
  } else if (continuation_ != 0 && frame.type != static_cast<uint8_t>(FrameType::kContinuation)) {
    fail(ErrorCode::kProtocolError, Flood::kNone, "a frame inside a header block");
  } else if (!settings_received_ && frame.type != static_cast<uint8_t>(FrameType::kSettings)) {
    fail(ErrorCode::kProtocolError, Flood::kNone, "the first frame is not SETTINGS");
  }
  return !dead_;
}

void Session::take_frame(const FrameHeader& frame, std::string_view payload) {
  switch (static_cast<FrameType>(frame.type)) {
    case FrameType::kData: return;  // begin_data()
    case FrameType::kHeaders: return take_headers(frame, payload);
    case FrameType::kPriority: return take_priority(frame, payload);
    case FrameType::kRstStream: return take_rst(frame, payload);
    case FrameType::kSettings: return take_settings(frame, payload);
    case FrameType::kPushPromise:
      return fail(ErrorCode::kProtocolError, Flood::kNone, "PUSH_PROMISE");
    case FrameType::kPing: return take_ping(frame, payload);
    case FrameType::kGoaway: return take_goaway(frame, payload);
    case FrameType::kWindowUpdate: return take_window_update(frame, payload);
    case FrameType::kContinuation: return take_continuation(frame, payload);
    case FrameType::kPriorityUpdate: return take_priority_update(frame, payload);
  }
  // RFC 9113 5.5: unknown types are ignored, but not for ever.
  (void)count_control(Flood::kUnknownFrame);
}

// --- DATA ---

// Returns the bytes before the payload; 0: more are needed, or it is the end.
size_t Session::begin_data(const FrameHeader& frame, std::string_view rest) {
  const bool padded = frame.has(flag::kPadded);
  const size_t prefix = kFrameHeaderBytes + (padded ? 1 : 0);
  if (frame.stream == 0 || !was_opened(frame.stream)) {
    fail(ErrorCode::kProtocolError, Flood::kNone, "DATA on an idle stream");
    return 0;
  }
  if (padded && frame.length == 0) {
    fail(ErrorCode::kFrameSizeError, Flood::kNone, "padding without its length");
    return 0;
  }
  if (rest.size() < prefix) return 0;
  const uint32_t padding = padded ? static_cast<uint8_t>(rest[kFrameHeaderBytes]) : 0;
  const uint32_t overhead = padding + (padded ? 1 : 0);
  if (overhead > frame.length) {
    fail(ErrorCode::kProtocolError, Flood::kNone, "more padding than frame");
    return 0;
  }
  if (static_cast<int64_t>(frame.length) > receive_window_) {
    fail(ErrorCode::kFlowControlError, Flood::kNone, "the connection's window is exceeded");
    return 0;
  }
  receive_window_ -= static_cast<int32_t>(frame.length);
  if (overhead > 0) credit_connection(overhead);
  in_data_ = true;
  data_stream_ = frame.stream;
  data_left_ = frame.length - overhead;
  pad_left_ = padding;
  data_end_ = frame.has(flag::kEndStream);
  // An empty frame that ends nothing is work for nothing.
  if (data_left_ == 0 && !data_end_ && !count_control(Flood::kEmptyData)) return 0;
  account_data(frame, overhead);
  if (!dead_ && data_left_ == 0 && pad_left_ == 0) end_data();
  return prefix;
}

// The DATA frame that has begun: may its stream have it?
void Session::account_data(const FrameHeader& frame, uint32_t overhead) {
  Stream* stream = find(frame.stream);
  // What was under way when we reset it is not the peer's fault.
  if (stream == nullptr && was_reset(frame.stream)) return;
  if (stream == nullptr) return stream_error(frame.stream, ErrorCode::kStreamClosed);
  if (stream->remote_closed_) return stream_error(*stream, ErrorCode::kStreamClosed);
  if (static_cast<int64_t>(frame.length) > stream->receive_window_) {
    return stream_error(*stream, ErrorCode::kFlowControlError);
  }
  stream->receive_window_ -= static_cast<int32_t>(frame.length);
  if (overhead > 0) credit_stream(*stream, overhead);
  const bool before_head = role_ == Role::kClient && !stream->head_received_;
  const bool too_long = stream->body_left_ != UINT64_MAX && data_left_ > stream->body_left_;
  if (before_head || too_long) stream_error(*stream, ErrorCode::kProtocolError);
}

// Bytes of the DATA frame under way.
size_t Session::take_data(std::string_view rest) {
  size_t used = 0;
  if (data_left_ > 0) {
    const size_t part = std::min<size_t>(rest.size(), data_left_);
    if (part == 0) return 0;
    data_left_ -= static_cast<uint32_t>(part);
    used = part;
    Stream* stream = find(data_stream_);
    if (stream == nullptr) {
      credit_connection(part);
    } else {
      if (stream->body_left_ != UINT64_MAX) stream->body_left_ -= part;
      stream->buffered_ += static_cast<uint32_t>(part);
      // Not if padding is still to come, or the body is too short.
      const bool whole = stream->body_left_ == UINT64_MAX || stream->body_left_ == 0;
      stream->end_follows_ = data_end_ && data_left_ == 0 && pad_left_ == 0 && whole;
      owner_.on_data(*stream, rest.substr(0, part));
    }
    if (dead_ || data_left_ > 0) return used;
  }
  const size_t part = std::min<size_t>(rest.size() - used, pad_left_);
  pad_left_ -= static_cast<uint32_t>(part);
  used += part;
  if (pad_left_ == 0) end_data();
  return used;
}

void Session::end_data() {
  in_data_ = false;
  if (!data_end_) return;
  if (Stream* stream = find(data_stream_)) end_remote(*stream, {});
}

// The peer has sent the last of this stream.
void Session::end_remote(Stream& stream, std::string_view trailers) {
  if (stream.remote_closed_) return;
  if (stream.body_left_ != UINT64_MAX && stream.body_left_ != 0) {
    return stream_error(stream, ErrorCode::kProtocolError);  // RFC 9113 8.1.1
  }
  stream.remote_closed_ = true;
  owner_.on_end(stream, trailers);
  if (!dead_ && stream.open_) remove_if_done(stream);
}

// --- header blocks ---

void Session::take_headers(const FrameHeader& frame, std::string_view payload) {
  size_t padding = 0;
  if (frame.has(flag::kPadded)) {
    if (payload.empty()) {
      return fail(ErrorCode::kFrameSizeError, Flood::kNone, "padding without its length");
    }
    padding = static_cast<uint8_t>(payload[0]);
    payload.remove_prefix(1);
  }
  bool depends_on_itself = false;
  if (frame.has(flag::kPriority)) {
    if (payload.size() < 5) {
      return fail(ErrorCode::kFrameSizeError, Flood::kNone, "HEADERS without their priority");
    }
    depends_on_itself = (read32(payload.data()) & kWindowMax) == frame.stream;
    payload.remove_prefix(5);
  }
  if (padding > payload.size()) {
    return fail(ErrorCode::kProtocolError, Flood::kNone, "more padding than frame");
  }
  payload.remove_suffix(padding);
  const bool peers_id = (frame.stream % 2 == 1) == (role_ == Role::kServer);
  if (frame.stream == 0 || (!peers_id && !was_opened(frame.stream)) ||
      (role_ == Role::kClient && peers_id)) {
    return fail(ErrorCode::kProtocolError, Flood::kNone, "HEADERS on a stream of no such number");
  }
  continuation_ = frame.stream;
  continuation_frames_ = 0;
  // A stream that depends on itself is refused, but its block must be decoded all the same.
  block_flags_ = static_cast<uint8_t>((frame.flags & flag::kEndStream) |
                                      (depends_on_itself ? flag::kPriority : 0));
  if (frame.has(flag::kEndHeaders)) return take_block(payload);
  block_.assign(payload);
}

void Session::take_continuation(const FrameHeader& frame, std::string_view payload) {
  if (continuation_ == 0 || frame.stream != continuation_) {
    return fail(ErrorCode::kProtocolError, Flood::kNone, "CONTINUATION of no header block");
  }
  const size_t most = limits_.head.header_bytes + kSlackBytes;
  if (++continuation_frames_ > kContinuationsMax || block_.size() + payload.size() > most) {
    return fail(ErrorCode::kEnhanceYourCalm, Flood::kContinuation, "a header block without end");
  }
  block_.append(payload);
  if (!frame.has(flag::kEndHeaders)) return;
  const std::string block = std::move(block_);
  block_ = {};
  take_block(block);
}

bool Session::decode(std::string_view block) {
  if (inflater_.decode(block, limits_.head.header_bytes, scratch_.builder)) return true;
  if (inflater_.too_big()) {
    fail(ErrorCode::kEnhanceYourCalm, Flood::kHeaderBomb,
         "a header block that decodes to too much");
  } else {
    fail(ErrorCode::kCompressionError, Flood::kNone, "a header block does not decode");
  }
  return false;
}

// A block that nobody wants is decoded all the same: both tables must stay equal.
void Session::swallow_block(std::string_view block) {
  scratch_.builder.start_trailers(limits_.head);
  (void)decode(block);
}

void Session::take_block(std::string_view block) {
  const uint32_t id = continuation_;
  const bool end = (block_flags_ & flag::kEndStream) != 0;
  const bool wrong = (block_flags_ & flag::kPriority) != 0;
  continuation_ = 0;
  Stream* stream = find(id);
  const bool is_new = role_ == Role::kServer && id > last_peer_id_;
  const bool is_head =
      is_new || (stream != nullptr && role_ == Role::kClient && !stream->head_received_);
  if (stream == nullptr && !is_new) {
    // RFC 9113 5.1.1: ids only grow. What is behind the last one was closed, unless it was left
    // out.
    const bool left_out = role_ == Role::kServer && peer_opened_ != (last_peer_id_ + 1) / 2;
    if (left_out) return fail(ErrorCode::kProtocolError, Flood::kNone, "an old stream number");
    if (!was_reset(id)) {
      return fail(ErrorCode::kStreamClosed, Flood::kNone, "HEADERS on a stream that is closed");
    }
    return swallow_block(block);  // It was under way when we reset the stream.
  }
  if (!is_head) {
    scratch_.builder.start_trailers(limits_.head);
  } else if (role_ == Role::kServer) {
    last_peer_id_ = id;
    ++peer_opened_;
    scratch_.builder.start_request(limits_.head);
  } else {
    scratch_.builder.start_response(limits_.head);
  }
  if (!decode(block)) return;
  if (wrong) {
    return stream != nullptr ? stream_error(*stream, ErrorCode::kProtocolError)
                             : stream_error(id, ErrorCode::kProtocolError);
  }
  if (is_new) return take_request(id, end);
  if (is_head) return take_response(*stream, end);
  take_trailers(*stream, end);
}

void Session::take_request(uint32_t id, bool end) {
  if (id > goaway_last_) return;  // It was told that nobody looks at this one.
  if (table_.size() >= limits_.max_streams) {
    ++refused_;
    return stream_error(id, ErrorCode::kRefusedStream, Flood::kStreams);
  }
  const BlockError error = scratch_.builder.finish(limits_.websocket);
  if (error != BlockError::kNone) {
    owner_.on_bad_request(id, error, end);
    const bool malformed = error == BlockError::kMalformed || error == BlockError::kBadTarget;
    if (malformed && !dead_) stream_error(id, ErrorCode::kProtocolError);
    return;
  }
  opened_ = false;
  malformed_ = false;
  owner_.on_request(id, scratch_.builder, end);
  if (dead_) return;
  if (!opened_ && malformed_) return stream_error(id, ErrorCode::kProtocolError);
  // Our own want of room is not held against the client.
  if (!opened_) return put_reset(id, ErrorCode::kRefusedStream);
  // It may be over already: answered, or reset.
  Stream* stream = find(id);
  if (stream != nullptr && end) end_remote(*stream, {});
}

void Session::take_response(Stream& stream, bool end) {
  if (scratch_.builder.finish() != BlockError::kNone) {
    return stream_error(stream, ErrorCode::kProtocolError);
  }
  const bool interim = scratch_.builder.built().status < 200;
  if (interim && end) return stream_error(stream, ErrorCode::kProtocolError);
  if (interim && !count_control(Flood::kInterim)) return;
  stream.head_received_ = !interim;
  const uint32_t id = stream.id_;
  owner_.on_response(stream, scratch_.builder, end);
  if (dead_ || !end) return;
  if (Stream* still = find(id)) end_remote(*still, {});
}

void Session::take_trailers(Stream& stream, bool end) {
  if (stream.remote_closed_) return stream_error(stream, ErrorCode::kStreamClosed);
  // RFC 9113 8.1: a second block that does not end the stream, or has pseudo-headers.
  if (!end || scratch_.builder.finish() != BlockError::kNone) {
    return stream_error(stream, ErrorCode::kProtocolError);
  }
  end_remote(stream, scratch_.builder.text());
}

// --- the rest ---

void Session::take_settings(const FrameHeader& frame, std::string_view payload) {
  if (frame.stream != 0) {
    return fail(ErrorCode::kProtocolError, Flood::kNone, "SETTINGS on a stream");
  }
  const bool ack = frame.has(flag::kAck);
  if ((ack && !payload.empty()) || payload.size() % 6 != 0) {
    return fail(ErrorCode::kFrameSizeError, Flood::kNone, "SETTINGS of a wrong size");
  }
  if (!settings_received_ && ack) {
    return fail(ErrorCode::kProtocolError, Flood::kNone, "the first frame is not SETTINGS");
  }
  if (settings_received_ && !count_control(Flood::kSettings)) return;
  if (ack) return inflater_.on_settings_ack();
  const bool first = !settings_received_;
  settings_received_ = true;
  for (size_t at = 0; at < payload.size(); at += 6) {
    if (!take_setting(read16(payload.data() + at), read32(payload.data() + at + 2))) return;
  }
  put_frame(FrameType::kSettings, flag::kAck, 0, {});
  if (first || role_ == Role::kClient) owner_.on_capacity();
}

bool Session::take_setting(uint16_t id, uint32_t value) {
  switch (static_cast<Setting>(id)) {
    case Setting::kHeaderTableSize: deflater_.limit_table(value); return true;
    case Setting::kEnablePush:
      if (value <= 1 && (value == 0 || role_ == Role::kServer)) return true;
      fail(ErrorCode::kProtocolError, Flood::kNone, "a bad SETTINGS_ENABLE_PUSH");
      return false;
    case Setting::kMaxConcurrentStreams: peer_max_streams_ = value; return true;
    case Setting::kInitialWindowSize:
      if (value <= kWindowMax) return move_windows(value);
      fail(ErrorCode::kFlowControlError, Flood::kNone, "a bad SETTINGS_INITIAL_WINDOW_SIZE");
      return false;
    case Setting::kMaxFrameSize:
      if (value >= kFrameBytesMax && value <= 0xff'ffff) return true;
      fail(ErrorCode::kProtocolError, Flood::kNone, "a bad SETTINGS_MAX_FRAME_SIZE");
      return false;
    case Setting::kEnableConnectProtocol:
      if (value > 1 || (peer_websocket_ && value == 0)) {
        fail(ErrorCode::kProtocolError, Flood::kNone, "a bad SETTINGS_ENABLE_CONNECT_PROTOCOL");
        return false;
      }
      peer_websocket_ = value == 1;
      return true;
    case Setting::kMaxHeaderListSize:
    case Setting::kNoRfc7540Priorities: return true;
  }
  return true;  // RFC 9113 6.5.2: unknown ones are ignored.
}

// RFC 9113 6.9.2: the windows of all streams move by the difference, below 0 if need be.
bool Session::move_windows(uint32_t initial) {
  const int64_t by = static_cast<int64_t>(initial) - static_cast<int64_t>(peer_initial_);
  for (Stream* stream : table_) {
    const int64_t moved = stream->send_window_ + by;
    if (moved > kWindowMax) {
      fail(ErrorCode::kFlowControlError, Flood::kNone, "a window overflows");
      return false;
    }
    stream->send_window_ = static_cast<int32_t>(moved);
  }
  peer_initial_ = initial;
  if (by > 0 && !table_.empty()) owner_.on_window(nullptr);
  return !dead_;
}

void Session::take_ping(const FrameHeader& frame, std::string_view payload) {
  if (frame.stream != 0) return fail(ErrorCode::kProtocolError, Flood::kNone, "PING on a stream");
  if (payload.size() != 8) {
    return fail(ErrorCode::kFrameSizeError, Flood::kNone, "PING of a wrong size");
  }
  if (!count_control(Flood::kPing)) return;
  if (!frame.has(flag::kAck)) return put_frame(FrameType::kPing, flag::kAck, 0, payload);
  // Another one may have been on its way when drain() said GOAWAY.
  if (draining_ && !drained_ && payload == kDrainPing) finish_drain();
  if (!dead_) owner_.on_ping_ack();
}

void Session::take_goaway(const FrameHeader& frame, std::string_view payload) {
  if (frame.stream != 0) {
    return fail(ErrorCode::kProtocolError, Flood::kNone, "GOAWAY on a stream");
  }
  if (payload.size() < 8) {
    return fail(ErrorCode::kFrameSizeError, Flood::kNone, "GOAWAY of a wrong size");
  }
  if (!count_control(Flood::kGoaway)) return;
  const uint32_t last = read32(payload.data()) & kWindowMax;
  // A limit that grows again would be a second look at streams that were retried elsewhere.
  peer_goaway_ = std::min(peer_goaway_, std::min(last, kWindowMax - 1));
  owner_.on_goaway(peer_goaway_, static_cast<ErrorCode>(read32(payload.data() + 4)));
}

void Session::take_window_update(const FrameHeader& frame, std::string_view payload) {
  if (payload.size() != 4) {
    return fail(ErrorCode::kFrameSizeError, Flood::kNone, "WINDOW_UPDATE of a wrong size");
  }
  const uint32_t more = read32(payload.data()) & kWindowMax;
  if (window_allowance_ > 0) {
    --window_allowance_;
  } else if (!count_control(Flood::kWindowUpdate)) {
    return;
  }
  if (frame.stream == 0) {
    if (more == 0 || static_cast<int64_t>(more) + send_window_ > kWindowMax) {
      return fail(more == 0 ? ErrorCode::kProtocolError : ErrorCode::kFlowControlError,
                  Flood::kNone, "a bad WINDOW_UPDATE");
    }
    const bool was_closed = send_window_ <= 0;
    send_window_ += static_cast<int32_t>(more);
    if (was_closed && send_window_ > 0) owner_.on_window(nullptr);
    return;
  }
  if (!was_opened(frame.stream)) {
    return fail(ErrorCode::kProtocolError, Flood::kNone, "WINDOW_UPDATE on an idle stream");
  }
  Stream* stream = find(frame.stream);
  if (stream == nullptr) return;
  if (more == 0) return stream_error(*stream, ErrorCode::kProtocolError);
  if (static_cast<int64_t>(stream->send_window_) + more > kWindowMax) {
    return stream_error(*stream, ErrorCode::kFlowControlError);
  }
  const bool was_closed = stream->send_window_ <= 0;
  stream->send_window_ += static_cast<int32_t>(more);
  if (was_closed && stream->send_window_ > 0) owner_.on_window(stream);
}

void Session::take_rst(const FrameHeader& frame, std::string_view payload) {
  if (payload.size() != 4) {
    return fail(ErrorCode::kFrameSizeError, Flood::kNone, "RST_STREAM of a wrong size");
  }
  if (frame.stream == 0 || !was_opened(frame.stream)) {
    return fail(ErrorCode::kProtocolError, Flood::kNone, "RST_STREAM on an idle stream");
  }
  Stream* stream = find(frame.stream);
  if (stream == nullptr) {
    (void)count_control(Flood::kLateReset);
    return;
  }
  remove(*stream);
  owner_.on_reset(*stream, static_cast<ErrorCode>(read32(payload.data())), false);
  count_reset(Flood::kResets);  // CVE-2023-44487
}

// RFC 9113 5.3.2: ignored, but for its form.
void Session::take_priority(const FrameHeader& frame, std::string_view payload) {
  if (frame.stream == 0) {
    return fail(ErrorCode::kProtocolError, Flood::kNone, "PRIORITY on no stream");
  }
  if (!count_control(Flood::kPriority)) return;
  Stream* stream = find(frame.stream);
  const bool itself = payload.size() == 5 && (read32(payload.data()) & kWindowMax) == frame.stream;
  if (payload.size() == 5 && !itself) return;
  const ErrorCode code = itself ? ErrorCode::kProtocolError : ErrorCode::kFrameSizeError;
  if (stream != nullptr) return stream_error(*stream, code);
  // A stream in state idle must not get a RST_STREAM, so it takes the connection.
  if (!was_opened(frame.stream)) return fail(code, Flood::kNone, "a bad PRIORITY");
  stream_error(frame.stream, code);
}

// RFC 9218 7.1.
void Session::take_priority_update(const FrameHeader& frame, std::string_view payload) {
  if (frame.stream != 0) {
    return fail(ErrorCode::kProtocolError, Flood::kNone, "PRIORITY_UPDATE on a stream");
  }
  if (payload.size() < 4) {
    return fail(ErrorCode::kFrameSizeError, Flood::kNone, "PRIORITY_UPDATE of a wrong size");
  }
  if (!count_control(Flood::kPriority)) return;
  const uint32_t id = read32(payload.data()) & kWindowMax;
  if (id == 0) {
    return fail(ErrorCode::kProtocolError, Flood::kNone, "PRIORITY_UPDATE of no stream");
  }
  Stream* stream = find(id);
  if (stream == nullptr) return;  // Over, or to come; the `priority` field will say then.
  stream->urgency_ = 3;
  stream->incremental_ = false;
  read_priority(payload.substr(4), stream->urgency_, stream->incremental_);
}

}  // namespace ringway::h2
