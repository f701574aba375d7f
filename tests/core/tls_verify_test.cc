// tests/core/tls_verify_test.cc - whose certificate is refused, and why: both roles.
#include <doctest/doctest.h>

#include <array>

#include "tests/support/tls_world.h"

namespace ringway {
namespace {

using test::MadeCertificate;
using test::make_certificate;

constexpr int64_t kDay = 86400;

struct Refusal {
  std::string cause;
  std::string alert;  // what the other side hears
};

// A server that shows `certificate`; the client refuses it so.
void check_shown(std::shared_ptr<const TlsCertificate> certificate, SimTlsWorld& world,
                 const Refusal& expected,
                 const TlsClientParams& params = {.server_name = "example.test"}) {
  CAPTURE(expected.cause);
  world.server = nullptr;
  world.names = to_names({std::move(certificate)});
  TlsEnd& client = world.dial(params);
  world.settle();
  CHECK(client.connected == kTlsFailed);
  CHECK(client.cause == expected.cause);
  REQUIRE(world.run([&] { return world.peer_of_last().ends == 1; }));
  CHECK(world.peer_of_last().cause == expected.alert);
  CHECK_FALSE(client.send("secret"));
  world.close_all();
}

void check_refused(const MadeCertificate& certificate, SimTlsWorld& world, const Refusal& expected,
                   const TlsClientParams& params = {.server_name = "example.test"}) {
  check_shown(to_tls(certificate), world, expected, params);
}

TEST_CASE("Tls: a server's certificate that must not be trusted -> refused, with the reason") {
  SimTlsWorld world;
  const MadeCertificate* ca = &world.keys.authority;
  const auto leaf = [ca](test::CertificateSpec spec) {
    spec.common_name = "server";
    if (spec.names.empty()) spec.names = {"example.test"};
    if (spec.issuer == nullptr) spec.issuer = ca;
    return make_certificate(spec);
  };
  check_refused(leaf({.not_before_s = -2 * kDay, .not_after_s = -kDay}), world,
                {"tls_verify:expired", "tls_alert:certificate_expired"});
  check_refused(leaf({.not_before_s = kDay}), world,
                {"tls_verify:not_yet_valid", "tls_alert:certificate_expired"});
  check_refused(leaf({.names = {"other.test", "*.sub.example.test"}}), world,
                {"tls_verify:wrong_name", "tls_alert:bad_certificate"});
  check_refused(make_certificate({.common_name = "server", .names = {"example.test"}}), world,
                {"tls_verify:self_signed", "tls_alert:unknown_ca"});
  const MadeCertificate stranger = make_certificate({.common_name = "Other CA", .ca = true});
  check_refused(leaf({.issuer = &stranger}), world,
                {"tls_verify:unknown_ca", "tls_alert:unknown_ca"});
  const MadeCertificate impostor = make_certificate({.common_name = "Test CA", .ca = true});
  check_refused(leaf({.issuer = &impostor}), world,
                {"tls_verify:bad_signature", "tls_alert:decrypt_error"});
  const MadeCertificate forged = leaf({});
  auto changed = load_certificate({.cert_pem = forged.cert_pem, .key_pem = forged.key_pem});
  REQUIRE(changed.has_value());
  changed->chain[0].back() = static_cast<char>(changed->chain[0].back() ^ 1);
  check_shown(std::make_shared<const TlsCertificate>(std::move(*changed)), world,
              {"tls_verify:bad_signature", "tls_alert:decrypt_error"});
  check_refused(leaf({.client = true}), world,
                {"tls_verify:wrong_purpose", "tls_alert:unsupported_certificate"});
  check_refused(leaf({}), world, {"tls_verify:wrong_name", "tls_alert:bad_certificate"},
                {.server_name = "example.test", .verify_name = "10.0.0.1"});
  // A common name is not a name (RFC 9525 2).
  check_refused(make_certificate({.common_name = "example.test", .issuer = ca}), world,
                {"tls_verify:wrong_name", "tls_alert:bad_certificate"});
  CHECK(world.client_shard.counters().refused[static_cast<size_t>(TlsVerdict::kExpired)].get() ==
        1);
}

TEST_CASE("Tls: a server's certificate that is good -> accepted: names, addresses, a chain") {
  SimTlsWorld world;
  const MadeCertificate middle =
      make_certificate({.common_name = "Middle CA", .issuer = &world.keys.authority, .ca = true});
  const MadeCertificate server = make_certificate(
      {.common_name = "server", .names = {"*.example.test", "10.0.0.1"}, .issuer = &middle});
  world.names = to_names({to_tls(server, {&middle})});
  world.connect({.server_name = "www.example.test"});
  world.connect({.server_name = "10.0.0.1"});
  world.connect({.server_name = "", .verify_name = "www.example.test"});
  world.connect({.server_name = ""});  // Nobody asked for a name.
  // Without the middle of the chain nobody can verify it.
  check_refused(server, world, {"tls_verify:unknown_ca", "tls_alert:unknown_ca"});
}

TEST_CASE("Tls: a revoked server's certificate -> refused; an old list too") {
  SimTlsWorld world;
  const MadeCertificate revoked =
      make_certificate({.names = {"example.test"}, .issuer = &world.keys.authority});
  const std::array<const MadeCertificate*, 1> list = {&revoked};
  world.client_options.trust =
      to_trust(world.keys.authority, test::make_crl(world.keys.authority, list));
  check_refused(revoked, world, {"tls_verify:revoked", "tls_alert:certificate_revoked"});
  world.names = to_names({to_tls(world.keys.server)});
  world.server = nullptr;
  world.connect();
  world.close_all();
  world.client = nullptr;
  world.client_options.trust =
      to_trust(world.keys.authority, test::make_crl(world.keys.authority, list, -kDay));
  check_refused(world.keys.server, world,
                {"tls_verify:crl_expired", "tls_alert:certificate_expired"});
}

// Client certificates.
struct MutualWorld : SimTlsWorld {
  explicit MutualWorld(TlsClientAuth auth, uint16_t version = kTls13) {
    const std::array<const MadeCertificate*, 1> list = {&revoked};
    server_options.client_auth = auth;
    server_options.client_trust = to_trust(authority, test::make_crl(authority, list));
    client_options.policy.version_min = client_options.policy.version_max = version;
  }
  // Connects with this certificate; returns the server's end.
  TlsEnd& with(const MadeCertificate* certificate) {
    client = nullptr;
    client_options.certificate = certificate == nullptr ? nullptr : to_tls(*certificate);
    dial();
    settle();
    // In TLS 1.3 a client is done before the server has looked at its certificate.
    REQUIRE(run([this] { return peer_of_last().decided(); }));
    return peer_of_last();
  }
  MadeCertificate authority = make_certificate({.common_name = "Client CA", .ca = true});
  MadeCertificate good = make_certificate(
      {.common_name = "alice", .issuer = &authority, .client = true, .serial = 0xab});
  MadeCertificate expired = make_certificate({.common_name = "bob",
                                              .issuer = &authority,
                                              .client = true,
                                              .not_before_s = -2 * kDay,
                                              .not_after_s = -kDay});
  MadeCertificate revoked =
      make_certificate({.common_name = "carol", .issuer = &authority, .client = true});
  MadeCertificate stranger = make_certificate({.common_name = "dave", .client = true});
};

TEST_CASE("Tls: client certificates required -> each refusal has its alert, cause and counter") {
  for (const uint16_t version : {kTls12, kTls13}) {
    CAPTURE(version);
    MutualWorld world(TlsClientAuth::kRequired, version);
    TlsEnd& server = world.with(&world.good);
    CHECK(server.secured == 1);
    CHECK(server.verdict == TlsVerdict::kOk);
    CHECK(server.peer.subject == "CN=alice");
    CHECK(server.peer.issuer == "CN=Client CA");
    CHECK(server.peer.serial == "AB");
    const auto refused = [&](const MadeCertificate* certificate, std::string_view cause,
                             std::string_view alert) {
      TlsEnd& end = world.with(certificate);
      CHECK(end.secured == 0);
      CHECK(end.end == kTlsFailed);
      CHECK(end.cause == cause);
      TlsEnd& client = *world.dialled.back();
      REQUIRE(world.run([&] { return client.connected > 0 || client.ends == 1; }));
      CHECK(client.stream.tls()->failure().text() == alert);
    };
    refused(nullptr, "tls_no_client_certificate",
            version == kTls13 ? "tls_alert:certificate_required" : "tls_alert:handshake_failure");
    refused(&world.expired, "tls_verify:expired", "tls_alert:certificate_expired");
    refused(&world.revoked, "tls_verify:revoked", "tls_alert:certificate_revoked");
    refused(&world.stranger, "tls_verify:self_signed", "tls_alert:unknown_ca");
    CHECK(world.server_shard.counters()
              .failures[static_cast<size_t>(TlsCause::kNoClientCertificate)]
              .get() == 1);
    CHECK(world.server_shard.counters().failures[static_cast<size_t>(TlsCause::kVerify)].get() ==
          3);
  }
}

TEST_CASE("Tls: client certificates optional -> all connect, the verdict tells them apart") {
  MutualWorld world(TlsClientAuth::kOptional);
  CHECK(world.with(nullptr).verdict == TlsVerdict::kNone);
  CHECK(world.peer_of_last().secured == 1);
  CHECK_FALSE(world.peer_of_last().has_peer);
  CHECK(world.with(&world.good).verdict == TlsVerdict::kOk);
  CHECK(world.with(&world.expired).verdict == TlsVerdict::kExpired);
  CHECK(world.peer_of_last().secured == 1);
  CHECK(world.with(&world.revoked).verdict == TlsVerdict::kRevoked);
}

TEST_CASE("Tls: client certificates off -> nobody is asked") {
  MutualWorld world(TlsClientAuth::kOff);
  CHECK(world.with(&world.good).secured == 1);
  CHECK_FALSE(world.peer_of_last().has_peer);
  CHECK(world.peer_of_last().verdict == TlsVerdict::kNone);
}

// A ticket carries the client's certificate, and what it was worth then.
TEST_CASE("Tls: a client resumes with a certificate that was revoked since -> refused") {
  for (const uint16_t version : {kTls12, kTls13}) {
    CAPTURE(version);
    MutualWorld world(TlsClientAuth::kRequired, version);
    REQUIRE(world.with(&world.good).send("x"));
    TlsEnd& first = *world.dialled.back();
    REQUIRE(world.run([&] { return !first.tickets.empty() && first.text == "x"; }));
    TlsTicket ticket = std::move(first.tickets.back());
    TlsEnd& again = world.connect({.server_name = "example.test", .ticket = &ticket});
    CHECK(again.resumed);
    CHECK(world.peer_of_last().verdict == TlsVerdict::kOk);
    CHECK(world.peer_of_last().peer.subject == "CN=alice");
    world.close_all();
    world.server = nullptr;
    const std::array<const MadeCertificate*, 1> list = {&world.good};
    world.server_options.client_trust =
        to_trust(world.authority, test::make_crl(world.authority, list));
    world.dial({.server_name = "example.test", .ticket = &ticket});
    REQUIRE(world.run([&] { return !world.accepted.empty() && world.peer_of_last().decided(); }));
    CHECK(world.peer_of_last().secured == 0);
    CHECK(world.peer_of_last().cause == "tls_verify:revoked");
  }
}

TEST_CASE("Tls: other authorities for a context in use -> judge from then on, resumed ones too") {
  for (const uint16_t version : {kTls12, kTls13}) {
    CAPTURE(version);
    MutualWorld world(TlsClientAuth::kRequired, version);
    REQUIRE(world.with(&world.good).send("x"));
    TlsEnd& first = *world.dialled.back();
    REQUIRE(world.run([&] { return !first.tickets.empty() && first.text == "x"; }));
    TlsTicket ticket = std::move(first.tickets.back());
    const std::array<const MadeCertificate*, 1> list = {&world.good};
    world.server_context().set_client_trust(
        to_trust(world.authority, test::make_crl(world.authority, list)));
    world.dial({.server_name = "example.test", .ticket = &ticket});
    REQUIRE(
        world.run([&] { return world.accepted.size() == 2 && world.peer_of_last().decided(); }));
    CHECK(world.peer_of_last().secured == 0);
    CHECK(world.peer_of_last().cause == "tls_verify:revoked");
    CHECK(first.stream.open());  // Who was let in stays.
    world.server_context().set_client_trust(
        to_trust(world.authority, test::make_crl(world.authority, {})));
    CHECK(world.connect({.server_name = "example.test", .ticket = &ticket}).resumed);
  }
}

TEST_CASE("Tls: other authorities for servers -> a new connection is judged by them") {
  SimTlsWorld world;
  CHECK(world.connect().verdict == TlsVerdict::kOk);
  const MadeCertificate other = test::make_certificate({.common_name = "Other CA", .ca = true});
  world.client_context().set_trust(to_trust(other));
  TlsEnd& refused = world.dial();
  REQUIRE(world.run([&] { return refused.decided(); }));
  CHECK(refused.connected == kTlsFailed);
  CHECK(refused.cause == "tls_verify:unknown_ca");
  world.client_context().set_trust(to_trust(world.keys.authority));
  CHECK(world.connect().verdict == TlsVerdict::kOk);
}

}  // namespace
}  // namespace ringway
