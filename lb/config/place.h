// lb/config/place.h - where something stood in the configuration, for what is found out later.
#pragma once

#include <cstdint>
#include <string>

namespace ringway::config {

// Where something was defined. That is no part of what it says: any two are equal, so that objects
// with a position compare by everything else (lb/config/changes.h).
struct Position {
  std::string file;
  uint32_t line = 0;
  uint32_t column = 0;
  bool operator==(const Position& /*other*/) const { return true; }
};

// A value with all that a diagnostic about it needs, after the text is gone.
struct Place {
  Position position;
  uint32_t length = 1;      // characters
  std::string source_line;  // as written
};

// The path of a file that is read after the configuration itself.
struct FilePath {
  std::string path;  // absolute; empty: none
  Place place;
  [[nodiscard]] bool empty() const { return path.empty(); }
  bool operator==(const FilePath& other) const { return path == other.path; }
};

}  // namespace ringway::config
