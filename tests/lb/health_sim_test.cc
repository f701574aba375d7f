// tests/lb/health_sim_test.cc - when checks are made, in virtual time; and under faults.
#include <doctest/doctest.h>

#include <algorithm>

#include "lb/health/health.h"
#include "tests/lb/health_script.h"
#include "tests/support/sim_io.h"
#include "tests/support/sim_net.h"

namespace ringway {
namespace {

using End = ScriptedServer::End;

const std::string kGood = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const std::string kBad = "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n";

ServerAddress address_of(const std::string& text) {
  ServerAddress address;
  REQUIRE(parse_address(text, address));
  return address;
}

// The checker on one simulated thread, its servers on another.
struct World final : SimLoop {
  explicit World(uint64_t seed = 1, bool faults = false)
      : net({.seed = seed, .faults = faults}),
        io(net),
        peers(net),
        timers(net.now_us() / 1000),
        checker(io, timers, log) {
    net.set_loop(io, this);
    turn_due();
  }
  ~World() {
    checker.stop();
    for (auto& server : servers) server->stop();
    const bool rest = net.run_until([&] { return quiet(); }, 1'000'000);
    CHECK_MESSAGE(rest, net.describe());
    for (const int fd : listeners) net.close_listener(fd);
    net.set_loop(io, nullptr);
  }
  bool quiet() const {
    return checker.idle() && std::all_of(servers.begin(), servers.end(),
                                         [](const auto& server) { return server->quiet(); });
  }
  void turn() override {
    io.run_once(0);
    timers.expire(net.now_us() / 1000);
    turn_due();
  }
  void turn_due() {
    const int64_t next = timers.next_in_ms(net.now_us() / 1000);
    deadline = next < 0 ? kNever : net.now_us() + std::max<int64_t>(next, 1) * 1000;
  }
  [[nodiscard]] int64_t deadline_us() const override { return deadline; }

  ScriptedServer& serve(const std::string& where, ScriptedServer::Script script) {
    listeners.push_back(net.make_listener(address_of(where)));
    servers.push_back(std::make_unique<ScriptedServer>(peers, listeners.back(), std::move(script)));
    return *servers.back();
  }
  CheckTarget target(const std::string& where, config::Health health, bool up = true) {
    return {"u/" + where, address_of(where), where, health, std::make_shared<ServerHealth>(up)};
  }
  void watch(std::vector<CheckTarget> targets) {
    checker.set_targets(std::move(targets));
    turn_due();
  }
  void run_ms(int64_t ms) { net.run_for(ms * 1000, 10'000'000); }

  SimNet net;
  SimIo io;
  SimIo peers;
  VerdictLog log;
  Timers timers;
  HealthChecker checker;
  std::vector<int> listeners;
  std::vector<std::unique_ptr<ScriptedServer>> servers;
  int64_t deadline = kNever;
};

config::Health http() {
  config::Health health;
  health.type = config::HealthType::kHttp;
  health.interval = 2'000;
  health.fast_interval = 500;
  health.down_interval = 5'000;
  health.timeout = 1'000;
  health.rise = 2;
  health.fall = 3;
  return health;
}

// The gaps between checks, rounded to 100 ms: timers tick in 8 ms, connections take some.
std::vector<int64_t> gaps(const ScriptedServer& server) {
  std::vector<int64_t> found;
  const std::vector<int64_t>& at = server.accepted_ms();
  for (size_t i = 1; i < at.size(); ++i) found.push_back((at[i] - at[i - 1] + 50) / 100 * 100);
  return found;
}

TEST_CASE("HealthChecker: checks come from the server's source; one that is not here -> down") {
  World w;
  w.serve("10.0.0.2:80", {kGood});
  config::Health health;
  health.type = config::HealthType::kTcp;
  health.rise = health.fall = 1;
  CheckTarget target = w.target("10.0.0.2:80", health);
  REQUIRE(parse_source("10.0.0.9", target.local.source));
  const PeerAddress source = PeerAddress::from(*target.local.source.get());
  const auto state = target.state;
  w.net.set_foreign(source, true);
  w.watch({target});
  w.run_ms(5'000);
  CHECK_FALSE(state->up());
  CHECK(state->checks_skipped.get() == 0);
  REQUIRE(w.log.all.size() == 1);
  CHECK(w.log.all[0].reason == "source: not an address of this machine");
  w.net.set_foreign(source, false);
  w.run_ms(10'000);
  CHECK(state->up());
}

TEST_CASE("HealthChecker: stable, changing, stable -> interval, fast_interval, down_interval") {
  World world;
  ScriptedServer& server = world.serve("10.0.0.1:80", {kGood});
  world.watch({world.target("10.0.0.1:80", http())});
  world.run_ms(5'000);  // Checks at about 0.x, 2.x, 4.x s.
  REQUIRE(server.accepted_ms().size() == 3);
  server.set_script({kBad});
  world.run_ms(13'000);  // Fails at 6.x, 6.5+x, 7.x s; then every 5 s.
  CHECK(gaps(server) == std::vector<int64_t>{2000, 2000, 2000, 500, 500, 5000, 5000});
  REQUIRE(world.log.all.size() == 1);
  CHECK_FALSE(world.log.all[0].up);
  CHECK(world.log.all[0].reason == "status 500, expected 200-299");
  server.set_script({kGood});
  world.run_ms(10'000);  // Passes twice, then every 2 s.
  const std::vector<int64_t> after = gaps(server);
  REQUIRE(after.size() >= 10);
  CHECK(std::vector<int64_t>(after.begin() + 7, after.begin() + 10) ==
        std::vector<int64_t>{5000, 500, 2000});
  REQUIRE(world.log.all.size() == 2);
  CHECK(world.log.all[1].up);
}

TEST_CASE("HealthChecker: failures that are not in a row -> no verdict") {
  World world;
  ScriptedServer& server = world.serve("10.0.0.1:80", {kGood});
  const CheckTarget target = world.target("10.0.0.1:80", http());
  world.watch({target});
  for (int i = 0; i < 20; ++i) {  // Two failures, a pass, and again: fall is 3.
    const size_t before = server.accepted_ms().size();
    server.set_script({i % 3 == 2 ? kGood : kBad});
    while (server.accepted_ms().size() == before) world.run_ms(10);
    world.run_ms(50);
  }
  CHECK(target.state->checks_failed.get() == 14);
  CHECK(target.state->up());
  CHECK(world.log.all.empty());
}

TEST_CASE("HealthChecker: initially down -> up only after `rise` passes") {
  World world;
  world.serve("10.0.0.1:80", {kGood});
  const CheckTarget target = world.target("10.0.0.1:80", http(), false);
  world.watch({target});
  while (target.state->checks_passed.get() == 0) world.run_ms(5);
  CHECK_FALSE(target.state->up());
  while (target.state->checks_passed.get() == 1) world.run_ms(5);
  CHECK(target.state->up());
  CHECK(world.log.all.size() == 1);
}

TEST_CASE("HealthChecker: unreachable, silent or dripping servers -> the right time-out") {
  // Sends a byte of a good answer per second: never silent, never done.
  struct Drip final : AcceptOwner, SocketOwner, SimTimerOwner {
    Drip(SimNet& from_net, SimIo& from_io) : net(from_net), io(from_io), socket(*this) {}
    void on_accepted(int fd, const PeerAddress& /*peer*/) override {
      if (socket.open()) return io.discard(fd);
      at = 0;
      io.adopt(socket, fd);
      io.set_receiving(socket, true);
      timer = net.start_timer(400'000, *this, 0);
    }
    void on_sim_timer(uint32_t /*tag*/) override {
      if (!socket.open()) return;
      const iovec piece{.iov_base = const_cast<char*>(kGood.data()) + at++, .iov_len = 1};
      if (io.send(socket, {&piece, 1}) == 1) timer = net.start_timer(400'000, *this, 0);
    }
    void on_connected(Socket& /*socket*/, int /*error*/) override {}
    void on_receive(Socket& /*socket*/, std::span<const std::byte> /*bytes*/) override {}
    void on_receive_end(Socket& /*socket*/, int /*error*/) override {
      net.cancel_timer(timer);
      io.close(socket);
    }
    void on_writable(Socket& /*socket*/) override {}
    void on_closed(Socket& /*socket*/) override {}
    SimNet& net;
    SimIo& io;
    Socket socket;
    size_t at = 0;
    uint64_t timer = 0;
  };
  World world;
  world.net.set_unreachable(address_of("10.0.0.1:80"), true);
  world.serve("10.0.0.2:80", {"", End::kStay});
  Drip drip(world.net, world.peers);
  const int fd = world.net.make_listener(address_of("10.0.0.3:80"));
  world.peers.listen(fd, drip);
  world.watch({world.target("10.0.0.1:80", http()), world.target("10.0.0.2:80", http()),
               world.target("10.0.0.3:80", http())});
  world.run_ms(20'000);
  REQUIRE(world.log.all.size() == 3);
  CHECK(world.log.of("u/10.0.0.1:80").front().reason == "connect: timeout after 1000 ms");
  CHECK(world.log.of("u/10.0.0.2:80").front().reason == "response: timeout after 1000 ms");
  CHECK(world.log.of("u/10.0.0.3:80").front().reason == "response: timeout after 1000 ms");
  world.checker.stop();
  CHECK(world.net.run_until([&] { return !drip.socket.open(); }, 100'000));
  world.peers.unlisten(fd);
  world.net.close_listener(fd);
}

TEST_CASE("HealthChecker: more targets than may be in flight -> 256 at once, all in turn") {
  World world;
  ScriptedServer& server = world.serve("10.0.0.1:80", {"", End::kStay});
  std::vector<CheckTarget> targets;
  config::Health health = http();
  health.timeout = 10'000;
  for (int i = 0; i < 700; ++i) {
    targets.push_back(world.target("10.0.0.1:80", health));
    targets.back().id = "u/" + std::to_string(i);
  }
  world.watch(targets);
  size_t most = 0;
  for (int i = 0; i < 400; ++i) {
    world.run_ms(100);
    most = std::max(most, world.io.live_sockets());
    CHECK(server.live() <= 2 * 256);  // What the checker has closed may live on here for a moment.
  }
  CHECK(most == 256);
  for (const CheckTarget& target : targets) CHECK(target.state->checks_failed.get() >= 1);
}

// Goal: checks that fail inside connect() take their turns in a loop, not in a recursion.
TEST_CASE("HealthChecker: 10,000 targets wait that cannot even start -> each fails in its turn") {
  World world;
  world.serve("10.0.0.1:80", {"", End::kStay});
  std::vector<CheckTarget> targets;
  config::Health slow = http();
  slow.timeout = 60'000;
  slow.interval = slow.fast_interval = 10;  // These are first.
  for (int i = 0; i < 256; ++i) {
    targets.push_back(world.target("10.0.0.1:80", slow));
    targets.back().id = "u/slow" + std::to_string(i);
  }
  world.watch(targets);
  world.run_ms(100);
  CHECK(world.io.live_sockets() == 256);
  for (int i = 0; i < 10'000; ++i) {
    targets.push_back(world.target("unix:/none", http()));
    targets.back().id = "u/none" + std::to_string(i);
  }
  world.watch(targets);
  world.run_ms(50'000);
  const auto failed = [&](const CheckTarget& target) {
    return target.state->checks_failed.get() >= 1;
  };
  CHECK(std::none_of(targets.begin() + 256, targets.end(), failed));
  world.run_ms(20'000);
  CHECK(std::all_of(targets.begin() + 256, targets.end(), failed));
}

std::vector<int64_t> first_checks(uint64_t seed) {
  World world(seed);
  std::vector<CheckTarget> targets;
  for (int i = 0; i < 50; ++i) {
    const std::string where = "10.0.1." + std::to_string(i + 1) + ":80";
    world.serve(where, {kGood});
    targets.push_back(world.target(where, http()));
  }
  world.watch(targets);
  world.run_ms(700);
  std::vector<int64_t> at;
  for (const auto& server : world.servers) {
    REQUIRE(server->accepted_ms().size() == 1);
    at.push_back((server->accepted_ms()[0] - 1000 + 10) / 20);
  }
  return at;
}

TEST_CASE("HealthChecker: first checks of many servers -> spread, the same way each time") {
  std::vector<int64_t> at = first_checks(1);
  const std::vector<int64_t> again = first_checks(2);
  for (size_t i = 0; i < at.size(); ++i) CHECK(std::abs(at[i] - again[i]) <= 1);
  std::sort(at.begin(), at.end());
  CHECK(at.back() <= 27);
  CHECK(std::unique(at.begin(), at.end()) - at.begin() >= 12);  // Of 25 slots of 20 ms.
}

TEST_CASE("HealthChecker: set_targets -> same ones undisturbed, others closed, changed ones anew") {
  World world;
  ScriptedServer& kept = world.serve("10.0.0.1:80", {kGood});
  ScriptedServer& gone = world.serve("10.0.0.2:80", {"", End::kStay});
  ScriptedServer& changed = world.serve("10.0.0.3:80", {kGood});
  const CheckTarget first = world.target("10.0.0.1:80", http());
  const CheckTarget second = world.target("10.0.0.2:80", http());
  CheckTarget third = world.target("10.0.0.3:80", http());
  world.watch({first, second, third});
  while (gone.live() == 0) world.run_ms(1);
  for (int i = 0; i < 20; ++i) {  // As many reloads.
    third.health.interval = 60'000 + i;
    world.watch({third, first});
    world.run_ms(1'000);
  }
  CHECK(gone.live() == 0);
  CHECK(gone.accepted_ms().size() == 1);
  CHECK(second.state->checks_failed.get() == 0);  // Cut off, not failed.
  for (const int64_t gap : gaps(kept)) CHECK(gap == 2000);
  CHECK(kept.accepted_ms().size() >= 10);
  CHECK(changed.accepted_ms().size() >= 20);
  CHECK(world.log.all.empty());
}

TEST_CASE("HealthChecker: faults of every kind -> no wrong reason; up again once they end") {
  const std::string chunked =
      "HTTP/1.1 103 A\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
      "3\r\nafi\r\n2\r\nne\r\n0\r\n\r\n";
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    World world(seed, true);
    CAPTURE(world.net.describe());
    config::Health health = http();
    health.expect_body = "fine";
    std::vector<CheckTarget> targets;
    for (int i = 0; i < 5; ++i) {
      const std::string where = "10.0.0." + std::to_string(i + 1) + ":80";
      world.serve(where, {chunked});
      targets.push_back(world.target(where, health, i % 2 == 0));
    }
    world.watch(targets);
    world.run_ms(60'000);
    world.net.stop_faults();
    world.run_ms(200'000);  // Stalls that were drawn already last up to 2 min.
    for (const CheckTarget& target : targets) CHECK(target.state->up());
    for (const auto& verdict : world.log.all) {  // However it was cut, the answer was well-formed.
      const bool wrong = verdict.reason.starts_with("status 5") ||
                         verdict.reason.starts_with("body does not") ||
                         verdict.reason.starts_with("malformed response: bad");
      CHECK_FALSE_MESSAGE(wrong, verdict.reason);
    }
  }
}

}  // namespace
}  // namespace ringway
