// tests/support/sim_l4_test.cc - the layer 4 relay in a simulated world with faults, many seeds.
#include <doctest/doctest.h>
#include <stdlib.h>

#include <memory>
#include <string>
#include <vector>

#include "lb/l4_session.h"
#include "tests/support/sim_actors.h"

using namespace ringway;

namespace {

struct Echo final : SimHandler {
  void on_bytes(SimConnection& connection, std::string_view bytes) override {
    connection.send(bytes);
  }
};

std::string random_bytes(Prng& prng, size_t size) {
  std::string out(size, '\0');
  for (char& byte : out) byte = static_cast<char>(prng.next());
  return out;
}

// One run: clients send random bytes through the relay to echo servers, one of which is down.
struct World {
  explicit World(uint64_t seed) : net({.seed = seed, .faults = true}), prng(net.prng().fork()) {
    const auto make = [](SimConnection&) { return std::make_unique<Echo>(); };
    ServerAddress at;
    REQUIRE(parse_address("10.0.0.1:0", at));
    for (int i = 0; i < 2; ++i) {
      servers.push_back(std::make_unique<SimServer>(net, servers_io, at, make));
    }
    ServerAddress dead;
    REQUIRE(parse_address("10.0.0.2:1", dead));
    front_fd = net.make_listener(at);
    relay = std::make_unique<L4Listener>(
        shard_io, front_fd, std::vector{dead, servers[0]->address(), servers[1]->address()});
    for (int i = 0; i < 10; ++i) add_client();
  }

  void add_client() {
    SimClient::Script script;
    std::string all;
    for (uint64_t pieces = prng.below(6); pieces > 0; --pieces) {
      const size_t size = prng.below(uint64_t{1} << prng.between(1, 15));
      script.pieces.push_back({static_cast<int64_t>(prng.below(20'000)), random_bytes(prng, size)});
      all += script.pieces.back().bytes;
    }
    if (prng.chance(0.1)) script.end = SimClient::End::kReset;
    if (prng.chance(0.1)) script.end = SimClient::End::kClose;
    script.end_delay_us = static_cast<int64_t>(prng.below(50'000));
    if (prng.chance(0.3)) {
      script.read_slice = prng.between(1, 4096);
      script.read_pause_us = static_cast<int64_t>(prng.below(5'000));
    }
    ends.push_back(script.end);
    sent.push_back(std::move(all));
    clients.push_back(std::make_unique<SimClient>(net, clients_io, std::move(script)));
    clients.back()->start(net.address_of(front_fd), static_cast<int64_t>(prng.below(100'000)));
  }

  bool at_rest() const {
    for (const auto& client : clients) {
      if (!client->done()) return false;
    }
    return relay->live() == 0 && net.live_sockets() == 0;
  }

  // Faults for a while, then none; true when everything came to rest.
  bool run() {
    net.run_until([&] { return at_rest(); }, 3'000);
    net.stop_faults();
    const bool rest = net.run_until([&] { return at_rest(); }, 1'000'000);
    shard_io.unlisten(front_fd);  // May accept clients that left long ago.
    net.close_listener(front_fd);
    for (auto& server : servers) server->stop();
    return net.run_until([&] { return at_rest(); }, 1'000'000) && rest;
  }

  // Each client got a prefix of what it sent; all of it, unless something was seen to go wrong.
  size_t check_streams() {
    bool trouble = relay->counters().refused > 0;
    for (const SimRecord& record : net.records()) trouble = trouble || record.reset;
    size_t whole = 0;
    for (size_t i = 0; i < clients.size(); ++i) {
      const SimConnection& connection = clients[i]->connection();
      CHECK(sent[i].starts_with(connection.received()));
      const bool complete = connection.received() == sent[i];
      whole += complete ? 1 : 0;
      if (trouble || ends[i] != SimClient::End::kFin || !connection.connected()) continue;
      CHECK(complete);
      CHECK(connection.ended_cleanly());
    }
    return whole;
  }

  SimNet net;
  Prng prng;
  SimIo shard_io{net};
  SimIo servers_io{net};
  SimIo clients_io{net};
  std::vector<std::unique_ptr<SimServer>> servers;
  std::unique_ptr<L4Listener> relay;
  std::vector<std::unique_ptr<SimClient>> clients;
  std::vector<std::string> sent;
  std::vector<SimClient::End> ends;
  int front_fd = -1;
};

// A number from the environment, for longer runs and for repeating one seed.
uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* text = getenv(name);
  return text != nullptr ? strtoull(text, nullptr, 10) : otherwise;
}

}  // namespace

// RINGWAY_SIM_SEED is the first seed, RINGWAY_SIM_SEEDS their number.
TEST_CASE("L4 in the simulator: 200 seeds with faults -> streams intact, all ends, no leak") {
  size_t whole = 0;
  uint64_t connections = 0;
  const uint64_t first = from_environment("RINGWAY_SIM_SEED", 1);
  const uint64_t count = from_environment("RINGWAY_SIM_SEEDS", 200);
  for (uint64_t seed = first; seed < first + count; ++seed) {
    World world(seed);
    INFO(world.net.describe());
    CAPTURE(seed);
    REQUIRE(world.run());
    whole += world.check_streams();
    connections += world.net.records().size();
    CHECK(world.net.live_sockets() == 0);
    CHECK(world.net.live_listeners() == 0);
  }
  MESSAGE(connections << " connections, " << whole << " of " << 10 * count
                      << " clients got everything");
  CHECK((whole > 5 * count || count < 100));  // The faults must not drown what is to be tested.
}

TEST_CASE("SimNet: the same seed -> the same trace, another seed -> another") {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    uint64_t traces[3] = {};
    for (size_t i = 0; i < 3; ++i) {
      World world(i < 2 ? seed : seed + 1000);
      REQUIRE(world.run());
      traces[i] = world.net.trace_hash();
    }
    CHECK(traces[0] == traces[1]);
    CHECK(traces[0] != traces[2]);
  }
}
