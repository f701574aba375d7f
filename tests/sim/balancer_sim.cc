// tests/sim/balancer_sim.cc - the balancer under many seeds, with and without faults.
//
// RINGWAY_SIM_SEED=n runs one seed; RINGWAY_SIM_SEEDS=n runs that many (1,000 without it).
#include <doctest/doctest.h>
#include <stdlib.h>

#include "tests/sim/h2_actors.h"
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
  uint64_t queued = 0;
  uint64_t h2_answered = 0;
  uint64_t lent = 0;
  uint64_t explained = 0;
  uint64_t preread = 0;
  SimTlsSides::Count tls;
  std::array<uint64_t, kHows> handed{};
  std::array<uint64_t, kCloseReasons> closed{};

  [[nodiscard]] std::string tls_text() const {
    const std::pair<uint64_t, const char*> counts[] = {{tls.handshakes, "handshakes"},
                                                       {tls.http2, "for HTTP/2"},
                                                       {tls.resumed, "resumed"},
                                                       {tls.early, "early"},
                                                       {tls.early_rejected, "rejected"},
                                                       {tls.refused, "refused"},
                                                       {tls.swapped, "swapped"},
                                                       {tls.through, "through"},
                                                       {preread, "hellos refused"},
                                                       {tls.to_servers, "to servers"},
                                                       {tls.to_servers_resumed, "resumed"},
                                                       {tls.bad_servers, "bad"},
                                                       {explained, "explained"}};
    std::string out = "TLS";
    for (const auto& [count, name] : counts) out += " " + std::to_string(count) + " " + name + ",";
    out.pop_back();
    return out;
  }

  // How often what happened.
  [[nodiscard]] std::string text() const {
    std::string out = std::to_string(answered) + " answered (" + std::to_string(h2_answered) +
                      " over HTTP/2), " + std::to_string(refused) + " refused, " +
                      std::to_string(queued) + " queued, " + std::to_string(lent) + " lent, " +
                      tls_text() + "; connections";
    for (size_t i = 0; i < kHows; ++i) {
      out += " " + std::string(kHowNames[i]) + " " + std::to_string(handed[i]);
    }
    out += "; closed";
    for (size_t i = 0; i < kCloseReasons; ++i) {
      out += " " + std::string(kCloseReasonNames[i]) + " " + std::to_string(closed[i]);
    }
    return out;
  }
};

void run_seed(uint64_t seed, bool faults, Sum& sum) {
  SimOrigin::corrupted = 0;
  HttpWorld world(seed, faults);
  INFO("RINGWAY_SIM_SEED=" << seed << ", " << world.net.describe());
  REQUIRE(world.run());
  REQUIRE(world.check() == "");
  sum.answered += world.answered;
  sum.refused += world.refused;
  sum.queued += world.queued;
  sum.lent += world.lent;
  sum.explained += world.explained;
  sum.preread += world.preread;
  sum.tls += world.tls_count();
  sum.h2_answered += world.h2_answered;
  for (size_t i = 0; i < kHows; ++i) sum.handed[i] += world.handed[i];
  for (size_t i = 0; i < kCloseReasons; ++i) sum.closed[i] += world.closed[i];
}

}  // namespace

TEST_CASE("Balancer: seeds without faults -> every good request is answered with its own bytes") {
  const uint64_t first = from_environment("RINGWAY_SIM_SEED", 0);
  const uint64_t count = first > 0 ? 1 : from_environment("RINGWAY_SIM_SEEDS", 1000) / 4;
  Sum sum;
  for (uint64_t seed = first > 0 ? first : 1; seed < (first > 0 ? first : 1) + count; ++seed) {
    run_seed(seed, false, sum);
  }
  MESSAGE(sum.text());
  CHECK((first > 0 || sum.answered > count));
  CHECK((first > 0 || SimOrigin::headers > 0));
}

TEST_CASE("Balancer: seeds with faults -> nothing mixed, nothing leaked, everything ends") {
  const uint64_t first = from_environment("RINGWAY_SIM_SEED", 0);
  const uint64_t count = first > 0 ? 1 : from_environment("RINGWAY_SIM_SEEDS", 1000);
  Sum sum;
  for (uint64_t seed = first > 0 ? first : 1; seed < (first > 0 ? first : 1) + count; ++seed) {
    run_seed(seed, true, sum);
  }
  MESSAGE(sum.text());
  CHECK((first > 0 || sum.answered > count));
  if (count < 1000) return;
  CHECK(sum.h2_answered > count / 4);
  CHECK(SimH2Origin::served > count / 4);
  CHECK(SimH2Origin::goaways > 0);
  CHECK(SimH2Origin::refusals > 0);
  CHECK(SimH2Origin::named > count / 10);
  // Trailers of requests, from and to either version.
  CHECK(SimH2Origin::with_trailers > 0);
  CHECK(SimOrigin::with_trailers > SimH2Origin::with_trailers);
  // Everything that depends on the pools was met.
  CHECK(sum.queued > 0);
  CHECK(sum.lent > 0);
  CHECK(sum.tls.all_met());
  CHECK(sum.explained > 0);
  CHECK(sum.preread > 0);
  CHECK(SimOrigin::early > 0);
  for (const How how : {How::kFresh, How::kSession, How::kSafe, How::kUnproven, How::kBorrowed}) {
    CHECK(sum.handed[static_cast<size_t>(how)] > 0);
  }
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
