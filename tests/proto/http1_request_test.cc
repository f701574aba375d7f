// tests/proto/http1_request_test.cc - request heads: what is taken, what is refused, and why.
#include "tests/proto/http1_parse.h"

using namespace std::literals;

namespace ringway::http1 {
namespace {

using enum HeadError;

#define HOST "Host: a\r\n"
#define GET "GET / HTTP/1.1\r\n" HOST
#define POST "POST / HTTP/1.1\r\n" HOST

// In the manner of the HTTP Garden's and of Kettle's desync tables.
constexpr HeadRow kStartLines[] = {
    {"plain", GET "\r\n"sv, kNone},
    {"HTTP/1.0 without Host", "GET / HTTP/1.0\r\n\r\n"sv, kNone},
    {"one empty line before", "\r\n" GET "\r\n"sv, kNone},
    {"four empty lines before", "\r\n\r\n\r\n\r\n" GET "\r\n"sv, kNone},
    {"five empty lines before", "\r\n\r\n\r\n\r\n\r\n" GET "\r\n"sv, kBadStartLine},
    {"bare LF before", "\n" GET "\r\n"sv, kBadStartLine},
    {"bare CR before", "\r" GET "\r\n"sv, kBadStartLine},
    {"space before the method", " " GET "\r\n"sv, kBadStartLine},
    {"bare LF after the request line", "GET / HTTP/1.1\n" HOST "\r\n"sv, kBadStartLine},
    {"CR CR LF after the request line", "GET / HTTP/1.1\r\r\n" HOST "\r\n"sv, kBadStartLine},
    {"two spaces before the target", "GET  / HTTP/1.1\r\n" HOST "\r\n"sv, kBadStartLine},
    {"two spaces before the version", "GET /  HTTP/1.1\r\n" HOST "\r\n"sv, kBadStartLine},
    {"space after the version", "GET / HTTP/1.1 \r\n" HOST "\r\n"sv, kBadStartLine},
    {"tab before the target", "GET\t/ HTTP/1.1\r\n" HOST "\r\n"sv, kBadStartLine},
    {"tab before the version", "GET /\tHTTP/1.1\r\n" HOST "\r\n"sv, kBadTarget},
    {"vertical tab before the version", "GET /\vHTTP/1.1\r\n" HOST "\r\n"sv, kBadTarget},
    {"NUL in the method", "G\0ET / HTTP/1.1\r\n" HOST "\r\n"sv, kBadStartLine},
    {"NUL in the target", "GET /\0a HTTP/1.1\r\n" HOST "\r\n"sv, kBadTarget},
    {"DEL in the target", "GET /\x7f HTTP/1.1\r\n" HOST "\r\n"sv, kBadTarget},
    {"UTF-8 in the target", "GET /\xc3\xa4 HTTP/1.1\r\n" HOST "\r\n"sv, kBadTarget},
    {"fragment", "GET /a#b HTTP/1.1\r\n" HOST "\r\n"sv, kBadTarget},
    {"fragment in the query", "GET /a?b#c HTTP/1.1\r\n" HOST "\r\n"sv, kBadTarget},
    {"relative target", "GET a/b HTTP/1.1\r\n" HOST "\r\n"sv, kBadTarget},
    {"relative with dots", "GET ../a HTTP/1.1\r\n" HOST "\r\n"sv, kBadTarget},
    {"query only", "GET ?a HTTP/1.1\r\n" HOST "\r\n"sv, kBadTarget},
    {"authority-form with GET", "GET a:80 HTTP/1.1\r\n" HOST "\r\n"sv, kBadTarget},
    {"asterisk with GET", "GET * HTTP/1.1\r\n" HOST "\r\n"sv, kBadTarget},
    {"asterisk with OPTIONS", "OPTIONS * HTTP/1.1\r\n" HOST "\r\n"sv, kNone},
    {"asterisk and more", "OPTIONS *a HTTP/1.1\r\n" HOST "\r\n"sv, kBadTarget},
    {"unknown scheme", "GET ftp://a/ HTTP/1.1\r\n" HOST "\r\n"sv, kBadTarget},
    {"javascript scheme", "GET javascript:1 HTTP/1.1\r\n" HOST "\r\n"sv, kBadTarget},
    {"no version (HTTP/0.9)", "GET /\r\n" HOST "\r\n"sv, kBadStartLine},
    {"no target", "GET HTTP/1.1\r\n" HOST "\r\n"sv, kBadTarget},
    {"HTTP/2.0", "GET / HTTP/2.0\r\n" HOST "\r\n"sv, kBadVersion},
    {"HTTP/0.9", "GET / HTTP/0.9\r\n" HOST "\r\n"sv, kBadVersion},
    {"HTTP/1.2", "GET / HTTP/1.2\r\n" HOST "\r\n"sv, kBadVersion},
    {"HTTP/1.10", "GET / HTTP/1.10\r\n" HOST "\r\n"sv, kBadVersion},
    {"HTTP/1", "GET / HTTP/1\r\n" HOST "\r\n"sv, kBadStartLine},
    {"HTTP/01.1", "GET / HTTP/01.1\r\n" HOST "\r\n"sv, kBadVersion},
    {"lower-case protocol", "GET / http/1.1\r\n" HOST "\r\n"sv, kBadStartLine},
    {"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"sv, kBadVersion},
    {"unknown method", "BREW / HTTP/1.1\r\n" HOST "\r\n"sv, kUnknownMethod},
    {"lower-case method", "get / HTTP/1.1\r\n" HOST "\r\n"sv, kUnknownMethod},
    {"method with a tail", "GETX / HTTP/1.1\r\n" HOST "\r\n"sv, kUnknownMethod},
    {"method with a colon", "GE:T / HTTP/1.1\r\n" HOST "\r\n"sv, kBadStartLine},
    {"RTSP", "SETUP / RTSP/1.0\r\n" HOST "\r\n"sv, kBadStartLine},
    {"TLS hello", "\x16\x03\x01\x02\x00\x01\x00"sv, kBadStartLine},
    {"CONNECT", "CONNECT a:443 HTTP/1.1\r\n" HOST "\r\n"sv, kConnectRefused},
};

constexpr HeadRow kFields[] = {
    {"no blank after the colon", GET "X:a\r\n\r\n"sv, kNone},
    {"blanks around the value", GET "X: \t a \t \r\n\r\n"sv, kNone},
    {"tab inside the value", GET "X: a\tb\r\n\r\n"sv, kNone},
    {"empty value", GET "X:\r\n\r\n"sv, kNone},
    {"obs-text in the value", GET "X: \xe4\xf6\r\n\r\n"sv, kNone},
    {"odd token name", GET "!#$%&'*+-.^_`|~0: a\r\n\r\n"sv, kNone},
    {"space before the colon", GET "X : a\r\n\r\n"sv, kBadField},
    {"tab before the colon", GET "X\t: a\r\n\r\n"sv, kBadField},
    {"space before Content-Length's colon", POST "Content-Length : 5\r\n\r\n"sv, kBadField},
    {"empty name", GET ": a\r\n\r\n"sv, kBadField},
    {"no colon", GET "X\r\n\r\n"sv, kBadField},
    {"no colon, first field", "GET / HTTP/1.1\r\nX\r\n" HOST "\r\n"sv, kBadField},
    {"space in a name", GET "X Y: a\r\n\r\n"sv, kBadField},
    {"control byte in a name", GET "X\x01: a\r\n\r\n"sv, kBadField},
    {"NUL in a name", GET "X\0: a\r\n\r\n"sv, kBadField},
    {"UTF-8 in a name", GET "\xc3\xa4: a\r\n\r\n"sv, kBadField},
    {"parenthesis in a name", GET "X(: a\r\n\r\n"sv, kBadField},
    {"obs-fold with a space", GET "X: a\r\n b\r\n\r\n"sv, kBadField},
    {"obs-fold with a tab", GET "X: a\r\n\tb\r\n\r\n"sv, kBadField},
    {"obs-fold that hides chunked", POST "Transfer-Encoding:\r\n chunked\r\n\r\n"sv, kBadField},
    {"space before the first field", "GET / HTTP/1.1\r\n " HOST "\r\n"sv, kBadField},
    {"blank-only line", GET " \r\n\r\n"sv, kBadField},
    {"bare LF after a field", GET "X: a\nY: b\r\n\r\n"sv, kBadField},
    {"bare LF at the end", GET "X: a\r\n\n"sv, kBadField},
    {"bare CR in a value", GET "X: a\rY: b\r\n\r\n"sv, kBadField},
    {"CR CR LF after a field", GET "X: a\r\r\n\r\n"sv, kBadField},
    {"CR before the end", GET "\r\r\n"sv, kBadField},
    {"NUL in a value", GET "X: a\0b\r\n\r\n"sv, kBadField},
    {"NUL in Content-Length", POST "Content-Length: 5\0\r\n\r\n"sv, kBadFraming},
    {"vertical tab in a value", GET "X: a\vb\r\n\r\n"sv, kBadField},
    {"form feed in a value", GET "X: a\fb\r\n\r\n"sv, kBadField},
    {"DEL in a value", GET "X: a\x7f\r\n\r\n"sv, kBadField},
    {"ESC in a value", GET "X: \x1b[0m\r\n\r\n"sv, kBadField},
    {"LF in Connection", GET "Connection: close\nX: y\r\n\r\n"sv, kBadField},
    {"bare CR in Connection", GET "Connection: close\rX: y\r\n\r\n"sv, kBadField},
    {"too many nominations",
     GET "Connection: a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z,1,2,3,4,5,6,7\r\n\r\n"sv,
     kBadField},
};

constexpr HeadRow kFraming[] = {
    {"Content-Length", POST "Content-Length: 5\r\n\r\n"sv, kNone},
    {"Content-Length 0", POST "Content-Length: 0\r\n\r\n"sv, kNone},
    {"leading zeros", POST "Content-Length: 0005\r\n\r\n"sv, kNone},
    {"trailing blanks", POST "Content-Length:  5  \r\n\r\n"sv, kNone},
    {"trailing tab", POST "Content-Length: 5\t\r\n\r\n"sv, kBadFraming},
    {"19 digits", POST "Content-Length: 9999999999999999999\r\n\r\n"sv, kNone},
    {"20 digits", POST "Content-Length: 18446744073709551615\r\n\r\n"sv, kBadFraming},
    {"20 digits, small", POST "Content-Length: 00000000000000000005\r\n\r\n"sv, kBadFraming},
    {"overflow of 64 bits", POST "Content-Length: 18446744073709551621\r\n\r\n"sv, kBadFraming},
    {"empty", POST "Content-Length:\r\n\r\n"sv, kBadFraming},
    {"blank", POST "Content-Length: \r\n\r\n"sv, kBadFraming},
    {"plus", POST "Content-Length: +5\r\n\r\n"sv, kBadFraming},
    {"minus", POST "Content-Length: -5\r\n\r\n"sv, kBadFraming},
    {"hexadecimal", POST "Content-Length: 0x5\r\n\r\n"sv, kBadFraming},
    {"hexadecimal digits", POST "Content-Length: 5a\r\n\r\n"sv, kBadFraming},
    {"fraction", POST "Content-Length: 5.0\r\n\r\n"sv, kBadFraming},
    {"underscore", POST "Content-Length: 1_0\r\n\r\n"sv, kBadFraming},
    {"inner space", POST "Content-Length: 1 0\r\n\r\n"sv, kBadFraming},
    {"quoted", POST "Content-Length: \"5\"\r\n\r\n"sv, kBadFraming},
    {"full-width digit", POST "Content-Length: \xef\xbc\x95\r\n\r\n"sv, kBadFraming},
    {"list", POST "Content-Length: 5, 5\r\n\r\n"sv, kBadFraming},
    {"list with an empty element", POST "Content-Length: 5,\r\n\r\n"sv, kBadFraming},
    {"twice, equal", POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\n"sv, kBadFraming},
    {"twice, unequal", POST "Content-Length: 5\r\nContent-Length: 6\r\n\r\n"sv, kBadFraming},
    {"twice, other case", POST "Content-Length: 5\r\ncONTENT-lENGTH: 5\r\n\r\n"sv, kBadFraming},
    {"twice, one empty", POST "Content-Length: 5\r\nContent-Length:\r\n\r\n"sv, kBadFraming},
    {"chunked", POST "Transfer-Encoding: chunked\r\n\r\n"sv, kNone},
    {"chunked in capitals", POST "transfer-encoding: CHUNKED\r\n\r\n"sv, kNone},
    {"chunked, trailing blank", POST "Transfer-Encoding: chunked \r\n\r\n"sv, kNone},
    {"CL and TE", POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"sv, kBadFraming},
    {"TE and CL", POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"sv, kBadFraming},
    {"CL and unknown TE", POST "Content-Length: 5\r\nTransfer-Encoding: x\r\n\r\n"sv, kBadFraming},
    {"CL and empty TE", POST "Content-Length: 5\r\nTransfer-Encoding:\r\n\r\n"sv, kBadFraming},
    {"TE twice", POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"sv,
     kBadFraming},
    {"TE identity then chunked",
     POST "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n"sv, kBadFraming},
    {"chunked twice", POST "Transfer-Encoding: chunked, chunked\r\n\r\n"sv, kBadFraming},
    {"chunked, then gzip", POST "Transfer-Encoding: chunked, gzip\r\n\r\n"sv, kBadFraming},
    {"chunked and comma", POST "Transfer-Encoding: chunked,\r\n\r\n"sv, kBadFraming},
    {"comma and chunked", POST "Transfer-Encoding: ,chunked\r\n\r\n"sv, kBadFraming},
    {"chunked with a parameter", POST "Transfer-Encoding: chunked;q=1\r\n\r\n"sv, kBadFraming},
    {"quoted chunked", POST "Transfer-Encoding: \"chunked\"\r\n\r\n"sv, kBadFraming},
    {"empty TE", POST "Transfer-Encoding:\r\n\r\n"sv, kBadFraming},
    {"x chunked", POST "Transfer-Encoding: x chunked\r\n\r\n"sv, kBadFraming},
    {"vertical tab, chunked", POST "Transfer-Encoding: \vchunked\r\n\r\n"sv, kBadField},
    {"chunked, vertical tab", POST "Transfer-Encoding: chunked\v\r\n\r\n"sv, kBadField},
    {"NUL, chunked", POST "Transfer-Encoding: \0chunked\r\n\r\n"sv, kBadField},
    {"no-break space, chunked",
     POST "Transfer-Encoding: \xa0"
          "chunked\r\n\r\n"sv,
     kBadFraming},
    {"gzip", POST "Transfer-Encoding: gzip\r\n\r\n"sv, kUnknownCoding},
    {"gzip, chunked", POST "Transfer-Encoding: gzip, chunked\r\n\r\n"sv, kUnknownCoding},
    {"identity", POST "Transfer-Encoding: identity\r\n\r\n"sv, kUnknownCoding},
    {"xchunked", POST "Transfer-Encoding: xchunked\r\n\r\n"sv, kUnknownCoding},
    {"chunkedx", POST "Transfer-Encoding: chunkedx\r\n\r\n"sv, kUnknownCoding},
    {"TE with HTTP/1.0", "POST / HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"sv,
     kBadFraming},
    {"underscore name is another field", POST "Content_Length: x\r\n\r\n"sv, kNone},
    {"GET with Content-Length", GET "Content-Length: 5\r\n\r\n"sv, kNone},
    {"GET with chunked", GET "Transfer-Encoding: chunked\r\n\r\n"sv, kNone},
};

TEST_CASE("HeadParser: start lines of requests -> the expected verdict, however they are cut") {
  for (const HeadRow& row : kStartLines) check_row(row, {});
}

TEST_CASE("HeadParser: fields of requests -> the expected verdict, however they are cut") {
  for (const HeadRow& row : kFields) check_row(row, {});
}

TEST_CASE("HeadParser: framing of requests -> the expected verdict (RFC 9112 6)") {
  for (const HeadRow& row : kFraming) check_row(row, {});
}

TEST_CASE("HeadParser: a full request -> every part is found") {
  const Parsed parsed = parse_all_ways(
      "\r\nPATCH /a/b?c=d?e HTTP/1.1\r\nhOsT:  example.org:8080 \r\nContent-Length: 12\r\n"
      "X-Empty:\r\nExpect: 100-Continue\r\nTE: gzip, trailers\r\n\r\nhello");
  REQUIRE(parsed.done());
  CHECK(parsed.head.method == Method::kPatch);
  CHECK(parsed.text(parsed.head.method_text) == "PATCH");
  CHECK(parsed.text(parsed.head.target) == "/a/b?c=d?e");
  CHECK(parsed.path() == "/a/b");
  CHECK(parsed.text(parsed.head.query) == "c=d?e");
  CHECK(parsed.text(parsed.head.authority) == "example.org:8080");
  CHECK(parsed.bytes.substr(parsed.head.head_len) == "hello");
  CHECK(parsed.head.body == BodyKind::kLength);
  CHECK(parsed.head.content_length == 12);
  CHECK(parsed.head.expect_continue);
  CHECK(parsed.head.te_trailers);
  CHECK(parsed.head.keep_alive);
  CHECK_FALSE(parsed.head.upgrade);
  REQUIRE(parsed.fields.size() == 5);
  CHECK(parsed.head.find(FieldId::kHost) == &parsed.fields[0]);
  CHECK(parsed.head.find("x-empty") == &parsed.fields[2]);
  CHECK(parsed.head.find("x-missing") == nullptr);
  CHECK(parsed.head.value(parsed.fields[2]).empty());
  CHECK(parsed.fields[4].hop_by_hop);
  CHECK_FALSE(parsed.fields[3].hop_by_hop);
}

TEST_CASE("HeadParser: other methods that llhttp knows -> kOther, with their text") {
  const Parsed parsed = parse_all_ways("PROPFIND / HTTP/1.1\r\n" HOST "\r\n");
  REQUIRE(parsed.done());
  CHECK(parsed.head.method == Method::kOther);
  CHECK(parsed.text(parsed.head.method_text) == "PROPFIND");
}

TEST_CASE("HeadParser: Expect other than 100-continue -> left to the server") {
  CHECK_FALSE(parse_all_ways(GET "Expect: 200-ok\r\n\r\n").head.expect_continue);
  CHECK_FALSE(parse_all_ways(GET "Expect: 100-continue, x\r\n\r\n").head.expect_continue);
  CHECK_FALSE(
      parse_all_ways("PUT / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").head.expect_continue);
}

struct KeepAliveRow {
  std::string_view text;
  bool keep_alive;
};

TEST_CASE("HeadParser: keep-alive by version and every Connection line (RFC 9112 9.3)") {
  constexpr KeepAliveRow kRows[] = {
      {GET "\r\n", true},
      {GET "Connection: close\r\n\r\n", false},
      {GET "Connection: CLOSE\r\n\r\n", false},
      {GET "Connection: keep-alive\r\n\r\n", true},
      {GET "Connection: keep-alive, close\r\n\r\n", false},
      {GET "Connection: ,, x ,close,\r\n\r\n", false},
      {GET "Connection: x\r\nConnection: close\r\n\r\n", false},
      {GET "Connection: closed\r\n\r\n", true},
      {GET "Connection:\r\n\r\n", true},
      {"GET / HTTP/1.0\r\n\r\n", false},
      {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true},
      {"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false},
      {"GET / HTTP/1.0\r\nConnection: x,\tkeep-alive\r\n\r\n", true},
  };
  for (const KeepAliveRow& row : kRows) {
    INFO(row.text);
    const Parsed parsed = parse_all_ways(row.text);
    REQUIRE(parsed.done());
    CHECK(parsed.head.keep_alive == row.keep_alive);
  }
}

TEST_CASE("HeadParser: Connection nominates fields -> hop-by-hop, but never Host or framing") {
  const Parsed parsed = parse_all_ways(
      "POST / HTTP/1.1\r\nX-A: 1\r\nConnection: x-a, HOST, , content-length\r\nHost: a\r\n"
      "Connection: x-c\r\nX-C: 3\r\nX-B: 2\r\nContent-Length: 3\r\nKeep-Alive: 5\r\n\r\n");
  REQUIRE(parsed.done());
  const bool expected[] = {true, true, false, true, true, false, false, true};
  REQUIRE(parsed.fields.size() == std::size(expected));
  for (size_t i = 0; i < std::size(expected); ++i) {
    INFO(i);
    CHECK(parsed.fields[i].hop_by_hop == expected[i]);
  }
  CHECK(parsed.head.content_length == 3);
}

TEST_CASE("HeadParser: Upgrade counts only with Connection, HTTP/1.1, no body, and never for h2c") {
  const auto upgrades = [](std::string_view text) {
    const Parsed parsed = parse_all_ways(text);
    REQUIRE(parsed.done());
    return parsed.head.upgrade;
  };
  CHECK(upgrades(GET "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"));
  CHECK(upgrades(POST "Connection: upgrade\r\nUpgrade: foo/2\r\nContent-Length: 0\r\n\r\n"));
  CHECK_FALSE(upgrades(GET "Upgrade: websocket\r\n\r\n"));
  CHECK_FALSE(upgrades(GET "Connection: upgrade\r\n\r\n"));
  CHECK_FALSE(upgrades(GET "Connection: upgrade\r\nUpgrade:\r\n\r\n"));
  CHECK_FALSE(upgrades(GET "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\n"
                           "HTTP2-Settings: AAMAAABk\r\n\r\n"));
  CHECK_FALSE(upgrades(GET "Connection: upgrade\r\nUpgrade: websocket, H2C\r\n\r\n"));
  CHECK_FALSE(upgrades(GET "Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n"));
  CHECK_FALSE(
      upgrades(POST "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\n"));
  CHECK_FALSE(upgrades("GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"));
}

TEST_CASE("HeadParser: limits are met exactly -> taken; exceeded -> refused at that byte") {
  const std::string get = GET "\r\n";
  ParseSetup setup;
  setup.limits.header_bytes = static_cast<uint32_t>(get.size());
  CHECK(parse_all_ways(get, setup).done());
  --setup.limits.header_bytes;
  const Parsed large = parse_all_ways(get, setup);
  CHECK(large.error == HeadError::kHeadTooLarge);
  CHECK(large.error_at == get.size() - 1);

  ParseSetup few;
  few.limits.fields = 2;
  CHECK(parse_all_ways(GET "X: 1\r\n\r\n", few).done());
  CHECK(parse_all_ways(GET "X: 1\r\nY: 2\r\n\r\n", few).error == HeadError::kTooManyFields);
  CHECK(parse_all_ways(GET "X: 1\r\nY : 2\r\n\r\n", few).error == HeadError::kTooManyFields);
  few.fields_max = 1;  // the parser's room wins
  CHECK(parse_all_ways(GET "X: 1\r\n\r\n", few).error == HeadError::kTooManyFields);

  ParseSetup uri;
  uri.limits.uri_bytes = 4;
  CHECK(parse_all_ways("GET /abc HTTP/1.1\r\n" HOST "\r\n", uri).done());
  CHECK(parse_all_ways("GET /abcd HTTP/1.1\r\n" HOST "\r\n", uri).error == HeadError::kUriTooLong);
  CHECK(parse_all_ways("GET /abcd\x01 HTTP/1.1\r\n\r\n"sv, uri).error == HeadError::kUriTooLong);
  CHECK(parse_all_ways("GET /ab\x01 HTTP/1.1\r\n\r\n"sv, uri).error == HeadError::kBadTarget);
}

TEST_CASE("HeadParser: error_at -> the offending byte, or the line of it") {
  const auto at = [](std::string_view text) { return parse_all_ways(text).error_at; };
  constexpr std::string_view kGet = GET;
  CHECK(at("GET /a\x01 HTTP/1.1\r\n"sv) == 6);
  CHECK(at("GET /a#b HTTP/1.1\r\n"sv) == 6);
  CHECK(at("GET / HTTP/1.3\r\n") >= 6);
  CHECK(at(GET "X: a\r\n b\r\n\r\n") == kGet.size() + 6);
  CHECK(at(GET ": a\r\n\r\n") == kGet.size());
  CHECK(at(GET "X : a\r\n\r\n") == kGet.size() + 1);
  CHECK(at(GET "X: a\nY: b\r\n\r\n") == kGet.size() + 4);
  CHECK(at(GET "X: a\0b\r\n\r\n"sv) == kGet.size() + 4);
  CHECK(at(GET "Y: z\r\nTransfer-Encoding: x\r\n\r\n") == kGet.size() + 6);
  CHECK(at(GET "Host: b\r\n\r\n") == kGet.size());
}

TEST_CASE("HeadParser: a head without an end -> refused as soon as the limit is reached") {
  ParseSetup setup;
  setup.limits.header_bytes = 1000;
  const std::string text = GET "X: " + std::string(2000, 'a');
  CHECK(parse_all_ways(text, setup).error == HeadError::kHeadTooLarge);
  CHECK(parse_all_ways("GET /" + std::string(9000, 'a')).error == HeadError::kUriTooLong);
}

TEST_CASE("HeadParser: an incomplete head -> kNeedMore") {
  const std::string text = GET "X: 1\r\n\r\n";
  for (size_t size = 0; size < text.size(); ++size) {
    CHECK(parse_cut(text.substr(0, size), {}, {}).status == HeadParser::Status::kNeedMore);
  }
}

TEST_CASE("HeadParser: bytes behind the head -> not looked at") {
  const std::string text = GET "\r\n";
  const Parsed parsed = parse_all_ways(text + std::string("\0\n\r\n:", 5));
  REQUIRE(parsed.done());
  CHECK(parsed.head.head_len == text.size());
}

TEST_CASE("HeadParser: started again after an error -> forgets everything") {
  HeadParser parser(8);
  parser.start_request({});
  CHECK(parser.parse("GET /a HTTP/1.1\r\n\r\r") == HeadParser::Status::kError);
  parser.start_request({});
  CHECK(parser.parse(GET "\r\n") == HeadParser::Status::kDone);
  CHECK(parser.error() == HeadError::kNone);
  CHECK(parser.head().fields.size() == 1);
  parser.start_response({}, {});
  CHECK(parser.parse("HTTP/1.1 204\r\n\r\n") == HeadParser::Status::kDone);
  CHECK(parser.head().fields.empty());
}

TEST_CASE("HeadParser: a name longer than 65535 bytes -> refused, however it is cut") {
  ParseSetup setup;
  setup.limits.header_bytes = 200000;
  const std::string text = GET + std::string(70000, 'n') + ": v\r\n\r\n";
  const Parsed whole = parse_cut(text, {}, setup);
  CHECK(whole.error == HeadError::kHeadTooLarge);
  check_same(whole, parse_cut(text, {100, 66000, 69990}, setup));
}

}  // namespace
}  // namespace ringway::http1
