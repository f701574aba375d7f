// tests/pool/pool_fixture.h - a ServerPool without sockets: connections that record what the pool
// does to them, keys by name, a clock that the test sets.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/check.h"
#include "pool/server_pool.h"

namespace ringway {

// A connection whose socket closes when the test says so.
struct FakeConn final : PooledConn {
  using PooledConn::PooledConn;
  void on_pool_close(CloseReason reason) override {
    RW_CHECK(place() == Place::kClosing && !is_closing);
    is_closing = true;
    why = reason;
  }
  bool is_closing = false;
  CloseReason why = CloseReason::kLayer4;
};

// What all pools of one logical shard share.
struct PoolShard {
  explicit PoolShard(size_t groups_max = 4096, size_t entries_max = 4096, uint64_t seed = 1)
      : groups(groups_max), entries(entries_max), prng(seed) {}

  // The bytes must live as long as the key.
  [[nodiscard]] ConnKey key(std::string_view bytes) const {
    return {.bytes = bytes, .hash = hash_bytes(bytes, {.low = 1, .high = 2})};
  }

  Slab<KeyGroup> groups;
  Slab<SessionEntry> entries;
  Prng prng;
  ConnKeyBuffer key_buffer;
  PoolMemory memory{
      .groups = groups, .secret = {.low = 1, .high = 2}, .prng = prng, .key_buffer = key_buffer};
};

// One server's pool with its connections. They must be gone before the sessions die: end().
struct PoolFixture {
  explicit PoolFixture(const PoolLimits& limits = {}, BudgetShare* idle = nullptr,
                       size_t groups_max = 4096, size_t entries_max = 4096)
      : shard(groups_max, entries_max), pool(shard.memory, stats, shard.key("fixed"), idle) {
    pool.update(limits);
  }
  ~PoolFixture() { end(); }

  static constexpr FinishNotes kGood{.clean = true, .server_keeps = true, .hint_max = UINT64_MAX};

  // One in use by a request, fresh; `capacity` further requests fit.
  FakeConn& open(const ConnKey* key = nullptr, uint32_t capacity = 0) {
    FakeConn& conn = begin(key);
    pool.connected(conn, capacity);
    return conn;
  }
  FakeConn& begin(const ConnKey* key = nullptr) {
    conns.push_back(std::make_unique<FakeConn>(pool));
    pool.begin(*conns.back(), key, now_ms);
    return *conns.back();
  }
  // Idle, after `requests` requests: proven when two or more. REQUIRES: the pool keeps it.
  FakeConn& idle(const ConnKey* key = nullptr, int requests = 1, uint32_t capacity = 0) {
    FakeConn& conn = open(key, capacity);
    RW_CHECK(finish(conn) == ServerPool::Verdict::kParked);
    const PoolLimits before = pool.limits();
    PoolLimits any = before;
    any.mode = ReuseMode::kAlways;
    pool.update(any);
    for (int i = 1; i < requests; ++i) {
      const ServerPool::Picked picked = pool.pick(key, {});
      RW_CHECK(picked.conn == &conn);
      RW_CHECK(finish(conn) == ServerPool::Verdict::kParked);
    }
    pool.update(before);
    return conn;
  }
  // Several of one key, all in use before the first is given back.
  std::vector<FakeConn*> idle_many(size_t count, const ConnKey* key = nullptr) {
    std::vector<FakeConn*> made;
    for (size_t i = 0; i < count; ++i) made.push_back(&open(key));
    for (FakeConn* conn : made) RW_CHECK(finish(*conn) == ServerPool::Verdict::kParked);
    return made;
  }
  ServerPool::Verdict finish(FakeConn& conn, const FinishNotes& notes = kGood) {
    const ServerPool::Verdict verdict = pool.finish(conn, notes, now_ms);
    pool.check();
    return verdict;
  }
  FakeConn* pick(const ConnKey* key, const PickRules& rules) {
    const ServerPool::Picked picked = pool.pick(key, rules);
    last = picked;
    pool.check();
    return static_cast<FakeConn*>(picked.conn);
  }
  // Closes what is left, and takes all that is closing out of the pool.
  void end() {
    for (auto& conn : conns) {
      if (conn->place() == Place::kNew) continue;
      if (conn->place() != Place::kClosing) pool.close(*conn, CloseReason::kLayer4);
      pool.closed(*conn);
    }
    conns.clear();
    pool.check();
  }
  // Takes those out that are closing, as if their sockets were closed now.
  void reap() {
    for (auto& conn : conns) {
      if (conn->place() == Place::kClosing) pool.closed(*conn);
    }
  }
  [[nodiscard]] TargetRef server_target() const {
    return {.kind = TargetRef::Kind::kServer, .object = &pool};
  }
  [[nodiscard]] uint64_t closed(CloseReason reason) const {
    return stats.closed[static_cast<size_t>(reason)].get();
  }

  PoolShard shard;
  PoolStats stats;
  ServerPool pool;
  std::vector<std::unique_ptr<FakeConn>> conns;
  ServerPool::Picked last;
  int64_t now_ms = 1'000'000;
};

}  // namespace ringway
