// core/tls_context.h - what contexts of both roles set up alike. For core/tls_*.cc only.
#pragma once

#include <openssl/ssl.h>

#include <string>
#include <vector>

#include "core/tls_certificate.h"
#include "core/tls_policy.h"

namespace ringway {

// A context without BoringSSL's X.509 layer, session cache and renegotiation, whose clock is the
// shard's. `owner` is what SSL_CTX_get_app_data() returns. Never null.
[[nodiscard]] SSL_CTX* make_tls_context(void* owner);
// Empty, or what is wrong with it.
[[nodiscard]] std::string apply_policy(SSL_CTX* context, const TlsPolicy& policy);
// The protocols as in the ALPN extension. False for an empty or too long name.
[[nodiscard]] bool encode_alpn(const std::vector<std::string>& names, std::string& out);
// The key of a certificate; null if BoringSSL does not take it.
[[nodiscard]] bssl::UniquePtr<EVP_PKEY> make_key(const TlsCertificate& certificate);
// Its chain. Each element is never null.
[[nodiscard]] std::vector<bssl::UniquePtr<CRYPTO_BUFFER>> make_chain(
    const TlsCertificate& certificate);

}  // namespace ringway
