// lb/router.cc
#include "lb/router.h"

#include <re2/re2.h>

#include <algorithm>
#include <array>
#include <unordered_map>

#include "core/base/check.h"

namespace ringway {
namespace {

constexpr uint32_t kNoRoute = UINT32_MAX;
constexpr size_t kHostBytesMax = 256;

}  // namespace

// What Router::Impl is made of. Not anonymous: Impl is not, and a unity build would warn of it.
namespace route_index {

struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};
// Route numbers, ascending, by a string.
using Index = std::unordered_map<std::string, std::vector<uint32_t>, TextHash, std::equal_to<>>;

// The routes of one host pattern, by the kind of their path condition.
struct Group {
  Index exact;
  Index prefix;
  std::vector<uint32_t> prefix_lengths;  // ascending, each once
  std::vector<uint32_t> regex;
  std::vector<uint32_t> any;

  void add(const config::Match& match, uint32_t route) {
    for (const std::string& path : match.path) exact[path].push_back(route);
    for (const std::string& path : match.path_prefix) {
      prefix[path].push_back(route);
      const auto length = static_cast<uint32_t>(path.size());
      const auto at = std::lower_bound(prefix_lengths.begin(), prefix_lengths.end(), length);
      if (at == prefix_lengths.end() || *at != length) prefix_lengths.insert(at, length);
    }
    if (!match.path_regex.empty()) regex.push_back(route);
    const bool any_path =
        match.path.empty() && match.path_prefix.empty() && match.path_regex.empty();
    if (any_path) any.push_back(route);
  }
};

struct ListenerIndex {
  std::unordered_map<std::string, Group, TextHash, std::equal_to<>> host;
  // "*.example.com" under ".example.com".
  std::unordered_map<std::string, Group, TextHash, std::equal_to<>> suffix;
  Group any_host;
  // Of TCP listeners, the same for server names.
  Index sni;
  Index sni_suffix;
  std::vector<uint32_t> any_sni;
};

}  // namespace route_index

namespace {

using route_index::Group;
using route_index::Index;
using route_index::ListenerIndex;

// Its bytes are passed on as they come, also those of clients of an HTTP listener.
bool is_tcp(const config::Config& config, const config::Route& route, uint32_t listener) {
  if (config.listeners[listener].protocol == config::Protocol::kTcp) return true;
  return route.action == config::Action::kUpstream && route.upstream < config.upstreams.size() &&
         config.upstreams[route.upstream].protocol == config::Protocol::kTcp;
}

void add_tcp(ListenerIndex& index, const config::Match& match, uint32_t route) {
  if (match.sni.empty()) index.any_sni.push_back(route);
  for (const std::string& name : match.sni) {
    const bool wild = name.starts_with("*.");
    (wild ? index.sni_suffix[name.substr(1)] : index.sni[name]).push_back(route);
  }
}

// The host without port and trailing dot, in lower case. Too long for any rule: empty.
std::string_view plain_host(std::string_view authority, std::array<char, kHostBytesMax>& room) {
  if (authority.starts_with('[')) {
    authority = authority.substr(0, authority.find(']') + 1);
  } else {
    authority = authority.substr(0, authority.find(':'));
  }
  if (authority.ends_with('.')) authority.remove_suffix(1);
  if (authority.size() > room.size()) return {};
  for (size_t i = 0; i < authority.size(); ++i) {
    const char c = authority[i];
    room[i] = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  }
  return {room.data(), authority.size()};
}

bool equals_ignoring_case(std::string_view name, std::string_view lower) {
  if (name.size() != lower.size()) return false;
  for (size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    if ((c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c) != lower[i]) return false;
  }
  return true;
}

// What is routed.
struct Request {
  const http1::Head& head;
  TlsVerdict certificate;
};

bool header_matches(const config::HeaderMatch& wanted, const http1::Head& head) {
  for (const http1::Field& field : head.fields) {
    if (!equals_ignoring_case(head.name(field), wanted.name)) continue;
    if (wanted.present || head.value(field) == wanted.value) return true;
  }
  return false;
}

}  // namespace

struct Router::Impl {
  const config::Config& config;
  std::vector<route_index::ListenerIndex> listeners;
  std::vector<std::vector<std::unique_ptr<RE2>>> regexes;  // by route

  // Method, headers and certificate; host and path are the index's business.
  [[nodiscard]] bool rest_matches(uint32_t number, const Request& request) const {
    const config::Match& match = config.routes[number].match;
    const http1::Head& head = request.head;
    if (match.client_certificate != 0 &&
        (match.client_certificate >> static_cast<unsigned>(request.certificate) & 1) == 0) {
      return false;
    }
    if (!match.method.empty()) {
      const std::string_view method = head.view(head.method_text);
      if (std::find(match.method.begin(), match.method.end(), method) == match.method.end()) {
        return false;
      }
    }
    return std::all_of(match.headers.begin(), match.headers.end(),
                       [&](const auto& wanted) { return header_matches(wanted, head); });
  }

  [[nodiscard]] bool alpn_matches(uint32_t number, const tls::ClientHello& hello) const {
    const std::vector<std::string>& wanted = config.routes[number].match.alpn;
    if (wanted.empty()) return true;
    tls::AlpnReader offered(hello.alpn);
    std::string_view protocol;
    while (offered.next(protocol)) {
      if (std::find(wanted.begin(), wanted.end(), protocol) != wanted.end()) return true;
    }
    return false;
  }

  void improve(const std::vector<uint32_t>& routes, const tls::ClientHello& hello,
               uint32_t& best) const {
    for (const uint32_t number : routes) {
      if (number >= best) return;
      if (alpn_matches(number, hello)) best = number;
    }
  }

  void improve(const std::vector<uint32_t>& routes, const Request& request, uint32_t& best) const {
    for (const uint32_t number : routes) {
      if (number >= best) return;
      if (rest_matches(number, request)) best = number;
    }
  }

  void improve(const Index& index, std::string_view key, const Request& request,
               uint32_t& best) const {
    const auto found = index.find(key);
    if (found != index.end()) improve(found->second, request, best);
  }

  void improve(const Group& group, std::string_view path, const Request& request,
               uint32_t& best) const {
    improve(group.any, request, best);
    if (!group.exact.empty()) improve(group.exact, path, request, best);
    for (const uint32_t length : group.prefix_lengths) {
      if (length > path.size()) break;
      improve(group.prefix, path.substr(0, length), request, best);
    }
    for (const uint32_t number : group.regex) {
      if (number >= best) break;
      const auto& patterns = regexes[number];
      const re2::StringPiece text(path.data(), path.size());
      const bool hit = std::any_of(patterns.begin(), patterns.end(), [&](const auto& pattern) {
        return RE2::FullMatch(text, *pattern);
      });
      if (hit && rest_matches(number, request)) best = number;
    }
  }
};

Router::Router(const config::Config& config) : impl_(std::make_unique<Impl>(Impl{config, {}, {}})) {
  impl_->listeners.resize(config.listeners.size());
  impl_->regexes.resize(config.routes.size());
  for (uint32_t number = 0; number < config.routes.size(); ++number) {
    const config::Route& route = config.routes[number];
    for (const std::string& pattern : route.match.path_regex) {
      impl_->regexes[number].push_back(std::make_unique<RE2>(pattern, RE2::Quiet));
    }
    for (const uint32_t listener : route.listeners) {
      ListenerIndex& index = impl_->listeners[listener];
      if (is_tcp(config, route, listener)) {
        add_tcp(index, route.match, number);
        continue;
      }
      if (route.match.host.empty()) index.any_host.add(route.match, number);
      for (const std::string& host : route.match.host) {
        const bool wild = host.starts_with("*.");
        (wild ? index.suffix[host.substr(1)] : index.host[host]).add(route.match, number);
      }
    }
  }
}

Router::~Router() = default;

const config::Route* Router::find(uint32_t listener, const http1::Head& head,
                                  TlsVerdict certificate) const {
  RW_CHECK(listener < impl_->listeners.size());
  const ListenerIndex& index = impl_->listeners[listener];
  const std::string_view path = head.view(head.path);
  const Request request{head, certificate};
  uint32_t best = kNoRoute;
  impl_->improve(index.any_host, path, request, best);
  if (!index.host.empty() || !index.suffix.empty()) {
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init): plain_host() fills what is used
    std::array<char, kHostBytesMax> room;
    const std::string_view host = plain_host(head.view(head.authority), room);
    const auto exact = index.host.find(host);
    if (exact != index.host.end()) impl_->improve(exact->second, path, request, best);
    // Label by label: ".b.example.com", ".example.com", ".com".
    for (size_t dot = host.find('.', 1); !index.suffix.empty() && dot != std::string_view::npos;
         dot = host.find('.', dot + 1)) {
      const auto found = index.suffix.find(host.substr(dot));
      if (found != index.suffix.end()) impl_->improve(found->second, path, request, best);
    }
  }
  return best == kNoRoute ? nullptr : &impl_->config.routes[best];
}

const config::Route* Router::find_tcp(uint32_t listener, const tls::ClientHello& hello) const {
  RW_CHECK(listener < impl_->listeners.size());
  const ListenerIndex& index = impl_->listeners[listener];
  uint32_t best = kNoRoute;
  impl_->improve(index.any_sni, hello, best);
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init): plain_host() fills what is read
  std::array<char, kHostBytesMax> room;
  const std::string_view name = plain_host(hello.server_name, room);
  const auto exact = name.empty() ? index.sni.end() : index.sni.find(name);
  if (exact != index.sni.end()) impl_->improve(exact->second, hello, best);
  for (size_t dot = name.find('.', 1); !index.sni_suffix.empty() && dot != std::string_view::npos;
       dot = name.find('.', dot + 1)) {
    const auto found = index.sni_suffix.find(name.substr(dot));
    if (found != index.sni_suffix.end()) impl_->improve(found->second, hello, best);
  }
  return best == kNoRoute ? nullptr : &impl_->config.routes[best];
}

namespace {

bool host_covers(const std::string& wide, const std::string& narrow) {
  if (wide == narrow) return true;
  return wide.starts_with("*.") && narrow.size() > wide.size() - 1 &&
         narrow.ends_with(std::string_view(wide).substr(1));
}

// Every alternative of `narrow` is covered by one of `wide`; an empty `wide` covers all.
template <typename Covers>
bool list_covers(const std::vector<std::string>& wide, const std::vector<std::string>& narrow,
                 Covers covers) {
  if (wide.empty()) return true;
  if (narrow.empty()) return false;
  return std::all_of(narrow.begin(), narrow.end(), [&](const std::string& n) {
    return std::any_of(wide.begin(), wide.end(),
                       [&](const std::string& w) { return covers(w, n); });
  });
}

bool path_covers(const config::Match& wide, const config::Match& narrow) {
  const auto no_path = [](const config::Match& m) {
    return m.path.empty() && m.path_prefix.empty() && m.path_regex.empty();
  };
  if (no_path(wide)) return true;
  if (no_path(narrow)) return false;
  const auto by_prefix = [&](const std::string& path) {
    return std::any_of(wide.path_prefix.begin(), wide.path_prefix.end(),
                       [&](const std::string& prefix) { return path.starts_with(prefix); });
  };
  const auto listed = [](const std::vector<std::string>& list, const std::string& text) {
    return std::find(list.begin(), list.end(), text) != list.end();
  };
  return std::all_of(narrow.path.begin(), narrow.path.end(),
                     [&](const std::string& p) { return by_prefix(p) || listed(wide.path, p); }) &&
         std::all_of(narrow.path_prefix.begin(), narrow.path_prefix.end(), by_prefix) &&
         std::all_of(narrow.path_regex.begin(), narrow.path_regex.end(),
                     [&](const std::string& p) { return listed(wide.path_regex, p); });
}

bool headers_cover(const config::Match& wide, const config::Match& narrow) {
  return std::all_of(wide.headers.begin(), wide.headers.end(), [&](const auto& w) {
    return std::any_of(narrow.headers.begin(), narrow.headers.end(), [&](const auto& n) {
      return w.name == n.name && (w.present || (!n.present && w.value == n.value));
    });
  });
}

bool certificates_cover(uint32_t wide, uint32_t narrow) {
  return wide == 0 || (narrow != 0 && (narrow & ~wide) == 0);
}

bool covers(const config::Config& config, const config::Route& wide, const config::Route& narrow) {
  // On an HTTP listener, what is passed through and what is answered are asked for apart.
  const bool apart =
      std::any_of(narrow.listeners.begin(), narrow.listeners.end(), [&](uint32_t listener) {
        return is_tcp(config, wide, listener) != is_tcp(config, narrow, listener);
      });
  if (apart) return false;
  const auto equal = [](const std::string& a, const std::string& b) { return a == b; };
  return std::all_of(narrow.listeners.begin(), narrow.listeners.end(),
                     [&](uint32_t listener) {
                       return std::find(wide.listeners.begin(), wide.listeners.end(), listener) !=
                              wide.listeners.end();
                     }) &&
         list_covers(wide.match.host, narrow.match.host, host_covers) &&
         list_covers(wide.match.sni, narrow.match.sni, host_covers) &&
         list_covers(wide.match.alpn, narrow.match.alpn, equal) &&
         list_covers(wide.match.method, narrow.match.method, equal) &&
         certificates_cover(wide.match.client_certificate, narrow.match.client_certificate) &&
         path_covers(wide.match, narrow.match) && headers_cover(wide.match, narrow.match);
}

}  // namespace

std::vector<Router::Shadowed> Router::find_shadowed(const config::Config& config) {
  std::vector<Shadowed> found;
  for (uint32_t late = 1; late < config.routes.size(); ++late) {
    for (uint32_t early = 0; early < late; ++early) {
      if (!covers(config, config.routes[early], config.routes[late])) continue;
      found.push_back({.route = late, .by = early});
      break;
    }
  }
  return found;
}

}  // namespace ringway
