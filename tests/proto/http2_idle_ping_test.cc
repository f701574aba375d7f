// tests/proto/http2_idle_ping_test.cc
#include "proto/http2_idle_ping.h"

#include <doctest/doctest.h>

namespace ringway::h2 {
namespace {

using Act = IdlePing::Act;

void expect(IdlePing& watch, int64_t now, Act act, int64_t again) {
  CAPTURE(now);
  const IdlePing::Step step = watch.step(now, 100);
  CHECK(step.act == act);
  CHECK(step.again_ms == again);
}

}  // namespace

TEST_CASE("IdlePing: asks once when nothing came for an interval, and gives up after another") {
  IdlePing watch;
  watch.received(1'000);
  expect(watch, 1'099, Act::kWait, 1'100);
  expect(watch, 1'100, Act::kPing, 1'200);
  expect(watch, 1'199, Act::kWait, 1'200);
  expect(watch, 1'200, Act::kLost, 0);
}

TEST_CASE("IdlePing: a timer that fires late asks late, and the answer has its whole time") {
  IdlePing watch;
  watch.received(1'000);
  expect(watch, 1'500, Act::kPing, 1'600);
  expect(watch, 1'599, Act::kWait, 1'600);
}

TEST_CASE("IdlePing: whatever comes is an answer, and the time runs from there") {
  IdlePing watch;
  watch.received(1'000);
  watch.received(1'060);
  expect(watch, 1'100, Act::kWait, 1'160);
  expect(watch, 1'160, Act::kPing, 1'260);
  watch.received(1'161);
  expect(watch, 1'260, Act::kWait, 1'261);
  expect(watch, 1'261, Act::kPing, 1'361);
  watch.received(1'261);  // In the same millisecond.
  expect(watch, 1'361, Act::kPing, 1'461);
}

TEST_CASE("IdlePing: what holds up the PING gives the answer more time, but is none") {
  IdlePing watch;
  watch.received(1'000);
  watch.held_up(1'050);
  expect(watch, 1'100, Act::kPing, 1'200);
  watch.held_up(1'150);
  expect(watch, 1'200, Act::kWait, 1'250);
  expect(watch, 1'250, Act::kLost, 0);
}

}  // namespace ringway::h2
