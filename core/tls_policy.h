// core/tls_policy.h - which versions, ciphers and groups TLS speaks: the presets, and their names.
#pragma once

#include <cstdint>
#include <string>

namespace ringway {

constexpr uint16_t kTls12 = 0x0303;
constexpr uint16_t kTls13 = 0x0304;

struct TlsPolicy {
  uint16_t version_min = kTls12;
  uint16_t version_max = kTls13;
  // Of TLS 1.2, as in OpenSSL, best first; those of TLS 1.3 are always its three, AES first where
  // the processor has it. Empty: those of `intermediate`.
  std::string ciphers{};
  // Key exchange, best first: "X25519:P-256:P-384". Empty: these.
  std::string groups{};
};

// TLS 1.3 only: clients since about 2018.
[[nodiscard]] TlsPolicy tls_modern();
// TLS 1.2 with forward secrecy and AEAD, and TLS 1.3: clients since about 2014.
[[nodiscard]] TlsPolicy tls_intermediate();

}  // namespace ringway
