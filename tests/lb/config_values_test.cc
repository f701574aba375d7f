// tests/lb/config_values_test.cc - durations, sizes, CPUs and suggestions.
#include <doctest/doctest.h>

#include <string>

#include "lb/config/suggest.h"
#include "lb/config/values.h"

using namespace ringway::config;

TEST_CASE("parse_duration: every unit -> microseconds, and back") {
  struct {
    const char* text;
    int64_t microseconds;
  } const cases[] = {
      {"50us", 50},          {"500ms", 500'000},      {"5s", 5'000'000}, {"10m", 600'000'000},
      {"1h", 3'600'000'000}, {"2d", 172'800'000'000}, {"0s", 0},         {"1_000ms", 1'000'000}};
  for (const auto& one : cases) {
    int64_t value = -1;
    CHECK(parse_duration(one.text, value) == ValueError::kNone);
    CHECK(value == one.microseconds);
    int64_t again = -1;
    CHECK(parse_duration(duration_text(value), again) == ValueError::kNone);
    CHECK(again == value);
  }
}

TEST_CASE("parse_duration: what is none -> an error") {
  int64_t value = 0;
  CHECK(parse_duration("5", value) == ValueError::kNoUnit);
  for (const char* text : {"", "s", "5 s", "-5s", "5S", "1.5s", "5s ", "_5s", "5min", "1h30m"}) {
    CHECK(parse_duration(text, value) == ValueError::kMalformed);
  }
  for (const char* text :
       {"99999999999999999999s", "9223372036854775807d", "18446744073709551615us"}) {
    CHECK(parse_duration(text, value) == ValueError::kTooLarge);
  }
}

TEST_CASE("parse_size: every unit -> bytes") {
  uint64_t value = 0;
  CHECK(parse_size("64KiB", value) == ValueError::kNone);
  CHECK(value == 65536);
  CHECK(parse_size("1MB", value) == ValueError::kNone);
  CHECK(value == 1'000'000);
  CHECK(parse_size("2TiB", value) == ValueError::kNone);
  CHECK(value == 2ULL << 40U);
  CHECK(size_text(65536) == "64KiB");
  CHECK(size_text(0) == "0B");
  CHECK(parse_size("64", value) == ValueError::kNoUnit);
  CHECK(parse_size("64kb", value) == ValueError::kMalformed);
  CHECK(parse_size("9999999999TiB", value) == ValueError::kTooLarge);
}

TEST_CASE("parse_cpus: lists and ranges -> each CPU once") {
  std::vector<uint32_t> cpus;
  CHECK(parse_cpus("0-3,8", cpus));
  CHECK(cpus == std::vector<uint32_t>{0, 1, 2, 3, 8});
  for (const char* text : {"", ",", "1,", "3-1", "a", "1-", "-1", "0-4096", "1,1", "0-3,2", "1 "}) {
    CHECK_FALSE(parse_cpus(text, cpus));
  }
}

TEST_CASE("edit_distance: inserted, deleted, replaced, swapped -> one each") {
  CHECK(edit_distance("bind", "bind") == 0);
  CHECK(edit_distance("bnd", "bind") == 1);
  CHECK(edit_distance("binnd", "bind") == 1);
  CHECK(edit_distance("bond", "bind") == 1);
  CHECK(edit_distance("bidn", "bind") == 1);
  CHECK(edit_distance("", "bind") == 4);
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(edit_distance(std::string(65, 'a'), "a") == kWordMax + 1);
}

TEST_CASE("closest: near enough -> the nearest, else nothing") {
  const std::string_view names[] = {"shards", "cpus", "up", "max_connections"};
  CHECK(closest("shard", names) == "shards");
  CHECK(closest("max_conections", names) == "max_connections");
  CHECK(closest("max_con", names).empty());
  CHECK(closest("xy", names).empty());
  CHECK(closest("", names).empty());
}

TEST_CASE("find_synonym: words of other balancers -> ours, those of the table first") {
  const std::string_view pool[] = {"max_idle_per_server", "reuse"};
  const std::string_view upstream[] = {"pool", "servers"};
  CHECK(find_synonym("keepalive", pool)->ours == "max_idle_per_server");
  CHECK(find_synonym("keepalive", upstream)->ours == "pool");
  CHECK(find_synonym("http-reuse", pool)->ours == "reuse");
  CHECK(find_synonym("proxy_pass", pool)->ours == "upstream");
  CHECK(find_synonym("nonsense", pool) == nullptr);
}
