// tests/proto/http1_parse.h - parses a head in one call, and again in pieces that move in memory.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "proto/http1_head.h"

namespace ringway::http1 {

// Everything that a parse yields, with owned bytes, so that two parses can be compared.
struct Parsed {
  HeadParser::Status status = HeadParser::Status::kNeedMore;
  HeadError error = HeadError::kNone;
  uint32_t error_at = 0;
  std::string bytes{};  // what `head` is read against
  Head head{};
  std::vector<Field> fields{};

  [[nodiscard]] bool done() const { return status == HeadParser::Status::kDone; }
  [[nodiscard]] std::string text(Slice slice) const { return bytes.substr(slice.at, slice.len); }
  [[nodiscard]] std::string path() const { return text(head.path); }
};

struct ParseSetup {
  HeadLimits limits{};
  bool response = false;
  ResponseContext context{};
  uint32_t fields_max = 128;
};

inline void begin(HeadParser& parser, const ParseSetup& setup) {
  if (setup.response) {
    parser.start_response(setup.limits, setup.context);
  } else {
    parser.start_request(setup.limits);
  }
}

inline void take_result(HeadParser& parser, Parsed& parsed) {
  parsed.error = parser.error();
  parsed.error_at = parser.error_at();
  if (!parsed.done()) return;
  parsed.head = parser.head();
  parsed.fields.assign(parsed.head.fields.begin(), parsed.head.fields.end());
  parsed.head.fields = parsed.fields;
}

// Feeds prefixes of `text` that end at `cuts` (rising) and then the whole; each prefix is in a
// fresh exact-size buffer, so that stale pointers and reads beyond the end are seen by ASan.
inline Parsed parse_cut(const std::string& text, const std::vector<size_t>& cuts,
                        const ParseSetup& setup) {
  Parsed parsed{.bytes = text};
  HeadParser parser(setup.fields_max);
  begin(parser, setup);
  std::unique_ptr<char[]> buffer;
  for (size_t i = 0; i <= cuts.size() && parsed.status == HeadParser::Status::kNeedMore; ++i) {
    const size_t size = i < cuts.size() ? cuts[i] : text.size();
    auto next = std::make_unique<char[]>(size);
    std::copy_n(text.data(), size, next.get());
    buffer = std::move(next);
    parsed.status = parser.parse({buffer.get(), size});
  }
  take_result(parser, parsed);
  if (parsed.done()) CHECK(parsed.head.base == buffer.get());
  parsed.head.base = parsed.bytes.data();
  return parsed;
}

inline void check_same(const Parsed& a, const Parsed& b) {
  CHECK(a.status == b.status);
  CHECK(a.error == b.error);
  CHECK(a.error_at == b.error_at);
  if (!a.done() || !b.done()) return;
  CHECK(a.head.head_len == b.head.head_len);
  CHECK(a.head.method == b.head.method);
  CHECK(a.head.status == b.head.status);
  CHECK(a.path() == b.path());
  CHECK(a.text(a.head.query) == b.text(b.head.query));
  CHECK(a.text(a.head.authority) == b.text(b.head.authority));
  CHECK(a.text(a.head.reason) == b.text(b.head.reason));
  CHECK(a.head.body == b.head.body);
  CHECK(a.head.content_length == b.head.content_length);
  CHECK(a.head.keep_alive == b.head.keep_alive);
  CHECK(a.head.upgrade == b.head.upgrade);
  REQUIRE(a.fields.size() == b.fields.size());
  for (size_t i = 0; i < a.fields.size(); ++i) {
    CHECK(a.fields[i].name_at == b.fields[i].name_at);
    CHECK(a.fields[i].name_len == b.fields[i].name_len);
    CHECK(a.fields[i].value_at == b.fields[i].value_at);
    CHECK(a.fields[i].value_len == b.fields[i].value_len);
    CHECK(a.fields[i].id == b.fields[i].id);
    CHECK(a.fields[i].hop_by_hop == b.fields[i].hop_by_hop);
  }
}

// Parses whole, in steps of one byte, and cut at random places; all must agree.
inline Parsed parse_all_ways(std::string_view view, const ParseSetup& setup = {}) {
  const std::string text(view);
  const Parsed whole = parse_cut(text, {}, setup);
  std::vector<size_t> cuts;
  for (size_t i = 0; i < text.size(); ++i) cuts.push_back(i);
  check_same(whole, parse_cut(text, cuts, setup));
  std::minstd_rand random(static_cast<unsigned>(text.size()) + 1);
  for (int round = 0; round < 4; ++round) {
    std::vector<size_t> some;
    for (size_t i = 0; i < text.size(); ++i) {
      if (random() % 8 == 0) some.push_back(i);
    }
    check_same(whole, parse_cut(text, some, setup));
  }
  return whole;
}

// A row of a table of heads: what it is about, the bytes, and why it is refused (kNone: it is not).
struct HeadRow {
  const char* about;
  std::string_view text;
  HeadError error;
};

inline void check_row(const HeadRow& row, const ParseSetup& setup) {
  INFO(std::string(row.about));
  const Parsed parsed = parse_all_ways(row.text, setup);
  CHECK(std::string(phrase_of(parsed.error)) == phrase_of(row.error));
  CHECK(parsed.status ==
        (row.error == HeadError::kNone ? HeadParser::Status::kDone : HeadParser::Status::kError));
  CHECK(parsed.error_at <= row.text.size());
}

}  // namespace ringway::http1
