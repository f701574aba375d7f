// tests/pool/server_mux_hold_test.cc - E10: in mode "safe" an HTTP/2 connection in use is one
// client's, whether it is up, being made, or waits for SETTINGS.
#include <doctest/doctest.h>

#include <deque>
#include <set>

#include "tests/pool/mux_world.h"

namespace ringway {
namespace {

SlotSpec safe_spec(uint32_t max_streams = 100) {
  SlotSpec spec = spec_with({.mode = ReuseMode::kSafe, .idle_floor = 8});
  spec.max_streams = max_streams;
  return spec;
}

PickRules of(SessionStore& store) {
  return {.session = &store};
}

}  // namespace

TEST_CASE("ServerMux: safe: clients that come at once have a connection each, from the beginning") {
  MuxWorld w(safe_spec());
  SessionStore stores[] = {SessionStore(w.slots.entries), SessionStore(w.slots.entries)};
  std::deque<H2User> users(6);
  for (size_t i = 0; i < users.size(); ++i) w.take(users[i], nullptr, of(stores[i % 2]));
  CHECK(w.slots.stats.connects.get() == 2);
  for (size_t i = 2; i < users.size(); ++i) CHECK(users[i].conn == users[i % 2].conn);
  CHECK(users[0].conn != users[1].conn);
  REQUIRE(w.until([&] { return w.waiting() == 6; }));
  CHECK(w.pool().count(Place::kHeld) == 2);
  for (const auto& store : stores) CHECK(store.size() == 1);
  // Others of the same client join those that are up.
  H2User more;
  w.take(more, nullptr, of(stores[1]));
  CHECK(more.conn == users[1].conn);
  for (const auto& end : w.h2) end->answer_all();
  REQUIRE(w.until([&] { return w.waiting() == 1; }));
  for (const auto& end : w.h2) end->answer_all();
  REQUIRE(w.until([&] { return more.complete && users.back().complete; }));
  CHECK(w.pool().idle() == 2);
  for (const auto& store : stores) CHECK(store.empty());
}

TEST_CASE("ServerMux: safe: clients of one request at a time share none in use, but idle ones") {
  MuxWorld w(safe_spec());
  std::deque<H2User> users(3);
  for (H2User& user : users) w.take(user);  // As HTTP/1 clients: no session to join others of.
  CHECK(w.slots.stats.connects.get() == 3);
  REQUIRE(w.until([&] { return w.waiting() == 3; }));
  for (const auto& end : w.h2) CHECK(end->most == 1);
  for (const auto& end : w.h2) end->answer_all();
  REQUIRE(w.until([&] { return users.back().complete; }));
  CHECK(w.pool().idle() == 3);
  H2User next;
  w.take(next);
  CHECK(next.reused);
  H2User other;
  w.take(other);
  CHECK(other.conn != next.conn);
  REQUIRE(w.until([&] { return w.waiting() == 2; }));
  for (const auto& end : w.h2) end->answer_all();
  REQUIRE(w.until([&] { return next.complete && other.complete; }));
  CHECK(w.slots.stats.connects.get() == 3);
}

TEST_CASE("ServerMux: safe: waiting for SETTINGS a connection is its client's as well") {
  MuxWorld w(safe_spec());
  w.holds = true;
  SessionStore first(w.slots.entries);
  SessionStore second(w.slots.entries);
  std::deque<H2User> users(4);
  w.take(users[0], nullptr, of(first));
  REQUIRE(w.until([&] { return users[0].stream != nullptr; }));
  w.take(users[1], nullptr, of(first));  // Waits for SETTINGS.
  CHECK(users[1].stream == nullptr);
  w.take(users[2], nullptr, of(second));
  w.take(users[3]);
  CHECK(users[1].conn == users[0].conn);
  CHECK(std::set<ServerConn*>{users[0].conn, users[2].conn, users[3].conn}.size() == 3);
  REQUIRE(w.until([&] { return w.h2.size() == 3; }));
  for (const auto& end : w.h2) end->release();
  REQUIRE(w.until([&] { return w.waiting() == 4; }));
  for (const auto& end : w.h2) end->answer_all();
  REQUIRE(w.until([&] {
    return std::all_of(users.begin(), users.end(), [](const H2User& u) { return u.complete; });
  }));
  CHECK(first.empty());
  CHECK(second.empty());
}

TEST_CASE(
    "ServerMux: safe: the one that opened it leaves -> it stays its client's, and no other's") {
  MuxWorld w(safe_spec());
  SessionStore first(w.slots.entries);
  SessionStore second(w.slots.entries);
  std::deque<H2User> users(3);
  w.take(users[0], nullptr, of(first));
  w.take(users[1], nullptr, of(first));
  w.slot().cancel(*users[0].conn, users[0]);
  w.take(users[2], nullptr, of(second));
  CHECK(users[2].conn != users[1].conn);
  REQUIRE(w.until([&] { return w.waiting() == 2; }));
  CHECK(users[1].conn->session() == &first);
  CHECK(users[2].conn->session() == &second);
  for (const auto& end : w.h2) end->answer_all();
  REQUIRE(w.until([&] { return users[1].complete && users[2].complete; }));
}

TEST_CASE("ServerMux: safe: a warm connection being made is its first client's") {
  SlotSpec spec = safe_spec();
  spec.warm = 1;
  MuxWorld w(spec);
  SessionStore first(w.slots.entries);
  SessionStore second(w.slots.entries);
  std::deque<H2User> users(3);
  w.take(users[0], nullptr, of(first));
  CHECK(w.slots.stats.connects.get() == 1);
  w.take(users[1], nullptr, of(second));
  w.take(users[2], nullptr, of(first));
  CHECK(users[2].conn == users[0].conn);
  CHECK(users[1].conn != users[0].conn);
  REQUIRE(w.until([&] { return w.waiting() == 3; }));
  for (const auto& end : w.h2) end->answer_all();
  REQUIRE(w.until([&] { return users[2].complete && users[1].complete; }));
}

TEST_CASE("ServerMux: safe: a client of more requests than one connection takes has several") {
  MuxWorld w(safe_spec(2));
  SessionStore store(w.slots.entries);
  std::deque<H2User> users(5);
  for (H2User& user : users) w.take(user, nullptr, of(store));
  REQUIRE(w.until([&] { return w.waiting() == 5; }));
  CHECK(w.h2.size() == 3);
  CHECK(w.pool().count(Place::kHeld) == 3);
  CHECK(store.size() == 1);
  for (const auto& end : w.h2) CHECK(end->most <= 2);
  for (const auto& end : w.h2) end->answer_all();
  REQUIRE(w.until([&] { return users.back().complete; }));
  CHECK(store.empty());
}

}  // namespace ringway
