// pool/pooled_conn.h - a server connection as the pool sees it: where it is and what it has done.
//
// Affinity:  one shard. Ownership: part of a larger object (ServerConn) that somebody else frees;
// it
//            must be out of the pool by then.
// Why:       knows no socket, so that tests drive the pool without any.
#pragma once

#include <boost/intrusive/list.hpp>
#include <boost/intrusive/set.hpp>
#include <cstdint>
#include <string>

#include "core/tls_facts.h"
#include "pool/conn_key.h"
#include "pool/places.h"

namespace ringway {

class KeyGroup;
class ServerPool;
class SessionEntry;
class SessionStore;

namespace pool_hooks {
namespace bi = boost::intrusive;
struct GroupTag;
struct LruTag;
struct EntryTag;
struct StoreTag;
struct PoolTag;
struct IdleTag;
struct AvailableTag;
template <typename Tag>
using List = bi::list_base_hook<bi::tag<Tag>, bi::link_mode<bi::safe_link>>;
template <typename Tag>
using Tree = bi::set_base_hook<bi::tag<Tag>, bi::link_mode<bi::safe_link>, bi::optimize_size<true>>;
template <typename T, typename Tag>
using ListOf = bi::list<T, bi::base_hook<List<Tag>>, bi::constant_time_size<false>>;
}  // namespace pool_hooks

// In a group's idle or available list or the draining list; in the pool's LRU; in a session's
// entry.
class PooledConn : public pool_hooks::List<pool_hooks::GroupTag>,
                   public pool_hooks::List<pool_hooks::LruTag>,
                   public pool_hooks::List<pool_hooks::EntryTag> {
 public:
  explicit PooledConn(ServerPool& pool) : pool_(&pool) {}
  PooledConn(const PooledConn&) = delete;
  PooledConn& operator=(const PooledConn&) = delete;

  // The pool closes the connection for reasons of its own, or because finish() said so. It is at
  // Place::kClosing already; ServerPool::closed() must follow once nothing is in flight. Not called
  // from inside pick().
  virtual void on_pool_close(CloseReason reason) = 0;

  [[nodiscard]] Place place() const { return place_; }
  [[nodiscard]] ServerPool& pool() const { return *pool_; }
  [[nodiscard]] const KeyGroup* group() const { return group_; }
  [[nodiscard]] SessionStore* session() const;
  // Belongs to one client for life.
  [[nodiscard]] bool reserved() const { return private_; }
  // It has finished a request that was not its first.
  [[nodiscard]] bool proven() const { return proven_; }
  // Requests it was given, this one included.
  [[nodiscard]] uint64_t requests() const { return requests_; }
  [[nodiscard]] int64_t created_ms() const { return created_ms_; }
  // Since when it is idle; of a busy one, since when it was.
  [[nodiscard]] int64_t idle_since_ms() const { return idle_since_ms_; }
  // Requests in flight, and how many more it takes; 1 and 0 for a busy HTTP/1.1 one.
  [[nodiscard]] uint32_t streams() const { return streams_; }
  [[nodiscard]] uint32_t capacity() const { return capacity_; }
  // It is never handed to another shard.
  void keep_on_shard() { stays_ = true; }

 protected:
  ~PooledConn();

 private:
  friend class ServerPool;
  friend class SessionStore;

  ServerPool* pool_;
  KeyGroup* group_ = nullptr;      // until it closes; null: it had no room for its key
  SessionEntry* entry_ = nullptr;  // while its place is private
  int64_t created_ms_ = 0;
  int64_t idle_since_ms_ = 0;
  int64_t hint_ms_ = 0;  // the server's own "timeout", 0: none
  uint64_t requests_ = 0;
  uint64_t finished_ = 0;
  uint64_t requests_max_ = UINT64_MAX;
  int64_t age_max_ms_ = INT64_MAX;
  uint32_t streams_ = 0;
  uint32_t capacity_ = 0;
  Place place_ = Place::kNew;
  bool private_ = false;
  bool proven_ = false;
  bool close_after_ = false;  // must not be used again, whatever happens
  bool stays_ = false;        // see keep_on_shard()
};

// All connections of one pool with equal keys. A node of the idle tree for as long as it has any
// connection, and of the available tree while one of them takes more requests. Aligned, so that a
// step down the tree, which looks at a hook and a hash, touches one cache line.
class alignas(64) KeyGroup : public pool_hooks::Tree<pool_hooks::IdleTag>,
                             public pool_hooks::Tree<pool_hooks::AvailableTag> {
 public:
  explicit KeyGroup(const ConnKey& key) : hash_(key.hash), bytes_(key.bytes) {}
  ~KeyGroup();

  [[nodiscard]] uint64_t hash() const { return hash_; }
  [[nodiscard]] std::string_view bytes() const { return bytes_; }
  // Connections with this key, private ones included, closing ones excluded, and how many of them
  // are idle and shared.
  [[nodiscard]] uint32_t connections() const { return connections_; }
  [[nodiscard]] uint32_t idle() const { return idle_; }
  [[nodiscard]] uint32_t available() const { return available_count_; }
  // A TLS session to be resumed by the next connection with this key; empty: none. As old as the
  // newest connection that brought one, and gone with the last connection.
  [[nodiscard]] const TlsTicket& ticket() const { return ticket_; }

 private:
  friend class ServerPool;

  using Conns = pool_hooks::ListOf<PooledConn, pool_hooks::GroupTag>;

  uint64_t hash_;
  std::string bytes_;
  Conns safe_;       // front: used last
  Conns unproven_;   // front: used last
  Conns available_;  // front: used last
  uint32_t connections_ = 0;
  uint32_t idle_ = 0;
  uint32_t available_count_ = 0;
  bool pinned_ = false;  // the pool's static group: never freed
  TlsTicket ticket_;
};

}  // namespace ringway
