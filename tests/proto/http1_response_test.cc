// tests/proto/http1_response_test.cc - response heads, read as strictly as requests.
#include "tests/proto/http1_parse.h"

using namespace std::literals;

namespace ringway::http1 {
namespace {

using enum HeadError;

#define OK "HTTP/1.1 200 OK\r\n"

constexpr HeadRow kRows[] = {
    {"plain", OK "\r\n"sv, kNone},
    {"HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\n"sv, kNone},
    {"no reason", "HTTP/1.1 200 \r\n\r\n"sv, kNone},
    {"no space before the reason", "HTTP/1.1 200\r\n\r\n"sv, kNone},
    {"reason with tab and obs-text", "HTTP/1.1 200 a\tb \xe4\r\n\r\n"sv, kNone},
    {"unknown status", "HTTP/1.1 599 Odd\r\n\r\n"sv, kNone},
    {"empty line before", "\r\n" OK "\r\n"sv, kBadStartLine},
    {"bare LF", "HTTP/1.1 200 OK\n\r\n"sv, kBadStartLine},
    {"bare CR in the reason", "HTTP/1.1 200 O\rK\r\n\r\n"sv, kBadStartLine},
    {"NUL in the reason", "HTTP/1.1 200 O\0K\r\n\r\n"sv, kBadStartLine},
    {"two spaces before the status", "HTTP/1.1  200 OK\r\n\r\n"sv, kBadStartLine},
    {"status of two digits", "HTTP/1.1 20 OK\r\n\r\n"sv, kBadStartLine},
    {"status of four digits", "HTTP/1.1 2000 OK\r\n\r\n"sv, kBadStartLine},
    {"status 099", "HTTP/1.1 099 Low\r\n\r\n"sv, kBadStartLine},
    {"status 600", "HTTP/1.1 600 High\r\n\r\n"sv, kBadStartLine},
    {"status not a number", "HTTP/1.1 2x0 OK\r\n\r\n"sv, kBadStartLine},
    {"negative status", "HTTP/1.1 -20 OK\r\n\r\n"sv, kBadStartLine},
    {"HTTP/2.0", "HTTP/2.0 200 OK\r\n\r\n"sv, kBadVersion},
    {"HTTP/1.2", "HTTP/1.2 200 OK\r\n\r\n"sv, kBadVersion},
    {"ICY", "ICY 200 OK\r\n\r\n"sv, kBadStartLine},
    {"a request", "GET / HTTP/1.1\r\n\r\n"sv, kBadStartLine},
    {"obs-fold", OK "X: a\r\n b\r\n\r\n"sv, kBadField},
    {"space before the colon", OK "X : a\r\n\r\n"sv, kBadField},
    {"empty name", OK ": a\r\n\r\n"sv, kBadField},
    {"bare LF in a value", OK "X: a\nSet-Cookie: b\r\n\r\n"sv, kBadField},
    {"bare CR in a value", OK "X: a\rb\r\n\r\n"sv, kBadField},
    {"NUL in a value", OK "X: a\0b\r\n\r\n"sv, kBadField},
    {"Content-Length", OK "Content-Length: 5\r\n\r\n"sv, kNone},
    {"Content-Length twice", OK "Content-Length: 5\r\nContent-Length: 5\r\n\r\n"sv, kBadFraming},
    {"Content-Length list", OK "Content-Length: 5, 5\r\n\r\n"sv, kBadFraming},
    {"Content-Length empty", OK "Content-Length:\r\n\r\n"sv, kBadFraming},
    {"Content-Length signed", OK "Content-Length: +5\r\n\r\n"sv, kBadFraming},
    {"Content-Length overflow", OK "Content-Length: 99999999999999999999\r\n\r\n"sv, kBadFraming},
    {"chunked", OK "Transfer-Encoding: Chunked\r\n\r\n"sv, kNone},
    {"CL and TE", OK "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"sv, kBadFraming},
    {"TE and CL", OK "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"sv, kBadFraming},
    {"chunked twice", OK "Transfer-Encoding: chunked, chunked\r\n\r\n"sv, kBadFraming},
    {"two TE lines", OK "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n"sv,
     kBadFraming},
    {"gzip", OK "Transfer-Encoding: gzip\r\n\r\n"sv, kUnknownCoding},
    {"gzip, chunked", OK "Transfer-Encoding: gzip, chunked\r\n\r\n"sv, kUnknownCoding},
    {"vertical tab, chunked", OK "Transfer-Encoding: \vchunked\r\n\r\n"sv, kBadField},
    {"TE with HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"sv, kBadFraming},
    {"204 with CL and TE",
     "HTTP/1.1 204 No\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"sv, kBadFraming},
    {"100", "HTTP/1.1 100 Continue\r\n\r\n"sv, kNone},
    {"103", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"sv, kNone},
    {"101 not asked for", "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"sv,
     kBadFraming},
};

TEST_CASE("HeadParser: responses -> the expected verdict, however they are cut") {
  for (const HeadRow& row : kRows) check_row(row, {.response = true});
}

struct BodyRow {
  Method method;
  std::string_view text;
  BodyKind body;
  uint64_t length;
  bool keep_alive;
};

TEST_CASE("HeadParser: how a response's body ends (RFC 9112 6.3)") {
  using enum BodyKind;
  constexpr BodyRow kBodies[] = {
      {Method::kGet, OK "Content-Length: 7\r\n\r\n", kLength, 7, true},
      {Method::kGet, OK "Content-Length: 0\r\n\r\n", kLength, 0, true},
      {Method::kGet, OK "Transfer-Encoding: chunked\r\n\r\n", kChunked, 0, true},
      {Method::kGet, OK "\r\n", kUntilClose, 0, false},
      {Method::kGet, OK "Connection: keep-alive\r\n\r\n", kUntilClose, 0, false},
      {Method::kGet, OK "Connection: close\r\nContent-Length: 1\r\n\r\n", kLength, 1, false},
      {Method::kGet, "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", kLength, 1, false},
      {Method::kGet, "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n",
       kLength, 1, true},
      {Method::kHead, OK "Content-Length: 7\r\n\r\n", kNone, 7, true},
      {Method::kHead, OK "Transfer-Encoding: chunked\r\n\r\n", kNone, 0, true},
      {Method::kHead, OK "\r\n", kNone, 0, true},
      {Method::kGet, "HTTP/1.1 204 No Content\r\n\r\n", kNone, 0, true},
      {Method::kGet, "HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n", kNone, 7, true},
      {Method::kGet, "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n", kNone, 0, true},
      {Method::kGet, "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", kNone, 7, true},
      {Method::kGet, "HTTP/1.1 304 Not Modified\r\n\r\n", kNone, 0, true},
      {Method::kGet, "HTTP/1.1 103 Early Hints\r\nContent-Length: 7\r\n\r\n", kNone, 7, true},
      {Method::kPost, "HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n", kLength, 0, true},
  };
  for (const BodyRow& row : kBodies) {
    INFO(row.text);
    const Parsed parsed =
        parse_all_ways(row.text, {.response = true, .context = {.request_method = row.method}});
    REQUIRE(parsed.done());
    CHECK(parsed.head.body == row.body);
    CHECK(parsed.head.content_length == row.length);
    CHECK(parsed.head.keep_alive == row.keep_alive);
  }
}

TEST_CASE("HeadParser: 101 -> only as the answer to an upgrade that was forwarded") {
  const ParseSetup asked{.response = true, .context = {.upgrade_forwarded = true}};
  const auto parse = [&](std::string_view text) { return parse_all_ways(text, asked); };
  const Parsed good =
      parse("HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81");
  REQUIRE(good.done());
  CHECK(good.head.upgrade);
  CHECK(good.head.body == BodyKind::kNone);
  CHECK(parse("HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n").error == kBadFraming);
  CHECK(parse("HTTP/1.1 101 S\r\nConnection: upgrade\r\n\r\n").error == kBadFraming);
  CHECK(parse("HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n").error ==
        kBadFraming);
  CHECK(parse("HTTP/1.0 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n").error == kBadFraming);
}

TEST_CASE("HeadParser: Upgrade in a response other than 101 -> only an advertisement") {
  const Parsed parsed = parse_all_ways(
      "HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\nUpgrade: TLS/1.3\r\n"
      "Content-Length: 0\r\n\r\n",
      {.response = true, .context = {.upgrade_forwarded = true}});
  REQUIRE(parsed.done());
  CHECK_FALSE(parsed.head.upgrade);
}

TEST_CASE("HeadParser: status line -> version, status and reason") {
  const Parsed parsed = parse_all_ways("HTTP/1.0 404 Not  here \r\n\r\n", {.response = true});
  REQUIRE(parsed.done());
  CHECK(parsed.head.version_minor == 0);
  CHECK(parsed.head.status == 404);
  CHECK(parsed.text(parsed.head.reason) == "Not  here ");
}

TEST_CASE("HeadError: every refusal has a status and a phrase") {
  for (int i = 1; i <= static_cast<int>(kConnectRefused); ++i) {
    const auto error = static_cast<HeadError>(i);
    CHECK(status_of(error) >= 400);
    CHECK(std::string_view(phrase_of(error)) != "unknown error");
  }
  CHECK(status_of(kHeadTooLarge) == 431);
  CHECK(status_of(kUriTooLong) == 414);
  CHECK(status_of(kUnknownMethod) == 501);
  CHECK(status_of(kBadVersion) == 505);
  CHECK(status_of(kConnectRefused) == 405);
}

TEST_CASE("Method: idempotent by RFC 9110 9.2.2") {
  CHECK(is_idempotent(Method::kGet));
  CHECK(is_idempotent(Method::kPut));
  CHECK(is_idempotent(Method::kDelete));
  CHECK_FALSE(is_idempotent(Method::kPost));
  CHECK_FALSE(is_idempotent(Method::kPatch));
  CHECK_FALSE(is_idempotent(Method::kOther));
}

}  // namespace
}  // namespace ringway::http1
