// tests/proto/http2_fields_test.cc - the way back: written heads as fields of blocks, round trips.
#include <doctest/doctest.h>

#include <array>
#include <span>
#include <string>
#include <vector>

#include "proto/http1_write.h"
#include "proto/http2_head.h"
#include "tests/proto/http2_build.h"

using namespace std::literals;

namespace ringway::h2 {
namespace {

struct Room {
  std::vector<HeaderField> fields = std::vector<HeaderField>(64);
  std::vector<char> names = std::vector<char>(4096);

  [[nodiscard]] BlockRoom get() { return {.fields = fields, .names = names}; }
  [[nodiscard]] Pairs first(size_t number) const {
    Pairs pairs;
    for (size_t i = 0; i < number; ++i) pairs.emplace_back(fields[i].name, fields[i].value);
    return pairs;
  }
};

Pairs request(std::string_view text, bool extended = false) {
  Room room;
  return room.first(fields_of_request(text, "https", extended, room.get()));
}

Pairs response(std::string_view text, bool extended = false) {
  Room room;
  return room.first(fields_of_response(text, extended, room.get()));
}

Pairs trailers(std::string_view text) {
  Room room;
  return room.first(fields_of_trailers(text, room.get()));
}

TEST_CASE("fields_of_request: pseudo-headers first, lower case, nothing of the connection") {
  CHECK(request("POST /a?b HTTP/1.1\r\nHost: h:1\r\nAccept-LANGUAGE[\\]^_`{@Z: X y\r\n"
                "Keep-Alive: 5\r\nProxy-Connection: x\r\nHTTP2-Settings: x\r\nTE: trailers\r\n"
                "X-Empty:\r\nConnection: upgrade\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\n"
                "Content-Length: 5\r\n\r\nbody: x\r\n") ==
        Pairs{{":method", "POST"},
              {":scheme", "https"},
              {":authority", "h:1"},
              {":path", "/a?b"},
              {"accept-language[\\]^_`{@z", "X y"},
              {"te", "trailers"},
              {"x-empty", ""},
              {"content-length", "5"}});
  CHECK(request("GET * HTTP/1.1\r\nHost: \r\nTE: gzip\r\n\r\n") ==
        Pairs{{":method", "GET"}, {":scheme", "https"}, {":path", "*"}});
}

TEST_CASE("fields_of_request: extended CONNECT (RFC 8441 4)") {
  CHECK(request("GET /chat HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Key: x\r\n"
                "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
                true) == Pairs{{":method", "CONNECT"},
                               {":scheme", "https"},
                               {":authority", "h"},
                               {":path", "/chat"},
                               {":protocol", "websocket"},
                               {"sec-websocket-version", "13"}});
  CHECK(request("GET / HTTP/1.1\r\nHost: h\r\n\r\n", true).empty());
}

TEST_CASE("fields_of_request: secrets are sensitive, short cookies too (RFC 7541 7.1.3)") {
  Room room;
  const size_t number = fields_of_request(
      "GET / HTTP/1.1\r\nHost: h\r\nAuthorization: a\r\nProxy-Authorization: b\r\n"
      "Cookie: 1234567890123456789\r\nCookie: 12345678901234567890\r\nX: y\r\n\r\n",
      "https", false, room.get());
  REQUIRE(number == 9);
  std::vector<bool> sensitive;
  for (size_t i = 4; i < number; ++i) sensitive.push_back(room.fields[i].sensitive);
  CHECK(sensitive == std::vector<bool>{true, true, true, false, false});
}

TEST_CASE("fields_of_*: what is no head -> 0") {
  for (const std::string_view text :
       {""sv, "GET"sv, "GET / HTTP/1.1"sv, "GET / HTTP/1.1\r\n"sv, "GET / HTTP/1.1\r\n\r\n"sv,
        "GET HTTP/1.1\r\nHost: h\r\n\r\n"sv, "GET / HTTP/1.1\r\nX: y\r\nHost: h\r\n\r\n"sv,
        "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n"sv, "GET / HTTP/1.1\r\nHost: h\r\n"sv,
        "GET / HTTP/1.1\r\nHost: h\r\nX\r\n\r\n"sv, "GET / HTTP/1.1\r\nHost: h\r\n: x\r\n\r\n"sv,
        "GET / HTTP/1.1\r\nHost: h\r\nX: y\n\r\n"sv, "GET / HTTP/1.1\r\nHost: h\r\nX: \0\r\n\r\n"sv,
        "GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n"sv}) {
    INFO(std::string(text));
    CHECK(request(text).empty());
  }
  CHECK(response(""sv).empty());
  CHECK(response("HTTP/1.1 20"sv).empty());
  CHECK(response("HTTP/1.0 200 OK\r\n\r\n"sv).empty());
  CHECK(response("HTTP/1.1 200 OK\r\nX: y\r\n"sv).empty());
  CHECK(response("HTTP/1.1 200 OK\r\nHost: y\r\n\r\n"sv).empty());
  CHECK(trailers("x: y"sv).empty());
  CHECK(trailers("x: y\n"sv).empty());
  CHECK(trailers("x\r\n"sv).empty());
}

TEST_CASE("fields_of_response: own responses, interim ones, and a 101 (RFC 9113 8.6, RFC 8441 5)") {
  char bytes[1024];
  http1::Out out(bytes);
  REQUIRE(http1::write_own_response({.status = 404, .body = "x: y", .extra = "Retry-After: 1\r\n"},
                                    out));
  CHECK(response(out.written()) == Pairs{{":status", "404"},
                                         {"content-type", "text/plain; charset=utf-8"},
                                         {"content-length", "4"},
                                         {"retry-after", "1"}});
  CHECK(response("HTTP/1.1 103 \r\nLink: </a>\r\n\r\n") ==
        Pairs{{":status", "103"}, {"link", "</a>"}});
  const std::string_view switched =
      "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: y\r\n"
      "Upgrade: websocket\r\nConnection: upgrade\r\n\r\n";
  CHECK(response(switched).empty());
  CHECK(response(switched, true) == Pairs{{":status", "200"}, {"sec-websocket-protocol", "y"}});
  CHECK(response("HTTP/1.1 403 Forbidden\r\n\r\n", true) == Pairs{{":status", "403"}});
}

TEST_CASE("fields_of_trailers: lines -> fields") {
  CHECK(trailers("Grpc-Status: 0\r\nX:\r\nConnection: x\r\n") ==
        Pairs{{"grpc-status", "0"}, {"x", ""}});
  CHECK(trailers("").empty());
}

TEST_CASE("fields_of_*: rooms that are too small -> 0, exact ones are enough") {
  const std::string_view text = "GET / HTTP/1.1\r\nHost: h\r\nAb: x\r\nCde: y\r\n\r\n";
  std::vector<HeaderField> fields(6);
  std::vector<char> names(5);
  const auto with = [&](size_t num_fields, size_t num_names) {
    const BlockRoom room{.fields = std::span(fields).first(num_fields),
                         .names = std::span(names).first(num_names)};
    return fields_of_request(text, "http", false, room);
  };
  CHECK(with(6, 5) == 6);
  for (size_t i = 0; i < 6; ++i) CHECK(with(i, 5) == 0);
  for (size_t i = 0; i < 5; ++i) CHECK(with(6, i) == 0);
}

// A block through everything that a proxy does with it: the server gets HTTP/1, or HTTP/2 again.
TEST_CASE("Round trip: block -> head -> serializer -> HTTP/1, and -> block") {
  Deflater deflater(4096);
  Inflater inflater(4096);
  HeadBuilder builder(8192, 32);
  http1::HeadParser parser(32);
  const Pairs fields = {
      {":method", "POST"},        {":scheme", "https"},          {":authority", "a.test:81"},
      {":path", "/p?q=r"},        {"user-agent", "u"},           {"te", "trailers"},
      {"cookie", "b=c"},          {"content-length", "7"},       {"cookie", "d=e"},
      {"expect", "100-continue"}, {"x-forwarded-for", "6.6.6.6"}};
  char block[1024];
  for (int round = 0; round < 2; ++round) {
    const size_t size = deflater.encode(fields_of(fields), block);
    REQUIRE(size > 0);
    builder.start_request({});
    REQUIRE(inflater.decode({block, size}, 4096, builder));
    REQUIRE(builder.finish() == BlockError::kNone);
    parser.start_request({});
    REQUIRE(parser.take_built(builder.built(), true) == http1::HeadError::kNone);
    const http1::Head& head = parser.head();
    CHECK(head.method == http1::Method::kPost);
    CHECK(head.view(head.path) == "/p");
    CHECK(head.view(head.query) == "q=r");
    CHECK(head.view(head.authority) == "a.test:81");
    CHECK(head.body == http1::BodyKind::kLength);
    CHECK(head.content_length == 7);
    CHECK(head.expect_continue);
    CHECK(head.te_trailers);
    char bytes[1024];
    http1::Out out(bytes);
    const http1::RequestPlan plan{.body = http1::BodyKind::kLength,
                                  .content_length = 7,
                                  .forwarded = {.client_ip = "192.0.2.1", .scheme = "https"}};
    REQUIRE(http1::write_request_head(head, plan, out));
    CHECK(out.written() ==
          "POST /p?q=r HTTP/1.1\r\nHost: a.test:81\r\nuser-agent: u\r\nexpect: 100-continue\r\n"
          "cookie: b=c; d=e\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n"
          "TE: trailers\r\nContent-Length: 7\r\n\r\n"sv);
    CHECK(request(out.written()) == Pairs{{":method", "POST"},
                                          {":scheme", "https"},
                                          {":authority", "a.test:81"},
                                          {":path", "/p?q=r"},
                                          {"user-agent", "u"},
                                          {"expect", "100-continue"},
                                          {"cookie", "b=c; d=e"},
                                          {"x-forwarded-for", "192.0.2.1"},
                                          {"x-forwarded-proto", "https"},
                                          {"te", "trailers"},
                                          {"content-length", "7"}});
  }
}

// Goal: RFC 7541 6.2.3: whoever passes a field on keeps it out of tables if its sender did.
TEST_CASE("Round trip: fields never indexed -> marked in the next block, plain lines in HTTP/1") {
  const std::vector<HeaderField> fields = {
      {.name = ":method", .value = "GET"},
      {.name = ":scheme", .value = "https"},
      {.name = ":path", .value = "/"},
      {.name = ":authority", .value = "a"},
      {.name = "x-key", .value = "secret", .sensitive = true},
      {.name = "x-open", .value = "yes"},
      {.name = "x-empty", .value = "", .sensitive = true},
      {.name = "authorization", .value = "Basic eA==", .sensitive = true},
      {.name = "cookie", .value = "a=b", .sensitive = true},
      {.name = "cookie", .value = "long=0123456789012345678901234567890"}};
  HeadBuilder builder(4096, 32);
  http1::HeadParser parser(32);
  Deflater deflater(4096);
  Inflater inflater(4096);
  char block[1024];
  const size_t size = deflater.encode(fields, block);
  builder.start_request({});
  REQUIRE(inflater.decode({block, size}, 4096, builder));
  REQUIRE(builder.finish() == BlockError::kNone);
  parser.start_request({});
  REQUIRE(parser.take_built(builder.built(), false) == http1::HeadError::kNone);
  CHECK(parser.head().value(*parser.head().find("x-key")) == "secret");
  char bytes[1024];
  http1::Out plain(bytes);
  REQUIRE(http1::write_request_head(parser.head(), {}, plain));
  CHECK(plain.written() ==
        "GET / HTTP/1.1\r\nHost: a\r\nx-key: secret\r\nx-open: yes\r\nx-empty: \r\n"
        "authorization: Basic eA==\r\ncookie: a=b; long=0123456789012345678901234567890\r\n\r\n"sv);
  http1::Out marked(bytes);
  REQUIRE(http1::write_request_head(parser.head(), {.for_http2 = true}, marked));
  std::array<HeaderField, 16> room;
  char names[256];
  const size_t count =
      fields_of_request(marked.written(), "https", false, {.fields = room, .names = names});
  REQUIRE(count == 9);
  std::string sensitive;
  for (const HeaderField& field : std::span(room).first(count)) {
    if (field.sensitive) sensitive.append(field.name).append("=").append(field.value).append("|");
  }
  CHECK(sensitive ==
        "x-key=secret|authorization=Basic eA==|cookie=a=b; long=0123456789012345678901234567890|");
}

// What an HTTP/1 client leaves out means nothing.
TEST_CASE("Round trip: HTTP/1 fields without a blank -> not marked in a block") {
  http1::HeadParser parser(32);
  const std::string_view text = "GET / HTTP/1.1\r\nHost: a\r\nX-Bare:1\r\n\r\n";
  parser.start_request({});
  REQUIRE(parser.parse(text) == http1::HeadParser::Status::kDone);
  char bytes[256];
  http1::Out out(bytes);
  REQUIRE(http1::write_request_head(parser.head(), {.for_http2 = true}, out));
  CHECK(out.written() == "GET / HTTP/1.1\r\nHost: a\r\nX-Bare: 1\r\n\r\n"sv);
}

TEST_CASE("Round trip: trailers never indexed -> marked in the next block") {
  HeadBuilder builder(4096, 32);
  builder.start_trailers({});
  CHECK(builder.on_field({.name = "x-sum", .value = "1", .sensitive = true}));
  CHECK(builder.on_field({.name = "x-open", .value = "2"}));
  REQUIRE(builder.finish() == BlockError::kNone);
  std::array<HeaderField, 4> room;
  char names[64];
  REQUIRE(fields_of_trailers(builder.text(), {.fields = room, .names = names}) == 2);
  CHECK(room[0].sensitive);
  CHECK_FALSE(room[1].sensitive);
}

TEST_CASE("Round trip: extended CONNECT -> an upgrade that the serializer passes on") {
  HeadBuilder builder(4096, 32);
  http1::HeadParser parser(32);
  REQUIRE(build(builder,
                {{":method", "CONNECT"},
                 {":protocol", "websocket"},
                 {":scheme", "https"},
                 {":path", "/chat"},
                 {":authority", "a"},
                 {"sec-websocket-version", "13"},
                 {"sec-websocket-key", "k"}},
                {.websocket = true}) == BlockError::kNone);
  parser.start_request({});
  REQUIRE(parser.take_built(builder.built(), false) == http1::HeadError::kNone);
  CHECK(parser.head().upgrade);
  CHECK(parser.head().body == http1::BodyKind::kNone);
  char bytes[1024];
  http1::Out out(bytes);
  REQUIRE(http1::write_request_head(parser.head(), {.upgrade = true}, out));
  CHECK(out.written() ==
        "GET /chat HTTP/1.1\r\nHost: a\r\nsec-websocket-version: 13\r\nsec-websocket-key: k\r\n"
        "Upgrade: websocket\r\nConnection: upgrade\r\n\r\n"sv);
}

}  // namespace
}  // namespace ringway::h2
