// tests/lb/worker_test.cc - admitting clients, taking over configurations, ending.
#include "lb/worker.h"

#include "tests/lb/one_worker.h"

using namespace ringway;

TEST_CASE("Worker: the listener's limit -> further clients are closed at once and counted") {
  OneWorker world({answers("x")}, "", "max_connections = 2");
  SimConnection& first = world.client({kGet});
  SimConnection& second = world.client({kGet});
  world.run(50);
  SimConnection& third = world.client({kGet});
  world.run(50);
  CHECK(count_of(first.received() + second.received(), "200 OK") == 2);
  CHECK(third.received() == "");
  CHECK(world.listener().refused_limit.get() == 1);
  CHECK(world.loads[0].clients.load() == 2);
  first.close();
  world.run(50);
  CHECK(world.ask(kGet).starts_with("HTTP/1.1 200"));
}

TEST_CASE("Worker: a descriptor for a listener that is gone -> closed and not counted") {
  OneWorker world({answers("x")});
  const auto [ours, theirs] = world.net.make_pair();
  world.loads[0].clients.fetch_add(1);  // As its sender has.
  world.worker.adopt(99, ours, {});
  CHECK(world.loads[0].clients.load() == 0);
  world.clients_io.discard(theirs);
  world.run(10);
}

TEST_CASE("Worker: a reload -> unchanged servers keep connections and counters, removed ones end") {
  OneWorker world({answers("a"), answers("b")});
  CHECK(world.ask(kGet).ends_with("a"));
  CHECK(world.server(0).pool.places[static_cast<size_t>(Place::kIdleUnproven)].get() == 1);
  world.apply("");
  CHECK(world.server(0).requests.get() == 1);
  CHECK(world.server(0).pool.places[static_cast<size_t>(Place::kIdleUnproven)].get() == 1);
  ServerStats& old = world.server(0);
  const std::shared_ptr<Snapshot> before = world.snapshot;
  world.addresses.erase(world.addresses.begin());
  world.apply("");
  world.run(50);
  for (const Counter& place : old.pool.places) CHECK(place.get() == 0);
  CHECK(old.pool.closed[static_cast<size_t>(CloseReason::kReplaced)].get() == 1);
  CHECK(world.ask(kGet).ends_with("b"));
}

TEST_CASE("Worker: stop -> clients and servers are closed, nothing is left") {
  OneWorker world({[](SimConnection&, std::string_view) -> size_t { return 0; }});
  SimConnection& waiting = world.client({kGet});
  world.run(50);
  world.worker.stop();
  CHECK(!world.worker.finished());
  REQUIRE(world.net.run_until([&] { return world.worker.finished(); }, 10'000));
  CHECK(world.worker.quiet());
  CHECK(world.upstream().active.get() == 0);
  CHECK(world.listener().active.get() == 0);
  world.run(50);
  CHECK(waiting.ended());
}

TEST_CASE(
    "Worker: limits over requests and connections -> the rest waits, in order, or is refused") {
  bool answer = false;
  OneWorker world({[&](SimConnection& connection, std::string_view bytes) -> size_t {
                    return answer ? answers("x")(connection, bytes) : 0;
                  }},
                  "pool = { max_connections_per_server = 1 }\nqueue = { max = 2 }\n"
                  "timeouts = { queue = \"500ms\" }");
  SimConnection& first = world.client({kGet});
  world.run(20);
  SimConnection& second = world.client({kGet});
  world.run(20);
  SimConnection& third = world.client({kGet});
  world.run(20);
  CHECK(world.upstream().queued.get() == 2);
  CHECK(world.ask(kGet, 20).starts_with("HTTP/1.1 503"));
  CHECK(world.upstream().queue_full.get() == 1);
  third.close();
  world.run(20);
  CHECK(world.upstream().queued.get() == 1);  // Its place is free at once.
  SUBCASE("room in time") {
    answer = true;
    first.close();
    world.run(50);
    CHECK(second.received().starts_with("HTTP/1.1 200"));
    CHECK(world.upstream().queued_total.get() == 2);
  }
  SUBCASE("no room in time") {
    world.run(600);
    CHECK(second.received().starts_with("HTTP/1.1 503"));
    CHECK(world.upstream().queue_timeouts.get() == 1);
  }
  CHECK(world.upstream().queued.get() == 0);
}
