// lb/config/schema.h - the one description of every key: it drives reading, checking and the docs.
//
// Affinity:  constant data, any thread.
// Why:       a key that is described here is read, checked, documented and in the JSON Schema;
// there
//            is no second list to forget. Config structs hold the result, `store` says where.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lb/config/config.h"
#include "lb/config/node.h"
#include "lb/config/report.h"

namespace ringway::config {

struct Key;
struct Section;

// The configuration while it is being read. Nodes are those of the tree, parallel to the vectors.
struct Draft {
  Config config;
  uint64_t version = 0;
  Timeouts timeouts;  // [defaults.timeouts]
  Health health;      // [defaults.health]
  std::vector<const Node*> listeners;
  std::vector<const Node*> routes;
  std::vector<const Node*> upstreams;
  std::vector<const Node*> tls_profiles;
  std::vector<const Node*> tls_certificates;
};

struct Reader {
  Report& report;
  const Node& root;
  Draft& draft;
};

enum class Kind : uint8_t {
  kBoolean,
  kInteger,
  kDuration,  // "5s"
  kSize,      // "64KiB"
  kEnum,      // one of Key::choices
  kText,
  kTexts,    // a string or an array of strings
  kEntries,  // a table of free names
  kTable,    // a table with the keys of Key::section
  kNamed,    // a table of named tables with the keys of Key::section
  kTables    // an array of such tables
};

// A word of an enumeration and what it means in Config.
struct Choice {
  const char* word = nullptr;
  uint64_t value = 0;
};

struct Key {
  const char* name = nullptr;
  Kind kind = Kind::kText;
  bool required = false;
  bool flags = false;          // kEntries: `true` is a value too
  int64_t unit_us = 1000;      // kDuration: the unit of the number in Config, of `min` and `max`
  uint64_t min = 0;            // kInteger, kDuration, kSize
  uint64_t max = 0;            // the same; kTexts, kEntries, kNamed, kTables: how many items
  const char* word = nullptr;  // a word instead of a number or table: "off", "auto", "all"
  uint64_t word_value = 0;     // what it means in Config
  std::span<const Choice> choices{};
  std::span<const std::string_view> later{};  // words of the language that are not supported yet
  const Section* section = nullptr;

  // Where the value goes in `object`, which is the struct that the section describes.
  void (*number)(void* object, uint64_t value) = nullptr;  // kBoolean to kEnum
  // kText: once; kTexts, kEntries: for every item. Checks the value and reports what is wrong.
  void (*text)(Reader& reader, const Key& key, const Node& node, void* object) = nullptr;
  // kTexts, kEntries, kTables: empties the list, since a second reading replaces it.
  void (*clear)(void* object) = nullptr;
  // kTable: the struct of the inner section.
  void* (*into)(void* object) = nullptr;
  // kNamed, kTables: adds one object and reads `node` into it. `where` names it in messages.
  void (*element)(Reader& reader, const Key& key, const Node& node, const std::string& where,
                  void* object) = nullptr;

  const char* initial = "";  // what holds when the key is absent; "" for nothing
  const char* doc = "";      // complete sentences
  const char* example = "";  // TOML, different from `initial`
};

struct Section {
  const char* path = "";  // "listeners.NAME.limits"
  const char* doc = "";
  std::span<const Key> keys{};
  std::span<const std::string_view> later{};  // keys of the language that are not supported yet
};

[[nodiscard]] const Section& root_section();
[[nodiscard]] const Section& timeouts_section();  // those of routes

// Every section, in the order of the documentation.
[[nodiscard]] std::span<const Section* const> all_sections();

// Reads `node` into `object`, which `section` describes, and reports all that is wrong. `where` is
// for messages: "[listeners.web]". Keys that are absent leave `object` as it is.
void read_section(Reader& reader, const Section& section, const Node& node,
                  const std::string& where, void* object);

}  // namespace ringway::config
