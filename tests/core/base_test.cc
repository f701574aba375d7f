// tests/core/base_test.cc - the seeded generator and the keyed hash.
#include <doctest/doctest.h>

#include <array>
#include <set>
#include <string>

#include "core/base/hash.h"
#include "core/base/prng.h"

using namespace ringway;

TEST_CASE("splitmix64: seed 1234567 -> the published sequence") {
  uint64_t state = 1234567;
  CHECK(splitmix64(state) == 6457827717110365317U);
  CHECK(splitmix64(state) == 3203168211198807973U);
  CHECK(splitmix64(state) == 9817491932198370423U);
}

TEST_CASE("Prng: equal seeds -> equal sequences; other seeds, and forks, differ") {
  Prng a(7);
  Prng b(7);
  Prng c(8);
  bool differs = false;
  for (int i = 0; i < 100; ++i) {
    const uint64_t drawn = a.next();
    CHECK(drawn == b.next());
    differs = differs || drawn != c.next();
  }
  CHECK(differs);
  Prng child = a.fork();
  Prng twin = b.fork();
  CHECK(child.next() == twin.next());
  child.next();  // Drawing from the child leaves the parent where it was.
  CHECK(a.next() == b.next());
}

TEST_CASE("Prng: below and between -> inside the bounds, every value met, even") {
  Prng prng(0);
  std::array<int, 7> met{};
  for (int i = 0; i < 70'000; ++i) ++met[prng.below(7)];
  for (const int count : met) {
    CHECK(count > 9'000);
    CHECK(count < 11'000);
  }
  for (int i = 0; i < 100; ++i) {
    CHECK(prng.below(1) == 0);
    const uint64_t drawn = prng.between(5, 6);
    CHECK((drawn == 5 || drawn == 6));
    CHECK(prng.below(uint64_t{1} << 63) < uint64_t{1} << 63);
  }
}

TEST_CASE("Prng: chance 0 and 1 -> never and always; 1/4 about every fourth time") {
  Prng prng(99);
  int hits = 0;
  for (int i = 0; i < 40'000; ++i) {
    CHECK_FALSE(prng.chance(0.0));
    CHECK(prng.chance(1.0));
    hits += prng.chance(0.25) ? 1 : 0;
  }
  CHECK(hits > 9'500);
  CHECK(hits < 10'500);
}

// The vectors of the SipHash paper's reference code: key 00..0f, input 00 01 02 ...
TEST_CASE("SipHash: the reference key -> the published hashes, 2-4 and 1-3") {
  const HashKey key{0x0706050403020100U, 0x0f0e0d0c0b0a0908U};
  std::array<unsigned char, 16> input{};
  for (unsigned char i = 0; i < 16; ++i) input[i] = i;
  CHECK(SipHash<2, 4>(key).finish(nullptr, 0) == 0x726fdb47dd0e0e31U);
  CHECK(SipHash<2, 4>(key).finish(input.data(), 1) == 0x74f839c593dc67fdU);
  CHECK(SipHash<2, 4>(key).finish(input.data(), 15) == 0xa129ca6149be45e5U);
  CHECK(SipHash<1, 3>(key).finish(nullptr, 0) == 0xabac0158050fc4dcU);
}

TEST_CASE("hash_bytes: key, length and each byte matter; bytes and text agree") {
  const HashKey key{1, 2};
  std::set<uint64_t> seen;
  std::string text;
  for (int i = 0; i < 100; ++i) {
    seen.insert(hash_bytes(text, key));
    text.push_back('\0');
  }
  for (size_t i = 0; i < text.size(); ++i) {
    text[i] = 'x';
    seen.insert(hash_bytes(text, key));
    text[i] = '\0';
  }
  CHECK(seen.size() == 200);
  CHECK(hash_bytes("abc", key) != hash_bytes("abc", HashKey{1, 3}));
  CHECK(hash_bytes("abc", key) != hash_bytes("abc", HashKey{0, 2}));
  CHECK(hash_bytes("abc", key) == hash_bytes(std::as_bytes(std::span("abc", 3)), key));
}

TEST_CASE("mix_bits: small numbers -> spread over the high bits as well") {
  std::set<uint64_t> high;
  for (uint64_t i = 1; i <= 256; ++i) high.insert(mix_bits(i) >> 48);
  CHECK(high.size() > 250);
}
