// lb/config/render.cc - diagnostics as text in rustc's layout, and as JSON.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "lb/config/load.h"

namespace ringway::config {
namespace {

struct Paint {
  bool on;
  [[nodiscard]] std::string operator()(const char* sgr, const std::string& text) const {
    return on ? "\x1b[" + std::string(sgr) + "m" + text + "\x1b[0m" : text;
  }
};

constexpr const char* kBold = "1";
constexpr const char* kRed = "1;31";
constexpr const char* kYellow = "1;33";
constexpr const char* kBlue = "1;34";

// Decodes one character of UTF-8 and moves on. A stray byte stands for itself.
uint32_t next_character(std::string_view text, size_t& at) {
  const auto lead = static_cast<uint8_t>(text[at++]);
  uint32_t more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : lead >= 0xc0 ? 1 : 0;
  uint32_t value = more == 0 ? lead : lead & (0x3fU >> more);
  for (; more > 0 && at < text.size(); --more) {
    const auto byte = static_cast<uint8_t>(text[at]);
    if ((byte & 0xc0U) != 0x80U) break;
    value = (value << 6U) | (byte & 0x3fU);
    ++at;
  }
  return value;
}

// Cells of a terminal that a character takes: 0 for combining marks, 2 for wide ones (Unicode
// UAX 11, the common blocks), else 1.
uint32_t cells(uint32_t c) {
  if ((c >= 0x300 && c <= 0x36f) || c == 0x200b || c == 0x200d || (c >= 0xfe00 && c <= 0xfe0f)) {
    return 0;
  }
  const bool wide = (c >= 0x1100 && c <= 0x115f) || (c >= 0x2e80 && c <= 0xa4cf) ||
                    (c >= 0xac00 && c <= 0xd7a3) || (c >= 0xf900 && c <= 0xfaff) ||
                    (c >= 0xfe30 && c <= 0xfe6f) || (c >= 0xff00 && c <= 0xff60) ||
                    (c >= 0xffe0 && c <= 0xffe6) || (c >= 0x1f300 && c <= 0x1faff) ||
                    (c >= 0x20000 && c <= 0x3fffd);
  return wide ? 2 : 1;
}

struct Underline {
  std::string blank;   // as wide as what is left of the span; tabs stay tabs
  std::string carets;  // as wide as the span
};

Underline underline(const Diagnostic& diagnostic) {
  Underline out;
  const std::string_view line = diagnostic.source_line;
  uint32_t column = 1;
  const uint32_t from = diagnostic.position.column;
  const uint32_t to = from + diagnostic.length;
  for (size_t at = 0; at < line.size() && column < to; ++column) {
    const uint32_t c = next_character(line, at);
    if (column >= from) {
      out.carets.append(std::max(1U, cells(c)), '^');
    } else if (c == '\t') {
      out.blank += '\t';
    } else {
      out.blank.append(cells(c), ' ');
    }
  }
  if (out.carets.empty()) out.carets = "^";  // just behind the last character
  return out;
}

// The line as it can be shown: control bytes other than tabs would confuse a terminal.
std::string shown(const std::string& line) {
  std::string out = line;
  for (char& c : out) {
    if ((static_cast<uint8_t>(c) < 0x20 && c != '\t') || c == 0x7f) c = '?';
  }
  return out;
}

std::string counted(uint32_t number, const char* noun) {
  return std::to_string(number) + " " + noun + (number == 1 ? "" : "s");
}

void render_one(const Diagnostic& d, const Paint& paint, std::string& out) {
  const bool error = d.severity == Severity::kError;
  out +=
      paint(error ? kRed : kYellow, std::string(error ? "error" : "warning") + "[" + d.code + "]");
  out += paint(kBold, ": " + shown(d.message)) + "\n";
  const std::string number = d.position.line == 0 ? "" : std::to_string(d.position.line);
  const std::string margin(std::max<size_t>(number.size(), 1), ' ');
  out += margin + paint(kBlue, "-->") + " " + d.position.file;
  if (d.position.line != 0) {
    out += ":" + number + ":" + std::to_string(d.position.column);
  }
  out += "\n";
  if (d.position.line != 0) {
    // An empty line is empty, or too long to be kept: then the position must do.
    const Underline mark = underline(d);
    out += paint(kBlue, margin + " |") + "\n";
    out += paint(kBlue, number + " |") + " " + shown(d.source_line) + "\n";
    const std::string label = d.label.empty() ? "" : " " + shown(d.label);
    out += paint(kBlue, margin + " |") + " " + mark.blank +
           paint(error ? kRed : kYellow, mark.carets + label) + "\n";
  }
  for (const std::string& note : d.notes) {
    out +=
        margin + " " + paint(kBlue, "=") + " " + paint(kBold, "note:") + " " + shown(note) + "\n";
  }
  out += "\n";
}

std::string summary(const LoadResult& result) {
  const uint32_t errors = result.errors();
  const uint32_t warnings = result.warnings();
  std::string out = errors == 0 ? "check passed: " : "check failed: ";
  return out + counted(errors, "error") + ", " + counted(warnings, "warning") + " in " +
         counted(result.files, "file");
}

}  // namespace

std::string render(const LoadResult& result, bool color) {
  const Paint paint{color};
  std::string out;
  for (const Diagnostic& diagnostic : result.diagnostics) render_one(diagnostic, paint, out);
  return out + paint(kBold, summary(result)) + "\n";
}

std::string render_json(const LoadResult& result) {
  nlohmann::ordered_json document;
  document["passed"] = result.errors() == 0;
  document["errors"] = result.errors();
  document["warnings"] = result.warnings();
  document["files"] = result.files;
  auto& list = document["diagnostics"] = nlohmann::ordered_json::array();
  for (const Diagnostic& d : result.diagnostics) {
    nlohmann::ordered_json one;
    one["severity"] = d.severity == Severity::kError ? "error" : "warning";
    one["code"] = d.code;
    one["message"] = d.message;
    one["file"] = d.position.file;
    one["line"] = d.position.line;
    one["column"] = d.position.column;
    one["length"] = d.length;
    one["label"] = d.label;
    one["source_line"] = d.source_line;
    one["notes"] = d.notes;
    list.push_back(std::move(one));
  }
  using Json = nlohmann::ordered_json;
  return document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace ringway::config
