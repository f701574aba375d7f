// core/tls_client.h - TLS towards servers under one profile, on one shard.
//
// Affinity:  as TlsServerContext. Ownership: the caller's; must outlive the handshakes begun with
//            it: see handshakes().
// Source:    RFC 8446, RFC 5246; RFC 9525 for names.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/tls_certificate.h"
#include "core/tls_facts.h"
#include "core/tls_policy.h"

struct ssl_ctx_st;
struct ssl_st;

namespace ringway {

class Stream;
class TlsSession;
class TlsShard;
class TlsTrust;

struct TlsClientOptions {
  TlsPolicy policy;
  // Off: any certificate will do. TlsSession::verdict() says kNone then.
  bool verify = true;
  std::shared_ptr<const TlsTrust> trust;              // REQUIRED with verify; of this shard
  std::vector<std::string> alpn;                      // offered, best first
  std::shared_ptr<const TlsCertificate> certificate;  // shown when the server asks; or null
  bool fin_ends = false;  // a FIN without close_notify is an end like any other
};

// Of one connection. Copied.
struct TlsClientParams {
  // Sent as SNI, unless it is an IP address. Empty: none.
  std::string_view server_name;
  // What the certificate must be for: a host name or an IP address. Empty: server_name. If that is
  // empty too, the certificate's names are not looked at.
  std::string_view verify_name{};
  // To be resumed; null or empty: none. REQUIRES: a ticket of this context's or an equal one's
  // connection to the same server, since the certificate is verified again but by the new rules.
  const TlsTicket* ticket = nullptr;
  // Goes out in clear before the ClientHello, in one send with it: a PROXY header. At most
  // kPrefaceBytes.
  std::string_view preface{};
  // Only "http/1.1" is offered by ALPN, whatever the context's connections offer.
  bool only_http1 = false;
  static constexpr size_t kPrefaceBytes = 4096;
};

struct TlsClientResult;

class TlsClientContext {
 public:
  [[nodiscard]] static TlsClientResult make(TlsShard& shard, const TlsClientOptions& options);
  ~TlsClientContext();
  TlsClientContext(const TlsClientContext&) = delete;
  TlsClientContext& operator=(const TlsClientContext&) = delete;

  // For handshakes that end from now on, resumed ones included. REQUIRES: verify.
  void set_trust(std::shared_ptr<const TlsTrust> trust);

  // Handshakes under way.
  [[nodiscard]] size_t handshakes() const { return handshakes_; }

 private:
  friend class Stream;
  friend class TlsSession;
  struct Callbacks;

  explicit TlsClientContext(TlsShard& shard);

  // Null: no room.
  [[nodiscard]] TlsSession* start(TlsShard& shard, Stream& stream, const TlsClientParams& params);
  void session_done();
  [[nodiscard]] std::string configure();

  TlsShard* shard_;
  TlsClientOptions options_;
  ssl_ctx_st* context_ = nullptr;
  size_t handshakes_ = 0;
};

struct TlsClientResult {
  std::unique_ptr<TlsClientContext> context;  // null: see error
  std::string error;
};

}  // namespace ringway
