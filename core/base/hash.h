// core/base/hash.h - a keyed 64-bit hash of bytes: wyhash's mixing of 128-bit products.
//
// Affinity: pure. Not cryptographic; the key keeps outsiders from choosing collisions.
// Source:   github.com/wangyi-fudan/wyhash (public domain), its final mix; the loop is our own.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace ringway {

// Multiplies to 128 bits and folds the halves together.
[[nodiscard]] inline uint64_t hash_mix(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

// The same bytes and key give the same hash on every machine and run. O(bytes).
[[nodiscard]] inline uint64_t hash_bytes(std::string_view bytes, uint64_t key = 0) {
  constexpr uint64_t kA = 0xa076'1d64'78bd'642fU;
  constexpr uint64_t kB = 0xe703'7ed1'a0b4'28dbU;
  uint64_t state = hash_mix(key ^ kA, bytes.size() ^ kB);
  while (bytes.size() >= 8) {
    uint64_t word = 0;
    memcpy(&word, bytes.data(), 8);
    state = hash_mix(state ^ word ^ kA, state ^ kB);
    bytes.remove_prefix(8);
  }
  if (!bytes.empty()) {
    uint64_t word = 0;
    memcpy(&word, bytes.data(), bytes.size());
    state = hash_mix(state ^ word ^ kB, state ^ kA);
  }
  return hash_mix(state ^ kA, kB);
}

}  // namespace ringway
