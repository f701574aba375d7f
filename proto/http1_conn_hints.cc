// proto/http1_conn_hints.cc
#include "proto/http1_conn_hints.h"

#include <algorithm>
#include <charconv>

namespace ringway::http1 {
namespace {

bool starts_with_word(std::string_view text, std::string_view lower_word) {
  if (text.size() < lower_word.size()) return false;
  return std::equal(lower_word.begin(), lower_word.end(), text.begin(),
                    [](char want, char have) { return want == (have | 0x20); });
}

bool is_auth_field(const Head& head, const Field& field) {
  switch (field.id) {
    case FieldId::kAuthorization:
    case FieldId::kWwwAuthenticate:
    case FieldId::kProxyAuthenticate: return true;
    case FieldId::kOther: {
      constexpr std::string_view kName = "proxy-authorization";
      const std::string_view name = head.name(field);
      return name.size() == kName.size() && starts_with_word(name, kName);
    }
    default: return false;
  }
}

// One challenge may follow another in the same field: "Basic realm=x, NTLM".
bool names_connection_login(std::string_view value) {
  while (!value.empty()) {
    const size_t start = value.find_first_not_of(" \t,");
    if (start == std::string_view::npos) return false;
    value.remove_prefix(start);
    if (starts_with_word(value, "ntlm") || starts_with_word(value, "nego")) return true;
    const size_t comma = value.find(',');
    if (comma == std::string_view::npos) return false;
    value.remove_prefix(comma + 1);
  }
  return false;
}

bool number_after(std::string_view part, std::string_view name, uint64_t& out) {
  if (!starts_with_word(part, name)) return false;
  const std::string_view digits = part.substr(name.size());
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), out);
  return parsed.ec == std::errc{};
}

}  // namespace

KeepAliveHint keep_alive_hint(const Head& response) {
  constexpr uint64_t kSecondsMax = 86'400;
  KeepAliveHint hint;
  const Field* field = response.find(FieldId::kKeepAlive);
  if (field == nullptr) return hint;
  std::string_view rest = response.value(*field);
  while (!rest.empty()) {
    const size_t start = rest.find_first_not_of(" \t,");
    if (start == std::string_view::npos) break;
    rest.remove_prefix(start);
    uint64_t number = 0;
    if (number_after(rest, "timeout=", number)) {
      hint.timeout_ms = static_cast<int64_t>(std::clamp<uint64_t>(number, 1, kSecondsMax)) * 1000;
    } else if (number_after(rest, "max=", number)) {
      hint.requests_max = number;
    }
    const size_t comma = rest.find(',');
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
  }
  return hint;
}

bool binds_connection(const Head& head) {
  for (const Field& field : head.fields) {
    if (is_auth_field(head, field) && names_connection_login(head.value(field))) return true;
  }
  return false;
}

}  // namespace ringway::http1
