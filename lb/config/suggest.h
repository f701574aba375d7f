// lb/config/suggest.h - what someone who wrote a wrong word probably meant.
//
// Pure. O(length²) per candidate; words longer than kWordMax get no suggestion.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace ringway::config {

inline constexpr uint32_t kWordMax = 64;

// The restricted Damerau-Levenshtein distance (insert, delete, replace, swap neighbours), or
// kWordMax + 1 for words longer than kWordMax.
[[nodiscard]] uint32_t edit_distance(std::string_view a, std::string_view b);

// The closest of `candidates` at distance <= 2 (1 for words of up to three letters), or "".
[[nodiscard]] std::string_view closest(std::string_view word,
                                       std::span<const std::string_view> candidates);

// What another balancer calls something.
struct Synonym {
  std::string_view word;     // "maxconn"
  std::string_view product;  // "HAProxy"
  std::string_view ours;     // "max_connections"
};

// The synonym for `word` whose target is among `candidates`; failing that, any; or nullptr.
[[nodiscard]] const Synonym* find_synonym(std::string_view word,
                                          std::span<const std::string_view> candidates);

}  // namespace ringway::config
