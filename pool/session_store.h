// pool/session_store.h - the connections that belong to one client and are never shared, or not
// while it uses them, by target.
//
// Affinity:  one shard. Ownership: embedded in the client's session; entries come from a slab of
// the
//            shard. The connections are their slots'; close_all() must be called before it dies.
// Bounds:    SessionLimits; what cannot be kept is closed after its response, never shared.
#pragma once

#include <cstdint>

#include "core/base/slab.h"
#include "pool/pooled_conn.h"

namespace ringway {

// What an entry is found by: one server, or any server of a whole upstream. The latter is for
// connections that carry a login (NTLM, Negotiate): they bind the client to the server as well.
struct TargetRef {
  enum class Kind : uint8_t { kServer, kUpstream };
  Kind kind = Kind::kServer;
  const void* object = nullptr;  // identity only: the ServerPool, or the shard's upstream

  bool operator==(const TargetRef&) const = default;
};

struct SessionLimits {
  uint32_t targets = 16;        // entries of one session
  uint32_t idle_per_entry = 4;  // connections kept beyond the ones in use
};

// The private connections of one session to one target and server, and those that it holds while
// they are in use. In its session's list and in its pool's, so that both ends find it. It exists
// while it has a connection.
class SessionEntry : public pool_hooks::List<pool_hooks::StoreTag>,
                     public pool_hooks::List<pool_hooks::PoolTag> {
 public:
  SessionEntry(SessionStore& store, ServerPool& pool, TargetRef target)
      : store_(store), pool_(pool), target_(target) {}
  ~SessionEntry();

  [[nodiscard]] const TargetRef& target() const { return target_; }
  [[nodiscard]] ServerPool& pool() const { return pool_; }

 private:
  friend class ServerPool;
  friend class SessionStore;
  friend class PooledConn;

  SessionStore& store_;
  ServerPool& pool_;
  TargetRef target_;
  pool_hooks::ListOf<PooledConn, pool_hooks::EntryTag> conns_;  // idle ones in front
  uint32_t idle_ = 0;
  uint32_t size_ = 0;
};

class SessionStore {
 public:
  explicit SessionStore(Slab<SessionEntry>& entries, SessionLimits limits = {})
      : slab_(entries), limits_(limits) {}
  ~SessionStore();
  SessionStore(const SessionStore&) = delete;
  SessionStore& operator=(const SessionStore&) = delete;

  // The entry of `target` with a connection to `pool` (null: to any), or nullptr.
  [[nodiscard]] SessionEntry* find(const TargetRef& target, const ServerPool* pool) const;
  // The same, made if there is none. nullptr: the limit of targets is reached, with none of them
  // idle, or the slab is exhausted. May close the idle connections of another target.
  [[nodiscard]] SessionEntry* ensure(const TargetRef& target, ServerPool& pool);

  // The pool of an idle private connection under `target`, or nullptr.
  [[nodiscard]] ServerPool* idle_pool(const TargetRef& target) const;
  // Closes every idle connection: the client leaves. REQUIRES: none is in use.
  void close_all();

  [[nodiscard]] bool empty() const { return entries_.empty(); }
  [[nodiscard]] uint32_t size() const { return count_; }
  [[nodiscard]] const SessionLimits& limits() const { return limits_; }

 private:
  friend class ServerPool;

  // For the pool's move_to(): links `conn` into `entry`, or takes it out of the entry that must
  // exist for it. An entry left empty is freed by release().
  static void own(SessionEntry& entry, PooledConn& conn);
  static void un_own(PooledConn& conn);
  static void release(SessionEntry& entry);
  // Moves `conn`, in use, to another entry of the same session and pool.
  static void change_entry(PooledConn& conn, SessionEntry& to);
  bool evict_one();

  Slab<SessionEntry>& slab_;
  SessionLimits limits_;
  uint32_t count_ = 0;
  pool_hooks::ListOf<SessionEntry, pool_hooks::StoreTag> entries_;  // front: used last
};

}  // namespace ringway
