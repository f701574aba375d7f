// tests/pool/server_pool_hold_test.cc - mode "safe" and connections that carry many requests: while
// a client uses one, it is that client's; and the tree of groups as it grows.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "tests/pool/pool_fixture.h"

namespace ringway {
namespace {

using Verdict = ServerPool::Verdict;

constexpr PickRules kLater{};
constexpr PoolLimits kSafe{.mode = ReuseMode::kSafe, .idle_floor = 4};

// Multiplexed, in use by a request of `store`'s session, which holds it.
FakeConn& held(PoolFixture& f, SessionStore& store, uint32_t capacity = 9) {
  FakeConn& conn = f.open(nullptr, capacity);
  f.pool.hold(conn, store);
  f.pool.check();
  return conn;
}

FakeConn* pick_held(PoolFixture& f, SessionStore& store, const ConnKey* key = nullptr) {
  PooledConn* got = f.pool.pick_held(store, key);
  f.pool.check();
  return static_cast<FakeConn*>(got);
}

}  // namespace

TEST_CASE("ServerPool: safe: one in use takes requests of its client, and of nobody else") {
  PoolFixture f(kSafe);
  SessionStore first(f.shard.entries);
  SessionStore second(f.shard.entries);
  FakeConn& conn = held(f, first);
  CHECK(conn.place() == Place::kHeld);
  CHECK(conn.session() == &first);
  CHECK_FALSE(conn.reserved());
  // Neither another client's first request nor a later one.
  CHECK(f.pick(nullptr, kLater) == nullptr);
  CHECK(f.pick(nullptr, {.first = true}) == nullptr);
  CHECK(pick_held(f, second) == nullptr);
  CHECK(pick_held(f, first) == &conn);
  CHECK(conn.streams() == 2);
  // It counts as used, not as private.
  CHECK(f.pool.count(Place::kSessionBusy) == 0);
  CHECK(f.finish(conn) == Verdict::kInUse);
  CHECK(conn.place() == Place::kHeld);
  // With the last request it is everybody's again.
  CHECK(f.finish(conn) == Verdict::kParked);
  CHECK(first.empty());
  CHECK(conn.session() == nullptr);
  CHECK(f.pick(nullptr, kLater) == &conn);
  f.pool.hold(conn, second);
  CHECK(conn.session() == &second);
  CHECK(pick_held(f, first) == nullptr);
  f.end();
}

TEST_CASE("ServerPool: the other modes hold nothing") {
  for (const ReuseMode mode :
       {ReuseMode::kNever, ReuseMode::kAggressive, ReuseMode::kAlways, ReuseMode::kAuto}) {
    PoolFixture f({.mode = mode});
    SessionStore store(f.shard.entries);
    FakeConn& conn = held(f, store);
    CHECK(conn.place() == Place::kAvailable);
    CHECK(store.empty());
    CHECK(pick_held(f, store) == nullptr);
    CHECK((f.pick(nullptr, kLater) == &conn) == (mode != ReuseMode::kNever));
  }
}

TEST_CASE("ServerPool: safe: without room in its client's store one in use is shared by nobody") {
  for (const bool slab : {false, true}) {
    CAPTURE(slab);
    PoolFixture f(kSafe);
    Slab<SessionEntry> none(0);
    SessionStore store(slab ? none : f.shard.entries, {.targets = slab ? 16U : 0U});
    FakeConn& conn = held(f, store);
    CHECK(conn.place() == Place::kAvailable);
    CHECK(pick_held(f, store) == nullptr);
    CHECK(f.pick(nullptr, kLater) == nullptr);
    CHECK(f.finish(conn) == Verdict::kParked);
  }
}

TEST_CASE("ServerPool: safe: holding one gives up no private one of another target") {
  PoolFixture f(kSafe);
  SessionStore store(f.shard.entries, {.targets = 1});
  FakeConn& own = f.open();
  const TargetRef upstream{.kind = TargetRef::Kind::kUpstream, .object = &f};
  REQUIRE(f.pool.make_private(own, store, upstream));
  REQUIRE(f.finish(own) == Verdict::kKeptPrivate);
  FakeConn& conn = held(f, store);
  CHECK(conn.place() == Place::kAvailable);
  CHECK(own.place() == Place::kSessionIdle);
  CHECK(f.finish(conn) == Verdict::kParked);
  store.close_all();
}

TEST_CASE("ServerPool: safe: a full one, one with another key and a single-use key find nothing") {
  PoolFixture f(kSafe);
  SessionStore store(f.shard.entries);
  FakeConn& conn = held(f, store, 1);
  const ConnKey other = f.shard.key("other");
  const ConnKey single{.bytes = f.pool.fixed_group().bytes(),
                       .hash = f.pool.fixed_group().hash(),
                       .single_use = true};
  CHECK(pick_held(f, store, &other) == nullptr);
  CHECK(pick_held(f, store, &single) == nullptr);
  CHECK(pick_held(f, store) == &conn);
  CHECK(pick_held(f, store) == nullptr);  // Full.
  f.pool.on_capacity(conn, 5);
  CHECK(pick_held(f, store) == &conn);
  f.pool.on_capacity(conn, 0);
  CHECK(conn.place() == Place::kHeld);
  CHECK(pick_held(f, store) == nullptr);
  f.end();
}

TEST_CASE("ServerPool: safe: a held one ends in each way, and its session's entry with it") {
  for (int how = 0; how < 5; ++how) {
    CAPTURE(how);
    PoolFixture f(kSafe);
    SessionStore store(f.shard.entries);
    FakeConn& conn = held(f, store);
    REQUIRE(pick_held(f, store) == &conn);
    switch (how) {
      case 0:
        f.pool.drain(conn);  // GOAWAY
        CHECK(conn.place() == Place::kDraining);
        break;
      case 1:
        f.pool.close(conn, CloseReason::kError);
        CHECK(store.empty());
        continue;
      case 2:
        f.pool.retire(CloseReason::kOutOfService);
        CHECK(conn.capacity() == 0);
        f.pool.on_capacity(conn, 7);
        CHECK(conn.capacity() == 0);
        break;
      case 3: f.pool.update({.mode = ReuseMode::kNever}); break;
      default:
        // It is of two requests already, and whose would it be?
        CHECK_FALSE(f.pool.make_private(conn, store, f.server_target()));
        CHECK(conn.place() == Place::kDraining);
        break;
    }
    f.pool.check();
    CHECK(pick_held(f, store) == nullptr);
    CHECK(f.finish(conn) == Verdict::kInUse);
    CHECK(f.finish(conn) == Verdict::kClosed);
    CHECK(store.empty());
  }
}

TEST_CASE("ServerPool: safe: a held one of one request becomes private with a login") {
  PoolFixture f(kSafe);
  SessionStore store(f.shard.entries);
  FakeConn& conn = held(f, store);
  CHECK(f.pool.make_private(conn, store, f.server_target(), PrivateReason::kChallenge));
  CHECK(conn.place() == Place::kSessionBusy);
  CHECK(f.stats.reserved[static_cast<size_t>(PrivateReason::kChallenge)].get() == 1);
  CHECK(f.finish(conn) == Verdict::kKeptPrivate);
  store.close_all();
}

TEST_CASE("ServerPool: the mode changes while one is in use -> nobody joins against it") {
  PoolFixture f({.mode = ReuseMode::kAlways});
  SessionStore store(f.shard.entries);
  FakeConn& shared = f.open(nullptr, 9);
  REQUIRE(f.pick(nullptr, kLater) == &shared);
  f.pool.update(kSafe);
  CHECK(f.pick(nullptr, kLater) == nullptr);
  f.pool.hold(shared, store);  // Two clients are on it.
  CHECK(store.empty());
  CHECK(f.finish(shared) == Verdict::kInUse);
  CHECK(f.finish(shared) == Verdict::kParked);
  FakeConn& conn = held(f, store);
  f.pool.update({.mode = ReuseMode::kAlways});
  CHECK(pick_held(f, store) == nullptr);
  CHECK(f.finish(conn) == Verdict::kParked);
  CHECK(store.empty());
}

TEST_CASE("ServerPool: why a connection was not kept is counted, what was kept is not") {
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_floor = 0});
  const auto refused = [&](CloseReason reason) {
    return f.stats.refused[static_cast<size_t>(reason)].get();
  };
  CHECK(f.finish(f.open()) == Verdict::kParked);
  uint64_t sum = 0;
  for (const CloseReason reason : kParkRefusals) sum += refused(reason);
  CHECK(sum == 0);
  FinishNotes cut = PoolFixture::kGood;
  cut.clean = false;
  CHECK(f.finish(f.open(), cut) == Verdict::kClosed);
  CHECK(refused(CloseReason::kError) == 1);
  f.pool.close(f.open(), CloseReason::kError);  // Not given back.
  CHECK(refused(CloseReason::kError) == 1);
  f.pool.retire(CloseReason::kOutOfService);
  CHECK(f.finish(f.open()) == Verdict::kClosed);
  CHECK(refused(CloseReason::kOutOfService) == 1);
  for (const auto& counter : f.stats.refused) sum += counter.get();
  for (const CloseReason reason : kParkRefusals) sum -= refused(reason);
  CHECK(sum == 0);  // All that can happen has a name.
}

TEST_CASE("ServerPool: many keys come and go -> each finds its own, in the order of the tree") {
  constexpr size_t kKeys = 3000;
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_floor = kKeys, .groups_max = kKeys + 1});
  std::vector<std::string> names;
  std::vector<FakeConn*> conns;
  for (size_t i = 0; i < kKeys; ++i) names.push_back("key " + std::to_string(i));
  for (const std::string& name : names) {
    const ConnKey key = f.shard.key(name);
    conns.push_back(&f.open(&key));
  }
  for (FakeConn* conn : conns)
    REQUIRE(f.pool.finish(*conn, PoolFixture::kGood, f.now_ms) == Verdict::kParked);
  f.pool.check();
  CHECK(f.pool.groups() == kKeys + 1);
  uint64_t before = 0;
  size_t seen = 0;
  f.pool.for_each_group([&](const KeyGroup& group) {
    CHECK(group.hash() >= before);
    before = group.hash();
    ++seen;
  });
  CHECK(seen == kKeys + 1);
  for (size_t i = 0; i < kKeys; ++i) {
    const ConnKey key = f.shard.key(names[i]);
    const ServerPool::Picked picked = f.pool.pick(&key, kLater);
    REQUIRE(picked.conn == conns[i]);
    f.pool.close(*conns[i], CloseReason::kError);
    CHECK(f.pool.pick(&key, kLater).conn == nullptr);
  }
  CHECK(f.pool.groups() == 1);
}

}  // namespace ringway
