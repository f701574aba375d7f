// tests/core/timers_test.cc
#include "core/timers.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <vector>

using namespace ringway;

namespace {

constexpr int64_t kStart = 1'000'003;  // Not on a tick.

// Counts how often its timer fired; `then` says what happens meanwhile.
struct Owner : TimerOwner {
  void on_timer(Timer& which) override {
    CHECK(&which == &timer);
    CHECK_FALSE(timer.is_set());
    ++fired;
    act();
  }
  virtual void act() {}

  Timer timer{*this};
  int fired = 0;

 protected:
  ~Owner() = default;
};

struct PlainOwner final : Owner {};

template <typename Action>
struct ActingOwner final : Owner {
  explicit ActingOwner(Action action_in) : action(action_in) {}
  void act() override { action(*this); }
  Action action;
};

}  // namespace

TEST_CASE("Timers: deadline passes -> fires once, never early, at most a tick late") {
  for (const int64_t delay :
       {int64_t{1}, int64_t{5}, int64_t{8}, int64_t{9}, int64_t{503}, int64_t{512}, int64_t{513},
        int64_t{4096}, int64_t{32'767}, int64_t{32'768}, int64_t{60'000}, int64_t{2'097'152},
        int64_t{86'400'000}, int64_t{400'000'000}}) {
    CAPTURE(delay);
    Timers timers(kStart);
    PlainOwner owner;
    CHECK(timers.next_in_ms(kStart) == -1);
    timers.set(owner.timer, kStart + delay);
    CHECK(owner.timer.is_set());
    CHECK(owner.timer.deadline_ms() == kStart + delay);
    // Sleeping as told must reach the deadline in few steps, and not miss it.
    int64_t now = kStart;
    int wakes = 0;
    while (owner.fired == 0 && ++wakes < 1000) {
      const int64_t in = timers.next_in_ms(now);
      REQUIRE(in >= 0);
      now += in;
      timers.expire(now);
      if (owner.fired == 0) CHECK(now < kStart + delay + Timers::kTickMs);
    }
    CHECK(owner.fired == 1);
    CHECK(now >= kStart + delay);
    CHECK(now < kStart + delay + Timers::kTickMs);
    CHECK(wakes <= 12);
    CHECK_FALSE(owner.timer.is_set());
    CHECK(timers.next_in_ms(now) == -1);
  }
}

TEST_CASE("Timers: deadline in the past or now -> fires within a tick") {
  Timers timers(kStart);
  timers.expire(kStart);
  PlainOwner past;
  PlainOwner present;
  timers.set(past.timer, 1);
  timers.set(present.timer, kStart);
  CHECK(timers.next_in_ms(kStart) <= Timers::kTickMs);
  timers.expire(kStart + Timers::kTickMs);
  CHECK(past.fired == 1);
  CHECK(present.fired == 1);
}

TEST_CASE("Timers: moved later -> fires at the new deadline; moved earlier -> at that") {
  Timers timers(kStart);
  PlainOwner owner;
  timers.set(owner.timer, kStart + 100);
  for (int64_t now = kStart; now < kStart + 10'000; now += 50) {
    timers.expire(now);
    timers.set(owner.timer, now + 100);
  }
  CHECK(owner.fired == 0);
  timers.set(owner.timer, kStart + 3'600'000);
  timers.expire(kStart + 60'000);
  CHECK(owner.fired == 0);
  timers.set(owner.timer, kStart + 60'100);
  timers.expire(kStart + 60'099);
  CHECK(owner.fired == 0);
  timers.expire(kStart + 60'108);
  CHECK(owner.fired == 1);
}

TEST_CASE("Timers: cancelled -> does not fire, and may be set again") {
  Timers timers(kStart);
  PlainOwner owner;
  timers.cancel(owner.timer);
  timers.set(owner.timer, kStart + 100);
  timers.cancel(owner.timer);
  timers.cancel(owner.timer);
  CHECK_FALSE(owner.timer.is_set());
  timers.expire(kStart + 50);
  timers.set(owner.timer, kStart + 70);
  timers.expire(kStart + 80);
  CHECK(owner.fired == 1);
  timers.set(owner.timer, kStart + 200);
  timers.cancel(owner.timer);
  timers.expire(kStart + 1000);
  CHECK(owner.fired == 1);
  CHECK(timers.next_in_ms(kStart + 1000) == -1);
}

TEST_CASE("Timers: owner dies while set -> nothing fires and nothing is filed") {
  Timers timers(kStart);
  {
    PlainOwner near;
    PlainOwner far;
    timers.set(near.timer, kStart + 10);
    timers.set(far.timer, kStart + 1'000'000);
    CHECK(timers.next_in_ms(kStart) >= 0);
  }
  CHECK(timers.next_in_ms(kStart) == -1);
  timers.expire(kStart + 2'000'000);
  CHECK(timers.next_in_ms(kStart + 2'000'000) == -1);
}

TEST_CASE("Timers: die before their timers -> timers are free again") {
  PlainOwner owner;
  {
    Timers timers(kStart);
    timers.set(owner.timer, kStart + 10);
  }
  CHECK_FALSE(owner.timer.is_linked());
  Timers timers(kStart);
  timers.set(owner.timer, kStart + 10);
  timers.expire(kStart + 20);
  CHECK(owner.fired == 1);
}

TEST_CASE("Timers: more due than a turn's budget -> the rest is due at once") {
  constexpr size_t kMany = 2 * Timers::kExpiriesPerTurn + 10;
  Timers timers(kStart);
  std::vector<std::unique_ptr<PlainOwner>> owners;
  for (size_t i = 0; i < kMany; ++i) {
    owners.push_back(std::make_unique<PlainOwner>());
    timers.set(owners.back()->timer, kStart + 100 + static_cast<int64_t>(i % 50));
  }
  const auto count = [&] {
    int fired = 0;
    for (const auto& owner : owners) fired += owner->fired;
    return fired;
  };
  const int64_t now = kStart + 1000;
  timers.expire(now);
  CHECK(count() == Timers::kExpiriesPerTurn);
  CHECK(timers.next_in_ms(now) == 0);
  timers.expire(now);
  CHECK(count() == 2 * Timers::kExpiriesPerTurn);
  // One of those left over is cancelled, one moved, one dies.
  int handled = 0;
  for (auto& owner : owners) {
    if (owner->fired != 0 || !owner->timer.is_set()) continue;
    if (handled == 0) timers.cancel(owner->timer);
    if (handled == 1) timers.set(owner->timer, now + 500);
    if (handled == 2) owner = std::make_unique<PlainOwner>();
    ++handled;
  }
  CHECK(handled == 10);
  timers.expire(now);
  CHECK(count() == static_cast<int>(kMany) - 3);
  CHECK(timers.next_in_ms(now) > 0);
  timers.expire(now + 510);
  CHECK(count() == static_cast<int>(kMany) - 2);
}

TEST_CASE("Timers: filed again in bulk -> bounded per turn, none lost") {
  constexpr size_t kMany = Timers::kMovesPerTurn + 100;
  Timers timers(kStart);
  std::vector<std::unique_ptr<PlainOwner>> owners;
  for (size_t i = 0; i < kMany; ++i) {
    owners.push_back(std::make_unique<PlainOwner>());
    timers.set(owners.back()->timer, kStart + 100);
    timers.set(owners.back()->timer, kStart + 100'000);
  }
  timers.expire(kStart + 200);
  CHECK(timers.next_in_ms(kStart + 200) == 0);
  timers.expire(kStart + 200);
  CHECK(timers.next_in_ms(kStart + 200) > 0);
  for (int i = 0; i < 40; ++i) timers.expire(kStart + 100'010);
  int fired = 0;
  for (const auto& owner : owners) fired += owner->fired;
  CHECK(fired == static_cast<int>(kMany));
}

TEST_CASE("Timers: the clock jumps by years -> everything due fires, at once and once") {
  Timers timers(kStart);
  std::vector<std::unique_ptr<PlainOwner>> owners;
  for (int64_t delay = 1; delay < 1'000'000'000; delay *= 3) {
    owners.push_back(std::make_unique<PlainOwner>());
    timers.set(owners.back()->timer, kStart + delay);
  }
  const int64_t late = kStart + int64_t{10} * 365 * 86'400'000;
  timers.expire(late);
  for (const auto& owner : owners) CHECK(owner->fired == 1);
  CHECK(timers.next_in_ms(late) == -1);
  timers.set(owners[0]->timer, late + 100);
  timers.expire(late + 110);
  CHECK(owners[0]->fired == 2);
}

TEST_CASE("Timers: the farthest deadline -> kept, no overflow") {
  Timers timers(kStart);
  PlainOwner owner;
  timers.set(owner.timer, INT64_MAX);
  timers.expire(kStart + 400'000'000);
  CHECK(owner.fired == 0);
  CHECK(owner.timer.is_set());
  CHECK(timers.next_in_ms(kStart + 400'000'000) > 0);
}

// Deletes itself when its timer fires.
struct Suicide final : TimerOwner {
  explicit Suicide(int& count_in) : count(count_in) {}
  void on_timer(Timer&) override {
    ++count;
    delete this;
  }
  Timer timer{*this};
  int& count;
};

TEST_CASE("Timers: set, cancel and destroy from inside on_timer") {
  Timers timers(kStart);
  PlainOwner cancelled;
  auto dying = std::make_unique<PlainOwner>();
  ActingOwner again([&](Owner& self) {
    if (self.fired < 3) timers.set(self.timer, 1);  // Due already.
  });
  ActingOwner killer([&](Owner&) {
    timers.cancel(cancelled.timer);
    dying.reset();
  });
  int suicides = 0;
  // All in one slot, the killer before its victims.
  timers.set(again.timer, kStart + 20);
  timers.set(killer.timer, kStart + 20);
  timers.set((new Suicide(suicides))->timer, kStart + 20);
  timers.set(cancelled.timer, kStart + 20);
  timers.set(dying->timer, kStart + 20);
  for (int i = 0; i < 4; ++i) timers.expire(kStart + 100 + i * Timers::kTickMs);
  CHECK(again.fired == 3);
  CHECK(killer.fired == 1);
  CHECK(suicides == 1);
  CHECK(cancelled.fired == 0);
  CHECK(dying == nullptr);
  CHECK(timers.next_in_ms(kStart + 200) == -1);
}

namespace {

// A world of timers next to a reference model: `due` holds what must fire, by deadline.
struct World {
  struct Item final : TimerOwner {
    explicit Item(World& world_in) : world(world_in) {}
    void on_timer(Timer&) override { world.fired(*this); }
    World& world;
    Timer timer{*this};
    std::multimap<int64_t, Item*>::iterator entry;
    bool armed = false;
  };

  explicit World(uint32_t seed) : random(seed), timers(kStart) {
    for (int i = 0; i < 200; ++i) items.push_back(std::make_unique<Item>(*this));
  }

  int64_t draw(int64_t from, int64_t to) {
    return std::uniform_int_distribution<int64_t>(from, to)(random);
  }

  // Mostly short deadlines, now and then one beyond every level.
  int64_t draw_deadline() {
    const int64_t spans[] = {10, 600, 40'000, 3'000'000, 200'000'000, 1'000'000'000};
    return now + draw(-5, spans[draw(0, 5)]);
  }

  void set(Item& item, int64_t deadline) {
    forget(item);
    timers.set(item.timer, deadline);
    item.entry = due.emplace(std::max(deadline, now), &item);  // The past is due from now on.
    item.armed = true;
  }

  void forget(Item& item) {
    if (item.armed) due.erase(item.entry);
    item.armed = false;
  }

  void fired(Item& item) {
    ++count;
    ok = ok && item.armed && item.entry->first <= now && !item.timer.is_set();
    forget(item);
    if (draw(0, 1) == 0) set(item, draw_deadline());
    if (draw(0, 3) == 0) act();
    if (draw(0, 9) == 0) replace(static_cast<size_t>(&item == items[0].get() ? 0 : index(item)));
  }

  int64_t index(const Item& item) {
    for (size_t i = 0; i < items.size(); ++i) {
      if (items[i].get() == &item) return static_cast<int64_t>(i);
    }
    return 0;
  }

  void replace(size_t i) {
    forget(*items[i]);
    items[i] = std::make_unique<Item>(*this);
  }

  // One change to a timer. A firing item is never destroyed here but by fired() itself.
  void act() {
    Item& item = *items[static_cast<size_t>(draw(0, 199))];
    if (draw(0, 4) == 0) {
      timers.cancel(item.timer);
      forget(item);
    } else {
      set(item, draw_deadline());
    }
  }

  void turn() {
    for (int64_t i = draw(0, 6); i > 0; --i) act();
    if (draw(0, 3) == 0) replace(static_cast<size_t>(draw(0, 199)));
    const int64_t in = timers.next_in_ms(now);
    if (!due.empty()) {
      ok = ok && in >= 0 && now + in < std::max(due.begin()->first, now) + 2 * Timers::kTickMs;
    }
    // Sleeps as told, or for any time.
    now += in >= 0 && draw(0, 1) == 0 ? in : draw(0, int64_t{1} << draw(0, 28));
    timers.expire(now);
    // Nothing that was due a tick ago may be left.
    ok = ok && (due.empty() || due.begin()->first > now - Timers::kTickMs);
  }

  std::mt19937 random;
  Timers timers;
  std::vector<std::unique_ptr<Item>> items;
  std::multimap<int64_t, Item*> due;
  int64_t now = kStart;
  int64_t count = 0;
  bool ok = true;
};

}  // namespace

// Goal: whatever the order of set, move, cancel, destroy and of clock jumps, each deadline fires
// exactly once and within a tick. Method: compare with a sorted map.
TEST_CASE("Timers: random changes against a sorted map -> same firings") {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    World world(seed);
    for (int turn = 0; turn < 2000 && world.ok; ++turn) world.turn();
    CHECK(world.ok);
    CHECK(world.count > 1000);
  }
}
