// lb/config/report.cc
#include "lb/config/report.h"

#include <algorithm>

#include "core/base/check.h"

namespace ringway::config {

uint32_t count_characters(std::string_view text) {
  return static_cast<uint32_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<uint8_t>(c) & 0xc0U) != 0x80U;  // not a continuation byte
  }));
}

uint32_t Report::add_source(std::string name, std::string text) {
  Source source{std::move(name), std::move(text), {0}};
  for (size_t at = 0; at < source.text.size(); ++at) {
    if (source.text[at] == '\n') source.line_starts.push_back(at + 1);
  }
  sources_.push_back(std::move(source));
  return static_cast<uint32_t>(sources_.size() - 1);
}

std::string_view Report::line(uint32_t file, uint32_t line) const {
  const Source& source = sources_[file];
  if (line == 0 || line > source.line_starts.size()) return {};
  const size_t from = source.line_starts[line - 1];
  const size_t to = std::min(source.text.find('\n', from), source.text.size());
  std::string_view found = std::string_view(source.text).substr(from, to - from);
  if (found.ends_with('\r')) found.remove_suffix(1);
  return found;
}

Span Report::span_at(uint32_t file, size_t offset) const {
  const Source& source = sources_[file];
  const auto next = std::upper_bound(source.line_starts.begin(), source.line_starts.end(), offset);
  RW_CHECK(next != source.line_starts.begin());
  const size_t from = *std::prev(next);
  const std::string_view left = std::string_view(source.text).substr(from, offset - from);
  return {file, static_cast<uint32_t>(next - source.line_starts.begin()),
          count_characters(left) + 1, 1};
}

Span Report::clip(Span span) const {
  const auto lines = static_cast<uint32_t>(sources_[span.file].line_starts.size());
  if (span.line == 0) return span;
  if (span.line > lines) span = {span.file, lines, UINT32_MAX, 1};
  const uint32_t width = count_characters(line(span.file, span.line));
  span.column = std::clamp(span.column, 1U, width + 1);
  span.length = std::clamp(span.length, 1U, std::max(1U, width + 1 - span.column));
  return span;
}

Position Report::position(const Span& span) const {
  return {sources_[span.file].name, span.line, span.column};
}

std::string Report::place(const Span& span) const {
  return sources_[span.file].name + ":" + std::to_string(span.line) + ":" +
         std::to_string(span.column);
}

Diagnostic& Report::error(const char* code, const Span& span, std::string message,
                          std::string label) {
  if (!muted_) ++errors_;
  if (muted_ || errors_ > kDiagnosticsMax) return spare_ = {};
  return add(Severity::kError, code, span, std::move(message), std::move(label));
}

Diagnostic& Report::warning(const char* code, const Span& span, std::string message,
                            std::string label) {
  if (!muted_) ++warnings_;
  if (muted_ || warnings_ > kDiagnosticsMax) return spare_ = {};
  return add(Severity::kWarning, code, span, std::move(message), std::move(label));
}

Diagnostic& Report::add(Severity severity, const char* code, const Span& wanted,
                        std::string message, std::string label) {
  const Span span = clip(wanted);
  Diagnostic diagnostic;
  diagnostic.severity = severity;
  diagnostic.code = code;
  diagnostic.message = std::move(message);
  diagnostic.position = position(span);
  diagnostic.length = span.length;
  const std::string_view source = line(span.file, span.line);
  if (source.size() <= kLineBytesMax) diagnostic.source_line = std::string(source);
  diagnostic.label = std::move(label);
  return entries_.emplace_back(Entry{span, std::move(diagnostic)}).diagnostic;
}

std::vector<Diagnostic> Report::take() {
  std::stable_sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
    const Span& x = a.span;
    const Span& y = b.span;
    if (x.file != y.file) return x.file < y.file;
    return x.line != y.line ? x.line < y.line : x.column < y.column;
  });
  std::vector<Diagnostic> all;
  all.reserve(entries_.size());
  for (Entry& entry : entries_) all.push_back(std::move(entry.diagnostic));
  entries_.clear();
  return all;
}

}  // namespace ringway::config
