// tests/pool/pool_model_test.cc - the pools against their model, by random operations from seeds.
//
// RINGWAY_POOL_OPS=n: operations in all, 1,000,000 without it. RINGWAY_POOL_SEED=n: the first seed,
// 1 without it; each seed is a world of its own with kOpsPerSeed operations.
// A run is a process of its own, so that a failed check is a result like any other: it is reported
// with its seed, and shortened by leaving out operations while it still fails.
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <new>
#include <string_view>
#include <vector>

#include "tests/pool/pool_world.h"

using namespace ringway;

namespace {

constexpr uint64_t kOpsPerSeed = 2'000;

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* text = getenv(name);
  return text == nullptr ? otherwise : strtoull(text, nullptr, 10);
}

// Where the child is; the parent reads it after the child has died.
struct Progress {
  uint64_t seed = 0;
  uint64_t op = 0;
  PoolWorld::Tally tally;
};
Progress* progress = nullptr;

std::vector<PoolOp> ops_of(uint64_t seed, uint64_t count) {
  Prng prng(seed ^ 0x706f6f6cU);
  std::vector<PoolOp> ops(count);
  for (PoolOp& op : ops) op = PoolWorld::draw(prng);
  return ops;
}

void run_world(uint64_t seed, const std::vector<PoolOp>& ops) {
  progress->seed = seed;
  PoolWorld world(seed);
  for (uint64_t i = 0; i < ops.size(); ++i) {
    progress->op = i;
    world.run(ops[i]);
  }
  progress->op = ops.size();
  world.wind_down();
  world.tally(progress->tally);
}

// What never happened in the whole run, but for what the pool has no part in.
bool print_gaps(const PoolWorld::Tally& tally) {
  bool gaps = false;
  const auto look = [&](std::string_view name, uint64_t count) {
    if (count > 0) return;
    std::printf("never happened: %.*s\n", static_cast<int>(name.size()), name.data());
    gaps = true;
  };
  for (size_t i = 0; i < kHows; ++i) {
    const auto how = static_cast<How>(i);
    if (how == How::kBorrowed || how == How::kAnticipated) continue;
    look(kHowNames[i], tally.handed[i]);
  }
  for (size_t i = 0; i < kMisses; ++i) {
    if (static_cast<Miss>(i) != Miss::kPrivate) look(kMissNames[i], tally.missed[i]);
  }
  for (size_t i = 0; i < kCloseReasons; ++i) {
    const auto reason = static_cast<CloseReason>(i);
    if (reason == CloseReason::kMakeRoom || reason == CloseReason::kLayer4) continue;
    look(kCloseReasonNames[i], tally.closed[i]);
  }
  look("private", tally.reserved);
  look("learned", tally.learned);
  look("held", tally.held);
  look("joined on a private one", tally.joined_own);
  return gaps;
}

// Runs `act` in a child; true if that ended well.
template <typename Act>
bool survives(bool quiet, Act act) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    if (quiet && freopen("/dev/null", "w", stderr) == nullptr) _exit(2);
    act();
    _exit(0);
  }
  int status = 0;
  return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
         WEXITSTATUS(status) == 0;
}

// Leaves out halves, quarters, ... single operations while the rest still fails.
std::vector<PoolOp> shrink(uint64_t seed, std::vector<PoolOp> ops) {
  for (size_t piece = ops.size() / 2; piece > 0; piece /= 2) {
    for (size_t at = 0; at < ops.size();) {
      std::vector<PoolOp> fewer = ops;
      const auto from = fewer.begin() + static_cast<std::ptrdiff_t>(at);
      fewer.erase(from, from + static_cast<std::ptrdiff_t>(std::min(piece, ops.size() - at)));
      if (survives(true, [&] { run_world(seed, fewer); })) {
        at += piece;
      } else {
        ops = fewer;
      }
    }
  }
  return ops;
}

void report(uint64_t seed) {
  std::vector<PoolOp> ops = ops_of(seed, kOpsPerSeed);
  ops.resize(std::min<size_t>(ops.size(), progress->op + 1));
  std::printf("FAILED: RINGWAY_POOL_SEED=%llu, operation %llu\n",
              static_cast<unsigned long long>(seed), static_cast<unsigned long long>(progress->op));
  if (getenv("RINGWAY_POOL_NO_SHRINK") != nullptr) return;
  if (survives(true, [&] { run_world(seed, ops); })) return;  // only a longer run fails
  ops = shrink(seed, std::move(ops));
  std::printf("shortest:\n");
  for (const PoolOp& op : ops) {
    std::printf("  %s %u %u %u\n", PoolWorld::name_of(op), op.a, op.b, op.c);
  }
  survives(false, [&] { run_world(seed, ops); });
}

}  // namespace

int main() {
  void* shared =
      mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return 2;
  progress = new (shared) Progress;
  const uint64_t first = from_environment("RINGWAY_POOL_SEED", 1);
  const uint64_t count = from_environment("RINGWAY_POOL_OPS", 1'000'000);
  const bool good = survives(false, [&] {
    uint64_t seed = first;
    for (uint64_t done = 0; done < count; done += kOpsPerSeed, ++seed) {
      run_world(seed, ops_of(seed, kOpsPerSeed));
    }
  });
  if (!good) {
    report(progress->seed);
    return 1;
  }
  if (count >= 1'000'000 && print_gaps(progress->tally)) return 1;
  std::printf("pool model: %llu operations from seed %llu, all agree\n",
              static_cast<unsigned long long>(count), static_cast<unsigned long long>(first));
  return 0;
}
