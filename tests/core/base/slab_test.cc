// tests/core/base/slab_test.cc
#include "core/base/slab.h"

#include <doctest/doctest.h>

#include <set>
#include <string>
#include <vector>

using namespace ringway;

namespace {

struct Tracked {
  Tracked(int& alive_in, std::string name_in) : alive(alive_in), name(std::move(name_in)) {
    ++alive;
  }
  ~Tracked() { --alive; }
  int& alive;
  std::string name;
};

struct alignas(64) Aligned {
  char bytes[64];
};

struct Large {
  char bytes[5000];
};

}  // namespace

TEST_CASE("Slab: capacity in use -> nullptr, and usable again after one is given back") {
  int alive = 0;
  Slab<Tracked> slab(70);  // More than a block, not a multiple of one.
  std::vector<Tracked*> taken;
  for (int i = 0; i < 70; ++i) {
    Tracked* object = slab.take(alive, "object number " + std::to_string(i));
    REQUIRE(object != nullptr);
    taken.push_back(object);
  }
  CHECK(std::set<Tracked*>(taken.begin(), taken.end()).size() == 70);
  CHECK(slab.in_use() == 70);
  CHECK(alive == 70);
  CHECK(slab.take(alive, "one too many") == nullptr);
  CHECK(alive == 70);

  slab.give_back(taken[13]);
  CHECK(alive == 69);
  Tracked* again = slab.take(alive, "again");
  CHECK(again == taken[13]);  // LIFO: the warmest memory first.
  CHECK(again->name == "again");
  CHECK(taken[12]->name == "object number 12");
  for (Tracked* object : taken) slab.give_back(object);
  CHECK(alive == 0);
  CHECK(slab.in_use() == 0);
}

TEST_CASE("Slab: taking and giving back -> memory grows to the peak only") {
  Slab<int> slab(1000);
  CHECK(slab.capacity() == 1000);
  CHECK(slab.reserved_bytes() == 0);
  int* first = slab.take(1);
  const size_t block = slab.reserved_bytes();
  CHECK(block >= 64 * sizeof(int));
  for (int i = 0; i < 10'000; ++i) slab.give_back(slab.take(i));
  CHECK(slab.reserved_bytes() == block);
  CHECK(*first == 1);
  slab.give_back(first);
}

TEST_CASE("Slab: over-aligned and large objects -> aligned, small blocks") {
  Slab<Aligned> aligned(100);
  std::vector<Aligned*> taken;
  for (int i = 0; i < 100; ++i) {
    taken.push_back(aligned.take());
    CHECK(reinterpret_cast<uintptr_t>(taken.back()) % 64 == 0);
  }
  for (Aligned* object : taken) aligned.give_back(object);

  Slab<Large> large(100);
  Large* object = large.take();
  CHECK(large.reserved_bytes() <= 8 * sizeof(Large));
  large.give_back(object);
}

TEST_CASE("Slab: capacity 0 -> never any object") {
  Slab<int> slab(0);
  CHECK(slab.take(1) == nullptr);
}
