// tests/pool/pool_model.h - what ServerPool must do, said again in plain maps and sets.
//
// Affinity:  one thread. Ownership: values.
// Why:       shares no code with pool/; everything countable is counted again from the connections.
//            Each function is told what the pool did, fails the process if that was wrong, and
//            changes the model alike.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "pool/server_pool.h"

namespace ringway::model {

// Ends the process with a message if `condition` does not hold.
void demand(bool condition, const char* what, int64_t who = -1);

struct Key {
  std::string bytes;  // "fixed": the server's own
  bool single_use = false;
};

// Whose a private connection is: found by its server, or by the whole upstream.
enum class Target : uint8_t { kServer, kUpstream };

// Connections that were closed by one call, and why.
using Closures = std::vector<std::pair<int, CloseReason>>;

struct Conn {
  int pool = 0;
  std::string key;
  bool grouped = false;  // its key had room
  Place place = Place::kConnecting;
  uint32_t streams = 0;
  uint32_t capacity = 0;
  uint64_t requests = 0;
  uint64_t finished = 0;
  uint64_t requests_max = 0;
  int64_t created_ms = 0;
  int64_t idle_since_ms = 0;
  int64_t hint_ms = 0;
  int64_t age_ms = 0;   // 0: none
  uint64_t parked = 0;  // a rising number: when
  bool own = false;
  bool close_after = false;
  int session = -1;  // -1: in no entry
  Target target = Target::kServer;

  [[nodiscard]] bool shared_idle() const { return is_idle(place); }
  [[nodiscard]] bool live() const { return place != Place::kClosing; }
};

struct Entry {
  Target target;
  int pool;
  bool operator==(const Entry&) const = default;
};

struct Session {
  int shard = 0;
  SessionLimits limits;
  std::vector<Entry> entries;  // oldest first
};

struct Pool {
  int shard = 0;
  PoolLimits limits;
  bool retired = false;
  CloseReason retired_reason = CloseReason::kReplaced;
  bool idle_limited = false;  // the process's idle limit is on
  uint32_t need = 0;
  uint32_t peak = 0;
  int64_t last_age_ms = 0;
  int64_t last_at_ms = 0;
  int64_t learned_ms = 0;
  int64_t learned_at_ms = 0;
};

struct Shard {
  size_t groups_max = 0;
  size_t groups_held = 0;  // taken away by the test
  size_t entries_max = 0;
  size_t entries_held = 0;
};

class Model {
 public:
  std::map<int, Conn> conns;
  std::map<int, Pool> pools;
  std::map<int, Session> sessions;
  std::map<int, Shard> shards;
  int64_t now_ms = 0;

  // Facts, by counting.
  [[nodiscard]] std::vector<int> idle(int pool) const;  // oldest first
  [[nodiscard]] uint32_t count(int pool, Place place) const;
  [[nodiscard]] uint32_t used(int pool) const;
  [[nodiscard]] size_t groups(int pool) const;
  [[nodiscard]] size_t shard_groups(int shard) const;
  [[nodiscard]] size_t shard_entries(int shard) const;
  // Which connections a request may get; one of them it must get. Newest last.
  [[nodiscard]] std::vector<int> eligible(int pool, const Key& key, const PickRules& rules) const;
  [[nodiscard]] std::set<int> eligible_private(int session, Target target, int pool,
                                               const Key& key) const;
  [[nodiscard]] std::set<int> eligible_held(int session, int pool, const Key& key) const;
  // How long an idle one may stay, between two bounds.
  void check_life(int conn, int64_t life_ms) const;

  void pick(int pool, const Key& key, const PickRules& rules, int got,
            const ServerPool::Picked& said);
  void pick_private(int session, Target target, int pool, const Key& key, int got);
  void pick_held(int session, int pool, const Key& key, int got);
  void hold(int conn, int session);
  void begin(int conn, int pool, const Key& key, const Closures& closed);
  void connected(int conn, uint32_t capacity);
  void connected_idle(int conn, ServerPool::Verdict verdict, const Closures& closed);
  void make_private(int conn, int session, Target target, bool kept, const Closures& closed);
  void finish(int conn, const FinishNotes& notes, ServerPool::Verdict verdict,
              const Closures& closed);
  void on_capacity(int conn, uint32_t free, const Closures& closed);
  void drain(int conn, const Closures& closed);
  void close(int conn, CloseReason reason, const Closures& closed);
  void closed(int conn) { conns.erase(conn); }
  void learn(int conn);
  void suspect(int conn, size_t count, const Closures& closed);
  void purge(int pool, size_t count, const Closures& closed);
  void close_idle(int pool, CloseReason reason, const Closures& closed);
  void retire(int pool, CloseReason reason, const Closures& closed);
  void update(int pool, const PoolLimits& limits, const Closures& closed);
  void begin_transit(int pool, const Key& key, int got);
  void end_transit(int conn, const ConnPast& past, const Closures& closed);
  void close_session(int session, const Closures& closed);

 private:
  [[nodiscard]] std::vector<int> private_idle(int pool) const;
  void now_closing(int conn);
  // `closed` are those of `expected`, in any order.
  void settle(const Closures& expected, const Closures& closed);
  void use(Conn& conn);
  void file(Conn& conn);  // busy or available, by its capacity
  bool room_for_group(int pool, const Key& key, Closures& expected);
  bool room_for_entry(int session, Target target, int pool, Closures& expected);
  void leave_entry(Conn& conn);
  void let_go(Conn& conn);  // if a session holds it
  [[nodiscard]] std::set<CloseReason> causes(const Conn& conn, const FinishNotes& notes,
                                             bool& certain) const;
  void park(int conn, ServerPool::Verdict verdict, const Closures& closed);
  void peak(int pool);

  uint64_t parked_ = 0;
};

}  // namespace ringway::model
