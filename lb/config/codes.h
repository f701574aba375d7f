// lb/config/codes.h - every code of a diagnostic, with what it means. Codes never change meaning.
#pragma once

#include <span>

namespace ringway::config {

struct Code {
  const char* code;   // "E0104"
  const char* title;  // "unknown key"
  const char* text;   // what it means and how to mend it; sentences
};

// All codes, sorted.
[[nodiscard]] std::span<const Code> all_codes();

}  // namespace ringway::config
