// tests/core/tls_gate_test.cc - a storm of handshakes waits; who is connected does not.
#include "core/tls_gate.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "tests/support/tls_world.h"

namespace ringway {
namespace {

struct Waiter final : TlsWaiter {};

TEST_CASE("TlsGate: per turn -> so many, then in order of coming; newcomers stand behind") {
  TlsGate gate({.per_turn = 2, .per_second = 0}, 0);
  CHECK(gate.next_in_ms(0) == -1);
  CHECK(gate.enter(0));
  CHECK(gate.enter(0));
  CHECK_FALSE(gate.enter(0));
  Waiter a;
  Waiter b;
  Waiter c;
  gate.wait(a, 10);
  gate.wait(b, 20);
  gate.wait(c, 30);
  CHECK(gate.waiting() == 3);
  CHECK(gate.next_in_ms(40) == 0);
  int64_t waited_us = -1;
  CHECK(gate.next(40, waited_us) == nullptr);  // This turn's are used up.
  gate.begin_turn();
  CHECK_FALSE(gate.enter(40));  // Others were here first.
  CHECK(gate.next(40, waited_us) == &a);
  CHECK(waited_us == 30);
  b.leave();
  b.leave();
  CHECK(gate.next(45, waited_us) == &c);
  CHECK(waited_us == 15);
  CHECK(gate.next(45, waited_us) == nullptr);
  CHECK(gate.next_in_ms(45) == -1);
}

TEST_CASE("TlsGate: per second -> a tenth at once, then as time passes, whatever the turns") {
  TlsGate gate({.per_turn = 1000, .per_second = 50}, 0);
  int passed = 0;
  while (gate.enter(0)) ++passed;
  CHECK(passed == 5);
  Waiter a;
  gate.wait(a, 0);
  int64_t waited_us = 0;
  gate.begin_turn();
  CHECK(gate.next(0, waited_us) == nullptr);
  CHECK(gate.next_in_ms(0) == 20);
  CHECK(gate.next_in_ms(15'500) == 5);
  CHECK(gate.next(19'999, waited_us) == nullptr);
  CHECK(gate.next(20'000, waited_us) == &a);
  passed = 0;
  for (int64_t us = 20'000; us < 1'020'000; us += 1000) {
    if (gate.enter(us)) ++passed;
  }
  CHECK(passed == 49);  // One second, without the 20 ms that `a` has used up.
}

TEST_CASE("Tls: a rate of handshakes -> the storm takes as long as the rate says") {
  SimTlsWorld world(4, {.per_turn = 100, .per_second = 100});
  const int64_t start_us = world.net.now_us();
  for (int i = 0; i < 60; ++i) world.dial();
  REQUIRE(world.run([&] {
    return std::all_of(world.dialled.begin(), world.dialled.end(),
                       [](const auto& end) { return end->decided(); });
  }));
  // Ten at once, fifty in half a second of virtual time.
  CHECK(world.net.now_us() - start_us >= 500'000);
  CHECK(world.net.now_us() - start_us < 600'000);
  LatencySnapshot waits;
  waits.add(world.server_shard.handshake_wait());
  CHECK(waits.count() == 60);
  CHECK(waits.sum_us > 50 * 200'000);
}

TEST_CASE("Tls: closed or timed out while waiting -> its place goes to the next at once") {
  SimTlsWorld world(5, {.per_turn = 100, .per_second = 10});
  for (int i = 0; i < 5; ++i) world.dial();
  const auto secured = [&] {
    return std::count_if(world.accepted.begin(), world.accepted.end(),
                         [](const auto& end) { return end->secured == 1; });
  };
  REQUIRE(
      world.run([&] { return world.server_shard.handshakes_waiting() == 4 && secured() == 1; }));
  // The owner gives up on all that wait but one.
  TlsEnd* last = nullptr;
  for (auto& end : world.accepted) {
    if (end->secured == 1) continue;
    if (last != nullptr) last->stream.close();
    last = end.get();
  }
  CHECK(world.server_shard.handshakes_waiting() == 1);
  const int64_t start_us = world.net.now_us();
  REQUIRE(world.run([&] { return last->secured == 1; }));
  CHECK(world.net.now_us() - start_us < 200'000);
}

TEST_CASE("Tls: clients that gave up while they waited -> nothing is computed for them") {
  SimTlsWorld world(6, {.per_turn = 100, .per_second = 10});
  for (int i = 0; i < 6; ++i) world.dial();
  REQUIRE(world.run([&] { return world.server_shard.handshakes_waiting() == 5; }));
  int gone = 0;
  for (auto& end : world.dialled) {
    if (end->connected < 0 && gone < 3) {
      gone++ % 2 == 0 ? end->stream.close() : end->stream.abort();
    }
  }
  REQUIRE(world.run([&] { return world.server_shard.handshakes_waiting() == 0; }));
  world.net.run_for(1'000'000, 100'000);
  const TlsCounters& counters = world.server_shard.counters();
  CHECK(counters.server_full.get() +
            counters.failures[static_cast<size_t>(TlsCause::kClosedInHandshake)].get() ==
        6);
  CHECK(counters.failures[static_cast<size_t>(TlsCause::kClosedInHandshake)].get() >= 2);
}

}  // namespace
}  // namespace ringway
