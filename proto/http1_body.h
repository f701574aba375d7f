// proto/http1_body.h - finds where an HTTP/1 body ends, and undoes chunked coding.
//
// Affinity:  sans-I/O, one thread; a value inside the exchange. Copies no body bytes.
// Bounds:    chunk size of at most 16 hex digits, chunk extensions and trailers by BodyLimits.
// Source:    RFC 9112 6-7.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "proto/http1_head.h"

namespace ringway::http1 {

struct BodyLimits {
  uint64_t body_bytes = UINT64_MAX;  // kTooLarge beyond it
  uint32_t extension_bytes = 1024;   // chunk extensions, per message
  uint32_t trailer_bytes = 8 * 1024;
  uint32_t trailer_fields = 64;
  // Names as fold_name() makes them: trailers that may be taken for those are not forwarded. They
  // live as long as the message is read.
  std::span<const std::string> own_names{};
};

enum class BodyError : uint8_t {
  kNone,
  kBadChunk,  // size, CRLF or extension grammar (bare LF included), or too long
  kBadTrailer,
  kTooLarge,  // 413 for requests
  kTruncated  // the connection ended inside the body
};

class BodyReader {
 public:
  void start(BodyKind kind, uint64_t content_length, const BodyLimits& limits);

  enum class Kind : uint8_t { kNeedMore, kPiece, kEnd, kError };
  struct Step {
    Kind kind;
    size_t consumed;         // of `in`, framing included; what follows kEnd is the next message
    std::string_view piece;  // kPiece: body bytes, inside `in`, not empty
  };

  // Takes the next step through `in`. Call again with the rest until kNeedMore (all consumed), kEnd
  // or kError. kEnd comes for kNone/kLength/kChunked, at once if the length is 0; asked again, the
  // answer is kEnd again, with nothing consumed. `consumed` of kError leads to the offending byte,
  // or behind the offending trailer line.
  [[nodiscard]] Step next(std::string_view in);

  // The peer ended the connection: true if that completes the body (kUntilClose, or already ended).
  // Otherwise error() is kTruncated. The one path for "end of stream" (CVE-2026-33555's class).
  [[nodiscard]] bool finish_at_close();

  // The whole body was read, though kEnd may not have been asked for yet.
  [[nodiscard]] bool ended() const { return ended_; }
  [[nodiscard]] BodyError error() const { return error_; }
  [[nodiscard]] uint64_t body_bytes() const { return body_bytes_; }  // delivered as pieces so far
  [[nodiscard]] BodyKind kind() const { return kind_; }

  // After kEnd of a chunked body: the trailer fields that may be forwarded, each "name: value\r\n"
  // (framing, routing, hop-by-hop and authentication fields are dropped, RFC 9110 6.5.1).
  [[nodiscard]] std::string_view trailers() const { return trailers_; }

 private:
  enum class State : uint8_t {
    kSize,
    kExtension,
    kSizeLf,
    kData,
    kDataCr,
    kDataLf,
    kTrailerLine,
    kDone
  };

  Step fail(BodyError error, size_t consumed);
  Step next_chunked(std::string_view in);
  BodyError take_framing(char c);
  BodyError take_size(char c);
  BodyError take_extension(char c);
  BodyError begin_chunk();
  size_t take_trailer_bytes(std::string_view in);
  bool take_trailer_line(std::string_view line);

  BodyKind kind_ = BodyKind::kNone;
  State state_ = State::kDone;
  BodyError error_ = BodyError::kNone;
  bool ended_ = true;
  bool extension_named_ = false;  // the extension's ";" was seen
  uint8_t digits_ = 0;
  uint32_t extension_bytes_ = 0;
  uint32_t trailer_bytes_ = 0;
  uint32_t trailer_fields_ = 0;
  uint64_t left_ = 0;  // of the body (kLength) or of the chunk
  uint64_t body_bytes_ = 0;
  BodyLimits limits_;
  std::string line_;  // a trailer line that arrived in parts; empty otherwise
  std::string trailers_;
};

// Writes "<hex>\r\n" for a chunk of `size` > 0 bytes into `out` and returns the part used.
[[nodiscard]] std::string_view chunk_header(uint64_t size, char (&out)[18]);

}  // namespace ringway::http1
