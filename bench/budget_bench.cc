// bench/budget_bench.cc - what a limit costs per request: a unit acquired and released.
//
// Budget: 5 ns within what the shard holds. Beside it, a shared atomic counter, alone and with
// others. Run: ninja bench/budget_bench.
#include <benchmark/benchmark.h>

#include <array>
#include <atomic>
#include <memory>

#include "core/base/check.h"
#include "pool/budget.h"

namespace ringway {
namespace {

constexpr uint32_t kThreadsMax = 64;

// Nobody ever waits here, so no message is sent.
struct NoPeers final : BudgetPeers {
  void ask_return(Budget&, uint32_t) override { RW_CHECK(false); }
  void notify(Budget&, uint32_t) override { RW_CHECK(false); }
};

// Threads are shards of one budget.
NoPeers peers;
std::unique_ptr<Budget> budget;
std::array<std::unique_ptr<BudgetShare>, kThreadsMax> shares;

template <int64_t kMax>
void set_up(const benchmark::State& state) {
  const auto threads = static_cast<uint32_t>(state.threads());
  budget = std::make_unique<Budget>(threads, kMax);
  for (uint32_t i = 0; i < threads; ++i) {
    shares[i] = std::make_unique<BudgetShare>(*budget, i, peers);
  }
}

void tear_down(const benchmark::State&) {
  for (auto& share : shares) share.reset();
  budget.reset();
}

void bm_budget(benchmark::State& state) {
  BudgetShare* share = shares[static_cast<size_t>(state.thread_index())].get();
  for (auto _ : state) {
    benchmark::DoNotOptimize(share);  // or it becomes a register's ++ and --
    RW_CHECK(share->try_acquire());
    benchmark::DoNotOptimize(share);
    share->release();
  }
  state.SetItemsProcessed(state.iterations());
}

void bm_budget_held(benchmark::State& state) {
  bm_budget(state);
}
void bm_budget_off(benchmark::State& state) {
  bm_budget(state);
}
// Below twice the shards: each unit goes back at once, atomic operations on a shared line.
void bm_budget_small(benchmark::State& state) {
  bm_budget(state);
}
#define RW_BENCH_BUDGET(name, max) \
  BENCHMARK(name)->Setup(set_up<(max)>)->Teardown(tear_down)->ThreadRange(1, 2)->UseRealTime()
RW_BENCH_BUDGET(bm_budget_held, 1'000'000);
RW_BENCH_BUDGET(bm_budget_off, Budget::kOff);
RW_BENCH_BUDGET(bm_budget_small, 3);

// What the budget replaces.
void bm_shared_atomic(benchmark::State& state) {
  alignas(64) static std::atomic<int64_t> free{1'000'000};
  for (auto _ : state) {
    RW_CHECK(free.fetch_sub(1) > 0);
    free.fetch_add(1);
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(bm_shared_atomic)->ThreadRange(1, 2)->UseRealTime();

}  // namespace
}  // namespace ringway

BENCHMARK_MAIN();
