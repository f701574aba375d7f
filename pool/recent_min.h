// pool/recent_min.h - the smallest value of late, by a clock that is read anyway.
//
// Affinity:  one shard. Bounds: four words.
#pragma once

#include <algorithm>
#include <cstdint>

namespace ringway {

class RecentMin {
 public:
  static constexpr int64_t kPeriodMs = 300'000;
  static constexpr uint32_t kNone = UINT32_MAX;

  void note(uint32_t value, int64_t now_ms) {
    if (now_ms - start_ms_ >= kPeriodMs) {
      before_ = now_ms - start_ms_ < 2 * kPeriodMs ? now_ : kNone;
      now_ = kNone;
      start_ms_ = now_ms;
    }
    now_ = std::min(now_, value);
  }

  // Of the period under way and the one before it; kNone: nothing was noted in them.
  [[nodiscard]] uint32_t get(int64_t now_ms) const {
    const int64_t age = now_ms - start_ms_;
    if (age >= 2 * kPeriodMs) return kNone;
    return age >= kPeriodMs ? now_ : std::min(now_, before_);
  }

 private:
  int64_t start_ms_ = -2 * kPeriodMs;
  uint32_t now_ = kNone;
  uint32_t before_ = kNone;
};

}  // namespace ringway
