// tests/pool/server_pool_pick_test.cc - which connection a request gets, and which it never gets.
#include <doctest/doctest.h>

#include <optional>
#include <string>

#include "tests/pool/pool_fixture.h"

namespace ringway {
namespace {

using Verdict = ServerPool::Verdict;

constexpr PickRules kFirst{.first = true};
constexpr PickRules kFirstRepeatable{.first = true, .repeatable = true};
constexpr PickRules kLater{};

}  // namespace

// The table of docs/configuration.md, pool.reuse, which is haproxy's and "auto" (reuse.md 1.5).
TEST_CASE("ServerPool: who may use what, by mode, kind of request and kind of connection") {
  using Found = std::optional<How>;
  const Found kNothing;
  const Found kSafe = How::kSafe;
  const Found kUnproven = How::kUnproven;
  struct Row {
    ReuseMode mode;
    bool first;
    bool repeatable;
    Found if_proven;    // only a proven one is idle
    Found if_unproven;  // only an unproven one is
    Found if_both;
  };
  const Row rows[] = {
      {ReuseMode::kNever, true, false, kNothing, kNothing, kNothing},
      {ReuseMode::kNever, true, true, kNothing, kNothing, kNothing},
      {ReuseMode::kNever, false, false, kNothing, kNothing, kNothing},
      {ReuseMode::kNever, false, true, kNothing, kNothing, kNothing},
      {ReuseMode::kSafe, true, false, kNothing, kNothing, kNothing},
      {ReuseMode::kSafe, true, true, kNothing, kNothing, kNothing},
      {ReuseMode::kSafe, false, false, kSafe, kUnproven, kUnproven},
      {ReuseMode::kSafe, false, true, kSafe, kUnproven, kUnproven},
      {ReuseMode::kAggressive, true, false, kSafe, kNothing, kSafe},
      {ReuseMode::kAggressive, true, true, kSafe, kNothing, kSafe},
      {ReuseMode::kAggressive, false, false, kSafe, kUnproven, kUnproven},
      {ReuseMode::kAggressive, false, true, kSafe, kUnproven, kUnproven},
      {ReuseMode::kAlways, true, false, kSafe, kUnproven, kSafe},
      {ReuseMode::kAlways, true, true, kSafe, kUnproven, kSafe},
      {ReuseMode::kAlways, false, false, kSafe, kUnproven, kUnproven},
      {ReuseMode::kAlways, false, true, kSafe, kUnproven, kUnproven},
      {ReuseMode::kAuto, true, false, kNothing, kNothing, kNothing},
      {ReuseMode::kAuto, true, true, kSafe, kUnproven, kSafe},
      {ReuseMode::kAuto, false, false, kSafe, kUnproven, kUnproven},
      {ReuseMode::kAuto, false, true, kSafe, kUnproven, kUnproven},
  };
  for (const Row& row : rows) {
    for (int idle = 1; idle <= 3; ++idle) {  // 1: proven, 2: unproven, 3: both
      for (const bool keyed : {false, true}) {
        CAPTURE(static_cast<int>(row.mode));
        CAPTURE(row.first);
        CAPTURE(row.repeatable);
        CAPTURE(idle);
        PoolFixture f({.mode = ReuseMode::kAlways, .idle_floor = 2});
        const ConnKey key = f.shard.key("a");
        const ConnKey* which = keyed ? &key : nullptr;
        if ((idle & 1) != 0) f.idle(which, 2);
        if ((idle & 2) != 0) REQUIRE(f.finish(f.open(which)) == Verdict::kParked);
        // Set by hand: update() closes idle ones when it comes to never, which is another test.
        if (row.mode == ReuseMode::kNever) {
          f.pool.update({.mode = row.mode, .idle_floor = 2});
          CHECK(f.pool.idle() == 0);
        } else {
          f.pool.update({.mode = row.mode, .idle_floor = 2});
        }
        const Found& want = idle == 1 ? row.if_proven : idle == 2 ? row.if_unproven : row.if_both;
        FakeConn* got = f.pick(which, {.first = row.first, .repeatable = row.repeatable});
        CHECK((got != nullptr) == want.has_value());
        if (got != nullptr) CHECK(f.last.how == *want);
        if (got == nullptr && row.mode != ReuseMode::kNever) CHECK(f.last.miss == Miss::kPolicy);
        if (got != nullptr) CHECK(got->place() == Place::kBusy);
      }
    }
  }
}

TEST_CASE("ServerPool: what is given back is kept by mode, at creation and after a response") {
  for (const ReuseMode mode : {ReuseMode::kNever, ReuseMode::kSafe, ReuseMode::kAggressive,
                               ReuseMode::kAlways, ReuseMode::kAuto}) {
    CAPTURE(static_cast<int>(mode));
    const bool never = mode == ReuseMode::kNever;
    PoolFixture f({.mode = mode, .idle_floor = 3});
    FakeConn& used = f.open();
    CHECK(f.finish(used) == (never ? Verdict::kClosed : Verdict::kParked));
    if (!never) CHECK(used.place() == Place::kIdleUnproven);
    FakeConn& ahead = f.begin();
    CHECK(f.pool.connected_idle(ahead, f.now_ms) == (never ? Verdict::kClosed : Verdict::kParked));
    if (!never) CHECK(ahead.place() == Place::kIdleUnproven);
    CHECK(f.closed(CloseReason::kReuseOff) == (never ? 2 : 0));
  }
}

TEST_CASE("ServerPool: a connection is proven by its second request, not by its first") {
  PoolFixture f({.mode = ReuseMode::kAlways});
  FakeConn& conn = f.idle();
  CHECK(conn.place() == Place::kIdleUnproven);
  REQUIRE(f.pick(nullptr, kLater) == &conn);
  CHECK_FALSE(conn.proven());
  f.finish(conn);
  CHECK(conn.proven());
  CHECK(conn.place() == Place::kIdleSafe);
}

TEST_CASE("ServerPool: the one used last goes first, of its key only") {
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_floor = 8});
  const ConnKey a = f.shard.key("a");
  const ConnKey b = f.shard.key("b");
  const std::vector<FakeConn*> as = f.idle_many(3, &a);
  FakeConn& one_b = f.idle(&b);
  CHECK(f.pick(&a, kLater) == as[2]);
  CHECK(f.pick(&a, kLater) == as[1]);
  CHECK(f.pick(&a, kLater) == as[0]);
  CHECK(f.pick(&a, kLater) == nullptr);
  CHECK(f.last.miss == Miss::kOtherKeys);
  CHECK(f.pick(nullptr, kLater) == nullptr);
  CHECK(f.last.miss == Miss::kOtherKeys);
  CHECK(f.pick(&b, kLater) == &one_b);
  CHECK(f.pick(&b, kLater) == nullptr);
  CHECK(f.last.miss == Miss::kNoneIdle);
}

// Keys that clients choose collide if somebody finds out how: then the bytes decide.
TEST_CASE("ServerPool: equal hashes with different bytes never share") {
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_floor = 8});
  const ConnKey a{.bytes = "a", .hash = 42};
  const ConnKey b{.bytes = "b", .hash = 42};
  const ConnKey like_fixed{.bytes = "x", .hash = f.pool.fixed_group().hash()};
  FakeConn& one = f.idle(&a);
  FakeConn& fixed = f.idle();
  CHECK(f.pick(&b, kLater) == nullptr);
  CHECK(f.pick(&like_fixed, kLater) == nullptr);
  CHECK(f.pool.begin_transit("b", 42) == nullptr);
  FakeConn& other = f.idle(&b);
  CHECK(one.group() != other.group());
  CHECK(f.pick(&b, kLater) == &other);
  CHECK(f.pick(&b, kLater) == nullptr);
  CHECK(f.pick(&a, kLater) == &one);
  CHECK(f.pick(nullptr, kLater) == &fixed);
  // The same for multiplexed ones, and for a session's own.
  FakeConn& wide = f.open(&a, 5);
  CHECK(f.pick(&b, kLater) == nullptr);
  CHECK(f.pick(&a, kLater) == &wide);
  SessionStore store(f.shard.entries);
  REQUIRE(f.pool.make_private(other, store, f.server_target()));
  REQUIRE(f.finish(other) == Verdict::kKeptPrivate);
  CHECK(f.pool.pick_private(store, f.server_target(), &a) == nullptr);
  CHECK(f.pool.pick_private(store, f.server_target(), &b) == &other);
  f.end();
}

TEST_CASE("ServerPool: a dynamic key with the fixed bytes is the fixed key") {
  PoolFixture f({.mode = ReuseMode::kAlways});
  const ConnKey same = f.shard.key("fixed");
  FakeConn& conn = f.idle();
  CHECK(f.pick(&same, kLater) == &conn);
}

TEST_CASE("ServerPool: a single-use key shares nothing, even with equal bytes") {
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_floor = 8});
  const ConnKey normal = f.shard.key("a");
  ConnKey single = normal;
  single.single_use = true;
  f.idle(&normal);
  f.open(&normal, 5);
  CHECK(f.pick(&single, kLater) == nullptr);
  FakeConn& conn = f.open(&single, 5);
  CHECK(conn.group() == nullptr);
  CHECK(conn.place() == Place::kBusy);
  CHECK(f.finish(conn) == Verdict::kClosed);
  CHECK(conn.why == CloseReason::kReuseOff);
  FakeConn& ahead = f.begin(&single);
  CHECK(f.pool.connected_idle(ahead, f.now_ms) == Verdict::kClosed);
}

TEST_CASE("ServerPool: a request that must not take an old one gets none") {
  PoolFixture f({.mode = ReuseMode::kAlways});
  f.idle();
  CHECK(f.pick(nullptr, {.fresh = true}) == nullptr);
  CHECK(f.last.miss == Miss::kForcedFresh);
  CHECK(f.stats.missed[static_cast<size_t>(Miss::kForcedFresh)].get() == 1);
}

TEST_CASE("ServerPool: a multiplexed connection is available while it has room, then not") {
  PoolFixture f({.mode = ReuseMode::kAlways});
  const ConnKey key = f.shard.key("a");
  FakeConn& conn = f.open(&key, 2);
  CHECK(conn.place() == Place::kAvailable);
  CHECK(f.pick(&key, kFirst) == &conn);
  CHECK(f.last.how == How::kAvailable);
  CHECK(conn.place() == Place::kAvailable);
  CHECK(f.pick(&key, kFirst) == &conn);
  CHECK(conn.streams() == 3);
  CHECK(conn.place() == Place::kBusy);
  CHECK(f.pick(&key, kFirst) == nullptr);
  CHECK(f.finish(conn) == Verdict::kInUse);
  CHECK(conn.place() == Place::kAvailable);
  CHECK(conn.capacity() == 1);
  CHECK(f.finish(conn) == Verdict::kInUse);
  CHECK(f.finish(conn) == Verdict::kParked);
  CHECK(conn.capacity() == 3);
  // An available one goes before an idle one.
  f.pool.update({.mode = ReuseMode::kAlways, .idle_floor = 8});
  FakeConn& busy = f.open(&key, 1);
  CHECK(f.pick(&key, kLater) == &busy);
  CHECK(f.pick(&key, kLater) == &conn);
}

TEST_CASE("ServerPool: never shares no connection that was available before") {
  PoolFixture f({.mode = ReuseMode::kAlways});
  FakeConn& conn = f.open(nullptr, 5);
  f.pool.update({.mode = ReuseMode::kNever});
  CHECK(f.pick(nullptr, kLater) == nullptr);
  CHECK(f.finish(conn) == Verdict::kClosed);
  CHECK(conn.why == CloseReason::kReuseOff);
}

TEST_CASE("ServerPool: capacity follows the server's limit and is never less than nothing") {
  PoolFixture f({.mode = ReuseMode::kAlways});
  FakeConn& conn = f.open(nullptr, 9);
  for (int i = 0; i < 4; ++i) REQUIRE(f.pick(nullptr, kLater) == &conn);
  SUBCASE("a limit below what is in flight") {
    f.pool.on_capacity(conn, 0);
    CHECK(conn.place() == Place::kBusy);
    CHECK(f.pick(nullptr, kLater) == nullptr);
    // Five in flight, two allowed: while that is so, the codec says 0 after each end.
    for (int left = 4; left >= 2; --left) {
      CHECK(f.finish(conn) == Verdict::kInUse);
      f.pool.on_capacity(conn, 0);
      CHECK(f.pick(nullptr, kLater) == nullptr);
    }
    CHECK(f.finish(conn) == Verdict::kInUse);
    CHECK(conn.capacity() == 1);
  }
  SUBCASE("raised again") {
    f.pool.on_capacity(conn, 0);
    f.pool.on_capacity(conn, 1);
    CHECK(f.pick(nullptr, kLater) == &conn);
    CHECK(f.pick(nullptr, kLater) == nullptr);
  }
  SUBCASE("as much as a number holds") {
    f.pool.on_capacity(conn, UINT32_MAX);
    CHECK(f.pick(nullptr, kLater) == &conn);
    CHECK(conn.capacity() == UINT32_MAX - 1);
    f.pool.on_capacity(conn, UINT32_MAX);
    for (int i = 0; i < 5; ++i) CHECK(f.finish(conn) == Verdict::kInUse);
    CHECK(f.finish(conn) == Verdict::kParked);
    CHECK(f.pick(nullptr, kLater) == &conn);
  }
  SUBCASE("GOAWAY") {
    f.pool.drain(conn);
    CHECK(conn.place() == Place::kDraining);
    f.pool.on_capacity(conn, 7);
    CHECK(conn.capacity() == 0);
    CHECK(f.pick(nullptr, kLater) == nullptr);
    for (int i = 0; i < 4; ++i) CHECK(f.finish(conn) == Verdict::kInUse);
    CHECK(conn.place() == Place::kDraining);
    CHECK(f.finish(conn) == Verdict::kClosed);
    CHECK(conn.why == CloseReason::kServerClose);
  }
  SUBCASE("out of service") {
    f.pool.retire(CloseReason::kOutOfService);
    CHECK(conn.place() == Place::kDraining);
    for (int i = 0; i < 4; ++i) CHECK(f.finish(conn) == Verdict::kInUse);
    CHECK(f.finish(conn) == Verdict::kClosed);
    CHECK(conn.why == CloseReason::kOutOfService);
  }
}

TEST_CASE("ServerPool: an idle multiplexed connection hears of a new limit too") {
  PoolFixture f({.mode = ReuseMode::kAlways});
  FakeConn& conn = f.idle(nullptr, 1, 9);
  f.pool.on_capacity(conn, 2);
  CHECK(f.pick(nullptr, kLater) == &conn);
  CHECK(f.pick(nullptr, kLater) == &conn);
  CHECK(f.pick(nullptr, kLater) == nullptr);
  f.finish(conn);
  REQUIRE(f.finish(conn) == Verdict::kParked);
  f.pool.on_capacity(conn, 0);
  CHECK(conn.is_closing);
  CHECK(f.pool.idle() == 0);
}

TEST_CASE("ServerPool: GOAWAY in each place") {
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_floor = 8});
  FakeConn& idle = f.idle();
  f.pool.drain(idle);
  CHECK(idle.why == CloseReason::kServerClose);
  FakeConn& connecting = f.begin();
  f.pool.drain(connecting);
  f.pool.connected(connecting, 5);
  CHECK(connecting.place() == Place::kBusy);
  CHECK(f.finish(connecting) == Verdict::kClosed);
  FakeConn& ahead = f.begin();
  f.pool.drain(ahead);
  CHECK(f.pool.connected_idle(ahead, f.now_ms) == Verdict::kClosed);
  FakeConn& moving = f.idle();
  REQUIRE(f.pool.begin_transit("fixed", f.pool.fixed_group().hash()) == &moving);
  f.pool.drain(moving);
  CHECK_FALSE(f.pool.end_transit(moving).usable);
  SessionStore store(f.shard.entries);
  FakeConn& own = f.open();
  REQUIRE(f.pool.make_private(own, store, f.server_target()));
  f.pool.drain(own);
  CHECK(f.finish(own) == Verdict::kClosed);
  FakeConn& own_idle = f.open();
  REQUIRE(f.pool.make_private(own_idle, store, f.server_target()));
  REQUIRE(f.finish(own_idle) == Verdict::kKeptPrivate);
  f.pool.drain(own_idle);
  CHECK(own_idle.is_closing);
  f.pool.check();
  CHECK(store.empty());
}

TEST_CASE("ServerPool: the number of keys is bounded; the one used longest ago makes room") {
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_floor = 8, .groups_max = 3});
  const ConnKey a = f.shard.key("a");
  const ConnKey b = f.shard.key("b");
  const ConnKey c = f.shard.key("c");
  FakeConn& one = f.idle(&a);
  f.idle(&b);
  CHECK(f.pool.groups() == 3);  // With the fixed one.
  f.idle(&c);
  CHECK(one.why == CloseReason::kGroupLimit);
  CHECK(f.pool.groups() == 3);
  // Nothing can make room: for a single use.
  f.pick(&b, kLater);
  f.pick(&c, kLater);
  FakeConn& single = f.open(&a);
  CHECK(single.group() == nullptr);
  CHECK(f.finish(single) == Verdict::kClosed);
  CHECK(single.why == CloseReason::kReuseOff);
  // A key with two connections is not given up for one.
  f.pool.check();
}

TEST_CASE("ServerPool: a key's group goes with its last connection; the fixed one stays") {
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_floor = 8});
  const ConnKey a = f.shard.key("a");
  const std::vector<FakeConn*> two = f.idle_many(2, &a);
  CHECK(f.pool.groups() == 2);
  CHECK(f.stats.groups.get() == 2);
  f.pool.close(*two[0], CloseReason::kServerIdle);
  CHECK(f.pool.groups() == 2);
  f.pool.close(*two[1], CloseReason::kServerIdle);
  CHECK(f.pool.groups() == 1);
  CHECK(f.shard.groups.in_use() == 1);
  f.pool.close(f.idle(), CloseReason::kServerIdle);
  CHECK(f.pool.groups() == 1);
  f.pool.check();
}

TEST_CASE("ServerPool: no memory for another group -> single use") {
  PoolFixture f({.mode = ReuseMode::kAlways}, nullptr, 1);
  const ConnKey a = f.shard.key("a");
  FakeConn& conn = f.open(&a, 5);
  CHECK(conn.place() == Place::kBusy);
  CHECK(f.finish(conn) == Verdict::kClosed);
  CHECK(conn.why == CloseReason::kReuseOff);
}

TEST_CASE("ServerPool: out of service nothing is picked or kept; back in service it is") {
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_floor = 8});
  FakeConn& moving = f.idle(nullptr, 1);
  FakeConn& idle = f.idle();
  FakeConn& busy = f.open();
  FakeConn& connecting = f.begin();
  REQUIRE(f.pool.begin_transit("fixed", f.pool.fixed_group().hash()) == &moving);
  f.pool.retire(CloseReason::kDown);
  f.pool.check();
  CHECK(idle.why == CloseReason::kDown);
  CHECK(f.pick(nullptr, kLater) == nullptr);
  CHECK(f.pool.begin_transit("fixed", f.pool.fixed_group().hash()) == nullptr);
  CHECK(f.finish(busy) == Verdict::kClosed);
  CHECK(busy.why == CloseReason::kDown);
  CHECK(f.pool.connected_idle(connecting, f.now_ms) == Verdict::kClosed);
  CHECK(connecting.why == CloseReason::kDown);
  CHECK_FALSE(f.pool.end_transit(moving).usable);
  f.reap();
  CHECK(f.pool.total() == 0);
  f.pool.return_to_service();
  f.idle();
  CHECK(f.pick(nullptr, kLater) != nullptr);
}

TEST_CASE("ServerPool: first requests and repeatable ones under auto, by the table's words") {
  PoolFixture f({.mode = ReuseMode::kAuto});
  FakeConn& conn = f.idle();
  CHECK(f.pick(nullptr, kFirst) == nullptr);
  CHECK(f.pick(nullptr, kFirstRepeatable) == &conn);
}

}  // namespace ringway
