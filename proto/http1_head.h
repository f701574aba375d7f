// proto/http1_head.h - parses HTTP/1 heads: llhttp in strict mode, plus our own framing rules.
//
// Affinity:  sans-I/O, one thread. Ownership: a HeadParser holds offsets only, never bytes.
// Bounds:    HeadLimits. A parser is a slab object, taken while a head is being read and kept by
//            the exchange that needs its fields; an idle connection has none.
// Why:       Debian's llhttp 8.1 is lenient in places (bare LF, framing combinations), so whatever
//            decides where a message ends is checked here again (docs/decisions.md).
// Source:    RFC 9112 2-6, RFC 9110 4-7.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

namespace ringway::http1 {

enum class Method : uint8_t {
  kGet,
  kHead,
  kPost,
  kPut,
  kDelete,
  kOptions,
  kPatch,
  kTrace,
  kConnect,
  kOther  // any other token that llhttp knows, PROPFIND say; see Head::method_text
};

// RFC 9110 9.2.2: repeating the request has the same effect as sending it once.
[[nodiscard]] bool is_idempotent(Method method);

// The fields that the balancer itself looks at; everything else is kOther.
enum class FieldId : uint8_t {
  kOther,
  kHost,
  kConnection,
  kContentLength,
  kTransferEncoding,
  kUpgrade,
  kExpect,
  kTe,
  kTrailer,
  kKeepAlive,
  kProxyConnection,
  kHttp2Settings,
  kForwarded,
  kXForwardedFor,
  kXForwardedProto,
  kXForwardedHost,
  kVia,
  kCookie,
  kUserAgent,
  kReferer,
  kDate,
  kServer,
  kWwwAuthenticate,
  kProxyAuthenticate,
  kAuthorization,
  kEarlyData
};

// A part of the head, as an offset from its first byte.
struct Slice {
  uint32_t at = 0;
  uint32_t len = 0;
};

struct Field {
  uint32_t name_at = 0;
  uint32_t value_at = 0;  // leading and trailing whitespace excluded
  uint32_t value_len = 0;
  uint16_t name_len = 0;
  FieldId id = FieldId::kOther;
  // Ends at this hop (RFC 9110 7.6.1): Connection, Keep-Alive, Proxy-Connection, TE, Upgrade,
  // Transfer-Encoding, HTTP2-Settings, or nominated by Connection (Host and Content-Length cannot
  // be). Proxy-Authenticate and Proxy-Authorization pass: a reverse proxy is not their hop.
  bool hop_by_hop = false;
};

enum class BodyKind : uint8_t { kNone, kLength, kChunked, kUntilClose };

// Why a head was refused. Each has a status for requests; a response's error means 502.
enum class HeadError : uint8_t {
  kNone,
  kBadStartLine,    // 400
  kBadTarget,       // 400: fragment, control bytes, `*` without OPTIONS, relative, ...
  kBadField,        // 400: name or value grammar, obs-fold, space before the colon, bare LF or CR
  kBadHost,         // 400: missing (1.1), several, malformed, or at odds with absolute-form
  kBadFraming,      // 400: Content-Length and Transfer-Encoding in any doubtful form, or together
                    // (RFC 9112 6.3 would allow repairs); a 101 that nobody asked for
  kHeadTooLarge,    // 431
  kTooManyFields,   // 431
  kUriTooLong,      // 414
  kUnknownMethod,   // 501
  kUnknownCoding,   // 501: a transfer coding other than chunked
  kBadVersion,      // 505
  kConnectRefused,  // 405: CONNECT is not offered
};

// The status code (400, 414, 431, 501, 505, 405) and a phrase for logs and the error body.
[[nodiscard]] int status_of(HeadError error);
[[nodiscard]] const char* phrase_of(HeadError error);

// A parsed head, nothing in it normalised: servers get the bytes that rules saw. Slices are read
// against the bytes given to view(), so the bytes may be copied.
struct Head {
  const char* base = nullptr;  // the head's first byte; move with rebase()
  uint32_t head_len = 0;       // up to and including the empty line

  Method method = Method::kGet;
  uint8_t version_minor = 1;  // HTTP/1.0 or HTTP/1.1
  uint16_t status = 0;        // responses
  Slice method_text;
  Slice target;     // as sent, absolute-form included
  Slice path;       // "/a/b", or "*"; never empty for requests
  Slice query;      // without "?"
  Slice authority;  // of absolute-form, else the Host field's value; may be empty for HTTP/1.0
  Slice reason;     // responses

  BodyKind body = BodyKind::kNone;
  uint64_t content_length = 0;  // for kLength; of a bodiless response, what its field announces
  bool keep_alive = false;      // by version and Connection
  bool upgrade = false;         // Connection: upgrade and Upgrade without h2c, HTTP/1.1, no body;
                                // in responses only with 101
  bool expect_continue = false;
  bool te_trailers = false;
  bool absolute_form = false;
  bool has_query = false;  // tells "/a?" from "/a"
  bool plain = false;      // of the parser: every line was seen to be one, and its value located
  bool built = false;      // by take_built(): see BuiltHead

  std::span<const Field> fields;  // lives in the HeadParser

  [[nodiscard]] std::string_view view(Slice slice) const { return {base + slice.at, slice.len}; }
  [[nodiscard]] std::string_view name(const Field& f) const {
    return {base + f.name_at, f.name_len};
  }
  [[nodiscard]] std::string_view value(const Field& f) const {
    return {base + f.value_at, f.value_len};
  }
  // The first field called `id`, or nullptr.
  [[nodiscard]] const Field* find(FieldId id) const;
  // The same for any name, compared without case. O(fields).
  [[nodiscard]] const Field* find(std::string_view lower_name) const;
  // The head's bytes were copied to `new_base`.
  void rebase(const char* new_base) { base = new_base; }
};

struct HeadLimits {
  uint32_t header_bytes = 64 * 1024;  // the whole head
  uint32_t fields = 128;
  uint32_t uri_bytes = 8 * 1024;
};

// What a HeadParser needs to know of the request when it reads the response to it.
struct ResponseContext {
  Method request_method = Method::kGet;
  bool upgrade_forwarded = false;  // a 101 is only then acceptable
};

// A head that was not parsed from HTTP/1 bytes but built in their form (HTTP/2, say): the text of a
// head, and where in it things are. Of each field name_at, name_len, value_at and value_len count.
// A field that HTTP/2 must never index (RFC 7541 6.2.3) has no blank behind its colon.
struct BuiltHead {
  std::string_view text;  // start line, "name: value" lines, empty line
  Slice method;           // requests
  Slice target;
  uint16_t status = 0;  // responses
  std::span<const Field> fields;
};

class HeadParser {
 public:
  // Room for `fields_max` fields; HeadLimits::fields beyond it are cut to it.
  explicit HeadParser(uint32_t fields_max);
  ~HeadParser();
  HeadParser(const HeadParser&) = delete;
  HeadParser& operator=(const HeadParser&) = delete;

  // Begins a head; what was parsed before is gone. Empty lines (CRLF, at most 4) before a request
  // line are skipped and counted into head_len (RFC 9112 2.2).
  void start_request(const HeadLimits& limits);
  void start_response(const HeadLimits& limits, const ResponseContext& context);

  // Takes a built head instead of parse(): the same rules for target, Host and fields apply, and
  // the result is the same as if its text had been parsed, except that framing is not read from
  // fields: there is a body if `body` says so, kLength if a Content-Length announces it (which
  // must be one number, or the head is refused), else kUntilClose, which here means: until its
  // sender ends it, so keep_alive stays. Without `body` a request has kNone, and a response kNone
  // if it cannot have any (HEAD, 1xx, 204, 304), else kLength with 0 bytes; a Content-Length that
  // announces more than the 0 bytes there are is kBadFraming, but for responses that cannot have
  // any. kNone: done, and head() may be used. REQUIRES: start_*() was called.
  [[nodiscard]] HeadError take_built(const BuiltHead& built, bool body);

  enum class Status : uint8_t { kNeedMore, kDone, kError };

  // `bytes`: everything received since start_*(), contiguous; earlier bytes are the same as in the
  // last call but may lie elsewhere. Parses the new part only. After kDone or kError, start again.
  [[nodiscard]] Status parse(std::string_view bytes);

  // After kDone. `fields` stays valid until the next start_*(); base points into `bytes`.
  [[nodiscard]] const Head& head() const;
  [[nodiscard]] Head& head();

  // After kError: why, and the offset of the offending byte or line. Both are the same however the
  // bytes were cut.
  [[nodiscard]] HeadError error() const;
  [[nodiscard]] uint32_t error_at() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ringway::http1
