// tests/pool/pool_world.h - logical shards in one thread, each with a pool for every server, their
// sessions and requests, driven by operations that the model repeats.
//
// Affinity:  one thread. Ownership: of everything in it.
// Why:       connections are made and closed late and in any order, as completions come; every
//            operation is followed by ServerPool::check() and a comparison with the model.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "tests/pool/pool_model.h"

namespace ringway {

class PoolWorld;

// One step; the numbers are drawn and mean whatever the world has left to choose from, so that any
// list of operations is valid: a failing one shrinks by leaving some out.
struct PoolOp {
  uint8_t kind = 0;
  uint32_t a = 0;
  uint32_t b = 0;
  uint32_t c = 0;
};

class WorldConn final : public PooledConn {
 public:
  WorldConn(PoolWorld& world, ServerPool& pool, int id) : PooledConn(pool), id(id), world_(world) {}
  void on_pool_close(CloseReason reason) override;
  int id;
  int64_t expires_ms = 0;  // while idle; 0: never
  bool ahead = false;      // opened for nobody

 private:
  PoolWorld& world_;
};

class PoolWorld {
 public:
  explicit PoolWorld(uint64_t seed);
  ~PoolWorld();
  PoolWorld(const PoolWorld&) = delete;
  PoolWorld& operator=(const PoolWorld&) = delete;

  // Draws the next operation; not for what it will find.
  [[nodiscard]] static PoolOp draw(Prng& prng);
  [[nodiscard]] static const char* name_of(const PoolOp& op);
  void run(const PoolOp& op);
  // What has happened so far, added to `sum`: nothing is tested that never happens.
  struct Tally {
    std::array<uint64_t, kHows> handed{};
    std::array<uint64_t, kMisses> missed{};
    std::array<uint64_t, kCloseReasons> closed{};
    uint64_t reserved = 0;
    uint64_t learned = 0;
    uint64_t held = 0;
    uint64_t joined_own = 0;
  };
  void tally(Tally& sum) const;
  // Traffic stops: what is idle goes within its bounds, and then everything.
  void wind_down();

 private:
  friend class WorldConn;

  static constexpr int kShards = 3;
  static constexpr int kServers = 2;

  // One server's idle limit in one shard's hands; messages are delivered when the test says so.
  struct Peers final : BudgetPeers {
    void ask_return(Budget&, uint32_t shard) override { messages.push_back({shard, true}); }
    void notify(Budget&, uint32_t shard) override { messages.push_back({shard, false}); }
    std::deque<std::pair<uint32_t, bool>> messages;
  };
  struct Server {
    Peers peers;
    std::unique_ptr<Budget> idle;
    std::vector<std::unique_ptr<BudgetShare>> shares;  // by shard
  };
  struct Shard {
    Shard(size_t groups_max, size_t entries_max, uint64_t seed)
        : groups(groups_max), entries(entries_max), prng(seed) {}
    Slab<KeyGroup> groups;
    Slab<SessionEntry> entries;
    Prng prng;
    ConnKeyBuffer key_buffer;
    std::unique_ptr<PoolMemory> memory;
    std::vector<KeyGroup*> held_groups;
    std::vector<SessionEntry*> held_entries;
  };
  struct Slot {
    PoolStats stats;
    std::unique_ptr<ServerPool> pool;
  };
  struct Session {
    int id;
    int shard;
    std::unique_ptr<SessionStore> store;
    int requests = 0;
  };
  // A request with a connection, or one that waits for it to be made.
  struct Exchange {
    int conn;
    int session;
    bool connecting;
  };

  // The operations.
  void accept(const PoolOp& op);
  void end_session(const PoolOp& op);
  void request(const PoolOp& op);
  void connect(const PoolOp& op);
  void respond(const PoolOp& op);
  void abort(const PoolOp& op);
  void stale(const PoolOp& op);
  void idle_event(const PoolOp& op);
  void capacity(const PoolOp& op);
  void goaway(const PoolOp& op);
  void reap(const PoolOp& op);
  void advance(const PoolOp& op);
  void purge(const PoolOp& op);
  void service(const PoolOp& op);
  void change_limits(const PoolOp& op);
  void transit(const PoolOp& op);
  void open_ahead(const PoolOp& op);
  void hold(const PoolOp& op);
  void idle_limit(const PoolOp& op);
  struct Kind {
    const char* name;
    void (PoolWorld::*run)(const PoolOp&);
    uint32_t weight;
  };
  static std::span<const Kind> kinds();

  void make_pool(int pool);
  void begin(int pool, int session, uint32_t key, bool ahead);
  void taken(WorldConn& conn, int session, uint32_t bits);
  void reserve(WorldConn& conn, int session, model::Target target);
  void finish(size_t exchange, const FinishNotes& notes);
  void discard(WorldConn& conn, CloseReason reason);
  void parked(WorldConn& conn, ServerPool::Verdict verdict);
  void reap_one(int id);
  void drop_exchanges(int conn);
  void expire();
  void compare();
  void compare_pool(int pool);
  model::Closures take_closures();
  [[nodiscard]] FinishNotes draw_notes(uint32_t bits) const;
  [[nodiscard]] PoolLimits draw_limits(uint32_t bits) const;
  [[nodiscard]] TargetRef target_of(model::Target target, int pool) const;
  [[nodiscard]] std::vector<int> conns_at(uint32_t places) const;
  ServerPool& pool(int index) { return *slots_[static_cast<size_t>(index)].pool; }
  ServerPool& pool_of(const WorldConn& conn) { return conn.pool(); }
  Session* session(int id);

  model::Model model_;
  int64_t now_ms_ = 1'000'000;
  int next_conn_ = 0;
  int next_session_ = 0;
  uint64_t learned_ = 0;
  uint64_t held_ = 0;        // requests that joined others of their session
  uint64_t joined_own_ = 0;  // the same on a private connection
  std::vector<std::unique_ptr<Server>> servers_;
  std::vector<std::unique_ptr<Shard>> shards_;
  std::vector<Slot> slots_;  // shard * kServers + server
  std::map<int, std::unique_ptr<WorldConn>> conns_;
  std::vector<Session> sessions_;
  std::vector<Exchange> exchanges_;
  model::Closures closures_;
};

}  // namespace ringway
