// core/tls_policy.cc
#include "core/tls_policy.h"

namespace ringway {

TlsPolicy tls_modern() {
  TlsPolicy policy = tls_intermediate();
  policy.version_min = kTls13;
  return policy;
}

// Mozilla's "intermediate" without DHE, which BoringSSL does not speak.
TlsPolicy tls_intermediate() {
  return {.version_min = kTls12,
          .version_max = kTls13,
          .ciphers =
              "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
              "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
              "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305",
          .groups = "X25519:P-256:P-384"};
}

}  // namespace ringway
