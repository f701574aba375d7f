// pool/recent_rate.h - how often something happened lately, by a clock that is read anyway.
//
// Affinity:  one shard. Bounds: three words.
#pragma once

#include <algorithm>
#include <cstdint>

namespace ringway {

class RecentRate {
 public:
  static constexpr int64_t kWindowMs = 1'000;

  void note(int64_t now_ms) {
    if (now_ms - start_ms_ >= kWindowMs) {
      before_ = now_ms - start_ms_ < 2 * kWindowMs ? count_ : 0;
      count_ = 0;
      start_ms_ = now_ms;
    }
    ++count_;
  }

  // Per second; the larger of the window under way and the one before it, so that a burst counts
  // at once and for a window after it.
  [[nodiscard]] uint32_t per_second(int64_t now_ms) const {
    const int64_t age = now_ms - start_ms_;
    if (age >= 2 * kWindowMs) return 0;
    return age >= kWindowMs ? count_ : std::max(count_, before_);
  }

 private:
  int64_t start_ms_ = -2 * kWindowMs;
  uint32_t count_ = 0;
  uint32_t before_ = 0;
};

}  // namespace ringway
