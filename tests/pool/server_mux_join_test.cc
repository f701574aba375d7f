// tests/pool/server_mux_join_test.cc - requests that wait for an HTTP/2 connection which is being
// made.
#include <doctest/doctest.h>
#include <errno.h>

#include <deque>
#include <vector>

#include "tests/pool/mux_world.h"

namespace ringway {

TEST_CASE("ServerMux: requests join the connection that is being made, first come, first served") {
  MuxWorld w(spec_with(kAlways));
  std::deque<H2User> users(5);
  for (size_t i = 0; i < users.size(); ++i) {
    users[i].path = "/" + std::to_string(i);
    w.take(users[i]);
    CHECK(users[i].conn == users[0].conn);
  }
  CHECK(w.slots.stats.connects.get() == 1);
  CHECK(w.slots.share.used() == 1);
  REQUIRE(w.until([&] { return w.waiting() == 5; }));
  for (size_t i = 0; i < users.size(); ++i) {
    CHECK(w.h2[0]->requests[i]->head.starts_with("GET /" + std::to_string(i) + " "));
    CHECK(users[i].moved == 0);
  }
  CHECK(w.slots.stats.requests.get() == 5);
  w.h2[0]->answer_all();
  REQUIRE(w.until([&] { return users.back().complete; }));
}

TEST_CASE("ServerMux: others than it is expected to take open further ones") {
  MuxWorld w(streams_spec(2));
  std::deque<H2User> users(5);
  for (H2User& user : users) w.take(user);
  CHECK(w.slots.stats.connects.get() == 3);
  CHECK(users[1].conn == users[0].conn);
  CHECK(users[3].conn == users[2].conn);
  REQUIRE(w.until([&] { return w.waiting() == 5; }));
  for (const auto& end : w.h2) end->answer_all();
  REQUIRE(w.until([&] { return users.back().complete; }));
}

TEST_CASE("ServerMux: another key, single use or reuse = never joins nobody") {
  MuxWorld w(spec_with(kAlways));
  const ConnKey key{.bytes = "other", .hash = 5};
  std::deque<H2User> users(4);
  w.take(users[0]);
  w.take(users[1], &key);
  w.take(users[2], &key);
  CHECK(users[1].conn != users[0].conn);
  CHECK(users[2].conn == users[1].conn);
  users[3].conn = w.slot().open_single(users[3]).conn;
  CHECK(w.slots.stats.connects.get() == 3);
  REQUIRE(w.until([&] { return w.waiting() == 4; }));
  for (const auto& end : w.h2) end->answer_all();
  REQUIRE(w.until([&] { return users[3].complete; }));
  MuxWorld never(spec_with({.mode = ReuseMode::kNever}));
  std::deque<H2User> alone(2);
  for (H2User& user : alone) never.take(user);
  CHECK(never.slots.stats.connects.get() == 2);
  REQUIRE(never.until([&] { return never.waiting() == 2; }));
  for (const auto& end : never.h2) end->answer_all();
  REQUIRE(never.until([&] { return alone[0].complete && alone[1].complete; }));
}

TEST_CASE("ServerMux: a server that takes fewer than expected: the others get their own") {
  MuxWorld w(spec_with(kAlways));
  w.max_streams = 2;
  const ConnKey key{.bytes = "some key that is long enough for the heap", .hash = 5};
  std::deque<H2User> users(5);
  for (H2User& user : users) w.take(user, &key);
  CHECK(w.slots.stats.connects.get() == 1);
  REQUIRE(w.until([&] { return w.waiting() == 5; }));
  CHECK(w.h2.size() == 3);
  for (const auto& end : w.h2) CHECK(end->most <= 2);
  CHECK(users[1].moved == 0);
  CHECK(users[2].moved >= 1);
  CHECK(w.pool().groups() == 2);
  CHECK(w.slots.stats.requests.get() == 5);
  for (const auto& end : w.h2) end->answer_all();
  REQUIRE(w.until([&] { return users[2].complete && users[4].complete; }));
}

TEST_CASE("ServerMux: one that waits may leave, and so may the one that opened the connection") {
  MuxWorld w(spec_with(kAlways));
  std::deque<H2User> users(4);
  for (H2User& user : users) w.take(user);
  w.slot().cancel(*users[1].conn, users[1]);
  w.slot().cancel(*users[0].conn, users[0]);
  REQUIRE(w.until([&] { return w.waiting() == 2; }));
  CHECK(users[0].stream == nullptr);
  CHECK(users[1].stream == nullptr);
  CHECK(users[2].stream != nullptr);
  CHECK(users[3].stream != nullptr);
  CHECK(w.slots.stats.connects.get() == 1);
  w.h2[0]->answer_all();
  REQUIRE(w.until([&] { return users[3].complete; }));
}

TEST_CASE("ServerMux: when all have left, the connection is closed") {
  MuxWorld w(spec_with(kAlways));
  std::deque<H2User> users(3);
  for (H2User& user : users) w.take(user);
  for (H2User& user : users) w.slot().cancel(*user.conn, user);
  REQUIRE(w.until([&] { return w.slot().empty(); }));
  w.slots.pass(100);
  for (const H2User& user : users) {
    CHECK(user.stream == nullptr);
    CHECK(user.failed == 0);
  }
}

TEST_CASE("ServerMux: waiting for SETTINGS they may leave; the first one's end does not end them") {
  MuxWorld w(spec_with(kAlways));
  w.holds = true;
  std::deque<H2User> users(4);
  for (H2User& user : users) w.take(user);
  REQUIRE(w.until([&] { return w.waiting() == 1; }));
  w.slot().cancel(*users[1].conn, users[1]);
  // The place that comes free is the next one's, before SETTINGS as after.
  users[0].stream->abort(h2::ErrorCode::kCancel);
  users[0].stream = nullptr;
  REQUIRE(w.until([&] { return users[2].stream != nullptr; }));
  CHECK(users[3].stream == nullptr);
  w.h2[0]->release();
  REQUIRE(w.until([&] { return w.waiting() == 2; }));
  CHECK(users[1].stream == nullptr);
  CHECK(w.h2.size() == 1);
  w.h2[0]->answer_all();
  REQUIRE(w.until([&] { return users[2].complete && users[3].complete; }));
}

TEST_CASE("ServerMux: a refused connection is told to all who waited for it") {
  MuxWorld w(spec_with(kAlways));
  w.slots.server.stop();
  std::deque<H2User> users(3);
  for (H2User& user : users) w.take(user);
  REQUIRE(w.until([&] { return users[2].failed != 0; }));
  for (const H2User& user : users) CHECK(user.failed == ECONNREFUSED);
  REQUIRE(w.until([&] { return w.slot().empty(); }));
  w.slots.server.start();
}

TEST_CASE("ServerMux: one that is told of a failure may take out another that waits for it") {
  MuxWorld w(spec_with(kAlways));
  w.slots.server.stop();
  std::deque<H2User> users(3);
  for (H2User& user : users) w.take(user);
  users[0].then = [&] { w.slot().cancel(*users[1].conn, users[1]); };
  REQUIRE(w.until([&] { return users[2].failed != 0; }));
  CHECK(users[0].failed == ECONNREFUSED);
  CHECK(users[1].failed == 0);
  w.slots.server.start();
}

TEST_CASE("ServerMux: a connection that ends before SETTINGS fails those who wait for them") {
  MuxWorld w(spec_with(kAlways));
  w.holds = true;
  std::deque<H2User> users(3);
  for (H2User& user : users) w.take(user);
  REQUIRE(w.until([&] { return w.waiting() == 1; }));
  w.h2[0]->connection->abort();
  REQUIRE(w.until([&] { return users[0].lost && users[2].failed != 0; }));
  CHECK_FALSE(users[0].unseen);
  CHECK(users[1].failed == ECONNRESET);
}

TEST_CASE("ServerMux: without SETTINGS in the time for connecting it has failed") {
  SlotSpec spec = spec_with(kAlways);
  spec.connect_timeout_ms = 500;
  MuxWorld w(spec);
  w.holds = true;
  std::deque<H2User> users(2);
  for (H2User& user : users) w.take(user);
  REQUIRE(w.until([&] { return users[0].lost && users[1].failed != 0; }));
  CHECK(users[0].cause == "the server has sent no SETTINGS");
  CHECK(users[1].failed == ETIMEDOUT);
}

TEST_CASE("ServerMux: GOAWAY behind SETTINGS sends those who wait to another connection") {
  MuxWorld w(spec_with(kAlways));
  w.holds = true;
  std::deque<H2User> users(3);
  for (H2User& user : users) w.take(user);
  REQUIRE(w.until([&] { return w.waiting() == 1; }));
  w.h2[0]->send_goaway(w.h2[0]->requests[0]->id());
  w.holds = false;
  w.h2[0]->release();
  REQUIRE(w.until([&] { return w.h2.size() == 2 && w.h2[1]->waiting() == 2; }));
  CHECK(w.h2[0]->requests.size() == 1);
  CHECK(users[1].moved == 1);
  for (const auto& end : w.h2) end->answer_all();
  REQUIRE(w.until([&] { return users[0].complete && users[2].complete; }));
}

TEST_CASE("ServerMux: the limit counts connections, and a place on one is room") {
  MuxWorld w(streams_spec(2), 1);
  std::deque<H2User> users(3);
  for (H2User& user : users) w.take(user);
  CHECK(users[1].conn == users[0].conn);
  CHECK(users[2].failed == EAGAIN);
  REQUIRE(w.until([&] { return w.waiting() == 2; }));
  const int before = w.slots.room.calls;
  w.h2[0]->answer(*w.h2[0]->requests[0]);
  REQUIRE(w.until([&] { return users[0].complete; }));
  CHECK(w.slots.room.calls > before);
  w.take(users[2]);
  CHECK(users[2].stream != nullptr);
  CHECK(w.slots.share.used() == 1);
  REQUIRE(w.until([&] { return w.waiting() == 2; }));
  w.h2[0]->answer_all();
  REQUIRE(w.until([&] { return users[2].complete; }));
}

TEST_CASE("ServerMux: at the limit, those for whom there is no place after all hear so") {
  MuxWorld w(spec_with(kAlways), 1);
  w.max_streams = 2;
  std::deque<H2User> users(4);
  for (H2User& user : users) w.take(user);
  REQUIRE(w.until([&] { return users[3].failed != 0; }));
  CHECK(users[2].failed == EAGAIN);
  CHECK(users[3].failed == EAGAIN);
  REQUIRE(w.until([&] { return w.waiting() == 2; }));
  w.h2[0]->answer_all();
  REQUIRE(w.until([&] { return users[1].complete; }));
}

}  // namespace ringway
