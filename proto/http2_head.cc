// proto/http2_head.cc
//
// Pseudo-headers may come in any order, but all of them before the other fields: they are kept
// aside until the first of those (or the end), when the lines that stand for them are written.
#include "proto/http2_head.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/base/check.h"
#include "proto/http1_bytes.h"
#include "proto/http1_fields.h"
#include "proto/http1_target.h"
#include "proto/http1_write.h"

namespace ringway::h2 {
namespace {

using http1::FieldId;
using http1::Method;
using http1::Slice;

// RFC 9113 8.2: names are tokens in lower case.
constexpr std::array<bool, 256> make_name_table() {
  std::array<bool, 256> table{};
  for (unsigned c = 0; c < 256; ++c) {
    const char byte = static_cast<char>(c);
    table[c] = http1::is_token_byte(byte) && http1::to_lower(byte) == byte;
  }
  return table;
}
constexpr std::array<bool, 256> kNameByte = make_name_table();

bool valid_name(std::string_view name) {
  for (const char c : name) {
    if (!kNameByte[static_cast<uint8_t>(c)]) return false;
  }
  return !name.empty();
}

// RFC 9113 8.2.1, and no other control byte than HTAB, as in HTTP/1.
bool valid_value(std::string_view value) {
  if (value.empty()) return true;
  return !http1::is_blank(value.front()) && !http1::is_blank(value.back()) &&
         http1::is_line_text(value);
}

// RFC 9113 8.2.2. TE is looked at by its value.
bool is_connection_field(FieldId id) {
  switch (id) {
    case FieldId::kConnection:
    case FieldId::kKeepAlive:
    case FieldId::kProxyConnection:
    case FieldId::kTransferEncoding:
    case FieldId::kUpgrade: return true;
    default: return false;
  }
}

// The nonce of RFC 6455 4.1: 16 bytes in base64. It protects a client against caches that do not
// know WebSockets, and lets it see that the server does; our servers are configured, so it need
// only be another one each time.
std::string_view make_key(uint64_t number, std::span<char, 24> out) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  uint64_t state = (number + 1) * 0x9e3779b97f4a7c15;
  for (size_t i = 0; i < 22; ++i) {
    state = state * 6364136223846793005 + 1442695040888963407;
    // Of the last digit only the upper two bits count; the others must be 0.
    out[i] = kDigits[i == 21 ? state >> 62 << 4 : state >> 58];
  }
  out[22] = '=';
  out[23] = '=';
  return {out.data(), out.size()};
}

}  // namespace

http1::HeadError head_error_of(BlockError error) {
  switch (error) {
    case BlockError::kNone: return http1::HeadError::kNone;
    case BlockError::kMalformed: return http1::HeadError::kBadField;
    case BlockError::kBadTarget: return http1::HeadError::kBadTarget;
    case BlockError::kHeadTooLarge: return http1::HeadError::kHeadTooLarge;
    case BlockError::kTooManyFields: return http1::HeadError::kTooManyFields;
    case BlockError::kUriTooLong: return http1::HeadError::kUriTooLong;
    case BlockError::kConnectRefused: return http1::HeadError::kConnectRefused;
    case BlockError::kUnknownMethod: return http1::HeadError::kUnknownMethod;
  }
  return http1::HeadError::kBadField;
}

HeadBuilder::HeadBuilder(uint32_t text_bytes, uint32_t fields_max)
    : text_max_(text_bytes),
      fields_max_(fields_max),
      text_(std::make_unique<char[]>(text_bytes)),
      side_(std::make_unique<char[]>(text_bytes)),
      fields_(std::make_unique<http1::Field[]>(fields_max)) {}

HeadBuilder::~HeadBuilder() = default;

void HeadBuilder::start(Kind kind, const http1::HeadLimits& limits) {
  kind_ = kind;
  error_ = BlockError::kNone;
  limits_ = limits;
  limits_.header_bytes = std::min(limits.header_bytes, text_max_);
  limits_.fields = std::min(limits.fields, fields_max_);
  seen_ = 0;
  begun_ = kind == Kind::kTrailers;
  host_seen_ = false;
  key_seen_ = false;
  crumb_marked_ = false;
  port_ = 443;
  text_len_ = 0;
  side_len_ = 0;
  num_lines_ = 0;
  num_fields_ = 0;
  host_ = {};
  built_ = {};
  extended_connect_ = false;
  urgency_ = 3;
  incremental_ = false;
}

void HeadBuilder::start_request(const http1::HeadLimits& limits) {
  start(Kind::kRequest, limits);
}

void HeadBuilder::start_response(const http1::HeadLimits& limits) {
  start(Kind::kResponse, limits);
}

void HeadBuilder::start_trailers(const http1::HeadLimits& limits) {
  start(Kind::kTrailers, limits);
}

// Keeps the first error. Returns false, as all that fails here does.
bool HeadBuilder::fail(BlockError error) {
  if (error_ == BlockError::kNone) error_ = error;
  return false;
}

void HeadBuilder::on_cut() {
  fail(BlockError::kHeadTooLarge);
}

bool HeadBuilder::put(std::string_view piece) {
  if (piece.size() > limits_.header_bytes - text_len_) return fail(BlockError::kHeadTooLarge);
  memcpy(text_.get() + text_len_, piece.data(), piece.size());
  text_len_ += static_cast<uint32_t>(piece.size());
  return true;
}

bool HeadBuilder::count_line() {
  if (num_lines_ == limits_.fields) return fail(BlockError::kTooManyFields);
  ++num_lines_;
  return true;
}

// REQUIRES: count_line() was true for it.
bool HeadBuilder::put_line(const HeaderField& field) {
  const auto& [name, value, sensitive] = field;
  const bool bare =
      sensitive && !value.empty() && !is_always_sensitive(http1::field_id_of(name), name, value);
  const std::string_view between = bare ? ":" : ": ";
  const size_t size = name.size() + between.size() + value.size() + 2;
  if (name.size() > UINT16_MAX || size > limits_.header_bytes - text_len_) {
    return fail(BlockError::kHeadTooLarge);
  }
  RW_CHECK(num_fields_ < fields_max_);
  const auto value_at = static_cast<uint32_t>(name.size() + between.size());
  const auto value_len = static_cast<uint32_t>(value.size());
  fields_[num_fields_++] = {.name_at = text_len_,
                            .value_at = text_len_ + value_at,
                            .value_len = value_len,
                            .name_len = static_cast<uint16_t>(name.size())};
  char* const line = text_.get() + text_len_;
  memcpy(line, name.data(), name.size());
  memcpy(line + name.size(), between.data(), between.size());
  if (value_len > 0) memcpy(line + value_at, value.data(), value_len);
  memcpy(line + value_at + value_len, "\r\n", 2);
  text_len_ += static_cast<uint32_t>(size);
  return true;
}

// Puts `value` aside.
bool HeadBuilder::keep(std::string_view value, Slice& slice) {
  if (value.size() > limits_.header_bytes - side_len_) return fail(BlockError::kHeadTooLarge);
  slice = {.at = side_len_, .len = static_cast<uint32_t>(value.size())};
  if (!value.empty()) memcpy(side_.get() + side_len_, value.data(), value.size());
  side_len_ += slice.len;
  return true;
}

bool HeadBuilder::on_field(const HeaderField& field) {
  if (error_ != BlockError::kNone) return false;
  if (!field.name.empty() && field.name.front() == ':') return on_pseudo(field.name, field.value);
  return on_regular(field);
}

// RFC 9113 8.3: known ones, of the right kind, none twice, and before all other fields.
bool HeadBuilder::on_pseudo(std::string_view name, std::string_view value) {
  if (begun_) return fail(BlockError::kMalformed);
  Pseudo which = kStatus;
  if (kind_ == Kind::kRequest) {
    if (name == ":method") {
      which = kMethod;
    } else if (name == ":scheme") {
      which = kScheme;
    } else if (name == ":path") {
      which = kPath;
    } else if (name == ":authority") {
      which = kAuthority;
    } else if (name == ":protocol") {
      which = kProtocol;
    } else {
      return fail(BlockError::kMalformed);
    }
  } else if (name != ":status") {
    return fail(BlockError::kMalformed);
  }
  if ((seen_ & which) != 0) return fail(BlockError::kMalformed);
  seen_ = static_cast<uint8_t>(seen_ | which);
  return which == kStatus ? take_status(value) : on_request_pseudo(which, value);
}

bool HeadBuilder::on_request_pseudo(Pseudo which, std::string_view value) {
  switch (which) {
    case kMethod:
      if (!http1::is_token(value)) return fail(BlockError::kMalformed);
      if (!http1::find_method(value, method_)) return fail(BlockError::kUnknownMethod);
      return keep(value, method_text_);
    case kScheme:
      // Others are no business of ours, as in HTTP/1's absolute-form.
      if (http1::equal_nocase(value, "https")) return true;
      port_ = 80;
      return http1::equal_nocase(value, "http") || fail(BlockError::kBadTarget);
    case kPath: return take_path(value);
    case kAuthority:
      // RFC 9113 8.3.1: no user information, not empty.
      if (!http1::valid_authority(value)) return fail(BlockError::kBadTarget);
      return keep(value, authority_);
    case kProtocol:
      if (!http1::is_token(value)) return fail(BlockError::kMalformed);
      return http1::equal_nocase(value, "websocket") || fail(BlockError::kUnknownMethod);
    case kStatus: break;
  }
  return fail(BlockError::kMalformed);
}

// RFC 9113 8.3.1: origin-form or "*"; that "*" is for OPTIONS is known at the end.
bool HeadBuilder::take_path(std::string_view value) {
  if (value.size() > limits_.uri_bytes) return fail(BlockError::kUriTooLong);
  const char* const end = value.data() + value.size();
  if (http1::find_not_target(value.data(), end) != end) return fail(BlockError::kBadTarget);
  if (!value.starts_with('/') && value != "*") return fail(BlockError::kBadTarget);
  return keep(value, path_);
}

// RFC 9113 8.3.2, 8.6: three digits, and no 101. The range is that of HTTP/1 (RFC 9110 15).
bool HeadBuilder::take_status(std::string_view value) {
  const bool good = value.size() == 3 && value[0] >= '1' && value[0] <= '5' &&
                    http1::is_digit(value[1]) && http1::is_digit(value[2]);
  if (!good || value == "101") return fail(BlockError::kMalformed);
  built_.status =
      static_cast<uint16_t>((value[0] - '0') * 100 + (value[1] - '0') * 10 + value[2] - '0');
  return true;
}

bool HeadBuilder::on_regular(const HeaderField& field) {
  const auto& [name, value, sensitive] = field;
  if (!valid_name(name) || !valid_value(value)) return fail(BlockError::kMalformed);
  if (!begun_ && !begin_head()) return false;
  const FieldId id = http1::field_id_of(name);
  if (is_connection_field(id)) return fail(BlockError::kMalformed);
  if (id == FieldId::kTe && (kind_ == Kind::kResponse || !http1::equal_nocase(value, "trailers"))) {
    return fail(BlockError::kMalformed);
  }
  if (!count_line()) return false;
  switch (kind_) {
    case Kind::kRequest: return on_request_field(id, field);
    case Kind::kResponse:
      if (name == "priority") read_priority(value, urgency_, incremental_);
      return put_line(field);
    case Kind::kTrailers: return !http1::may_be_trailer(name) || put_line(field);
  }
  return false;
}

bool HeadBuilder::on_request_field(FieldId id, const HeaderField& field) {
  if (id == FieldId::kHost) return take_host(field.value);
  if (id == FieldId::kCookie) return take_crumb(field);
  if (field.name == "priority") read_priority(field.value, urgency_, incremental_);
  if (field.name == "sec-websocket-key") key_seen_ = true;
  return put_line(field);
}

// RFC 9113 8.3.1: Host must not say anything else than :authority, and is needed without it.
bool HeadBuilder::take_host(std::string_view value) {
  if (host_seen_ || !http1::valid_authority(value)) return fail(BlockError::kBadTarget);
  host_seen_ = true;
  if (host_.len == 0) return put_line("host", value);
  const std::string_view authority(text_.get() + host_.at, host_.len);
  return http1::same_authority(authority, value, port_) || fail(BlockError::kBadTarget);
}

// RFC 9113 8.2.3. The joined line is written last.
bool HeadBuilder::take_crumb(const HeaderField& field) {
  crumb_marked_ |= field.sensitive;
  Slice ignored;
  return (side_len_ == 0 || keep("; ", ignored)) && keep(field.value, ignored);
}

// Writes what stands for the pseudo-headers.
bool HeadBuilder::begin_head() {
  begun_ = true;
  const bool begun = kind_ == Kind::kRequest ? begin_request() : begin_response();
  side_len_ = 0;
  return begun;
}

bool HeadBuilder::begin_request() {
  if ((seen_ & kMethod) == 0) return fail(BlockError::kMalformed);
  extended_connect_ = (seen_ & kProtocol) != 0;
  if (extended_connect_ != (method_ == Method::kConnect)) {
    // RFC 9113 8.5: a plain CONNECT has :authority only. RFC 8441 4: :protocol is for CONNECT.
    const bool plain = !extended_connect_ && (seen_ & (kScheme | kPath | kAuthority)) == kAuthority;
    return fail(plain ? BlockError::kConnectRefused : BlockError::kMalformed);
  }
  if ((seen_ & (kScheme | kPath)) != (kScheme | kPath)) return fail(BlockError::kMalformed);
  if (extended_connect_ && (seen_ & kAuthority) == 0) return fail(BlockError::kMalformed);
  if (kept(path_) == "*" && method_ != Method::kOptions) return fail(BlockError::kBadTarget);
  const std::string_view method = extended_connect_ ? "GET" : kept(method_text_);
  built_.method = {.at = 0, .len = static_cast<uint32_t>(method.size())};
  built_.target = {.at = built_.method.len + 1, .len = path_.len};
  if (!put(method) || !put(" ") || !put(kept(path_)) || !put(" HTTP/1.1\r\n")) return false;
  if ((seen_ & kAuthority) != 0) {
    if (!count_line() || !put_line("host", kept(authority_))) return false;
    host_ = {.at = fields_[0].value_at, .len = authority_.len};
  }
  if (!extended_connect_) return true;
  return count_line() && put_line("connection", "upgrade") && count_line() &&
         put_line("upgrade", "websocket");
}

bool HeadBuilder::begin_response() {
  if ((seen_ & kStatus) == 0) return fail(BlockError::kMalformed);
  const char digits[] = {static_cast<char>('0' + built_.status / 100),
                         static_cast<char>('0' + built_.status / 10 % 10),
                         static_cast<char>('0' + built_.status % 10), ' '};
  return put("HTTP/1.1 ") && put({digits, sizeof digits}) &&
         put(http1::reason_phrase(built_.status)) && put("\r\n");
}

// What is known only after the last field.
bool HeadBuilder::finish_request() {
  if (host_.len == 0 && !host_seen_) return fail(BlockError::kBadTarget);
  const std::string_view cookies(side_.get(), side_len_);
  if (side_len_ > 0 &&
      !put_line({.name = "cookie", .value = cookies, .sensitive = crumb_marked_})) {
    return false;
  }
  if (!extended_connect_ || key_seen_) return true;
  char key[24];
  return count_line() && put_line("sec-websocket-key", make_key(num_keys_++, key));
}

BlockError HeadBuilder::finish(bool websocket) {
  if (error_ == BlockError::kNone && !begun_) begin_head();
  // RFC 8441 3: :protocol without our leave is a pseudo-header that we do not know.
  if (kind_ == Kind::kRequest && (seen_ & kProtocol) != 0 && !websocket) {
    error_ = BlockError::kMalformed;
  }
  if (error_ == BlockError::kNone && kind_ == Kind::kRequest) finish_request();
  if (error_ == BlockError::kNone && kind_ != Kind::kTrailers) put("\r\n");
  if (error_ != BlockError::kNone) return error_;
  built_.text = text();
  built_.fields = {fields_.get(), num_fields_};
  return BlockError::kNone;
}

std::string_view HeadBuilder::text() const {
  return {text_.get(), text_len_};
}

}  // namespace ringway::h2
