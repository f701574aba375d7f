// bench/pool_bench.cc - what the pool costs per request: a connection picked, and given back.
//
// Budget: 80 ns with the fixed key; 150 ns with a key of the request's among 1,000, building it
// included. An idle server connection: 512 bytes of ours. Run: ninja bench/pool_bench.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "core/address.h"
#include "core/base/check.h"
#include "pool/server_conn.h"
#include "pool/server_pool.h"

namespace ringway {
namespace {

struct BenchConn final : PooledConn {
  using PooledConn::PooledConn;
  void on_pool_close(CloseReason reason) override { RW_CHECK(reason == CloseReason::kReplaced); }
};

// Nobody ever waits here.
struct NoPeers final : BudgetPeers {
  void ask_return(Budget&, uint32_t) override { RW_CHECK(false); }
  void notify(Budget&, uint32_t) override { RW_CHECK(false); }
};

// A pool of `keys` keys with `each` idle connections, under an idle limit as in production.
struct Bench {
  Bench(size_t keys, size_t each) {
    RW_CHECK(parse_address("10.0.0.1:80", address));
    pool = std::make_unique<ServerPool>(memory, stats, build({}), &share);
    pool->update({.mode = ReuseMode::kAlways,
                  .idle_floor = static_cast<uint32_t>(keys * each),
                  .groups_max = 100'000});
    for (size_t i = 0; i < keys; ++i) hosts.push_back("host-" + std::to_string(i) + ".example\n");
    for (size_t i = 0; i < keys * each; ++i) {
      conns.push_back(std::make_unique<BenchConn>(*pool));
      const ConnKey key = build(hosts[i % keys]);
      pool->begin(*conns.back(), keys == 1 ? nullptr : &key, 1);
      RW_CHECK(pool->connected_idle(*conns.back(), 1) == ServerPool::Verdict::kParked);
    }
    // Not in the order of the connections.
    for (size_t i = hosts.size(); i > 1; --i) std::swap(hosts[i - 1], hosts[prng.below(i)]);
  }
  ~Bench() {
    pool->close_idle(CloseReason::kReplaced);
    for (auto& conn : conns) pool->closed(*conn);
    conns.clear();
  }
  ConnKey build(std::string_view host) {
    if (pool != nullptr)
      return key_buffer.extend(pool->fixed_group().bytes(), {.pool_name = host}, memory.secret);
    return key_buffer.build({.destination = address.get(), .destination_length = address.length},
                            memory.secret);
  }

  Slab<KeyGroup> groups{100'000};
  Prng prng{1};
  ConnKeyBuffer key_buffer;
  PoolMemory memory{
      .groups = groups, .secret = {.low = 1, .high = 2}, .prng = prng, .key_buffer = key_buffer};
  NoPeers peers;
  Budget budget{4, 1'000'000};
  BudgetShare share{budget, 0, peers};
  PoolStats stats;
  ServerAddress address;
  std::unique_ptr<ServerPool> pool;
  std::vector<std::string> hosts;
  std::vector<std::unique_ptr<BenchConn>> conns;
};

constexpr FinishNotes kGood{.clean = true, .server_keeps = true, .hint_max = UINT64_MAX};

void pick_and_finish(benchmark::State& state, ServerPool& pool, const ConnKey* key, int64_t now) {
  const ServerPool::Picked picked = pool.pick(key, {});
  if (picked.conn == nullptr) return state.SkipWithError("nothing idle");
  benchmark::DoNotOptimize(picked.conn);
  if (pool.finish(*picked.conn, kGood, now) != ServerPool::Verdict::kParked) {
    state.SkipWithError("not parked");
  }
}

// The argument: idle connections.
void bm_fixed_key(benchmark::State& state) {
  Bench bench(1, static_cast<size_t>(state.range(0)));
  int64_t now = 1;
  for (auto _ : state) pick_and_finish(state, *bench.pool, nullptr, ++now);
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(bm_fixed_key)->Arg(1)->Arg(16)->Arg(1000);

// The argument: keys, each with one idle connection; taken in turn.
void bm_dynamic_key(benchmark::State& state) {
  Bench bench(static_cast<size_t>(state.range(0)), 1);
  int64_t now = 1;
  size_t next = 0;
  for (auto _ : state) {
    const ConnKey key = bench.build(bench.hosts[next]);
    if (++next == bench.hosts.size()) next = 0;
    pick_and_finish(state, *bench.pool, &key, ++now);
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(bm_dynamic_key)->Arg(16)->Arg(1000)->Arg(10'000);

// Of the above, the key alone.
void bm_build_key(benchmark::State& state) {
  Bench bench(1000, 1);
  size_t next = 0;
  for (auto _ : state) {
    ConnKey key = bench.build(bench.hosts[next]);
    if (++next == bench.hosts.size()) next = 0;
    benchmark::DoNotOptimize(key);
  }
}
BENCHMARK(bm_build_key);

}  // namespace
}  // namespace ringway

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  benchmark::AddCustomContext("bytes of an idle server connection",
                              std::to_string(sizeof(ringway::ServerConn)));
  benchmark::AddCustomContext("bytes of its place in the pool",
                              std::to_string(sizeof(ringway::PooledConn)));
  benchmark::AddCustomContext("bytes of a key group", std::to_string(sizeof(ringway::KeyGroup)));
  benchmark::AddCustomContext("bytes of a session's entry",
                              std::to_string(sizeof(ringway::SessionEntry)));
  benchmark::AddCustomContext(
      "bytes of a pool, with its counters",
      std::to_string(sizeof(ringway::ServerPool) + sizeof(ringway::PoolStats)));
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
