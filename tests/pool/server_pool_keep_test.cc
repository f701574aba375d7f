// tests/pool/server_pool_keep_test.cc - what is kept after a request, for how long, and the purge.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "tests/pool/budget_world.h"
#include "tests/pool/pool_fixture.h"

namespace ringway {
namespace {

using Verdict = ServerPool::Verdict;

constexpr PickRules kLater{};
constexpr FinishNotes kGood = PoolFixture::kGood;

FinishNotes with_hints(int64_t hint_ms, uint64_t hint_max) {
  FinishNotes notes = kGood;
  notes.hint_ms = hint_ms;
  notes.hint_max = hint_max;
  return notes;
}

// Requests that one connection serves until it is closed, at most 10.
int served_by(PoolFixture& f, const FinishNotes& first) {
  FakeConn& conn = f.open();
  FinishNotes notes = first;
  for (int served = 1;; ++served) {
    if (f.finish(conn, notes) == Verdict::kClosed) return served;
    if (served == 10) return served;
    REQUIRE(f.pick(nullptr, kLater) == &conn);
    notes = kGood;
  }
}

}  // namespace

TEST_CASE("ServerPool: an exchange that did not end well closes its connection") {
  PoolFixture f({.mode = ReuseMode::kAlways});
  FakeConn& cut = f.open();
  FinishNotes notes = kGood;
  notes.clean = false;
  CHECK(f.finish(cut, notes) == Verdict::kClosed);
  CHECK(cut.why == CloseReason::kError);
  FakeConn& ended = f.open();
  notes = kGood;
  notes.server_keeps = false;
  CHECK(f.finish(ended, notes) == Verdict::kClosed);
  CHECK(ended.why == CloseReason::kServerClose);
  CHECK(f.pool.idle() == 0);
}

TEST_CASE("ServerPool: requests per connection, exact: 0 and 1 allow one, n allow n") {
  for (const uint64_t max : {0U, 1U, 2U, 3U, 7U}) {
    CAPTURE(max);
    PoolFixture f({.mode = ReuseMode::kAlways, .requests_max = max});
    CHECK(served_by(f, kGood) == std::max<int>(1, static_cast<int>(max)));
    CHECK(f.closed(CloseReason::kRequestsLimit) == 1);
  }
  PoolFixture f({.mode = ReuseMode::kAlways});
  CHECK(served_by(f, kGood) == 10);
}

TEST_CASE("ServerPool: a multiplexed connection carries no more than its requests") {
  for (const uint64_t max : {1U, 2U, 4U}) {
    CAPTURE(max);
    PoolFixture f({.mode = ReuseMode::kAlways, .requests_max = max});
    FakeConn& conn = f.open(nullptr, 100);
    uint64_t given = 1;
    while (f.pick(nullptr, kLater) != nullptr) ++given;
    CHECK(given == max);
    f.pool.on_capacity(conn, 100);
    CHECK(conn.capacity() == 0);
    for (uint64_t i = 1; i < max; ++i) {
      CHECK(f.finish(conn) == Verdict::kInUse);
      CHECK(f.pick(nullptr, kLater) == nullptr);
    }
    CHECK(f.finish(conn) == Verdict::kClosed);
    CHECK(conn.why == CloseReason::kRequestsLimit);
  }
}

TEST_CASE("ServerPool: the server's max counts further requests; the smaller limit wins") {
  struct Row {
    uint64_t ours;
    uint64_t hint;
    int served;
  };
  const Row rows[] = {{UINT64_MAX, 0, 1},    {UINT64_MAX, 1, 2},
                      {UINT64_MAX, 3, 4},    {2, 5, 2},
                      {UINT64_MAX, 50, 10},  {UINT64_MAX, UINT64_MAX - 1, 10},
                      {3, UINT64_MAX - 1, 3}};
  for (const Row& row : rows) {
    CAPTURE(row.ours);
    CAPTURE(row.hint);
    PoolFixture f({.mode = ReuseMode::kAlways, .requests_max = row.ours});
    CHECK(served_by(f, with_hints(0, row.hint)) == row.served);
  }
}

TEST_CASE("ServerPool: age is up to a tenth below the limit, and not the same for all") {
  constexpr int64_t kAge = 100'000;
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_ms = 0, .age_ms = kAge, .idle_floor = 300});
  int64_t shortest = INT64_MAX;
  int64_t longest = 0;
  for (FakeConn* conn : f.idle_many(200)) {
    const int64_t life = f.pool.idle_life_ms(*conn);
    shortest = std::min(shortest, life);
    longest = std::max(longest, life);
  }
  CHECK(shortest >= kAge - kAge / 10);
  CHECK(longest <= kAge);
  CHECK(longest - shortest > kAge / 20);
}

TEST_CASE("ServerPool: at its age a connection is not kept; an idle one lives no longer") {
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_ms = 1'000, .age_ms = 9, .idle_floor = 9});
  FakeConn& young = f.open();
  FakeConn& old = f.open();  // Jitter is below one: exactly 9 ms.
  f.now_ms += 8;
  REQUIRE(f.finish(young) == Verdict::kParked);
  CHECK(f.pool.idle_life_ms(young) == 1);
  f.now_ms += 1;
  CHECK(f.finish(old) == Verdict::kClosed);
  CHECK(old.why == CloseReason::kAge);
}

TEST_CASE("ServerPool: idle life is the shortest of what is configured, said and learned") {
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_ms = 25'000, .idle_floor = 9});
  FakeConn& conn = f.open();
  REQUIRE(f.finish(conn, kGood) == Verdict::kParked);
  CHECK(f.pool.idle_life_ms(conn) == 25'000);
  struct Row {
    int64_t hint_ms;
    int64_t life_ms;
  };
  for (const Row row :
       {Row{5'000, 4'000}, Row{60'000, 25'000}, Row{26'000, 25'000}, Row{25'999, 24'999},
        Row{2'001, 1'001}, Row{2'000, 1'000}, Row{1'000, 500}}) {
    CAPTURE(row.hint_ms);
    REQUIRE(f.pick(nullptr, kLater) == &conn);
    REQUIRE(f.finish(conn, with_hints(row.hint_ms, UINT64_MAX)) == Verdict::kParked);
    CHECK(f.pool.idle_life_ms(conn) == row.life_ms);
  }
  // Said once, it stays said.
  REQUIRE(f.pick(nullptr, kLater) == &conn);
  REQUIRE(f.finish(conn) == Verdict::kParked);
  CHECK(f.pool.idle_life_ms(conn) == 500);
}

TEST_CASE("ServerPool: idle for ever when nothing bounds it") {
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_ms = 0});
  FakeConn& conn = f.idle();
  CHECK(f.pool.idle_life_ms(conn) == 0);
}

TEST_CASE("ServerPool: a timeout of the server's is learned from the second equal close") {
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_ms = 60'000, .idle_floor = 9});
  FakeConn& kept = f.idle();
  // The server ends one that has been idle for `age`, some time after the last event.
  const auto close_at = [&](int64_t age) {
    FakeConn& conn = f.open();
    REQUIRE(f.finish(conn) == Verdict::kParked);
    f.now_ms += age;
    f.pool.learn(conn, f.now_ms);
    f.pool.close(conn, CloseReason::kServerIdle);
  };
  const auto life = [&] {
    REQUIRE(f.pick(nullptr, kLater) == &kept);
    REQUIRE(f.finish(kept) == Verdict::kParked);
    return f.pool.idle_life_ms(kept);
  };
  close_at(10'000);
  CHECK(life() == 60'000);
  SUBCASE("the same age again") {
    close_at(10'500);
    CHECK(life() == 10'500 - 10'500 / 5);
    CHECK(f.stats.learned_ms.get() == 8'400);
    SUBCASE("forgotten in the end") {
      f.now_ms += ServerPool::kLearnedForMs - 1;
      f.pool.purge(f.now_ms);
      CHECK(f.stats.learned_ms.get() == 8'400);
      f.now_ms += 1;
      CHECK(life() == 60'000);
      f.pool.purge(f.now_ms);
      CHECK(f.stats.learned_ms.get() == 0);
    }
  }
  SUBCASE("another age says nothing") {
    close_at(12'000);
    CHECK(life() == 60'000);
  }
  SUBCASE("closes that come at once say nothing") {
    close_at(499);
    close_at(499);
    close_at(499);
    CHECK(life() == 60'000);
  }
  SUBCASE("a restart that ends all at once says nothing") {
    const std::vector<FakeConn*> all = f.idle_many(4);
    f.now_ms += 20'000;
    for (FakeConn* conn : all) {
      f.pool.learn(*conn, f.now_ms);
      f.pool.close(*conn, CloseReason::kServerIdle);
    }
    CHECK(life() == 60'000);
  }
}

TEST_CASE("ServerPool: one that was found dead takes those at least as old with it") {
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_floor = 9});
  const ConnKey a = f.shard.key("a");
  const ConnKey b = f.shard.key("b");
  const std::vector<FakeConn*> all = f.idle_many(3, &a);
  FakeConn& other = f.idle(&b);
  f.now_ms += 10;
  FakeConn& young = f.open(&a);
  REQUIRE(f.pick(&a, kLater) == all[2]);
  REQUIRE(f.finish(young) == Verdict::kParked);
  CHECK(f.pool.suspect(*all[2]) == 2);
  f.pool.check();
  CHECK(all[0]->why == CloseReason::kStale);
  CHECK(all[1]->why == CloseReason::kStale);
  CHECK(young.place() == Place::kIdleUnproven);
  CHECK(other.place() == Place::kIdleUnproven);
}

TEST_CASE("ServerPool: one that was found dead while idle is left to who found it") {
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_floor = 9});
  const std::vector<FakeConn*> all = f.idle_many(3, nullptr);
  CHECK(f.pool.suspect(*all[1]) == 2);
  CHECK(all[1]->place() == Place::kIdleUnproven);
  f.pool.close(*all[1], CloseReason::kStale);
  f.pool.check();
  CHECK(f.pool.idle() == 0);
}

TEST_CASE("ServerPool: the process's idle limit, exact at 0, 1 and n; the oldest gives way") {
  for (const int64_t max : {0, 1, 2, 5}) {
    CAPTURE(max);
    BudgetWorld world(1, max, 1);
    PoolFixture f({.mode = ReuseMode::kAlways, .idle_floor = 9}, &world.shards[0]->share);
    std::vector<FakeConn*> all;
    for (int i = 0; i < 6; ++i) all.push_back(&f.open());
    for (FakeConn* conn : all) {
      f.now_ms += 1;
      CHECK((f.finish(*conn) == Verdict::kParked) == (max > 0));
      CHECK(f.pool.idle() <= max);
      CHECK(world.shards[0]->share.used() == f.pool.idle());
    }
    CHECK(f.pool.idle() == max);
    for (int64_t i = 0; i < 6; ++i) {
      CHECK((all[static_cast<size_t>(i)]->place() == Place::kIdleUnproven) == (i >= 6 - max));
    }
    CHECK(f.closed(CloseReason::kIdleLimit) == 6 - static_cast<uint64_t>(max));
    f.end();
    CHECK(world.shards[0]->share.used() == 0);
  }
}

TEST_CASE("ServerPool: floor 0, 1, n: so many are kept whatever the load") {
  for (const uint32_t floor : {0U, 1U, 3U}) {
    CAPTURE(floor);
    PoolFixture f({.mode = ReuseMode::kAlways, .idle_floor = floor});
    f.idle_many(8);
    for (int i = 0; i < 20; ++i) f.pool.purge(f.now_ms += ServerPool::kPurgeMs);
    CHECK(f.pool.idle() == floor);
    f.pool.check();
  }
}

// haproxy 4cae3bf63: clients with one request each piled up connections that nobody took.
TEST_CASE("ServerPool: connections that no request may take do not pile up") {
  PoolFixture f({.mode = ReuseMode::kSafe, .idle_floor = 1});
  for (int i = 0; i < 1'000; ++i) {
    CHECK(f.pick(nullptr, {.first = true}) == nullptr);
    f.finish(f.open());
    CHECK(f.pool.idle() <= 2);
    f.reap();
  }
}

// Goal: clients that take turns, one request in flight at a time, do not drive out each other's
// only connection, which nobody else can use. Of the rest the purge takes care, and the limits.
TEST_CASE("ServerPool: each key that requests bring keeps one idle connection, not two") {
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_floor = 0});
  std::vector<std::string> names;
  for (int i = 0; i < 50; ++i) names.push_back("client" + std::to_string(i));
  std::vector<FakeConn*> conns;
  for (const std::string& name : names) {
    const ConnKey key = f.shard.key(name);
    CHECK(f.pick(&key, kLater) == nullptr);
    conns.push_back(&f.open(&key));
    CHECK(f.finish(*conns.back()) == Verdict::kParked);
  }
  CHECK(f.pool.idle() == names.size());
  for (size_t i = 0; i < names.size(); ++i) {
    const ConnKey key = f.shard.key(names[i]);
    CHECK(f.pick(&key, kLater) == conns[i]);
    CHECK(f.finish(*conns[i]) == Verdict::kParked);
  }
  const ConnKey key = f.shard.key(names[0]);
  CHECK(f.finish(f.open(&key)) == Verdict::kClosed);
  CHECK(f.closed(CloseReason::kUnneeded) == 1);
  for (int i = 0; i < 10 && f.pool.idle() > 0; ++i) f.pool.purge(f.now_ms += ServerPool::kPurgeMs);
  CHECK(f.pool.idle() == 0);
  CHECK(f.pool.groups() == 1);
  f.reap();
}

// Method: random loads; at each purge what it says it closed, it closed, and within its bounds.
TEST_CASE("ServerPool: purge closes at least 0 and at most what is idle, and ends at the floor") {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    CAPTURE(seed);
    Prng prng(seed);
    const auto floor = static_cast<uint32_t>(prng.below(4));
    PoolFixture f({.mode = ReuseMode::kAlways, .idle_floor = floor});
    std::vector<FakeConn*> busy;
    for (int period = 0; period < 6; ++period) {
      for (uint64_t burst = prng.below(60); burst > 0; --burst) {
        if (busy.empty() || prng.chance(0.5)) {
          FakeConn* conn = f.pick(nullptr, kLater);
          busy.push_back(conn != nullptr ? conn : &f.open());
        } else {
          f.finish(*busy.back());
          busy.pop_back();
        }
      }
      const uint32_t before = f.pool.idle();
      const size_t killed = f.pool.purge(f.now_ms += ServerPool::kPurgeMs);
      REQUIRE(killed <= before);
      REQUIRE(f.pool.idle() == before - killed);
      REQUIRE(f.pool.idle() >= std::min(before, floor));
      f.pool.check();
    }
    while (!busy.empty()) {
      f.finish(*busy.back());
      busy.pop_back();
    }
    const uint32_t idle = f.pool.idle();
    const uint32_t need = std::max(idle, f.pool.need());
    // Both what was needed and what is too much are halved each time: k periods leave about
    // (k + 1) / 2^k of it.
    const double bits = std::ceil(std::log2(need + 1));
    const int bound = static_cast<int>(bits + std::ceil(std::log2(bits + 2)) + 2);
    uint32_t last = idle;
    for (int i = 0; i < bound; ++i) {
      f.pool.purge(f.now_ms += ServerPool::kPurgeMs);
      REQUIRE(f.pool.idle() <= last);
      last = f.pool.idle();
    }
    CHECK(last == std::min(idle, floor));
  }
}

// 10 to 20 in use at any time, never more idle than the peak; after the first periods nothing is
// opened or closed any more.
TEST_CASE("ServerPool: a constant load neither opens nor closes connections") {
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_floor = 1});
  std::vector<FakeConn*> busy;
  size_t opened_late = 0;
  for (int period = 0; period < 20; ++period) {
    for (int round = 0; round < 50; ++round) {
      while (busy.size() < 20) {
        FakeConn* conn = f.pick(nullptr, kLater);
        if (conn == nullptr && period > 2) ++opened_late;
        busy.push_back(conn != nullptr ? conn : &f.open());
      }
      while (busy.size() > 10) {
        REQUIRE(f.finish(*busy.back()) == Verdict::kParked);
        busy.pop_back();
      }
    }
    const size_t killed = f.pool.purge(f.now_ms += ServerPool::kPurgeMs);
    if (period > 2) CHECK(killed == 0);
  }
  CHECK(opened_late == 0);
  CHECK(f.pool.total() == 20);
}

TEST_CASE("ServerPool: the purge takes those used longest ago first") {
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_floor = 0});
  const ConnKey a = f.shard.key("a");
  const ConnKey b = f.shard.key("b");
  std::vector<FakeConn*> all = {&f.open(&b), &f.open(&a), &f.open(&b), &f.open(&a)};
  for (FakeConn* conn : all) {
    ++f.now_ms;
    REQUIRE(f.finish(*conn) == Verdict::kParked);
  }
  CHECK(f.pool.oldest_idle() == all[0]);
  for (int i = 0; i < 10 && f.pool.idle() > 0; ++i) {
    f.pool.purge(f.now_ms += ServerPool::kPurgeMs);
    const auto live = [](const FakeConn* conn) { return !conn->is_closing; };
    CHECK(std::is_partitioned(all.rbegin(), all.rend(), live));
  }
  CHECK(f.pool.idle() == 0);
  CHECK(f.pool.oldest_idle() == nullptr);
}

TEST_CASE("ServerPool: transit takes an idle one out, and it leaves with its past, or closes") {
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_floor = 4});
  const ConnKey a = f.shard.key("a");
  FakeConn& conn = f.idle(&a);
  CHECK(f.pool.begin_transit("b", f.shard.key("b").hash) == nullptr);
  REQUIRE(f.pool.begin_transit(a.bytes, a.hash) == &conn);
  CHECK(conn.place() == Place::kTransit);
  CHECK(f.pool.begin_transit(a.bytes, a.hash) == nullptr);
  CHECK(f.pick(&a, kLater) == nullptr);
  SUBCASE("closed meanwhile") {
    f.pool.close(conn, CloseReason::kServerIdle);
    CHECK(conn.is_closing);
  }
  SUBCASE("reuse switched off meanwhile") {
    f.pool.update({.mode = ReuseMode::kNever});
    CHECK_FALSE(f.pool.end_transit(conn).usable);
  }
  SUBCASE("it arrives elsewhere with its past") {
    PoolFixture other;
    FakeConn& there = other.begin(&a);
    const ConnPast past = f.pool.end_transit(conn);
    CHECK(past.usable);
    CHECK(conn.place() == Place::kClosing);
    other.pool.inherit(there, past);
    CHECK(there.requests() == conn.requests());
    CHECK(there.created_ms() == conn.created_ms());
    other.pool.connected(there);
    CHECK(there.requests() == conn.requests() + 1);
    CHECK(other.stats.handed[static_cast<size_t>(How::kBorrowed)].get() == 1);
    other.pool.check();
  }
  f.pool.check();
}

TEST_CASE("ServerPool: reuse switched off closes what is idle") {
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_floor = 4});
  f.idle_many(4);
  f.pool.update({.mode = ReuseMode::kNever, .idle_floor = 4});
  CHECK(f.pool.idle() == 0);
  CHECK(f.closed(CloseReason::kReuseOff) == 4);
  f.pool.check();
}

TEST_CASE("ServerPool: gauges count each connection once, in the place where it is") {
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_floor = 4});
  const ConnKey a = f.shard.key("a");
  f.idle(&a, 2);
  f.idle();
  f.open();
  f.open(nullptr, 3);
  f.begin();
  f.pool.close(f.open(), CloseReason::kError);
  uint64_t sum = 0;
  for (size_t i = 1; i < kPlaces; ++i) {
    CHECK(f.stats.places[i].get() == f.pool.count(static_cast<Place>(i)));
    sum += f.stats.places[i].get();
  }
  CHECK(sum == f.pool.total());
  f.end();
  for (size_t i = 1; i < kPlaces; ++i) CHECK(f.stats.places[i].get() == 0);
}

}  // namespace ringway
