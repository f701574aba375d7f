// tests/lb/output_pace_test.cc
#include "lb/output_pace.h"

#include <doctest/doctest.h>

namespace ringway {
namespace {

// Turns with events every `gap` microseconds, until that is what is expected.
struct Paced {
  Paced(int64_t spin_us, int64_t gap) : pace(spin_us) {
    for (int i = 0; i < 200; ++i) (void)news(gap);
    pace.rest();
  }
  bool news(int64_t after) { return pace.waits(++events, now += after); }
  bool look(int64_t after) { return pace.waits(events, now += after); }

  OutputPace pace;
  uint64_t events = 0;
  int64_t now = 0;
};

TEST_CASE("OutputPace: where events are rare, what is there is sent at once") {
  Paced rare(10, 100);
  CHECK_FALSE(rare.news(100));
  CHECK_FALSE(rare.news(1));
}

TEST_CASE("OutputPace: where they come every few microseconds they are waited for, 50 us at most") {
  Paced dense(10, 8);
  const int64_t begin = dense.now + 8;
  CHECK(dense.news(8));
  CHECK(dense.look(7));
  CHECK(dense.look(9));
  CHECK(dense.news(9));
  while (dense.now + 8 - begin < OutputPace::kGatherUs) CHECK(dense.news(8));
  CHECK_FALSE(dense.news(8));
  CHECK(dense.news(8));  // The next ones have their own time.
}

TEST_CASE("OutputPace: nothing for 10 us: it is sent") {
  Paced dense(10, 8);
  CHECK(dense.news(8));
  CHECK(dense.look(20));  // The turn took that long.
  CHECK(dense.look(9));
  CHECK_FALSE(dense.look(1));
}

TEST_CASE("OutputPace: without spinning one look is all") {
  Paced dense(0, 8);
  CHECK(dense.news(8));
  CHECK_FALSE(dense.look(1));
}

TEST_CASE("OutputPace: a fifth of the time at most is waited") {
  Paced dense(10, 8);
  int waits = 0;
  for (int i = 0; i < 30'000; ++i) {
    while (dense.news(8) && dense.look(1) && dense.look(9)) ++waits;
  }
  CHECK(dense.now < 1'000'000);
  CHECK(waits > 5'000);
  CHECK(waits < 30'000);
}

}  // namespace
}  // namespace ringway
