// tests/sim/balancer_sim.cc - the balancer under many seeds, with and without faults.
//
// RINGWAY_SIM_SEED=n runs one seed; RINGWAY_SIM_SEEDS=n runs that many (1,000 without it).
#include <doctest/doctest.h>
#include <stdlib.h>

#include "tests/sim/http_world.h"

using namespace ringway;

namespace {

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* text = getenv(name);
  return text == nullptr ? otherwise : strtoull(text, nullptr, 10);
}

struct Sum {
  uint64_t answered = 0;
  uint64_t refused = 0;
};

void run_seed(uint64_t seed, bool faults, Sum& sum) {
  SimOrigin::corrupted = 0;
  HttpWorld world(seed, faults);
  INFO("RINGWAY_SIM_SEED=" << seed << ", " << world.net.describe());
  REQUIRE(world.run());
  REQUIRE(world.check() == "");
  sum.answered += world.answered;
  sum.refused += world.refused;
}

}  // namespace

TEST_CASE("Balancer: seeds without faults -> every good request is answered with its own bytes") {
  const uint64_t first = from_environment("RINGWAY_SIM_SEED", 0);
  const uint64_t count = first > 0 ? 1 : from_environment("RINGWAY_SIM_SEEDS", 1000) / 4;
  Sum sum;
  for (uint64_t seed = first > 0 ? first : 1; seed < (first > 0 ? first : 1) + count; ++seed) {
    run_seed(seed, false, sum);
  }
  MESSAGE(sum.answered << " answered, " << sum.refused << " refused");
  CHECK((first > 0 || sum.answered > count));
}

TEST_CASE("Balancer: seeds with faults -> nothing mixed, nothing leaked, everything ends") {
  const uint64_t first = from_environment("RINGWAY_SIM_SEED", 0);
  const uint64_t count = first > 0 ? 1 : from_environment("RINGWAY_SIM_SEEDS", 1000);
  Sum sum;
  for (uint64_t seed = first > 0 ? first : 1; seed < (first > 0 ? first : 1) + count; ++seed) {
    run_seed(seed, true, sum);
  }
  MESSAGE(sum.answered << " answered, " << sum.refused << " refused");
  CHECK((first > 0 || sum.answered > count));
}

TEST_CASE("Balancer: the same seed -> the same run") {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    uint64_t traces[2] = {};
    for (uint64_t& trace : traces) {
      HttpWorld world(seed, true);
      REQUIRE(world.run());
      trace = world.net.trace_hash();
    }
    CHECK(traces[0] == traces[1]);
  }
}
