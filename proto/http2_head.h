// proto/http2_head.h - from HTTP/2 header blocks to heads, and back.
//
// A decoded head becomes a text in HTTP/1 form (request or status line, "name: value" lines, empty
// line) with the offsets of its fields, which http1::HeadParser takes without parsing
// (take_built()). Fields that their sender wants never to be indexed (RFC 7541 6.2.3) become
// "name:value" lines, unless they are so by their names: so the mark gets to the next block. So
// routing, forwarding, logging and the serializer know one kind of head. The way back starts from
// the text that proto/http1_write.cc has written, so what it refuses (CR, LF, NUL, framing by hand)
// cannot get out by HTTP/2 either.
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
  HeadBuilder(const HeadBuilder&) = delete;
  HeadBuilder& operator=(const HeadBuilder&) = delete;

  void start_request(const http1::HeadLimits& limits);
  void start_response(const http1::HeadLimits& limits);
  // A second block: fields only, no pseudo-header. What may not be a trailer (framing, routing,
  // hop-by-hop and authentication fields, as in http1::BodyReader) is dropped.
  void start_trailers(const http1::HeadLimits& limits);

  bool on_field(const HeaderField& field) override;
  void on_cut() override;

  // After the block. A request: pseudo-headers are complete and agree, Host is made of :authority
  // (a Host field that says the same is dropped, another one is malformed), cookie crumbs are one
  // field. kNone: text() and fields() may be used.
  //
  // `websocket`: extended CONNECT is allowed (RFC 8441). Such a request becomes the HTTP/1 upgrade
  // it stands for: GET with Connection: upgrade, Upgrade: websocket and, if there is none, a
  // Sec-WebSocket-Key, which HTTP/1 servers demand; is_extended_connect(). Give take_built() no
  // body then: what follows is no content. Other protocols are kUnknownMethod (RFC 9220 3).
  [[nodiscard]] BlockError finish(bool websocket = false);

  // The head in HTTP/1 form, up to and including the empty line; trailers: lines only, without an
  // empty line. Valid until the next start_*().
  [[nodiscard]] std::string_view text() const;
  // What http1::HeadParser::take_built() needs.
  [[nodiscard]] const http1::BuiltHead& built() const { return built_; }
  [[nodiscard]] bool is_extended_connect() const { return extended_connect_; }
  // Of the `priority` field (RFC 9218 4); defaults where it says nothing.
  [[nodiscard]] uint8_t urgency() const { return urgency_; }
  [[nodiscard]] bool incremental() const { return incremental_; }

 private:
  enum class Kind : uint8_t { kRequest, kResponse, kTrailers };
  enum Pseudo : uint8_t {
    kMethod = 1,
    kScheme = 2,
    kPath = 4,
    kAuthority = 8,
    kProtocol = 16,
    kStatus = 32
  };

  void start(Kind kind, const http1::HeadLimits& limits);
  bool fail(BlockError error);
  bool on_pseudo(std::string_view name, std::string_view value);
  bool on_request_pseudo(Pseudo which, std::string_view value);
  bool take_path(std::string_view value);
  bool take_status(std::string_view value);
  bool on_regular(const HeaderField& field);
  bool on_request_field(http1::FieldId id, const HeaderField& field);
  bool take_host(std::string_view value);
  bool take_crumb(const HeaderField& field);
  bool begin_head();
  bool begin_request();
  bool begin_response();
  bool finish_request();
  bool count_line();
  bool put(std::string_view piece);
  bool put_line(const HeaderField& field);
  bool put_line(std::string_view name, std::string_view value) {
    return put_line({.name = name, .value = value});
  }
  bool keep(std::string_view value, http1::Slice& slice);
  [[nodiscard]] std::string_view kept(http1::Slice slice) const {
    return {side_.get() + slice.at, slice.len};
  }

  const uint32_t text_max_;
  const uint32_t fields_max_;
  std::unique_ptr<char[]> text_;
  // The values of pseudo-headers, as they may come in any order; then cookie crumbs.
  std::unique_ptr<char[]> side_;
  std::unique_ptr<http1::Field[]> fields_;

  Kind kind_ = Kind::kRequest;
  BlockError error_ = BlockError::kNone;
  http1::HeadLimits limits_;   // within text_max_ and fields_max_
  uint8_t seen_ = 0;           // a set of Pseudo
  bool begun_ = false;         // the first line is written
  bool host_seen_ = false;     // a Host field
  bool key_seen_ = false;      // a Sec-WebSocket-Key
  bool crumb_marked_ = false;  // a cookie crumb was marked sensitive
  http1::Method method_ = http1::Method::kGet;
  uint16_t port_ = 443;  // of the scheme
  uint32_t text_len_ = 0;
  uint32_t side_len_ = 0;
  uint32_t num_lines_ = 0;   // fields of the block and what stands for pseudo-headers
  uint32_t num_fields_ = 0;  // in fields_
  http1::Slice method_text_;
  http1::Slice path_;
  http1::Slice authority_;
  http1::Slice host_;      // in text_: the line made of :authority
  uint64_t num_keys_ = 0;  // Sec-WebSocket-Keys made

  http1::BuiltHead built_;
  bool extended_connect_ = false;
  uint8_t urgency_ = 3;
  bool incremental_ = false;
};

// True for fields that the way back (below) marks sensitive by themselves: credentials and short
// cookies. `name` in lower case.
[[nodiscard]] bool is_always_sensitive(http1::FieldId id, std::string_view name,
                                       std::string_view value);

// Reads a `priority` value: "u=1, i" (RFC 9218 4). Unknown parts are ignored.
void read_priority(std::string_view value, uint8_t& urgency, bool& incremental);

// The way back. Takes apart a head that http1::write_request_head(), write_response_head() or
// write_own_response() wrote, and fills `fields` with what goes into an HTTP/2 block:
// pseudo-headers first (`scheme` for requests; Host, which those write first, becomes :authority,
// if it is not empty), names in lower case (written into `names`), Connection, Transfer-Encoding,
// Keep-Alive, Upgrade and the like left out. Sensitive are Authorization, Proxy-Authorization,
// short cookies, and what has no blank behind its colon (see http1::BuiltHead). Returns the number
// of fields; 0: they do not fit, or the text is no head. With `extended_connect` (a WebSocket
// request): :method CONNECT and :protocol websocket, which the Upgrade line must name;
// Sec-WebSocket-Key and -Accept, which have no meaning there (RFC 8441 5), are left out. The views
// are of `text`, `names` or static text.
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
