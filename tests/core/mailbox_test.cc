// tests/core/mailbox_test.cc
#include "core/mailbox.h"

#include <doctest/doctest.h>

#include <array>
#include <thread>
#include <vector>

using namespace ringway;

TEST_CASE("Mailbox: full -> refused, empty -> nothing, order kept over many rounds") {
  Mailbox box(4);
  Message out;
  CHECK_FALSE(box.take(out));
  uint64_t next_in = 0;
  uint64_t next_out = 0;
  for (int round = 0; round < 100; ++round) {
    while (box.post({.kind = 7, .small = 1, .a = next_in, .b = 2, .c = 3})) ++next_in;
    CHECK(next_in - next_out == 4);
    for (int i = 0; i < 1 + round % 4; ++i) {
      REQUIRE(box.take(out));
      CHECK(out.kind == 7);
      CHECK(out.small == 1);
      CHECK(out.a == next_out++);
      CHECK(out.b == 2);
      CHECK(out.c == 3);
    }
  }
}

// Goal: no message is lost, doubled or torn, and each sender's order is kept.
TEST_CASE("Mailbox: four senders, one taker -> every message once, each sender in order") {
  constexpr uint32_t kSenders = 4;
  constexpr uint64_t kEach = 20'000;
  Mailbox box(64);
  std::vector<std::thread> senders;
  for (uint32_t s = 0; s < kSenders; ++s) {
    senders.emplace_back([&box, s] {
      for (uint64_t i = 0; i < kEach; ++i) {
        const Message message{.kind = s, .small = 0, .a = i, .b = ~i, .c = i * 3};
        while (!box.post(message)) std::this_thread::yield();
      }
    });
  }
  std::array<uint64_t, kSenders> next{};
  bool intact = true;
  for (uint64_t taken = 0; taken < kSenders * kEach;) {
    Message out;
    if (!box.take(out)) {
      std::this_thread::yield();
      continue;
    }
    ++taken;
    intact = intact && out.kind < kSenders && out.b == ~out.a && out.c == out.a * 3;
    if (!intact) break;
    intact = out.a == next[out.kind]++;
  }
  for (std::thread& sender : senders) sender.join();
  CHECK(intact);
  Message out;
  CHECK_FALSE(box.take(out));
}
