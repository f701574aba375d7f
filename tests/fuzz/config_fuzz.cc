// tests/fuzz/config_fuzz.cc - any text as a configuration: no crash, and positions that exist.
#include <cstdint>
#include <string>

#include "core/base/check.h"
#include "lb/config/load.h"
#include "lb/config/report.h"

using namespace ringway::config;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  if (size > (64U << 10U)) return 0;
  const std::string text(reinterpret_cast<const char*>(bytes), size);
  Report lines;
  const uint32_t file = lines.add_source("fuzz", text);
  const LoadResult result = load_text(text, "fuzz");
  RW_CHECK((result.config == nullptr) == (result.errors() > 0));
  for (const Diagnostic& d : result.diagnostics) {
    RW_CHECK(d.position.file == "fuzz");
    RW_CHECK(d.position.line >= 1);
    RW_CHECK(d.position.column >= 1);
    const std::string_view line = lines.line(file, d.position.line);
    RW_CHECK(d.source_line == (line.size() <= kLineBytesMax ? line : ""));
    RW_CHECK(d.position.column <= count_characters(line) + 1);
    RW_CHECK(d.length >= 1);
    RW_CHECK(!explain(d.code).empty());
  }
  RW_CHECK(!render(result, true).empty());
  RW_CHECK(!render_json(result).empty());
  return 0;
}
