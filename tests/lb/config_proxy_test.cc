// tests/lb/config_proxy_test.cc - the PROXY protocol in the configuration: what belongs together.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "lb/config/load.h"

using namespace ringway;
using namespace ringway::config;

namespace {

LoadResult load(const std::string& listener, const std::string& upstream = "",
                const std::string& rest = "", const std::string& protocol = "http") {
  const std::string kind = "protocol = '" + protocol + "'\n";
  return load_text("version = 1\n[listeners.web]\nbind = '127.0.0.1:80'\n" + kind + listener +
                       "\n[[routes]]\nname = 'all'\nupstream = 'app'\n[upstreams.app]\n" + kind +
                       "servers = [{ address = '127.0.0.1:81' }]\n" + upstream + "\n" + rest,
                   "text");
}

std::string only_error(const LoadResult& result) {
  INFO(render(result, false));
  REQUIRE(result.errors() == 1);
  const auto at = std::find_if(result.diagnostics.begin(), result.diagnostics.end(),
                               [](const Diagnostic& d) { return d.code[0] == 'E'; });
  return at->code;
}

Config good(const LoadResult& result) {
  INFO(render(result, false));
  REQUIRE(result.config != nullptr);
  return *result.config;
}

}  // namespace

TEST_CASE("config: proxy_protocol -> who may send it, for http and tcp listeners") {
  for (const char* protocol : {"http", "tcp"}) {
    const Config config =
        good(load("proxy_protocol = { accept = 'required', from = ['10.0.0.0/8', "
                  "'unix'], header_bytes = '1KiB' }\n"
                  "timeouts.proxy_header = '7s'\n",
                  "", "", protocol));
    const ProxyProtocol& proxy = config.listeners[0].proxy;
    CHECK(proxy.accept == ProxyAccept::kRequired);
    CHECK(proxy.from.size() == 1);
    CHECK(proxy.from_unix);
    CHECK(proxy.header_bytes == 1024);
    CHECK(config.listeners[0].timeouts.proxy_header == 7000);
  }
  CHECK(good(load("")).listeners[0].timeouts.proxy_header == 3000);
}

TEST_CASE("config: proxy_protocol without `from` -> refused, since nobody would be believed") {
  for (const char* word : {"optional", "required"}) {
    const std::string accept = "proxy_protocol = { accept = '" + std::string(word) + "'";
    CHECK(only_error(load(accept + " }")) == "E0106");
    CHECK(only_error(load(accept + ", from = [] }")) == "E0106");
    CHECK(only_error(load(accept + ", from = ['10.0.0.1/8'] }")) == "E0307");
  }
}

TEST_CASE("config: proxy keys without effect -> refused") {
  CHECK(only_error(load("proxy_protocol = { from = ['10.0.0.0/8'] }")) == "E0317");
  CHECK(only_error(load("proxy_protocol = { accept = 'off', header_bytes = '1KiB' }")) == "E0317");
  CHECK(only_error(load("timeouts.proxy_header = '1s'")) == "E0317");
  CHECK(only_error(load("timeouts.keep_alive = '1s'", "", "", "tcp")) == "E0317");
  CHECK(only_error(load("", "send_proxy_tlvs = ['crc32c']")) == "E0317");
  CHECK(only_error(load("", "send_proxy_protocol = 'v1'\nsend_proxy_tlvs = ['crc32c']")) ==
        "E0317");
  CHECK(only_error(load("", "send_proxy_protocol = 'v2'\npool.warm = 1")) == "E0317");
  CHECK(only_error(load("", "tls = {}\npool.warm = 1")) == "E0317");
  CHECK(only_error(load("", "send_proxy_protocol = 'v2'\nsend_proxy_tlvs = ['sni']")) == "E0305");
}

TEST_CASE("config: health.send_proxy_protocol -> the upstream's unless it is given") {
  const std::string check = "health.type = 'tcp'\n";
  const auto health = [&](const std::string& upstream) {
    return good(load("", upstream + check)).upstreams[0].health.send_proxy;
  };
  CHECK(health("") == ProxySend::kOff);
  CHECK(health("send_proxy_protocol = 'v2'\n") == ProxySend::kV2);
  CHECK(health("send_proxy_protocol = 'v2'\nhealth.send_proxy_protocol = 'v1'\n") ==
        ProxySend::kV1);
  CHECK(health("send_proxy_protocol = 'v2'\nhealth.send_proxy_protocol = 'off'\n") ==
        ProxySend::kOff);
}

TEST_CASE("config: extends -> TLVs of the base hold, or are replaced as a whole") {
  const std::string base = "send_proxy_protocol = 'v2'\nsend_proxy_tlvs = ['alpn', 'crc32c']\n";
  const std::string other = "[upstreams.other]\nextends = 'app'\n";
  const Config same = good(load("", base, other));
  CHECK(same.upstreams[1].send_proxy == ProxySend::kV2);
  CHECK(same.upstreams[1].send_proxy_tlvs.alpn);
  const Config own = good(load("", base, other + "send_proxy_tlvs = ['ssl']\n"));
  CHECK(own.upstreams[1].send_proxy_tlvs.ssl);
  CHECK_FALSE(own.upstreams[1].send_proxy_tlvs.crc32c);
  const Config all = good(load("", base, other + "send_proxy_tlvs = ['netns', 'custom']\n"));
  CHECK(all.upstreams[1].send_proxy_tlvs == ProxyTlvs{.netns = true, .custom = true});
}

TEST_CASE(
    "config: HTTP/2 to servers goes with a PROXY header, and with connections of one client") {
  const Config config = good(load("",
                                  "http_versions = ['h2']\nsend_proxy_protocol = 'v1'\n"
                                  "pool.reuse = 'never'\n"));
  CHECK(config.upstreams[0].speaks(HttpVersion::kHttp2));
  CHECK(config.upstreams[0].send_proxy == ProxySend::kV1);
  CHECK(config.upstreams[0].pool.reuse == ReuseMode::kNever);
}
