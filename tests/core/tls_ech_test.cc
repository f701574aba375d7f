// tests/core/tls_ech_test.cc - Encrypted Client Hello: with BoringSSL's own client.
#include "core/tls_ech.h"

#include <doctest/doctest.h>

#include "tests/support/make_ech.h"
#include "tests/support/raw_tls.h"
#include "tests/support/tls_world.h"

namespace ringway {
namespace {

using test::MadeEch;

std::shared_ptr<const TlsEchKeys> loaded(const std::string& pem) {
  TlsEchResult made = TlsEchKeys::load(pem);
  REQUIRE_MESSAGE(made.keys != nullptr, made.error);
  return made.keys;
}

// A client of `ech` that asks for secret.test; the public name is example.test.
struct EchWorld : SimTlsWorld {
  EchWorld() {
    const test::MadeCertificate secret = test::make_certificate(
        {.common_name = "secret", .names = {"secret.test"}, .issuer = &keys.authority});
    names = to_names({to_tls(keys.server), to_tls(secret)});
    plain_client = true;
  }
  std::unique_ptr<RawTls> ask(const std::string& list) {
    TlsEnd& end = dial();
    REQUIRE(run([&] { return end.connected == 0; }));
    end.stream.set_receiving(true);
    auto raw = std::make_unique<RawTls>(end);
    SSL_set_tlsext_host_name(raw->ssl.get(), "secret.test");
    REQUIRE(SSL_set1_ech_config_list(raw->ssl.get(), reinterpret_cast<const uint8_t*>(list.data()),
                                     list.size()) == 1);
    raw->pump();
    wire = raw->take();
    REQUIRE(run([&] { return peer_of_last().decided(); }));
    return raw;
  }
  std::string wire;
};

TEST_CASE("Tls ECH: the name inside is found, and nobody on the way sees it") {
  EchWorld world;
  const MadeEch made(7);
  world.server_options.ech = loaded(made.pem());
  const auto raw = world.ask(made.list);
  TlsEnd& server = world.peer_of_last();
  REQUIRE(world.run([&] { return raw->done; }));
  CHECK(SSL_ech_accepted(raw->ssl.get()) == 1);
  CHECK(server.secured == 1);
  CHECK(server.server_name == "secret.test");
  CHECK(server.stream.tls()->ech());
  CHECK(world.server_shard.counters().ech_accepted.get() == 1);
  raw->write("hello");
  REQUIRE(world.run([&] { return server.text == "hello"; }));
}

TEST_CASE("Tls ECH: another configuration, or none here -> the public name's certificate") {
  const MadeEch made(7);
  const MadeEch newer(8);
  for (const bool knows : {true, false}) {
    CAPTURE(knows);
    EchWorld world;
    if (knows) world.server_options.ech = loaded(newer.pem());
    const auto raw = world.ask(made.list);
    REQUIRE(world.run([&] {
      return SSL_in_init(raw->ssl.get()) == 0 || raw->last_error != 0 ||
             world.peer_of_last().ends > 0;
    }));
    CHECK(SSL_ech_accepted(raw->ssl.get()) == 0);
    CHECK(world.peer_of_last().server_name == "example.test");
    CHECK(world.server_shard.counters().ech_accepted.get() == 0);
    const uint8_t* retry = nullptr;
    size_t length = 0;
    const char* name = nullptr;
    size_t name_length = 0;
    SSL_get0_ech_name_override(raw->ssl.get(), &name, &name_length);
    CHECK(std::string(name, name_length) == "example.test");
    SSL_get0_ech_retry_configs(raw->ssl.get(), &retry, &length);
    CHECK(std::string(reinterpret_cast<const char*>(retry), length) == (knows ? newer.list : ""));
  }
}

TEST_CASE("Tls ECH: rotation -> clients with the old configuration and with the new one") {
  const MadeEch old(7);
  const MadeEch next(7);  // The same number, so that both are tried.
  EchWorld world;
  world.server_options.ech = loaded(old.pem());
  world.server_context().set_ech(loaded(next.pem() + old.pem()));
  for (const MadeEch* one : {&old, &next}) {
    const auto raw = world.ask(one->list);
    REQUIRE(world.run([&] { return raw->done; }));
    CHECK(SSL_ech_accepted(raw->ssl.get()) == 1);
    world.close_all();
  }
}

TEST_CASE("TlsEchKeys: files that are no good -> what is wrong, and in which line") {
  const MadeEch one(1);
  const MadeEch two(2);
  const auto error = [](const std::string& pem) { return TlsEchKeys::load(pem).error; };
  CHECK(loaded(one.pem() + "text\n" + two.pem())->size() == 2);
  CHECK(error("") == "there is no PRIVATE KEY in it");
  CHECK(error(one.config_pem) == "line 1: no key before it");
  CHECK(error(one.key_pem) == "line 1: a key without its ECHCONFIG");
  CHECK(error(one.pem() + two.config_pem).find("no key before it") != std::string::npos);
  CHECK(error(one.key_pem + two.config_pem).find("not this key's") != std::string::npos);
  CHECK(error(one.key_pem + "-----BEGIN ECHCONFIG-----\nAAAA\n-----END ECHCONFIG-----\n")
            .find("no list of ECH configurations") != std::string::npos);
  const test::MadeCertificate ec = test::make_certificate({});
  CHECK(error(ec.key_pem + one.config_pem) == "line 1: no X25519 key");
  CHECK(error(one.pem() + "-----BEGIN PRIVATE KEY-----\n").find("not PEM") != std::string::npos);
}

}  // namespace
}  // namespace ringway
