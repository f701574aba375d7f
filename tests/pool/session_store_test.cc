// tests/pool/session_store_test.cc - connections of one client: who gets them, limits, the ends.
#include <doctest/doctest.h>

#include <memory>
#include <string>

#include "tests/pool/pool_fixture.h"

namespace ringway {
namespace {

using Verdict = ServerPool::Verdict;

constexpr PickRules kLater{};

TargetRef upstream_target(const void* upstream) {
  return {.kind = TargetRef::Kind::kUpstream, .object = upstream};
}

// A private idle one of `store` under the fixture's server.
FakeConn& private_idle(PoolFixture& f, SessionStore& store, const TargetRef& target,
                       const ConnKey* key = nullptr) {
  FakeConn& conn = f.open(key);
  REQUIRE(f.pool.make_private(conn, store, target));
  REQUIRE(f.finish(conn) == Verdict::kKeptPrivate);
  return conn;
}

}  // namespace

TEST_CASE("SessionStore: private at creation or at a response, the connection is its session's") {
  for (const ReuseMode mode : {ReuseMode::kNever, ReuseMode::kSafe, ReuseMode::kAggressive,
                               ReuseMode::kAlways, ReuseMode::kAuto}) {
    for (const bool reused : {false, true}) {
      if (reused && mode == ReuseMode::kNever) continue;
      CAPTURE(static_cast<int>(mode));
      CAPTURE(reused);
      PoolFixture f({.mode = mode, .idle_floor = 4});
      SessionStore one(f.shard.entries);
      SessionStore two(f.shard.entries);
      if (reused) f.idle(nullptr, 2);
      FakeConn* conn = f.pick(nullptr, kLater);
      CHECK((conn != nullptr) == reused);
      if (conn == nullptr) conn = &f.open();
      CHECK(f.pool.make_private(*conn, one, f.server_target()));
      CHECK(conn->place() == Place::kSessionBusy);
      CHECK(conn->session() == &one);
      // While busy nobody has it, not even its session.
      CHECK(f.pool.pick_private(one, f.server_target(), nullptr) == nullptr);
      CHECK(f.finish(*conn) == Verdict::kKeptPrivate);
      CHECK(f.pool.idle() == 0);
      CHECK(f.pick(nullptr, kLater) == nullptr);
      CHECK(f.pool.pick_private(two, f.server_target(), nullptr) == nullptr);
      CHECK(f.pool.pick_private(one, f.server_target(), nullptr) == conn);
      CHECK(f.finish(*conn) == Verdict::kKeptPrivate);
      one.close_all();
      CHECK(conn->why == CloseReason::kSessionEnd);
      CHECK(one.empty());
      f.pool.check();
    }
  }
}

TEST_CASE("SessionStore: an available connection becomes private, with room for its session only") {
  PoolFixture f({.mode = ReuseMode::kAlways});
  SessionStore store(f.shard.entries);
  SessionStore other(f.shard.entries);
  const auto pick = [&](SessionStore& of, bool multiplexed = true) {
    return f.pool.pick_private(of, f.server_target(), nullptr, multiplexed);
  };
  FakeConn& conn = f.open(nullptr, 9);
  CHECK(f.pool.make_private(conn, store, f.server_target()));
  f.pool.on_capacity(conn, 2);
  CHECK(f.pick(nullptr, kLater) == nullptr);
  CHECK(pick(other) == nullptr);
  CHECK(pick(store, false) == nullptr);
  CHECK(pick(store) == &conn);
  CHECK(pick(store) == &conn);
  CHECK(pick(store) == nullptr);  // Full.
  CHECK(conn.streams() == 3);
  CHECK(conn.place() == Place::kSessionBusy);
  f.pool.check();
  CHECK(f.finish(conn) == Verdict::kInUse);
  CHECK(pick(store) == &conn);
  for (int i = 0; i < 2; ++i) CHECK(f.finish(conn) == Verdict::kInUse);
  // One in use goes first, so that an idle one gets old.
  FakeConn& idle = private_idle(f, store, f.server_target());
  CHECK(pick(store) == &conn);
  CHECK(pick(store) == &conn);
  CHECK(pick(store) == &idle);
  CHECK(f.finish(idle) == Verdict::kKeptPrivate);
  for (int i = 0; i < 2; ++i) CHECK(f.finish(conn) == Verdict::kInUse);
  CHECK(f.finish(conn) == Verdict::kKeptPrivate);
  CHECK(f.pick(nullptr, kLater) == nullptr);
  // Idle, it hears of a limit of 0 as shared ones do.
  f.pool.on_capacity(conn, 0);
  CHECK(conn.why == CloseReason::kServerClose);
  f.pool.check();
  store.close_all();
}

TEST_CASE("SessionStore: a private one with several requests ends in each way") {
  PoolFixture f({.mode = ReuseMode::kNever});
  SessionStore store(f.shard.entries);
  const auto open = [&]() -> FakeConn& {
    FakeConn& conn = f.open(nullptr, 5);
    REQUIRE(f.pool.make_private(conn, store, f.server_target()));
    REQUIRE(f.pool.pick_private(store, f.server_target(), nullptr, true) == &conn);
    return conn;
  };
  SUBCASE("GOAWAY") {
    FakeConn& conn = open();
    f.pool.drain(conn);
    f.pool.on_capacity(conn, 5);
    CHECK(f.pool.pick_private(store, f.server_target(), nullptr, true) == nullptr);
    CHECK(f.finish(conn) == Verdict::kInUse);
    CHECK(f.finish(conn) == Verdict::kClosed);
  }
  SUBCASE("out of service, and back") {
    FakeConn& conn = open();
    f.pool.retire(CloseReason::kOutOfService);
    f.pool.return_to_service();
    CHECK(f.pool.pick_private(store, f.server_target(), nullptr, true) == nullptr);
    f.pool.on_capacity(conn, 5);
    CHECK(f.pool.pick_private(store, f.server_target(), nullptr, true) == &conn);
    for (int i = 0; i < 2; ++i) CHECK(f.finish(conn) == Verdict::kInUse);
    CHECK(f.finish(conn) == Verdict::kKeptPrivate);
    store.close_all();
  }
  SUBCASE("closed") {
    f.pool.close(open(), CloseReason::kError);
  }
  SUBCASE("its last request") {
    f.pool.update({.mode = ReuseMode::kNever, .requests_max = 2});
    FakeConn& conn = open();
    f.pool.on_capacity(conn, 5);
    CHECK(conn.capacity() == 0);
    CHECK(f.finish(conn) == Verdict::kInUse);
    CHECK(f.finish(conn) == Verdict::kClosed);
    CHECK(conn.why == CloseReason::kRequestsLimit);
  }
  f.pool.check();
  CHECK(store.empty());
}

TEST_CASE("SessionStore: who must be alone gets an idle one, none that others use") {
  PoolFixture f({.mode = ReuseMode::kAlways});
  SessionStore store(f.shard.entries);
  const PickRules alone{.session = &store, .own = true};
  FakeConn& conn = f.open(nullptr, 9);
  CHECK(f.pick(nullptr, alone) == nullptr);
  CHECK(f.finish(conn) == Verdict::kParked);
  CHECK(f.pick(nullptr, alone) == &conn);
  CHECK(f.pool.make_private(conn, store, f.server_target()));
  CHECK(f.pick(nullptr, kLater) == nullptr);
  CHECK(f.finish(conn) == Verdict::kKeptPrivate);
  store.close_all();
}

// haproxy fd3ce173a: the server decides what it asks for, so this must not be a failed check.
TEST_CASE("SessionStore: a login on a connection with two users ends its sharing") {
  PoolFixture f({.mode = ReuseMode::kAlways});
  SessionStore store(f.shard.entries);
  FakeConn& conn = f.open(nullptr, 9);
  REQUIRE(f.pick(nullptr, kLater) == &conn);
  CHECK_FALSE(f.pool.make_private(conn, store, f.server_target()));
  CHECK(store.empty());
  CHECK(conn.place() == Place::kDraining);
  CHECK(f.pick(nullptr, kLater) == nullptr);
  CHECK(f.finish(conn) == Verdict::kInUse);
  // The last user's login comes too late as well.
  CHECK_FALSE(f.pool.make_private(conn, store, f.server_target()));
  CHECK(f.finish(conn) == Verdict::kClosed);
  f.pool.check();
}

TEST_CASE("SessionStore: targets of one session, exact at 0, 1 and n; the oldest idle one goes") {
  for (const uint32_t targets : {0U, 1U, 3U}) {
    CAPTURE(targets);
    PoolFixture f({.mode = ReuseMode::kAlways});
    SessionStore store(f.shard.entries, {.targets = targets});
    int names[5] = {};
    std::vector<FakeConn*> kept;
    for (int& name : names) {
      FakeConn& conn = f.open();
      if (f.pool.make_private(conn, store, upstream_target(&name))) {
        REQUIRE(f.finish(conn) == Verdict::kKeptPrivate);
      } else {
        CHECK(targets == 0);
        CHECK(conn.reserved());
        CHECK(f.finish(conn) == Verdict::kClosed);
        CHECK(conn.why == CloseReason::kPrivateLimit);
      }
      kept.push_back(&conn);
      CHECK(store.size() <= targets);
      f.pool.check();
    }
    CHECK(store.size() == targets);
    for (size_t i = 0; i < kept.size(); ++i) {
      CHECK((kept[i]->place() == Place::kSessionIdle) == (i + targets >= kept.size()));
    }
    store.close_all();
  }
}

TEST_CASE("SessionStore: a target in use makes no room; the connection is closed after use") {
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_floor = 4});
  SessionStore store(f.shard.entries, {.targets = 1});
  int names[2] = {};
  FakeConn& first = f.open();
  REQUIRE(f.pool.make_private(first, store, upstream_target(&names[0])));
  FakeConn& second = f.open();
  CHECK_FALSE(f.pool.make_private(second, store, upstream_target(&names[1])));
  CHECK(second.reserved());
  CHECK(f.finish(second) == Verdict::kClosed);
  CHECK(second.why == CloseReason::kPrivateLimit);
  CHECK(f.finish(first) == Verdict::kKeptPrivate);
  store.close_all();
}

TEST_CASE("SessionStore: idle connections of one entry, exact at 0, 1 and n") {
  for (const uint32_t limit : {0U, 1U, 3U}) {
    CAPTURE(limit);
    PoolFixture f({.mode = ReuseMode::kAlways});
    SessionStore store(f.shard.entries, {.idle_per_entry = limit});
    std::vector<FakeConn*> all;
    for (int i = 0; i < 5; ++i) {
      all.push_back(&f.open());
      REQUIRE(f.pool.make_private(*all.back(), store, f.server_target()));
    }
    uint32_t kept = 0;
    for (FakeConn* conn : all) {
      if (f.finish(*conn) == Verdict::kKeptPrivate) {
        ++kept;
      } else {
        CHECK(conn->why == CloseReason::kPrivateLimit);
      }
      CHECK(kept <= limit);
    }
    CHECK(kept == limit);
    CHECK(store.empty() == (limit == 0));
    store.close_all();
  }
}

TEST_CASE("SessionStore: no memory for an entry -> never shared, closed after use") {
  PoolFixture f({.mode = ReuseMode::kAlways}, nullptr, 64, 1);
  SessionStore one(f.shard.entries);
  SessionStore two(f.shard.entries);
  FakeConn& kept = private_idle(f, one, f.server_target());
  FakeConn& conn = f.open(nullptr, 5);
  CHECK_FALSE(f.pool.make_private(conn, two, f.server_target()));
  CHECK(conn.reserved());
  CHECK(f.pick(nullptr, kLater) == nullptr);
  CHECK_FALSE(f.pool.make_private(conn, two, f.server_target()));  // Again: the same answer.
  CHECK(f.finish(conn) == Verdict::kClosed);
  CHECK(conn.why == CloseReason::kPrivateLimit);
  CHECK(kept.place() == Place::kSessionIdle);
  one.close_all();
  f.pool.check();
}

TEST_CASE("SessionStore: a private connection carries requests with its key only") {
  PoolFixture f({.mode = ReuseMode::kAlways});
  SessionStore store(f.shard.entries);
  const ConnKey a = f.shard.key("a");
  const ConnKey b = f.shard.key("b");
  FakeConn& conn = private_idle(f, store, f.server_target(), &a);
  FakeConn& other = private_idle(f, store, f.server_target(), &b);
  CHECK(f.pool.pick_private(store, f.server_target(), nullptr) == nullptr);
  CHECK(f.pool.pick_private(store, f.server_target(), &a) == &conn);
  CHECK(f.pool.pick_private(store, f.server_target(), &a) == nullptr);
  CHECK(f.pool.pick_private(store, f.server_target(), &b) == &other);
  f.finish(conn);
  f.finish(other);
  store.close_all();
  CHECK(f.pool.groups() == 1);
}

TEST_CASE("SessionStore: a login moves a private connection to its upstream, and not back") {
  PoolFixture f({.mode = ReuseMode::kNever});
  SessionStore store(f.shard.entries);
  int upstream = 0;
  FakeConn& conn = f.open();
  REQUIRE(f.pool.make_private(conn, store, f.server_target()));
  CHECK(store.idle_pool(upstream_target(&upstream)) == nullptr);
  CHECK(f.pool.make_private(conn, store, upstream_target(&upstream)));
  f.pool.check();
  REQUIRE(f.finish(conn) == Verdict::kKeptPrivate);
  CHECK(store.size() == 1);
  CHECK(store.idle_pool(upstream_target(&upstream)) == &f.pool);
  CHECK(f.pool.pick_private(store, f.server_target(), nullptr) == nullptr);
  REQUIRE(f.pool.pick_private(store, upstream_target(&upstream), nullptr) == &conn);
  CHECK(f.pool.make_private(conn, store, f.server_target()));
  REQUIRE(f.finish(conn) == Verdict::kKeptPrivate);
  CHECK(store.idle_pool(upstream_target(&upstream)) == &f.pool);
  store.close_all();
  // Without room for another target it stays under its server.
  SessionStore small(f.shard.entries, {.targets = 1});
  FakeConn& stays = f.open();
  REQUIRE(f.pool.make_private(stays, small, f.server_target()));
  CHECK(f.pool.make_private(stays, small, upstream_target(&upstream)));
  REQUIRE(f.finish(stays) == Verdict::kKeptPrivate);
  CHECK(f.pool.pick_private(small, f.server_target(), nullptr) == &stays);
  f.finish(stays);
  small.close_all();
}

TEST_CASE("SessionStore: one upstream on two servers is two entries") {
  PoolFixture f({.mode = ReuseMode::kAlways});
  PoolFixture g({.mode = ReuseMode::kAlways});
  SessionStore store(f.shard.entries);
  int upstream = 0;
  FakeConn& first = private_idle(f, store, upstream_target(&upstream));
  FakeConn& second = private_idle(g, store, upstream_target(&upstream));
  CHECK(store.size() == 2);
  CHECK(f.pool.pick_private(store, upstream_target(&upstream), nullptr) == &first);
  CHECK(g.pool.pick_private(store, upstream_target(&upstream), nullptr) == &second);
  f.finish(first);
  g.finish(second);
  g.pool.close_idle(CloseReason::kDown);
  CHECK(second.why == CloseReason::kDown);
  CHECK(store.size() == 1);
  store.close_all();
  f.pool.check();
  g.pool.check();
}

TEST_CASE("SessionStore: an idle private connection ends in each way, and its entry with it") {
  PoolFixture f({.mode = ReuseMode::kAlways});
  SessionStore store(f.shard.entries);
  FakeConn& conn = private_idle(f, store, f.server_target());
  FakeConn& busy = f.open();
  REQUIRE(f.pool.make_private(busy, store, f.server_target()));
  SUBCASE("the server ends it") {
    f.pool.close(conn, CloseReason::kServerIdle);
  }
  SUBCASE("out of service") {
    f.pool.retire(CloseReason::kOutOfService);
  }
  SUBCASE("health") {
    f.pool.close_idle(CloseReason::kDown);
  }
  f.pool.check();
  CHECK(conn.is_closing);
  CHECK(store.size() == 1);  // The busy one.
  f.finish(busy);
  store.close_all();
  CHECK(store.empty());
  CHECK(f.shard.entries.in_use() == 0);
}

TEST_CASE("SessionStore: out of service a private connection is not picked, nor kept") {
  PoolFixture f({.mode = ReuseMode::kAlways});
  SessionStore store(f.shard.entries);
  FakeConn& conn = f.open();
  REQUIRE(f.pool.make_private(conn, store, f.server_target()));
  f.pool.retire(CloseReason::kReplaced);
  CHECK(f.finish(conn) == Verdict::kClosed);
  CHECK(conn.why == CloseReason::kReplaced);
  CHECK(store.empty());
}

}  // namespace ringway
