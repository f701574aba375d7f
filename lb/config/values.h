// lb/config/values.h - values that carry their unit: durations, sizes, lists of CPUs.
//
// Pure. Source: docs/configuration.md, "Values".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ringway::config {

enum class ValueError : uint8_t { kNone, kNoUnit, kMalformed, kTooLarge };

// "50us", "500ms", "5s", "10m", "1h", "1d" to microseconds.
[[nodiscard]] ValueError parse_duration(std::string_view text, int64_t& microseconds);

// "512B", "1KB" (1000), "64KiB" (1024), up to TB and TiB, to bytes.
[[nodiscard]] ValueError parse_size(std::string_view text, uint64_t& bytes);

// "0-3,8" to {0,1,2,3,8}. False if it is malformed, repeats a CPU or has one above 4095.
[[nodiscard]] bool parse_cpus(std::string_view text, std::vector<uint32_t>& cpus);

// The shortest text that parses to the value.
[[nodiscard]] std::string duration_text(int64_t microseconds);
[[nodiscard]] std::string size_text(uint64_t bytes);

// A byte below 0x20, or 0x7f.
[[nodiscard]] bool has_control(std::string_view text);

}  // namespace ringway::config
