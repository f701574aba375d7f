// core/base/utc.h - wall-clock microseconds as "2026-11-27T12:34:56.789Z", without libc's locks.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace ringway {

class UtcText {
 public:
  // `wall_us`: microseconds since 1970-01-01 UTC, until the year 9999.
  explicit UtcText(int64_t wall_us) {
    const int64_t seconds = wall_us / 1'000'000;
    const int64_t day_seconds = seconds % 86'400;
    // Days to civil date; the era arithmetic of Howard Hinnant's "chrono-compatible date
    // algorithms".
    const int64_t z = seconds / 86'400 + 719'468;
    const int64_t era = z / 146'097;
    const int64_t day_of_era = z - era * 146'097;
    const int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36'524 - day_of_era / 146'096) / 365;
    const int64_t day_of_year =
        day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    const int64_t shifted_month = (5 * day_of_year + 2) / 153;
    const int64_t month = shifted_month < 10 ? shifted_month + 3 : shifted_month - 9;
    const int64_t year = year_of_era + era * 400 + (month <= 2 ? 1 : 0);
    put(0, 4, year);
    put(5, 2, month);
    put(8, 2, day_of_year - (153 * shifted_month + 2) / 5 + 1);
    put(11, 2, day_seconds / 3600);
    put(14, 2, day_seconds / 60 % 60);
    put(17, 2, day_seconds % 60);
    put(20, 3, wall_us / 1000 % 1000);
  }

  [[nodiscard]] std::string_view view() const { return {text_.data(), text_.size()}; }

 private:
  void put(size_t at, int digits, int64_t value) {
    for (int i = digits - 1; i >= 0; --i) {
      text_[at + static_cast<size_t>(i)] = static_cast<char>('0' + value % 10);
      value /= 10;
    }
  }

  std::array<char, 24> text_{'0', '0', '0', '0', '-', '0', '0', '-', '0', '0', 'T', '0',
                             '0', ':', '0', '0', ':', '0', '0', '.', '0', '0', '0', 'Z'};
};

}  // namespace ringway
