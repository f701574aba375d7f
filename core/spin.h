// core/spin.h - whether to spin before sleeping, and for how long.
//
// Affinity: one thread; pure: the caller reads the clock. Bounds: at most `limit_us` per wait, and
// at
//           most a fifth of the wall time of each second.
// Why:      with few connections one sleep and wake-up costs more than a request; an idle balancer
//           must still sleep.
#pragma once

#include <cstdint>

namespace ringway {

class Spin {
 public:
  explicit Spin(uint32_t limit_us) : limit_us_(limit_us) {}

  // How long to spin now, in microseconds; 0: sleep at once.
  [[nodiscard]] int64_t budget_us(int64_t now_us) {
    if (limit_us_ == 0) return 0;
    if (now_us - window_us_ >= kWindowUs) {
      window_us_ = now_us;
      spent_us_ = 0;
    }
    if (spent_us_ >= kWindowUs / 5 || gap_sum_us_ >= 8 * limit_us_) return 0;
    return limit_us_;
  }
  // A wait has ended: events came after `gap_us`, of which `spun_us` were spent spinning.
  void learn(int64_t gap_us, int64_t spun_us) {
    spent_us_ += spun_us;
    // One long pause is forgotten after a few short gaps.
    const int64_t capped = gap_us < 8 * limit_us_ ? gap_us : 8 * limit_us_;
    gap_sum_us_ += capped - gap_sum_us_ / 8;
  }

 private:
  static constexpr int64_t kWindowUs = 1'000'000;

  int64_t limit_us_;
  int64_t gap_sum_us_ = 8'000'000;  // of about the last eight
  int64_t window_us_ = 0;
  int64_t spent_us_ = 0;
};

}  // namespace ringway
