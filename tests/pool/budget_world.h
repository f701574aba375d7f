// tests/pool/budget_world.h - many logical shards with one budget in one thread: their users,
// waiters and idle connections, and the messages between them, delivered in any order.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "core/base/prng.h"
#include "pool/budget.h"

namespace ringway {

class BudgetWorld {
 public:
  // A unit is in use, or idle (used, and could be freed), or closing (used, promised to be freed).
  struct Shard final : BudgetPeers {
    Shard(BudgetWorld& world_in, Budget& budget, uint32_t index_in)
        : world(world_in), index(index_in), share(budget, index_in, *this) {}

    void ask_return(Budget&, uint32_t to) override { world.post(to, true); }
    void notify(Budget&, uint32_t to) override { world.post(to, false); }

    // One more user, or a waiter.
    void acquire() {
      if (idle > 0) {
        --idle;
        ++busy;
      } else if (waiting == 0 && share.try_acquire()) {
        ++busy;
      } else {
        ++waiting;
        share.want();
      }
    }
    void release() {
      --busy;
      share.release();
    }
    // A user is done, and its unit stays in use as an idle connection.
    void park() {
      if (waiting > 0) return;  // a waiter would have it
      --busy;
      ++idle;
      free_idle();
    }
    void free_idle() {
      while (idle > 0 && share.should_free()) {
        --idle;
        ++closing;
      }
    }
    void closed() {
      --closing;
      share.release_asked();
    }
    void leave() {
      if (--waiting == 0) share.withdraw();
    }
    void on_asked() {
      share.return_surplus();
      free_idle();
    }
    void on_notified() {
      share.collect();
      while (waiting > 0 && share.try_acquire()) {
        --waiting;
        ++busy;
        ++served;
      }
      share.settle(waiting > 0);
    }

    BudgetWorld& world;
    uint32_t index;
    BudgetShare share;
    int64_t busy = 0;
    int64_t idle = 0;
    int64_t closing = 0;
    int64_t waiting = 0;
    int64_t served = 0;   // waiters that got their turn
    bool asleep = false;  // sees no message
  };

  BudgetWorld(uint32_t count, int64_t max, uint64_t seed) : budget(count, max), prng(seed) {
    for (uint32_t i = 0; i < count; ++i)
      shards.push_back(std::make_unique<Shard>(*this, budget, i));
    control = std::make_unique<Control>(*this);
  }
  ~BudgetWorld() {
    for (auto& shard : shards) {
      shard->waiting = 0;
      while (shard->closing > 0) shard->closed();
      while (shard->idle > 0) {
        --shard->idle;
        shard->share.release();
      }
      while (shard->busy > 0) shard->release();
    }
    shards.clear();
  }

  void set_max(int64_t max) { budget.set_max(max, *control); }
  Shard& any() { return *shards[prng.below(shards.size())]; }

  // Delivers one message to a shard that is awake; false when there is none.
  bool deliver() {
    if (messages.empty()) return false;
    const size_t start = prng.below(messages.size());
    for (size_t i = 0; i < messages.size(); ++i) {
      const size_t at = (start + i) % messages.size();
      Shard& to = *shards[messages[at].first];
      if (to.asleep) continue;
      const bool asked = messages[at].second;
      messages[at] = messages.back();
      messages.pop_back();
      asked ? to.on_asked() : to.on_notified();
      return true;
    }
    return false;
  }
  // Everybody wakes, reads its messages, and closes what it was to close. False: it never ends.
  bool drain() {
    for (auto& shard : shards) shard->asleep = false;
    for (int64_t rounds = 0; rounds < 1'000'000; ++rounds) {
      if (deliver()) continue;
      bool closed = false;
      for (auto& shard : shards) {
        closed = closed || shard->closing > 0;
        if (shard->closing > 0) shard->closed();
      }
      if (!closed) return true;
    }
    return false;
  }

  template <typename Field>
  [[nodiscard]] int64_t sum(Field field) const {
    int64_t total = 0;
    for (const auto& shard : shards) total += field(*shard);
    return total;
  }
  [[nodiscard]] int64_t used() const {
    return sum([](const Shard& shard) { return shard.share.used(); });
  }
  [[nodiscard]] int64_t granted() const {
    return sum([](const Shard& shard) { return shard.share.granted(); });
  }
  [[nodiscard]] int64_t waiting() const {
    return sum([](const Shard& shard) { return shard.waiting; });
  }
  [[nodiscard]] int64_t idle() const {
    return sum([](const Shard& shard) { return shard.idle; });
  }

  // The law, which holds after every step, not at quiescent points only.
  [[nodiscard]] bool law() const {
    for (const auto& shard : shards) {
      const int64_t held = shard->busy + shard->idle + shard->closing;
      if (shard->share.used() != held || held > shard->share.granted()) return false;
    }
    return budget.free() + granted() + budget.gifts() == budget.units();
  }

  Budget budget;
  Prng prng;
  std::vector<std::unique_ptr<Shard>> shards;
  std::vector<std::pair<uint32_t, bool>> messages;  // to whom; asked to return, or notified

 private:
  struct Control final : BudgetPeers {
    explicit Control(BudgetWorld& world_in) : world(world_in) {}
    void ask_return(Budget&, uint32_t to) override { world.post(to, true); }
    void notify(Budget&, uint32_t to) override { world.post(to, false); }
    BudgetWorld& world;
  };

  // Merged with one that is not delivered yet, as the contract allows, every other time.
  void post(uint32_t to, bool asked) {
    const std::pair<uint32_t, bool> message{to, asked};
    if (prng.chance(0.5)) {
      for (const auto& other : messages) {
        if (other == message) return;
      }
    }
    messages.push_back(message);
  }

  std::unique_ptr<Control> control;
};

}  // namespace ringway
