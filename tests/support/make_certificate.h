// tests/support/make_certificate.h - certificates, CRLs and OCSP responses made while a test runs.
//
// No file of the repository expires or holds a key. EC keys are made afresh (some 30 us); RSA keys
// take 100 ms, so there are two of each size for the whole program: `rsa_number` says which.
#pragma once

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace ringway::test {

enum class KeyKind : uint8_t { kEcdsaP256, kEcdsaP384, kEcdsaP521, kRsa2048, kRsa1024, kEd25519 };

struct MadeCertificate {
  bssl::UniquePtr<X509> x509;
  bssl::UniquePtr<EVP_PKEY> key;
  std::string cert_pem;  // this certificate alone
  std::string key_pem;   // PKCS#8, "PRIVATE KEY"
  // "EC PRIVATE KEY" or "RSA PRIVATE KEY"; "" for Ed25519.
  [[nodiscard]] std::string traditional_key_pem() const;
  [[nodiscard]] std::string encrypted_key_pem() const;  // PKCS#8, pass phrase "secret"
  [[nodiscard]] std::string cert_der() const;
  [[nodiscard]] std::string key_der() const;  // PKCS#8
};

struct CertificateSpec {
  std::string common_name = "test";
  std::vector<std::string> names{};  // subjectAltName: DNS names and IP addresses; empty: none
  KeyKind key = KeyKind::kEcdsaP256;
  int rsa_number = 0;                       // 0 or 1
  const EVP_PKEY* with_key = nullptr;       // this key instead of a new one
  const MadeCertificate* issuer = nullptr;  // null: signed by itself
  bool ca = false;
  bool client = false;               // extendedKeyUsage: clientAuth instead of serverAuth
  uint32_t serial = 0;               // 0: the next number of this program
  int64_t not_before_s = -3600;      // from now
  int64_t not_after_s = 30 * 86400;  // from now
};

[[nodiscard]] MadeCertificate make_certificate(const CertificateSpec& spec);

// PEM. `next_update_s`: from now; negative for a list that is out of date.
[[nodiscard]] std::string make_crl(const MadeCertificate& issuer,
                                   std::span<const MadeCertificate* const> revoked,
                                   int64_t next_update_s = 86400);

enum class OcspStatus : uint8_t { kGood, kRevoked, kTryLater };

// DER: a basic response about `certificate`. Its signature is not a valid one.
[[nodiscard]] std::string make_ocsp(const MadeCertificate& certificate,
                                    OcspStatus status = OcspStatus::kGood,
                                    int64_t next_update_s = 86400);

}  // namespace ringway::test
