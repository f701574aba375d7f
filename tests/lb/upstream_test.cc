// tests/lb/upstream_test.cc - choosing with limits, waiting, and servers that come and go.
#include "lb/upstream.h"

#include <doctest/doctest.h>

#include <map>
#include <string>

#include "lb/config/load.h"
#include "lb/tls/shard_tls.h"
#include "tests/support/sim_io.h"

using namespace ringway;

namespace {

struct Upstream final : BudgetPeers {
  Upstream() = default;
  ~Upstream() {
    upstream.retire();
    upstream.serve_queue();
    CHECK(upstream.sweep());
  }

  // Units come back to the shard itself here; a worker would deliver these after the turn.
  void ask_return(Budget& budget, uint32_t /*shard*/) override {
    mail.push_back({.kind = ShardMail::Kind::kAskReturn, .object = &budget});
  }
  void notify(Budget& budget, uint32_t /*shard*/) override {
    mail.push_back({.kind = ShardMail::Kind::kNotify, .object = &budget});
  }
  void after_turn() {
    const std::vector<ShardMail> taken = std::move(mail);
    mail.clear();
    for (const ShardMail& each : taken) upstream.take_mail(each);
    upstream.serve_queue();
  }

  void apply(const std::string& servers, const std::string& more = "") {
    config::LoadResult loaded = config::load_text(
        "version = 1\n[listeners.web]\nbind = '127.0.0.1:80'\n[[routes]]\nname = 'all'\n"
        "upstream = 'u'\n[upstreams.u]\nbalance.algorithm = 'first'\nservers = [" +
            servers + "]\n" + more + "\n",
        "test");
    INFO(config::render(loaded, false));
    REQUIRE(loaded.config != nullptr);
    snapshot = Snapshot::build(std::move(loaded.config), snapshot.get(), 1);
    snapshot->set_limits(*this);
    upstream.apply(snapshot, 0);
  }

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
  std::shared_ptr<Snapshot> snapshot;
  std::vector<ShardMail> mail;
  ShardUpstream upstream{context, 7};
};

// Takes a server when its turn comes.
struct Taker final : Waiter {
  explicit Taker(ShardUpstream& from) : upstream(from) {}
  void on_turn() override {
    ++turns;
    server = upstream.pick(0, {}).server;
    if (server == nullptr) upstream.wait_on(*this);
  }
  void on_queue_timeout() override { timed_out = true; }
  ShardUpstream& upstream;
  ShardServer* server = nullptr;
  int turns = 0;
  bool timed_out = false;
};

const std::string kTwo =
    "{ name = 'a', address = '127.0.0.1:81', max_requests = 1 }, "
    "{ name = 'b', address = '127.0.0.1:82', max_requests = 1 }";

}  // namespace

TEST_CASE("ShardUpstream: a full server -> the next one; all full -> wait, in order") {
  Upstream world;
  world.apply(kTwo);
  ShardUpstream& upstream = world.upstream;
  ShardServer* a = upstream.pick(0, {}).server;
  ShardServer* b = upstream.pick(0, {}).server;
  REQUIRE(a != nullptr);
  REQUIRE(b != nullptr);
  CHECK(a->object->name == "a");
  CHECK(b->object->name == "b");
  const ShardUpstream::Picked none = upstream.pick(0, {});
  CHECK(none.server == nullptr);
  CHECK(none.full);
  Taker first(upstream);
  Taker second(upstream);
  REQUIRE(upstream.enqueue(first));
  REQUIRE(upstream.enqueue(second));
  world.after_turn();
  CHECK(first.server == nullptr);
  upstream.release(*b);
  for (int i = 0; i < 4; ++i) world.after_turn();
  CHECK(first.server == b);
  CHECK(second.server == nullptr);
  upstream.release(*a);
  for (int i = 0; i < 4; ++i) world.after_turn();
  CHECK(second.server == a);
  CHECK_FALSE(upstream.anyone_waits());
  upstream.release(*a);
  upstream.release(*b);
  upstream.check();
}

TEST_CASE("ShardUpstream: the queue's bound, and who leaves frees a place") {
  Upstream world;
  world.apply(kTwo, "queue = { max = 1 }");
  ShardUpstream& upstream = world.upstream;
  ShardServer* a = upstream.pick(0, {}).server;
  ShardServer* b = upstream.pick(0, {}).server;
  CHECK(upstream.pick(0, {}).full);
  Taker first(upstream);
  Taker second(upstream);
  CHECK(upstream.enqueue(first));
  CHECK_FALSE(upstream.enqueue(second));
  upstream.leave_queue(first);
  CHECK(upstream.enqueue(second));
  upstream.leave_queue(second);
  for (int i = 0; i < 4; ++i) world.after_turn();
  CHECK(world.context.restless == 0);
  upstream.release(*a);
  upstream.release(*b);
}

TEST_CASE("ShardUpstream: a limit raised by a reload -> who waits gets on") {
  Upstream world;
  world.apply("{ name = 'a', address = '127.0.0.1:81', max_requests = 1 }");
  ShardUpstream& upstream = world.upstream;
  ShardServer* a = upstream.pick(0, {}).server;
  CHECK(upstream.pick(0, {}).full);
  Taker waiter(upstream);
  REQUIRE(upstream.enqueue(waiter));
  world.after_turn();
  CHECK(waiter.server == nullptr);
  world.apply("{ name = 'a', address = '127.0.0.1:81', max_requests = 2 }");
  for (int i = 0; i < 4; ++i) world.after_turn();
  CHECK(waiter.server == a);
  upstream.release(*a);
  upstream.release(*a);
}

// Goal: an administrator sees where the units of limits are, what blocks a server's removal, and
// how long a shard waited.
TEST_CASE("ShardUpstream: limits, units held and used, and waits are reported") {
  Upstream world;
  world.apply("{ name = 'a', address = '127.0.0.1:81', max_requests = 1 }",
              "[upstreams.u.pool]\nmax_connections_per_server = 7");
  ShardUpstream& upstream = world.upstream;
  ShardServer* a = upstream.pick(0, {}).server;
  REQUIRE(a != nullptr);
  Taker waiter(upstream);
  CHECK(upstream.pick(0, {}).full);
  REQUIRE(upstream.enqueue(waiter));
  world.after_turn();
  const auto group = [&](const char* name) {
    std::vector<PoolReport> reports;
    upstream.report(reports);
    REQUIRE(reports.size() == 1);
    std::map<std::string, uint64_t> found;
    for (const CountGroup& counts : reports[0].counts) {
      if (std::string_view(counts.name) != name) continue;
      for (const NamedCount& count : counts.counts) found[count.name] = count.value;
    }
    return found;
  };
  using Counts = std::map<std::string, uint64_t>;
  CHECK(group("limits")["requests"] == 1);
  CHECK(group("limits")["connections"] == 7);
  CHECK(group("leases")["requests_held"] == 1);
  CHECK(group("leases")["requests_used"] == 1);
  CHECK(group("leases")["connections_used"] == 0);
  CHECK(group("blocks_removal") ==
        Counts{{"requests", 1}, {"log_lines", 0}, {"connections", 0}, {"waiting_to_join", 0}});
  const ServerStats& stats = a->stats();
  const auto waits = [&] {
    LatencySnapshot sum;
    sum.add(stats.limit_wait);
    return sum;
  };
  CHECK(waits().count() == 0);
  const uint64_t before = stats.refills[static_cast<size_t>(Limit::kRequests)].get();
  CHECK(before >= 1);
  world.net.run_for(250'000, 1'000);
  upstream.release(*a);
  for (int i = 0; i < 4; ++i) world.after_turn();
  REQUIRE(waiter.server == a);
  CHECK(stats.refills[static_cast<size_t>(Limit::kRequests)].get() == before + 1);
  CHECK(waits().count() == 1);
  CHECK(waits().sum_us >= 250'000);
  upstream.release(*a);
  CHECK(group("leases")["requests_used"] == 0);
  CHECK(group("blocks_removal")["requests"] == 0);
}

TEST_CASE("ShardUpstream: a server that was tried, or is down, is not chosen") {
  Upstream world;
  world.apply(kTwo);
  ShardUpstream& upstream = world.upstream;
  const std::array<uint32_t, 1> tried{0};
  ShardServer* b = upstream.pick(0, tried).server;
  REQUIRE(b != nullptr);
  CHECK(b->object->name == "b");
  upstream.release(*b);
  world.snapshot->servers[0][0]->health->set_up(false);
  CHECK(upstream.pick(0, {}).server->object->name == "a");  // Not before the shard is told.
  upstream.release(*upstream.servers()[0]);
  upstream.refresh_health();
  ShardServer* now = upstream.pick(0, {}).server;
  CHECK(now->object->name == "b");
  upstream.release(*now);
}
