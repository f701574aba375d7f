// core/tls_server.h - the server side of TLS under one profile, on one shard.
//
// Affinity:  made by any thread before its shard uses it, then that shard's alone; what it shares
//            with other shards (names, ticket keys) is immutable.
// Ownership: the caller's. Must outlive the handshakes begun with it: see handshakes().
// Bounds:    keys and chains become BoringSSL objects when a certificate is first used, so 10,000
//            certificates cost a shard what it uses of them.
// Source:    RFC 8446, RFC 5246, RFC 6066 (SNI), RFC 7301 (ALPN).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/tls_facts.h"
#include "core/tls_names.h"
#include "core/tls_policy.h"
#include "core/tls_tickets.h"

struct ssl_st;
struct ssl_ctx_st;
struct ssl_early_callback_ctx;

namespace ringway {

class Stream;
class TlsEchKeys;
class TlsSession;
class TlsShard;
class TlsTrust;

enum class TlsClientAuth : uint8_t {
  kOff,
  // Asked for. Whatever the client sends is accepted, and TlsSession::verdict() says what it is.
  kOptional,
  // Without a good one the handshake fails.
  kRequired,
};

struct TlsServerOptions {
  TlsPolicy policy;
  // Protocols that may be chosen, best first. A client that offers only others is refused; one that
  // offers none speaks whatever the listener does by default. Empty: ALPN is ignored.
  std::vector<std::string> alpn;
  // Refuse clients that name nobody, or somebody unknown, instead of showing the default one.
  bool strict_sni = false;
  TlsClientAuth client_auth = TlsClientAuth::kOff;
  std::shared_ptr<const TlsTrust> client_trust;  // REQUIRED unless kOff; of this shard
  // Sessions resume only under equal contexts, for the name that they were made for, and where
  // `client_auth` is the same: a profile's name, equal on all shards and nodes.
  std::string session_context;
  uint32_t session_lifetime_s = 7200;
  uint8_t tickets = 2;  // per full TLS 1.3 handshake; 0: no resumption at all
  // Tickets allow early data (0-RTT, RFC 8446 2.3), up to BoringSSL's 14 KiB, and it is read:
  // see TlsSession::early(). Nothing stops a replay, but its age: BoringSSL takes none that comes
  // more than 60 s later or earlier than the ticket says. REQUIRES: tickets; client_auth is kOff.
  bool early_data = false;
  std::shared_ptr<const TlsEchKeys> ech;  // null: names are not decrypted
  bool fin_ends = false;                  // a FIN without close_notify is an end like any other
  bool ocsp = true;  // staple a certificate's OCSP response, until its next update
};

struct TlsServerResult;

class TlsServerContext {
 public:
  [[nodiscard]] static TlsServerResult make(TlsShard& shard, const TlsServerOptions& options,
                                            std::shared_ptr<const TlsNames> names,
                                            std::shared_ptr<const TlsTicketKeys> keys);
  ~TlsServerContext();
  TlsServerContext(const TlsServerContext&) = delete;
  TlsServerContext& operator=(const TlsServerContext&) = delete;

  // For handshakes that begin from now on; between turns.
  void set_names(std::shared_ptr<const TlsNames> names);
  void set_ticket_keys(std::shared_ptr<const TlsTicketKeys> keys);
  // REQUIRES: not null, and there were some.
  void set_ech(std::shared_ptr<const TlsEchKeys> keys);
  // Also for handshakes under way, and for sessions that are resumed. REQUIRES: client_auth is not
  // kOff.
  void set_client_trust(std::shared_ptr<const TlsTrust> trust);

  // Handshakes under way.
  [[nodiscard]] size_t handshakes() const { return handshakes_; }

 private:
  friend class Stream;
  friend class TlsSession;
  struct Callbacks;
  struct Material;  // a certificate as BoringSSL wants it

  explicit TlsServerContext(TlsShard& shard);

  // Null: no room.
  [[nodiscard]] TlsSession* start(TlsShard& shard, Stream& stream);
  void session_done();
  [[nodiscard]] bool reverify(TlsSession& session) const;
  [[nodiscard]] std::string configure();
  [[nodiscard]] bool bind_resumption(ssl_st* ssl, std::string_view name) const;
  [[nodiscard]] bool choose(const ssl_early_callback_ctx& hello, TlsSession& session);
  [[nodiscard]] const Material* material_of(const TlsCertificate& certificate);

  TlsShard* shard_;
  TlsServerOptions options_;
  std::shared_ptr<const TlsNames> names_;
  std::shared_ptr<const TlsTicketKeys> keys_;
  std::unordered_map<const TlsCertificate*, std::unique_ptr<Material>> materials_;
  ssl_ctx_st* context_ = nullptr;
  std::vector<uint16_t> suites_;  // of TLS 1.2, for ECDSA keys
  size_t handshakes_ = 0;
};

struct TlsServerResult {
  std::unique_ptr<TlsServerContext> context;  // null: see error
  std::string error;
};

}  // namespace ringway
