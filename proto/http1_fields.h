// proto/http1_fields.h - field names by number, and what the fields of a head say about framing.
//
// Affinity:  pure functions, any thread. Internal to proto.
// Source:    RFC 9110 7.6.1, 7.8, 10.1; RFC 9112 6.1-6.3, 9.3.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "proto/http1_head.h"

namespace ringway::http1 {

// A reason to refuse a head, and the offset of the byte that shows it.
struct Fault {
  HeadError error = HeadError::kNone;
  uint32_t at = 0;

  explicit operator bool() const { return error != HeadError::kNone; }
};

// `name` in any case. Allocation-free, one comparison for most names.
// REQUIRES: is_token(name).
[[nodiscard]] FieldId field_id_of(std::string_view name);

// The fixed list of RFC 9110 7.6.1, Proxy-Connection and HTTP2-Settings.
[[nodiscard]] bool is_hop_by_hop(FieldId id);

// True for the fields that this library writes itself (framing and connection control): header
// edits must not name them.
[[nodiscard]] bool is_framing_field(FieldId id);

// False for a field that no trailer may hold, because it frames, routes, modifies or authenticates
// the message (RFC 9110 6.5.1). `name` in any case.
[[nodiscard]] bool may_be_trailer(std::string_view name);

// True if `text` is a method that llhttp knows; then `method` says which. Case matters.
[[nodiscard]] bool find_method(std::string_view text, Method& method);

// Completes the head's fields, of which only name_at and name_len are set: each lies on a line of
// its own. Sets ids, values, hop_by_hop, and all of the head that follows from fields.
// REQUIRES: head.base, head_len, method or status, version_minor and target parts are set.
[[nodiscard]] Fault read_request_fields(Head& head, std::span<Field> fields);
[[nodiscard]] Fault read_response_fields(Head& head, std::span<Field> fields,
                                         const ResponseContext& context);

// The same for heads that something else frames (HeadParser::take_built(), which see): there is a
// body if `body` says so. Transfer-Encoding is refused.
[[nodiscard]] Fault read_built_request_fields(Head& head, std::span<Field> fields, bool body);
[[nodiscard]] Fault read_built_response_fields(Head& head, std::span<Field> fields,
                                               const ResponseContext& context, bool body);

}  // namespace ringway::http1
