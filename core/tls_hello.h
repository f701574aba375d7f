// core/tls_hello.h - what of a ClientHello decides about the certificate. For core/tls_*.cc only.
#pragma once

#include <openssl/ssl.h>

#include "core/tls_names.h"

namespace ringway {

struct HelloFacts {
  bool rsa = false;
  bool ecdsa_p256 = false;
  bool ecdsa_p384 = false;
  bool ed25519 = false;
  bool wants_ocsp = false;
};

// Which keys the client can verify (RFC 8446 4.2.3, RFC 8422 5.1). `tls13`: we may speak it.
[[nodiscard]] HelloFacts read_hello(const SSL_CLIENT_HELLO& hello, bool tls13);
// The fastest to sign with that the client takes; if it takes none, any one, so that the handshake
// fails for the right reason. Null only for an empty choice.
[[nodiscard]] const TlsCertificate* choose_certificate(const TlsChoice& choice,
                                                       const HelloFacts& facts);

}  // namespace ringway
