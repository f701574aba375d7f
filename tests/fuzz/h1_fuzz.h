// tests/fuzz/h1_fuzz.h - parses a head whole and in parts, and demands the same result.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "core/base/check.h"
#include "proto/http1_head.h"

namespace ringway::http1 {

// A parser with the bytes that its head lies in.
struct FuzzParse {
  HeadParser parser{64};
  std::unique_ptr<char[]> bytes;
  HeadParser::Status status = HeadParser::Status::kNeedMore;
};

// A cheap sequence that depends on the input only.
class FuzzRandom {
 public:
  explicit FuzzRandom(std::string_view text) {
    for (const char c : text) state_ = (state_ ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  }
  uint64_t next(uint64_t below) {
    state_ = state_ * 6364136223846793005 + 1442695040888963407;
    return (state_ >> 33) % below;
  }

 private:
  uint64_t state_ = 0xcbf29ce484222325;
};

// Feeds `text` so that each call sees 1..step_max more bytes, at a new exact-size place.
// REQUIRES: parse.parser was started.
inline void feed(FuzzParse& parse, std::string_view text, uint64_t step_max, FuzzRandom& random) {
  size_t size = 0;
  while (parse.status == HeadParser::Status::kNeedMore && size < text.size()) {
    size = std::min<size_t>(text.size(), size + 1 + random.next(step_max));
    auto moved = std::make_unique<char[]>(size);
    memcpy(moved.get(), text.data(), size);
    parse.bytes = std::move(moved);
    parse.status = parse.parser.parse({parse.bytes.get(), size});
  }
}

inline void check_equal(const FuzzParse& a, const FuzzParse& b) {
  RW_CHECK(a.status == b.status);
  RW_CHECK(a.parser.error() == b.parser.error());
  RW_CHECK(a.parser.error_at() == b.parser.error_at());
  if (a.status != HeadParser::Status::kDone) return;
  const Head& x = a.parser.head();
  const Head& y = b.parser.head();
  RW_CHECK(x.head_len == y.head_len);
  RW_CHECK(x.body == y.body);
  RW_CHECK(x.content_length == y.content_length);
  RW_CHECK(x.method == y.method);
  RW_CHECK(x.status == y.status);
  RW_CHECK(x.keep_alive == y.keep_alive);
  RW_CHECK(x.upgrade == y.upgrade);
  RW_CHECK(x.view(x.path) == y.view(y.path));
  RW_CHECK(x.view(x.query) == y.view(y.query));
  RW_CHECK(x.view(x.authority) == y.view(y.authority));
  RW_CHECK(x.view(x.reason) == y.view(y.reason));
  RW_CHECK(x.fields.size() == y.fields.size());
  for (size_t i = 0; i < x.fields.size(); ++i) {
    RW_CHECK(x.name(x.fields[i]) == y.name(y.fields[i]));
    RW_CHECK(x.value(x.fields[i]) == y.value(y.fields[i]));
    RW_CHECK(x.fields[i].id == y.fields[i].id);
    RW_CHECK(x.fields[i].hop_by_hop == y.fields[i].hop_by_hop);
  }
}

// Parses `text` whole into `whole`, and in two other ways that must agree. `start` begins a parser.
template <typename Start>
void parse_and_compare(FuzzParse& whole, std::string_view text, const Start& start) {
  FuzzRandom random(text);
  start(whole.parser);
  whole.bytes = std::make_unique<char[]>(text.size() + 1);
  memcpy(whole.bytes.get(), text.data(), text.size());
  whole.status = whole.parser.parse({whole.bytes.get(), text.size()});
  for (const uint64_t step_max : {1, 40}) {
    FuzzParse parts;
    start(parts.parser);
    feed(parts, text, step_max, random);
    check_equal(whole, parts);
  }
}

// Each byte of a head that any recipient could read otherwise: lines end with CR LF only.
inline void check_lines(std::string_view head) {
  RW_CHECK(head.ends_with("\r\n\r\n"));
  RW_CHECK(head.find("\r\n\r\n") == head.size() - 4);
  for (size_t i = 0; i < head.size(); ++i) {
    if (head[i] == '\n') RW_CHECK(i > 0 && head[i - 1] == '\r');
    if (head[i] == '\r') RW_CHECK(i + 1 < head.size() && head[i + 1] == '\n');
    RW_CHECK(head[i] != '\0');
  }
  RW_CHECK(head.find("\n ") == std::string_view::npos);
  RW_CHECK(head.find("\n\t") == std::string_view::npos);
}

// How many lines of a written head begin with `name`, compared without case.
inline size_t count_fields(std::string_view head, std::string_view name) {
  size_t count = 0;
  for (size_t at = head.find('\n'); at != std::string_view::npos; at = head.find('\n', at + 1)) {
    const std::string_view line = head.substr(at + 1);
    if (line.size() > name.size() && line[name.size()] == ':' &&
        strncasecmp(line.data(), name.data(), name.size()) == 0) {
      ++count;
    }
  }
  return count;
}

}  // namespace ringway::http1
