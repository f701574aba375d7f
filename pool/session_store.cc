// pool/session_store.cc
#include "pool/session_store.h"

#include "core/base/check.h"
#include "pool/server_pool.h"

namespace ringway {

SessionEntry::~SessionEntry() {
  RW_CHECK(conns_.empty() && size_ == 0 && idle_ == 0);
}

SessionStore::~SessionStore() {
  RW_CHECK(entries_.empty());
}

SessionEntry* SessionStore::find(const TargetRef& target, const ServerPool* pool) const {
  for (const SessionEntry& entry : entries_) {
    if (entry.target_ == target && (pool == nullptr || &entry.pool_ == pool)) {
      return const_cast<SessionEntry*>(&entry);
    }
  }
  return nullptr;
}

SessionEntry* SessionStore::ensure(const TargetRef& target, ServerPool& pool) {
  if (SessionEntry* known = find(target, &pool)) return known;
  if (count_ >= limits_.targets && !evict_one()) return nullptr;
  SessionEntry* entry = slab_.take(*this, pool, target);
  if (entry == nullptr) return nullptr;
  entries_.push_front(*entry);
  pool.session_entries_.push_back(*entry);
  ++count_;
  return entry;
}

// Makes room by giving up the target that was used longest ago and is idle.
bool SessionStore::evict_one() {
  for (auto it = entries_.rbegin(); it != entries_.rend(); ++it) {
    if (it->idle_ != it->size_ || it->size_ == 0) continue;
    const uint32_t before = count_;
    SessionEntry& entry = *it;
    for (uint32_t left = entry.size_; left > 0; --left) {
      entry.pool_.close(entry.conns_.front(), CloseReason::kPrivateLimit);
    }
    RW_CHECK(count_ == before - 1);
    return true;
  }
  return false;
}

ServerPool* SessionStore::idle_pool(const TargetRef& target) const {
  for (const SessionEntry& entry : entries_) {
    if (entry.target_ == target && entry.idle_ > 0) return &entry.pool_;
  }
  return nullptr;
}

void SessionStore::close_all() {
  while (!entries_.empty()) {
    SessionEntry& entry = entries_.front();
    RW_CHECK(entry.idle_ == entry.size_);
    entry.pool_.close(entry.conns_.front(), CloseReason::kSessionEnd);
  }
}

void SessionStore::own(SessionEntry& entry, PooledConn& conn) {
  RW_CHECK(conn.entry_ == nullptr || conn.entry_ == &entry);
  conn.entry_ = &entry;
  const bool idle = conn.place_ == Place::kSessionIdle;
  idle ? entry.conns_.push_front(conn) : entry.conns_.push_back(conn);
  ++entry.size_;
  if (idle) ++entry.idle_;
}

void SessionStore::un_own(PooledConn& conn) {
  RW_CHECK(in_session(conn.place_) && conn.entry_ != nullptr);
  SessionEntry& entry = *conn.entry_;
  SessionStore& store = entry.store_;
  // The entry must be the one that its session and its pool know for this target.
  RW_CHECK(store.find(entry.target_, conn.pool_) == &entry);
  RW_CHECK(entry.size_ > 0);
  entry.conns_.erase(entry.conns_.iterator_to(conn));
  --entry.size_;
  if (conn.place_ == Place::kSessionIdle) --entry.idle_;
}

void SessionStore::change_entry(PooledConn& conn, SessionEntry& to) {
  SessionEntry& from = *conn.entry_;
  RW_CHECK(conn.place_ == Place::kSessionBusy);
  RW_CHECK(&from.store_ == &to.store_ && &from.pool_ == &to.pool_ && &from != &to);
  un_own(conn);
  conn.entry_ = nullptr;
  own(to, conn);
  release(from);
}

void SessionStore::release(SessionEntry& entry) {
  if (entry.size_ > 0) return;
  SessionStore& store = entry.store_;
  store.entries_.erase(store.entries_.iterator_to(entry));
  entry.pool_.session_entries_.erase(entry.pool_.session_entries_.iterator_to(entry));
  --store.count_;
  store.slab_.give_back(&entry);
}

}  // namespace ringway
