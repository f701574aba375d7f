// tests/pool/server_mux_ping_test.cc - servers that are silent, and may be gone.
#include <doctest/doctest.h>

#include <deque>
#include <string>

#include "tests/pool/mux_world.h"

namespace ringway {
namespace {

SlotSpec ping_spec(int64_t interval_ms, int64_t idle_ms = 0) {
  PoolLimits limits = kAlways;
  limits.idle_ms = idle_ms;
  SlotSpec spec = spec_with(limits);
  spec.idle_ping_ms = interval_ms;
  return spec;
}

size_t pings(const MuxWorld& w, size_t which = 0) {
  return w.h2[which]->frames(h2::FrameType::kPing);
}

}  // namespace

TEST_CASE("ServerMux: answers to idle PINGs keep an idle connection, and make it no younger") {
  MuxWorld w(ping_spec(300, 2'000));
  w.serve_one();
  const int64_t since = w.slot().pool().oldest_idle()->idle_since_ms();
  w.slots.pass(1'900);
  REQUIRE(w.pool().idle() == 1);
  CHECK(pings(w) >= 5);
  CHECK(w.slot().pool().oldest_idle()->idle_since_ms() == since);
  w.slots.pass(200);
  CHECK(w.pool().idle() == 0);
  CHECK(w.slots.closed(CloseReason::kIdleTimeout) == 1);
  CHECK(w.slots.closed(CloseReason::kPingTimeout) == 0);
}

TEST_CASE("ServerMux: an answer to an idle PING changes nothing about which idle one is oldest") {
  SlotSpec spec = ping_spec(300);
  spec.max_streams = 1;
  MuxWorld w(spec);
  H2User first;
  H2User second;
  w.take(first);
  w.take(second);
  REQUIRE(w.until([&] { return w.waiting() == 2; }));
  w.h2[0]->answer_all();
  REQUIRE(w.until([&] { return first.complete || second.complete; }));
  w.slots.pass(100);
  w.h2[1]->answer_all();
  REQUIRE(w.until([&] { return first.complete && second.complete; }));
  REQUIRE(w.pool().idle() == 2);
  const PooledConn* oldest = w.slot().pool().oldest_idle();
  w.slots.pass(310);  // Each has sent its answer, the older one first.
  REQUIRE(pings(w, 0) + pings(w, 1) >= 2);
  CHECK(w.slot().pool().oldest_idle() == oldest);
}

TEST_CASE("ServerMux: an idle connection whose server answers no PING is closed") {
  MuxWorld w(ping_spec(300));
  w.serve_one();
  w.h2[0]->holds = true;
  w.slots.pass(550);
  CHECK(w.pool().idle() == 1);
  CHECK(pings(w) == 1);
  w.slots.pass(100);
  CHECK(w.pool().idle() == 0);
  CHECK(w.slots.closed(CloseReason::kPingTimeout) == 1);
  w.serve_one();
  CHECK(w.h2.size() == 2);
}

TEST_CASE("ServerMux: requests on a connection whose server answers no PING are lost with it") {
  MuxWorld w(ping_spec(300));
  w.serve_one();
  std::deque<H2User> users(2);
  for (H2User& user : users) w.take(user);
  H2User untouched;
  untouched.sends = false;
  w.take(untouched);
  REQUIRE(w.until([&] { return w.waiting() == 2; }));
  w.h2[0]->begin_answer(*w.h2[0]->requests[1]);
  REQUIRE(w.until([&] { return users[0].status == 200; }));
  w.h2[0]->holds = true;
  REQUIRE(w.until([&] { return users[0].lost && users[1].lost && untouched.lost; }));
  for (const H2User& user : users) {
    CHECK_FALSE(user.unseen);
    CHECK(user.code == h2::ErrorCode::kNoError);
    CHECK(user.cause == "the server does not answer PING");
  }
  CHECK(untouched.unseen);
  CHECK(pings(w) == 1);
  CHECK(w.slots.closed(CloseReason::kPingTimeout) == 1);
  CHECK(w.slots.stats.stale.get() == 0);
  w.serve_one();
  CHECK(w.h2.size() == 2);
}

TEST_CASE("ServerMux: a slow request is waited for while PINGs are answered") {
  MuxWorld w(ping_spec(300));
  H2User user;
  w.take(user);
  REQUIRE(w.until([&] { return w.waiting() == 1; }));
  w.slots.pass(3'000);
  CHECK(pings(w) >= 8);
  w.h2[0]->answer_all();
  REQUIRE(w.until([&] { return user.complete; }));
  CHECK(w.h2.size() == 1);
}

TEST_CASE("ServerMux: no PING while something comes, nor where there is no interval") {
  for (const int64_t interval : {0, 300}) {
    MuxWorld w(ping_spec(interval));
    H2User user;
    w.take(user);
    REQUIRE(w.until([&] { return w.waiting() == 1; }));
    H2End& end = *w.h2[0];
    end.begin_answer(*end.requests[0]);
    for (int i = 0; i < 10; ++i) {
      w.slots.pass(200);
      CHECK(end.session.send_data(*end.requests[0], "x", i == 9) == 1);
    }
    REQUIRE(w.until([&] { return user.complete; }));
    CHECK(pings(w) == 0);
    w.slots.pass(10'000);
    CHECK((pings(w) > 0) == (interval > 0));
  }
}

TEST_CASE("ServerMux: a reload changes the interval, or switches it off") {
  MuxWorld w(ping_spec(300));
  w.serve_one();
  SlotSpec spec = w.slot().spec();
  spec.idle_ping_ms = 0;
  w.slot().update(spec);
  w.slots.pass(2'000);
  CHECK(pings(w) == 0);
  CHECK(w.pool().idle() == 1);
}

// What stands before the PING is on its way as long as the server takes of it.
TEST_CASE("ServerMux: a server that takes an upload slowly is not lost, one that takes none is") {
  for (const bool slow : {true, false}) {
    CAPTURE(slow);
    MuxWorld w(ping_spec(500));
    w.serve_one();
    H2End& end = *w.h2[0];
    end.reads = false;  // So it has nothing to say.
    std::deque<H2User> users(12);
    for (H2User& user : users) {
      user.upload = true;
      w.take(user);
    }
    REQUIRE(w.until([&] { return w.waiting() == users.size(); }));
    end.connection->read_slowly(1, slow ? 300'000 : 1'000'000'000);
    for (H2User& user : users) user.stream->write(std::string(60'000, 'x'), true);
    REQUIRE(w.until([&] { return users[0].lost || (slow && end.requests.back()->ended); }));
    CHECK(users[0].lost == !slow);
    CHECK(w.slots.closed(CloseReason::kPingTimeout) == (slow ? 0 : 1));
    end.answer_all();
    w.slots.pass(1'000);
  }
}

}  // namespace ringway
