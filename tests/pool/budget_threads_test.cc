// tests/pool/budget_threads_test.cc - a budget under real threads: each a shard with a mailbox.
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "core/base/prng.h"
#include "core/mailbox.h"
#include "pool/budget.h"

using namespace ringway;

namespace {

constexpr uint32_t kShards = 8;

enum Kind : uint32_t { kAskReturn, kNotify };

// What all threads see.
struct Stage {
  explicit Stage(int64_t max) : budget(kShards, max), ceiling(max) {
    for (uint32_t i = 0; i < kShards; ++i) boxes.emplace_back(1 << 14);
  }

  void set_ceiling(int64_t max) {
    ceiling = max;
    changes.fetch_add(1);
  }

  Budget budget;
  std::deque<Mailbox> boxes;
  std::atomic<int64_t> ceiling;  // used is not above it, while `changes` stays the same
  std::atomic<uint32_t> changes{0};
  std::atomic<int64_t> in_use{0};  // counted after an acquire and before a release: at most used
  std::atomic<int64_t> waiting{0};
  std::atomic<int> hammering{kShards};
  std::atomic<bool> exceeded{false};
  std::atomic<bool> undelivered{false};
  std::atomic<bool> stuck{false};
};

struct Peers final : BudgetPeers {
  explicit Peers(Stage& stage_in) : stage(stage_in) {}
  void ask_return(Budget&, uint32_t shard) override { post(shard, kAskReturn); }
  void notify(Budget&, uint32_t shard) override { post(shard, kNotify); }
  void post(uint32_t shard, uint32_t kind) {
    if (!stage.boxes[shard].post({.kind = kind})) stage.undelivered = true;
  }
  Stage& stage;
};

class ShardThread {
 public:
  ShardThread(Stage& stage, uint32_t index, uint64_t seed)
      : stage_(stage), peers_(stage), share_(stage.budget, index, peers_), prng_(seed) {}

  void run(int steps) {
    for (int i = 0; i < steps; ++i) {
      read_messages();
      switch (prng_.below(8)) {
        case 0:
        case 1:
        case 2: acquire(); break;
        case 3:
        case 4:
        case 5: release(); break;
        case 6: leave(); break;
        case 7: std::this_thread::yield(); break;
      }
    }
    finish();
  }

 private:
  // Everybody releases what it has, until nobody waits. Far longer than it can take: lost a unit.
  void finish() {
    stage_.hammering.fetch_sub(1);
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (stage_.hammering.load() > 0 || stage_.waiting.load() > 0) {
      read_messages();
      while (busy_ > 0) release();
      std::this_thread::yield();
      if (std::chrono::steady_clock::now() < limit) continue;
      stage_.stuck = true;
      break;
    }
    read_messages();
    while (busy_ > 0) release();
    waiting_ = 0;
  }

  bool try_acquire() {
    const uint32_t changes = stage_.changes.load();
    const int64_t ceiling = stage_.ceiling.load();
    if (!share_.try_acquire()) return false;
    const bool above = stage_.in_use.fetch_add(1) + 1 > ceiling;
    // A limit that was raised meanwhile allows more; it is not known how much.
    if (above && stage_.changes.load() == changes) stage_.exceeded = true;
    ++busy_;
    return true;
  }
  void acquire() {
    if (waiting_ == 0 && try_acquire()) return;
    if (waiting_ >= 4) return;
    ++waiting_;
    stage_.waiting.fetch_add(1);
    share_.want();
  }
  void release() {
    if (busy_ == 0) return;
    --busy_;
    stage_.in_use.fetch_sub(1);
    share_.release();
  }
  void leave() {
    if (waiting_ == 0) return;
    stage_.waiting.fetch_sub(1);
    if (--waiting_ == 0) share_.withdraw();
  }
  void read_messages() {
    Message message;
    while (stage_.boxes[share_.shard()].take(message)) {
      if (message.kind == kAskReturn) {
        share_.return_surplus();
        continue;
      }
      share_.collect();
      while (waiting_ > 0 && try_acquire()) {
        --waiting_;
        stage_.waiting.fetch_sub(1);
      }
      share_.settle(waiting_ > 0);
    }
  }

  Stage& stage_;
  Peers peers_;
  BudgetShare share_;
  Prng prng_;
  int64_t busy_ = 0;
  int64_t waiting_ = 0;
};

// Raises and lowers the limit while the shards run. The ceiling follows a lower limit once what is
// nothing is owed any more: from then on it may not be above.
void change_limits(Stage& stage, uint64_t seed) {
  Prng prng(seed);
  Peers peers(stage);
  const int64_t limits[] = {0, 1, kShards - 1, kShards, 2 * kShards, 1'000, Budget::kOff};
  while (stage.hammering.load() > 0) {
    const int64_t max = limits[prng.below(std::size(limits))];
    if (max > stage.ceiling.load()) stage.set_ceiling(max);  // before anybody may use it
    stage.budget.set_max(max, peers);
    for (int i = 0; i < 200; ++i) {
      if (max < stage.ceiling.load() && stage.budget.free() >= 0) {
        // Nothing is owed: sum of granted, and so used, is at most max.
        stage.set_ceiling(max);
      }
      std::this_thread::yield();
    }
  }
  if (stage.ceiling.load() < 3) stage.set_ceiling(3);
  stage.budget.set_max(3, peers);  // So that everybody who waits can get a unit.
}

void hammer(int64_t max, bool changes, int steps, uint64_t seed) {
  CAPTURE(max);
  CAPTURE(seed);
  Stage stage(max);
  {
    std::vector<std::unique_ptr<ShardThread>> shards;
    std::vector<std::thread> threads;
    for (uint32_t i = 0; i < kShards; ++i) {
      shards.push_back(std::make_unique<ShardThread>(stage, i, seed * 100 + i));
    }
    for (auto& shard : shards) threads.emplace_back([&shard, steps] { shard->run(steps); });
    if (changes) threads.emplace_back([&stage, seed] { change_limits(stage, seed); });
    for (std::thread& thread : threads) thread.join();
  }  // The shares return what they hold...
  CHECK(stage.budget.free() + stage.budget.gifts() ==
        stage.budget.units());  // ...and the law holds.
  CHECK(stage.in_use.load() == 0);
  CHECK_FALSE(stage.exceeded.load());
  CHECK_FALSE(stage.undelivered.load());
  CHECK_FALSE(stage.stuck.load());
}

// Both threads come here, and go on together.
class Meeting {
 public:
  void meet() {
    const uint32_t round = round_.load();
    if (arrived_.fetch_add(1) + 1 == 2) {
      arrived_ = 0;
      round_ = round + 1;
      return;
    }
    for (int spins = 0; round_.load() == round; ++spins) {
      if (spins > 1'000) std::this_thread::yield();
    }
  }

 private:
  std::atomic<uint32_t> arrived_{0};
  std::atomic<uint32_t> round_{0};
};

// One that has the only unit left, and one that wants it, at the same moment. `kSurplus`: the
// holder keeps a released unit for itself; `kFree`: it gives it to the budget; `kIdle`: it parks
// it.
enum class Holds { kSurplus, kFree, kIdle };

struct Race {
  explicit Race(Holds holds_in) : holds(holds_in), budget(2, holds_in == Holds::kSurplus ? 4 : 1) {
    boxes.emplace_back(64);
    boxes.emplace_back(64);
  }
  struct RacePeers final : BudgetPeers {
    explicit RacePeers(Race& race_in) : race(race_in) {}
    void ask_return(Budget&, uint32_t to) override {
      RW_CHECK(race.boxes[to].post({.kind = kAskReturn}));
    }
    void notify(Budget&, uint32_t to) override { RW_CHECK(race.boxes[to].post({.kind = kNotify})); }
    Race& race;
  };

  Holds holds;
  Budget budget;
  std::deque<Mailbox> boxes;
  Meeting meeting;
};

void pause(Prng& prng) {
  for (uint64_t n = prng.below(400); n > 0; --n)
    std::atomic_signal_fence(std::memory_order_seq_cst);
}

void race_holder(Race& race, int rounds) {
  Race::RacePeers peers(race);
  BudgetShare share(race.budget, 0, peers);
  Prng prng(1);
  Message message;
  const int busy = race.holds == Holds::kSurplus ? 3 : 0;
  for (int i = 0; i < busy; ++i) RW_CHECK(share.try_acquire());
  share.return_surplus();
  for (int i = 0; i < rounds; ++i) {
    RW_CHECK(share.try_acquire());
    race.meeting.meet();
    pause(prng);
    bool close = false;
    if (race.holds == Holds::kIdle) {
      close = share.should_free();
    } else {
      share.release();
    }
    race.meeting.meet();
    while (race.boxes[0].take(message)) {
      share.return_surplus();
      close = close || (race.holds == Holds::kIdle && share.should_free());
    }
    if (close) share.release_asked();
    race.meeting.meet();  // the other one looks
    race.meeting.meet();
    while (race.boxes[0].take(message)) share.return_surplus();
    if (race.holds == Holds::kIdle && share.used() > 0) share.release();  // only after a failure
    share.return_surplus();
  }
  while (share.used() > 0) share.release();
}

int race_wanter(Race& race, int rounds) {
  Race::RacePeers peers(race);
  BudgetShare share(race.budget, 1, peers);
  Prng prng(2);
  Message message;
  int without = 0;
  for (int i = 0; i < rounds; ++i) {
    race.meeting.meet();
    pause(prng);
    bool has = share.try_acquire();
    if (!has) share.want();
    race.meeting.meet();
    race.meeting.meet();  // the holder has read its messages
    while (race.boxes[1].take(message)) {
      share.collect();
      has = has || share.try_acquire();
      share.settle(!has);
    }
    without += has ? 0 : 1;
    share.withdraw();
    if (has) share.release();
    share.return_surplus();
    race.meeting.meet();
  }
  return without;
}

}  // namespace

TEST_CASE("Budget, threads: a unit comes free while another shard begins to want -> it gets it") {
  for (const Holds holds : {Holds::kSurplus, Holds::kFree, Holds::kIdle}) {
    constexpr int kRounds = 30'000;
    Race race(holds);
    std::thread holder([&race] { race_holder(race, kRounds); });
    const int without = race_wanter(race, kRounds);
    holder.join();
    CAPTURE(static_cast<int>(holds));
    CHECK(without == 0);
  }
}

TEST_CASE("Budget, threads: hammered at small and larger limits -> never exceeded, none starves") {
  for (const int64_t max : {int64_t{1}, int64_t{kShards - 1}, int64_t{kShards},
                            int64_t{2 * kShards}, int64_t{20}, int64_t{1'000}}) {
    for (uint64_t seed = 0; seed < 3; ++seed) hammer(max, false, 4'000, seed);
  }
}

TEST_CASE("Budget, threads: the limit changes meanwhile, off included -> the same holds") {
  for (uint64_t seed = 0; seed < 6; ++seed) hammer(kShards, true, 20'000, seed);
}
