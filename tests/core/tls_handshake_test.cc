// tests/core/tls_handshake_test.cc - TLS handshakes: versions, certificates, names, protocols.
#include <doctest/doctest.h>

#include <array>

#include "tests/support/tls_world.h"

namespace ringway {
namespace {

TlsPolicy only(uint16_t version) {
  TlsPolicy policy = tls_intermediate();
  policy.version_min = policy.version_max = version;
  return policy;
}

TEST_CASE("Tls: 1.2 and 1.3 -> secured on both sides, bytes both ways, close_notify is the end") {
  for (const uint16_t version : {kTls12, kTls13}) {
    CAPTURE(version);
    SimTlsWorld world;
    world.server_options.policy = only(version);
    TlsEnd& client = world.connect();
    TlsEnd& server = world.peer_of_last();
    CHECK(client.version == (version == kTls13 ? "TLSv1.3" : "TLSv1.2"));
    CHECK(server.version == client.version);
    CHECK(server.cipher == client.cipher);
    CHECK(server.server_name == "example.test");
    CHECK(client.verdict == TlsVerdict::kOk);
    CHECK(client.has_peer);
    CHECK(client.peer.subject == "CN=server");
    CHECK(client.peer.common_name == "server");
    CHECK(client.peer.issuer == "CN=Test CA");
    CHECK(client.peer.fingerprint.size() == 64);
    CHECK_FALSE(client.resumed);
    CHECK_FALSE(client.stream.can_detach());
    REQUIRE(client.send("GET"));
    REQUIRE(world.run([&] { return server.text == "GET"; }));
    REQUIRE(server.send("200 OK"));
    REQUIRE(world.run([&] { return client.text == "200 OK"; }));
    server.stream.shutdown_send();
    REQUIRE(world.run([&] { return client.ends == 1; }));
    CHECK(client.end == 0);
    REQUIRE(client.send("more"));  // The other direction is still open.
    REQUIRE(world.run([&] { return server.text == "GETmore"; }));
    client.stream.close();
    REQUIRE(world.run([&] { return server.ends == 1 && client.closed == 1; }));
    CHECK(server.end == 0);
    CHECK(world.server_shard.counters().server_full.get() == 1);
    CHECK(world.client_shard.counters().client_full.get() == 1);
  }
}

TEST_CASE("Tls: RSA and ECDSA side by side -> each client gets the one it can verify") {
  SimTlsWorld world;
  const test::MadeCertificate rsa = test::make_certificate({.common_name = "rsa",
                                                            .names = {"example.test"},
                                                            .key = test::KeyKind::kRsa2048,
                                                            .issuer = &world.keys.authority});
  const test::MadeCertificate p384 = test::make_certificate({.common_name = "p384",
                                                             .names = {"p384.test"},
                                                             .key = test::KeyKind::kEcdsaP384,
                                                             .issuer = &world.keys.authority});
  world.names = to_names({to_tls(rsa), to_tls(world.keys.server), to_tls(p384)});
  CHECK(world.connect().peer.subject == "CN=server");
  CHECK(world.connect({.server_name = "p384.test"}).peer.subject == "CN=p384");
  world.close_all();
  world.client = nullptr;
  world.client_options.policy = only(kTls12);
  CHECK(world.connect().peer.subject == "CN=server");
  world.close_all();
  world.client = nullptr;
  world.client_options.policy.ciphers = "ECDHE-RSA-AES128-GCM-SHA256";
  TlsEnd& client = world.connect();
  CHECK(client.peer.subject == "CN=rsa");
  CHECK(client.cipher == "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256");
}

// What testssl.sh and sslscan do: they leave out the suites that they have seen already.
TEST_CASE("Tls: RSA and ECDSA, an ECDSA suite that we do not speak -> RSA, not no shared cipher") {
  SimTlsWorld world;
  const test::MadeCertificate rsa = test::make_certificate({.common_name = "rsa",
                                                            .names = {"example.test"},
                                                            .key = test::KeyKind::kRsa2048,
                                                            .issuer = &world.keys.authority});
  world.names = to_names({to_tls(world.keys.server), to_tls(rsa)});
  world.client_options.policy = only(kTls12);
  world.client_options.policy.ciphers = "ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-GCM-SHA256";
  CHECK(world.connect().peer.subject == "CN=rsa");
  world.close_all();
  world.server = nullptr;
  world.server_options.policy = tls_intermediate();
  world.server_options.policy.ciphers += ":ECDHE-ECDSA-AES128-SHA";
  TlsEnd& client = world.connect();
  CHECK(client.peer.subject == "CN=server");
  CHECK(client.cipher == "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA");
}

TEST_CASE("Tls: only a key that the client cannot verify -> no shared cipher, alert 40") {
  SimTlsWorld world;
  world.client_options.policy = only(kTls12);
  world.client_options.policy.ciphers = "ECDHE-RSA-AES128-GCM-SHA256";
  TlsEnd& client = world.dial();
  world.settle();
  CHECK(client.connected == kTlsFailed);
  CHECK(client.cause == "tls_alert:handshake_failure");
  CHECK(world.peer_of_last().end == kTlsFailed);
  CHECK(world.peer_of_last().cause == "tls_no_shared_cipher");
  CHECK(world.server_shard.counters()
            .failures[static_cast<size_t>(TlsCause::kNoSharedCipher)]
            .get() == 1);
}

TEST_CASE("Tls: names (SNI) -> exact before wildcard, one label, else the default") {
  SimTlsWorld world;
  const auto named = [&](const char* common_name, const char* name) {
    return to_tls(test::make_certificate(
        {.common_name = common_name, .names = {name}, .issuer = &world.keys.authority}));
  };
  world.names = to_names({named("first", "first.test"), named("wild", "*.example.test"),
                          named("exact", "www.example.test")});
  world.client_options.verify = false;
  const auto shown = [&](std::string_view name) {
    TlsEnd& client = world.connect({.server_name = name});
    CHECK(client.verdict == TlsVerdict::kNone);
    return client.peer.subject;
  };
  CHECK(shown("www.example.test") == "CN=exact");
  CHECK(shown("WWW.Example.Test") == "CN=exact");
  CHECK(shown("api.example.test") == "CN=wild");
  CHECK(shown("a.b.example.test") == "CN=first");
  CHECK(shown("") == "CN=first");
  CHECK(shown("10.0.0.1") == "CN=first");  // An address is not sent as a name (RFC 6066 3).
  CHECK(world.peer_of_last().server_name.empty());
  // New names count for new handshakes; who is connected stays so.
  TlsEnd& before = *world.accepted.front();
  world.server_context().set_names(to_names({named("other", "*.example.test")}));
  CHECK(shown("www.example.test") == "CN=other");
  REQUIRE(before.send("still here"));
  REQUIRE(world.run([&] { return world.dialled.front()->text == "still here"; }));
}

TEST_CASE("Tls: strict names -> alert unrecognized_name, counted; known ones are served") {
  for (const uint16_t version : {kTls12, kTls13}) {
    SimTlsWorld world;
    world.server_options.strict_sni = true;
    world.client_options.policy = only(version);
    for (const char* name : {"unknown.test", ""}) {
      CAPTURE(name);
      TlsEnd& client = world.dial({.server_name = name});
      world.settle();
      CHECK(client.connected == kTlsFailed);
      CHECK(client.cause == "tls_alert:unrecognized_name");
      CHECK(world.peer_of_last().cause == "tls_unrecognized_name");
    }
    CHECK(world.server_shard.counters()
              .failures[static_cast<size_t>(TlsCause::kUnrecognizedName)]
              .get() == 2);
    world.connect();
  }
}

TEST_CASE("Tls: ALPN -> the server's order; nothing in common is refused; none offered is fine") {
  SimTlsWorld world;
  world.server_options.alpn = {"h2", "http/1.1"};
  world.client_options.alpn = {"http/1.1", "h2"};
  CHECK(world.connect().alpn == "h2");
  CHECK(world.peer_of_last().alpn == "h2");
  world.close_all();
  world.client = nullptr;
  world.client_options.alpn = {"http/1.1"};
  CHECK(world.connect().alpn == "http/1.1");
  world.close_all();
  world.client = nullptr;
  world.client_options.alpn = {};
  CHECK(world.connect().alpn.empty());
  world.close_all();
  world.client = nullptr;
  world.client_options.alpn = {"http/1.10", "smtp"};
  TlsEnd& client = world.dial();
  world.settle();
  CHECK(client.cause == "tls_alert:no_application_protocol");
  CHECK(world.peer_of_last().cause == "tls_no_application_protocol");
}

TEST_CASE("Tls: presets -> modern speaks 1.3 only, and says protocol_version to others") {
  SimTlsWorld world;
  world.server_options.policy = tls_modern();
  world.client_options.policy = tls_intermediate();
  CHECK(world.connect().version == "TLSv1.3");
  world.close_all();
  world.client = nullptr;
  world.client_options.policy = only(kTls12);
  TlsEnd& client = world.dial();
  world.settle();
  CHECK(client.cause == "tls_alert:protocol_version");
  CHECK(world.peer_of_last().cause == "tls_unsupported_version");
}

TEST_CASE("Tls: options that cannot work -> an error that says which") {
  SimTlsWorld world;
  TlsClientOptions options;
  options.verify = false;
  options.policy.ciphers = "NO-SUCH-CIPHER";
  TlsClientResult made = TlsClientContext::make(world.client_shard, options);
  CHECK(made.context == nullptr);
  CHECK(made.error.find("NO-SUCH-CIPHER") != std::string::npos);
  options.policy = {.groups = "P-1"};
  made = TlsClientContext::make(world.client_shard, options);
  CHECK(made.error.find("P-1") != std::string::npos);
  options.policy = {.version_min = kTls13, .version_max = kTls12};
  made = TlsClientContext::make(world.client_shard, options);
  CHECK(made.error.find("versions") != std::string::npos);
  options.policy = {};
  options.alpn = {""};
  made = TlsClientContext::make(world.client_shard, options);
  CHECK(made.error.find("ALPN") != std::string::npos);
  CHECK_FALSE(TlsTrust::make("no PEM", "").error.empty());
  CHECK_FALSE(TlsTrust::make(world.keys.authority.cert_pem, "no PEM").error.empty());
}

TEST_CASE("Tls: what is no TLS -> tls_not_tls, in either role") {
  for (const std::string_view text :
       {"GET / HTTP/1.1\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n", "\1\2\3\4\5\6\7\10\11"}) {
    CAPTURE(text);
    SimTlsWorld world;
    world.plain_client = true;
    TlsEnd& client = world.dial();
    REQUIRE(world.run([&] { return client.connected == 0; }));
    REQUIRE(client.send(text));
    REQUIRE(world.run([&] { return !world.accepted.empty() && world.peer_of_last().ends == 1; }));
    CHECK(world.peer_of_last().end == kTlsFailed);
    CHECK(world.peer_of_last().cause == "tls_not_tls");
  }
  SimTlsWorld world;
  world.plain_server = true;
  world.on_accept = [](TlsEnd& end) { REQUIRE(end.send("HTTP/1.1 400 Bad Request\r\n\r\n")); };
  TlsEnd& client = world.dial();
  REQUIRE(world.run([&] { return client.decided(); }));
  CHECK(client.connected == kTlsFailed);
  CHECK(client.cause == "tls_not_tls");
}

}  // namespace
}  // namespace ringway
