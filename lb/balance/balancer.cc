// lb/balance/balancer.cc
#include "lb/balance/balancer.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "core/base/prng.h"

namespace ringway {
namespace {

// Virtual time of a weighted round robin: a server with weight w is due every kStride / w.
constexpr uint64_t kStride = uint64_t{1} << 32;
// Points on the hash ring for a server with weight 100, and a bound for all together.
constexpr uint32_t kPointsPerServer = 160;
constexpr uint64_t kPointsMax = 1 << 17;

}  // namespace

struct Balancer::Impl {
  struct Due {
    uint64_t at;
    uint32_t order;  // among equals: first come, first served
    uint32_t server;
    bool operator>(const Due& other) const {
      return at != other.at ? at > other.at : order > other.order;
    }
  };
  struct Point {
    uint64_t hash;
    uint32_t server;
    bool operator<(const Point& other) const {
      return hash != other.hash ? hash < other.hash : server < other.server;
    }
  };

  Impl(const config::Balance& from, uint64_t seed) : balance(from), prng(seed) {}

  config::Balance balance;
  Prng prng;
  std::vector<uint32_t> usable;  // ascending
  std::vector<bool> is_usable;   // by server
  std::vector<Due> due;          // kRoundRobin: a heap, the next one first
  std::vector<Due> passed_over;  // scratch of pick()
  uint32_t order = 0;
  uint32_t rotation = 0;    // kLeastRequests: where ties begin
  std::vector<Point> ring;  // kHash, ascending

  uint32_t pick_round_robin(std::span<const Candidate> candidates, std::span<const uint32_t> tried);
  uint32_t pick_least(std::span<const Candidate> candidates, std::span<const uint32_t> tried);
  uint32_t pick_least_of(std::span<const Candidate> candidates, std::span<const uint32_t> tried);
  uint32_t pick_hash(uint64_t hash, std::span<const uint32_t> tried) const;
  void build_ring(std::span<const Candidate> candidates, std::span<const std::string> names);
};

namespace {

bool contains(std::span<const uint32_t> list, uint32_t server) {
  return std::find(list.begin(), list.end(), server) != list.end();
}

// Is `a` less loaded than `b`, per weight? Compared as fractions, without dividing.
bool lighter(const Candidate& a, const Candidate& b) {
  return (uint64_t{a.in_flight} + 1) * b.weight < (uint64_t{b.in_flight} + 1) * a.weight;
}

}  // namespace

Balancer::Balancer(const config::Balance& balance, uint64_t seed)
    : impl_(std::make_unique<Impl>(balance, seed)) {}

Balancer::~Balancer() = default;

void Balancer::rebuild(std::span<const Candidate> candidates, std::span<const std::string> names) {
  RW_CHECK(candidates.size() == names.size());
  Impl& impl = *impl_;
  const bool primary_up = std::any_of(candidates.begin(), candidates.end(), [](const Candidate& c) {
    return c.up && c.weight > 0 && !c.backup;
  });
  impl.usable.clear();
  impl.is_usable.assign(candidates.size(), false);
  for (uint32_t i = 0; i < candidates.size(); ++i) {
    const Candidate& c = candidates[i];
    if (!c.up || c.weight == 0 || c.backup == primary_up) continue;
    impl.usable.push_back(i);
    impl.is_usable[i] = true;
  }
  if (impl.balance.algorithm == config::Algorithm::kRoundRobin) {
    impl.due.clear();
    impl.order = 0;
    for (const uint32_t server : impl.usable) {
      // A first turn anywhere within the period: shards do not march in step.
      const uint64_t period = kStride / candidates[server].weight;
      impl.due.push_back({impl.prng.below(period) + 1, impl.order++, server});
    }
    std::make_heap(impl.due.begin(), impl.due.end(), std::greater<>{});
    impl.passed_over.reserve(impl.due.size());
  }
  if (impl.balance.algorithm == config::Algorithm::kHash) impl.build_ring(candidates, names);
}

// Every server that could be used one day is on the ring, so that one that goes down moves its own
// keys only, to the next ones on the ring.
void Balancer::Impl::build_ring(std::span<const Candidate> candidates,
                                std::span<const std::string> names) {
  uint64_t wanted = 0;
  for (const Candidate& c : candidates) wanted += uint64_t{c.weight} * kPointsPerServer / 100 + 1;
  const uint64_t divisor = wanted / kPointsMax + 1;
  ring.clear();
  for (uint32_t i = 0; i < candidates.size(); ++i) {
    if (candidates[i].weight == 0) continue;
    const uint64_t points =
        std::max<uint64_t>(uint64_t{candidates[i].weight} * kPointsPerServer / 100 / divisor, 1);
    std::string key = names[i] + "#";
    const size_t base = key.size();
    for (uint64_t point = 0; point < points; ++point) {
      key.resize(base);
      key += std::to_string(point);
      ring.push_back({hash_bytes(key, HashKey{}), i});
    }
  }
  std::sort(ring.begin(), ring.end());
}

uint32_t Balancer::pick(std::span<const Candidate> candidates, uint64_t hash,
                        std::span<const uint32_t> tried) {
  Impl& impl = *impl_;
  RW_CHECK(candidates.size() == impl.is_usable.size());
  switch (impl.balance.algorithm) {
    case config::Algorithm::kRoundRobin: return impl.pick_round_robin(candidates, tried);
    case config::Algorithm::kLeastRequests:
      return impl.balance.choices == 0 || impl.balance.choices >= impl.usable.size()
                 ? impl.pick_least(candidates, tried)
                 : impl.pick_least_of(candidates, tried);
    case config::Algorithm::kHash: return impl.pick_hash(hash, tried);
    case config::Algorithm::kFirst:
      for (const uint32_t server : impl.usable) {
        if (!contains(tried, server)) return server;
      }
      return kNone;
  }
  return kNone;
}

uint32_t Balancer::Impl::pick_round_robin(std::span<const Candidate> candidates,
                                          std::span<const uint32_t> tried) {
  passed_over.clear();
  uint32_t chosen = kNone;
  while (!due.empty() && chosen == kNone) {
    std::pop_heap(due.begin(), due.end(), std::greater<>{});
    Due& next = due.back();
    if (contains(tried, next.server)) {
      passed_over.push_back(next);  // Keeps its turn.
      due.pop_back();
      continue;
    }
    chosen = next.server;
    next.at += kStride / candidates[chosen].weight;
    next.order = order++;
    std::push_heap(due.begin(), due.end(), std::greater<>{});
  }
  for (const Due& back : passed_over) {
    due.push_back(back);
    std::push_heap(due.begin(), due.end(), std::greater<>{});
  }
  return chosen;
}

uint32_t Balancer::Impl::pick_least(std::span<const Candidate> candidates,
                                    std::span<const uint32_t> tried) {
  uint32_t best = kNone;
  const size_t count = usable.size();
  if (count == 0) return kNone;
  // Equals are taken in turn, since the first one found wins and the search starts one further on.
  rotation = (rotation + 1) % static_cast<uint32_t>(count);
  for (size_t i = 0; i < count; ++i) {
    const size_t at = rotation + i < count ? rotation + i : rotation + i - count;
    const uint32_t server = usable[at];
    if (best != kNone && !lighter(candidates[server], candidates[best])) continue;
    if (!tried.empty() && contains(tried, server)) continue;
    best = server;
  }
  return best;
}

uint32_t Balancer::Impl::pick_least_of(std::span<const Candidate> candidates,
                                       std::span<const uint32_t> tried) {
  uint32_t best = kNone;
  for (uint32_t i = 0; i < balance.choices; ++i) {
    const uint32_t server = usable[prng.below(usable.size())];
    if (contains(tried, server)) continue;
    if (best == kNone || lighter(candidates[server], candidates[best])) best = server;
  }
  // All the random ones were tried before: look at all.
  return best != kNone ? best : pick_least(candidates, tried);
}

uint32_t Balancer::Impl::pick_hash(uint64_t hash, std::span<const uint32_t> tried) const {
  if (usable.empty()) return kNone;
  const auto start = std::lower_bound(ring.begin(), ring.end(), Point{hash, 0});
  const auto from = static_cast<size_t>(start - ring.begin());
  for (size_t i = 0; i < ring.size(); ++i) {
    const size_t at = from + i < ring.size() ? from + i : from + i - ring.size();
    const uint32_t server = ring[at].server;
    if (is_usable[server] && !contains(tried, server)) return server;
  }
  return kNone;
}

}  // namespace ringway
