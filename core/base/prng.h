// core/base/prng.h - a small seeded generator of pseudo-random numbers: xoshiro256**.
//
// Affinity:  a value, one thread at a time. Ownership: none; copies continue independently.
// Why:       everything random comes from a seed, so that a run can be repeated exactly. Not for
//            secrets: the state follows from a few outputs.
// Source:    Blackman and Vigna, "Scrambled linear pseudorandom number generators" (2021); seeds
// are
//            spread by SplitMix64 as the authors advise.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "core/base/check.h"

namespace ringway {

// One step of SplitMix64: advances `state` and returns a well-mixed number. Good for seeding.
constexpr uint64_t splitmix64(uint64_t& state) {
  state += 0x9e3779b97f4a7c15U;
  uint64_t mixed = state;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9U;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebU;
  return mixed ^ (mixed >> 31);
}

class Prng {
 public:
  // Equal seeds give equal sequences; any seed will do, 0 too.
  explicit constexpr Prng(uint64_t seed) {
    for (uint64_t& word : state_) word = splitmix64(seed);
  }

  // 64 random bits.
  constexpr uint64_t next() {
    const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
    const uint64_t shifted = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= shifted;
    state_[3] = std::rotl(state_[3], 45);
    return result;
  }

  // A number in [0, bound), each equally likely. REQUIRES: bound > 0.
  constexpr uint64_t below(uint64_t bound) {
    RW_CHECK(bound > 0);
    // The top of the range that does not divide evenly is drawn again (at most every second time).
    const uint64_t reject_under = (0 - bound) % bound;
    uint64_t drawn = next();
    while (drawn < reject_under) drawn = next();
    return drawn % bound;
  }

  // A number in [low, high], both ends included. REQUIRES: low <= high, not the full 64-bit range.
  constexpr uint64_t between(uint64_t low, uint64_t high) {
    RW_CHECK(low <= high);
    return low + below(high - low + 1);
  }

  // A number in [0, 1).
  constexpr double unit() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

  // True with the given probability: never for <= 0, always for >= 1. Draws one number in any case,
  // so that the sequence does not depend on the probability.
  constexpr bool chance(double probability) { return unit() < probability; }

  // A generator of its own, seeded from this one: what its user draws changes nothing here.
  constexpr Prng fork() { return Prng(next()); }

 private:
  std::array<uint64_t, 4> state_{};
};

}  // namespace ringway
