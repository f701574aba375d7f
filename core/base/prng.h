// core/base/prng.h - the only randomness: seeded, small, repeatable (splitmix64).
//
// Affinity: a value; one thread. Not for secrets.
// Source:   Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014.
#pragma once

#include <cstdint>

#include "core/base/check.h"

namespace ringway {

class Prng {
 public:
  explicit Prng(uint64_t seed) : state_(seed) {}

  // 64 uniform bits.
  uint64_t next() {
    state_ += 0x9e37'79b9'7f4a'7c15U;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58'476d'1ce4'e5b9U;
    z = (z ^ (z >> 27)) * 0x94d0'49bb'1331'11ebU;
    return z ^ (z >> 31);
  }
  // Uniform in [0, n). REQUIRES: n > 0.
  uint64_t below(uint64_t n) {
    RW_CHECK(n > 0);
    __extension__ using Wide = unsigned __int128;
    return static_cast<uint64_t>((static_cast<Wide>(next()) * n) >> 64);
  }
  // True `numerator` times out of `denominator`.
  bool chance(uint64_t numerator, uint64_t denominator) { return below(denominator) < numerator; }
  // A generator of its own, so that adding draws here does not change the draws there.
  Prng fork() { return Prng(next()); }

 private:
  uint64_t state_;
};

}  // namespace ringway
