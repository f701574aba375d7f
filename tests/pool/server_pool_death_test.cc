// tests/pool/server_pool_death_test.cc - misuse of the pool stops the process.
#include <doctest/doctest.h>

#include <string>
#include <thread>

#include "tests/pool/pool_access.h"
#include "tests/pool/pool_fixture.h"
#include "tests/support/expect_death.h"

namespace ringway {
namespace {

using Verdict = ServerPool::Verdict;

// `act` ends in a failed check of `file`.
template <typename Act>
void check_dies(const char* file, Act act) {
  const std::string said = death_of(act);
  CAPTURE(said);
  CHECK(said.find("check failed") != std::string::npos);
  CHECK(said.find(file) != std::string::npos);
}

void move(FakeConn& conn, Place to) {
  ServerPool& pool = conn.pool();
  (pool.*move_to_of(pool))(conn, to);
}

}  // namespace

TEST_CASE("Pool misuse: parking twice") {
  PoolFixture f({.mode = ReuseMode::kAlways});
  FakeConn& conn = f.idle();
  check_dies("server_pool", [&] { static_cast<void>(f.finish(conn)); });
  check_dies("server_pool_places", [&] { move(conn, Place::kIdleUnproven); });
  check_dies("server_pool_places", [&] { move(conn, Place::kIdleSafe); });
}

TEST_CASE("Pool misuse: a closing connection goes nowhere but out") {
  PoolFixture f({.mode = ReuseMode::kAlways});
  FakeConn& conn = f.open();
  f.pool.close(conn, CloseReason::kError);
  for (size_t to = 1; to < kPlaces; ++to) {
    CAPTURE(to);
    check_dies("server_pool_places", [&] { move(conn, static_cast<Place>(to)); });
  }
  check_dies("server_pool", [&] { f.pool.close(conn, CloseReason::kError); });
  check_dies("server_pool", [&] { static_cast<void>(f.finish(conn)); });
  check_dies("server_pool", [&] { f.pool.connected(conn); });
}

TEST_CASE("Pool misuse: out of the pool twice, or before it was closed") {
  PoolFixture f({.mode = ReuseMode::kAlways});
  FakeConn& conn = f.open();
  check_dies("server_pool_places", [&] { f.pool.closed(conn); });
  f.pool.close(conn, CloseReason::kError);
  f.pool.closed(conn);
  check_dies("server_pool_places", [&] { f.pool.closed(conn); });
}

TEST_CASE("Pool misuse: destroyed while it is linked, counted or closing") {
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_floor = 4});
  SessionStore store(f.shard.entries);
  f.begin();
  f.open();
  f.open(nullptr, 3);
  f.idle();
  FakeConn& own = f.open();
  REQUIRE(f.pool.make_private(own, store, f.server_target()));
  f.pool.close(f.open(), CloseReason::kError);
  for (auto& conn : f.conns) {
    CAPTURE(static_cast<int>(conn->place()));
    check_dies("server_pool", [&] { conn.reset(); });
  }
  check_dies("session_store", [&] { store.~SessionStore(); });
  check_dies("server_pool", [&] { f.pool.~ServerPool(); });
  f.end();
}

TEST_CASE("Pool misuse: un-owning without an entry, or out of another one") {
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_floor = 4});
  SessionStore one(f.shard.entries);
  SessionStore two(f.shard.entries);
  FakeConn& conn = f.open();
  FakeConn& shared = f.open();
  FakeConn& other = f.open();
  REQUIRE(f.pool.make_private(conn, one, f.server_target()));
  REQUIRE(f.pool.make_private(other, two, f.server_target()));
  check_dies("session_store", [&] { un_own_of(one)(shared); });
  check_dies("session_store", [&] {
    conn.*entry_of(conn) = nullptr;
    un_own_of(one)(conn);
  });
  check_dies("session_store", [&] { own_of(one)(*one.find(f.server_target(), nullptr), other); });
  f.end();
}

TEST_CASE("Pool misuse: a private connection passed to another session") {
  PoolFixture f({.mode = ReuseMode::kAlways});
  SessionStore one(f.shard.entries);
  SessionStore two(f.shard.entries);
  FakeConn& conn = f.open();
  REQUIRE(f.pool.make_private(conn, one, f.server_target()));
  check_dies("server_pool", [&] { f.pool.make_private(conn, two, f.server_target()); });
  f.end();
}

TEST_CASE("Pool misuse: a connection that one session holds given to another") {
  PoolFixture f({.mode = ReuseMode::kSafe});
  SessionStore one(f.shard.entries);
  SessionStore two(f.shard.entries);
  FakeConn& conn = f.open(nullptr, 5);
  f.pool.hold(conn, one);
  check_dies("server_pool", [&] { f.pool.hold(conn, two); });
  check_dies("session_store", [&] { one.close_all(); });
  f.end();
}

TEST_CASE("Pool misuse: an idle connection made private, or one of another pool used") {
  PoolFixture f({.mode = ReuseMode::kAlways});
  PoolFixture g({.mode = ReuseMode::kAlways});
  SessionStore store(f.shard.entries);
  FakeConn& conn = f.idle();
  check_dies("server_pool", [&] { f.pool.make_private(conn, store, f.server_target()); });
  check_dies("server_pool_places", [&] { g.pool.close(conn, CloseReason::kError); });
  FakeConn fresh(f.pool);
  check_dies("server_pool", [&] { g.pool.begin(fresh, nullptr, 1); });
}

// haproxy's shards take connections from each other; here nobody but the owner moves one.
TEST_CASE("Pool misuse: called from another thread") {
  PoolFixture f({.mode = ReuseMode::kAlways, .idle_floor = 4});
  SessionStore store(f.shard.entries);
  FakeConn& used = f.open();
  f.idle();
  const auto elsewhere = [&](auto act) {
    check_dies("server_pool_places", [&] { std::thread(act).join(); });
  };
  elsewhere([&] { static_cast<void>(f.pool.pick(nullptr, {})); });
  elsewhere([&] { static_cast<void>(f.finish(used)); });
  elsewhere([&] { f.pool.make_private(used, store, f.server_target()); });
  elsewhere([&] { f.pool.close(used, CloseReason::kError); });
  elsewhere([&] { f.pool.close_idle(CloseReason::kDown); });
  elsewhere([&] { f.begin(); });
  elsewhere([&] { static_cast<void>(f.pool.begin_transit("fixed", f.shard.key("fixed").hash)); });
}

TEST_CASE("Pool misuse: a session that ends while its connection is in use") {
  PoolFixture f({.mode = ReuseMode::kAlways});
  SessionStore store(f.shard.entries);
  FakeConn& conn = f.open();
  REQUIRE(f.pool.make_private(conn, store, f.server_target()));
  check_dies("session_store", [&] { store.close_all(); });
  f.end();
}

}  // namespace ringway
