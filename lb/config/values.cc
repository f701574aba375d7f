// lb/config/values.cc
#include "lb/config/values.h"

#include <algorithm>
#include <charconv>
#include <span>

namespace ringway::config {
namespace {

struct Unit {
  std::string_view name;
  uint64_t factor;
};

constexpr Unit kTimeUnits[] = {
    {"us", 1},         {"ms", 1000},         {"s", 1'000'000},
    {"m", 60'000'000}, {"h", 3'600'000'000}, {"d", 86'400'000'000},
};
constexpr Unit kSizeUnits[] = {
    {"B", 1},
    {"KB", 1000},
    {"KiB", 1ULL << 10U},
    {"MB", 1'000'000},
    {"MiB", 1ULL << 20U},
    {"GB", 1'000'000'000},
    {"GiB", 1ULL << 30U},
    {"TB", 1'000'000'000'000},
    {"TiB", 1ULL << 40U},
};

// A whole number, `_` between digits allowed, followed by a unit.
ValueError parse_with_unit(std::string_view text, std::span<const Unit> units, uint64_t& out) {
  uint64_t number = 0;
  size_t at = 0;
  for (; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '_' && at > 0) continue;
    if (c < '0' || c > '9') break;
    if (number > (UINT64_MAX / 10) - 1) return ValueError::kTooLarge;
    number = (number * 10) + static_cast<uint64_t>(c - '0');
  }
  if (at == 0) return ValueError::kMalformed;
  if (at == text.size()) return ValueError::kNoUnit;
  const std::string_view name = text.substr(at);
  const auto unit =
      std::find_if(units.begin(), units.end(), [&](const Unit& u) { return u.name == name; });
  if (unit == units.end()) return ValueError::kMalformed;
  if (number > static_cast<uint64_t>(INT64_MAX) / unit->factor) return ValueError::kTooLarge;
  out = number * unit->factor;
  return ValueError::kNone;
}

std::string with_unit(uint64_t value, std::span<const Unit> units) {
  const Unit* best = units.data();
  for (const Unit& unit : units) {
    if (value % unit.factor == 0 && value >= unit.factor && unit.factor > best->factor) {
      best = &unit;
    }
  }
  return std::to_string(value / best->factor).append(best->name);
}

bool parse_number(std::string_view text, uint32_t& out) {
  const auto result = std::from_chars(text.data(), text.data() + text.size(), out);
  return result.ec == std::errc{} && result.ptr == text.data() + text.size();
}

}  // namespace

ValueError parse_duration(std::string_view text, int64_t& microseconds) {
  uint64_t value = 0;
  const ValueError error = parse_with_unit(text, kTimeUnits, value);
  microseconds = static_cast<int64_t>(value);
  return error;
}

ValueError parse_size(std::string_view text, uint64_t& bytes) {
  return parse_with_unit(text, kSizeUnits, bytes);
}

bool parse_cpus(std::string_view text, std::vector<uint32_t>& cpus) {
  constexpr uint32_t kCpuMax = 4095;
  cpus.clear();
  for (;;) {
    const size_t comma = text.find(',');
    const std::string_view item = text.substr(0, comma);
    const size_t dash = item.find('-');
    uint32_t first = 0;
    uint32_t last = 0;
    if (!parse_number(item.substr(0, dash), first)) return false;
    last = first;
    if (dash != std::string_view::npos && !parse_number(item.substr(dash + 1), last)) return false;
    if (first > last || last > kCpuMax) return false;
    for (uint32_t cpu = first; cpu <= last; ++cpu) {
      if (std::find(cpus.begin(), cpus.end(), cpu) != cpus.end()) return false;
      cpus.push_back(cpu);
    }
    if (comma == std::string_view::npos) return true;
    text.remove_prefix(comma + 1);
  }
}

std::string duration_text(int64_t microseconds) {
  return with_unit(static_cast<uint64_t>(microseconds), kTimeUnits);
}

std::string size_text(uint64_t bytes) {
  return with_unit(bytes, kSizeUnits);
}

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) {
    return static_cast<uint8_t>(c) < 0x20 || static_cast<uint8_t>(c) == 0x7f;
  });
}

}  // namespace ringway::config
