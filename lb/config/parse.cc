// lb/config/parse.cc - TOML text to Nodes; the only file that includes toml++.
#define TOML_HEADER_ONLY 1
#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#define TOML_MAX_NESTED_VALUES 32
#include <toml++/toml.h>

#include <algorithm>
#include <string>

#include "lb/config/node.h"
#include "lb/config/report.h"

namespace ringway::config {
namespace {

constexpr uint32_t kKeyPartsMax = 32;  // a.b.c has 3

// Finds keys with more than kKeyPartsMax dotted parts, which toml++ would nest without a bound.
// Understands just enough of TOML to skip strings and comments.
class KeyDepthScan {
 public:
  explicit KeyDepthScan(std::string_view text) : text_(text) {}

  // Returns the offset of the first key that is too deep, or npos.
  size_t run() {
    for (at_ = 0; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '"' || c == '\'') {
        skip_string(c);
      } else if (c == '#') {
        at_ = std::min(text_.find('\n', at_), text_.size());
        dots_ = 0;
      } else if (c == '.') {
        if (++dots_ >= kKeyPartsMax) return at_;
      } else if (c == '=' || c == ',' || c == '\n' || c == '[' || c == '{') {
        dots_ = 0;
      }
    }
    return std::string_view::npos;
  }

 private:
  void skip_string(char quote) {
    const std::string three(3, quote);
    const bool multi_line = text_.substr(at_, 3) == three;
    at_ += multi_line ? 3 : 1;
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '\\' && quote == '"') {
        ++at_;
      } else if (multi_line && text_.substr(at_, 3) == three) {
        at_ += 2;
        return;
      } else if (!multi_line && (c == quote || c == '\n')) {
        return;
      }
    }
  }

  std::string_view text_;
  size_t at_ = 0;
  uint32_t dots_ = 0;
};

Span span_of(uint32_t file, const toml::source_region& region) {
  Span span{file, region.begin.line, region.begin.column, 1};
  if (region.end.line == region.begin.line && region.end.column > region.begin.column) {
    span.length = region.end.column - region.begin.column;
  }
  return span;
}

bool before(const Span& a, const Span& b) {
  return a.line != b.line ? a.line < b.line : a.column < b.column;
}

void convert(uint32_t file, const toml::node& from, Node& to);

// Recursion here and in convert() is bounded: TOML_MAX_NESTED_VALUES times kKeyPartsMax.
void convert_table(uint32_t file, const toml::table& from, Node& to) {
  to.kind = Node::Kind::kTable;
  to.children.reserve(from.size());
  for (const auto& [key, value] : from) {
    Node& child = to.children.emplace_back();
    child.key = std::string(key.str());
    child.key_span = span_of(file, key.source());
    convert(file, value, child);
  }
  std::sort(to.children.begin(), to.children.end(),
            [](const Node& a, const Node& b) { return before(a.key_span, b.key_span); });
}

void convert(uint32_t file, const toml::node& from, Node& to) {
  to.span = span_of(file, from.source());
  if (const auto* table = from.as_table()) {
    convert_table(file, *table, to);
  } else if (const auto* array = from.as_array()) {
    to.kind = Node::Kind::kArray;
    to.children.reserve(array->size());
    for (const toml::node& item : *array) convert(file, item, to.children.emplace_back());
  } else if (const auto* text = from.as_string()) {
    to.kind = Node::Kind::kString;
    to.text = text->get();
  } else if (const auto* integer = from.as_integer()) {
    to.kind = Node::Kind::kInteger;
    to.integer = integer->get();
  } else if (const auto* boolean = from.as_boolean()) {
    to.kind = Node::Kind::kBoolean;
    to.boolean = boolean->get();
  } else {
    to.kind = from.is_floating_point() ? Node::Kind::kFloat : Node::Kind::kDate;
  }
}

}  // namespace

bool parse_text(Report& report, uint32_t file, Node& root) {
  const std::string& text = report.text(file);
  const size_t too_deep = KeyDepthScan(text).run();
  if (too_deep != std::string_view::npos) {
    report.error("E0101", report.span_at(file, too_deep), "a key with too many dots",
                 "at most 31 dots");
    return false;
  }
  const toml::parse_result result = toml::parse(std::string_view(text), std::string());
  if (!result) {
    const toml::parse_error& error = result.error();
    report.error("E0101", report.clip(span_of(file, error.source())),
                 "this is not TOML: " + std::string(error.description()));
    return false;
  }
  root.span = Span{file, 1, 1, 1};
  convert_table(file, result.table(), root);
  return true;
}

const Node* Node::find(std::string_view name) const {
  for (const Node& child : children) {
    if (child.key == name) return &child;
  }
  return nullptr;
}

const Span& Node::defined_at() const {
  if (key_span.line == 0) return span;
  return before(span, key_span) && span.line != 0 ? span : key_span;
}

const char* name_of(Node::Kind kind) {
  switch (kind) {
    case Node::Kind::kString: return "a string";
    case Node::Kind::kInteger: return "an integer";
    case Node::Kind::kFloat: return "a floating-point number";
    case Node::Kind::kBoolean: return "a boolean";
    case Node::Kind::kDate: return "a date or time";
    case Node::Kind::kArray: return "an array";
    case Node::Kind::kTable: return "a table";
  }
  return "a value";
}

}  // namespace ringway::config
