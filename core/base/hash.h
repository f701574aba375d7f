// core/base/hash.h - a keyed 64-bit hash of bytes: SipHash-1-3.
//
// Affinity:  pure functions, any thread.
// Why:       clients choose much of what is hashed (URIs, host names, addresses). Without knowing
//            the key nobody can aim for collisions, which faster unkeyed hashes do not promise, and
//            which is why Rust and CPython chose this one for their maps.
//            The result depends on key and bytes alone, not on the machine: with a key that all
//            nodes share, consistent hashing agrees between them.
// Source:    Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace ringway {

// A random key for tables of one process; a constant one where several nodes must agree.
struct HashKey {
  uint64_t low = 0;
  uint64_t high = 0;
};

// SipHash-c-d: `kRounds` per 8 bytes, `kFinalRounds` at the end. Use hash_bytes().
template <int kRounds, int kFinalRounds>
class SipHash {
 public:
  explicit SipHash(HashKey key)
      : v0_(key.low ^ 0x736f6d6570736575U),
        v1_(key.high ^ 0x646f72616e646f6dU),
        v2_(key.low ^ 0x6c7967656e657261U),
        v3_(key.high ^ 0x7465646279746573U) {}

  // The hash of `length` bytes at `bytes`, which may be null when `length` is 0. Call it once.
  uint64_t finish(const void* bytes, size_t length) {
    const auto* at = static_cast<const unsigned char*>(bytes);
    uint64_t last = static_cast<uint64_t>(length) << 56;
    for (; length >= 8; length -= 8, at += 8) absorb(load(at));
    for (size_t i = 0; i < length; ++i) last |= static_cast<uint64_t>(at[i]) << (8 * i);
    absorb(last);
    v2_ ^= 0xff;
    for (int i = 0; i < kFinalRounds; ++i) round();
    return v0_ ^ v1_ ^ v2_ ^ v3_;
  }

 private:
  static uint64_t load(const unsigned char* at) {
    static_assert(std::endian::native == std::endian::little);
    uint64_t word = 0;
    std::memcpy(&word, at, sizeof word);
    return word;
  }

  void absorb(uint64_t word) {
    v3_ ^= word;
    for (int i = 0; i < kRounds; ++i) round();
    v0_ ^= word;
  }

  void round() {
    v0_ += v1_;
    v1_ = std::rotl(v1_, 13) ^ v0_;
    v0_ = std::rotl(v0_, 32);
    v2_ += v3_;
    v3_ = std::rotl(v3_, 16) ^ v2_;
    v0_ += v3_;
    v3_ = std::rotl(v3_, 21) ^ v0_;
    v2_ += v1_;
    v1_ = std::rotl(v1_, 17) ^ v2_;
    v2_ = std::rotl(v2_, 32);
  }

  uint64_t v0_;
  uint64_t v1_;
  uint64_t v2_;
  uint64_t v3_;
};

// The hash of `bytes` under `key`.
[[nodiscard]] inline uint64_t hash_bytes(std::span<const std::byte> bytes, HashKey key) {
  return SipHash<1, 3>(key).finish(bytes.data(), bytes.size());
}
[[nodiscard]] inline uint64_t hash_bytes(std::string_view text, HashKey key) {
  return SipHash<1, 3>(key).finish(text.data(), text.size());
}

// Spreads a number over 64 bits. One to one, and not keyed: for numbers that no peer chooses.
[[nodiscard]] constexpr uint64_t mix_bits(uint64_t number) {
  number = (number ^ (number >> 32)) * 0xe9846af9b1a615dU;
  number = (number ^ (number >> 32)) * 0xe9846af9b1a615dU;
  return number ^ (number >> 28);
}

}  // namespace ringway
