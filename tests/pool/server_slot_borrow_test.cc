// tests/pool/server_slot_borrow_test.cc - who lends and borrows idle connections, and when nobody
// does. What crosses shards is tests/sim's and tests/e2e's.
#include <doctest/doctest.h>

#include <memory>
#include <utility>
#include <vector>

#include "pool/recent_rate.h"
#include "tests/pool/slot_world.h"

namespace ringway {
namespace {

// The test is the other shard.
struct Post final : BorrowPost {
  void ask(uint32_t /*to*/, std::unique_ptr<Borrow> borrow) override {
    asked.push_back(std::move(borrow));
  }
  void answer(std::unique_ptr<Borrow> borrow) override { answered.push_back(std::move(borrow)); }
  std::vector<std::unique_ptr<Borrow>> asked;
  std::vector<std::unique_ptr<Borrow>> answered;
};

struct BorrowWorld {
  BorrowHints hints;
  Post post;
  SlotWorld w{lending(),
              Budget::kOff,
              1,
              {.server = this, .hints = &hints, .post = &post, .shard = 0, .shards = 2}};

  static SlotSpec lending() {
    SlotSpec spec = spec_with(kAlways);
    spec.borrow = true;
    return spec;
  }
  std::unique_ptr<Borrow> question() {
    auto borrow = std::make_unique<Borrow>();
    borrow->server = this;
    borrow->from = 1;
    borrow->hash = w.slot->pool().fixed_group().hash();
    borrow->key = w.slot->pool().fixed_group().bytes();
    return borrow;
  }
  // So many requests, one after the other.
  void serve(int count) {
    for (int i = 0; i < count; ++i) {
      User user;
      w.slot->give_back(*w.take(user), kGood);
    }
  }
};

}  // namespace

TEST_CASE("RecentRate: the window under way or the one before it, and nothing older") {
  RecentRate rate;
  CHECK(rate.per_second(0) == 0);
  CHECK(rate.per_second(1'000'000) == 0);
  for (int i = 0; i < 12; ++i) rate.note(5'000 + i);
  CHECK(rate.per_second(5'011) == 12);
  CHECK(rate.per_second(6'500) == 12);
  rate.note(6'500);
  CHECK(rate.per_second(6'600) == 12);
  CHECK(rate.per_second(7'600) == 1);
  CHECK(rate.per_second(8'600) == 0);
  rate.note(20'000);
  CHECK(rate.per_second(20'000) == 1);
}

TEST_CASE("ServerSlot: with nothing idle it asks who has; no answer in time -> it connects") {
  BorrowWorld b;
  b.hints.set(1);
  User user;
  b.w.slot->give_back(*b.w.take(user), kGood);
  CHECK(b.post.asked.size() == 1);
  CHECK(b.w.stats.borrows_late.get() == 1);
  CHECK(b.w.stats.connects.get() == 1);
}

TEST_CASE("ServerSlot: who has nothing to lend after all -> it connects at once") {
  BorrowWorld b;
  b.hints.set(1);
  User user;
  ServerConn* conn = b.w.slot->take(user, nullptr, kLater).conn;
  REQUIRE(b.post.asked.size() == 1);
  CHECK(b.w.stats.connects.get() == 0);
  b.w.slot->lent(std::move(b.post.asked.front()));
  CHECK(b.w.stats.connects.get() == 1);
  CHECK(b.w.until([&] { return user.connected; }));
  b.w.slot->give_back(*conn, kGood);
}

TEST_CASE("ServerSlot: a shard with much traffic connects itself; quiet again, it asks") {
  BorrowWorld b;
  b.serve(20);
  b.hints.set(1);
  User first;
  User second;
  ServerConn* used = b.w.take(first);  // The idle one.
  ServerConn* fresh = b.w.take(second);
  CHECK(b.post.asked.empty());
  CHECK(b.w.stats.connects.get() == 2);
  b.w.pass(2'500);
  User third;
  ServerConn* borrowing = b.w.slot->take(third, nullptr, kLater).conn;
  CHECK(b.post.asked.size() == 1);
  for (ServerConn* conn : {used, fresh, borrowing}) b.w.slot->discard(*conn);
}

TEST_CASE("ServerSlot: only what was idle for a while is offered and lent, the oldest first") {
  BorrowWorld b;
  User first;
  User second;
  ServerConn* old = b.w.take(first);
  ServerConn* young = b.w.take(second);
  b.w.slot->give_back(*old, kGood);
  CHECK_FALSE(b.hints.is_set(0));
  b.w.slot->lend(b.question());
  REQUIRE(b.post.answered.size() == 1);
  CHECK(b.post.answered[0]->fd < 0);
  b.w.pass(30);
  CHECK(b.hints.is_set(0));
  b.w.slot->give_back(*young, kGood);
  b.w.slot->lend(b.question());
  CHECK(old->place() == Place::kTransit);
  CHECK(young->place() == Place::kIdleUnproven);
  REQUIRE(b.w.until([&] { return b.post.answered.size() == 2; }));
  CHECK(b.post.answered[1]->fd >= 0);
  b.w.io.discard(b.post.answered[1]->fd);
}

TEST_CASE("ServerSlot: a connection in steady use is never offered") {
  BorrowWorld b;
  for (int i = 0; i < 40; ++i) {
    b.serve(1);
    b.w.pass(10);
    CHECK_FALSE(b.hints.is_set(0));
  }
  b.w.pass(30);
  CHECK(b.hints.is_set(0));
}

}  // namespace ringway
