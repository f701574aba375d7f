// tests/proto/http1_built_test.cc - heads that were built elsewhere: as if their text were parsed.
#include <random>

#include "proto/http1_bytes.h"
#include "proto/http1_fields.h"
#include "tests/proto/http1_parse.h"
#include "tests/proto/http2_build.h"

using namespace std::literals;

namespace ringway::http1 {
namespace {

using h2::BlockKind;
using h2::build;
using h2::HeadBuilder;
using h2::kGet;
using h2::Pairs;
using h2::operator+;

// Takes what `builder` has built.
Parsed take(const HeadBuilder& builder, bool body, const ParseSetup& setup) {
  Parsed parsed{.bytes = std::string(builder.text())};
  HeadParser parser(setup.fields_max);
  begin(parser, setup);
  const HeadError error = parser.take_built(builder.built(), body);
  CHECK(error == parser.error());
  parsed.status =
      error == HeadError::kNone ? HeadParser::Status::kDone : HeadParser::Status::kError;
  take_result(parser, parsed);
  parsed.head.base = parsed.bytes.data();
  return parsed;
}

Parsed take(const Pairs& fields, bool body, const ParseSetup& setup = {}) {
  HeadBuilder builder(64 * 1024, 128);
  REQUIRE(build(builder, fields,
                {.kind = setup.response ? BlockKind::kResponse : BlockKind::kRequest}) ==
          h2::BlockError::kNone);
  return take(builder, body, setup);
}

TEST_CASE("take_built: framing of requests") {
  struct Row {
    const char* about;
    Pairs extra;
    bool body;
    HeadError error;
    BodyKind kind = BodyKind::kNone;
    uint64_t length = 0;
  };
  for (const Row& row : std::vector<Row>{
           {"nothing", {}, false, HeadError::kNone, BodyKind::kNone},
           {"of unknown length", {}, true, HeadError::kNone, BodyKind::kUntilClose},
           {"announced", {{"content-length", "7"}}, true, HeadError::kNone, BodyKind::kLength, 7},
           {"announced as empty, and so",
            {{"content-length", "0"}},
            false,
            HeadError::kNone,
            BodyKind::kNone},
           {"announced as empty, end not seen",
            {{"content-length", "0"}},
            true,
            HeadError::kNone,
            BodyKind::kLength},
           {"announced, but nothing", {{"content-length", "7"}}, false, HeadError::kBadFraming},
           {"twice",
            {{"content-length", "7"}, {"content-length", "7"}},
            true,
            HeadError::kBadFraming},
           {"a list", {{"content-length", "7, 7"}}, true, HeadError::kBadFraming},
           {"signed", {{"content-length", "+7"}}, true, HeadError::kBadFraming},
           {"empty", {{"content-length", ""}}, true, HeadError::kBadFraming},
           {"too large",
            {{"content-length", "99999999999999999999"}},
            true,
            HeadError::kBadFraming},
       }) {
    INFO(std::string(row.about));
    const Parsed parsed = take(kGet + row.extra, row.body);
    CHECK(parsed.error == row.error);
    if (row.error != HeadError::kNone) continue;
    CHECK(parsed.head.body == row.kind);
    CHECK(parsed.head.content_length == row.length);
    CHECK(parsed.head.keep_alive);
    CHECK_FALSE(parsed.head.upgrade);
  }
}

TEST_CASE("take_built: framing of responses (RFC 9112 6.3, RFC 9113 8.1.1)") {
  struct Row {
    const char* status;
    const char* length;  // or nullptr
    Method method;
    bool body;
    HeadError error;
    BodyKind kind = BodyKind::kNone;
  };
  for (const Row& row : std::vector<Row>{
           {"200", nullptr, Method::kGet, true, HeadError::kNone, BodyKind::kUntilClose},
           {"200", "5", Method::kGet, true, HeadError::kNone, BodyKind::kLength},
           {"200", nullptr, Method::kGet, false, HeadError::kNone, BodyKind::kLength},
           {"200", "0", Method::kGet, false, HeadError::kNone, BodyKind::kLength},
           {"200", "5", Method::kGet, false, HeadError::kBadFraming},
           {"200", "x", Method::kGet, true, HeadError::kBadFraming},
           {"200", "5", Method::kHead, false, HeadError::kNone, BodyKind::kNone},
           {"200", "5", Method::kHead, true, HeadError::kNone, BodyKind::kNone},
           {"204", nullptr, Method::kGet, false, HeadError::kNone, BodyKind::kNone},
           {"304", "5", Method::kGet, false, HeadError::kNone, BodyKind::kNone},
           {"103", nullptr, Method::kGet, true, HeadError::kNone, BodyKind::kNone},
       }) {
    INFO(row.status << " " << (row.length == nullptr ? "-" : row.length) << " " << row.body);
    Pairs fields = {{":status", row.status}};
    if (row.length != nullptr) fields.emplace_back("content-length", row.length);
    const Parsed parsed =
        take(fields, row.body, {.response = true, .context = {.request_method = row.method}});
    CHECK(parsed.error == row.error);
    if (row.error != HeadError::kNone) continue;
    CHECK(parsed.head.body == row.kind);
    CHECK(parsed.head.keep_alive);
    CHECK(parsed.head.status == std::stoi(row.status));
    if (row.length != nullptr) {
      CHECK(parsed.head.content_length == static_cast<uint64_t>(std::stoi(row.length)));
    }
  }
}

TEST_CASE("take_built: the parser's own limits hold") {
  const Pairs fields = kGet + Pairs{{"x", "y"}};
  const auto error = [&](const HeadLimits& limits, uint32_t fields_max) {
    return take(fields, false, {.limits = limits, .fields_max = fields_max}).error;
  };
  CHECK(error({}, 2) == HeadError::kNone);
  CHECK(error({}, 1) == HeadError::kTooManyFields);
  CHECK(error({.fields = 1}, 128) == HeadError::kTooManyFields);
  CHECK(error({.header_bytes = 10}, 128) == HeadError::kHeadTooLarge);
  CHECK(error({.uri_bytes = 0}, 128) == HeadError::kUriTooLong);
}

// Built by hand, past a HeadBuilder: rules of HTTP/1 are checked again.
TEST_CASE("take_built: what HTTP/1 refuses is refused here, too") {
  struct Row {
    std::string_view method;
    std::string_view target;
    std::string_view lines;  // "name: value\r\n" each
    HeadError error;
  };
  for (const Row& row : std::vector<Row>{
           {"GET", "/", "Host: a\r\n", HeadError::kNone},
           {"BREW", "/", "Host: a\r\n", HeadError::kUnknownMethod},
           {"CONNECT", "/", "Host: a\r\n", HeadError::kConnectRefused},
           {"GET", "/a#b", "Host: a\r\n", HeadError::kBadTarget},
           {"GET", "*", "Host: a\r\n", HeadError::kBadTarget},
           {"GET", "/", "", HeadError::kBadHost},
           {"GET", "/", "Host: a\r\nHost: a\r\n", HeadError::kBadHost},
           {"GET", "/", "Host: a b\r\n", HeadError::kBadHost},
           {"GET", "/", "Host: a\r\nTransfer-Encoding: chunked\r\n", HeadError::kBadFraming},
       }) {
    const std::string text = std::string(row.method) + " " + std::string(row.target) +
                             " HTTP/1.1\r\n" + std::string(row.lines) + "\r\n";
    INFO(text);
    BuiltHead built;
    built.text = text;
    built.method = {.at = 0, .len = static_cast<uint32_t>(row.method.size())};
    built.target = {.at = built.method.len + 1, .len = static_cast<uint32_t>(row.target.size())};
    std::vector<Field> fields;
    for (size_t at = text.find('\n') + 1; text[at] != '\r'; at = text.find('\n', at) + 1) {
      const size_t colon = text.find(':', at);
      fields.push_back({.name_at = static_cast<uint32_t>(at),
                        .value_at = static_cast<uint32_t>(colon + 2),
                        .value_len = static_cast<uint32_t>(text.find('\r', at) - colon - 2),
                        .name_len = static_cast<uint16_t>(colon - at)});
    }
    built.fields = fields;
    HeadParser parser(8);
    parser.start_request({});
    CHECK(std::string(phrase_of(parser.take_built(built, false))) == phrase_of(row.error));
  }
}

std::string random_of(std::minstd_rand& random, std::string_view bytes, size_t size_max) {
  std::string text;
  for (size_t left = random() % (size_max + 1); left > 0; --left) {
    text += bytes[random() % bytes.size()];
  }
  return text;
}

// Fields that mean something to the parser, and some that do not.
std::pair<std::string, std::string> random_field(std::minstd_rand& random) {
  static const Pairs known = {{"te", "trailers"},
                              {"expect", "100-continue"},
                              {"expect", "x"},
                              {"forwarded", "for=1"},
                              {"x-forwarded-for", "1.2.3.4, 5"},
                              {"via", "2 x"},
                              {"http2-settings", "AAA"},
                              {"cookie", "a=b"},
                              {"trailer", "x"},
                              {"user-agent", "t"},
                              {"content-length", "12"},
                              {"content-length", "0"},
                              {"content-length", "-1"},
                              {"www-authenticate", "NTLM"}};
  if (random() % 2 == 0) return known[random() % known.size()];
  std::string value = random_of(random, "abcXYZ 019\t,;=\"\xe4", 24);
  while (!value.empty() && (value.front() == ' ' || value.front() == '\t')) value.erase(0, 1);
  while (!value.empty() && (value.back() == ' ' || value.back() == '\t')) value.pop_back();
  return {"x" + random_of(random, "abcdefghijklmnopqrstuvwxyz0123456789-_!", 20), value};
}

// Both ways must agree on everything but what RFC 9113 frames by other means.
void check_equal_ways(const HeadBuilder& builder, ParseSetup setup) {
  const Parsed parsed = parse_cut(std::string(builder.text()), {}, setup);
  const bool announced = parsed.done() && parsed.head.find(FieldId::kContentLength) != nullptr;
  const bool body = setup.response || announced;
  Parsed taken = take(builder, body, setup);
  REQUIRE(taken.status == parsed.status);
  CHECK(taken.error == parsed.error);
  if (!parsed.done()) return;
  if (parsed.head.body == BodyKind::kUntilClose) taken.head.keep_alive = false;
  check_same(parsed, taken);
  CHECK(parsed.head.version_minor == taken.head.version_minor);
  CHECK(parsed.text(parsed.head.method_text) == taken.text(taken.head.method_text));
  CHECK(parsed.text(parsed.head.target) == taken.text(taken.head.target));
  CHECK(parsed.head.expect_continue == taken.head.expect_continue);
  CHECK(parsed.head.te_trailers == taken.head.te_trailers);
  CHECK(parsed.head.absolute_form == taken.head.absolute_form);
  CHECK(parsed.head.has_query == taken.head.has_query);
}

TEST_CASE("take_built: generated requests -> as parsed") {
  std::minstd_rand random(1);
  HeadBuilder builder(64 * 1024, 128);
  const char* const methods[] = {"GET", "POST", "HEAD", "OPTIONS", "PROPFIND", "PATCH"};
  const char* const hosts[] = {"a", "b.test:8080", "[::1]", "%41", "1.2.3.4:"};
  for (int round = 0; round < 2000; ++round) {
    const std::string path = "/" + random_of(random, "abc/.?&=%20~", 30);
    Pairs fields = {{":method", methods[random() % 6]}, {":scheme", "http"}, {":path", path}};
    const std::string host = hosts[random() % 5];
    if (random() % 2 == 0) {
      fields.emplace_back(":authority", host);
    } else {
      fields.emplace_back("host", host);
    }
    for (size_t left = random() % 12; left > 0; --left) fields.push_back(random_field(random));
    REQUIRE(build(builder, fields) == h2::BlockError::kNone);
    check_equal_ways(builder, {});
  }
}

TEST_CASE("take_built: generated responses -> as parsed") {
  std::minstd_rand random(2);
  HeadBuilder builder(64 * 1024, 128);
  const char* const statuses[] = {"200", "204", "304", "404", "100", "103", "299", "599"};
  for (int round = 0; round < 2000; ++round) {
    Pairs fields = {{":status", statuses[random() % 8]}};
    for (size_t left = random() % 12; left > 0; --left) {
      fields.push_back(random_field(random));
      if (fields.back().first == "te") fields.pop_back();
    }
    REQUIRE(build(builder, fields, {.kind = BlockKind::kResponse}) == h2::BlockError::kNone);
    const Method method = random() % 4 == 0 ? Method::kHead : Method::kGet;
    check_equal_ways(builder, {.response = true, .context = {.request_method = method}});
  }
}

TEST_CASE("find_not_target: each byte at each place, near the steps of 16 bytes too") {
  for (size_t size = 0; size <= 40; ++size) {
    const std::string text(size, '~');
    CHECK(find_not_target(text.data(), text.data() + size) == text.data() + size);
    for (size_t at = 0; at < size; ++at) {
      for (int byte = 0; byte < 256; ++byte) {
        std::string odd = text;
        odd[at] = static_cast<char>(byte);
        const bool good = byte > 0x20 && byte < 0x7f && byte != '#';
        const char* const expected = odd.data() + (good ? size : at);
        if (find_not_target(odd.data(), odd.data() + size) == expected) continue;
        FAIL_CHECK("size " << size << " at " << at << " byte " << byte);
      }
    }
  }
}

TEST_CASE("find_method: llhttp's list, by case") {
  Method method = Method::kGet;
  CHECK(find_method("PATCH", method));
  CHECK(method == Method::kPatch);
  CHECK(find_method("M-SEARCH", method));
  CHECK(method == Method::kOther);
  CHECK_FALSE(find_method("get", method));
  CHECK_FALSE(find_method("PRI", method));
  CHECK_FALSE(find_method("DESCRIBE", method));
  CHECK_FALSE(find_method("", method));
}

}  // namespace
}  // namespace ringway::http1
