// pool/server_pool.h - the connections of one shard to one server: where each is, which may be
// shared, which to keep.
//
// Affinity:  one shard. Ownership: owned by the server's slot; refers to connections that others
// own
//            and free after closed().
// Bounds:    PoolLimits. pick() and finish() allocate nothing; begin() may make a key group.
// Why:       an idle tree and an available tree of key groups: connections with equal keys are one
//            node with LIFO lists, so a look-up compares keys, not connections, and a server whose
//            connections are all alike has one group and no look-up (docs/decisions.md).
//            No I/O and no clock: the caller passes the time.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "core/base/prng.h"
#include "core/base/slab.h"
#include "core/base/thread_mark.h"
#include "core/counters.h"
#include "core/histogram.h"
#include "pool/borrow.h"
#include "pool/budget.h"
#include "pool/pooled_conn.h"
#include "pool/session_store.h"

namespace ringway {

// What all pools of a shard share.
struct PoolMemory {
  Slab<KeyGroup>& groups;
  HashKey secret;  // random per process
  Prng& prng;      // jitter
  ConnKeyBuffer& key_buffer;
  const void* thread = this_thread_mark();  // the shard's; nobody else moves a connection
};

struct PoolLimits {
  ReuseMode mode = ReuseMode::kSafe;
  uint64_t requests_max = UINT64_MAX;  // per connection
  int64_t idle_ms = 25'000;            // 0: as long as the server keeps it
  int64_t age_ms = 0;                  // 0: any. Jittered by up to a tenth, downwards
  uint32_t idle_floor = 1;             // kept idle whatever the load, within idle_ms; and until
                                       // the next purge one of every key that requests bring
  uint32_t groups_max = 1024;          // different keys
  bool operator==(const PoolLimits&) const = default;
};

// Written by the shard, read by the metrics endpoint.
struct PoolStats {
  std::array<Counter, kPlaces> places;  // gauges; [kNew] is not used
  std::array<Counter, kHows> handed;
  std::array<Counter, kMisses> missed;
  std::array<Counter, kCloseReasons> closed;
  std::array<Counter, kCloseReasons> refused;     // not parked when given back; see kParkRefusals
  std::array<Counter, kPrivateReasons> reserved;  // connections that became private
  Counter parked;
  Counter unkept;                  // private ones that no session could keep
  Counter groups;                  // gauge: different keys
  Counter learned_ms;              // gauge: the idle life learned from the server, 0: none
  Counter need;                    // gauge: connections in use at once that the purge reckons with
  LatencyHistogram idle_at_reuse;  // how long connections had been idle: when used again,
  LatencyHistogram idle_at_close;  // or when the server ended them
};

// What matters of a request for choosing a connection.
struct PickRules {
  bool first = false;       // the first request of its client connection
  bool repeatable = false;  // idempotent and without a body, so that a stale pick costs nothing
  bool fresh = false;       // idle ones were found dead: make a new one
  // Its client's, if the client may have others in flight on the same connection; see hold().
  SessionStore* session = nullptr;
  // The connection is to be that session's own (make_private() follows): none that others use.
  bool own = false;
};

// How an exchange left its connection.
struct FinishNotes {
  bool clean = false;         // both messages ended, nothing left over, nothing queued
  bool server_keeps = false;  // the server agreed to keep it
  int64_t hint_ms = 0;        // Keep-Alive: timeout, 0: none said
  uint64_t hint_max = 0;      // Keep-Alive: max, requests still allowed; UINT64_MAX: none said
  // For multiplexed ones, whose other requests go on.
  bool cut = false;     // the request was given up, so it says nothing about the connection
  bool proven = false;  // it did what a second request shows of others
};

class ServerPool {
 public:
  enum class Verdict : uint8_t { kParked, kKeptPrivate, kInUse, kClosed };

  struct Picked {
    PooledConn* conn = nullptr;
    How how = How::kFresh;
    Miss miss = Miss::kNoneIdle;  // if there is none
  };

  // `fixed` is the key of connections that no request changes. `idle_share` bounds the idle ones of
  // the process, null: nothing does.
  ServerPool(PoolMemory& memory, PoolStats& stats, const ConnKey& fixed, BudgetShare* idle_share);
  ~ServerPool();
  ServerPool(const ServerPool&) = delete;
  ServerPool& operator=(const ServerPool&) = delete;

  // A shared connection with this key (null: the fixed one) that may serve the request: now in use.
  [[nodiscard]] Picked pick(const ConnKey* key, const PickRules& rules);
  // A private connection of the session under `target` with this key: now in use. One that is in
  // use and has room, if some may be `multiplexed`, else an idle one. nullptr: none.
  [[nodiscard]] PooledConn* pick_private(SessionStore& store, const TargetRef& target,
                                         const ConnKey* key, bool multiplexed = false);

  // The same of those that the session holds: one with room for another request.
  [[nodiscard]] PooledConn* pick_held(SessionStore& store, const ConnKey* key);
  // In mode "safe" no client's request shares a connection with another client's in flight, so
  // `conn`, multiplexed and just given to a request of this session, takes further ones of the same
  // session only, until none is in flight. Without room for it in the session's store it takes none
  // at all. In the other modes nothing happens.
  void hold(PooledConn& conn, SessionStore& store);

  // Which idle connections the mode lets such a request use.
  enum class Usable : uint8_t { kNone, kProven, kAny };
  [[nodiscard]] Usable usable(const PickRules& rules) const;

  // A connection is being made. Without room for its key it is for a single use.
  void begin(PooledConn& conn, const ConnKey* key, int64_t now_ms);
  // It is made, and the request that waited has it; `capacity` further ones fit on it.
  void connected(PooledConn& conn, uint32_t capacity = 0);
  // It is made, and nobody waited.
  Verdict connected_idle(PooledConn& conn, int64_t now_ms);
  // It belongs to this session from now on; a multiplexed one takes as many requests as before, of
  // this session. False: it cannot be kept, or it has several users; then it gets no further one
  // and is closed after use. One that is private already is found by an upstream from now on if
  // `target` is one. REQUIRES: it is in use, and nobody else's.
  bool make_private(PooledConn& conn, SessionStore& store, const TargetRef& target,
                    PrivateReason reason = PrivateReason::kLogin);
  // One request is done with it. kClosed: on_pool_close() was called.
  Verdict finish(PooledConn& conn, const FinishNotes& notes, int64_t now_ms);
  // `conn`, multiplexed, gets one more request, of somebody who has waited for it: as pick(), but
  // this one. REQUIRES: takes_more(conn).
  void add_request(PooledConn& conn);
  [[nodiscard]] static bool takes_more(const PooledConn& conn) {
    return conn.capacity() > 0 &&
           (conn.place() == Place::kAvailable || in_session(conn.place()) || is_idle(conn.place()));
  }
  // A multiplexed connection takes `free` further requests from now on; an idle one that takes none
  // is closed. finish() counts one more by itself, so while more are in flight than the server now
  // allows, this must follow each finish().
  void on_capacity(PooledConn& conn, uint32_t free);
  // It takes no further request (GOAWAY): closed when the last one in flight is finished.
  void drain(PooledConn& conn);
  // Closes it, wherever it is. Calls on_pool_close().
  void close(PooledConn& conn, CloseReason reason);
  // Nothing of it is in flight: it is out of the pool.
  void closed(PooledConn& conn);

  // The server ended an idle connection: what that teaches about its own timeout.
  void learn(const PooledConn& conn, int64_t now_ms);
  // How long `conn`, just parked, may stay idle; 0: for ever.
  [[nodiscard]] int64_t idle_life_ms(const PooledConn& conn) const;
  // Why `conn` is closed when that time has passed.
  [[nodiscard]] static CloseReason expiry(const PooledConn& conn, int64_t now_ms) {
    return now_ms - conn.created_ms_ >= conn.age_max_ms_ ? CloseReason::kAge
                                                         : CloseReason::kIdleTimeout;
  }
  // `conn` was found dead when it was used: closes the other idle ones with its key that are at
  // least as old. Returns how many. It may be idle itself: a request on it was given up, and what
  // that had to say did not get out.
  size_t suspect(const PooledConn& conn);
  // To be called every kPurgeMs while anything is idle: closes half of what the load of the last
  // periods did not need. Returns how many.
  size_t purge(int64_t now_ms);
  // The idle connection used longest ago, or nullptr.
  [[nodiscard]] PooledConn* oldest_idle() { return lru_.empty() ? nullptr : &lru_.back(); }
  // The limit of idle connections was lowered, or others want their places: closes some.
  void free_idle();
  // Closes all idle ones, the private too.
  void close_idle(CloseReason reason);
  // Out of service: idle ones are closed now, and no connection is kept after its use.
  void retire(CloseReason reason);
  void return_to_service() { retired_ = false; }

  void update(const PoolLimits& limits);

  // Takes an idle shared connection with this key out, to be handed to another shard: the one that
  // was idle for longest, if since `idle_since_max_ms` at the latest. nullptr: none.
  [[nodiscard]] PooledConn* begin_transit(std::string_view key_bytes, uint64_t hash,
                                          bool proven_only = false,
                                          int64_t idle_since_max_ms = INT64_MAX);
  // It is out, and continues in another pool, which is told its past. closed() must follow.
  [[nodiscard]] ConnPast end_transit(PooledConn& conn);
  // A connection that came from another shard, at Place::kConnecting here, has this past.
  // connected() or connected_idle() must follow.
  void inherit(PooledConn& conn, const ConnPast& past);

  [[nodiscard]] uint32_t count(Place place) const { return counts_[static_cast<size_t>(place)]; }
  [[nodiscard]] uint32_t idle() const {
    return count(Place::kIdleSafe) + count(Place::kIdleUnproven);
  }
  // All, closing ones included.
  [[nodiscard]] uint32_t total() const { return total_; }
  [[nodiscard]] size_t groups() const { return group_count_; }
  [[nodiscard]] const KeyGroup& fixed_group() const { return *fixed_; }
  // A session for a new connection with this key; empty: none. Each is given once, so that servers
  // cannot link connections by it (RFC 8446 C.4).
  [[nodiscard]] TlsTicket take_ticket(const ConnKey* key) {
    KeyGroup* group = find_group(key);
    return group == nullptr ? TlsTicket() : std::move(group->ticket_);
  }
  // `conn`'s server gave a session for further connections with its key.
  void keep_ticket(PooledConn& conn, TlsTicket ticket) {
    if (conn.group_ != nullptr) conn.group_->ticket_ = std::move(ticket);
  }
  [[nodiscard]] const PoolLimits& limits() const { return limits_; }
  [[nodiscard]] PoolStats& stats() { return stats_; }
  [[nodiscard]] uint32_t need() const { return need_; }

  // Calls `visit(const KeyGroup&)` for every group, in the order of the tree.
  template <typename Visit>
  void for_each_group(Visit visit) const {
    for (size_t i = 0; i < tops_; ++i) {
      for (const KeyGroup& group : idle_trees_[i]) visit(group);
    }
  }
  // Walks everything and compares it with the counts. For tests and the simulator.
  void check() const;

  static constexpr int64_t kPurgeMs = 5'000;
  static constexpr int64_t kLearnedForMs = 600'000;

 private:
  friend class SessionStore;

  struct ByKey {
    bool operator()(const KeyGroup& a, const KeyGroup& b) const {
      return a.hash() != b.hash() ? a.hash() < b.hash() : a.bytes() < b.bytes();
    }
    // For the way down, where only hashes are looked at: equal ones stand side by side.
    bool operator()(const KeyGroup& a, uint64_t hash) const { return a.hash() < hash; }
    bool operator()(uint64_t hash, const KeyGroup& b) const { return hash < b.hash(); }
  };
  template <typename Tag>
  using TreeOf = boost::intrusive::set<KeyGroup, boost::intrusive::base_hook<pool_hooks::Tree<Tag>>,
                                       boost::intrusive::compare<ByKey>,
                                       boost::intrusive::constant_time_size<false>>;

  // The only writer of PooledConn::place_: unlinks, counts, links.
  void move_to(PooledConn& conn, Place to);
  void unlink(PooledConn& conn);
  void link(PooledConn& conn);
  void count_move(Place from, Place to);

  using IdleTree = TreeOf<pool_hooks::IdleTag>;
  [[nodiscard]] IdleTree& idle_tree(uint64_t hash) const {
    return idle_trees_[hash >> 32 >> top_shift_];
  }
  void grow_tree();

  [[nodiscard]] KeyGroup* find_group(const ConnKey* key) const;
  KeyGroup* ensure_group(const ConnKey* key);
  void leave_group(PooledConn& conn);
  PooledConn* choose_idle(KeyGroup& group, const PickRules& rules, Miss& miss) const;
  [[nodiscard]] static PooledConn* with_room(SessionEntry& entry, const KeyGroup& group,
                                             Place place);
  [[nodiscard]] static PooledConn* idle_private(SessionEntry& entry, const KeyGroup& group);
  // Whether requests of several clients may be in flight on one connection.
  [[nodiscard]] bool shares_in_use() const {
    return limits_.mode != ReuseMode::kNever && limits_.mode != ReuseMode::kSafe;
  }
  void let_go(PooledConn& conn);
  Verdict refuse(PooledConn& conn, CloseReason reason);
  void use(PooledConn& conn);
  Verdict park(PooledConn& conn, int64_t now_ms);
  Verdict keep_private(PooledConn& conn, int64_t now_ms);
  [[nodiscard]] bool may_keep(const PooledConn& conn, const FinishNotes& notes, int64_t now_ms,
                              CloseReason& reason) const;
  bool bind_further(PooledConn& conn, SessionStore& store, const TargetRef& target);
  [[nodiscard]] bool take_idle_unit();
  [[nodiscard]] uint32_t used() const;

  PoolMemory& memory_;
  PoolStats& stats_;
  BudgetShare* idle_share_;
  PoolLimits limits_;
  KeyGroup* fixed_;
  // Every group. The uppermost levels of the tree are an array: by the first bits of the hash, each
  // has the tree of those that begin so. With few groups it has one element.
  std::unique_ptr<IdleTree[]> idle_trees_;
  TreeOf<pool_hooks::AvailableTag> available_tree_;         // those with an available connection
  pool_hooks::ListOf<PooledConn, pool_hooks::LruTag> lru_;  // idle ones; front: used last
  pool_hooks::ListOf<PooledConn, pool_hooks::GroupTag> draining_;
  pool_hooks::ListOf<SessionEntry, pool_hooks::PoolTag> session_entries_;
  std::array<uint32_t, kPlaces> counts_{};
  uint32_t tops_ = 1;        // of idle_trees_, a power of two
  uint32_t top_shift_ = 32;  // of the upper half of a hash
  uint32_t total_ = 0;
  size_t group_count_ = 0;
  uint32_t peak_used_ = 0;         // since the last purge
  uint32_t need_ = 0;              // smoothed
  int64_t last_close_age_ms_ = 0;  // see learn()
  int64_t last_close_at_ms_ = 0;
  int64_t learned_ms_ = 0;
  int64_t learned_at_ms_ = 0;
  CloseReason retired_reason_ = CloseReason::kReplaced;
  bool retired_ = false;
  bool idle_asked_ = false;  // inside free_idle(): the unit was promised
};

}  // namespace ringway
