// bench/doorbell_bench.cc - what it costs a shard to wake another: eventfd against ring messages.
//
// Two threads with a ring each, pinned to the first two CPUs (or to one, if there is one only).
// "wake" sends one doorbell to a shard that sleeps and waits for the answer, which is such a
// doorbell too. "busy" sends one per turn to a shard that has turns of its own all the time, so
// nobody sleeps. CPU time is that of both threads; the two kinds take turns in slices, and the
// ratio is that of neighbouring slices. Budget: 12 s with the default of 20 slices.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "core/base/check.h"
#include "core/cpus.h"
#include "core/engines.h"

namespace ringway {
namespace {

int64_t clock_ns(clockid_t which) {
  timespec now{};
  clock_gettime(which, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

struct Ear final : WakeOwner {
  void on_wake() override { ++heard; }
  uint64_t heard = 0;
};

struct Slice {
  double cpu_ns = 0;   // of both threads, per doorbell
  double wall_ns = 0;  // per doorbell
  uint64_t heard = 0;  // calls of on_wake()
};

// Each side sends `count` doorbells. Sleeping: only after the other's has been heard.
class Duel {
 public:
  Duel(Doorbell kind, bool sleeping, uint64_t count)
      : kind_(kind), sleeping_(sleeping), count_(count) {}

  Slice run() {
    std::thread second([this] { side(1); });
    side(0);
    second.join();
    const double sent = 2.0 * static_cast<double>(count_);
    return {static_cast<double>(cpu_ns_[0] + cpu_ns_[1]) / sent,
            static_cast<double>(wall_ns_[0]) / sent, ears_[0].heard + ears_[1].heard};
  }

 private:
  // Waits until both sides are here.
  void meet(int32_t nth) {
    met_.fetch_add(1);
    while (met_.load() < 2 * nth) std::this_thread::yield();
  }

  void side(int me) {
    const int cpus = static_cast<int>(std::thread::hardware_concurrency());
    RW_CHECK(pin_this_thread(me % std::max(cpus, 1)) == 0);
    EngineResult made = make_engine({.kind = EngineKind::kIoUring, .doorbell = kind_});
    RW_CHECK(made.io != nullptr && made.reason.empty());
    ios_[me] = std::move(made.io);
    Io& io = *ios_[me];
    io.set_wake_owner(ears_[me]);
    io.run_once(0);
    meet(1);
    const int64_t cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    const int64_t wall = clock_ns(CLOCK_MONOTONIC);
    sleeping_ ? play(io, *ios_[1 - me], ears_[me], me == 0) : shout(io, *ios_[1 - me]);
    cpu_ns_[me] = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
    wall_ns_[me] = clock_ns(CLOCK_MONOTONIC) - wall;
    meet(2);
  }
  void play(Io& io, Io& other, const Ear& ear, bool begins) {
    for (uint64_t i = 0; i < count_; ++i) {
      if (begins) io.wake_other(other);
      while (ear.heard == i) io.run_once(-1);
      if (!begins) io.wake_other(other);
    }
    io.run_once(0);  // The last doorbell goes out.
  }
  void shout(Io& io, Io& other) {
    for (uint64_t i = 0; i < count_; ++i) {
      io.wake_other(other);
      io.run_once(0);
    }
  }

  Doorbell kind_;
  bool sleeping_;
  uint64_t count_;
  std::atomic<int32_t> met_{0};
  std::unique_ptr<Io> ios_[2];
  Ear ears_[2];
  int64_t cpu_ns_[2] = {};
  int64_t wall_ns_[2] = {};
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void measure(const char* name, bool sleeping, uint64_t count, int slices) {
  std::vector<double> cpu[2];
  std::vector<double> wall[2];
  std::vector<double> ratio;
  uint64_t heard[2] = {};
  for (int i = 0; i < slices; ++i) {
    for (const int kind : {i % 2, 1 - i % 2}) {
      Duel duel(kind == 0 ? Doorbell::kEventfd : Doorbell::kRingMessage, sleeping, count);
      const Slice slice = duel.run();
      cpu[kind].push_back(slice.cpu_ns);
      wall[kind].push_back(slice.wall_ns);
      heard[kind] += slice.heard;
    }
    ratio.push_back(cpu[1].back() / cpu[0].back());
  }
  const double sent = 2.0 * static_cast<double>(count) * slices;
  for (const int kind : {0, 1}) {
    printf("| %s | %s | %.0f | %.0f | %.2f | %.2f |\n", name, kind == 0 ? "eventfd" : "MSG_RING",
           median(cpu[kind]), median(wall[kind]), kind == 0 ? 1.0 : median(ratio),
           static_cast<double>(heard[kind]) / sent);
  }
}

}  // namespace
}  // namespace ringway

int main(int argc, char** argv) {
  const int slices = argc > 1 ? std::max(atoi(argv[1]), 1) : 20;
  printf("| | doorbell | CPU ns, both sides | wall ns | CPU ratio | calls per doorbell |\n");
  printf("|---|---|---|---|---|---|\n");
  ringway::measure("wake a sleeping shard", true, 2'000, slices);
  ringway::measure("one per turn, both busy", false, 20'000, slices);
  return 0;
}
