// tests/core/tls_ech_test.cc - Encrypted Client Hello: with BoringSSL's own client.
#include "core/tls_ech.h"

#include <doctest/doctest.h>
#include <openssl/base64.h>
#include <openssl/bytestring.h>
#include <openssl/evp.h>
#include <openssl/hpke.h>

#include "tests/support/raw_tls.h"
#include "tests/support/tls_world.h"

namespace ringway {
namespace {

std::string pem_of(const char* label, const uint8_t* bytes, size_t length) {
  size_t room = 0;
  REQUIRE(EVP_EncodedLength(&room, length) == 1);
  std::string text(room, '\0');
  text.resize(EVP_EncodeBlock(reinterpret_cast<uint8_t*>(text.data()), bytes, length));
  std::string pem = std::string("-----BEGIN ") + label + "-----\n";
  for (size_t at = 0; at < text.size(); at += 64) pem += text.substr(at, 64) + "\n";
  return pem + "-----END " + label + "-----\n";
}

// A key with one configuration.
struct MadeEch {
  explicit MadeEch(uint8_t id, const char* public_name = "example.test") {
    bssl::ScopedEVP_HPKE_KEY key;
    REQUIRE(EVP_HPKE_KEY_generate(key.get(), EVP_hpke_x25519_hkdf_sha256()) == 1);
    uint8_t* config = nullptr;
    size_t length = 0;
    REQUIRE(SSL_marshal_ech_config(&config, &length, id, key.get(), public_name, 64) == 1);
    list.push_back(static_cast<char>(length >> 8));
    list.push_back(static_cast<char>(length));
    list.append(reinterpret_cast<const char*>(config), length);
    OPENSSL_free(config);
    std::array<uint8_t, 32> raw{};
    size_t raw_length = 0;
    REQUIRE(EVP_HPKE_KEY_private_key(key.get(), raw.data(), &raw_length, raw.size()) == 1);
    const bssl::UniquePtr<EVP_PKEY> pkey(
        EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, nullptr, raw.data(), raw.size()));
    bssl::ScopedCBB out;
    uint8_t* der = nullptr;
    REQUIRE((CBB_init(out.get(), 64) == 1 && EVP_marshal_private_key(out.get(), pkey.get()) == 1));
    REQUIRE(CBB_finish(out.get(), &der, &length) == 1);
    key_pem = pem_of("PRIVATE KEY", der, length);
    OPENSSL_free(der);
    config_pem = pem_of("ECHCONFIG", reinterpret_cast<const uint8_t*>(list.data()), list.size());
  }
  [[nodiscard]] std::string pem() const { return key_pem + config_pem; }

  std::string list;  // ECHConfigList
  std::string key_pem;
  std::string config_pem;
};

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
