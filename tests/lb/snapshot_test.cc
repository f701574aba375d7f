// tests/lb/snapshot_test.cc - what a reload keeps and what it makes anew. Overrides of servers are
// in server_controls_test.cc.
#include "lb/snapshot.h"

#include <doctest/doctest.h>

#include <memory>
#include <string>

#include "lb/config/load.h"

using namespace ringway;

namespace {

// `rest` stands behind one listener and one route to the upstream "u".
std::shared_ptr<Snapshot> build(const std::string& rest, const Snapshot* previous = nullptr) {
  config::LoadResult loaded = config::load_text(
      "version = 1\n[listeners.web]\nbind = '127.0.0.1:80'\n"
      "[[routes]]\nname = 'all'\nupstream = 'u'\n" +
          rest,
      "test");
  INFO(config::render(loaded, false));
  REQUIRE(loaded.config != nullptr);
  return Snapshot::build(std::move(loaded.config), previous, 2);
}

std::string server(const std::string& name, const std::string& port, const std::string& rest = "") {
  return "{ name = '" + name + "', address = '127.0.0.1:" + port + "'" + rest + " }";
}

std::string upstream(const std::string& servers, const std::string& rest = "") {
  return "[upstreams.u]\nservers = [" + servers + "]\n" + rest;
}

struct Nobody final : BudgetPeers {
  void ask_return(Budget& /*budget*/, uint32_t /*shard*/) override { ++asked; }
  void notify(Budget& /*budget*/, uint32_t /*shard*/) override {}
  int asked = 0;
};

const std::string kCheck = "health = { type = 'tcp', initial = 'down' }\n";

}  // namespace

TEST_CASE("Snapshot: the first one -> number 1, objects in the file's order with their names") {
  const auto first = build(upstream(server("a", "81") + "," + server("b", "82")) +
                           "[listeners.more]\nbind = '127.0.0.1:90'\n"
                           "[upstreams.v]\nservers = [{ address = '127.0.0.1:83' }]\n");
  CHECK(first->number == 1);
  REQUIRE(first->listeners.size() == 2);
  for (size_t i = 0; i < 2; ++i) {
    CHECK(first->listeners[i]->name == first->config->listeners[i].name);
    CHECK(first->listeners[i]->shard.stats.size() == 2);
  }
  REQUIRE(first->upstreams.size() == 2);
  REQUIRE(first->servers.size() == 2);
  for (size_t i = 0; i < 2; ++i) {
    CHECK(first->upstreams[i]->name == first->config->upstreams[i].name);
    REQUIRE(first->servers[i].size() == first->config->upstreams[i].servers.size());
    for (size_t j = 0; j < first->servers[i].size(); ++j) {
      CHECK(first->servers[i][j]->name == first->config->upstreams[i].servers[j].name);
      CHECK(first->servers[i][j]->address_text ==
            first->config->upstreams[i].servers[j].address_text);
    }
  }
}

// Goal: counters and verdicts belong to names; that the file was sorted anew changes nothing.
TEST_CASE("Snapshot: a reload in another order -> each name keeps its object, new ones get one") {
  const std::string more = "[listeners.more]\nbind = '127.0.0.1:90'\n";
  const auto first = build(upstream(server("a", "81") + "," + server("b", "82")) + more);
  first->servers[0][0]->shard.at(1).requests.add(5);
  const auto second =
      build(more + upstream(server("c", "83") + "," + server("b", "82") + "," + server("a", "81")) +
                "[upstreams.v]\nservers = [{ address = '127.0.0.1:81' }]\n",
            first.get());
  CHECK(second->number == 2);
  CHECK(second->servers[0][1] == first->servers[0][1]);
  CHECK(second->servers[0][2] == first->servers[0][0]);
  CHECK(second->servers[0][2]->shard.at(1).requests.get() == 5);
  CHECK(second->servers[0][0]->name == "c");
  CHECK(second->upstreams[0] == first->upstreams[0]);
  // The same address in another upstream is another server.
  CHECK(second->servers[1][0] != first->servers[0][0]);
  for (const auto& listener : second->listeners) {
    const auto& old = first->listeners[listener->name == first->listeners[0]->name ? 0 : 1];
    CHECK(listener == old);
  }
}

TEST_CASE("Snapshot: removed and back again -> new objects, the old ones stay with their users") {
  const auto first = build(upstream(server("a", "81") + "," + server("b", "82")));
  const std::shared_ptr<ServerObject> gone = first->servers[0][1];
  const auto second = build(upstream(server("a", "81")), first.get());
  const auto third = build(upstream(server("a", "81") + "," + server("b", "82")), second.get());
  CHECK(third->number == 3);
  CHECK(third->servers[0][0] == first->servers[0][0]);
  CHECK(third->servers[0][1] != gone);
}

// Goal: connections made under other terms must not be used any more, so the pool starts anew.
TEST_CASE("Snapshot: address, TLS or protocol of a server changes -> a new object") {
  const auto first = build(upstream(server("a", "81")));
  for (const std::string& changed :
       {upstream(server("a", "82")), upstream(server("a", "81"), "tls = { verify = false }\n"),
        upstream(server("a", "81"), "http_versions = ['h2']\n"), upstream(server("b", "81"))}) {
    CAPTURE(changed);
    const auto second = build(changed, first.get());
    CHECK(second->servers[0][0] != first->servers[0][0]);
    CHECK(second->upstreams[0] == first->upstreams[0]);
    CHECK(build(changed, second.get())->servers[0][0] == second->servers[0][0]);
  }
  const auto other =
      build(upstream(server("a", "81"), "timeouts = { connect = '9s' }\n"), first.get());
  CHECK(other->servers[0][0] == first->servers[0][0]);
}

TEST_CASE("Snapshot: health -> initial as configured, kept over reloads, up where nobody checks") {
  const auto unchecked = build(upstream(server("a", "81")));
  CHECK(unchecked->servers[0][0]->health->up());
  const auto first = build(upstream(server("a", "81") + "," + server("b", "82"), kCheck));
  CHECK_FALSE(first->servers[0][0]->health->up());
  first->servers[0][0]->health->set_up(true);
  const auto second =
      build(upstream(server("a", "81") + "," + server("b", "82"), kCheck), first.get());
  CHECK(second->servers[0][0]->health->up());
  CHECK_FALSE(second->servers[0][1]->health->up());
  // Checks begin: what served without them is not doubted before the first verdict.
  const auto begins = build(upstream(server("a", "81"), kCheck), unchecked.get());
  CHECK(begins->servers[0][0]->health->up());
  const auto ends = build(upstream(server("a", "81") + "," + server("b", "82")), second.get());
  CHECK(ends->servers[0][1]->health->up());
}

TEST_CASE("Snapshot: maintenance ends by the file -> the server starts as `initial` says") {
  const auto first = build(upstream(server("a", "81", ", state = 'maintenance'"), kCheck));
  first->servers[0][0]->health->set_up(true);
  const auto still =
      build(upstream(server("a", "81", ", state = 'maintenance'"), kCheck), first.get());
  CHECK(still->servers[0][0]->health->up());
  const auto ready = build(upstream(server("a", "81"), kCheck), still.get());
  CHECK(ready->servers[0][0] == first->servers[0][0]);
  CHECK_FALSE(ready->servers[0][0]->health->up());
}

TEST_CASE("Snapshot: set_limits -> budgets follow the file, an override wins, off is off") {
  const std::string pool = "pool = { max_connections_per_server = 8, max_idle_per_server = 4 }\n";
  const auto first = build(upstream(server("a", "81", ", max_requests = 10"), pool));
  const ServerBudgets& budgets = first->servers[0][0]->budgets;
  CHECK(budgets.requests.max() == 10);
  CHECK(budgets.connections.max() == 8);
  CHECK(budgets.idle.max() == 4);
  Nobody peers;
  // Built, not yet in force: requests under way still count against the old ones.
  const auto second = build(
      upstream(server("a", "81", ", max_requests = 20"), "pool = { max_idle_per_server = 2 }\n"),
      first.get());
  CHECK(budgets.requests.max() == 10);
  second->set_limits(peers);
  CHECK(budgets.requests.max() == 20);
  CHECK(budgets.idle.max() == 2);
  CHECK(budgets.connections.max() ==
        ServerBudgets::limit(second->config->upstreams[0].servers[0].max_connections));
  second->servers[0][0]->controls.set({.max_requests = 3});
  second->set_limits(peers);
  CHECK(budgets.requests.max() == 3);
  second->servers[0][0]->controls.set({.max_requests = config::kUnlimited});
  second->set_limits(peers);
  CHECK(budgets.requests.max() == Budget::kOff);
}
