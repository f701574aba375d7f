// lb/config/docs.cc - docs/configuration.md and the JSON Schema, generated from the schema.
#include <nlohmann/json.hpp>
#include <string>

#include "lb/config/codes.h"
#include "lb/config/load.h"
#include "lb/config/schema.h"
#include "lb/config/values.h"

namespace ringway::config {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kIntroduction = R"(# Configuration

<!-- Generated from lb/config/schema*.cc. Run the unit tests with RINGWAY_UPDATE_DOCS=1 to write it
anew. -->

One TOML 1.0 file, and what it includes. `ringway check FILE` finds all errors in one run; `ringway
run FILE` refuses a file with errors with the same text. An unknown key is an error, and so is a key
that this version does not have yet: nothing is ignored. `docs/ringway.schema.json` is the same for
editors. `docs/examples/` has files to start from.

## Values
- Durations are a whole number and `us`, `ms`, `s`, `m`, `h` or `d`: `"500ms"`. A bare number is an
  error.
- Sizes are a whole number and `B`, `KB` (1000), `KiB` (1024), `MB`, `MiB`, `GB`, `GiB`, `TB` or
  `TiB`.
- `"off"` switches off what can be switched off. There is no magic 0 or -1.
- Where a list is expected, a single string is a list of one.
- Any string may hold `${env:NAME}`, `${env:NAME:-default}` (when it is unset or empty) and
  `${file:/path}` (without the last line end). `$${` is a plain `${`.
- An included file stands before the rest of the file that includes it. So its routes come first,
  and a route for everything else is best written last in the main file.
- `extends = "name"` takes what an upstream does not set from another one, key by key; lists are
  replaced as a whole.
)";

std::string bound(const Key& key, uint64_t value) {
  if (key.kind == Kind::kDuration) return duration_text(static_cast<int64_t>(value) * key.unit_us);
  if (key.kind == Kind::kSize) return size_text(value);
  return std::to_string(value);
}

std::string words_of(const Key& key) {
  std::string words;
  const char* quote = key.kind == Kind::kEnum ? "\"" : "";
  for (const Choice& choice : key.choices) {
    words += words.empty() ? "`" : ", `";
    words.append(quote).append(choice.word).append(quote).append("`");
  }
  return words;
}

// The column "value": type, range and words.
std::string value_of(const Key& key) {
  const auto range = [&key](const char* what) {
    std::string text =
        std::string(what) + ", " + bound(key, key.min) + " to " + bound(key, key.max);
    if (key.word != nullptr) text += std::string(", or `\"") + key.word + "\"`";
    return text;
  };
  switch (key.kind) {
    case Kind::kBoolean: return "`true`, `false`";
    case Kind::kInteger: return key.choices.empty() ? range("integer") : words_of(key);
    case Kind::kDuration: return range("duration");
    case Kind::kSize: return range("size");
    case Kind::kEnum: return words_of(key);
    case Kind::kText: return "string";
    case Kind::kTexts: return "string or array of strings";
    case Kind::kEntries: return key.flags ? "table of strings or `true`" : "table of strings";
    case Kind::kTable:
      return key.word == nullptr ? "table" : std::string("table, or `\"") + key.word + "\"`";
    case Kind::kNamed: return "named tables";
    case Kind::kTables: return "array of tables";
  }
  return {};
}

std::string header_of(const Section& section) {
  const std::string path = section.path;
  if (path.empty()) return "The top level";
  if (path.starts_with("routes[]")) {
    return path.size() == 8 ? "`[[routes]]`" : "`" + path.substr(9) + "` of `[[routes]]`";
  }
  if (path.ends_with("[]")) return "`" + path.substr(0, path.size() - 2) + "`";
  return "`[" + path + "]`";
}

std::string default_of(const Key& key) {
  if (key.required) return "required";
  const std::string initial = key.initial;
  if (initial.empty()) return "";
  const bool bare = key.kind == Kind::kBoolean || initial.starts_with('[') ||
                    (key.kind == Kind::kInteger && (key.word == nullptr || initial != key.word));
  return bare ? "`" + initial + "`" : "`\"" + initial + "\"`";
}

void write_section(const Section& section, std::string& out) {
  out += "\n## " + header_of(section) + "\n" + section.doc + "\n\n";
  out += "| key | value | default | meaning | example |\n|---|---|---|---|---|\n";
  for (const Key& key : section.keys) {
    out += std::string("| `") + key.name + "` | " + value_of(key) + " | " + default_of(key) +
           " | " + key.doc + " | ";
    if (*key.example != '\0') out += std::string("`") + key.example + "` ";
    out += "|\n";
  }
  std::string later;
  for (const std::string_view name : section.later) {
    later.append(later.empty() ? "`" : ", `").append(name).append("`");
  }
  for (const Key& key : section.keys) {
    for (const std::string_view word : key.later) {
      later.append(later.empty() ? "`" : ", `").append(key.name).append(" = \"");
      later.append(word).append("\"`");
    }
  }
  if (!later.empty()) out += "\nNot supported yet (E0105): " + later + ".\n";
}

Json schema_of(const Section& section);

Json word_or(const Key& key, Json schema) {
  if (key.word == nullptr) return schema;
  return {{"anyOf", Json::array({std::move(schema), Json{{"const", key.word}}})}};
}

Json number_schema(const Key& key) {
  if (!key.choices.empty()) {
    Json values = Json::array();
    for (const Choice& choice : key.choices) values.push_back(choice.value);
    return {{"enum", std::move(values)}};
  }
  return word_or(key, {{"type", "integer"}, {"minimum", key.min}, {"maximum", key.max}});
}

Json quantity_schema(const Key& key) {
  const char* pattern =
      key.kind == Kind::kSize ? "^[0-9][0-9_]*([KMGT]i?)?B$" : "^[0-9][0-9_]*(us|ms|s|m|h|d)$";
  // A reference (${env:NAME}) may stand for the whole value.
  return word_or(key, {{"type", "string"}, {"pattern", std::string(pattern) + "|\\$\\{"}});
}

// Recursion is bounded by the depth of the schema.
Json value_schema(const Key& key) {
  switch (key.kind) {
    case Kind::kBoolean: return {{"type", "boolean"}};
    case Kind::kInteger: return number_schema(key);
    case Kind::kDuration:
    case Kind::kSize: return quantity_schema(key);
    case Kind::kEnum: {
      Json words = Json::array();
      for (const Choice& choice : key.choices) words.push_back(choice.word);
      return {{"enum", std::move(words)}};
    }
    case Kind::kText: return {{"type", "string"}};
    case Kind::kTexts:
      return {{"anyOf",
               Json::array({Json{{"type", "string"}}, Json{{"type", "array"},
                                                           {"maxItems", key.max},
                                                           {"items", {{"type", "string"}}}}})}};
    case Kind::kEntries: {
      Json value = {{"type", "string"}};
      if (key.flags) value = {{"anyOf", Json::array({value, Json{{"const", true}}})}};
      return {{"type", "object"},
              {"maxProperties", key.max},
              {"additionalProperties", std::move(value)}};
    }
    case Kind::kTable: return word_or(key, schema_of(*key.section));
    case Kind::kNamed:
      return {{"type", "object"},
              {"maxProperties", key.max},
              {"additionalProperties", schema_of(*key.section)}};
    case Kind::kTables:
      return {{"type", "array"}, {"maxItems", key.max}, {"items", schema_of(*key.section)}};
  }
  return {};
}

Json schema_of(const Section& section) {
  Json properties = Json::object();
  Json required = Json::array();
  for (const Key& key : section.keys) {
    Json value = value_schema(key);
    value["description"] = key.doc;
    if (*key.initial != '\0') value["x-default"] = key.initial;
    properties[key.name] = std::move(value);
    if (key.required) required.push_back(key.name);
  }
  Json schema = {
      {"type", "object"}, {"additionalProperties", false}, {"properties", std::move(properties)}};
  if (!required.empty()) schema["required"] = std::move(required);
  return schema;
}

}  // namespace

std::string schema_markdown() {
  std::string out = kIntroduction;
  for (const Section* section : all_sections()) write_section(*section, out);
  out +=
      "\n## Codes\n`ringway check` names each finding by a code that never changes its meaning.\n\n"
      "| code | what | meaning |\n|---|---|---|\n";
  for (const Code& code : all_codes()) {
    out += std::string("| ") + code.code + " | " + code.title + " | " + code.text + " |\n";
  }
  return out;
}

std::string schema_json() {
  Json document = {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                   {"title", "Ringway configuration"}};
  document.update(schema_of(root_section()));
  return document.dump(2) + "\n";
}

}  // namespace ringway::config
