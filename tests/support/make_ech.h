// tests/support/make_ech.h - keys of Encrypted Client Hello made while a test runs.
#pragma once

#include <doctest/doctest.h>
#include <openssl/base64.h>
#include <openssl/bytestring.h>
#include <openssl/evp.h>
#include <openssl/hpke.h>
#include <openssl/ssl.h>

#include <array>
#include <string>

namespace ringway::test {

inline std::string ech_pem(const char* label, const uint8_t* bytes, size_t length) {
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
    key_pem = ech_pem("PRIVATE KEY", der, length);
    OPENSSL_free(der);
    config_pem = ech_pem("ECHCONFIG", reinterpret_cast<const uint8_t*>(list.data()), list.size());
  }
  [[nodiscard]] std::string pem() const { return key_pem + config_pem; }

  std::string list;  // ECHConfigList
  std::string key_pem;
  std::string config_pem;
};

}  // namespace ringway::test
