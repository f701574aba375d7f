// tests/proto/http2_head_test.cc - header blocks to heads: one row per rule of RFC 9113 8.1 to 8.5.
#include "proto/http2_head.h"

#include <doctest/doctest.h>

#include "tests/proto/http2_build.h"

using namespace std::literals;

namespace ringway::h2 {
namespace {

// `error` kNone: `text` is what becomes of it.
struct Row {
  const char* about;
  Pairs fields;
  BlockError error = BlockError::kNone;
  std::string_view text{};
};

void check_rows(const std::vector<Row>& rows, const BuildSetup& setup) {
  for (const Row& row : rows) {
    INFO(std::string(row.about));
    const Built built = build(row.fields, setup);
    CHECK(static_cast<int>(built.error) == static_cast<int>(row.error));
    if (row.error == BlockError::kNone) CHECK(built.text == row.text);
  }
}

constexpr BlockError kMalformed = BlockError::kMalformed;
constexpr BlockError kBadTarget = BlockError::kBadTarget;

TEST_CASE("HeadBuilder: pseudo-headers of requests (RFC 9113 8.3, 8.3.1)") {
  check_rows(
      {
          {"the usual order", kGet, BlockError::kNone, "GET / HTTP/1.1\r\nhost: a\r\n\r\n"},
          {"another order",
           {{":path", "/b?c=d"},
            {":authority", "A.b:81"},
            {":scheme", "HTTP"},
            {":method", "POST"}},
           BlockError::kNone,
           "POST /b?c=d HTTP/1.1\r\nhost: A.b:81\r\n\r\n"},
          {"no :method", {{":scheme", "https"}, {":authority", "a"}, {":path", "/"}}, kMalformed},
          {"no :scheme", {{":method", "GET"}, {":authority", "a"}, {":path", "/"}}, kMalformed},
          {"no :path", {{":method", "GET"}, {":scheme", "https"}, {":authority", "a"}}, kMalformed},
          {"nothing at all", {}, kMalformed},
          {"no pseudo-header", {{"host", "a"}}, kMalformed},
          {":method twice", kGet + Pairs{{":method", "GET"}}, kMalformed},
          {":scheme twice", kGet + Pairs{{":scheme", "https"}}, kMalformed},
          {":authority twice", kGet + Pairs{{":authority", "a"}}, kMalformed},
          {":path twice", kGet + Pairs{{":path", "/"}}, kMalformed},
          {"an unknown one", kGet + Pairs{{":foo", "x"}}, kMalformed},
          {"one in upper case", kGet + Pairs{{":Foo", "x"}}, kMalformed},
          {"only a colon", kGet + Pairs{{":", "x"}}, kMalformed},
          {":status", kGet + Pairs{{":status", "200"}}, kMalformed},
          {"behind a field",
           {{":method", "GET"},
            {":scheme", "https"},
            {":path", "/"},
            {"x", "y"},
            {":authority", "a"}},
           kMalformed},
          {"an unknown one behind a field", kGet + Pairs{{"x", "y"}, {":foo", "z"}}, kMalformed},
      },
      {});
}

TEST_CASE("HeadBuilder: values of pseudo-headers") {
  const auto with = [](std::string_view name, std::string_view value) {
    Pairs fields = kGet;
    for (auto& [n, v] : fields) {
      if (n == name) v = value;
    }
    return fields;
  };
  check_rows(
      {
          {"empty method", with(":method", ""), kMalformed},
          {"method with a space", with(":method", "GET "), kMalformed},
          {"lower case is another method", with(":method", "get"), BlockError::kUnknownMethod},
          {"unknown method", with(":method", "BREW"), BlockError::kUnknownMethod},
          {"PRI", with(":method", "PRI"), BlockError::kUnknownMethod},
          {"known, rare", with(":method", "M-SEARCH"), BlockError::kNone,
           "M-SEARCH / HTTP/1.1\r\nhost: a\r\n\r\n"},
          {"empty scheme", with(":scheme", ""), kBadTarget},
          {"scheme of another protocol", with(":scheme", "ftp"), kBadTarget},
          {"empty path", with(":path", ""), kBadTarget},
          {"relative", with(":path", "a"), kBadTarget},
          {"absolute-form", with(":path", "http://a/"), kBadTarget},
          {"only a query", with(":path", "?a"), kBadTarget},
          {"asterisk without OPTIONS", with(":path", "*"), kBadTarget},
          {"fragment", with(":path", "/a#b"), kBadTarget},
          {"DEL", with(":path", "/\x7f"), kBadTarget},
          {"not US-ASCII", with(":path", "/\xc3\xa4"), kBadTarget},
          {"two slashes", with(":path", "//b"), BlockError::kNone,
           "GET //b HTTP/1.1\r\nhost: a\r\n\r\n"},
          {"empty authority", with(":authority", ""), kBadTarget},
          {"user information", with(":authority", "u@a"), kBadTarget},
          {"two hosts", with(":authority", "a,b"), kBadTarget},
          {"port too large", with(":authority", "a:65536"), kBadTarget},
          {"IPv6", with(":authority", "[::1]:8443"), BlockError::kNone,
           "GET / HTTP/1.1\r\nhost: [::1]:8443\r\n\r\n"},
          {"path in an authority", with(":authority", "a/b"), kBadTarget},
      },
      {});
  const Pairs asterisk = {
      {":method", "OPTIONS"}, {":scheme", "https"}, {":path", "*"}, {":authority", "a"}};
  CHECK(build(asterisk).text == "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n");
}

TEST_CASE("HeadBuilder: Host and :authority (RFC 9113 8.3.1)") {
  const Pairs no_authority = {{":method", "GET"}, {":scheme", "http"}, {":path", "/"}};
  check_rows(
      {
          {"neither", no_authority, kBadTarget},
          {"Host only", no_authority + Pairs{{"x", "1"}, {"host", "b:8080"}, {"y", "2"}},
           BlockError::kNone, "GET / HTTP/1.1\r\nx: 1\r\nhost: b:8080\r\ny: 2\r\n\r\n"},
          {"Host only, empty", no_authority + Pairs{{"host", ""}}, kBadTarget},
          {"Host only, malformed", no_authority + Pairs{{"host", "u@b"}}, kBadTarget},
          {"Host only, twice", no_authority + Pairs{{"host", "b"}, {"host", "b"}}, kBadTarget},
          {"the same", kGet + Pairs{{"host", "a"}}, BlockError::kNone,
           "GET / HTTP/1.1\r\nhost: a\r\n\r\n"},
          {"the same host in another case", kGet + Pairs{{"host", "A"}}, BlockError::kNone,
           "GET / HTTP/1.1\r\nhost: a\r\n\r\n"},
          {"the same port, of the scheme", kGet + Pairs{{"host", "a:443"}}, BlockError::kNone,
           "GET / HTTP/1.1\r\nhost: a\r\n\r\n"},
          {"the port of another scheme", kGet + Pairs{{"host", "a:80"}}, kBadTarget},
          {"another host", kGet + Pairs{{"host", "b"}}, kBadTarget},
          {"empty", kGet + Pairs{{"host", ""}}, kBadTarget},
          {"the same twice", kGet + Pairs{{"host", "a"}, {"host", "a"}}, kBadTarget},
      },
      {});
}

TEST_CASE("HeadBuilder: names and values (RFC 9113 8.2.1)") {
  check_rows(
      {
          {"upper case", kGet + Pairs{{"Accept", "x"}}, kMalformed},
          {"empty name", kGet + Pairs{{"", "x"}}, kMalformed},
          {"space in a name", kGet + Pairs{{"a b", "x"}}, kMalformed},
          {"colon in a name", kGet + Pairs{{"a:b", "x"}}, kMalformed},
          {"not US-ASCII in a name", kGet + Pairs{{"\xe4", "x"}}, kMalformed},
          {"space in front", kGet + Pairs{{"a", " x"}}, kMalformed},
          {"HTAB in front", kGet + Pairs{{"a", "\tx"}}, kMalformed},
          {"space behind", kGet + Pairs{{"a", "x "}}, kMalformed},
          {"HTAB behind", kGet + Pairs{{"a", "x\t"}}, kMalformed},
          {"only a space", kGet + Pairs{{"a", " "}}, kMalformed},
          {"another control byte", kGet + Pairs{{"a", "x\x01y"}}, kMalformed},
          {"DEL", kGet + Pairs{{"a", "x\x7f"}}, kMalformed},
          {"empty, blanks inside, high bytes",
           kGet + Pairs{{"a", ""}, {"b", "x \t y"}, {"c!#", "\xff:"}}, BlockError::kNone,
           "GET / HTTP/1.1\r\nhost: a\r\na: \r\nb: x \t y\r\nc!#: \xff:\r\n\r\n"},
      },
      {});
}

TEST_CASE("HeadBuilder: connection-specific fields (RFC 9113 8.2.2)") {
  check_rows(
      {
          {"connection", kGet + Pairs{{"connection", "close"}}, kMalformed},
          {"keep-alive", kGet + Pairs{{"keep-alive", "5"}}, kMalformed},
          {"proxy-connection", kGet + Pairs{{"proxy-connection", "close"}}, kMalformed},
          {"transfer-encoding", kGet + Pairs{{"transfer-encoding", "chunked"}}, kMalformed},
          {"upgrade", kGet + Pairs{{"upgrade", "websocket"}}, kMalformed},
          {"te: gzip", kGet + Pairs{{"te", "gzip"}}, kMalformed},
          {"te: trailers, gzip", kGet + Pairs{{"te", "trailers, gzip"}}, kMalformed},
          {"te, empty", kGet + Pairs{{"te", ""}}, kMalformed},
          {"te: trailers", kGet + Pairs{{"te", "trailers"}}, BlockError::kNone,
           "GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n"},
      },
      {});
  check_rows(
      {
          {"connection", {{":status", "200"}, {"connection", "close"}}, kMalformed},
          {"upgrade", {{":status", "426"}, {"upgrade", "x"}}, kMalformed},
          {"te in a response", {{":status", "200"}, {"te", "trailers"}}, kMalformed},
      },
      {.kind = BlockKind::kResponse});
}

TEST_CASE("HeadBuilder: cookie crumbs -> one line, other fields in their order (RFC 9113 8.2.3)") {
  CHECK(build(kGet +
              Pairs{{"cookie", "a=b"}, {"x", "1"}, {"cookie", "c=d"}, {"y", "2"}, {"cookie", "e"}})
            .text == "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\ny: 2\r\ncookie: a=b; c=d; e\r\n\r\n");
  CHECK(build(kGet + Pairs{{"cookie", "a=b"}}).text ==
        "GET / HTTP/1.1\r\nhost: a\r\ncookie: a=b\r\n\r\n");
}

TEST_CASE("HeadBuilder: CONNECT (RFC 9113 8.5)") {
  const Pairs connect = {{":method", "CONNECT"}, {":authority", "a:1"}};
  check_rows(
      {
          {"plain", connect, BlockError::kConnectRefused},
          {"with :path", connect + Pairs{{":path", "/"}}, kMalformed},
          {"with :scheme", connect + Pairs{{":scheme", "https"}}, kMalformed},
          {"without :authority", {{":method", "CONNECT"}}, kMalformed},
          {"extended, but not allowed",
           {{":method", "CONNECT"},
            {":protocol", "websocket"},
            {":scheme", "https"},
            {":path", "/"},
            {":authority", "a"}},
           kMalformed},
          {":protocol, not allowed", kGet + Pairs{{":protocol", "x"}}, kMalformed},
      },
      {});
}

TEST_CASE("HeadBuilder: extended CONNECT (RFC 8441 4) -> the upgrade that it stands for") {
  const Pairs connect = {{":method", "CONNECT"},
                         {":protocol", "websocket"},
                         {":scheme", "https"},
                         {":path", "/chat"},
                         {":authority", "a"}};
  const BuildSetup setup{.websocket = true};
  const Built built =
      build(connect + Pairs{{"sec-websocket-version", "13"}, {"origin", "https://a"}}, setup);
  CHECK(built.extended_connect);
  const std::string lines =
      "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
      "sec-websocket-version: 13\r\norigin: https://a\r\nsec-websocket-key: ";
  REQUIRE(built.text.starts_with(lines));
  CHECK(built.text.size() == lines.size() + 24 + 4);
  CHECK(built.text.ends_with("==\r\n\r\n"));
  check_rows(
      {
          {"a key of the client's", connect + Pairs{{"sec-websocket-key", "x"}}, BlockError::kNone,
           "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
           "sec-websocket-key: x\r\n\r\n"},
          {"another protocol",
           {{":method", "CONNECT"},
            {":protocol", "connect-udp"},
            {":scheme", "https"},
            {":path", "/"},
            {":authority", "a"}},
           BlockError::kUnknownMethod},
          {"not with CONNECT", kGet + Pairs{{":protocol", "websocket"}}, kMalformed},
          {"no :scheme",
           {{":method", "CONNECT"},
            {":protocol", "websocket"},
            {":path", "/"},
            {":authority", "a"}},
           kMalformed},
          {"no :authority",
           {{":method", "CONNECT"},
            {":protocol", "websocket"},
            {":scheme", "https"},
            {":path", "/"},
            {"host", "a"}},
           kMalformed},
          {"plain", {{":method", "CONNECT"}, {":authority", "a:1"}}, BlockError::kConnectRefused},
      },
      setup);
  // Each has a key of its own.
  HeadBuilder builder(4096, 16);
  REQUIRE(build(builder, connect, setup) == BlockError::kNone);
  const std::string first(builder.text());
  REQUIRE(build(builder, connect, setup) == BlockError::kNone);
  CHECK(first != builder.text());
}

// Goal: nothing of one block is left when the next one begins.
TEST_CASE("HeadBuilder: used again -> as if new, also after a block that was refused") {
  const Pairs pseudo = {{":method", "GET"}, {":path", "/"}, {":authority", "a"}};
  const Pairs http = pseudo + Pairs{{":scheme", "http"}, {"host", "a:80"}, {"cookie", "x=y"}};
  const Pairs https = pseudo + Pairs{{":scheme", "https"}, {"host", "a:443"}, {"cookie", "z"}};
  const Pairs socket = {{":method", "CONNECT"},
                        {":protocol", "websocket"},
                        {":scheme", "https"},
                        {":path", "/"},
                        {":authority", "a"}};
  const Pairs wrong = kGet + Pairs{{"sec-websocket-key", "k"}, {"cookie", "x"}, {":path", "/"}};
  const BuildSetup setup{.websocket = true};
  HeadBuilder builder(4096, 16);
  for (const Pairs& before : {http, https, wrong, socket + Pairs{{"sec-websocket-key", "k"}}}) {
    for (const Pairs& fields : {http, https, kGet}) {
      (void)build(builder, before, setup);
      REQUIRE(build(builder, fields, setup) == BlockError::kNone);
      CHECK(builder.text() == build(fields).text);
      CHECK_FALSE(builder.is_extended_connect());
    }
    (void)build(builder, before, setup);
    REQUIRE(build(builder, socket, setup) == BlockError::kNone);
    CHECK(builder.is_extended_connect());
    CHECK(builder.text().find("sec-websocket-key: ") != std::string_view::npos);
    CHECK(builder.text().find("cookie") == std::string_view::npos);
    (void)build(builder, before, setup);
    REQUIRE(build(builder, {{"x", "y"}}, {.kind = BlockKind::kTrailers}) == BlockError::kNone);
    CHECK(builder.text() == "x: y\r\n"sv);
  }
}

TEST_CASE("HeadBuilder: responses (RFC 9113 8.3.2, 8.6)") {
  const auto status = [](std::string_view value) {
    return Pairs{{":status", std::string(value)}, {"server", "x"}};
  };
  check_rows(
      {
          {"200", status("200"), BlockError::kNone, "HTTP/1.1 200 OK\r\nserver: x\r\n\r\n"},
          {"103", status("103"), BlockError::kNone,
           "HTTP/1.1 103 Early Hints\r\nserver: x\r\n\r\n"},
          {"no fields", {{":status", "204"}}, BlockError::kNone, "HTTP/1.1 204 No Content\r\n\r\n"},
          {"101", status("101"), kMalformed},
          {"two digits", status("20"), kMalformed},
          {"four digits", status("2000"), kMalformed},
          {"no digits", status("2x0"), kMalformed},
          {"0xx", status("099"), kMalformed},
          {"6xx", status("600"), kMalformed},
          {"empty", status(""), kMalformed},
          {"none", {{"server", "x"}}, kMalformed},
          {"nothing at all", {}, kMalformed},
          {"twice", {{":status", "200"}, {":status", "200"}}, kMalformed},
          {"behind a field", {{"server", "x"}, {":status", "200"}}, kMalformed},
          {"a request's", {{":status", "200"}, {":path", "/"}}, kMalformed},
          {"crumbs are not joined",
           {{":status", "200"}, {"cookie", "a"}, {"cookie", "b"}},
           BlockError::kNone,
           "HTTP/1.1 200 OK\r\ncookie: a\r\ncookie: b\r\n\r\n"},
      },
      {.kind = BlockKind::kResponse});
}

TEST_CASE("HeadBuilder: trailers (RFC 9113 8.1) -> lines without what may not be a trailer") {
  check_rows(
      {
          {"allowed",
           {{"x-sum", "1"}, {"grpc-status", "0"}},
           BlockError::kNone,
           "x-sum: 1\r\ngrpc-status: 0\r\n"},
          {"none", {}, BlockError::kNone, ""},
          {"dropped",
           {{"content-length", "5"},
            {"host", "b"},
            {"cookie", "c"},
            {"x", "1"},
            {"authorization", "d"},
            {"te", "trailers"}},
           BlockError::kNone,
           "x: 1\r\n"},
          {"a pseudo-header", {{":status", "200"}}, kMalformed},
          {"a request's pseudo-header", {{"x", "1"}, {":path", "/"}}, kMalformed},
          {"upper case", {{"X", "1"}}, kMalformed},
          {"a line more", {{"x", "1\r\ny: 2"}}, kMalformed},
          {"connection-specific", {{"transfer-encoding", "chunked"}}, kMalformed},
      },
      {.kind = BlockKind::kTrailers});
}

// Goal: no byte that ends a line, a name or a part of a request line gets into a text.
TEST_CASE("HeadBuilder: smuggling -> refused in every place") {
  const std::string_view bytes[] = {"\r"sv,
                                    "\n"sv,
                                    "\0"sv,
                                    " "sv,
                                    ":"sv,
                                    "\r\n"sv,
                                    "\r\nx: y\r\n\r\nGET /b HTTP/1.1\r\nhost: c"sv};
  for (const std::string_view piece : bytes) {
    INFO("bytes " << std::string(piece));
    const auto put = [&](std::string_view before, std::string_view after) {
      return std::string(before).append(piece).append(after);
    };
    const auto refused = [](const Pairs& fields) {
      return build(fields).error != BlockError::kNone;
    };
    const Pairs host = {{"x", "y"}};
    for (const auto& [before, after] : {std::pair{"", "a"}, {"a", ""}, {"a", "b"}}) {
      const bool inside = before[0] != '\0' && after[0] != '\0';
      const std::string path = std::string("/") + before;
      CHECK(refused({{":method", put(before, after)},
                     {":scheme", "http"},
                     {":authority", "a"},
                     {":path", "/"}}));
      CHECK(refused({{":method", "GET"},
                     {":scheme", put(before, after)},
                     {":authority", "a"},
                     {":path", "/"}}));
      CHECK(refused({{":method", "GET"},
                     {":scheme", "http"},
                     {":authority", "a"},
                     {":path", put(path, after)}}) == (piece != ":"));
      CHECK(refused(kGet + Pairs{{put(before, after), "x"}}));
      CHECK(refused(kGet + Pairs{{"x", put(before, after)}}) ==
            !(piece == ":" || (piece == " " && inside)));
      CHECK(refused(kGet + Pairs{{"cookie", put(before, after)}}) ==
            !(piece == ":" || (piece == " " && inside)));
      if (piece == ":" && after[0] == '\0') continue;  // an empty port, as in HTTP/1
      CHECK(refused({{":method", "GET"},
                     {":scheme", "http"},
                     {":authority", put(before, after)},
                     {":path", "/"}}));
      CHECK(refused(
          {{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {"host", put(before, after)}}));
    }
  }
}

TEST_CASE("HeadBuilder: limits -> the same errors as HTTP/1") {
  const std::string head = "GET / HTTP/1.1\r\nhost: a\r\nx: y\r\n\r\n";
  const Pairs fields = kGet + Pairs{{"x", "y"}};
  const auto with = [&](uint32_t bytes, uint32_t num, uint32_t uri) {
    return build(fields, {.limits = {.header_bytes = bytes, .fields = num, .uri_bytes = uri}})
        .error;
  };
  const auto size = static_cast<uint32_t>(head.size());
  CHECK(with(size, 2, 1) == BlockError::kNone);
  CHECK(with(size - 1, 2, 1) == BlockError::kHeadTooLarge);
  CHECK(with(size, 1, 1) == BlockError::kTooManyFields);
  CHECK(with(size, 2, 0) == BlockError::kUriTooLong);
  for (uint32_t bytes = 0; bytes < size; ++bytes) {
    CHECK(with(bytes, 2, 1) == BlockError::kHeadTooLarge);
  }
  // Each crumb counts, and so does a Host that is dropped.
  const BuildSetup three{.limits = {.header_bytes = 4096, .fields = 3, .uri_bytes = 100}};
  CHECK(build(kGet + Pairs{{"cookie", "a"}, {"cookie", "b"}}, three).error == BlockError::kNone);
  CHECK(build(kGet + Pairs{{"cookie", "a"}, {"cookie", "b"}, {"cookie", "c"}}, three).error ==
        BlockError::kTooManyFields);
  CHECK(build(kGet + Pairs{{"host", "a"}, {"b", ""}, {"c", ""}}, three).error ==
        BlockError::kTooManyFields);
  // The builder's own room is a limit, too.
  HeadBuilder small(size, 2);
  CHECK(build(small, fields) == BlockError::kNone);
  CHECK(build(small, fields + Pairs{{"z", ""}}) == BlockError::kTooManyFields);
  CHECK(build(small, kGet + Pairs{{"x", "yy"}}) == BlockError::kHeadTooLarge);
  CHECK(build(small, fields) == BlockError::kNone);
  CHECK(small.text() == head);
}

TEST_CASE("HeadBuilder: a block that Inflater has cut -> 431, never a head without its end") {
  Inflater inflater(4096);
  HeadBuilder builder(4096, 16);
  builder.start_request({});
  CHECK(inflater.decode(hpack_block(kGet + Pairs{{"x-role", "none"}}), 170, builder));
  CHECK(builder.finish() == BlockError::kHeadTooLarge);
  builder.start_request({});
  CHECK(inflater.decode(hpack_block(kGet + Pairs{{"x-role", "none"}}), 1000, builder));
  CHECK(builder.finish() == BlockError::kNone);
}

TEST_CASE("head_error_of: statuses of what is answered") {
  const auto status = [](BlockError error) { return http1::status_of(head_error_of(error)); };
  CHECK(status(BlockError::kMalformed) == 400);
  CHECK(status(BlockError::kBadTarget) == 400);
  CHECK(status(BlockError::kHeadTooLarge) == 431);
  CHECK(status(BlockError::kTooManyFields) == 431);
  CHECK(status(BlockError::kUriTooLong) == 414);
  CHECK(status(BlockError::kConnectRefused) == 405);
  CHECK(status(BlockError::kUnknownMethod) == 501);
}

TEST_CASE("read_priority: RFC 9218 4 -> urgency and incremental, the rest ignored") {
  struct PriorityRow {
    std::string_view value;
    int urgency;
    bool incremental;
  };
  for (const PriorityRow& row : std::vector<PriorityRow>{
           {"", 3, false},
           {"u=0", 0, false},
           {"u=7, i", 7, true},
           {"i,u=1", 1, true},
           {"i=?1;x=y , u=2;z", 2, true},
           {"i, i=?0", 3, false},
           {"u=8", 3, false},
           {"u=-1", 3, false},
           {"u=12", 3, false},
           {"u", 3, false},
           {"U=1, I", 3, false},
           {"a=\"x, u=1, \\\", i\", u=5", 5, false},
           {"x=(u=1 i), u=4", 4, false},
       }) {
    INFO(std::string(row.value));
    uint8_t urgency = 3;
    bool incremental = false;
    read_priority(row.value, urgency, incremental);
    CHECK(urgency == row.urgency);
    CHECK(incremental == row.incremental);
  }
  HeadBuilder builder(4096, 16);
  REQUIRE(build(builder, kGet + Pairs{{"priority", "u=1, i"}}) == BlockError::kNone);
  CHECK(builder.urgency() == 1);
  CHECK(builder.incremental());
  REQUIRE(build(builder, kGet) == BlockError::kNone);
  CHECK(builder.urgency() == 3);
  CHECK_FALSE(builder.incremental());
}

}  // namespace
}  // namespace ringway::h2
