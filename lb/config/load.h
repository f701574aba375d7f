// lb/config/load.h - TOML text to Config, with every error found in one run.
//
// Affinity: control thread, or a tool. Reads files and the environment.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lb/config/config.h"

namespace ringway::config {

enum class Severity : uint8_t { kError, kWarning };

struct Diagnostic {
  Severity severity = Severity::kError;
  std::string code;     // stable: "E0104"
  std::string message;  // "unknown key `maxconn` in [listeners.web]"
  Position position;
  uint32_t length = 1;      // of the span that the caret underlines
  std::string source_line;  // the line of the file, as written; "" if it is longer than 4 KiB
  std::string label;        // beside the caret: "did you mean `max_connections`?"
  std::vector<std::string> notes;
};

struct LoadResult {
  std::unique_ptr<const Config> config;  // null if there is any error
  std::vector<Diagnostic> diagnostics;   // in file and line order
  uint32_t files = 0;

  [[nodiscard]] uint32_t errors() const;
  [[nodiscard]] uint32_t warnings() const;
};

// Reads `path` and its includes.
[[nodiscard]] LoadResult load_file(const std::string& path);

// The same for text that is no file, shown as `name` in diagnostics; includes are errors there.
// For tests, the fuzz target and the embedded demo.
[[nodiscard]] LoadResult load_text(const std::string& text, const std::string& name);

// The diagnostics as people read them, in rustc's layout; `color` adds ANSI colours.
[[nodiscard]] std::string render(const LoadResult& result, bool color);

// The same as one JSON document, for editors and scripts.
[[nodiscard]] std::string render_json(const LoadResult& result);

// What a code means and how to mend it, or "" for an unknown code.
[[nodiscard]] std::string explain(const std::string& code);

// Both generated from the schema: docs/configuration.md, and a JSON Schema for editors.
[[nodiscard]] std::string schema_markdown();
[[nodiscard]] std::string schema_json();

}  // namespace ringway::config
