// core/tls_certificate.h - a certificate chain with its private key, taken out of PEM text.
//
// Affinity:  built on the control thread; immutable afterwards and read by all shards, which hold
//            it by shared_ptr<const TlsCertificate>.
// Ownership: plain values. The key's bytes are zeroed when the certificate is destroyed.
// Bounds:    kChainMax certificates; a block of PEM has at most 64 KiB of base64.
// Why:       it knows no SSL_CTX and no EVP_PKEY: those count references with atomics, so each
//            shard makes its own from these bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "core/pem.h"

namespace ringway {

enum class TlsKeyType : uint8_t { kRsa, kEcdsaP256, kEcdsaP384, kEd25519 };
inline constexpr size_t kTlsKeyTypes = 4;
inline constexpr size_t kChainMax = 16;
inline constexpr uint32_t kRsaBitsMin = 2048;

// "RSA", "ECDSA P-256", ...
[[nodiscard]] const char* name_of(TlsKeyType type);

struct TlsCertificate {
  std::vector<std::string> chain;  // DER, the server's own first; never empty
  SecretBytes key;                 // PKCS#8 DER
  // What the certificate is for, in lower case: DNS names, with "*." where it has a wildcard, and
  // IP addresses as text. Of the subjectAltName; the common name only where there is none.
  std::vector<std::string> names;
  TlsKeyType key_type = TlsKeyType::kRsa;
  uint32_t key_bits = 0;
  int64_t not_before_s = 0;  // Unix seconds
  int64_t not_after_s = 0;
  std::string ocsp;                // an OCSP response to staple, DER; empty: none
  int64_t ocsp_next_update_s = 0;  // Unix seconds; 0: it does not say
  std::string cert_file;           // "" for text that is no file
  std::string key_file;
};

enum class TlsLoadCause : uint8_t {
  kNoCertificate,        // the text has no CERTIFICATE block
  kBadPem,               // `line` says where
  kBadCertificate,       // a block that is no X.509 certificate
  kNoKey,                // no private key in the text
  kSeveralKeys,          // more than one
  kBadKey,               // a private key that cannot be read
  kEncryptedKey,         // it needs a pass phrase
  kUnsupportedKey,       // its type, curve or size
  kKeyDoesNotMatch,      // the key is not the first certificate's
  kTooManyCertificates,  // more than kChainMax
  kBadOcsp               // no successful OCSP response for this certificate
};

struct TlsLoadError {
  TlsLoadCause cause = TlsLoadCause::kNoCertificate;
  bool in_key = false;   // it is about the text of the key, if that is another one
  uint32_t line = 0;     // of that text, from 1; 0: none in particular
  std::string detail{};  // more about it, or ""
  // "the key does not match the certificate", "not PEM at line 3: ...".
  [[nodiscard]] std::string text() const;
};

struct TlsCertificateText {
  std::string_view cert_pem;
  std::string_view key_pem{};  // empty: the key is in `cert_pem`
  std::string_view ocsp{};     // DER; empty: none
};

// Reads a chain and its key. A certificate that has expired is loaded like any other: whoever loads
// it warns (see not_after_s). Never keeps a view of `text`.
[[nodiscard]] tl::expected<TlsCertificate, TlsLoadError> load_certificate(
    const TlsCertificateText& text);

}  // namespace ringway
