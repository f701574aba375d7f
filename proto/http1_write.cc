// proto/http1_write.cc
#include "proto/http1_write.h"

#include <charconv>

#include "proto/http1_bytes.h"
#include "proto/http1_fields.h"
#include "proto/http1_target.h"

namespace ringway::http1 {
namespace {

// A set of FieldIds.
class FieldSet {
 public:
  void add(FieldId id) { bits_ |= uint32_t{1} << static_cast<unsigned>(id); }
  [[nodiscard]] bool has(FieldId id) const { return (bits_ >> static_cast<unsigned>(id) & 1) != 0; }

 private:
  uint32_t bits_ = 0;
};
static_assert(static_cast<unsigned>(FieldId::kEarlyData) < 32);

// Everything that did not come from a checked run of field lines goes through put_text().
bool put_text(std::string_view text, Out& out) {
  if (!is_line_text(text)) return false;
  out.put(text);
  return true;
}

bool put_line(std::string_view name, std::string_view value, Out& out) {
  if (!is_line_text(value)) return false;
  out.put(name);
  out.put(": ");
  out.put(value);
  out.put("\r\n");
  return true;
}

// True if `lines` is nothing but `count` complete lines, none of them empty.
bool are_lines(std::string_view lines, size_t count) {
  const char* at = lines.data();
  const char* const end = at + lines.size();
  const char* line = at;
  for (;;) {
    at = find_control(at, end);
    if (at == end) return line == end && count == 0;
    if (*at == '\r') {
      if (at == line || at + 1 == end || at[1] != '\n' || count == 0) return false;
      --count;
      ++at;
      line = at + 1;
    } else if (*at != '\t') {
      return false;
    }
    ++at;
  }
}

// Copies fields; neighbours that lie in the head as plain lines are copied in one go.
class FieldCopier {
 public:
  FieldCopier(const Head& head, bool for_http2, Out& out)
      : head_(head), keep_bare_(head.built == for_http2), out_(out) {}

  [[nodiscard]] bool copy(const Field& field) {
    const char* const begin = head_.base + field.name_at;
    const char* const end = line_end(field);
    if (end == nullptr) return flush() && copy_apart(field);
    if (begin != end_ && !flush()) return false;
    if (count_ == 0) begin_ = begin;
    end_ = end;
    ++count_;
    return true;
  }

  // Writes what is still held back.
  [[nodiscard]] bool flush() {
    if (count_ == 0) return true;
    const std::string_view run(begin_, static_cast<size_t>(end_ - begin_));
    if (!head_.plain && !are_lines(run, count_)) return false;
    out_.put(run);
    count_ = 0;
    begin_ = nullptr;
    end_ = nullptr;
    return true;
  }

 private:
  // The end of the field's line if it is "name: value\r\n" in the head, else nullptr (it has blanks
  // that we do not forward, or none, which is a mark in built heads and means nothing in others).
  [[nodiscard]] const char* line_end(const Field& field) const {
    const uint32_t colon = field.name_at + field.name_len;
    const uint32_t end = field.value_at + field.value_len;
    const char* const base = head_.base;
    if (end < colon || end + 2 > head_.head_len || field.value_at > colon + 2) return nullptr;
    const bool plain = base[colon] == ':' && base[end] == '\r' && base[end + 1] == '\n' &&
                       ((field.value_at == colon + 1 && keep_bare_) ||
                        (field.value_at == colon + 2 && base[colon + 1] == ' '));
    return plain ? base + end + 2 : nullptr;
  }

  [[nodiscard]] bool copy_apart(const Field& field) {
    return is_token(head_.name(field)) && put_line(head_.name(field), head_.value(field), out_);
  }

  const Head& head_;
  const bool keep_bare_;  // lines without a blank behind the colon as they are
  Out& out_;
  const char* begin_ = nullptr;
  const char* end_ = nullptr;
  size_t count_ = 0;
};

// Removed or replaced by configuration.
bool is_edited(const HeaderEdits* edits, std::string_view name) {
  if (edits == nullptr || field_id_of(name) == FieldId::kEarlyData) return false;
  for (const std::string& removed : edits->remove) {
    if (equal_nocase(removed, name)) return true;
  }
  for (const HeaderEdits::NameValue& set : edits->set) {
    if (equal_nocase(set.name, name)) return true;
  }
  return false;
}

bool put_edit_lines(const std::vector<HeaderEdits::NameValue>& lines, Out& out) {
  for (const HeaderEdits::NameValue& line : lines) {
    if (!is_editable_field_name(line.name) || !put_line(line.name, line.value, out)) return false;
  }
  return true;
}

bool put_edits(const HeaderEdits* edits, Out& out) {
  return edits == nullptr || (put_edit_lines(edits->set, out) && put_edit_lines(edits->add, out));
}

struct CopyPlan {
  FieldSet dropped;
  const HeaderEdits* edits = nullptr;
  const OwnFields* own = nullptr;
  bool for_http2 = false;
};

bool copy_fields(const Head& head, const CopyPlan& plan, Out& out) {
  const auto& [dropped, edits, own, for_http2] = plan;
  const bool edited = edits != nullptr && !(edits->remove.empty() && edits->set.empty());
  FieldCopier copier(head, for_http2, out);
  for (const Field& field : head.fields) {
    if (field.hop_by_hop || dropped.has(field.id)) continue;
    if (own != nullptr && own->removes(head.name(field))) continue;
    if (edited && is_edited(edits, head.name(field))) continue;
    if (!copier.copy(field)) return false;
  }
  return copier.flush();
}

bool put_own(const OwnFields* own, const HeaderEdits* edits, Out& out) {
  if (own == nullptr) return true;
  for (const OwnFields::Field& field : own->fields()) {
    if (!is_edited(edits, field.name) && !put_line(field.name, field.value, out)) return false;
  }
  return true;
}

// "Upgrade: <as sent>" and the option that goes with it.
bool put_upgrade(const Head& head, Out& out) {
  for (const Field& field : head.fields) {
    if (field.id == FieldId::kUpgrade && !put_line("Upgrade", head.value(field), out)) return false;
  }
  out.put("Connection: upgrade\r\n");
  return true;
}

void put_framing(BodyKind body, bool with_length, uint64_t length, Out& out) {
  if (body == BodyKind::kChunked) {
    out.put("Transfer-Encoding: chunked\r\n");
  } else if (with_length) {
    out.put("Content-Length: ");
    out.put_number(length);
    out.put("\r\n");
  }
}

// All values called `id`, then `last` if it is not empty, as one comma list.
bool put_joined(const Head& head, FieldId id, std::string_view last, Out& out) {
  bool first = true;
  for (const Field& field : head.fields) {
    if (field.id != id || field.hop_by_hop || field.value_len == 0) continue;
    if (!first) out.put(", ");
    if (!put_text(head.value(field), out)) return false;
    first = false;
  }
  if (last.empty()) return true;
  if (!first) out.put(", ");
  return put_text(last, out);
}

// RFC 7239 4: a value that is no token is a quoted-string; IPv6 addresses get brackets.
bool put_forwarded_value(std::string_view value, bool is_address, Out& out) {
  if (is_token(value)) {
    out.put(value);
    return true;
  }
  if (!is_line_text(value) || value.find_first_of("\"\\") != std::string_view::npos) return false;
  const bool brackets = is_address && value.find(':') != std::string_view::npos;
  out.put(brackets ? "\"[" : "\"");
  out.put(value);
  out.put(brackets ? "]\"" : "\"");
  return true;
}

bool put_forwarded(const Head& head, const ForwardedInfo& info, Out& out) {
  out.put("Forwarded: ");
  if (info.trusted) {
    const size_t before = out.written().size();
    if (!put_joined(head, FieldId::kForwarded, {}, out)) return false;
    if (out.written().size() != before) out.put(", ");
  }
  out.put("for=");
  if (!put_forwarded_value(info.client_ip, true, out)) return false;
  if (!info.host.empty()) {
    out.put(";host=");
    if (!put_forwarded_value(info.host, false, out)) return false;
  }
  if (!info.scheme.empty()) {
    out.put(";proto=");
    if (!put_forwarded_value(info.scheme, false, out)) return false;
  }
  out.put("\r\n");
  return true;
}

// True if the head has a field called `id` that does not end here.
bool is_copied(const Head& head, FieldId id) {
  for (const Field& field : head.fields) {
    if (field.id == id && !field.hop_by_hop) return true;
  }
  return false;
}

// Which forwarding fields the plan writes. What a field of that name said before is either taken
// over (a trusted proxy) or dropped.
struct ForwardingPlan {
  bool x_for = false;
  bool x_proto = false;
  bool x_host = false;
  bool forwarded = false;

  ForwardingPlan(const Head& head, const RequestPlan& plan, FieldSet& dropped) {
    const ForwardedInfo& info = plan.forwarded;
    const auto keep = [&](FieldId id) { return info.trusted && is_copied(head, id); };
    if (info.x_forwarded) {
      if (!info.trusted || !info.client_ip.empty()) dropped.add(FieldId::kXForwardedFor);
      x_for = !info.client_ip.empty() && !is_edited(plan.edits, "x-forwarded-for");
      if (!keep(FieldId::kXForwardedProto)) {
        dropped.add(FieldId::kXForwardedProto);
        x_proto = !info.scheme.empty() && !is_edited(plan.edits, "x-forwarded-proto");
      }
      if (!keep(FieldId::kXForwardedHost)) {
        dropped.add(FieldId::kXForwardedHost);
        x_host = !info.host.empty() && !is_edited(plan.edits, "x-forwarded-host");
      }
    }
    if (info.forwarded) {
      if (!info.trusted || !info.client_ip.empty()) dropped.add(FieldId::kForwarded);
      forwarded = !info.client_ip.empty() && !is_edited(plan.edits, "forwarded");
    }
  }

  [[nodiscard]] bool put(const Head& head, const ForwardedInfo& info, Out& out) const {
    if (x_for) {
      out.put("X-Forwarded-For: ");
      const bool good = info.trusted
                            ? put_joined(head, FieldId::kXForwardedFor, info.client_ip, out)
                            : put_text(info.client_ip, out);
      if (!good) return false;
      out.put("\r\n");
    }
    if (x_proto && !put_line("X-Forwarded-Proto", info.scheme, out)) return false;
    if (x_host && !put_line("X-Forwarded-Host", info.host, out)) return false;
    return !forwarded || put_forwarded(head, info, out);
  }
};

// RFC 9112 3: the request line. What is put between its spaces must not hold a space itself.
bool put_request_line(const Head& head, std::string_view path, Out& out) {
  if (!is_token(head.view(head.method_text))) return false;
  out.put(head.view(head.method_text));
  out.put(" ");
  const auto put_part = [&out](std::string_view part) {
    if (part.find(' ') != std::string_view::npos || part.find('\t') != std::string_view::npos) {
      return false;
    }
    return put_text(part, out);
  };
  if (!path.empty()) {
    if (!put_part(path)) return false;
  } else if (means_asterisk(head)) {
    out.put("*");
  } else {
    if (!put_part(head.view(head.path))) return false;
    if (head.has_query) {
      out.put("?");
      if (!put_part(head.view(head.query))) return false;
    }
  }
  out.put(" HTTP/1.1\r\n");
  return true;
}

// The plan's host wins over the client's. RFC 9110 7.2: without one (HTTP/1.0), Host is empty.
bool put_host(const Head& head, const RequestPlan& plan, Out& out) {
  return put_line("Host", plan.host.empty() ? head.view(head.authority) : plan.host, out);
}

// A body that is announced as empty stays announced where servers expect one (RFC 9110 8.6).
bool announces_empty(const Head& head) {
  const bool has_content =
      head.method == Method::kPost || head.method == Method::kPut || head.method == Method::kPatch;
  return has_content && head.find(FieldId::kContentLength) != nullptr;
}

}  // namespace

void Out::put_number(uint64_t number) {
  char text[20];
  const std::to_chars_result result = std::to_chars(text, text + sizeof text, number);
  put({text, static_cast<size_t>(result.ptr - text)});
}

bool is_editable_field_name(std::string_view name) {
  if (!valid_field_name(name)) return false;
  const FieldId id = field_id_of(name);
  return id != FieldId::kHost && id != FieldId::kEarlyData && !is_framing_field(id);
}

bool write_request_head(const Head& head, const RequestPlan& plan, Out& out) {
  FieldSet dropped;
  dropped.add(FieldId::kHost);
  dropped.add(FieldId::kContentLength);
  dropped.add(FieldId::kTransferEncoding);
  const ForwardingPlan forwarding(head, plan, dropped);
  const bool written = put_request_line(head, plan.path, out) && put_host(head, plan, out) &&
                       copy_fields(head, {dropped, plan.edits, plan.own, plan.for_http2}, out) &&
                       forwarding.put(head, plan.forwarded, out) &&
                       put_own(plan.own, plan.edits, out) && put_edits(plan.edits, out);
  if (!written) return false;
  // RFC 8470 5.1: once, and always "1".
  if (plan.early_data && head.find(FieldId::kEarlyData) == nullptr) out.put("Early-Data: 1\r\n");
  if (head.te_trailers) out.put("TE: trailers\r\n");
  if (plan.upgrade && !put_upgrade(head, out)) return false;
  const bool empty = plan.body == BodyKind::kNone && announces_empty(head);
  put_framing(plan.body, plan.body == BodyKind::kLength || empty, empty ? 0 : plan.content_length,
              out);
  out.put("\r\n");
  return !out.full();
}

bool write_response_head(const Head& head, const ResponsePlan& plan, Out& out) {
  if (head.status < 100 || head.status > 999) return false;
  // RFC 9112 6.1: an HTTP/1.0 client cannot read chunks.
  if (plan.body == BodyKind::kChunked && plan.client_version_minor == 0) return false;
  out.put("HTTP/1.1 ");
  out.put_number(head.status);
  out.put(" ");
  if (!put_text(head.view(head.reason), out)) return false;
  out.put("\r\n");
  FieldSet dropped;
  dropped.add(FieldId::kContentLength);
  dropped.add(FieldId::kTransferEncoding);
  if (!copy_fields(head, {dropped, plan.edits, nullptr, plan.for_http2}, out)) return false;
  if (!put_edits(plan.edits, out)) return false;
  const bool interim = head.status < 200;
  // RFC 9110 8.6: neither 1xx nor 204 has a Content-Length.
  if (!interim && head.status != 204) {
    put_framing(plan.body, plan.body == BodyKind::kLength || plan.has_content_length,
                plan.content_length, out);
  }
  if (plan.upgrade) {
    if (!put_upgrade(head, out)) return false;
  } else if (!interim && (!plan.keep_alive || plan.body == BodyKind::kUntilClose)) {
    out.put("Connection: close\r\n");
  } else if (!interim && plan.client_version_minor == 0) {
    out.put("Connection: keep-alive\r\n");
  }
  out.put("\r\n");
  return !out.full();
}

bool write_websocket_response(const Head& head, std::string_view accept, bool for_http2, Out& out) {
  // RFC 8441 5: not used by HTTP/2. Two of them would be none.
  if (head.find("sec-websocket-accept") != nullptr) return false;
  out.put("HTTP/1.1 101 Switching Protocols\r\n");
  FieldSet dropped;
  dropped.add(FieldId::kContentLength);
  dropped.add(FieldId::kTransferEncoding);
  if (!copy_fields(head, {.dropped = dropped, .for_http2 = for_http2}, out)) return false;
  out.put("Upgrade: websocket\r\nConnection: upgrade\r\n");
  if (!put_line("Sec-WebSocket-Accept", accept, out)) return false;
  out.put("\r\n");
  return !out.full();
}

bool write_own_response(const OwnResponse& response, Out& out) {
  const bool no_content = response.status < 200 || response.status == 204 || response.status == 304;
  size_t extra_lines = 0;
  for (const char c : response.extra) extra_lines += c == '\n' ? 1 : 0;
  if (response.status < 100 || response.status > 999) return false;
  if (!are_lines(response.extra, extra_lines)) return false;
  out.put("HTTP/1.1 ");
  out.put_number(response.status);
  out.put(" ");
  out.put(reason_phrase(response.status));
  out.put("\r\n");
  if (!no_content) {
    const bool typed = !response.body.empty() && !response.content_type.empty();
    if (typed && !put_line("Content-Type", response.content_type, out)) return false;
    put_framing(BodyKind::kLength, true, response.body.size(), out);
  }
  out.put(response.extra);
  if (response.status >= 200 && !response.keep_alive) {
    out.put("Connection: close\r\n");
  } else if (response.status >= 200 && response.client_version_minor == 0) {
    out.put("Connection: keep-alive\r\n");  // RFC 9112 C.2.2: else this would be the last one.
  }
  out.put("\r\n");
  if (!no_content && !response.head_only) out.put(response.body);
  return !out.full();
}

}  // namespace ringway::http1
