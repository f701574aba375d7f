// tests/lb/server_controls_test.cc - overrides of servers: over reloads, and in what is picked.
#include "lb/server_controls.h"

#include <doctest/doctest.h>

#include <string>

#include "lb/config/load.h"
#include "lb/snapshot.h"
#include "lb/tls/shard_tls.h"
#include "lb/upstream.h"
#include "tests/support/sim_io.h"

using namespace ringway;
using config::ServerState;

namespace {

// Two servers "a" and "b" with these further keys.
std::unique_ptr<const config::Config> load(const std::string& a, const std::string& b) {
  config::LoadResult loaded = config::load_text(
      "version = 1\n[listeners.web]\nbind = '127.0.0.1:80'\n[[routes]]\nname = 'all'\n"
      "upstream = 'u'\n[upstreams.u]\nservers = [{ name = 'a', address = '127.0.0.1:81'" +
          a + " }, { name = 'b', address = '127.0.0.1:82'" + b + " }]\n",
      "test");
  INFO(config::render(loaded, false));
  REQUIRE(loaded.config != nullptr);
  return std::move(loaded.config);
}

std::shared_ptr<const Snapshot> snapshot(const std::string& a = "", const std::string& b = "",
                                         const Snapshot* previous = nullptr) {
  return Snapshot::build(load(a, b), previous, 1);
}

ServerSettings settings(const Snapshot& snapshot, size_t server) {
  return snapshot.servers[0][server]->controls.settings(
      snapshot.config->upstreams[0].servers[server]);
}

// One upstream on one shard, without a network.
struct OneShard final : BudgetPeers {
  SimNet net{SimOptions{}};
  SimIo io{net};
  Timers timers{1};
  ChunkPool chunks{16};
  StreamEnv env{io, chunks};
  Slab<ServerConn> conns{16};
  Slab<KeyGroup> groups{64};
  Prng prng{1};
  ConnKeyBuffer key_buffer;
  PoolMemory memory{groups, {}, prng, key_buffer};
  PoolContext pool{env, timers, conns, memory};
  ShardTls tls{0};
  UpstreamContext context{.pool = pool, .peers = *this, .tls = tls};
  ShardUpstream upstream{context, 7};

  void ask_return(Budget& /*budget*/, uint32_t /*shard*/) override {}
  void notify(Budget& /*budget*/, uint32_t /*shard*/) override {}

  // How many of 400 picks go to server 0 and 1, or to none.
  struct Shares {
    int a = 0;
    int b = 0;
    int none = 0;
  };
  Shares shares() {
    Shares shares;
    for (int i = 0; i < 400; ++i) {
      ShardServer* server = upstream.pick(0, {}).server;
      ++(server == nullptr ? shares.none : server->index == 0 ? shares.a : shares.b);
      if (server != nullptr) upstream.release(*server);
    }
    return shares;
  }
};

}  // namespace

TEST_CASE("ServerControls: overrides -> hold until they are taken back") {
  config::Server server;
  server.weight = 80;
  server.state = ServerState::kDrain;
  ServerControls controls;
  CHECK(controls.overrides() == ServerOverrides{});
  CHECK(controls.settings(server) == ServerSettings{.state = ServerState::kDrain, .weight = 80});
  const ServerOverrides all{.state = ServerState::kReady,
                            .weight = 0,
                            .max_requests = 5,
                            .max_connections = config::kUnlimited};
  controls.set(all);
  CHECK(controls.overrides() == all);
  CHECK(controls.settings(server) == ServerSettings{.state = ServerState::kReady,
                                                    .weight = 0,
                                                    .max_requests = 5,
                                                    .max_connections = config::kUnlimited});
  controls.set({});
  CHECK(controls.settings(server) == ServerSettings{.state = ServerState::kDrain, .weight = 80});
}

TEST_CASE("Snapshot: a reload -> overrides of unchanged servers stay, the file wins where edited") {
  const auto first = snapshot(", weight = 50");
  first->servers[0][0]->controls.set({.state = ServerState::kMaintenance, .weight = 10});
  first->servers[0][1]->controls.set({.state = ServerState::kDrain, .max_requests = 9});

  const auto same = snapshot(", weight = 50", "", first.get());
  CHECK(same->servers[0][0] == first->servers[0][0]);
  CHECK(settings(*same, 0).state == ServerState::kMaintenance);
  CHECK(settings(*same, 0).weight == 10);
  CHECK(settings(*same, 1).state == ServerState::kDrain);

  // The weight of `a` and the state of `b` were edited; what was not stays overridden.
  const auto edited = snapshot(", weight = 60", ", state = 'maintenance'", same.get());
  CHECK(settings(*edited, 0).state == ServerState::kMaintenance);
  CHECK(settings(*edited, 0).weight == 60);
  CHECK_FALSE(edited->servers[0][0]->controls.overrides().weight.has_value());
  CHECK(settings(*edited, 1).state == ServerState::kMaintenance);
  CHECK(settings(*edited, 1).max_requests == 9);
}

TEST_CASE("ShardUpstream: the state of a server -> new work only while it is ready") {
  OneShard shard;
  const auto snap = snapshot();
  shard.upstream.apply(snap, 0);
  CHECK(shard.shares().a == 200);
  ServerControls& a = snap->servers[0][0]->controls;
  for (const ServerState state : {ServerState::kDrain, ServerState::kMaintenance}) {
    a.set({.state = state});
    CHECK(shard.shares().a == 200);  // Not before the shard is told.
    shard.upstream.refresh_health();
    CHECK(shard.shares().b == 400);
    a.set({});
    shard.upstream.refresh_health();
  }
  a.set({.state = ServerState::kMaintenance});
  // Nothing else is left: a drained server still takes nothing.
  snap->servers[0][1]->controls.set({.state = ServerState::kDrain});
  shard.upstream.refresh_health();
  CHECK(shard.shares().none == 400);
  a.set({});
  shard.upstream.refresh_health();
  CHECK(shard.shares().a == 400);
}

TEST_CASE("ShardUpstream: weight override -> another share after the refresh, and over a reload") {
  OneShard shard;
  const auto snap = snapshot();
  shard.upstream.apply(snap, 0);
  snap->servers[0][0]->controls.set({.weight = 300});
  shard.upstream.refresh_health();
  CHECK(shard.shares().a == 300);
  shard.upstream.apply(snapshot("", "", snap.get()), 0);
  CHECK(shard.shares().a == 300);
}

TEST_CASE("ShardUpstream: configured state -> holds from the start, ready overrides it") {
  OneShard shard;
  const auto snap = snapshot(", state = 'maintenance'");
  shard.upstream.apply(snap, 0);
  CHECK(shard.shares().b == 400);
  snap->servers[0][0]->controls.set({.state = ServerState::kReady});
  shard.upstream.refresh_health();
  CHECK(shard.shares().a == 200);
}
