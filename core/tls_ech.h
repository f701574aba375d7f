// core/tls_ech.h - the keys of Encrypted Client Hello: what hides the name that a client asks for.
//
// Affinity:  immutable once loaded; read by all shards. Ownership: values; private keys are erased
//            when destroyed.
// Bounds:    kKeysMax keys.
// Why:       as bytes, since each shard makes its own objects of BoringSSL's of them.
// Source:    RFC 9849 (draft-ietf-tls-esni-13 has the same version of configurations, which is
//            BoringSSL's); the file format is that of RFC 9934.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/pem.h"

struct ssl_ctx_st;

namespace ringway {

struct TlsEchResult;

class TlsEchKeys {
 public:
  static constexpr size_t kKeysMax = 16;

  // PEM: each "PRIVATE KEY" (X25519, PKCS#8) is followed by its "ECHCONFIG", a list of
  // configurations with its public key. Clients that used another configuration are sent the first
  // key's, so that they come again with it; all of them open.
  [[nodiscard]] static TlsEchResult load(std::string_view pem);

  // Makes `context` open hellos with these keys, in place of those that it had.
  void apply(ssl_ctx_st* context) const;
  [[nodiscard]] size_t size() const { return keys_.size(); }

 private:
  struct Key {
    SecretBytes private_key;
    std::vector<std::string> configs;  // ECHConfig; not empty
  };
  [[nodiscard]] std::string add(const PemBlock& key, const PemBlock& configs);

  std::vector<Key> keys_;
};

struct TlsEchResult {
  std::shared_ptr<const TlsEchKeys> keys;  // null: see error
  std::string error;                       // "line 4: ..."
};

}  // namespace ringway
