// lb/config/read.cc - reads a tree of nodes by the schema: unknown keys, types, units and ranges.
#include <algorithm>
#include <string>
#include <vector>

#include "core/base/check.h"
#include "lb/config/schema.h"
#include "lb/config/suggest.h"
#include "lb/config/values.h"

namespace ringway::config {
namespace {

bool contains(std::span<const std::string_view> words, std::string_view word) {
  for (const std::string_view candidate : words) {
    if (candidate == word) return true;
  }
  return false;
}

std::vector<std::string_view> names_of(const Section& section) {
  std::vector<std::string_view> names;
  for (const Key& key : section.keys) names.emplace_back(key.name);
  return names;
}

// The first other section that has a key called `name`, for a note.
const Section* find_elsewhere(const Section& here, std::string_view name) {
  for (const Section* section : all_sections()) {
    if (section == &here || *section->path == '\0') continue;
    for (const Key& key : section->keys) {
      if (key.name == name) return section;
    }
  }
  return nullptr;
}

std::string in_where(const std::string& where) {
  return where.empty() ? " at the top level" : " in " + where;
}

// Returns the key that was probably meant, or "".
std::string report_unknown(Reader& reader, const Section& section, const Node& child,
                           const std::string& where) {
  if (contains(section.later, child.key)) {
    reader.report.error("E0105", child.key_span,
                        "`" + child.key + "` is not supported yet" + in_where(where));
    return {};
  }
  const std::vector<std::string_view> names = names_of(section);
  const std::string_view near = closest(child.key, names);
  const Synonym* synonym = find_synonym(child.key, names);
  const bool here = synonym != nullptr && contains(names, synonym->ours);
  std::string meant(here ? synonym->ours : near);
  const std::string label = meant.empty() ? "" : "did you mean `" + meant + "`?";
  Diagnostic& diagnostic = reader.report.error(
      "E0104", child.key_span, "unknown key `" + child.key + "`" + in_where(where), label);
  if (synonym != nullptr && (here || near.empty())) {
    diagnostic.notes.push_back(std::string(synonym->product) + "'s `" + std::string(synonym->word) +
                               "` is called `" + std::string(synonym->ours) + "` here");
    if (here) return meant;
  }
  const Section* elsewhere = find_elsewhere(section, child.key);
  if (elsewhere != nullptr) {
    diagnostic.notes.push_back("`" + child.key + "` belongs to [" + elsewhere->path + "]");
  }
  return meant;
}

const char* wanted(const Key& key) {
  switch (key.kind) {
    case Kind::kBoolean: return "true or false";
    case Kind::kInteger: return key.word == nullptr ? "an integer" : "an integer or a word";
    case Kind::kDuration: return "a duration such as \"5s\"";
    case Kind::kSize: return "a size such as \"64KiB\"";
    case Kind::kEnum:
    case Kind::kText: return "a string";
    case Kind::kTexts: return "a string or an array of strings";
    case Kind::kEntries:
    case Kind::kTable: return "a table";
    case Kind::kNamed: return "a table of named tables";
    case Kind::kTables: return "an array of tables";
  }
  return "something else";
}

void wrong_type(Reader& reader, const Key& key, const Node& node, std::string label = {}) {
  reader.report.error(
      "E0301", node.span,
      std::string("`") + key.name + "` must be " + wanted(key) + ", not " + name_of(node.kind),
      std::move(label));
}

std::string bound_text(const Key& key, uint64_t value) {
  if (key.kind == Kind::kDuration) {
    return "\"" + duration_text(static_cast<int64_t>(value) * key.unit_us) + "\"";
  }
  if (key.kind == Kind::kSize) return "\"" + size_text(value) + "\"";
  return std::to_string(value);
}

void out_of_range(Reader& reader, const Key& key, const Node& node) {
  std::string message = std::string("`") + key.name + "` must be from " + bound_text(key, key.min) +
                        " to " + bound_text(key, key.max);
  if (key.word != nullptr) message += std::string(", or \"") + key.word + "\"";
  reader.report.error("E0304", node.span, std::move(message));
}

// A number without a unit. The example of the label is what it would most likely mean.
void no_unit(Reader& reader, const Key& key, const Node& node, const std::string& digits) {
  if (key.kind == Kind::kSize) {
    reader.report.error("E0302", node.span, "a size needs a unit",
                        "write \"" + digits + "B\", or use KiB or MiB");
    return;
  }
  const std::string unit = key.unit_us == 1 ? "us" : "s";
  reader.report.error("E0302", node.span, "a duration needs a unit",
                      "write \"" + digits + unit + "\" (HAProxy and nginx would read " + digits +
                          " as " + digits + " ms and " + digits + " s)");
}

void store_number(Reader& reader, const Key& key, const Node& node, uint64_t value, void* object) {
  if (value < key.min || value > key.max) {
    out_of_range(reader, key, node);
    return;
  }
  key.number(object, value);
}

void read_integer(Reader& reader, const Key& key, const Node& node, void* object) {
  if (node.kind != Node::Kind::kInteger) {
    wrong_type(reader, key, node,
               key.word != nullptr ? std::string("the word is \"") + key.word + "\"" : "");
    return;
  }
  if (!key.choices.empty()) {
    std::string all;
    for (const Choice& choice : key.choices) {
      if (choice.value == static_cast<uint64_t>(node.integer)) {
        key.number(object, choice.value);
        return;
      }
      all.append(all.empty() ? "" : ", ").append(choice.word);
    }
    reader.report.error("E0305", node.span,
                        std::string("`") + key.name + "` must be one of " + all);
    return;
  }
  if (node.integer < 0) {
    out_of_range(reader, key, node);
    return;
  }
  store_number(reader, key, node, static_cast<uint64_t>(node.integer), object);
}

// kDuration and kSize.
void read_quantity(Reader& reader, const Key& key, const Node& node, void* object) {
  if (node.kind == Node::Kind::kInteger && node.integer >= 0) {
    no_unit(reader, key, node, std::to_string(node.integer));
    return;
  }
  if (node.kind != Node::Kind::kString) {
    wrong_type(reader, key, node);
    return;
  }
  uint64_t value = 0;
  int64_t microseconds = 0;
  const bool size = key.kind == Kind::kSize;
  const ValueError error =
      size ? parse_size(node.text, value) : parse_duration(node.text, microseconds);
  switch (error) {
    case ValueError::kNone: break;
    case ValueError::kNoUnit: no_unit(reader, key, node, node.text); return;
    case ValueError::kTooLarge: out_of_range(reader, key, node); return;
    case ValueError::kMalformed:
      reader.report.error("E0303", node.span,
                          "\"" + node.text + "\" is no " + (size ? "size" : "duration"),
                          size ? "a whole number and B, KB, KiB, MB, MiB, GB or GiB"
                               : "a whole number and us, ms, s, m, h or d");
      return;
  }
  if (!size) {
    if (microseconds % key.unit_us != 0) {
      out_of_range(reader, key, node);
      return;
    }
    value = static_cast<uint64_t>(microseconds / key.unit_us);
  }
  store_number(reader, key, node, value, object);
}

void read_enum(Reader& reader, const Key& key, const Node& node, void* object) {
  std::vector<std::string_view> words;
  std::string all;
  for (const Choice& choice : key.choices) {
    if (node.text == choice.word) {
      key.number(object, choice.value);
      return;
    }
    words.emplace_back(choice.word);
    all.append(all.empty() ? "\"" : ", \"").append(choice.word).append("\"");
  }
  if (contains(key.later, node.text)) {
    reader.report.error(
        "E0105", node.span,
        std::string("`") + key.name + " = \"" + node.text + "\"` is not supported yet",
        "one of " + all);
    return;
  }
  const std::string near(closest(node.text, words));
  reader.report.error("E0305", node.span, std::string("`") + key.name + "` must be one of " + all,
                      near.empty() ? "" : "did you mean \"" + near + "\"?");
}

void too_many(Reader& reader, const Key& key, const Node& node) {
  reader.report.error("E0304", node.span,
                      std::string("`") + key.name + "` has " +
                          std::to_string(node.children.size()) + " items, at most " +
                          std::to_string(key.max) + " are allowed");
}

void read_texts(Reader& reader, const Key& key, const Node& node, void* object) {
  if (node.kind != Node::Kind::kString && node.kind != Node::Kind::kArray) {
    wrong_type(reader, key, node);
    return;
  }
  if (key.clear != nullptr) key.clear(object);
  if (node.kind == Node::Kind::kString) {
    key.text(reader, key, node, object);
    return;
  }
  if (node.children.size() > key.max) {
    too_many(reader, key, node);
    return;
  }
  for (const Node& item : node.children) {
    if (item.unresolved) continue;
    if (item.kind == Node::Kind::kString) {
      key.text(reader, key, item, object);
    } else {
      wrong_type(reader, key, item);
    }
  }
}

void read_entries(Reader& reader, const Key& key, const Node& node, void* object) {
  if (node.kind != Node::Kind::kTable) {
    wrong_type(reader, key, node);
    return;
  }
  if (node.children.size() > key.max) {
    too_many(reader, key, node);
    return;
  }
  if (key.clear != nullptr) key.clear(object);
  for (const Node& entry : node.children) {
    if (entry.unresolved) continue;
    const bool flag = key.flags && entry.kind == Node::Kind::kBoolean && entry.boolean;
    if (entry.kind == Node::Kind::kString || flag) {
      key.text(reader, key, entry, object);
    } else {
      reader.report.error("E0301", entry.span,
                          "`" + entry.key + "` must be a string" + (key.flags ? " or true" : "") +
                              ", not " + name_of(entry.kind));
    }
  }
}

// What messages call the table `key` within `where`.
std::string inner_where(const std::string& where, const Key& key) {
  const std::string name = key.name;
  if (where.empty()) return key.kind == Kind::kTables ? "[[" + name + "]]" : "[" + name + "]";
  if (where.starts_with("[[")) return "`" + name + "` of " + where;
  return where.substr(0, where.size() - 1) + "." + name + "]";
}

// kTable, kNamed and kTables. `where` is that of the table around.
void read_tables(Reader& reader, const Key& key, const Node& node, const std::string& where,
                 void* object) {
  const std::string inner = inner_where(where, key);
  if (node.kind != (key.kind == Kind::kTables ? Node::Kind::kArray : Node::Kind::kTable)) {
    wrong_type(reader, key, node);
    return;
  }
  if (key.kind == Kind::kTable) {
    read_section(reader, *key.section, node, inner, key.into(object));
    return;
  }
  if (node.children.size() > key.max) {
    too_many(reader, key, node);
    return;
  }
  if (key.clear != nullptr) key.clear(object);
  for (const Node& child : node.children) {
    std::string name = inner;
    if (key.kind == Kind::kNamed) name = name.substr(0, name.size() - 1) + "." + child.key + "]";
    if (child.kind == Node::Kind::kTable) {
      key.element(reader, key, child, name, object);
    } else {
      reader.report.error("E0301", child.span,
                          name + " must be a table, not " + name_of(child.kind));
    }
  }
}

bool is_word(const Key& key, const Node& node) {
  return key.word != nullptr && key.number != nullptr && node.kind == Node::Kind::kString &&
         node.text == key.word;
}

void read_key(Reader& reader, const Key& key, const Node& node, const std::string& where,
              void* object) {
  if (node.unresolved) return;
  if (is_word(key, node)) {
    key.number(object, key.word_value);
    return;
  }
  switch (key.kind) {
    case Kind::kBoolean:
      if (node.kind == Node::Kind::kBoolean) {
        key.number(object, node.boolean ? 1 : 0);
      } else {
        wrong_type(reader, key, node);
      }
      return;
    case Kind::kInteger: read_integer(reader, key, node, object); return;
    case Kind::kDuration:
    case Kind::kSize: read_quantity(reader, key, node, object); return;
    case Kind::kEnum:
    case Kind::kText:
      if (node.kind != Node::Kind::kString) {
        wrong_type(reader, key, node);
      } else if (key.kind == Kind::kEnum) {
        read_enum(reader, key, node, object);
      } else {
        key.text(reader, key, node, object);
      }
      return;
    case Kind::kTexts: read_texts(reader, key, node, object); return;
    case Kind::kEntries: read_entries(reader, key, node, object); return;
    case Kind::kTable:
    case Kind::kNamed:
    case Kind::kTables: read_tables(reader, key, node, where, object); return;
  }
}

bool known(const Section& section, std::string_view name) {
  for (const Key& key : section.keys) {
    if (key.name == name) return true;
  }
  return false;
}

}  // namespace

// Recursion is bounded by the depth of the schema.
void read_section(Reader& reader, const Section& section, const Node& node,
                  const std::string& where, void* object) {
  RW_CHECK(node.kind == Node::Kind::kTable);
  RW_CHECK(object != nullptr);
  std::vector<std::string> meant;  // a misspelt key is not also a missing one
  for (const Node& child : node.children) {
    if (!known(section, child.key)) {
      meant.push_back(report_unknown(reader, section, child, where));
    }
  }
  for (const Key& key : section.keys) {
    const Node* child = node.find(key.name);
    if (child != nullptr) {
      read_key(reader, key, *child, where, object);
    } else if (key.required && std::find(meant.begin(), meant.end(), key.name) == meant.end()) {
      reader.report.error("E0106", node.defined_at(),
                          std::string("`") + key.name + "` is missing" + in_where(where),
                          std::string("add ") + key.name + " = " + key.example);
    }
  }
}

}  // namespace ringway::config
