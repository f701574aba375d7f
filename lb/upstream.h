// lb/upstream.h - an upstream on one shard: its balancer and one pool slot per server.
//
// Affinity:  one shard. Ownership: owned by the Worker; lives on as "retired" until the last
// request
//            and the last connection are gone.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lb/balance/balancer.h"
#include "lb/pool_report.h"
#include "lb/snapshot.h"
#include "pool/server_slot.h"

namespace ringway {

// One server of an upstream on one shard.
struct ShardServer {
  ShardServer(std::shared_ptr<ServerObject> from, PoolContext& context, const SlotSpec& spec,
              uint32_t shard)
      : object(std::move(from)), slot(context, spec, object->shard.at(shard)) {}

  std::shared_ptr<ServerObject> object;
  ServerSlot slot;
  uint32_t index = 0;      // in ShardUpstream::servers
  uint32_t in_flight = 0;  // requests and sessions that chose it
  uint32_t pins = 0;       // exchanges that will still log its name
  bool retired = false;    // no longer configured

  [[nodiscard]] ServerStats& stats() { return slot.stats(); }
  [[nodiscard]] bool empty() const { return in_flight == 0 && pins == 0 && slot.empty(); }
};

class ShardUpstream {
 public:
  ShardUpstream(PoolContext& context, uint32_t shard, uint32_t shards, uint64_t seed);

  // Takes over upstream number `index` of `snapshot`. Servers that are unchanged keep their
  // connections; the others are retired.
  void apply(std::shared_ptr<const Snapshot> snapshot, uint32_t index);
  // Reads the health verdicts and the administrator's settings again. Idle connections to servers
  // that went down or may take no new work are closed; after it, pick() returns none of those.
  void refresh_health();
  // Where its connections are: one report per server, retired ones included.
  void report(std::vector<PoolReport>& reports) const;
  // No longer configured.
  void retire();
  // Frees retired servers that are empty. True once the upstream itself is retired and empty.
  bool sweep();
  // No retired server is left.
  [[nodiscard]] bool settled() const { return leaving_.empty(); }

  // Chooses a server whose index is not in `tried` and counts the request on it, or returns
  // nullptr.
  [[nodiscard]] ShardServer* pick(uint64_t hash, std::span<const uint32_t> tried);
  // The request or session that picked `server` is over.
  void release(ShardServer& server);

  [[nodiscard]] const config::Upstream& config() const { return *config_; }
  [[nodiscard]] UpstreamStats& stats() { return object_->shard.at(shard_); }
  [[nodiscard]] const std::string& name() const { return object_->name; }
  [[nodiscard]] std::span<const std::unique_ptr<ShardServer>> servers() const { return servers_; }
  // Changes with apply(): indices of servers from before mean nothing afterwards.
  [[nodiscard]] uint32_t epoch() const { return epoch_; }
  // Requests and sessions that refer to this upstream; see sweep().
  uint32_t users = 0;

 private:
  [[nodiscard]] SlotSpec spec_of(const config::Server& server, const ServerObject& object) const;
  void rebuild();

  PoolContext& context_;
  uint32_t shard_;
  uint32_t shards_;
  uint64_t seed_;
  std::shared_ptr<const Snapshot> snapshot_;  // keeps config_ alive
  const config::Upstream* config_ = nullptr;
  std::shared_ptr<UpstreamObject> object_;
  std::unique_ptr<Balancer> balancer_;
  std::vector<std::unique_ptr<ShardServer>> servers_;  // as configured
  std::vector<std::unique_ptr<ShardServer>> leaving_;  // retired, not empty yet
  std::vector<Candidate> candidates_;
  std::vector<std::string> names_;
  uint32_t epoch_ = 0;
  bool retired_ = false;
};

}  // namespace ringway
