// proto/http1_body.cc
#include "proto/http1_body.h"

#include <algorithm>

#include "proto/http1_bytes.h"
#include "proto/http1_fields.h"
#include "proto/own_fields.h"

namespace ringway::http1 {
namespace {

constexpr uint8_t kSizeDigitsMax = 16;  // 64 bits

// RFC 9110 6.5.1: a trailer must not frame, route, modify or authenticate the message, nor say how
// its content is to be read; by the time it arrives, that has been decided.
constexpr std::string_view kNotInTrailers[] = {
    "accept-encoding",
    "age",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "cookie2",
    "date",
    "expect",
    "expires",
    "forwarded",
    "host",
    "http2-settings",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "location",
    "max-forwards",
    "origin",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "retry-after",
    "set-cookie",
    "set-cookie2",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
};

}  // namespace

bool may_be_trailer(std::string_view name) {
  return std::none_of(std::begin(kNotInTrailers), std::end(kNotInTrailers),
                      [name](std::string_view banned) { return equal_nocase(name, banned); });
}

void BodyReader::start(BodyKind kind, uint64_t content_length, const BodyLimits& limits) {
  kind_ = kind;
  limits_ = limits;
  error_ = BodyError::kNone;
  left_ = kind == BodyKind::kLength ? content_length : 0;
  state_ = kind == BodyKind::kChunked ? State::kSize : State::kDone;
  ended_ = kind == BodyKind::kNone || (kind == BodyKind::kLength && content_length == 0);
  digits_ = 0;
  extension_bytes_ = 0;
  extension_named_ = false;
  trailer_bytes_ = 0;
  trailer_fields_ = 0;
  body_bytes_ = 0;
  line_.clear();
  trailers_.clear();
}

BodyReader::Step BodyReader::fail(BodyError error, size_t consumed) {
  error_ = error;
  return {.kind = Kind::kError, .consumed = consumed, .piece = {}};
}

BodyReader::Step BodyReader::next(std::string_view in) {
  if (error_ != BodyError::kNone) return {.kind = Kind::kError, .consumed = 0, .piece = {}};
  if (ended_) return {.kind = Kind::kEnd, .consumed = 0, .piece = {}};
  if (kind_ == BodyKind::kChunked) return next_chunked(in);
  // An announced length beyond the limit is refused before the first byte of it.
  if (left_ > limits_.body_bytes - body_bytes_) return fail(BodyError::kTooLarge, 0);
  if (in.empty()) return {.kind = Kind::kNeedMore, .consumed = 0, .piece = {}};
  if (kind_ == BodyKind::kUntilClose) {
    if (in.size() > limits_.body_bytes - body_bytes_) return fail(BodyError::kTooLarge, 0);
    body_bytes_ += in.size();
    return {.kind = Kind::kPiece, .consumed = in.size(), .piece = in};
  }
  const auto size = static_cast<size_t>(std::min<uint64_t>(left_, in.size()));
  left_ -= size;
  body_bytes_ += size;
  ended_ = left_ == 0;
  return {.kind = Kind::kPiece, .consumed = size, .piece = in.substr(0, size)};
}

// RFC 9112 7.1. Framing bytes are read one by one, data in pieces.
BodyReader::Step BodyReader::next_chunked(std::string_view in) {
  size_t at = 0;
  while (at < in.size()) {
    switch (state_) {
      case State::kSize:
      case State::kExtension:
      case State::kSizeLf:
      case State::kDataCr:
      case State::kDataLf: {
        const BodyError error = take_framing(in[at]);
        if (error != BodyError::kNone) return fail(error, at);
        ++at;
        break;
      }
      case State::kData: {
        const auto size = static_cast<size_t>(std::min<uint64_t>(left_, in.size() - at));
        left_ -= size;
        body_bytes_ += size;
        if (left_ == 0) state_ = State::kDataCr;
        return {.kind = Kind::kPiece, .consumed = at + size, .piece = in.substr(at, size)};
      }
      case State::kTrailerLine: {
        at += take_trailer_bytes(in.substr(at));
        if (error_ != BodyError::kNone) return fail(error_, at);
        if (ended_) return {.kind = Kind::kEnd, .consumed = at, .piece = {}};
        break;
      }
      case State::kDone: return {.kind = Kind::kEnd, .consumed = at, .piece = {}};
    }
  }
  return {.kind = Kind::kNeedMore, .consumed = at, .piece = {}};
}

// One byte of a chunk-size line, or of the CRLF behind chunk data.
BodyError BodyReader::take_framing(char c) {
  switch (state_) {
    case State::kSize: return take_size(c);
    case State::kExtension: return take_extension(c);
    case State::kSizeLf:
      if (c != '\n') return BodyError::kBadChunk;
      return begin_chunk();
    case State::kDataCr:
      if (c != '\r') return BodyError::kBadChunk;
      state_ = State::kDataLf;
      return BodyError::kNone;
    case State::kDataLf:
      if (c != '\n') return BodyError::kBadChunk;
      state_ = State::kSize;
      return BodyError::kNone;
    case State::kData:
    case State::kTrailerLine:
    case State::kDone: break;
  }
  return BodyError::kBadChunk;
}

BodyError BodyReader::take_size(char c) {
  const int digit = hex_value(c);
  if (digit >= 0) {
    if (digits_ == kSizeDigitsMax) return BodyError::kBadChunk;
    ++digits_;
    left_ = left_ << 4 | static_cast<uint64_t>(digit);
    return BodyError::kNone;
  }
  if (digits_ == 0) return BodyError::kBadChunk;
  if (c == '\r') {
    state_ = State::kSizeLf;
    return BodyError::kNone;
  }
  state_ = State::kExtension;
  extension_named_ = false;
  return take_extension(c);
}

// RFC 9112 7.1.1. An extension is bounded and dropped, so what matters is that any reader finds its
// end in the same place: it begins with ";", maybe after blanks, and has no control bytes.
BodyError BodyReader::take_extension(char c) {
  if (c == '\r') {
    if (!extension_named_) return BodyError::kBadChunk;
    state_ = State::kSizeLf;
    return BodyError::kNone;
  }
  if (is_control(c) && c != '\t') return BodyError::kBadChunk;
  if (c == ';') extension_named_ = true;
  if (!extension_named_ && !is_blank(c)) return BodyError::kBadChunk;
  if (++extension_bytes_ > limits_.extension_bytes) return BodyError::kBadChunk;
  return BodyError::kNone;
}

// The size line is complete: left_ is the chunk's size.
BodyError BodyReader::begin_chunk() {
  digits_ = 0;
  if (left_ == 0) {
    state_ = State::kTrailerLine;
    return BodyError::kNone;
  }
  if (left_ > limits_.body_bytes - body_bytes_) return BodyError::kTooLarge;
  state_ = State::kData;
  return BodyError::kNone;
}

// Takes trailer bytes up to the end of a line, or all. Sets ended_ or error_. A line that lies in
// one piece in `in` is not copied.
size_t BodyReader::take_trailer_bytes(std::string_view in) {
  const size_t lf = in.find('\n');
  const size_t taken = lf == std::string_view::npos ? in.size() : lf + 1;
  const uint32_t room = limits_.trailer_bytes - trailer_bytes_;
  if (taken > room) {
    error_ = BodyError::kBadTrailer;
    return room;
  }
  trailer_bytes_ += static_cast<uint32_t>(taken);
  std::string_view line = in.substr(0, taken);
  if (lf == std::string_view::npos || !line_.empty()) {
    line_.append(line);
    line = line_;
  }
  if (lf == std::string_view::npos) return taken;
  if (!take_trailer_line(line)) error_ = BodyError::kBadTrailer;
  line_.clear();
  return taken;
}

// `line` ends with LF. The empty line ends the body.
bool BodyReader::take_trailer_line(std::string_view line) {
  if (line.size() < 2 || line[line.size() - 2] != '\r') return false;
  if (line.size() == 2) {
    ended_ = true;
    state_ = State::kDone;
    return true;
  }
  if (++trailer_fields_ > limits_.trailer_fields) return false;
  const std::string_view text = line.substr(0, line.size() - 2);
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos || !is_token(text.substr(0, colon))) return false;
  if (!is_line_text(text)) return false;
  const std::string_view name = text.substr(0, colon);
  if (may_be_trailer(name) && !is_own_name(name, limits_.own_names)) {
    trailers_.append(text.substr(0, colon));
    trailers_.append(": ");
    trailers_.append(trim(text.substr(colon + 1)));
    trailers_.append("\r\n");
  }
  return true;
}

bool BodyReader::finish_at_close() {
  if (error_ != BodyError::kNone) return false;
  if (kind_ == BodyKind::kUntilClose) ended_ = true;
  if (!ended_) error_ = BodyError::kTruncated;
  return ended_;
}

std::string_view chunk_header(uint64_t size, char (&out)[18]) {
  constexpr char kHex[] = "0123456789abcdef";
  size_t at = sizeof out;
  out[--at] = '\n';
  out[--at] = '\r';
  do {
    out[--at] = kHex[size & 15];
    size >>= 4;
  } while (size != 0);
  return {out + at, sizeof out - at};
}

}  // namespace ringway::http1
