// tests/lb/config_preread_test.cc - preread, sni and alpn in the configuration: what belongs
// together.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "lb/config/load.h"

using namespace ringway;
using namespace ringway::config;

namespace {

LoadResult load(const std::string& listener, const std::string& match,
                const std::string& protocol = "tcp") {
  const std::string kind = "protocol = '" + protocol + "'\n";
  return load_text("version = 1\n[listeners.web]\nbind = '127.0.0.1:80'\n" + kind + listener +
                       "\n[[routes]]\nname = 'all'\nupstream = 'app'\nmatch = { " + match +
                       " }\n[upstreams.app]\n" + kind +
                       "servers = [{ address = '127.0.0.1:81' }]\n",
                   "text");
}

std::string only_error(const LoadResult& result) {
  INFO(render(result, false));
  REQUIRE(result.errors() == 1);
  const auto at = std::find_if(result.diagnostics.begin(), result.diagnostics.end(),
                               [](const Diagnostic& d) { return d.code[0] == 'E'; });
  return at->code;
}

}  // namespace

TEST_CASE("config: preread with sni and alpn -> as written, names in lower case") {
  const LoadResult result =
      load("preread = { sni = true }", "sni = ['DB.example.com', '*.b.example'], alpn = 'h2'");
  INFO(render(result, false));
  REQUIRE(result.config != nullptr);
  const Config& config = *result.config;
  CHECK(config.listeners[0].preread.sni);
  CHECK(config.listeners[0].preread.timeout == 3000);
  CHECK(config.listeners[0].preread.hello_bytes == 32 * 1024);
  CHECK(config.routes[0].match.sni == std::vector<std::string>{"db.example.com", "*.b.example"});
  CHECK(config.routes[0].match.alpn == std::vector<std::string>{"h2"});
}

TEST_CASE("config: sni and alpn where nobody reads them -> refused") {
  CHECK(only_error(load("", "sni = 'a.example'")) == "E0317");
  CHECK(only_error(load("", "alpn = 'h2'")) == "E0317");
  CHECK(only_error(load("", "sni = 'a.example'", "http")) == "E0317");
  CHECK(only_error(load("preread = { sni = true }", "", "http")) == "E0317");
  CHECK(only_error(load("preread = { timeout = '1s' }", "")) == "E0317");
  CHECK(only_error(load("preread = { sni = true }", "host = 'a.example'")) == "E0216");
  CHECK(only_error(load("preread = { sni = true }", "sni = '*'")) == "E0310");
  CHECK(only_error(load("preread = { sni = true }", "sni = '[::1]'")) == "E0310");
  CHECK(only_error(load("preread = { sni = true }", "alpn = ''")) == "E0303");
}

TEST_CASE("config: preread on an HTTP listener -> with TLS, and names for what passes through") {
  const auto load_both = [](const std::string& listener, const std::string& match,
                            const std::string& more = "") {
    return load_text(
        "version = 1\n[tls.certificates]\nc = { pem = '/c.pem' }\n[tls.profiles.p]\n"
        "certificates = 'c'\n[listeners.web]\nbind = '127.0.0.1:80'\n" +
            listener + "\n" + more +
            "[[routes]]\nname = 'db'\nlisteners = 'web'\nupstream = 'db'\nmatch = { " + match +
            " }\n[[routes]]\nname = 'all'\nlisteners = 'web'\nupstream = 'app'\n"
            "[upstreams.app]\nservers = [{ address = '127.0.0.1:81' }]\n"
            "[upstreams.db]\nprotocol = 'tcp'\nservers = [{ address = '127.0.0.1:82' }]\n",
        "text");
  };
  const std::string both = "tls = 'p'\npreread = { sni = true }";
  LoadResult result = load_both(both, "sni = '*.db.example'");
  INFO(render(result, false));
  REQUIRE(result.config != nullptr);
  CHECK(result.diagnostics.empty());
  CHECK(result.config->listeners[0].preread.sni);
  CHECK(load_both(both, "alpn = 'postgresql'").config != nullptr);
  // One that answers all does not hide one that passes some through.
  result = load_both(both, "sni = '*.db.example'",
                     "[[routes]]\nname = 'first'\nlisteners = 'web'\nupstream = 'app'\n");
  REQUIRE(result.config != nullptr);
  for (const Diagnostic& found : result.diagnostics) {
    CHECK(found.message.find("\"db\"") == std::string::npos);
  }
  CHECK(only_error(load_both(both, "")) == "E0317");
  CHECK(only_error(load_both(both, "sni = 'a.b', path = '/'")) == "E0216");
  CHECK(only_error(load_both("tls = 'p'", "sni = 'a.b'")) == "E0215");
  CHECK(load_both("tls = 'p'\npreread = { timeout = '1s' }", "sni = 'a.b'").config == nullptr);
}

TEST_CASE("config: a route that takes all names of a later one -> W0410") {
  const std::string text =
      "version = 1\n[listeners.l]\nbind = '127.0.0.1:80'\nprotocol = 'tcp'\n"
      "preread = { sni = true }\n[upstreams.u]\nprotocol = 'tcp'\n"
      "servers = [{ address = '127.0.0.1:81' }]\n";
  const auto route = [](const std::string& name, const std::string& match) {
    return "[[routes]]\nname = '" + name + "'\nupstream = 'u'\nmatch = { " + match + " }\n";
  };
  const auto warnings = [&](const std::string& first, const std::string& second) {
    const LoadResult result = load_text(text + route("a", first) + route("b", second), "text");
    INFO(render(result, false));
    CHECK(result.errors() == 0);
    return std::count_if(result.diagnostics.begin(), result.diagnostics.end(),
                         [](const Diagnostic& d) { return d.code == "W0410"; });
  };
  CHECK(warnings("", "sni = 'a.b'") == 1);
  CHECK(warnings("sni = '*.b'", "sni = 'a.b'") == 1);
  CHECK(warnings("sni = 'a.b'", "sni = '*.b'") == 0);
  CHECK(warnings("sni = 'a.b', alpn = 'h2'", "sni = 'a.b'") == 0);
  CHECK(warnings("sni = 'a.b'", "sni = 'a.b', alpn = 'h2'") == 1);
}
