// tests/pool/server_slot_test.cc - a server's connections over the simulated network: connecting,
// idle ends, deadlines, warm connections and the limit of connections.
#include "pool/server_slot.h"

#include <doctest/doctest.h>
#include <errno.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/pool/slot_world.h"

namespace ringway {

TEST_CASE("ServerSlot: connect, use, give back, use again: one connection") {
  SlotWorld w(spec_with(kAlways));
  User first;
  ServerConn* conn = w.take(first);
  CHECK(conn->place() == Place::kBusy);
  CHECK_FALSE(conn->reused());
  w.slot->give_back(*conn, kGood);
  User second;
  const ServerSlot::Taken taken = w.slot->take(second, nullptr, kLater);
  CHECK(taken.conn == conn);
  CHECK(taken.connected);
  CHECK(conn->reused());
  w.slot->give_back(*conn, kGood);
  CHECK(conn->place() == Place::kIdleSafe);
  CHECK(w.stats.connects.get() == 1);
  CHECK(w.stats.requests.get() == 2);
  CHECK(w.server.accepted() == 1);
}

TEST_CASE("ServerSlot: what connections are bound to is part of their key") {
  const auto bound_to = [](std::string_view source, std::string_view interface, uint32_t mark) {
    SlotSpec spec = spec_with(kAlways);
    if (!source.empty()) REQUIRE(parse_source(source, spec.local.source));
    spec.local.interface = interface;
    spec.local.mark = mark;
    return spec;
  };
  const SlotSpec specs[] = {bound_to("", "", 0),         bound_to("10.0.0.2", "", 0),
                            bound_to("10.0.0.3", "", 0), bound_to("", "eth1", 0),
                            bound_to("", "eth2", 0),     bound_to("", "", 7),
                            bound_to("", "", 8),         bound_to("10.0.0.2", "eth1", 7)};
  std::vector<std::string> keys;
  for (const SlotSpec& spec : specs) {
    const SlotWorld w(spec);
    const SlotWorld again(spec);
    keys.emplace_back(w.slot->pool().fixed_group().bytes());
    CHECK(again.slot->pool().fixed_group().bytes() == keys.back());
  }
  for (size_t i = 0; i < keys.size(); ++i) {
    for (size_t j = 0; j < i; ++j) CHECK(keys[i] != keys[j]);
  }
}

TEST_CASE("ServerSlot: connections come from `local`; one that is not here fails, and says so") {
  SlotSpec spec = spec_with(kAlways);
  REQUIRE(parse_source("10.0.0.9", spec.local.source));
  const PeerAddress source = PeerAddress::from(*spec.local.source.get());
  SlotWorld w(spec);
  w.net.set_foreign(source, true);
  User user;
  const ServerSlot::Taken none = w.slot->take(user, nullptr, kLater);
  CHECK(none.conn == nullptr);
  CHECK(none.error == EADDRNOTAVAIL);
  CHECK(w.slot->local_failure() == "source: not an address of this machine");
  CHECK(w.stats.connect_errors.get() == 1);
  CHECK(w.stats.local_failures.get() == 1);
  w.net.set_foreign(source, false);
  ServerConn* conn = w.slot->take(user, nullptr, kLater).conn;
  REQUIRE(conn != nullptr);
  CHECK(w.slot->local_failure().empty());
  REQUIRE(w.until([&] { return user.connected; }));
  CHECK(w.stats.local_failures.get() == 1);
  w.slot->give_back(*conn, kGood);
}

TEST_CASE("ServerSlot: a refused connection is told to its user, once, and is gone") {
  SlotWorld w(spec_with(kAlways));
  w.server.stop();
  User user;
  const ServerSlot::Taken taken = w.slot->take(user, nullptr, kLater);
  if (taken.conn != nullptr) REQUIRE(w.until([&] { return user.failed != 0; }));
  CHECK((user.failed == ECONNREFUSED || taken.error == ECONNREFUSED));
  CHECK_FALSE(user.connected);
  CHECK(w.stats.connect_errors.get() == 1);
  CHECK(w.until([&] { return w.slot->empty(); }));
  CHECK(w.conns.in_use() == 0);
  w.server.start();
}

TEST_CASE("ServerSlot: a server that does not answer ends the attempt after its timeout") {
  SlotSpec spec = spec_with(kAlways);
  spec.connect_timeout_ms = 700;
  SlotWorld w(spec);
  w.net.set_unreachable(w.server.address(), true);
  const int64_t start = w.now_ms();
  User user;
  REQUIRE(w.slot->take(user, nullptr, kLater).conn != nullptr);
  REQUIRE(w.until([&] { return user.failed != 0; }));
  CHECK(user.failed == ETIMEDOUT);
  CHECK(w.now_ms() - start >= 700);
  CHECK(w.now_ms() - start <= 700 + 2 * Timers::kTickMs);
  CHECK(w.until([&] { return w.slot->empty(); }));
}

TEST_CASE("ServerSlot: a user that gives up while connecting hears nothing more") {
  SlotWorld w(spec_with(kAlways));
  User user;
  const ServerSlot::Taken taken = w.slot->take(user, nullptr, kLater);
  REQUIRE(taken.conn != nullptr);
  w.slot->discard(*taken.conn);
  CHECK(w.until([&] { return w.slot->empty(); }));
  w.pass(100);
  CHECK_FALSE(user.connected);
  CHECK(user.failed == 0);
}

TEST_CASE("ServerSlot: the user's deadline ends with its use") {
  SlotWorld w(spec_with({.mode = ReuseMode::kAlways, .idle_ms = 60'000}));
  User user;
  ServerConn* conn = w.take(user);
  conn->set_deadline(500);
  w.pass(600);
  CHECK(user.timed_out);
  user.timed_out = false;
  conn->set_deadline(500);
  w.slot->give_back(*conn, kGood);
  w.pass(1'000);
  CHECK_FALSE(user.timed_out);
  CHECK(w.slot->pool().idle() == 1);
}

TEST_CASE("ServerSlot: the idle timer does not bound the next use") {
  SlotWorld w(spec_with({.mode = ReuseMode::kAlways, .idle_ms = 1'000}));
  w.park_one();
  w.pass(900);
  User user;
  ServerConn* conn = w.take(user);
  REQUIRE(conn->reused());
  w.pass(5'000);
  CHECK_FALSE(user.timed_out);
  CHECK(conn->place() == Place::kBusy);
  w.slot->give_back(*conn, kGood);
}

TEST_CASE("ServerSlot: idle for its life, then reset, so that no port stays in TIME_WAIT") {
  SlotWorld w(spec_with({.mode = ReuseMode::kAlways, .idle_ms = 1'000}));
  w.park_one();
  w.pass(900);
  CHECK(w.slot->pool().idle() == 1);
  w.pass(200);
  CHECK(w.slot->pool().idle() == 0);
  CHECK(w.closed(CloseReason::kIdleTimeout) == 1);
  REQUIRE(w.until([&] { return !w.end_errors.empty(); }));
  CHECK(w.end_errors[0] == ECONNRESET);
  CHECK(w.until([&] { return w.slot->empty(); }));
}

TEST_CASE("ServerSlot: what the server says about its timeout shortens the life") {
  SlotWorld w(spec_with({.mode = ReuseMode::kAlways, .idle_ms = 60'000}));
  FinishNotes notes = kGood;
  notes.hint_ms = 3'000;
  w.park_one(notes);
  w.pass(1'900);
  CHECK(w.slot->pool().idle() == 1);
  w.pass(200);
  CHECK(w.slot->pool().idle() == 0);
  CHECK(w.closed(CloseReason::kIdleTimeout) == 1);
}

TEST_CASE("ServerSlot: a FIN while idle closes it before the next request") {
  SlotWorld w(spec_with(kAlways));
  w.park_one();
  REQUIRE(w.ends.size() == 1);
  w.ends[0]->close();
  REQUIRE(w.until([&] { return w.slot->pool().idle() == 0; }));
  CHECK(w.closed(CloseReason::kServerIdle) == 1);
  User user;
  const ServerSlot::Taken taken = w.slot->take(user, nullptr, kLater);
  CHECK_FALSE(taken.connected);
  REQUIRE(w.until([&] { return user.connected; }));
  w.slot->discard(*taken.conn);
}

TEST_CASE("ServerSlot: a reset while idle closes it, and teaches nothing") {
  SlotWorld w(spec_with({.mode = ReuseMode::kAlways, .idle_ms = 60'000}));
  for (int i = 0; i < 3; ++i) {
    w.park_one();
    w.pass(2'000);
    w.ends.back()->abort();
    REQUIRE(w.until([&] { return w.slot->pool().idle() == 0; }));
  }
  CHECK(w.closed(CloseReason::kServerIdle) == 3);
  CHECK(w.stats.pool.learned_ms.get() == 0);
}

TEST_CASE("ServerSlot: FINs after the same idle time teach the server's timeout") {
  SlotWorld w(spec_with({.mode = ReuseMode::kAlways, .idle_ms = 60'000}));
  for (int i = 0; i < 2; ++i) {
    w.park_one();
    w.pass(2'000);
    w.ends.back()->close();
    REQUIRE(w.until([&] { return w.slot->pool().idle() == 0; }));
  }
  CHECK(w.stats.pool.learned_ms.get() >= 1'500);
  CHECK(w.stats.pool.learned_ms.get() <= 1'700);
  w.park_one();
  w.pass(1'800);
  CHECK(w.closed(CloseReason::kIdleTimeout) == 1);
}

// haproxy GH#176: they would be taken for the next response.
TEST_CASE("ServerSlot: bytes that nobody asked for close an idle connection") {
  SlotWorld w(spec_with(kAlways));
  w.park_one();
  w.ends[0]->send("HTTP/1.1 408 Request Timeout\r\n\r\n");
  REQUIRE(w.until([&] { return w.slot->pool().idle() == 0; }));
  CHECK(w.closed(CloseReason::kUnsolicited) == 1);
  CHECK(w.until([&] { return w.slot->empty(); }));
}

TEST_CASE("ServerSlot: the same for a session's own connection") {
  SlotWorld w(spec_with(kAlways));
  SessionStore store(w.entries);
  const TargetRef target{.object = &w.slot->pool()};
  for (const bool bytes : {false, true}) {
    User user;
    ServerConn* conn = w.take(user);
    w.slot->reserve(*conn, store, target, PrivateReason::kNever);
    w.slot->give_back(*conn, kGood);
    CHECK(conn->place() == Place::kSessionIdle);
    CHECK(w.slot->take_private(user, store, target, nullptr).conn == conn);
    w.slot->give_back(*conn, kGood);
    bytes ? w.ends.back()->send("x") : w.ends.back()->close();
    REQUIRE(w.until([&] { return store.empty(); }));
  }
  CHECK(w.closed(CloseReason::kUnsolicited) == 1);
  CHECK(w.closed(CloseReason::kServerIdle) == 1);
}

TEST_CASE("ServerSlot: one given back after the server's end is closed, not kept") {
  SlotWorld w(spec_with(kAlways));
  User user;
  ServerConn* conn = w.take(user);
  w.ends[0]->close();
  REQUIRE(w.until([&] { return user.ended; }));
  CHECK(user.end_error == 0);
  FinishNotes notes = kGood;
  notes.clean = false;
  w.slot->give_back(*conn, notes);
  CHECK(w.slot->pool().idle() == 0);
  CHECK(w.closed(CloseReason::kError) == 1);
}

TEST_CASE("ServerSlot: a dead reused connection takes those of its age with it") {
  SlotWorld w(spec_with(kAlways));
  std::vector<User> users(3);
  std::vector<ServerConn*> taken;
  for (User& user : users) taken.push_back(w.take(user));
  for (ServerConn* conn : taken) w.slot->give_back(*conn, kGood);
  User user;
  ServerConn* conn = w.take(user);
  w.slot->discard_stale(*conn);
  CHECK(w.slot->pool().idle() == 0);
  CHECK(w.stats.stale.get() == 1);
  CHECK(w.closed(CloseReason::kStale) == 3);
}

TEST_CASE("ServerSlot: so many warm connections are opened ahead, held and opened again") {
  SlotWorld w(spec_with({.mode = ReuseMode::kAlways, .idle_ms = 0, .idle_floor = 3}, 3));
  REQUIRE(w.until([&] { return w.slot->pool().idle() == 3; }));
  CHECK(w.slot->pool().count(Place::kIdleUnproven) == 3);
  w.pass(60'000);
  CHECK(w.slot->pool().idle() == 3);
  CHECK(w.stats.connects.get() == 3);  // No purge and reconnect in between.
  User user;
  const ServerSlot::Taken taken = w.slot->take(user, nullptr, kLater);
  CHECK(taken.connected);
  w.slot->give_back(*taken.conn, kGood);
  for (SimConnection* end : w.ends) end->close();
  REQUIRE(w.until([&] { return w.slot->pool().idle() == 0; }));
  w.pass(2 * ServerPool::kPurgeMs);
  CHECK(w.slot->pool().idle() == 3);
  CHECK(w.stats.connects.get() == 6);
  CHECK(w.stats.requests.get() == 1);
}

TEST_CASE("ServerSlot: a server that is down is tried again for its warm connections") {
  SlotWorld w(spec_with({.mode = ReuseMode::kAlways, .idle_ms = 0, .idle_floor = 2}));
  w.server.stop();
  SlotSpec spec = w.slot->spec();
  spec.warm = 2;
  w.slot->update(spec);
  w.pass(1'000);
  CHECK(w.slot->pool().total() == 0);
  w.server.start();
  w.pass(2 * ServerPool::kPurgeMs);
  CHECK(w.slot->pool().idle() == 2);
}

TEST_CASE("ServerSlot: no warm connections when each client has its own") {
  SlotWorld w(spec_with({.mode = ReuseMode::kNever}, 3));
  w.pass(20'000);
  CHECK(w.stats.connects.get() == 0);
}

TEST_CASE("ServerSlot: at the limit of connections a request is refused until there is room") {
  SlotWorld w(spec_with(kAlways), 1);
  User first;
  ServerConn* conn = w.take(first);
  User second;
  ServerSlot::Taken taken = w.slot->take(second, nullptr, kLater);
  CHECK(taken.conn == nullptr);
  CHECK(taken.error == EAGAIN);
  CHECK(w.stats.full.get() == 1);
  CHECK(w.room.calls == 0);
  w.slot->give_back(*conn, kGood);
  CHECK(w.room.calls == 1);
  taken = w.slot->take(second, nullptr, kLater);
  CHECK(taken.conn == conn);
  // Its unit is free once the socket is closed, not before.
  w.slot->discard(*conn);
  CHECK(w.share.used() == 1);
  CHECK(w.slot->take(second, nullptr, kLater).error == EAGAIN);
  REQUIRE(w.until([&] { return w.slot->empty(); }));
  CHECK(w.room.calls == 2);
  CHECK(w.share.used() == 0);
}

TEST_CASE("ServerSlot: at the limit an idle connection with another key makes room") {
  SlotWorld w(spec_with(kAlways), 1);
  w.park_one();
  const ConnKey key{.bytes = "other", .hash = 5};
  User user;
  CHECK(w.slot->take(user, &key, kLater).error == EAGAIN);
  CHECK(w.closed(CloseReason::kMakeRoom) == 1);
  const int before = w.room.calls;
  REQUIRE(w.until([&] { return w.room.calls > before; }));
  const ServerSlot::Taken taken = w.slot->take(user, &key, kLater);
  REQUIRE(taken.conn != nullptr);
  REQUIRE(w.until([&] { return user.connected; }));
  w.slot->give_back(*taken.conn, kGood);
  CHECK(w.slot->pool().idle() == 1);
}

TEST_CASE("ServerSlot: the limit 0 refuses everything") {
  SlotWorld w(spec_with(kAlways, 2), 0);
  User user;
  CHECK(w.slot->take(user, nullptr, kLater).error == EAGAIN);
  CHECK(w.slot->open_single(user).error == EAGAIN);
  w.pass(20'000);
  CHECK(w.stats.connects.get() == 0);
}

// Two shards share the limit; this one holds all of it idle.
TEST_CASE("ServerSlot: idle connections give their places to another shard that wants them") {
  SlotWorld w(spec_with(kAlways), 2, 2);
  OneShard others;
  BudgetShare other(w.budget, 1, others);
  std::vector<User> users(2);
  std::vector<ServerConn*> taken;
  for (User& user : users) taken.push_back(w.take(user));
  for (ServerConn* conn : taken) w.slot->give_back(*conn, kGood);
  REQUIRE(w.slot->pool().idle() == 2);
  CHECK_FALSE(other.try_acquire());
  other.want();
  w.slot->free_asked();
  CHECK(w.slot->pool().idle() == 1);  // One is wanted, one goes.
  CHECK(w.closed(CloseReason::kMakeRoom) == 1);
  REQUIRE(w.until([&] { return w.slot->pool().total() == 1; }));
  other.collect();
  CHECK(other.try_acquire());
  other.settle(false);
  other.release();
}

TEST_CASE("ServerSlot: a connection given back while another shard wants its place is closed") {
  SlotWorld w(spec_with(kAlways), 2, 2);
  OneShard others;
  BudgetShare other(w.budget, 1, others);
  std::vector<User> users(2);
  ServerConn* conn = w.take(users[0]);
  ServerConn* stays = w.take(users[1]);
  CHECK_FALSE(other.try_acquire());
  other.want();
  w.slot->give_back(*conn, kGood);
  CHECK(w.slot->pool().idle() == 0);
  CHECK(w.closed(CloseReason::kMakeRoom) == 1);
  REQUIRE(w.until([&] { return w.slot->pool().total() == 1; }));
  other.collect();
  CHECK(other.try_acquire());
  other.settle(false);
  other.release();
  w.slot->give_back(*stays, kGood);
}

TEST_CASE("ServerSlot: no memory for a connection is an error, and leaves no unit taken") {
  SlotWorld w(spec_with(kAlways), 100);
  std::vector<User> users(65);
  std::vector<ServerConn*> taken;
  for (size_t i = 0; i < 64; ++i) {
    taken.push_back(w.slot->take(users[i], nullptr, kLater).conn);
    REQUIRE(taken.back() != nullptr);
  }
  CHECK(w.slot->take(users[64], nullptr, kLater).error == ENOBUFS);
  CHECK(w.share.used() == 64);
  for (ServerConn* conn : taken) w.slot->discard(*conn);
  REQUIRE(w.until([&] { return w.slot->empty(); }));
  CHECK(w.share.used() == 0);
}

TEST_CASE("ServerSlot: out of memory for connections an idle one with another key makes room") {
  SlotWorld w(spec_with(kAlways), 100);
  std::vector<User> users(64);
  std::vector<ServerConn*> taken;
  for (User& user : users) taken.push_back(w.take(user));
  w.slot->give_back(*taken.back(), kGood);
  taken.pop_back();
  const ConnKey key{.bytes = "other", .hash = 5};
  User user;
  CHECK(w.slot->take(user, &key, kLater).error == EAGAIN);
  CHECK(w.closed(CloseReason::kMakeRoom) == 1);
  // Nothing else is idle: the next one has nothing to wait for.
  User late;
  CHECK(w.slot->take(late, &key, kLater).error == ENOBUFS);
  const int before = w.room.calls;
  REQUIRE(w.until([&] { return w.room.calls > before; }));
  taken.push_back(w.slot->take(user, &key, kLater).conn);
  REQUIRE(taken.back() != nullptr);
  REQUIRE(w.until([&] { return user.connected; }));
  CHECK(w.share.used() == 64);
  for (ServerConn* conn : taken) w.slot->discard(*conn);
}

TEST_CASE("ServerSlot: single use is used once") {
  SlotWorld w(spec_with(kAlways));
  User user;
  const ServerSlot::Taken taken = w.slot->open_single(user);
  REQUIRE(taken.conn != nullptr);
  REQUIRE(w.until([&] { return user.connected; }));
  w.slot->give_back(*taken.conn, kGood);
  CHECK(w.slot->pool().idle() == 0);
  CHECK(w.closed(CloseReason::kReuseOff) == 1);
}

TEST_CASE(
    "ServerSlot: retired it closes what is idle now and the rest after use; then it is back") {
  SlotWorld w(spec_with(kAlways, 1));
  REQUIRE(w.until([&] { return w.slot->pool().idle() == 1; }));
  User user;
  ServerConn* conn = w.take(user);
  w.slot->retire(CloseReason::kOutOfService);
  CHECK(w.slot->pool().idle() == 0);
  w.slot->give_back(*conn, kGood);
  CHECK(w.closed(CloseReason::kOutOfService) >= 1);
  REQUIRE(w.until([&] { return w.slot->empty(); }));
  const uint64_t opened = w.stats.connects.get();
  w.pass(20'000);
  CHECK(w.stats.connects.get() == opened);
  w.slot->return_to_service();
  REQUIRE(w.until([&] { return w.slot->pool().idle() == 1; }));
}

TEST_CASE("ServerSlot: after traffic stops everything idle is gone within its life") {
  SlotWorld w(spec_with({.mode = ReuseMode::kAlways, .idle_ms = 25'000, .idle_floor = 1}));
  std::vector<User> users(20);
  std::vector<ServerConn*> taken;
  for (User& user : users) taken.push_back(w.take(user));
  for (ServerConn* conn : taken) w.slot->give_back(*conn, kGood);
  CHECK(w.slot->pool().idle() == 20);
  w.pass(25'000 + 2 * Timers::kTickMs);
  CHECK(w.slot->pool().idle() == 0);
  CHECK(w.closed(CloseReason::kUnneeded) > 0);
  REQUIRE(w.until([&] { return w.slot->empty(); }));
}

}  // namespace ringway
