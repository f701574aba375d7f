// tests/lb/config_render_test.cc - what people, editors and readers of the documentation see.
// RINGWAY_UPDATE_DOCS=1 in the environment writes the generated files instead of comparing them.
#include <doctest/doctest.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

#include "lb/config/load.h"

using namespace ringway::config;

namespace {

const std::string kRoot = RW_SOURCE_DIR;

std::string read(const std::string& path) {
  std::ifstream in(path);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

void compare(const std::string& path, const std::string& generated) {
  if (getenv("RINGWAY_UPDATE_DOCS") != nullptr) std::ofstream(kRoot + "/" + path) << generated;
  const bool same = read(kRoot + "/" + path) == generated;
  CHECK_MESSAGE(same, path << " differs from the generator: run the unit tests with "
                              "RINGWAY_UPDATE_DOCS=1, and look at the difference");
}

// Paths as seen from the root of the repository, and nobody in particular.
std::string relative(std::string text) {
  for (size_t at = text.find(kRoot); at != std::string::npos; at = text.find(kRoot)) {
    text.erase(at, kRoot.size() + 1);
  }
  const std::string who = "(as uid " + std::to_string(geteuid()) + ")";
  const size_t at = text.find(who);
  if (at != std::string::npos) text.replace(at, who.size(), "(as uid UID)");
  return text;
}

}  // namespace

TEST_CASE("docs: docs/configuration.md -> what the schema says") {
  compare("docs/configuration.md", schema_markdown());
}

TEST_CASE("docs: docs/ringway.schema.json -> what the schema says") {
  compare("docs/ringway.schema.json", schema_json());
}

TEST_CASE("render: files with errors -> the golden texts") {
  setenv("RINGWAY_TEST_UNSET", "", 1);
  unsetenv("RINGWAY_TEST_UNSET");
  for (const std::string name : {"keys", "values", "names", "syntax", "include", "warnings"}) {
    const LoadResult result = load_file(kRoot + "/tests/lb/config/" + name + ".toml");
    compare("tests/lb/config/" + name + ".txt", relative(render(result, false)));
  }
}

TEST_CASE("render: the same as JSON -> every field, valid though the file is not UTF-8") {
  const LoadResult result = load_text("version = 1\nx = '\xff'\n", "text");
  REQUIRE(result.errors() == 1);
  const std::string json = render_json(result);
  CHECK(json.find("\"passed\": false") != std::string::npos);
  CHECK(json.find("\"code\": \"E0101\"") != std::string::npos);
  CHECK(json.find("\"line\": 2") != std::string::npos);
  CHECK(json.find('\xff') == std::string::npos);
}

TEST_CASE("render: tabs, accents and wide letters before the span -> the caret stands below it") {
  const LoadResult tab = load_text("version = 1\n[process]\n\tshard = 1 # x\n", "t");
  CHECK(render(tab, false).find("3 | \tshard = 1 # x\n  | \t^^^^^ did you mean") !=
        std::string::npos);
  const LoadResult accent = load_text("version = 1\nprocess = { \"é\" = 1, shard = 1 }\n", "t");
  CHECK(render(accent, false).find("  |                      ^^^^^ did you mean") !=
        std::string::npos);
  const LoadResult wide = load_text("version = 1\nprocess = { \"漢\" = 1, shard = 1 }\n", "t");
  CHECK(render(wide, false).find("  |                       ^^^^^ did you mean") !=
        std::string::npos);
  CHECK(
      render(wide, false).find("2 | process = { \"漢\" = 1, shard = 1 }\n  |             ^^^^\n") !=
      std::string::npos);
}

TEST_CASE("render: control bytes in a line -> not sent to the terminal") {
  const LoadResult result = load_text("version = 1\n# \x1b[31m\nx = 1\n", "t");
  CHECK(render(result, false).find('\x1b') == std::string::npos);
  CHECK(render(result, true).find("\x1b[1;31merror[") != std::string::npos);
}

TEST_CASE("render: nothing to say -> one line") {
  const LoadResult result = load_text(
      "version = 1\n[listeners.a]\nbind = '127.0.0.1:80'\n[[routes]]\nname = 'a'\nreject = {}\n",
      "t");
  CHECK(render(result, false) == "check passed: 0 errors, 0 warnings in 1 file\n");
}
