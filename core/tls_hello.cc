// core/tls_hello.cc
#include "core/tls_hello.h"

#include <openssl/bytestring.h>
#include <openssl/nid.h>

#include <algorithm>
#include <array>

namespace ringway {
namespace {

bool find_extension(const SSL_CLIENT_HELLO& hello, uint16_t type, CBS& out) {
  const uint8_t* bytes = nullptr;
  size_t length = 0;
  if (SSL_early_callback_ctx_extension_get(&hello, type, &bytes, &length) != 1) return false;
  CBS_init(&out, bytes, length);
  return true;
}

bool offers_tls13(const SSL_CLIENT_HELLO& hello) {
  CBS extension{};
  CBS versions{};
  if (!find_extension(hello, TLSEXT_TYPE_supported_versions, extension) ||
      CBS_get_u8_length_prefixed(&extension, &versions) != 1) {
    return false;
  }
  uint16_t version = 0;
  while (CBS_get_u16(&versions, &version) == 1) {
    if (version == TLS1_3_VERSION) return true;
  }
  return false;
}

// Before TLS 1.3 the cipher suite says what signs. One that we do not speak helps nobody.
bool offers_suite(const SSL_CLIENT_HELLO& hello, std::span<const uint16_t> wanted) {
  CBS suites{};
  CBS_init(&suites, hello.cipher_suites, hello.cipher_suites_len);
  uint16_t suite = 0;
  while (CBS_get_u16(&suites, &suite) == 1) {
    if (std::find(wanted.begin(), wanted.end(), suite) != wanted.end()) return true;
  }
  return false;
}

void read_algorithm(uint16_t algorithm, HelloFacts& facts) {
  switch (algorithm) {
    case SSL_SIGN_RSA_PKCS1_SHA1:
    case SSL_SIGN_RSA_PKCS1_SHA256:
    case SSL_SIGN_RSA_PKCS1_SHA384:
    case SSL_SIGN_RSA_PKCS1_SHA512:
    case SSL_SIGN_RSA_PSS_RSAE_SHA256:
    case SSL_SIGN_RSA_PSS_RSAE_SHA384:
    case SSL_SIGN_RSA_PSS_RSAE_SHA512: facts.rsa = true; break;
    case SSL_SIGN_ECDSA_SECP256R1_SHA256: facts.ecdsa_p256 = true; break;
    case SSL_SIGN_ECDSA_SECP384R1_SHA384: facts.ecdsa_p384 = true; break;
    case SSL_SIGN_ED25519: facts.ed25519 = true; break;
    default: break;
  }
}

}  // namespace

std::vector<uint16_t> ecdsa_suites_of(const SSL_CTX* context) {
  std::vector<uint16_t> suites;
  const STACK_OF(SSL_CIPHER)* ciphers = SSL_CTX_get_ciphers(context);
  for (size_t i = 0; i < sk_SSL_CIPHER_num(ciphers); ++i) {
    const SSL_CIPHER* cipher = sk_SSL_CIPHER_value(ciphers, i);
    if (SSL_CIPHER_get_auth_nid(cipher) != NID_auth_ecdsa) continue;
    suites.push_back(SSL_CIPHER_get_protocol_id(cipher));
  }
  return suites;
}

HelloFacts read_hello(const SSL_CLIENT_HELLO& hello, const HelloLimits& limits) {
  HelloFacts facts;
  CBS extension{};
  CBS algorithms{};
  uint16_t algorithm = 0;
  if (find_extension(hello, TLSEXT_TYPE_signature_algorithms, extension) &&
      CBS_get_u16_length_prefixed(&extension, &algorithms) == 1) {
    while (CBS_get_u16(&algorithms, &algorithm) == 1) read_algorithm(algorithm, facts);
  } else {
    facts.rsa = true;  // RFC 5246 7.4.1.4.1
  }
  if (!(limits.tls13 && offers_tls13(hello)) && !offers_suite(hello, limits.ecdsa_suites)) {
    facts.ecdsa_p256 = facts.ecdsa_p384 = facts.ed25519 = false;
  }
  facts.wants_ocsp = find_extension(hello, TLSEXT_TYPE_status_request, extension);
  return facts;
}

const TlsCertificate* choose_certificate(const TlsChoice& choice, const HelloFacts& facts) {
  const auto ordered = std::to_array<std::pair<bool, const TlsCertificate*>>(
      {{facts.ecdsa_p256, choice.of(TlsKeyType::kEcdsaP256)},
       {facts.ed25519, choice.of(TlsKeyType::kEd25519)},
       {facts.ecdsa_p384, choice.of(TlsKeyType::kEcdsaP384)},
       {facts.rsa, choice.of(TlsKeyType::kRsa)}});
  const TlsCertificate* any = nullptr;
  for (const auto& [taken, certificate] : ordered) {
    if (certificate == nullptr) continue;
    if (taken) return certificate;
    any = certificate;
  }
  return any;
}

}  // namespace ringway
