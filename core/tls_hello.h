// core/tls_hello.h - what of a ClientHello decides about the certificate. For core/tls_*.cc only.
#pragma once

#include <openssl/ssl.h>

#include <cstdint>
#include <span>
#include <vector>

#include "core/tls_names.h"

namespace ringway {

struct HelloFacts {
  bool rsa = false;
  bool ecdsa_p256 = false;
  bool ecdsa_p384 = false;
  bool ed25519 = false;
  bool wants_ocsp = false;
};

// What we may speak ourselves.
struct HelloLimits {
  bool tls13 = false;
  std::span<const uint16_t> ecdsa_suites{};  // of TLS 1.2: those that an ECDSA or EdDSA key signs
};
// The suites of `context` that go into HelloLimits.
[[nodiscard]] std::vector<uint16_t> ecdsa_suites_of(const SSL_CTX* context);

// Which keys the client can verify (RFC 8446 4.2.3, RFC 8422 5.1) and has a suite in common for.
[[nodiscard]] HelloFacts read_hello(const SSL_CLIENT_HELLO& hello, const HelloLimits& limits);
// The fastest to sign with that the client takes; if it takes none, any one, so that the handshake
// fails for the right reason. Null only for an empty choice.
[[nodiscard]] const TlsCertificate* choose_certificate(const TlsChoice& choice,
                                                       const HelloFacts& facts);

}  // namespace ringway
