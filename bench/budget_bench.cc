// bench/budget_bench.cc - what a limit costs per request: a unit acquired and released.
//
// Budget: 5 ns within what the shard holds. Beside it, a shared atomic counter, alone and with
// others. Run: ninja bench/budget_bench.
#include <benchmark/benchmark.h>

#include <array>
#include <atomic>
#include <memory>
#include <vector>

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

void acquire_and_release(benchmark::State& state, BudgetShare& share) {
  for (auto _ : state) {
    BudgetShare* which = &share;
    benchmark::DoNotOptimize(which);
    const bool acquired = which->try_acquire();
    benchmark::DoNotOptimize(acquired);
    if (!acquired) state.SkipWithError("no unit");
    which->release();
  }
  state.SetItemsProcessed(state.iterations());
}

// Threads are shards of one budget with the limit given, or with none.
void bm_budget(benchmark::State& state, int64_t max) {
  static NoPeers peers;
  static std::unique_ptr<Budget> budget;
  static std::array<std::unique_ptr<BudgetShare>, kThreadsMax> shares;
  const auto index = static_cast<uint32_t>(state.thread_index());
  if (index == 0) {
    budget = std::make_unique<Budget>(static_cast<uint32_t>(state.threads()), max);
    for (uint32_t i = 0; i < static_cast<uint32_t>(state.threads()); ++i) {
      shares[i] = std::make_unique<BudgetShare>(*budget, i, peers);
    }
  }
  acquire_and_release(state, *shares[index]);  // all wait for the first at the loop's start
  if (index == 0) {
    for (auto& share : shares) share.reset();
    budget.reset();
  }
}
BENCHMARK_CAPTURE(bm_budget, held, int64_t{1'000'000})->ThreadRange(1, 2)->UseRealTime();
BENCHMARK_CAPTURE(bm_budget, no_limit, Budget::kOff)->ThreadRange(1, 2)->UseRealTime();
// Below twice the shards: each unit goes back at once, two atomic operations on a shared line.
BENCHMARK_CAPTURE(bm_budget, small_limit, int64_t{3})->ThreadRange(1, 2)->UseRealTime();

// What the budget replaces.
void bm_shared_atomic(benchmark::State& state) {
  alignas(64) static std::atomic<int64_t> free{1'000'000};
  for (auto _ : state) {
    const bool acquired = free.fetch_sub(1) > 0;
    benchmark::DoNotOptimize(acquired);
    free.fetch_add(1);
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(bm_shared_atomic)->ThreadRange(1, 2)->UseRealTime();

}  // namespace
}  // namespace ringway

BENCHMARK_MAIN();
