// lb/config/node.h - the parsed text as a plain tree that knows where everything stood.
//
// Affinity:  one thread. Ownership: values only; a Node lives as long as its Document.
// Bounds:    text_bytes_max per file; the depth of the tree is bounded by parse_text().
// Why:       toml++ sorts keys and costs seconds to compile: one file includes it and makes this.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ringway::config {

inline constexpr size_t kTextBytesMax = 8U << 20U;

// A part of one line of a file. Columns count characters (code points), from 1.
struct Span {
  uint32_t file = 0;  // index in Report::sources()
  uint32_t line = 0;  // 0: the file as a whole
  uint32_t column = 0;
  uint32_t length = 1;
};

struct Node {
  enum class Kind : uint8_t { kString, kInteger, kFloat, kBoolean, kDate, kArray, kTable };

  Kind kind = Kind::kTable;
  bool boolean = false;
  bool unresolved = false;  // a reference in it failed: reported, and not to be looked at
  int64_t integer = 0;
  std::string key;   // of a table's member
  std::string text;  // kString, references replaced
  Span key_span;
  Span span;                   // of the value; of a [table] its header
  std::vector<Node> children;  // of arrays and tables, in file order

  // The member called `name`, or nullptr.
  [[nodiscard]] const Node* find(std::string_view name) const;
  // Where this was defined: the key or the header, whichever comes first.
  [[nodiscard]] const Span& defined_at() const;
};

// "a string", "an integer", ... for messages.
[[nodiscard]] const char* name_of(Node::Kind kind);

class Report;

// Parses the text of source number `file` of `report` into `root`. False after a syntax error,
// which is reported (E0101); there is never more than one.
[[nodiscard]] bool parse_text(Report& report, uint32_t file, Node& root);

// Replaces ${env:NAME}, ${env:NAME:-default} and ${file:/path} in all strings below `root`, and
// reports what is undefined (E0312) or unreadable (E0313).
void replace_references(Report& report, Node& root);

}  // namespace ringway::config
