// proto/http1_target.cc
#include "proto/http1_target.h"

#include <arpa/inet.h>

#include <cstring>

#include "proto/http1_bytes.h"

namespace ringway::http1 {
namespace {

// unreserved and sub-delims without the comma: "a,b" would be two hosts to a server that takes Host
// for a list.
constexpr std::string_view kHostPunctuation = "-._~!$&'()*+;=";

constexpr std::array<bool, 256> make_host_table() {
  std::array<bool, 256> table{};
  for (unsigned c = 0; c < 128; ++c) {
    const char byte = static_cast<char>(c);
    const char lower = to_lower(byte);
    table[c] = is_digit(byte) || (lower >= 'a' && lower <= 'z') ||
               kHostPunctuation.find(byte) != std::string_view::npos;
  }
  return table;
}
constexpr std::array<bool, 256> kHostByte = make_host_table();

struct HostPort {
  std::string_view host;  // brackets included
  std::string_view port;  // without ":", may be empty
};

// REQUIRES: valid_authority(authority).
HostPort split(std::string_view authority) {
  const size_t from = authority.front() == '[' ? authority.find(']') : 0;
  const size_t colon = authority.find(':', from);
  if (colon == std::string_view::npos) return {.host = authority, .port = {}};
  return {.host = authority.substr(0, colon), .port = authority.substr(colon + 1)};
}

// 0 for an empty port; 65536 for anything that is no port.
uint32_t port_number(std::string_view port) {
  if (port.size() > 5) return 65536;
  uint32_t number = 0;
  for (const char c : port) {
    if (!is_digit(c)) return 65536;
    number = number * 10 + static_cast<uint32_t>(c - '0');
  }
  return number <= 65535 ? number : 65536;
}

bool valid_reg_name(std::string_view name) {
  for (size_t i = 0; i < name.size(); ++i) {
    if (kHostByte[static_cast<uint8_t>(name[i])]) continue;
    const bool percent = name[i] == '%' && i + 2 < name.size() && hex_value(name[i + 1]) >= 0 &&
                         hex_value(name[i + 2]) >= 0;
    if (!percent) return false;
    i += 2;
  }
  return !name.empty();
}

// `text` without the brackets. Neither zones (RFC 6874) nor IPvFuture.
bool valid_ipv6(std::string_view text) {
  char copy[INET6_ADDRSTRLEN];
  if (text.size() >= sizeof copy) return false;
  memcpy(copy, text.data(), text.size());
  copy[text.size()] = '\0';
  in6_addr unused{};
  return memchr(copy, '\0', text.size()) == nullptr && inet_pton(AF_INET6, copy, &unused) == 1;
}

// REQUIRES: head.absolute_form.
uint32_t default_port(const Head& head) {
  return to_lower(head.view(head.target)[4]) == 's' ? 443 : 80;
}

// The length of "http://" or "https://" at the start of `target`, else 0.
uint32_t scheme_length(std::string_view target) {
  if (target.size() >= 7 && equal_nocase(target.substr(0, 7), "http://")) return 7;
  if (target.size() >= 8 && equal_nocase(target.substr(0, 8), "https://")) return 8;
  return 0;
}

// Sets path and query from the bytes of `target` from `from` (its "/" or "?") on.
void split_path(Head& head, uint32_t from) {
  const std::string_view rest = head.view(head.target).substr(from);
  const size_t mark = rest.find('?');
  const uint32_t at = head.target.at + from;
  head.has_query = mark != std::string_view::npos;
  const auto path_len = static_cast<uint32_t>(head.has_query ? mark : rest.size());
  head.path = {.at = at, .len = path_len};
  if (head.has_query) {
    head.query = {.at = at + path_len + 1,
                  .len = static_cast<uint32_t>(rest.size()) - path_len - 1};
  }
}

Fault parse_absolute(Head& head) {
  const std::string_view target = head.view(head.target);
  const uint32_t scheme = scheme_length(target);
  if (scheme == 0) return {HeadError::kBadTarget, head.target.at};
  const size_t slash = target.find_first_of("/?", scheme);
  const auto end = static_cast<uint32_t>(slash == std::string_view::npos ? target.size() : slash);
  head.absolute_form = true;
  head.authority = {.at = head.target.at + scheme, .len = end - scheme};
  split_path(head, end);
  if (head.path.len == 0) head.path = {.at = head.target.at + scheme - 1, .len = 1};
  if (!valid_authority(head.view(head.authority))) return {HeadError::kBadHost, head.authority.at};
  return {};
}

}  // namespace

Fault parse_target(Head& head) {
  const std::string_view target = head.view(head.target);
  if (target.empty()) return {HeadError::kBadTarget, head.target.at};
  const char* const end = target.data() + target.size();
  const char* const odd = find_not_target(target.data(), end);
  if (odd != end) {
    return {HeadError::kBadTarget, head.target.at + static_cast<uint32_t>(odd - target.data())};
  }
  if (target[0] == '/') {
    split_path(head, 0);
    return {};
  }
  if (target == "*") {
    head.path = head.target;
    if (head.method == Method::kOptions) return {};
    return {HeadError::kBadTarget, head.target.at};
  }
  return parse_absolute(head);
}

bool valid_authority(std::string_view authority) {
  if (authority.empty()) return false;
  if (authority.front() == '[') {
    const size_t close = authority.find(']');
    if (close == std::string_view::npos || !valid_ipv6(authority.substr(1, close - 1))) {
      return false;
    }
    const std::string_view rest = authority.substr(close + 1);
    return rest.empty() || (rest.front() == ':' && port_number(rest.substr(1)) <= 65535);
  }
  const HostPort parts = split(authority);
  return valid_reg_name(parts.host) && port_number(parts.port) <= 65535;
}

bool same_authority(std::string_view a, std::string_view b, uint32_t port_of_scheme) {
  const HostPort left = split(a);
  const HostPort right = split(b);
  const uint32_t left_port = port_number(left.port);
  const uint32_t right_port = port_number(right.port);
  return equal_nocase(left.host, right.host) &&
         (left.port.empty() ? port_of_scheme : left_port) ==
             (right.port.empty() ? port_of_scheme : right_port);
}

Fault check_host(Head& head, const Field* host) {
  if (host == nullptr) {
    if (head.version_minor == 0) return {};
    return {HeadError::kBadHost, head.head_len - 2};
  }
  const std::string_view value = head.value(*host);
  if (value.empty()) {
    // RFC 9110 4.2.1: an http URI without a host is invalid. HTTP/1.0 knew no hosts.
    if (head.version_minor == 0 && !head.absolute_form) return {};
    return {HeadError::kBadHost, host->name_at};
  }
  if (!valid_authority(value)) return {HeadError::kBadHost, host->value_at};
  if (!head.absolute_form) {
    head.authority = {.at = host->value_at, .len = host->value_len};
    return {};
  }
  // RFC 9112 3.2.2 lets absolute-form win; two different hosts in one request are an attack.
  if (same_authority(head.view(head.authority), value, default_port(head))) return {};
  return {HeadError::kBadHost, host->value_at};
}

bool means_asterisk(const Head& head) {
  return head.method == Method::kOptions && head.absolute_form && !head.has_query &&
         head.path.at < head.authority.at;
}

}  // namespace ringway::http1
