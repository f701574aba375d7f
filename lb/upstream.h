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
#include "pool/budget.h"
#include "pool/server_slot.h"
#include "pool/wait_queue.h"

namespace ringway {

class ShardTls;

// What an upstream needs of its shard.
struct UpstreamContext {
  PoolContext& pool;
  uint32_t shard = 0;
  uint32_t shards = 1;
  BudgetPeers& peers;
  BorrowPost* post = nullptr;  // null if there is one shard only
  const ShardTls& tls;
  uint32_t restless = 0;  // upstreams of the shard that want serve_queue() after the turn
};

// One server of an upstream on one shard.
struct ShardServer {
  ShardServer(std::shared_ptr<ServerObject> from, const UpstreamContext& context,
              const SlotSpec& spec, SlotEvents& events)
      : object(std::move(from)),
        requests(object->budgets.requests, context.shard, context.peers,
                 refills(context.shard, Limit::kRequests)),
        connections(object->budgets.connections, context.shard, context.peers,
                    refills(context.shard, Limit::kConnections)),
        idle(object->budgets.idle, context.shard, context.peers,
             refills(context.shard, Limit::kIdle)),
        slot(context.pool, spec, object->shard.at(context.shard),
             {.connections = &connections, .idle = &idle}, &events,
             {.server = object.get(),
              .hints = &object->hints,
              .post = context.post,
              .shard = context.shard,
              .shards = context.shards}) {}

  std::shared_ptr<ServerObject> object;
  BudgetShare requests;
  BudgetShare connections;
  BudgetShare idle;
  ServerSlot slot;
  uint32_t index = 0;             // in ShardUpstream::servers
  uint32_t in_flight = 0;         // requests and sessions that chose it
  uint32_t pins = 0;              // exchanges that will still log its name
  bool wants_request = false;     // somebody waits for a unit of `requests`
  bool wants_connection = false;  // the same of `connections`
  int64_t asked_request_us = 0;   // since when; 0: nothing was asked for
  int64_t asked_connection_us = 0;
  bool retired = false;  // no longer configured

  [[nodiscard]] ServerStats& stats() { return slot.stats(); }
  [[nodiscard]] bool empty() const { return in_flight == 0 && pins == 0 && slot.empty(); }

 private:
  [[nodiscard]] Counter* refills(uint32_t shard, Limit limit) const {
    return &object->shard.at(shard).refills[static_cast<size_t>(limit)];
  }
};

// What shards say to each other about a server. What it is about is an identity, looked up before
// use; a Borrow is the receiver's.
struct ShardMail {
  enum class Kind : uint32_t { kAskReturn, kNotify, kBorrow, kLent };
  Kind kind = Kind::kAskReturn;
  void* object = nullptr;  // Budget or Borrow
};

class ShardUpstream final : public SlotEvents, public WaitQueueOwner {
 public:
  ShardUpstream(UpstreamContext& context, uint64_t seed);
  ~ShardUpstream();

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

  // Chooses a server whose index is not in `tried` and counts the request on it. Nobody: `server`
  // is nullptr, and `full` tells that one was usable but has as much as it may.
  struct Picked {
    ShardServer* server = nullptr;
    bool full = false;
  };
  [[nodiscard]] Picked pick(uint64_t hash, std::span<const uint32_t> tried);
  // The same for the one server whose connections are in `pool`.
  [[nodiscard]] Picked pick_bound(const ServerPool& pool);
  // The request or session that picked `server` is over.
  void release(ShardServer& server);

  // Waits for room on any server, behind those that wait already. False: too many do.
  [[nodiscard]] bool enqueue(Waiter& waiter);
  // It had its turn and found no room: it goes on waiting, in front.
  void wait_on(Waiter& waiter) { waiting_->push_front(waiter); }
  void leave_queue(Waiter& waiter) { waiting_->remove(waiter); }
  [[nodiscard]] bool anyone_waits() const { return !waiting_->empty(); }
  // Room appeared since the last call: lets those who wait try, in their order.
  void serve_queue();
  // A connection's place, or a request's, became free.
  void on_room() override { room_ = true; }
  void on_queue_empty() override {}  // serve_queue() sees it.
  // Checks the invariants of its pools. For the simulator.
  void check() const;
  // True if the budget is one of its servers', which are told.
  bool take_mail(const ShardMail& mail);
  // The slot of the server that all shards know as `object`, or nullptr.
  [[nodiscard]] ServerSlot* find_slot(const void* object);

  [[nodiscard]] const config::Upstream& config() const { return *config_; }
  [[nodiscard]] UpstreamStats& stats() { return object_->shard.at(context_.shard); }
  [[nodiscard]] const std::string& name() const { return object_->name; }
  [[nodiscard]] std::span<const std::unique_ptr<ShardServer>> servers() const { return servers_; }
  // Changes with apply(): indices of servers from before mean nothing afterwards.
  [[nodiscard]] uint32_t epoch() const { return epoch_; }
  // Requests and sessions that refer to this upstream; see sweep().
  uint32_t users = 0;

 private:
  [[nodiscard]] SlotSpec spec_of(const config::Server& server, const ServerObject& object,
                                 uint32_t index) const;
  void rebuild();
  static void serve_or_not(ShardServer& server, const ServerSettings& settings);
  void set_restless();
  void settle();
  void note_asked(bool asked, int64_t& since_us) const;
  bool take_mail(ShardServer& server, const ShardMail& mail);
  ShardServer& count(uint32_t index);

  UpstreamContext& context_;
  uint64_t seed_;
  std::unique_ptr<WaitQueue> waiting_;        // made with the first configuration
  bool room_ = false;                         // something became free since serve_queue()
  bool restless_ = false;                     // counted in UpstreamContext::restless
  std::shared_ptr<const Snapshot> snapshot_;  // keeps config_ alive
  const config::Upstream* config_ = nullptr;
  std::shared_ptr<UpstreamObject> object_;
  std::unique_ptr<Balancer> balancer_;
  std::vector<std::unique_ptr<ShardServer>> servers_;  // as configured
  std::vector<std::unique_ptr<ShardServer>> leaving_;  // retired, not empty yet
  std::vector<Candidate> candidates_;
  std::vector<std::string> names_;
  std::vector<uint32_t> passed_over_;  // scratch of pick(): tried, and full
  uint32_t epoch_ = 0;
  uint32_t index_ = 0;  // in the snapshot
  bool retired_ = false;
};

}  // namespace ringway
