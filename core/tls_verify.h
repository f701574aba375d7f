// core/tls_verify.h - verification of a peer's certificate chain, each refusal with its reason.
//
// Affinity:  a TlsTrust may be made by any thread, and is used by one at a time: one for each
// shard,
//            since X509_STORE locks and counts references. Ownership: see below.
// Why:       BoringSSL's own verification gives an alert, but no reason that an operator can use.
// Source:    RFC 5280 (paths), RFC 9525 (names).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "core/tls_facts.h"

struct crypto_buffer_st;
struct ssl_st;
struct ssl_ctx_st;
struct x509_store_st;

namespace ringway {

class TlsTrust;

struct TlsTrustResult {
  std::unique_ptr<TlsTrust> trust;  // null: see error
  std::string error;
};

// Certificate authorities, and what they have revoked.
class TlsTrust {
 public:
  // `ca_pem`: one or more CERTIFICATE blocks; others are skipped. `crl_pem`: X509 CRL blocks, or
  // empty: nothing is looked up. With one list, every issuer of a chain must have a list.
  [[nodiscard]] static TlsTrustResult make(std::string_view ca_pem, std::string_view crl_pem);
  ~TlsTrust();
  TlsTrust(const TlsTrust&) = delete;
  TlsTrust& operator=(const TlsTrust&) = delete;

  // Names these authorities to clients that are asked for a certificate (RFC 8446 4.2.4).
  void announce(ssl_ctx_st* context) const;

 private:
  friend struct TlsVerifier;
  TlsTrust() = default;

  x509_store_st* store_ = nullptr;
  bool with_crl_ = false;
};

// The system's authorities as PEM: the file that SSL_CERT_FILE names in the environment, as OpenSSL
// has it, else the usual bundle. Reads a file: not on a shard. Empty if there is none.
[[nodiscard]] std::string read_system_trust();

// "127.0.0.1", "::1": no name of a host.
[[nodiscard]] bool is_ip_address(const std::string& name);

enum class TlsPeerRole : uint8_t { kServer, kClient };

// Verifies the chain that the peer of `ssl` presented, at the shard's wall clock.
// `name`: a host name or an IP address that the certificate must be for; empty: any.
[[nodiscard]] TlsVerdict verify_chain(const ssl_st* ssl, const TlsTrust& trust, TlsPeerRole role,
                                      const std::string& name);
// The alert that tells the peer about it.
[[nodiscard]] uint8_t alert_of(TlsVerdict verdict);
// Fills `out`; false for what is no certificate.
[[nodiscard]] bool describe_certificate(const crypto_buffer_st* certificate, TlsPeer& out);

}  // namespace ringway
