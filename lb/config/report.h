// lb/config/report.h - the files that were read, and what is wrong with them.
//
// Affinity:  one thread. Ownership: owns the texts. Bounds: kDiagnosticsMax of each severity; more
//            are counted out, an error is never lost behind warnings.
#pragma once

#include <string>
#include <vector>

#include "lb/config/load.h"
#include "lb/config/node.h"

namespace ringway::config {

inline constexpr uint32_t kDiagnosticsMax = 1000;
inline constexpr size_t kLineBytesMax = 4096;  // longer lines are not kept with a diagnostic

class Report {
 public:
  // Adds a file or a text under the name that diagnostics show. Returns its number.
  uint32_t add_source(std::string name, std::string text);
  [[nodiscard]] uint32_t files() const { return static_cast<uint32_t>(sources_.size()); }
  [[nodiscard]] const std::string& name(uint32_t file) const { return sources_[file].name; }
  [[nodiscard]] const std::string& text(uint32_t file) const { return sources_[file].text; }
  // Line number `line` (from 1) without its end; "" beyond the last one.
  [[nodiscard]] std::string_view line(uint32_t file, uint32_t line) const;

  // The character at byte `offset`.
  [[nodiscard]] Span span_at(uint32_t file, size_t offset) const;
  // `span`, cut to what its line has; the column may point just behind the last character.
  [[nodiscard]] Span clip(Span span) const;
  [[nodiscard]] Position position(const Span& span) const;
  // "file:3:1", for notes.
  [[nodiscard]] std::string place(const Span& span) const;

  // Adds a diagnostic. The reference is for adding notes, valid until the next call.
  Diagnostic& error(const char* code, const Span& span, std::string message,
                    std::string label = {});
  Diagnostic& warning(const char* code, const Span& span, std::string message,
                      std::string label = {});

  // While muted nothing is added: for reading again what was already checked.
  void mute(bool on) { muted_ = on; }
  [[nodiscard]] bool failed() const { return errors_ != 0; }

  // Everything, in file and line order. Leaves none here.
  [[nodiscard]] std::vector<Diagnostic> take();

 private:
  struct Source {
    std::string name;
    std::string text;
    std::vector<size_t> line_starts;
  };
  struct Entry {
    Span span;
    Diagnostic diagnostic;
  };
  Diagnostic& add(Severity severity, const char* code, const Span& span, std::string message,
                  std::string label);

  std::vector<Source> sources_;
  std::vector<Entry> entries_;
  Diagnostic spare_;  // what error() returns when nothing is added
  uint32_t errors_ = 0;
  uint32_t warnings_ = 0;
  bool muted_ = false;
};

// The number of characters in UTF-8 `text`; a stray byte counts as one.
[[nodiscard]] uint32_t count_characters(std::string_view text);

}  // namespace ringway::config
