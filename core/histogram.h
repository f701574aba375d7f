// core/histogram.h - durations counted in fixed buckets: one writer, readable from any thread.
//
// Affinity:  record() on the owning shard only; LatencySnapshot::add() from any thread.
// Bounds:    18 counters; record() costs a few comparisons and two relaxed stores.
// Why:       the same buckets everywhere, so that shards, servers and routes can be added up.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "core/counters.h"

namespace ringway {

class LatencyHistogram {
 public:
  // Upper bounds, inclusive, in microseconds: three steps per decade. One more bucket takes the
  // rest.
  static constexpr std::array<uint64_t, 16> kBoundsUs = {
      100,    250,     500,     1'000,   2'500,     5'000,     10'000,    25'000,
      50'000, 100'000, 250'000, 500'000, 1'000'000, 2'500'000, 5'000'000, 10'000'000};
  static constexpr size_t kBuckets = kBoundsUs.size() + 1;

  void record(uint64_t us) {
    const auto* bound = std::lower_bound(kBoundsUs.begin(), kBoundsUs.end(), us);
    buckets_[static_cast<size_t>(bound - kBoundsUs.begin())].add();
    sum_us_.add(us);
  }

 private:
  friend struct LatencySnapshot;

  std::array<Counter, kBuckets> buckets_;
  Counter sum_us_;
};

// The sum of any number of histograms at one moment.
struct LatencySnapshot {
  std::array<uint64_t, LatencyHistogram::kBuckets> buckets{};  // each on its own, not cumulative
  uint64_t sum_us = 0;

  void add(const LatencyHistogram& histogram) {
    for (size_t i = 0; i < buckets.size(); ++i) buckets[i] += histogram.buckets_[i].get();
    sum_us += histogram.sum_us_.get();
  }
  void add(const LatencySnapshot& other) {
    for (size_t i = 0; i < buckets.size(); ++i) buckets[i] += other.buckets[i];
    sum_us += other.sum_us;
  }
  // The number of durations, always the sum of the buckets.
  [[nodiscard]] uint64_t count() const {
    uint64_t total = 0;
    for (const uint64_t bucket : buckets) total += bucket;
    return total;
  }
};

}  // namespace ringway
