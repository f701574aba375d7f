// proto/http1_fields.cc
#include "proto/http1_fields.h"

#include <cstring>

#include "proto/http1_bytes.h"
#include "proto/http1_target.h"

namespace ringway::http1 {
namespace {

// Connection may name this many fields; more only makes names x fields comparisons (CWE-407).
constexpr uint32_t kNominationsMax = 32;

// Compares with a lower-case literal of the same length, 8 bytes at a time. Setting bit 5 maps
// upper to lower case and leaves the other token bytes of our names ('-', digits) as they are; the
// bytes it would confuse with those are no token bytes.
template <size_t N>
bool is_name(const char* name, const char (&lower)[N]) {
  constexpr size_t kLen = N - 1;
  constexpr uint64_t kBit = 0x2020202020202020;
  size_t i = 0;
  for (; i + 8 <= kLen; i += 8) {
    uint64_t a;
    uint64_t b;
    memcpy(&a, name + i, 8);
    memcpy(&b, lower + i, 8);
    if ((a | kBit) != b) return false;
  }
  for (; i < kLen; ++i) {
    if ((name[i] | 0x20) != lower[i]) return false;
  }
  return true;
}

FieldId id_of_7(const char* name) {
  switch (name[0] | 0x20) {
    case 'u': return is_name(name, "upgrade") ? FieldId::kUpgrade : FieldId::kOther;
    case 't': return is_name(name, "trailer") ? FieldId::kTrailer : FieldId::kOther;
    case 'r': return is_name(name, "referer") ? FieldId::kReferer : FieldId::kOther;
  }
  return FieldId::kOther;
}

FieldId id_of_10(const char* name) {
  switch (name[0] | 0x20) {
    case 'c': return is_name(name, "connection") ? FieldId::kConnection : FieldId::kOther;
    case 'k': return is_name(name, "keep-alive") ? FieldId::kKeepAlive : FieldId::kOther;
    case 'u': return is_name(name, "user-agent") ? FieldId::kUserAgent : FieldId::kOther;
    case 'e': return is_name(name, "early-data") ? FieldId::kEarlyData : FieldId::kOther;
  }
  return FieldId::kOther;
}

FieldId id_of_16(const char* name) {
  switch (name[0] | 0x20) {
    case 'p':
      return is_name(name, "proxy-connection") ? FieldId::kProxyConnection : FieldId::kOther;
    case 'w':
      return is_name(name, "www-authenticate") ? FieldId::kWwwAuthenticate : FieldId::kOther;
    case 'x': return is_name(name, "x-forwarded-host") ? FieldId::kXForwardedHost : FieldId::kOther;
  }
  return FieldId::kOther;
}

// RFC 9112 6.2: digits only. 19 digits always fit 64 bits.
bool parse_length(std::string_view text, uint64_t& length) {
  if (text.empty() || text.size() > 19) return false;
  length = 0;
  for (const char c : text) {
    if (!is_digit(c)) return false;
    length = length * 10 + static_cast<uint64_t>(c - '0');
  }
  return true;
}

// Why a Transfer-Encoding other than exactly "chunked" is refused. Codings that we do not know are
// 501 (RFC 9112 6.1); whatever a lenient reader might take for chunked in another way is 400.
HeadError fault_of_coding(std::string_view value) {
  ListReader list(value);
  std::string_view coding;
  bool chunked = false;
  while (list.next(coding)) {
    if (chunked || !is_token(coding)) return HeadError::kBadFraming;
    chunked = equal_nocase(coding, "chunked");
  }
  return HeadError::kUnknownCoding;
}

// What one pass over the fields finds.
struct Found {
  const Field* host = nullptr;
  const Field* length = nullptr;
  const Field* coding = nullptr;
  uint32_t hosts = 0;
  uint32_t lengths = 0;
  uint32_t codings = 0;
  uint32_t upgrades = 0;
  uint32_t nominations = 0;
  bool connection_close = false;
  bool connection_keep_alive = false;
  bool connection_upgrade = false;
  bool upgrade_to_h2 = false;
};

// Sets value and id of one field, whose line ends (with CRLF) at `line_end`.
void locate_value(const Head& head, Field& field, uint32_t line_end) {
  uint32_t from = field.name_at + field.name_len + 1;
  uint32_t to = line_end - 2;
  while (from < to && is_blank(head.base[from])) ++from;
  while (from < to && is_blank(head.base[to - 1])) --to;
  field.value_at = from;
  field.value_len = to - from;
  field.id = field_id_of(head.name(field));
  field.hop_by_hop = is_hop_by_hop(field.id);
}

void read_connection(std::string_view value, Found& found) {
  ListReader list(value);
  std::string_view option;
  while (list.next(option)) {
    if (option.empty()) continue;
    if (equal_nocase(option, "close")) {
      found.connection_close = true;
    } else if (equal_nocase(option, "keep-alive")) {
      found.connection_keep_alive = true;
    } else if (equal_nocase(option, "upgrade")) {
      found.connection_upgrade = true;
    } else {
      ++found.nominations;
    }
  }
}

// HTTP/2 is never reached by Upgrade here: a request that offers it would let a server speak h2c
// past all rules of ours.
bool offers_h2(std::string_view value) {
  ListReader list(value);
  std::string_view protocol;
  while (list.next(protocol)) {
    const std::string_view name = trim(protocol.substr(0, protocol.find('/')));
    if (equal_nocase(name, "h2c") || equal_nocase(name, "h2")) return true;
  }
  return false;
}

bool has_trailers_option(std::string_view value) {
  ListReader list(value);
  std::string_view coding;
  while (list.next(coding)) {
    if (equal_nocase(coding, "trailers")) return true;
  }
  return false;
}

// Takes note of a field that the balancer itself acts on.
void note_field(Head& head, const Field& field, Found& found) {
  switch (field.id) {
    case FieldId::kHost:
      found.host = &field;
      ++found.hosts;
      return;
    case FieldId::kContentLength:
      found.length = &field;
      ++found.lengths;
      return;
    case FieldId::kTransferEncoding:
      found.coding = &field;
      ++found.codings;
      return;
    case FieldId::kConnection: read_connection(head.value(field), found); return;
    case FieldId::kUpgrade:
      if (field.value_len > 0) ++found.upgrades;
      found.upgrade_to_h2 |= offers_h2(head.value(field));
      return;
    case FieldId::kExpect:
      head.expect_continue |=  // RFC 9110 10.1.1: not for HTTP/1.0
          head.version_minor > 0 && equal_nocase(head.value(field), "100-continue");
      return;
    case FieldId::kTe: head.te_trailers |= has_trailers_option(head.value(field)); return;
    default: return;  // Looked at by others, or by nobody.
  }
}

// RFC 9110 7.6.1: marks the fields that Connection names. What frames or routes a message cannot be
// nominated away; a client that tries is ignored, as those fields are regenerated anyway.
void nominate(const Head& head, std::span<Field> fields, std::string_view option) {
  for (Field& field : fields) {
    if (field.name_len != option.size()) continue;
    if (field.id == FieldId::kHost || field.id == FieldId::kContentLength) continue;
    if (field.id == FieldId::kEarlyData) continue;  // RFC 8470 5.1: nobody on the way removes it.
    if (equal_nocase(head.name(field), option)) field.hop_by_hop = true;
  }
}

Fault apply_nominations(const Head& head, std::span<Field> fields, const Found& found) {
  if (found.nominations == 0) return {};
  for (const Field& field : fields) {
    if (field.id != FieldId::kConnection) continue;
    if (found.nominations > kNominationsMax) return {HeadError::kBadField, field.name_at};
    ListReader list(head.value(field));
    std::string_view option;
    while (list.next(option)) {
      if (!option.empty()) nominate(head, fields, option);
    }
  }
  return {};
}

// Fills in the fields and judges what is common to both directions: at most one of Content-Length
// and Transfer-Encoding, in its only safe spelling. `chunked` and `length` say what there was.
Fault read_fields(Head& head, std::span<Field> fields, Found& found) {
  for (size_t i = 0; i < fields.size(); ++i) {
    if (!head.plain) {
      const uint32_t line_end = i + 1 < fields.size() ? fields[i + 1].name_at : head.head_len - 2;
      locate_value(head, fields[i], line_end);
    }
    note_field(head, fields[i], found);
  }
  head.fields = fields;
  if (const Fault fault = apply_nominations(head, fields, found)) return fault;
  head.keep_alive =
      !found.connection_close && (head.version_minor > 0 || found.connection_keep_alive);
  head.upgrade = found.connection_upgrade && found.upgrades > 0 && !found.upgrade_to_h2 &&
                 head.version_minor > 0;  // RFC 9110 7.8: ignored in HTTP/1.0
  if (found.lengths > 0) {
    // RFC 9112 6.3 would allow equal repetitions; they have only ever served attacks.
    const uint32_t at = found.length->name_at;
    if (found.lengths > 1 || found.codings > 0) return {HeadError::kBadFraming, at};
    if (!parse_length(head.value(*found.length), head.content_length)) {
      return {HeadError::kBadFraming, at};
    }
  }
  if (found.codings > 0) {
    const uint32_t at = found.coding->name_at;
    if (found.codings > 1 || head.version_minor == 0) return {HeadError::kBadFraming, at};
    const std::string_view value = head.value(*found.coding);
    if (!equal_nocase(value, "chunked")) return {fault_of_coding(value), at};
  }
  return {};
}

// What requests have in common, however they are framed.
Fault read_request(Head& head, std::span<Field> fields, Found& found) {
  if (const Fault fault = read_fields(head, fields, found)) return fault;
  if (found.hosts > 1) return {HeadError::kBadHost, found.host->name_at};
  return check_host(head, found.host);
}

// And responses.
Fault read_response(Head& head, std::span<Field> fields, const ResponseContext& context,
                    Found& found) {
  if (const Fault fault = read_fields(head, fields, found)) return fault;
  if (head.status == 101 && !(context.upgrade_forwarded && head.upgrade)) {
    return {HeadError::kBadFraming, 0};
  }
  if (head.status != 101) head.upgrade = false;  // elsewhere the field only advertises
  return {};
}

// RFC 9112 6.3, 1.
bool has_no_content(const Head& head, const ResponseContext& context) {
  return context.request_method == Method::kHead || head.status < 200 || head.status == 204 ||
         head.status == 304;
}

}  // namespace

FieldId field_id_of(std::string_view name) {
  const char* const n = name.data();
  const auto when = [](bool same, FieldId id) { return same ? id : FieldId::kOther; };
  switch (name.size()) {
    case 2: return when(is_name(n, "te"), FieldId::kTe);
    case 3: return when(is_name(n, "via"), FieldId::kVia);
    case 4:
      if (is_name(n, "host")) return FieldId::kHost;
      return when(is_name(n, "date"), FieldId::kDate);
    case 6:
      if (is_name(n, "cookie")) return FieldId::kCookie;
      if (is_name(n, "expect")) return FieldId::kExpect;
      return when(is_name(n, "server"), FieldId::kServer);
    case 7: return id_of_7(n);
    case 9: return when(is_name(n, "forwarded"), FieldId::kForwarded);
    case 10: return id_of_10(n);
    case 13: return when(is_name(n, "authorization"), FieldId::kAuthorization);
    case 14:
      if (is_name(n, "content-length")) return FieldId::kContentLength;
      return when(is_name(n, "http2-settings"), FieldId::kHttp2Settings);
    case 15: return when(is_name(n, "x-forwarded-for"), FieldId::kXForwardedFor);
    case 16: return id_of_16(n);
    case 17:
      if (is_name(n, "transfer-encoding")) return FieldId::kTransferEncoding;
      return when(is_name(n, "x-forwarded-proto"), FieldId::kXForwardedProto);
    case 18: return when(is_name(n, "proxy-authenticate"), FieldId::kProxyAuthenticate);
    default: return FieldId::kOther;
  }
}

bool is_hop_by_hop(FieldId id) {
  switch (id) {
    case FieldId::kConnection:
    case FieldId::kKeepAlive:
    case FieldId::kProxyConnection:
    case FieldId::kTe:
    case FieldId::kTransferEncoding:
    case FieldId::kUpgrade:
    case FieldId::kHttp2Settings: return true;
    default: return false;
  }
}

bool is_framing_field(FieldId id) {
  return is_hop_by_hop(id) || id == FieldId::kContentLength;
}

Fault read_request_fields(Head& head, std::span<Field> fields) {
  Found found;
  if (const Fault fault = read_request(head, fields, found)) return fault;
  if (found.codings > 0) {
    head.body = BodyKind::kChunked;
  } else if (found.lengths > 0) {
    head.body = BodyKind::kLength;
  }
  // Bytes behind such a request would be its body or already the new protocol, depending on who
  // reads them: with a body, there is no upgrade.
  if (head.body == BodyKind::kChunked || head.content_length > 0) head.upgrade = false;
  return {};
}

Fault read_response_fields(Head& head, std::span<Field> fields, const ResponseContext& context) {
  Found found;
  if (const Fault fault = read_response(head, fields, context, found)) return fault;
  if (has_no_content(head, context)) return {};
  if (found.codings > 0) {
    head.body = BodyKind::kChunked;
  } else if (found.lengths > 0) {
    head.body = BodyKind::kLength;
  } else {
    head.body = BodyKind::kUntilClose;
    head.keep_alive = false;
  }
  return {};
}

Fault read_built_request_fields(Head& head, std::span<Field> fields, bool body) {
  Found found;
  if (const Fault fault = read_request(head, fields, found)) return fault;
  if (found.coding != nullptr) return {HeadError::kBadFraming, found.coding->name_at};
  if (body) {
    head.body = found.lengths > 0 ? BodyKind::kLength : BodyKind::kUntilClose;
    head.upgrade = false;
  } else if (found.length != nullptr && head.content_length > 0) {
    return {HeadError::kBadFraming, found.length->name_at};
  }
  return {};
}

Fault read_built_response_fields(Head& head, std::span<Field> fields,
                                 const ResponseContext& context, bool body) {
  Found found;
  if (const Fault fault = read_response(head, fields, context, found)) return fault;
  if (found.coding != nullptr) return {HeadError::kBadFraming, found.coding->name_at};
  if (has_no_content(head, context)) return {};
  if (body) {
    head.body = found.lengths > 0 ? BodyKind::kLength : BodyKind::kUntilClose;
    return {};
  }
  // RFC 9113 8.1.1: only a response that has no content by its nature may announce some.
  if (found.length != nullptr && head.content_length > 0) {
    return {HeadError::kBadFraming, found.length->name_at};
  }
  head.body = BodyKind::kLength;
  return {};
}

}  // namespace ringway::http1
