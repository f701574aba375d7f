// core/tls_ech.cc
#include "core/tls_ech.h"

#include <openssl/bytestring.h>
#include <openssl/curve25519.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hpke.h>
#include <openssl/ssl.h>

#include <utility>

#include "core/base/check.h"

namespace ringway {
namespace {

// The 32 bytes of an X25519 key, or nothing.
SecretBytes x25519_of(const PemBlock& block) {
  CBS der{};
  CBS_init(&der, block.bytes.data(), block.bytes.size());
  const bssl::UniquePtr<EVP_PKEY> key(EVP_parse_private_key(&der));
  SecretBytes raw(X25519_PRIVATE_KEY_LEN);
  size_t length = raw.size();
  const bool good = key != nullptr && CBS_len(&der) == 0 &&
                    EVP_PKEY_id(key.get()) == EVP_PKEY_X25519 &&
                    EVP_PKEY_get_raw_private_key(key.get(), raw.data(), &length) == 1;
  ERR_clear_error();
  return good ? std::move(raw) : SecretBytes();
}

// An ECHConfigList, taken apart: each ECHConfig with its version and length (RFC 9849 4).
std::vector<std::string> split_configs(const PemBlock& block) {
  std::vector<std::string> configs;
  CBS list{};
  CBS all{};
  CBS_init(&list, block.bytes.data(), block.bytes.size());
  if (CBS_get_u16_length_prefixed(&list, &all) != 1 || CBS_len(&list) != 0) return {};
  while (CBS_len(&all) > 0) {
    const CBS begin = all;
    uint16_t version = 0;
    CBS contents{};
    if (CBS_get_u16(&all, &version) != 1 || CBS_get_u16_length_prefixed(&all, &contents) != 1) {
      return {};
    }
    configs.emplace_back(reinterpret_cast<const char*>(CBS_data(&begin)),
                         CBS_len(&begin) - CBS_len(&all));
  }
  return configs;
}

bool add_key(SSL_ECH_KEYS* keys, const SecretBytes& private_key, const std::string& config,
             bool first) {
  bssl::ScopedEVP_HPKE_KEY key;
  return EVP_HPKE_KEY_init(key.get(), EVP_hpke_x25519_hkdf_sha256(), private_key.data(),
                           private_key.size()) == 1 &&
         SSL_ECH_KEYS_add(keys, first ? 1 : 0, reinterpret_cast<const uint8_t*>(config.data()),
                          config.size(), key.get()) == 1;
}

}  // namespace

std::string TlsEchKeys::add(const PemBlock& key, const PemBlock& configs) {
  const auto at = [](const PemBlock& block) { return "line " + std::to_string(block.line) + ": "; };
  if (keys_.size() == kKeysMax) return at(key) + "too many keys";
  Key added{.private_key = x25519_of(key), .configs = split_configs(configs)};
  if (added.private_key.empty()) return at(key) + "no X25519 key";
  if (added.configs.empty()) return at(configs) + "no list of ECH configurations";
  const bssl::UniquePtr<SSL_ECH_KEYS> tried(SSL_ECH_KEYS_new());
  for (const std::string& config : added.configs) {
    if (add_key(tried.get(), added.private_key, config, true)) continue;
    ERR_clear_error();
    return at(configs) + "a configuration that is not this key's, or cannot be used";
  }
  keys_.push_back(std::move(added));
  return "";
}

TlsEchResult TlsEchKeys::load(std::string_view pem) {
  auto keys = std::make_shared<TlsEchKeys>();
  PemReader reader(pem);
  PemBlock key;
  for (PemBlock block; reader.next(block);) {
    if (block.label == "PRIVATE KEY") {
      key = std::move(block);
    } else if (block.label == "ECHCONFIG") {
      if (key.label.empty()) {
        return {.keys = nullptr,
                .error = "line " + std::to_string(block.line) + ": no key before it"};
      }
      std::string error = keys->add(key, block);
      if (!error.empty()) return {.keys = nullptr, .error = std::move(error)};
      key = PemBlock();
    }
    block = PemBlock();
  }
  if (reader.error() != PemError::kNone) {
    return {.keys = nullptr, .error = "line " + std::to_string(reader.line()) + ": not PEM"};
  }
  if (!key.label.empty()) {
    return {.keys = nullptr,
            .error = "line " + std::to_string(key.line) + ": a key without its ECHCONFIG"};
  }
  if (keys->size() == 0) return {.keys = nullptr, .error = "there is no PRIVATE KEY in it"};
  return {.keys = std::move(keys), .error = ""};
}

void TlsEchKeys::apply(ssl_ctx_st* context) const {
  const bssl::UniquePtr<SSL_ECH_KEYS> made(SSL_ECH_KEYS_new());
  bool first = true;
  for (const Key& key : keys_) {
    // load() has tried the same.
    for (const std::string& config : key.configs) {
      RW_CHECK(add_key(made.get(), key.private_key, config, first));
    }
    first = false;
  }
  RW_CHECK(SSL_CTX_set1_ech_keys(context, made.get()) == 1);
}

}  // namespace ringway
