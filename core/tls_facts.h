// core/tls_facts.h - what TLS tells the layers above: causes, verdicts, tickets, constants.
//
// Affinity:  values. Why: a header without BoringSSL's, for everybody who uses a Stream.
#pragma once

#include <errno.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

struct ssl_session_st;

namespace ringway {

// The errors of a stream with TLS beside those of the kernel. Its failure() says more.
constexpr int kTlsTruncated = ECONNABORTED;  // FIN without close_notify: bytes may be missing
constexpr int kTlsFailed = EPROTO;           // alert, bad record, refused certificate, ...

// Why TLS ended a stream.
enum class TlsCause : uint8_t {
  kNone,
  kAlert,                // the peer sent a fatal alert; `detail` is its number
  kVerify,               // the peer's certificate was refused; `detail` is the TlsVerdict
  kNoClientCertificate,  // one is required and the client sent none
  kUnrecognizedName,     // strict SNI, and nobody answers for the name
  kNoCertificate,        // no certificate that the client can use
  kNoSharedCipher,       // neither cipher, group nor signature algorithm in common
  kUnsupportedVersion,   // no protocol version in common
  kNoProtocol,           // ALPN: nothing in common
  kNotTls,               // the first bytes are no TLS record
  kRenegotiation,        // the peer wanted it
  kBadRecord,            // a record that cannot be decrypted
  kClosedInHandshake,    // FIN or reset before the handshake was done
  kTruncated,            // FIN without close_notify
  kNoMemory,             // no room for what waits
  kProtocol,             // anything else against the protocol
  kCount,
};

// What became of the peer's certificate.
enum class TlsVerdict : uint8_t {
  kNone,  // there is none, or nobody looked at it
  kOk,
  kExpired,
  kNotYetValid,
  kWrongName,
  kSelfSigned,
  kUnknownCa,
  kRevoked,
  kNoCrl,  // a list of revoked certificates is wanted, and the issuer's is not there
  kCrlExpired,
  kWrongPurpose,
  kBadSignature,
  kBadChain,  // malformed, or a chain that is not allowed
  kCount,
};

struct TlsFailure {
  TlsCause cause = TlsCause::kNone;
  uint8_t detail = 0;

  // Stable names for logs and metrics: "tls_not_tls", "tls_verify:expired", "tls_alert:unknown_ca".
  // Empty for kNone. Static text.
  [[nodiscard]] std::string_view text() const;
};

// "expired", "unknown_ca", ...; "none", "ok". Static text.
[[nodiscard]] std::string_view name_of(TlsVerdict verdict);
// The part of TlsFailure::text() without alert or verdict: "tls_alert".
[[nodiscard]] std::string_view name_of(TlsCause cause);

// A session that a later connection to the same server may resume. Move-only; may outlive the
// connection, not the process.
class TlsTicket {
 public:
  TlsTicket() = default;
  explicit TlsTicket(ssl_session_st* session) : session_(session) {}
  ~TlsTicket();
  TlsTicket(TlsTicket&& other) noexcept : session_(std::exchange(other.session_, nullptr)) {}
  TlsTicket& operator=(TlsTicket&& other) noexcept {
    std::swap(session_, other.session_);
    return *this;
  }

  [[nodiscard]] bool empty() const { return session_ == nullptr; }
  // TLS 1.3: to be offered once only, so that connections cannot be linked (RFC 8446 C.4).
  [[nodiscard]] bool single_use() const;
  [[nodiscard]] ssl_session_st* get() const { return session_; }

 private:
  ssl_session_st* session_ = nullptr;
};

// A peer's certificate, for logs and header fields.
struct TlsPeer {
  std::string subject;      // RFC 2253
  std::string common_name;  // the subject's last one, UTF-8; empty: it has none
  std::string issuer;
  std::string serial;       // hexadecimal, upper case
  std::string fingerprint;  // SHA-256 of the certificate, hexadecimal, lower case
};

}  // namespace ringway
