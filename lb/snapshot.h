// lb/snapshot.h - one loaded configuration, ready to run, and the named objects that outlive it.
//
// Affinity:  built on the control thread, immutable afterwards; shards read it. Counters inside the
//            named objects are written by the shard they belong to, health by the control thread.
// Ownership: the control thread keeps every Snapshot until no shard uses it. Named objects are
// shared
//            by the snapshots that name them, so counters and verdicts survive a reload.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/counters.h"
#include "core/histogram.h"
#include "lb/config/config.h"
#include "lb/health/health.h"
#include "lb/proxy_gate.h"
#include "lb/router.h"
#include "lb/server_controls.h"
#include "pool/borrow.h"
#include "pool/budget.h"
#include "pool/server_slot.h"
#include "proto/http2_session.h"

namespace ringway {

// Why a TCP client was closed over its TLS hello.
enum class PrereadError : uint8_t { kMalformed, kTooLong, kTruncated, kTimeout };
// As metrics name them.
inline constexpr std::array<std::string_view, 4> kPrereadErrorNames{"malformed", "too_long",
                                                                    "truncated", "timeout"};

// Per listener and shard.
struct ListenerStats {
  Counter accepted;
  Counter active;          // gauge: client connections
  Counter refused_limit;   // closed at once: max_connections
  Counter refused_memory;  // closed at once: a slab or the chunk pool was exhausted
  Counter handed_over;     // accepted here, served by another shard
  Counter requests;
  Counter active_requests;                            // gauge
  Counter responses[6];                               // by class; [0]: the client left before one
  Counter rejected_heads;                             // 400 and the like, before routing
  Counter timeouts;                                   // client-side: head, body, idle
  Counter proxy_errors[kProxyErrorNames.size()];      // closed over a PROXY header, by ProxyError
  Counter preread_errors[kPrereadErrorNames.size()];  // over a TLS hello, by PrereadError
  Counter client_aborts;
  Counter bytes_received;
  Counter bytes_sent;
  Counter http2_connections;  // that spoke HTTP/2
  Counter http2_errors;       // ended since the client broke the protocol, floods included
  Counter http2_floods[h2::kFloodNames.size()];  // of those, by h2::Flood - 1
  Counter http2_ping_timeouts;                   // ended since a silent client answered no PING
  Counter http2_refused;                         // requests above max_streams
  Counter http2_stalls;                          // answers cut since the client took too little
  Counter tls_handshakes;                        // completed
  Counter tls_resumed;                           // of those
  Counter tls_failures;                          // handshakes that failed, or did not end in time
  Counter early_requests;                        // that came as early data
  LatencyHistogram duration;                     // of requests or L4 sessions
};

// Why an HTTP request was tried again, and what became of that try.
enum class RetryCause : uint8_t {
  kConnect,  // no connection to the server before
  kStale,    // a reused connection was dead
  kUnseen,   // the server had not looked at the request (HTTP/2)
  kNone      // it is the first try
};
inline constexpr std::array<std::string_view, 3> kRetryCauseNames{"connect", "stale", "unseen"};
enum class RetryOutcome : uint8_t {
  kAnswered,  // the server began to answer
  kFailed,
  kAbandoned  // the client left before either
};
inline constexpr std::array<std::string_view, 3> kRetryOutcomeNames{"answered", "failed",
                                                                    "abandoned"};

// Per upstream and shard.
struct UpstreamStats {
  Counter requests;
  Counter retried[kRetryCauseNames.size()][kRetryOutcomeNames.size()];
  Counter retries;              // attempts after the first:
  Counter retries_stale;        // of those, since a reused connection was dead,
  Counter retries_unseen;       // or since the server had not looked at the request (HTTP/2)
  Counter denied_method;        // met a dead reused connection: the method forbids to repeat them
  Counter denied_body;          // the same: their body was not kept
  Counter denied_attempts;      // no server could be reached, and no attempt was left
  Counter no_server;            // 503: none usable
  Counter bad_responses;        // 502: malformed or cut before its end
  Counter timeouts;             // 504
  Counter active;               // gauge: requests or sessions in flight
  Counter queued;               // gauge: wait since every server is full
  Counter queued_total;         // had to wait
  Counter queue_full;           // 503: no room to wait
  Counter queue_timeouts;       // 503: waited for too long
  LatencyHistogram queue_wait;  // of those that got a server
};

template <typename Stats>
struct PerShard {
  explicit PerShard(uint32_t shards) : stats(shards) {}
  // Each on cache lines of its own: one shard's writes must not slow another's.
  struct alignas(64) Cell {
    Stats stats;
  };
  std::vector<Cell> stats;
  Stats& at(uint32_t shard) { return stats[shard].stats; }
};

struct ListenerObject {
  explicit ListenerObject(uint32_t shards) : shard(shards) {}
  std::string name;
  PerShard<ListenerStats> shard;
};

// The limits of one server over all shards; each shard holds shares of them.
struct ServerBudgets {
  ServerBudgets(uint32_t shards, const config::Server& server, const config::Pool& pool)
      : requests(shards, limit(server.max_requests)),
        connections(shards, limit(pool.max_connections_per_server)),
        idle(shards, limit(pool.max_idle_per_server)) {}
  // "off" in the configuration's terms to "off" in the budget's.
  [[nodiscard]] static int64_t limit(uint64_t configured) {
    return configured == config::kUnlimited ? Budget::kOff : static_cast<int64_t>(configured);
  }
  Budget requests;     // in flight
  Budget connections;  // connecting to closed
  Budget idle;
};

struct ServerObject {
  ServerObject(uint32_t shards, bool up, const config::Server& server, const config::Pool& pool)
      : health(std::make_shared<ServerHealth>(up)), budgets(shards, server, pool), shard(shards) {}
  std::string name;
  std::string address_text;
  std::shared_ptr<ServerHealth> health;
  ServerBudgets budgets;
  BorrowHints hints;
  ServerControls controls;
  PerShard<ServerStats> shard;
};

struct UpstreamObject {
  explicit UpstreamObject(uint32_t shards) : shard(shards) {}
  std::string name;
  PerShard<UpstreamStats> shard;
};

struct TlsMaterials;

struct Snapshot {
  // Builds one from `config`, taking over the named objects of `previous` (or null) that are
  // unchanged: listeners and upstreams by name, servers by upstream, name and both addresses. An
  // administrator's override stays unless the configured value under it changed.
  [[nodiscard]] static std::shared_ptr<Snapshot> build(std::unique_ptr<const config::Config> config,
                                                       const Snapshot* previous, uint32_t shards);
  // Puts the limits of servers that were there before into force, when the snapshot is. Control.
  void set_limits(BudgetPeers& peers) const;

  explicit Snapshot(std::unique_ptr<const config::Config> from)
      : config(std::move(from)), router(*config) {}

  std::unique_ptr<const config::Config> config;
  Router router;
  // As the configuration was applied; newer certificates and keys follow by mail.
  std::shared_ptr<const TlsMaterials> tls;
  uint64_t number = 1;                                              // counts up with every reload
  std::vector<std::shared_ptr<ListenerObject>> listeners;           // as config->listeners
  std::vector<std::shared_ptr<UpstreamObject>> upstreams;           // as config->upstreams
  std::vector<std::vector<std::shared_ptr<ServerObject>>> servers;  // as their servers
};

}  // namespace ringway
