// tests/lb/router_test.cc - the indexed router against one that looks at every route in turn.
#include "lb/router.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "core/base/prng.h"

using namespace ringway;

namespace {

// What the documentation says, word for word and slowly.
bool matches(const config::Match& match, const std::string& host, const std::string& path,
             const std::string& method, TlsVerdict certificate) {
  const bool known = match.client_certificate >> static_cast<unsigned>(certificate) & 1;
  if (match.client_certificate != 0 && !known) return false;
  const auto host_fits = [&](const std::string& wanted) {
    if (!wanted.starts_with("*.")) return host == wanted;
    return host.size() > wanted.size() - 1 && host.ends_with(wanted.substr(1));
  };
  if (!match.host.empty() && std::none_of(match.host.begin(), match.host.end(), host_fits)) {
    return false;
  }
  const bool any_path = match.path.empty() && match.path_prefix.empty();
  const bool exact = std::find(match.path.begin(), match.path.end(), path) != match.path.end();
  const bool prefix = std::any_of(match.path_prefix.begin(), match.path_prefix.end(),
                                  [&](const std::string& p) { return path.starts_with(p); });
  if (!any_path && !exact && !prefix) return false;
  return match.method.empty() ||
         std::find(match.method.begin(), match.method.end(), method) != match.method.end();
}

std::string pick(Prng& prng, const std::vector<std::string>& from) {
  return from[prng.below(from.size())];
}

const std::vector<std::string> kHosts{"a.com", "b.com", "x.a.com", "y.x.a.com", "com"};
const std::vector<std::string> kPatterns{"a.com", "*.a.com", "*.x.a.com", "b.com", "*.com"};
const std::vector<std::string> kPaths{"/", "/a", "/a/b", "/a/b/c", "/ab", "/b/"};
const std::vector<std::string> kMethods{"GET", "POST", "PUT"};
const std::vector<TlsVerdict> kVerdicts{TlsVerdict::kNone, TlsVerdict::kOk, TlsVerdict::kExpired};

uint32_t bit(TlsVerdict verdict) {
  return 1U << static_cast<unsigned>(verdict);
}

config::Config random_config(Prng& prng) {
  config::Config config;
  config.listeners.resize(1);
  for (uint64_t i = 1 + prng.below(12); i > 0; --i) {
    config::Route route;
    route.name = "r" + std::to_string(i);
    route.listeners = {0};
    if (prng.below(2) == 0) route.match.host.push_back(pick(prng, kPatterns));
    if (prng.below(4) == 0) route.match.host.push_back(pick(prng, kPatterns));
    if (prng.below(3) == 0) route.match.path.push_back(pick(prng, kPaths));
    if (prng.below(3) == 0) route.match.path_prefix.push_back(pick(prng, kPaths));
    if (prng.below(4) == 0) route.match.method.push_back(pick(prng, kMethods));
    for (const TlsVerdict verdict : kVerdicts) {
      if (prng.below(6) == 0) route.match.client_certificate |= bit(verdict);
    }
    config.routes.push_back(std::move(route));
  }
  return config;
}

}  // namespace

TEST_CASE(
    "Router: random rules and requests -> the first match in file order, as a linear search") {
  Prng prng(7);
  http1::HeadParser parser(16);
  for (int round = 0; round < 500; ++round) {
    const config::Config config = random_config(prng);
    const Router router(config);
    for (int i = 0; i < 20; ++i) {
      const std::string host = pick(prng, kHosts);
      const std::string path = pick(prng, kPaths);
      const std::string method = pick(prng, kMethods);
      const TlsVerdict verdict = kVerdicts[prng.below(kVerdicts.size())];
      std::string text = method;
      text += " " + path + "?query HTTP/1.1\r\nHost: ";
      for (const char c : host) text += prng.below(2) == 0 ? static_cast<char>(toupper(c)) : c;
      text += (prng.below(2) == 0 ? ":8080" : "") + std::string("\r\n\r\n");
      parser.start_request({});
      REQUIRE(parser.parse(text) == http1::HeadParser::Status::kDone);
      const auto wanted = std::find_if(
          config.routes.begin(), config.routes.end(),
          [&](const auto& route) { return matches(route.match, host, path, method, verdict); });
      const config::Route* found = router.find(0, parser.head(), verdict);
      CAPTURE(text);
      if (wanted == config.routes.end()) {
        CHECK(found == nullptr);
      } else {
        CHECK(found == &*wanted);
      }
    }
  }
}

TEST_CASE("Router: a route said to be shadowed -> no request ever reaches it") {
  Prng prng(11);
  http1::HeadParser parser(16);
  uint64_t shadowed_seen = 0;
  for (int round = 0; round < 300; ++round) {
    const config::Config config = random_config(prng);
    const Router router(config);
    const std::vector<Router::Shadowed> shadowed = Router::find_shadowed(config);
    shadowed_seen += shadowed.size();
    for (const std::string& host : kHosts) {
      for (const std::string& path : kPaths) {
        for (const std::string& method : kMethods) {
          const std::string text = method + " " + path + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n";
          parser.start_request({});
          REQUIRE(parser.parse(text) == http1::HeadParser::Status::kDone);
          for (const TlsVerdict verdict : kVerdicts) {
            const config::Route* found = router.find(0, parser.head(), verdict);
            for (const Router::Shadowed& entry : shadowed) {
              CHECK(found != &config.routes[entry.route]);
            }
          }
        }
      }
    }
  }
  CHECK(shadowed_seen > 100);
}

TEST_CASE("Router: an HTTP listener with a route to a TCP upstream -> each asked for what it is") {
  config::Config config;
  config.listeners.resize(1);
  config.upstreams.resize(2);
  config.upstreams[1].protocol = config::Protocol::kTcp;
  config::Route all;
  all.name = "all";
  all.listeners = {0};
  config::Route db = all;
  db.name = "db";
  db.upstream = 1;
  db.match.sni = {"*.db.example"};
  config.routes = {all, db};
  const Router router(config);
  CHECK(Router::find_shadowed(config).empty());
  http1::HeadParser parser(16);
  parser.start_request({});
  REQUIRE(parser.parse("GET / HTTP/1.1\r\nHost: x.db.example\r\n\r\n") ==
          http1::HeadParser::Status::kDone);
  CHECK(router.find(0, parser.head()) == &config.routes[0]);
  const auto hello = [&](std::string_view name) {
    return router.find_tcp(0, {.status = tls::HelloStatus::kDone, .server_name = name, .alpn = {}});
  };
  CHECK(hello("x.db.example") == &config.routes[1]);
  CHECK(hello("web.example") == nullptr);
  CHECK(hello("") == nullptr);
}

TEST_CASE("Router: random server names and protocols -> the first match in file order") {
  const std::vector<std::string> protocols{"h2", "http/1.1", "x"};
  Prng prng(13);
  uint64_t named = 0;
  for (int round = 0; round < 500; ++round) {
    config::Config config;
    config.listeners.resize(1);
    config.listeners[0].protocol = config::Protocol::kTcp;
    for (uint64_t i = 1 + prng.below(8); i > 0; --i) {
      config::Route route;
      route.listeners = {0};
      if (prng.below(4) > 0) route.match.sni.push_back(pick(prng, kPatterns));
      if (prng.below(4) == 0) route.match.sni.push_back(pick(prng, kPatterns));
      if (prng.below(3) == 0) route.match.alpn.push_back(pick(prng, protocols));
      config.routes.push_back(std::move(route));
    }
    const Router router(config);
    for (int i = 0; i < 20; ++i) {
      const std::string name = prng.below(4) == 0 ? "" : pick(prng, kHosts);
      std::string sent;
      for (const char c : name) sent += prng.below(2) == 0 ? static_cast<char>(toupper(c)) : c;
      if (!sent.empty() && prng.below(4) == 0) sent += '.';
      const std::string offered = prng.below(3) == 0 ? "" : pick(prng, protocols);
      const std::string alpn =
          offered.empty() ? "" : static_cast<char>(offered.size()) + offered + "\3foo";
      const auto fits = [&](const config::Route& route) {
        config::Match match;
        match.host = route.match.sni;
        const auto& wanted = route.match.alpn;
        const bool speaks =
            wanted.empty() || std::find(wanted.begin(), wanted.end(), offered) != wanted.end();
        return speaks &&
               (match.host.empty() || (!name.empty() && matches(match, name, "", "", {})));
      };
      const auto first = std::find_if(config.routes.begin(), config.routes.end(), fits);
      const config::Route* found = router.find_tcp(
          0, {.status = tls::HelloStatus::kDone, .server_name = sent, .alpn = alpn});
      CAPTURE(sent);
      CHECK(found == (first == config.routes.end() ? nullptr : &*first));
      if (found != nullptr && !found->match.sni.empty()) ++named;
    }
  }
  CHECK(named > 1000);
}
