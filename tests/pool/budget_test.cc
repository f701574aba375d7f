// tests/pool/budget_test.cc - the law and the liveness of budgets, over logical shards in one
// thread.
#include "pool/budget.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "tests/pool/budget_world.h"
#include "tests/support/expect_death.h"

using namespace ringway;

namespace {

using Shard = BudgetWorld::Shard;

std::vector<int64_t> caps(uint32_t shards) {
  const int64_t n = shards;
  return {0, 1, n - 1, n, 2 * n - 1, 2 * n, 7 * n, 300 * n, Budget::kOff};
}

// One random step of the world. `idle`: connections are kept idle too.
void step(BudgetWorld& world, bool idle) {
  Shard& shard = world.any();
  switch (world.prng.below(idle ? 9 : 7)) {
    case 0:
    case 1:
      if (shard.waiting < 5) shard.acquire();
      break;
    case 2:
      if (shard.busy > 0) shard.release();
      break;
    case 3:
      if (shard.waiting > 0) shard.leave();
      break;
    case 4: shard.asleep = world.prng.chance(0.3); break;
    case 5:
    case 6: world.deliver(); break;
    case 7:
      if (shard.busy > 0) shard.park();
      break;
    case 8:
      if (shard.closing > 0) shard.closed();
      break;
  }
}

// Somebody waits, or units have to be repaid, only if everything is in use, and nothing that could
// be freed is kept.
bool nothing_forgotten(const BudgetWorld& world) {
  if (world.waiting() == 0 && world.budget.free() >= 0) return true;
  return world.budget.free() <= 0 && world.granted() == world.used() && world.idle() == 0;
}

struct Walk {
  uint32_t shards;
  int64_t max;
  uint64_t seed;
  int steps;
  bool idle;
  double change_max;  // probability per step
};

// Checks the law, and that used never grows beyond max, after every step; and now and then that
// nothing is forgotten once the messages are read.
void walk(const Walk& how) {
  CAPTURE(how.shards);
  CAPTURE(how.max);
  CAPTURE(how.seed);
  BudgetWorld world(how.shards, how.max, how.seed);
  const std::vector<int64_t> limits = caps(how.shards);
  int64_t used_before = 0;
  for (int i = 0; i < how.steps; ++i) {
    if (world.prng.chance(how.change_max)) {
      world.set_max(limits[world.prng.below(limits.size())]);
    } else {
      step(world, how.idle);
    }
    const int64_t used = world.used();
    REQUIRE(world.law());
    REQUIRE((used <= world.budget.max() || used <= used_before));
    used_before = used;
    if (!world.prng.chance(0.02)) continue;
    REQUIRE(world.drain());
    used_before = world.used();
    REQUIRE(world.law());
    REQUIRE(nothing_forgotten(world));
    if (world.waiting() == 0) REQUIRE(world.budget.wanting() == 0);
    REQUIRE(world.budget.gifts() == 0);
  }
}

// Everybody releases all that it has, again and again, until nobody waits.
bool all_get_their_turn(BudgetWorld& world) {
  for (int round = 0; round < 10'000; ++round) {
    if (!world.drain()) return false;
    if (world.waiting() == 0) return true;
    for (auto& shard : world.shards) {
      if (shard->busy > 0) shard->release();
    }
  }
  return false;
}

}  // namespace

TEST_CASE("Budget: any order of operations -> the law holds, never above max, nothing forgotten") {
  for (const uint32_t shards : {1U, 2U, 3U, 8U}) {
    for (const int64_t max : caps(shards)) {
      for (uint64_t seed = 0; seed < 10; ++seed) walk({shards, max, seed, 600, false, 0});
    }
  }
}

TEST_CASE("Budget: the limit is raised and lowered at random, off included -> the same holds") {
  for (const uint32_t shards : {1U, 2U, 3U, 8U}) {
    for (uint64_t seed = 0; seed < 60; ++seed) {
      walk({shards, 0, seed, 800, seed % 2 == 0, seed % 3 == 0 ? 0.05 : 0.01});
    }
  }
}

TEST_CASE("Budget: idle connections hold units -> one is closed when another shard waits") {
  for (const uint32_t shards : {2U, 8U}) {
    for (const int64_t max : caps(shards)) {
      for (uint64_t seed = 0; seed < 10; ++seed) walk({shards, max, seed, 600, true, 0});
    }
  }
}

TEST_CASE("Budget: more shards than a word has bits, up to the most -> the same holds") {
  for (const uint32_t shards : {64U, 65U, 130U, Budget::kShardsMax}) {
    for (const int64_t max : caps(shards)) walk({shards, max, 7, 800, true, 0.005});
  }
}

TEST_CASE("Budget: random histories, then all is released -> every waiter gets a unit") {
  for (const uint32_t shards : {1U, 3U, 8U, 70U}) {
    for (const int64_t max : caps(shards)) {
      if (max == 0) continue;
      for (uint64_t seed = 0; seed < 5; ++seed) {
        CAPTURE(shards);
        CAPTURE(max);
        BudgetWorld world(shards, max, seed);
        for (int i = 0; i < 500; ++i) step(world, true);
        CHECK(all_get_their_turn(world));
        CHECK(world.law());
      }
    }
  }
}

TEST_CASE("Budget: each cap -> exactly that many units, on one shard or spread") {
  for (const uint32_t shards : {1U, 2U, 8U, 65U}) {
    for (const int64_t max : caps(shards)) {
      if (max == Budget::kOff) continue;
      CAPTURE(shards);
      CAPTURE(max);
      for (const bool spread : {false, true}) {
        BudgetWorld world(shards, max, 1);
        for (int64_t i = 0; i < max + 3; ++i) {
          world.shards[spread ? static_cast<size_t>(i) % shards : 0]->acquire();
          REQUIRE(world.drain());
        }
        CHECK(world.used() == max);
        CHECK(world.waiting() == 3);
      }
    }
  }
}

TEST_CASE("Budget: limit below twice the shards -> a released unit is free at once") {
  BudgetWorld world(4, 7, 1);
  for (int i = 0; i < 7; ++i) world.shards[0]->acquire();
  for (int i = 1; i <= 7; ++i) {
    world.shards[0]->release();
    CHECK(world.budget.free() == i);
  }
}

TEST_CASE("Budget: no limit -> everything is granted, and shards do not touch the budget") {
  BudgetWorld world(4, Budget::kOff, 1);
  for (int i = 0; i < 100'000; ++i) world.shards[0]->acquire();
  const int64_t free = world.budget.free();
  for (int i = 0; i < 100'000; ++i) world.shards[0]->acquire();
  for (int i = 0; i < 50'000; ++i) world.shards[0]->release();
  CHECK(world.budget.free() == free);
  CHECK(world.used() == 150'000);
  CHECK(world.waiting() == 0);
  CHECK(world.messages.empty());
}

TEST_CASE("Budget: limit after none -> what was in use counts, once all have reported") {
  BudgetWorld world(4, Budget::kOff, 1);
  for (int i = 0; i < 6; ++i) world.shards[static_cast<size_t>(i) % 3]->acquire();
  world.shards[1]->asleep = true;
  world.set_max(7);
  while (world.deliver()) continue;
  world.shards[3]->acquire();  // Shard 1 has not said that it uses only two.
  CHECK(world.waiting() == 1);
  REQUIRE(world.drain());
  CHECK(world.waiting() == 0);
  world.shards[3]->acquire();
  REQUIRE(world.drain());
  CHECK(world.waiting() == 1);
  CHECK(world.used() == 7);
}

TEST_CASE("Budget: idle connections, then a limit after none -> only the excess is closed") {
  BudgetWorld world(4, Budget::kOff, 1);
  for (int i = 0; i < 12; ++i) world.shards[static_cast<size_t>(i) % 4]->acquire();
  for (int i = 0; i < 12; ++i) world.shards[static_cast<size_t>(i) % 4]->park();
  world.set_max(9);
  REQUIRE(world.drain());
  CHECK(world.idle() == 9);
  CHECK(world.used() == 9);
}

TEST_CASE("Budget: limit lowered below use -> nobody acquires, not even from its own surplus") {
  BudgetWorld world(2, 400, 1);
  for (int i = 0; i < 130; ++i) world.shards[0]->acquire();
  REQUIRE(world.shards[0]->share.granted() > world.shards[0]->share.used());
  world.set_max(100);
  CHECK_FALSE(world.shards[0]->share.try_acquire());
  REQUIRE(world.drain());
  CHECK(world.budget.free() == -30);
  for (int i = 0; i < 30; ++i) {
    world.shards[0]->release();
    CHECK_FALSE(world.shards[0]->share.try_acquire());
    CHECK_FALSE(world.shards[1]->share.try_acquire());
  }
  world.shards[0]->release();
  world.shards[1]->acquire();  // Shard 0 kept it, since nobody had to be repaid, and is asked.
  REQUIRE(world.drain());
  CHECK(world.used() == 100);
  CHECK(world.waiting() == 0);
}

TEST_CASE("Budget: limit raised -> those who wait get units without anybody releasing") {
  BudgetWorld world(3, 0, 1);
  for (auto& shard : world.shards) {
    for (int i = 0; i < 4; ++i) shard->acquire();
  }
  world.set_max(12);
  REQUIRE(world.drain());
  CHECK(world.waiting() == 0);
  CHECK(world.used() == 12);
}

TEST_CASE("Budget: one waiter, many shards with idle connections -> exactly one is closed") {
  BudgetWorld world(8, 21, 3);
  for (size_t i = 0; i < 21; ++i) world.shards[i % 7]->acquire();
  for (size_t i = 0; i < 21; ++i) world.shards[i % 7]->park();
  CHECK(world.idle() == 21);
  world.shards[7]->acquire();
  REQUIRE(world.drain());
  CHECK(world.waiting() == 0);
  CHECK(world.idle() == 20);
}

// Goal: a hot shard cannot keep a scarce unit to itself, and every shard gets its turn.
TEST_CASE("Budget: one unit, one shard hot -> units go round to all that wait") {
  for (const uint32_t shards : {2U, 8U, 70U}) {
    for (uint64_t seed = 0; seed < 5; ++seed) {
      BudgetWorld world(shards, 1, seed);
      for (int i = 0; i < 1'000; ++i) world.shards[0]->acquire();
      for (uint32_t s = 1; s < shards; ++s) {
        for (int i = 0; i < 50; ++i) world.shards[s]->acquire();
      }
      for (uint32_t i = 0; i < 20 * shards; ++i) {
        for (auto& shard : world.shards) {
          if (shard->busy > 0) shard->release();
        }
        REQUIRE(world.drain());
        REQUIRE(world.used() == 1);
      }
      for (auto& shard : world.shards) {
        CHECK(shard->served >= 19);
        CHECK(shard->served <= 21);
      }
    }
  }
}

TEST_CASE(
    "Budget: a newcomer where others wait -> it queues, even when it comes at the right time") {
  BudgetWorld world(2, 1, 1);
  world.shards[0]->acquire();
  world.shards[1]->acquire();
  CHECK(world.waiting() == 1);
  world.shards[0]->release();
  CHECK_FALSE(world.shards[0]->share.try_acquire());  // It is on its way to shard 1.
  REQUIRE(world.drain());
  CHECK(world.shards[1]->busy == 1);
}

TEST_CASE("Budget: the waiter leaves while its unit is on the way -> the next one gets it") {
  BudgetWorld world(3, 1, 1);
  world.shards[0]->acquire();
  world.shards[1]->acquire();
  world.shards[0]->release();
  world.shards[1]->leave();
  world.shards[2]->acquire();
  CHECK(world.waiting() == 1);
  REQUIRE(world.drain());
  CHECK(world.shards[2]->busy == 1);
}

TEST_CASE("Lease: moved, reset and destroyed -> returned once") {
  BudgetWorld world(1, 2, 1);
  BudgetShare& share = world.shards[0]->share;
  {
    Lease first = Lease::acquire(share);
    CHECK(first);
    CHECK(first.share() == &share);
    Lease second = std::move(first);
    CHECK_FALSE(first);  // NOLINT(bugprone-use-after-move): empty by contract
    CHECK(share.used() == 1);
    first = Lease::acquire(share);
    CHECK(share.used() == 2);
    CHECK_FALSE(Lease::acquire(share));
    first = std::move(second);  // Returns what it had.
    CHECK(share.used() == 1);
    first.release();
    first.release();
    CHECK(share.used() == 0);
    second = Lease::acquire(share);
    CHECK(share.used() == 1);
  }
  CHECK(share.used() == 0);
}

TEST_CASE("Budget: misuse -> the process ends") {
  const auto failed = [](const std::string& said) {
    return said.find("check failed") != std::string::npos;
  };
  CHECK(failed(death_of([] { Budget(0, 1); })));
  CHECK(failed(death_of([] { Budget(Budget::kShardsMax + 1, 1); })));
  CHECK(failed(death_of([] { Budget(1, -1); })));
  CHECK(failed(death_of([] { Budget(1, Budget::kLimitMax + 1); })));
  CHECK(failed(death_of([] { BudgetWorld(1, 1, 1).set_max(-1); })));
  CHECK(failed(death_of([] { BudgetWorld(1, 1, 1).shards[0]->share.release(); })));
  CHECK(failed(death_of([] { BudgetWorld(1, 1, 1).shards[0]->share.release_asked(); })));
  CHECK(failed(death_of([] {  // A unit nobody promised to free.
    BudgetWorld world(1, 1, 1);
    world.shards[0]->acquire();
    world.shards[0]->share.release_asked();
  })));
  CHECK(failed(death_of([] {  // A share dies with a unit in use.
    BudgetWorld world(1, 1, 1);
    world.shards[0]->acquire();
    world.shards.clear();
  })));
  CHECK(death_of([] { BudgetWorld(1, 1, 1).shards[0]->acquire(); }) == "survived");
}
