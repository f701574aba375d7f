// tests/core/histogram_test.cc
#include "core/histogram.h"

#include <doctest/doctest.h>

#include <thread>

using namespace ringway;

TEST_CASE("LatencyHistogram: each bound is inclusive, what lies beyond goes to the last bucket") {
  LatencyHistogram histogram;
  uint64_t sum = 0;
  for (const uint64_t bound : LatencyHistogram::kBoundsUs) {
    histogram.record(bound);
    histogram.record(bound + 1);
    sum += 2 * bound + 1;
  }
  histogram.record(0);
  LatencySnapshot snapshot;
  snapshot.add(histogram);
  CHECK(snapshot.buckets[0] == 2);
  for (size_t i = 1; i < LatencyHistogram::kBoundsUs.size(); ++i) CHECK(snapshot.buckets[i] == 2);
  CHECK(snapshot.buckets.back() == 1);
  CHECK(snapshot.sum_us == sum);
  CHECK(snapshot.count() == 33);
}

TEST_CASE("LatencySnapshot: several histograms and snapshots -> added up") {
  LatencyHistogram a;
  LatencyHistogram b;
  a.record(50);
  b.record(60);
  b.record(3'000'000);
  LatencySnapshot both;
  both.add(a);
  both.add(b);
  LatencySnapshot twice = both;
  twice.add(both);
  CHECK(both.count() == 3);
  CHECK(both.buckets[0] == 2);
  CHECK(both.sum_us == 3'000'110);
  CHECK(twice.count() == 6);
  CHECK(twice.sum_us == 6'000'220);
  CHECK(LatencySnapshot{}.count() == 0);
}

TEST_CASE("LatencyHistogram: read while another thread records -> nothing torn, nothing lost") {
  LatencyHistogram histogram;
  constexpr uint64_t kMany = 20'000;
  std::thread writer([&] {
    for (uint64_t i = 0; i < kMany; ++i) histogram.record(i);
  });
  uint64_t last = 0;
  bool rising = true;
  for (int i = 0; i < 100; ++i) {
    LatencySnapshot now;
    now.add(histogram);
    rising = rising && now.count() >= last && now.count() <= kMany;
    last = now.count();
  }
  writer.join();
  CHECK(rising);
  LatencySnapshot end;
  end.add(histogram);
  CHECK(end.count() == kMany);
}
