// tests/core/ring_setup_test.cc - which set-up flags are given up on kernels that refuse some.
#include <doctest/doctest.h>
#include <errno.h>

#include <string>

#include "core/ring_engine.h"
#include "tests/core/loopback.h"

using namespace ringway;

namespace {

// The kernel of a test: the real one, but for these flags, this memory limit, this error.
struct Kernel {
  uint32_t refused = 0;
  uint32_t entries_max = 1 << 15;
  int error = 0;
  int calls = 0;
};
Kernel g_kernel;

int set_up(unsigned entries, io_uring* ring, io_uring_params* params) {
  ++g_kernel.calls;
  if (g_kernel.error != 0) return -g_kernel.error;
  if ((params->flags & g_kernel.refused) != 0) return -EINVAL;
  if (entries > g_kernel.entries_max) return -ENOMEM;
  return io_uring_queue_init_params(entries, ring, params);
}

constexpr uint32_t kSingle = IORING_SETUP_SINGLE_ISSUER;
constexpr uint32_t kDefer = IORING_SETUP_DEFER_TASKRUN;
constexpr uint32_t kCoop = IORING_SETUP_COOP_TASKRUN;
constexpr uint32_t kFlag = IORING_SETUP_TASKRUN_FLAG;
constexpr uint32_t kAll = IORING_SETUP_SUBMIT_ALL;
constexpr uint32_t kAlways = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;

bool have_ring() {
  RingEngine ring(0);
  ring.start(8);
  return ring.probe().usable();
}

}  // namespace

// Goal: one refused flag costs that flag only, and the engine works without it.
TEST_CASE("RingEngine: a kernel refuses flags -> only those are given up, and sockets work") {
  if (!have_ring()) return;
  struct Case {
    uint32_t refused;
    uint32_t used;
  };
  const Case cases[] = {
      {0, kSingle | kDefer | kFlag | kAll},
      {kAll, kSingle | kDefer | kFlag},
      {kFlag, kSingle | kDefer | kAll},
      {kFlag | kAll, kSingle | kDefer},
      {kDefer, kSingle | kCoop | kFlag | kAll},      // Linux 6.0
      {kDefer | kSingle, kCoop | kFlag | kAll},      // 5.19
      {kDefer | kSingle | kCoop | kFlag, kAll},      // 5.18
      {kDefer | kSingle | kCoop | kFlag | kAll, 0},  // older
  };
  for (const Case& c : cases) {
    CAPTURE(c.refused);
    for (const uint32_t spin_us : {0U, 50U}) {
      g_kernel = {.refused = c.refused};
      RingEngine ring(spin_us, set_up);
      ring.start(64);
      REQUIRE(ring.probe().setup_error == 0);
      CHECK((ring.probe().setup_flags & ~kAlways) == c.used);
      REQUIRE(ring.probe().failure == "");
      for (int i = 0; i < 3; ++i) {
        Pair pair(ring);
        ring.set_receiving(pair.side.socket, true);
        for (int round = 0; round < 5; ++round) {
          REQUIRE(write(pair.client, "m", 1) == 1);
          CHECK(run_until(ring,
                          [&] { return pair.side.text.size() == static_cast<size_t>(round) + 1; }));
        }
      }
    }
  }
}

TEST_CASE("RingEngine: little locked memory and a refused flag -> a small ring without the flag") {
  if (!have_ring()) return;
  g_kernel = {.refused = kDefer, .entries_max = 256};
  RingEngine ring(0, set_up);
  ring.start(4096);
  CHECK(ring.probe().usable());
  CHECK((ring.probe().setup_flags & ~kAlways) == (kSingle | kCoop | kFlag | kAll));
}

TEST_CASE("RingEngine: an error that no flag causes -> told after one attempt, no retries") {
  for (const int error : {EPERM, ENOSYS, EMFILE}) {
    g_kernel = {.error = error};
    RingEngine ring(0, set_up);
    ring.start(64);
    CHECK(ring.probe().setup_error == error);
    CHECK_FALSE(ring.probe().usable());
    CHECK(g_kernel.calls == 1);
  }
  g_kernel = {.refused = kAlways};
  RingEngine ring(0, set_up);
  ring.start(64);
  CHECK(ring.probe().setup_error == EINVAL);
  CHECK(g_kernel.calls == 8);
}
