// tests/pool/wait_queue_test.cc
#include "pool/wait_queue.h"

#include <doctest/doctest.h>

#include <deque>
#include <memory>
#include <vector>

#include "core/base/prng.h"
#include "tests/support/expect_death.h"

using namespace ringway;

namespace {

constexpr int64_t kStart = 1'000'000;

struct World final : WaitQueueOwner {
  explicit World(uint64_t max) : queue(timers, max, gauge, *this) {}
  void on_queue_empty() override {
    CHECK(queue.empty());
    ++emptied;
  }

  Timers timers{kStart};
  Counter gauge;
  WaitQueue queue;
  std::vector<int> turns;     // who had its turn
  std::vector<int> timeouts;  // who ran out of time
  int emptied = 0;
};

struct Client final : Waiter {
  Client(World& world_in, int name_in) : world(world_in), name(name_in) {}
  void on_turn() override {
    CHECK_FALSE(is_waiting());
    world.turns.push_back(name);
    if (goes_back) world.queue.push_front(*this);
    if (again) CHECK(world.queue.push(*this, deadline_ms()));
    if (takes_along != nullptr) world.queue.remove(*takes_along);
    if (dies != nullptr) dies->reset();  // The last act: it is us.
  }
  void on_queue_timeout() override {
    CHECK_FALSE(is_waiting());
    world.timeouts.push_back(name);
    if (dies != nullptr) dies->reset();
  }

  World& world;
  int name;
  bool goes_back = false;
  bool again = false;
  Client* takes_along = nullptr;
  std::unique_ptr<Client>* dies = nullptr;
};

}  // namespace

TEST_CASE("WaitQueue: pushed -> nobody is called; woken in the order they came") {
  World world(10);
  Client a(world, 1);
  Client b(world, 2);
  Client c(world, 3);
  for (Client* client : {&a, &b, &c}) CHECK(world.queue.push(*client, kStart + 1'000));
  CHECK(world.turns.empty());
  CHECK(world.queue.front() == &a);
  CHECK(world.gauge.get() == 3);
  CHECK(world.queue.wake(2));
  CHECK(world.turns == std::vector<int>{1, 2});
  CHECK(world.queue.wake(2));
  CHECK(world.turns == std::vector<int>{1, 2, 3});
  CHECK(world.gauge.get() == 0);
  CHECK(world.emptied == 0);  // Taken, not left.
  world.timers.expire(kStart + 10'000);
  CHECK(world.timeouts.empty());
}

TEST_CASE("WaitQueue: max 0, 1, 2 -> that many wait, the next is refused and untouched") {
  for (const uint64_t max : {0U, 1U, 2U}) {
    World world(max);
    std::deque<Client> clients;
    for (int i = 0; i < 3; ++i) clients.emplace_back(world, i);
    for (uint64_t i = 0; i < 3; ++i) {
      CHECK(world.queue.push(clients[i], kStart + 1) == (i < max));
      CHECK(clients[i].is_waiting() == (i < max));
    }
    CHECK(world.queue.length() == max);
    world.queue.set_max(max + 1);
    CHECK(world.queue.push(clients[max], kStart + 1));
  }
}

TEST_CASE("WaitQueue: the limit is lowered -> those inside stay, newcomers are refused") {
  World world(2);
  Client a(world, 1);
  Client b(world, 2);
  CHECK(world.queue.push(a, kStart + 1));
  world.queue.set_max(0);
  CHECK_FALSE(world.queue.push(b, kStart + 1));
  CHECK(a.is_waiting());
}

TEST_CASE("WaitQueue: deadlines pass -> timed out once, out of the queue, the others stay") {
  World world(10);
  Client a(world, 1);
  Client b(world, 2);
  CHECK(world.queue.push(a, kStart + 500));
  CHECK(world.queue.push(b, kStart + 100));
  world.timers.expire(kStart + 99);
  CHECK(world.timeouts.empty());
  world.timers.expire(kStart + 100 + Timers::kTickMs);
  CHECK(world.timeouts == std::vector<int>{2});
  CHECK(world.emptied == 0);
  CHECK(world.queue.length() == 1);
  world.timers.expire(kStart + 500 + Timers::kTickMs);
  CHECK(world.timeouts == std::vector<int>{2, 1});
  CHECK(world.emptied == 1);
  CHECK(world.gauge.get() == 0);
  CHECK(world.turns.empty());
}

TEST_CASE("WaitQueue: deadline in the past -> timed out by the timers, not inside push") {
  World world(10);
  Client a(world, 1);
  CHECK(world.queue.push(a, 1));
  CHECK(world.timeouts.empty());
  world.timers.expire(kStart + Timers::kTickMs);
  CHECK(world.timeouts == std::vector<int>{1});
}

TEST_CASE("WaitQueue: a waiter leaves or dies -> its place is free at once, its timer gone") {
  World world(2);
  Client a(world, 1);
  auto b = std::make_unique<Client>(world, 2);
  Client c(world, 3);
  CHECK(world.queue.push(a, kStart + 100));
  CHECK(world.queue.push(*b, kStart + 100));
  b.reset();
  CHECK(world.queue.push(c, kStart + 100));
  world.queue.remove(a);
  world.queue.remove(a);
  CHECK(world.emptied == 0);
  CHECK(world.queue.front() == &c);
  world.queue.remove(c);
  CHECK(world.emptied == 1);
  CHECK(world.gauge.get() == 0);
  world.timers.expire(kStart + 1'000);
  CHECK(world.timeouts.empty());
}

TEST_CASE("WaitQueue: nothing for the first one -> it goes back to the front with its deadline") {
  World world(2);
  Client a(world, 1);
  Client b(world, 2);
  Client c(world, 3);
  CHECK(world.queue.push(a, kStart + 100));
  CHECK(world.queue.push(b, kStart + 900));
  a.goes_back = true;
  CHECK_FALSE(world.queue.wake(2));
  CHECK(world.turns == std::vector<int>{1});
  CHECK(world.queue.front() == &a);
  CHECK_FALSE(world.queue.push(c, kStart + 100));  // It kept its place.
  world.timers.expire(kStart + 100 + Timers::kTickMs);
  CHECK(world.timeouts == std::vector<int>{1});
}

TEST_CASE("WaitQueue: a turn queues again, ends others or itself -> each is called at most once") {
  World world(10);
  Client a(world, 1);
  Client b(world, 2);
  auto c = std::make_unique<Client>(world, 3);
  Client d(world, 4);
  for (Client* client : {&a, &b, c.get(), &d}) CHECK(world.queue.push(*client, kStart + 100));
  a.again = true;
  a.takes_along = &b;
  c->dies = &c;
  CHECK(world.queue.wake(100));
  CHECK(world.turns == std::vector<int>{1, 3, 4});
  CHECK(c == nullptr);
  CHECK(world.queue.front() == &a);
  CHECK(world.queue.length() == 1);
}

TEST_CASE("WaitQueue: a waiter dies in its timeout -> nothing else is touched") {
  World world(10);
  auto a = std::make_unique<Client>(world, 1);
  a->dies = &a;
  CHECK(world.queue.push(*a, kStart + 10));
  world.timers.expire(kStart + 100);
  CHECK(a == nullptr);
  CHECK(world.timeouts == std::vector<int>{1});
}

// Goal: against a plain deque, any order of calls gives the same order of turns and timeouts.
TEST_CASE("WaitQueue: random calls -> first in, first out, as in a simple model") {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    CAPTURE(seed);
    Prng prng(seed);
    World world(8);
    std::deque<Client> clients;
    for (int i = 0; i < 16; ++i) clients.emplace_back(world, i);
    std::deque<int> model;
    std::vector<int> turns;
    for (int i = 0; i < 500; ++i) {
      Client& client = clients[prng.below(16)];
      switch (prng.below(3)) {
        case 0: {
          if (client.is_waiting()) break;
          const bool fits = model.size() < 8;
          REQUIRE(world.queue.push(client, kStart + 1'000'000) == fits);
          if (fits) model.push_back(client.name);
          break;
        }
        case 1:
          world.queue.remove(client);
          std::erase(model, client.name);
          break;
        case 2: {
          const uint64_t count = prng.below(3);
          world.queue.wake(count);
          for (uint64_t n = 0; n < count && !model.empty(); ++n) {
            turns.push_back(model.front());
            model.pop_front();
          }
          break;
        }
      }
      REQUIRE(world.queue.length() == model.size());
      REQUIRE(world.gauge.get() == model.size());
      REQUIRE(world.turns == turns);
    }
    for (Client& client : clients) world.queue.remove(client);
  }
}

TEST_CASE("WaitQueue: misuse -> the process ends") {
  const auto failed = [](const std::string& said) {
    return said.find("check failed") != std::string::npos;
  };
  CHECK(failed(death_of([] {  // Twice.
    World world(2);
    Client a(world, 1);
    (void)world.queue.push(a, kStart);
    (void)world.queue.push(a, kStart);
  })));
  CHECK(failed(death_of([] {  // No deadline.
    World world(2);
    Client a(world, 1);
    (void)world.queue.push(a, 0);
  })));
  CHECK(failed(death_of([] {  // It never waited.
    World world(2);
    Client a(world, 1);
    world.queue.push_front(a);
  })));
  CHECK(failed(death_of([] {  // Another queue's.
    World world(2);
    World other(2);
    Client a(world, 1);
    (void)world.queue.push(a, kStart);
    other.queue.remove(a);
  })));
  CHECK(failed(death_of([] {  // The queue dies first.
    auto world = std::make_unique<World>(2);
    auto* a = new Client(*world, 1);
    (void)world->queue.push(*a, kStart);
    world.reset();
  })));
}
