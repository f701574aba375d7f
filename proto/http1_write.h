// proto/http1_write.h - the one serializer of HTTP/1 heads.
//
// Affinity:  sans-I/O, one thread. Writes into the caller's bounded buffer, allocates nothing.
// Why:       framing fields are never copied but regenerated, hop-by-hop fields end here, and CR,
//            LF or NUL in anything that is written refuses the whole head.
// Source:    RFC 9112 3-6, RFC 9110 7.6, RFC 7239.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "proto/http1_head.h"
#include "proto/own_fields.h"

namespace ringway::http1 {

// A bounded buffer that can say "full" instead of growing.
class Out {
 public:
  explicit Out(std::span<char> room) : room_(room) {}
  void put(std::string_view text) {
    if (text.empty()) return;  // Its data() may be null, which memcpy(3) must not be given.
    if (text.size() > room_.size() - used_) {
      full_ = true;
      return;
    }
    if (text.empty()) return;
    memcpy(room_.data() + used_, text.data(), text.size());
    used_ += text.size();
  }
  void put_number(uint64_t number);
  // True once anything did not fit; the contents are then not to be used.
  [[nodiscard]] bool full() const { return full_; }
  [[nodiscard]] std::string_view written() const { return {room_.data(), used_}; }

 private:
  std::span<char> room_;
  size_t used_ = 0;
  bool full_ = false;
};

// Configured changes of a head: `remove` first, then `set` (which replaces all of that name), then
// `add`. They act on the forwarding fields too; `remove` and `set` take ours away as well. Names
// are lower case and validated when the configuration is loaded.
struct HeaderEdits {
  struct NameValue {
    std::string name;
    std::string value;
    bool operator==(const NameValue&) const = default;
  };
  std::vector<std::string> remove;
  std::vector<NameValue> set;
  std::vector<NameValue> add;

  [[nodiscard]] bool empty() const { return remove.empty() && set.empty() && add.empty(); }
  bool operator==(const HeaderEdits&) const = default;
};

// Which of the client's address fields are written (X-Forwarded-For/-Proto/-Host, Forwarded). A
// family that is off passes through untouched.
struct ForwardedInfo {
  std::string_view client_ip{};  // "1.2.3.4", "2001:db8::1" (no brackets), or "" to write neither
  std::string_view scheme{};     // "http" or "https"
  std::string_view host{};       // what the client asked for
  bool trusted = false;          // the peer is a trusted proxy: append to its fields, else replace
  bool x_forwarded = true;
  bool forwarded = false;  // RFC 7239
};

struct RequestPlan {
  BodyKind body = BodyKind::kNone;  // kNone, kLength or kChunked
  uint64_t content_length = 0;
  std::string_view path{};  // replaces path and query when not empty; else the head's own are sent
  std::string_view host{};  // replaces Host when not empty; else the head's authority is sent
  ForwardedInfo forwarded{};
  // Written unless `edits` remove or set them. Null: none.
  const OwnFields* own = nullptr;
  const HeaderEdits* edits = nullptr;
  bool upgrade = false;     // pass Upgrade and Connection: upgrade on
  bool early_data = false;  // the request may be a replay: say so (RFC 8470 5.1)
  bool for_http2 = false;   // fields of built heads keep the mark that they are never indexed
};

struct ResponsePlan {
  BodyKind body = BodyKind::kNone;  // how the body is framed towards the client
  uint64_t content_length = 0;
  bool has_content_length = false;  // write it though no body follows (HEAD, 304)
  bool keep_alive = true;
  uint8_t client_version_minor = 1;
  const HeaderEdits* edits = nullptr;
  bool upgrade = false;    // a 101
  bool for_http2 = false;  // as in RequestPlan
};

// Writes the head that goes to a server: origin-form, HTTP/1.1, Host first, end-to-end fields in
// their order, our framing, forwarding fields, the empty line. False: it does not fit, or a value
// holds CR, LF or NUL.
[[nodiscard]] bool write_request_head(const Head& head, const RequestPlan& plan, Out& out);

// Writes the head that goes to a client, always as HTTP/1.1 (RFC 9110 2.5). `Connection: close` or,
// for an HTTP/1.0 client, `Connection: keep-alive` is ours; 1xx have neither, nor framing. False as
// above, and for kChunked towards an HTTP/1.0 client.
[[nodiscard]] bool write_response_head(const Head& head, const ResponsePlan& plan, Out& out);

// Writes the 101 that a server means which has agreed to a WebSocket by HTTP/2 (RFC 8441 5): its
// fields, and `accept` for the client's key. `for_http2`: as in ResponsePlan. False as above.
[[nodiscard]] bool write_websocket_response(const Head& head, std::string_view accept,
                                            bool for_http2, Out& out);

// A response of our own. `body` is text/plain unless `content_type` says otherwise; it is left out
// (with its length announced) if `head_only`. `extra` holds complete field lines, or is empty.
struct OwnResponse {
  uint16_t status = 500;
  std::string_view body{};
  std::string_view content_type = "text/plain; charset=utf-8";
  std::string_view extra{};
  bool keep_alive = false;
  bool head_only = false;
  uint8_t client_version_minor = 1;  // as in ResponsePlan
};
[[nodiscard]] bool write_own_response(const OwnResponse& response, Out& out);

// "Not Found" for 404; "Unknown" for a number without a registered phrase.
[[nodiscard]] std::string_view reason_phrase(uint16_t status);

// True if `name` is an RFC 9110 token in lower case, and `value` has neither CR, LF, NUL nor outer
// whitespace. For header edits in the configuration.
[[nodiscard]] bool valid_field_name(std::string_view name);
[[nodiscard]] bool valid_field_value(std::string_view value);

// True for a valid name that HeaderEdits may use: not Host (RequestPlan::host is for that), not
// Early-Data (RFC 8470 5.1), and none of the framing and connection fields, which are ours. The
// writers refuse edits of other names.
[[nodiscard]] bool is_editable_field_name(std::string_view name);

}  // namespace ringway::http1
