// proto/http2_head.h - from HTTP/2 header blocks to heads, and back.
//
// A decoded head becomes a text in HTTP/1 form (request or status line, "name: value" lines, empty
// line) with the offsets of its fields, which http1::HeadParser takes without parsing
// (take_built()): so routing, forwarding, logging and the serializer know one kind of head. The way
// back starts from the text that proto/http1_write.cc has written, so what it refuses (CR, LF, NUL,
// framing by hand) cannot get out by HTTP/2 either.
//
// Affinity:  one thread; a HeadBuilder is scratch of a shard, used for one block at a time.
// Bounds:    HeadLimits: bytes of the text, number of fields (each cookie crumb counts), URI.
// Source:    RFC 9113 8.1 to 8.3, 8.5; RFC 9110 7.2; RFC 8441 4.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "proto/http1_head.h"
#include "proto/http2_hpack.h"

namespace ringway::h2 {

// Why a block is no message. Malformed: RST_STREAM(PROTOCOL_ERROR). The others are answered with
// their status, as over HTTP/1.
enum class BlockError : uint8_t {
  kNone,
  kMalformed,       // RFC 9113 8.1.1
  kBadTarget,       // malformed, too: :path, :authority or Host hold what no request line may
  kHeadTooLarge,    // 431
  kTooManyFields,   // 431
  kUriTooLong,      // 414
  kConnectRefused,  // 405: plain CONNECT is not offered
  kUnknownMethod    // 501: for symmetry with HTTP/1
};
[[nodiscard]] http1::HeadError head_error_of(BlockError error);

class HeadBuilder final : public FieldSink {
 public:
  // Room for heads of `text_bytes` and `fields_max` fields; reusable.
  HeadBuilder(uint32_t text_bytes, uint32_t fields_max);
  ~HeadBuilder();

  void start_request(const http1::HeadLimits& limits);
  void start_response(const http1::HeadLimits& limits);
  // A second block: fields only, no pseudo-header. What may not be a trailer (framing, routing,
  // hop-by-hop and authentication fields, as in http1::BodyReader) is dropped.
  void start_trailers(const http1::HeadLimits& limits);

  bool on_field(const HeaderField& field) override;

  // After the block. A request: pseudo-headers are complete and agree, Host is made of :authority
  // (a Host field that says the same is dropped, another one is malformed), cookie crumbs are one
  // field. kNone: text() and fields() may be used.
  //
  // `websocket`: extended CONNECT is allowed (RFC 8441). Such a request becomes the HTTP/1 upgrade
  // it stands for: GET with Connection: upgrade and Upgrade: <:protocol>; is_extended_connect().
  [[nodiscard]] BlockError finish(bool websocket = false);

  // The head in HTTP/1 form, up to and including the empty line; trailers: lines only, without an
  // empty line. Valid until the next start_*(); `expects_body`: a request without END_STREAM.
  [[nodiscard]] std::string_view text() const;
  // What http1::HeadParser::take_built() needs.
  [[nodiscard]] const http1::BuiltHead& built() const { return built_; }
  [[nodiscard]] bool is_extended_connect() const { return extended_connect_; }
  // Of the `priority` field (RFC 9218 4); defaults where it says nothing.
  [[nodiscard]] uint8_t urgency() const { return urgency_; }
  [[nodiscard]] bool incremental() const { return incremental_; }

 private:
  // (helper: what is needed)
  http1::BuiltHead built_;
  bool extended_connect_ = false;
  uint8_t urgency_ = 3;
  bool incremental_ = false;
};

// Reads a `priority` value: "u=1, i" (RFC 9218 4). Unknown parts are ignored.
void read_priority(std::string_view value, uint8_t& urgency, bool& incremental);

// The way back. Takes apart a head that http1::write_request_head(), write_response_head() or
// write_own_response() wrote, and fills `fields` with what goes into an HTTP/2 block:
// pseudo-headers first (`scheme` for requests; Host becomes :authority), names in lower case
// (written into `names`), Connection, Transfer-Encoding, Keep-Alive, Upgrade and the like left out,
// Authorization, Proxy-Authorization and short cookies marked sensitive. Returns the number of
// fields; 0: they do not fit, or the text is no head. With `extended_connect` (a WebSocket
// request): :method CONNECT and :protocol from the Upgrade line.
struct BlockRoom {
  std::span<HeaderField> fields;
  std::span<char> names;
};
[[nodiscard]] size_t fields_of_request(std::string_view text, std::string_view scheme,
                                       bool extended_connect, BlockRoom room);
// `extended_connect`: a 101 becomes 200.
[[nodiscard]] size_t fields_of_response(std::string_view text, bool extended_connect,
                                        BlockRoom room);
// Trailer lines, each "name: value\r\n".
[[nodiscard]] size_t fields_of_trailers(std::string_view lines, BlockRoom room);

}  // namespace ringway::h2
