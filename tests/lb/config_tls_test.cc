// tests/lb/config_tls_test.cc - the TLS part of the configuration: what the walk over all keys in
// config_schema_test.cc cannot vary alone.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>

#include "lb/config/load.h"

using namespace ringway::config;

namespace {

const std::string kRest =
    "version = 1\n[listeners.web]\nbind = '127.0.0.1:80'\ntls = 'public'\n"
    "[[routes]]\nname = 'all'\nupstream = 'app'\n"
    "[upstreams.app]\nservers = [{ address = '127.0.0.1:81' }]\n";

LoadResult load(const std::string& text) {
  LoadResult result = load_text(kRest + text, "test");
  INFO(render(result, false));
  REQUIRE(result.config != nullptr);
  return result;
}

std::string errors_of(const std::string& text) {
  const LoadResult result = load_text(kRest + text, "test");
  CHECK(result.config == nullptr);
  return render(result, false);
}

}  // namespace

TEST_CASE("config tls: the example of the documentation -> what it says") {
  const LoadResult result = load(
      "[tls.profiles.public]\n"
      "min_version = '1.2'\nmax_version = '1.3'\nciphers = 'intermediate'\n"
      "groups = ['X25519', 'P-256']\ncertificates = ['main', 'tenants', 'main', 'both']\n"
      "strict_sni = true\ntickets = { rotate = '6h', keys = '/etc/tickets' }\n"
      "handshakes_per_shard = '2000/s'\n"
      "client_auth = { mode = 'optional', ca = '/ca.pem', crl = '/ca.crl' }\n"
      "[tls.certificates]\n"
      "both = { pem = '/both.pem', watch = false }\n"
      "tenants = { directory = '/tenants.d', watch = true }\n"
      "main = { cert = '/main.pem', key = '/main.key' }\n"
      "[upstreams.app.tls]\nca = '/servers.pem'\nsni = 'API.Example.Com'\nmin_version = '1.3'\n"
      "certificate = { cert = '/me.pem', key = '/me.key' }\n");
  CHECK(result.diagnostics.empty());
  const Config& config = *result.config;
  REQUIRE(config.listeners[0].tls.has_value());
  REQUIRE(*config.listeners[0].tls == 0);
  const TlsProfile& profile = config.tls_profiles[0];
  CHECK(profile.name == "public");
  CHECK(profile.position.line == 10);
  CHECK(profile.ciphers.size() == 10);
  CHECK(profile.ciphers.front() == "ECDHE-ECDSA-AES128-GCM-SHA256");
  CHECK(profile.groups == std::vector<std::string>{"X25519", "P-256"});
  CHECK(profile.certificates == std::vector<uint32_t>{2, 1, 0});
  CHECK(profile.strict_sni);
  CHECK(profile.tickets.enabled);
  CHECK(profile.tickets.rotate == 6 * 3600 * 1000);
  CHECK(profile.tickets.keys.path == "/etc/tickets");
  CHECK(profile.handshakes_per_shard == 2000);
  CHECK(profile.client_auth.mode == ClientAuthMode::kOptional);
  CHECK(profile.client_auth.ca.path == "/ca.pem");
  CHECK(profile.client_auth.crl.path == "/ca.crl");
  CHECK(config.tls_certificates[0].pem.path == "/both.pem");
  CHECK_FALSE(config.tls_certificates[0].watch);
  CHECK(config.tls_certificates[1].directory.path == "/tenants.d");
  const TlsCertificates& main = config.tls_certificates[2];
  CHECK(main.cert.path == "/main.pem");
  CHECK(main.key.path == "/main.key");
  CHECK(main.key.place.position.line == 23);
  CHECK(main.key.place.position.column == 36);
  CHECK(main.key.place.length == 11);
  CHECK(main.key.place.source_line == "main = { cert = '/main.pem', key = '/main.key' }");
  const UpstreamTls& upstream = config.upstreams[0].tls;
  CHECK(upstream.enabled);
  CHECK(upstream.verify);
  CHECK(upstream.ca.path == "/servers.pem");
  CHECK(upstream.sni == "api.example.com");
  CHECK_FALSE(upstream.sni_from_request);
  CHECK(upstream.cert.path == "/me.pem");
  CHECK(upstream.key.path == "/me.key");
  CHECK(upstream.min_version == TlsVersion::k13);
}

TEST_CASE("config tls: the least that is needed -> modern defaults, verification on") {
  const LoadResult result = load(
      "[tls.certificates]\nmain = { pem = '/c.pem' }\n"
      "[tls.profiles.public]\ncertificates = 'main'\n[upstreams.app.tls]\n");
  CHECK(result.diagnostics.empty());
  const TlsProfile& profile = result.config->tls_profiles[0];
  CHECK(profile.min_version == TlsVersion::k12);
  CHECK(profile.max_version == TlsVersion::k13);
  CHECK(profile.ciphers == modern_ciphers());
  CHECK(profile.ciphers.size() == 6);
  CHECK(profile.groups == std::vector<std::string>{"X25519", "P-256", "P-384"});
  CHECK(profile.tickets.enabled);
  CHECK(profile.handshakes_per_shard == UINT64_MAX);
  CHECK(result.config->listeners[0].timeouts.tls_handshake == 10'000);
  CHECK(result.config->upstreams[0].tls.verify);
  CHECK(result.config->upstreams[0].tls.ca.empty());
  CHECK(result.config->upstreams[0].tls.sni_from_request);
}

TEST_CASE("config tls: words and explicit lists -> read as such") {
  const LoadResult result = load(
      "[tls.certificates]\nmain = { pem = '/c.pem' }\n[tls.profiles.public]\n"
      "certificates = 'main'\ntickets = 'off'\nhandshakes_per_shard = 'off'\n"
      "ciphers = ['ECDHE-RSA-CHACHA20-POLY1305', 'TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256']\n"
      "[upstreams.app.tls]\nca = 'system'\nsni = '{request.host}'\n");
  const TlsProfile& profile = result.config->tls_profiles[0];
  CHECK_FALSE(profile.tickets.enabled);
  CHECK(profile.ciphers ==
        std::vector<std::string>{"ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-RSA-AES128-GCM-SHA256"});
  CHECK(result.config->upstreams[0].tls.sni_from_request);
}

TEST_CASE("config tls: wrong names -> what was probably meant, and where that is") {
  std::string text = errors_of(
      "[tls.profiles.pubilc]\ncertificates = 'mian'\n[tls.certificates]\nmain = { pem = '/c' }\n");
  CHECK(text.find("listener \"web\" names TLS profile \"public\", which does not exist") !=
        std::string::npos);
  CHECK(text.find("did you mean \"pubilc\"?") != std::string::npos);
  CHECK(text.find("\"pubilc\" is defined at test:10:1") != std::string::npos);
  CHECK(text.find("did you mean \"main\"?") != std::string::npos);
  CHECK(text.find("\"main\" is defined at test:13:1") != std::string::npos);

  text = errors_of(
      "[tls.certificates]\nmain = { pem = '/c.pem' }\n[tls.profiles.public]\n"
      "certificates = 'main'\nciphers = ['modren', 'ECDHE-RSA-AES128-GCM-SHA265']\n"
      "groups = ['X25518', 'X25519:P-256']\n");
  CHECK(text.find("did you mean \"modern\"?") != std::string::npos);
  CHECK(text.find("did you mean \"ECDHE-RSA-AES128-GCM-SHA256\"?") != std::string::npos);
  CHECK(text.find("did you mean \"X25519\"?") != std::string::npos);
  CHECK(text.find("has no group \"X25519:P-256\"") != std::string::npos);
}

TEST_CASE("config tls: checks and PROXY headers towards servers with TLS -> as without it") {
  const std::string profile =
      "[tls.certificates]\nmain = { pem = '/c.pem' }\n[tls.profiles.public]\n"
      "certificates = 'main'\n";
  const LoadResult result = load("send_proxy_protocol = 'v2'\n" + profile +
                                 "[upstreams.app.tls]\nca = '/ca.pem'\n"
                                 "[upstreams.app.health]\ntype = 'http'\nhost = 'api.test'\n");
  CHECK(result.diagnostics.empty());
  CHECK(result.config->upstreams[0].send_proxy == ProxySend::kV2);
  CHECK(result.config->upstreams[0].health.type == HealthType::kHttp);
  CHECK(result.config->upstreams[0].health.send_proxy == ProxySend::kV2);
  // Over TLS a TCP check may say which name it asks for, unless that is fixed.
  const std::string tcp = "[upstreams.app.health]\ntype = 'tcp'\nhost = 'api.test'\n";
  CHECK(load(profile + "[upstreams.app.tls]\n" + tcp).config->upstreams[0].health.host ==
        "api.test");
  for (const char* tls : {"", "[upstreams.app.tls]\nsni = 'fixed.test'\n"}) {
    CHECK(errors_of(profile + tls + tcp).find("`host` belongs to type = \"http\"") !=
          std::string::npos);
  }
}

TEST_CASE("config tls: fields about client certificates -> their names, and one list of all") {
  const std::string rest =
      "[tls.certificates]\nmain = { pem = '/c.pem' }\n[tls.profiles.public]\n"
      "certificates = 'main'\n[listeners.two]\nbind = '127.0.0.1:82'\n";
  LoadResult result = load(rest);
  CHECK_FALSE(result.config->listeners[0].certificate_headers.enabled);
  CHECK(result.config->own_names.empty());
  result = load(rest +
                "client_certificate_headers = { verify = 'X_Verify', issuer = 'off' }\n"
                "[listeners.three]\nbind = '127.0.0.1:83'\nclient_certificate_headers = {}\n");
  CHECK(result.diagnostics.empty());
  const auto find = [&](const char* name) {
    for (const Listener& listener : result.config->listeners) {
      if (listener.name == name) return listener.certificate_headers;
    }
    return ClientCertificateHeaders{};
  };
  CHECK(find("two").enabled);
  CHECK(find("two").verify == "x_verify");
  CHECK(find("two").subject == "x-ssl-client-subject");
  CHECK(find("two").issuer.empty());
  CHECK(find("three").issuer == "x-ssl-client-issuer");
  std::vector<std::string> names = result.config->own_names;
  std::sort(names.begin(), names.end());
  CHECK(names == std::vector<std::string>{"x-ssl-client-fingerprint", "x-ssl-client-issuer",
                                          "x-ssl-client-serial", "x-ssl-client-subject",
                                          "x-ssl-client-verify", "x-verify"});
}

TEST_CASE(
    "config tls: a route by what clients cannot send -> refused, by the verdict -> its bits") {
  const std::string tls =
      "[tls.certificates]\nmain = { pem = '/c.pem' }\n[tls.profiles.public]\n"
      "certificates = 'main'\n[listeners.two]\nbind = '127.0.0.1:82'\n"
      "client_certificate_headers = {}\n";
  const std::string route = "[[routes]]\nname = 'r'\nupstream = 'app'\nmatch = ";
  const std::string text =
      errors_of(tls + route + "{ header = { X_SSL_Client_Verify = 'SUCCESS' } }\n");
  CHECK(text.find("is a field that clients cannot send") != std::string::npos);
  CHECK(text.find("`client_certificate` is what a route can match") != std::string::npos);
  const auto bits = [&](const std::string& words) {
    const LoadResult result =
        load_text(kRest + tls + route + "{ client_certificate = " + words + " }\n", "test");
    REQUIRE(result.config != nullptr);
    return result.config->routes[1].match.client_certificate;
  };
  constexpr uint32_t kNone = 1;
  constexpr uint32_t kOk = 2;
  CHECK(bits("'ok'") == kOk);
  CHECK(bits("['none', 'expired']") == (kNone | 4));
  CHECK(bits("'refused'") == ((1U << 13) - 1 - kNone - kOk));
}

TEST_CASE("config tls: early data -> off by default, for HTTP, with tickets, without client_auth") {
  const std::string profile =
      "[tls.certificates]\nmain = { pem = '/c.pem' }\n[tls.profiles.public]\n"
      "certificates = 'main'\n";
  CHECK_FALSE(load(profile).config->tls_profiles[0].early_data);
  CHECK_FALSE(load(profile + "early_data = 'off'\n").config->tls_profiles[0].early_data);
  const std::string on = profile + "early_data = 'safe_methods'\n";
  const LoadResult result = load(on);
  CHECK(result.diagnostics.empty());
  CHECK(result.config->tls_profiles[0].early_data);
  const auto has = [](const std::string& text, const char* part) {
    return text.find("E0317") != std::string::npos && text.find(part) != std::string::npos;
  };
  CHECK(has(errors_of(on + "tickets = 'off'\n"), "`early_data` needs `tickets`"));
  CHECK(has(errors_of(on + "max_version = '1.2'\n"), "which `max_version` excludes"));
  for (const char* mode : {"optional", "required"}) {
    CHECK(has(errors_of(on + "client_auth = { mode = '" + mode + "', ca = '/ca.pem' }\n"),
              "`early_data` and `client_auth` exclude each other"));
  }
  CHECK(has(errors_of(on + "[listeners.raw]\nbind = '127.0.0.1:82'\nprotocol = 'tcp'\n"
                           "tls = 'public'\n"),
            "this listener has protocol = \"tcp\""));
}

TEST_CASE("config tls: TCP listeners and upstreams -> TLS, but not what needs a request") {
  const std::string tcp =
      "version = 1\n[listeners.t]\nbind = '127.0.0.1:80'\nprotocol = 'tcp'\ntls = 'p'\n"
      "timeouts = { tls_handshake = '3s' }\n[[routes]]\nname = 'all'\nupstream = 'u'\n"
      "[tls.certificates]\nc = { pem = '/c.pem' }\n[tls.profiles.p]\ncertificates = 'c'\n"
      "[upstreams.u]\nprotocol = 'tcp'\nservers = [{ address = '127.0.0.1:81' }]\n";
  LoadResult result = load_text(tcp + "tls = { sni = 'db.test' }\n", "test");
  REQUIRE(result.config != nullptr);
  CHECK(result.diagnostics.empty());
  CHECK(result.config->listeners[0].timeouts.tls_handshake == 3000);
  CHECK(result.config->upstreams[0].tls.sni == "db.test");
  result = load_text(tcp + "tls = { verify = false }\n", "test");
  CHECK(result.config != nullptr);
  CHECK(result.warnings() == 1);
  result = load_text(tcp + "tls = { sni = '{request.host}' }\n", "test");
  CHECK(result.errors() == 1);
  CHECK(result.diagnostics[0].code == "E0317");
}

TEST_CASE("config tls: an upstream that extends another -> its TLS, key by key") {
  const LoadResult result = load(
      "[tls.certificates]\nmain = { pem = '/c.pem' }\n[tls.profiles.public]\n"
      "certificates = 'main'\n[upstreams.app.tls]\nsni = 'a.test'\nca = '/ca.pem'\n"
      "[upstreams.b]\nextends = 'app'\ntls = { sni = 'b.test' }\n");
  const UpstreamTls& tls = result.config->upstreams[1].tls;
  CHECK(tls.enabled);
  CHECK(tls.sni == "b.test");
  CHECK(tls.ca.path == "/ca.pem");
}

TEST_CASE("config tls: profiles and certificates in several files -> joined; twice -> E0107") {
  char folder[] = "/tmp/ringway-tls-XXXXXX";
  REQUIRE(mkdtemp(folder) != nullptr);
  const std::string path = folder;
  std::ofstream(path + "/main.toml") << "include = 'part.toml'\n" + kRest +
                                            "[tls.profiles.public]\ncertificates = ['a', 'b']\n"
                                            "[tls.certificates]\na = { pem = '/a.pem' }\n";
  std::ofstream(path + "/part.toml") << "[tls.certificates]\nb = { pem = '/b.pem' }\n"
                                        "[tls.profiles.other]\ncertificates = 'b'\n";
  LoadResult result = load_file(path + "/main.toml");
  INFO(render(result, false));
  REQUIRE(result.config != nullptr);
  CHECK(result.config->tls_profiles.size() == 2);
  CHECK(result.config->tls_certificates.size() == 2);

  std::ofstream(path + "/part.toml") << "[tls.certificates]\na = { pem = '/b.pem' }\n";
  result = load_file(path + "/main.toml");
  CHECK(std::any_of(result.diagnostics.begin(), result.diagnostics.end(), [](const Diagnostic& d) {
    return d.code == "E0107" && d.message == "[tls.certificates.a] is defined a second time" &&
           d.position.line == 14;
  }));
  std::filesystem::remove_all(path);
}
