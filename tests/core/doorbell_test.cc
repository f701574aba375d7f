// tests/core/doorbell_test.cc - shards waking each other: ring messages between real rings in
// different threads, and the fallbacks to the eventfd.
#include <doctest/doctest.h>
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/engine_report.h"
#include "core/engines.h"
#include "core/epoll_engine.h"
#include "core/mailbox.h"
#include "core/ring_engine.h"

using namespace ringway;

namespace {

// Takes messages out of a mailbox when the doorbell rings, as a shard does.
struct Taker final : WakeOwner {
  void on_wake() override {
    ++calls;
    Message message;
    while (mailbox.take(message)) {
      in_order = in_order && message.a == taken;
      ++taken;
    }
  }
  Mailbox mailbox{1024};
  uint64_t taken = 0;
  uint64_t calls = 0;
  bool in_order = true;
};

std::unique_ptr<Io> engine(EngineKind kind, Doorbell doorbell, uint32_t spin_us = 0) {
  EngineResult made = make_engine({.kind = kind, .doorbell = doorbell, .spin_us = spin_us});
  REQUIRE(made.io != nullptr);
  return std::move(made.io);
}

bool have_ring_messages() {
  RingEngine ring(0);
  ring.start(8);
  return ring.probe().usable() && ring.use_ring_messages().empty();
}

// An Io made in the thread that runs it, as rings demand.
struct Shard {
  std::unique_ptr<Io> io;
  Taker taker;
};

// Two shards send each other `count` messages; each waits for its own without any time limit.
void exchange(EngineKind left, EngineKind right, uint64_t count, uint32_t spin_us) {
  Shard shards[2];
  std::atomic<int> ready{0};
  std::atomic<int> finished{0};
  const auto run = [&](int me, EngineKind kind) {
    Shard& own = shards[me];
    Shard& other = shards[1 - me];
    own.io = make_engine({.kind = kind, .doorbell = Doorbell::kRingMessage, .spin_us = spin_us}).io;
    own.io->set_wake_owner(own.taker);
    ready.fetch_add(1);
    while (ready.load() < 2) std::this_thread::yield();
    for (uint64_t sent = 0; sent < count || own.taker.taken < count;) {
      // Uneven batches: several messages in a turn share a doorbell.
      const uint64_t batch = sent % 7 + 1;
      bool rings = false;
      for (uint64_t i = 0; i < batch && sent < count; ++i) {
        if (!other.taker.mailbox.post({.a = sent})) break;
        ++sent;
        rings = true;
        own.io->wake_other(*other.io);
      }
      const bool nothing_to_send = sent == count || !rings;
      const bool wait = nothing_to_send && own.taker.taken < count && sent == count;
      own.io->run_once(wait ? -1 : 0);
    }
    own.io->run_once(0);  // Doorbells of the last turn go out.
    finished.fetch_add(1);
    while (finished.load() < 2) std::this_thread::yield();
  };
  std::thread second([&] { run(1, right); });
  run(0, left);
  second.join();
  for (Shard& shard : shards) {
    CHECK(shard.taker.taken == count);
    CHECK(shard.taker.in_order);
  }
  if (left != EngineKind::kEpoll && right != EngineKind::kEpoll && have_ring_messages()) {
    for (Shard& shard : shards) {
      CHECK(shard.io->counters().doorbells.get() > 0);
      CHECK(shard.io->counters().doorbells_failed.get() == 0);
    }
  }
}

}  // namespace

TEST_CASE("RingEngine: ring messages -> the self-test passes here, the report says so") {
  RingEngine ring(0);
  ring.start(8);
  if (!ring.probe().usable()) return;
  CHECK(ring.doorbell_fd() == -1);
  const std::string failure = ring.use_ring_messages();
  CHECK(failure == "");  // From 6.3 on a ring with deferred task work can be woken.
  CHECK(ring.doorbell_fd() >= 0);
  CHECK(engine_report().find("self-test of ring messages (MSG_RING): passed") != std::string::npos);
}

// Goal: no doorbell is lost: a shard that waits for ever gets every message.
TEST_CASE("Io: two shards, 20,000 messages each way -> all arrive, in order, none sleeps on one") {
  for (const uint32_t spin_us : {0U, 50U}) {
    CAPTURE(spin_us);
    exchange(EngineKind::kAuto, EngineKind::kAuto, 20'000, spin_us);
    exchange(EngineKind::kAuto, EngineKind::kEpoll, 5'000, spin_us);
    exchange(EngineKind::kEpoll, EngineKind::kEpoll, 5'000, spin_us);
  }
}

TEST_CASE("Io: many doorbells in a turn -> one ring message; none queued stays behind") {
  if (!have_ring_messages()) return;
  Shard a;
  Shard b;
  for (Shard* shard : {&a, &b}) {
    shard->io = engine(EngineKind::kIoUring, Doorbell::kRingMessage);
    shard->io->set_wake_owner(shard->taker);
  }
  for (uint64_t turn = 1; turn <= 50; ++turn) {
    for (int i = 0; i < 20; ++i) a.io->wake_other(*b.io);
    CHECK(a.io->counters().doorbells.get() == turn);
    a.io->run_once(0);
    b.io->run_once(1000);
    CHECK(b.taker.calls == turn);
  }
}

// Goal: the target's completion queue (8) overflows; the doorbells are kept for it or rung again.
TEST_CASE("Io: doorbells for a ring with a full completion queue -> heard, counted, none lost") {
  RingEngine target(0);
  target.start(4, 8);
  if (!target.probe().usable() || !target.use_ring_messages().empty()) return;
  Taker taker;
  target.set_wake_owner(taker);
  target.run_once(0);
  const auto sender = engine(EngineKind::kIoUring, Doorbell::kRingMessage);
  for (int i = 0; i < 100; ++i) {
    sender->wake_other(target);
    sender->run_once(0);
  }
  REQUIRE(taker.mailbox.post({.a = 0}));
  sender->wake_other(target);
  sender->run_once(0);
  target.run_once(1000);
  CHECK(taker.taken == 1);
  for (int i = 0; i < 20; ++i) target.run_once(0);
  const uint64_t heard = taker.calls;
  CHECK(heard >= 1);
  sender->wake_other(target);
  sender->run_once(0);
  target.run_once(1000);
  CHECK(taker.calls == heard + 1);
}

namespace {

// Claims to take ring messages, but its descriptor is no ring: each doorbell fails.
struct Broken final : EpollEngine {
  explicit Broken(int fd) : EpollEngine(0), fd(fd) {}
  int doorbell_fd() const override { return fd; }
  void wake() override { ++wakes; }
  int fd;
  int wakes = 0;
};

}  // namespace

TEST_CASE("Io: a ring message fails -> rung again by wake()") {
  if (!have_ring_messages()) return;
  const auto sender = engine(EngineKind::kIoUring, Doorbell::kRingMessage);
  const int no_ring = eventfd(0, EFD_CLOEXEC);
  Broken target(no_ring);
  for (int i = 1; i <= 3; ++i) {
    sender->wake_other(target);
    for (int turn = 0; turn < 100 && target.wakes < i; ++turn) sender->run_once(1);
    CHECK(target.wakes == i);
    CHECK(sender->counters().doorbells_failed.get() == static_cast<uint64_t>(i));
  }
  ::close(no_ring);
}

TEST_CASE("Io: the sender or the target has no ring messages -> wake()") {
  const EngineKind kinds[] = {EngineKind::kAuto, EngineKind::kEpoll};
  for (const EngineKind from : kinds) {
    for (const EngineKind to : kinds) {
      Shard sender;
      sender.io = engine(from, Doorbell::kEventfd);
      Shard target;
      target.io = engine(to, Doorbell::kRingMessage);
      target.io->set_wake_owner(target.taker);
      target.io->run_once(0);
      sender.io->wake_other(*target.io);  // Heard before the sender has a turn.
      target.io->run_once(1000);
      CHECK(target.taker.calls == 1);
      CHECK(sender.io->counters().doorbells.get() == 0);
    }
  }
}
