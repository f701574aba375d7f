// tests/proto/http1_write_test.cc - what goes out: framing, hop-by-hop, forwarding fields, edits.
#include "proto/http1_write.h"

#include "tests/proto/http1_parse.h"

using namespace std::literals;

namespace ringway::http1 {
namespace {

constexpr const char* kRefused = "(refused)";

std::string request_out(const Parsed& parsed, const RequestPlan& plan, size_t room = 4096) {
  REQUIRE(parsed.done());
  std::vector<char> buffer(room);
  Out out(buffer);
  return write_request_head(parsed.head, plan, out) ? std::string(out.written()) : kRefused;
}

std::string request_out(std::string_view text, const RequestPlan& plan = {}) {
  return request_out(parse_all_ways(text), plan);
}

std::string response_out(std::string_view text, const ResponsePlan& plan,
                         const ResponseContext& context = {}) {
  const Parsed parsed = parse_all_ways(text, {.response = true, .context = context});
  REQUIRE(parsed.done());
  std::vector<char> buffer(4096);
  Out out(buffer);
  return write_response_head(parsed.head, plan, out) ? std::string(out.written()) : kRefused;
}

TEST_CASE("write_request_head: Host first, hop-by-hop and framing gone, the rest as it was") {
  CHECK(request_out("POST /a?b=c HTTP/1.0\r\naCCept: x\r\nConnection: keep-alive, X-Hop\r\n"
                    "X-Hop: 1\r\nCookie:a=b\r\nHost: h:81\r\nKeep-Alive: 5\r\nX-Wide:   y  \r\n"
                    "Proxy-Connection: close\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n"
                    "Content-Length: 3\r\nX-Last:\r\n\r\n",
                    {.body = BodyKind::kLength, .content_length = 3}) ==
        "POST /a?b=c HTTP/1.1\r\nHost: h:81\r\naCCept: x\r\nCookie:a=b\r\nX-Wide: y\r\n"
        "X-Last:\r\nContent-Length: 3\r\n\r\n");
}

TEST_CASE("write_request_head: targets -> origin-form or asterisk (RFC 9112 3.2)") {
  const auto line = [](std::string_view start) {
    const std::string out = request_out(std::string(start) + " HTTP/1.1\r\nHost: a\r\n\r\n");
    return out.substr(0, out.find("\r\n"));
  };
  CHECK(line("GET http://a/b?c") == "GET /b?c HTTP/1.1");
  CHECK(line("GET http://a") == "GET / HTTP/1.1");
  CHECK(line("GET http://a?") == "GET /? HTTP/1.1");
  CHECK(line("OPTIONS *") == "OPTIONS * HTTP/1.1");
  CHECK(line("OPTIONS http://a") == "OPTIONS * HTTP/1.1");
  CHECK(line("OPTIONS http://a/") == "OPTIONS / HTTP/1.1");
  CHECK(line("OPTIONS http://a?b") == "OPTIONS /?b HTTP/1.1");
  CHECK(line("GET //x/../%2e?") == "GET //x/../%2e? HTTP/1.1");
}

TEST_CASE("write_request_head: absolute-form -> its authority becomes Host") {
  CHECK(request_out("GET http://A:80/ HTTP/1.1\r\nHost: a\r\n\r\n") ==
        "GET / HTTP/1.1\r\nHost: A:80\r\n\r\n");
}

TEST_CASE("write_request_head: path and host of the plan replace the client's") {
  CHECK(request_out("GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n", {.path = "/c?d", .host = "e"}) ==
        "GET /c?d HTTP/1.1\r\nHost: e\r\n\r\n");
}

TEST_CASE("write_request_head: framing is regenerated") {
  const std::string_view get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
  CHECK(request_out(get, {.body = BodyKind::kChunked}) ==
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
  const std::string_view post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 000\r\n\r\n";
  const std::string expected = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
  CHECK(request_out(post, {.body = BodyKind::kLength}) == expected);
  CHECK(request_out(post, {.body = BodyKind::kNone}) == expected);
  CHECK(request_out("POST / HTTP/1.1\r\nHost: a\r\n\r\n") == "POST / HTTP/1.1\r\nHost: a\r\n\r\n");
  CHECK(request_out("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n") ==
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
}

TEST_CASE("write_request_head: TE -> only `trailers`; Expect -> passed on") {
  CHECK(request_out("GET / HTTP/1.1\r\nHost: a\r\nTE: gzip;q=1, trailers\r\nConnection: te\r\n"
                    "Expect: 100-continue\r\n\r\n") ==
        "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTE: trailers\r\n\r\n");
}

// RFC 8470 5.1: added once, and never taken away by anybody on the way.
TEST_CASE("write_request_head: early data -> said once; what the client said stays") {
  const std::string_view plain = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
  CHECK(request_out(plain, {.early_data = true}) ==
        "GET / HTTP/1.1\r\nHost: a\r\nEarly-Data: 1\r\n\r\n");
  const std::string_view said = "GET / HTTP/1.1\r\nHost: a\r\nearly-data: 1\r\n\r\n";
  CHECK(request_out(said) == std::string(said));
  CHECK(request_out(said, {.early_data = true}) == std::string(said));
  CHECK(
      request_out("GET / HTTP/1.1\r\nHost: a\r\nConnection: early-data\r\nEarly-Data: 1\r\n\r\n") ==
      "GET / HTTP/1.1\r\nHost: a\r\nEarly-Data: 1\r\n\r\n");
  HeaderEdits edits;
  edits.remove = {"early-data"};
  CHECK(request_out(said, {.edits = &edits}) == std::string(said));
}

TEST_CASE("write_request_head: upgrade -> its two fields, and only when planned") {
  const std::string_view text =
      "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
      "Sec-WebSocket-Version: 13\r\n\r\n";
  CHECK(request_out(text, {.upgrade = true}) ==
        "GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n"
        "Connection: upgrade\r\n\r\n");
  CHECK(request_out(text) == "GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Version: 13\r\n\r\n");
}

constexpr std::string_view kForwardedRequest =
    "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\n"
    "X: y\r\nx-forwarded-for: 2.2.2.2\r\nForwarded: for=9.9.9.9\r\nX-Forwarded-Host: evil\r\n\r\n";

TEST_CASE("write_request_head: forwarding fields of an untrusted client -> replaced") {
  CHECK(request_out(kForwardedRequest, {.forwarded = {.client_ip = "192.0.2.7",
                                                      .scheme = "http",
                                                      .host = "a:80",
                                                      .forwarded = true}}) ==
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nX-Forwarded-For: 192.0.2.7\r\n"
        "X-Forwarded-Proto: http\r\nX-Forwarded-Host: a:80\r\n"
        "Forwarded: for=192.0.2.7;host=\"a:80\";proto=http\r\n\r\n");
}

TEST_CASE("write_request_head: forwarding fields of a trusted proxy -> appended to or kept") {
  CHECK(request_out(kForwardedRequest, {.forwarded = {.client_ip = "2001:db8::1",
                                                      .scheme = "http",
                                                      .host = "a",
                                                      .trusted = true,
                                                      .forwarded = true}}) ==
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nX: y\r\n"
        "X-Forwarded-Host: evil\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2, 2001:db8::1\r\n"
        "Forwarded: for=9.9.9.9, for=\"[2001:db8::1]\";host=a;proto=http\r\n\r\n");
}

TEST_CASE(
    "write_request_head: nothing known of the client -> its claims are dropped all the same") {
  CHECK(request_out(kForwardedRequest, {.forwarded = {.forwarded = true}}) ==
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n");
  CHECK(request_out(kForwardedRequest, {.forwarded = {.x_forwarded = false}}) ==
        std::string(kForwardedRequest));
}

TEST_CASE("write_request_head: edits -> remove, then set, then add") {
  HeaderEdits edits;
  edits.remove = {"x-a"};
  edits.set = {{"x-b", "new"}, {"x-forwarded-for", "hidden"}};
  edits.add = {{"x-c", "added"}, {"x-a", "again"}};
  CHECK(request_out("GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nX-B: 1\r\nX-C: 1\r\nx-b: 2\r\n\r\n",
                    {.forwarded = {.client_ip = "192.0.2.7"}, .edits = &edits}) ==
        "GET / HTTP/1.1\r\nHost: a\r\nX-C: 1\r\nx-b: new\r\nx-forwarded-for: hidden\r\n"
        "x-c: added\r\nx-a: again\r\n\r\n");
}

TEST_CASE("writers: CR, LF or NUL in anything that is written -> refused") {
  const std::string_view get = "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
  for (const std::string_view bad : {"a\rb"sv, "a\nb"sv, "a\r\nX: y"sv, "a\0b"sv, "a\x7f"sv}) {
    CHECK(request_out(get, {.path = bad}) == kRefused);
    CHECK(request_out(get, {.host = bad}) == kRefused);
    CHECK(request_out(get, {.forwarded = {.client_ip = bad}}) == kRefused);
    CHECK(request_out(get, {.forwarded = {.scheme = bad}}) == kRefused);
    CHECK(request_out(get, {.forwarded = {.host = bad}}) == kRefused);
    CHECK(request_out(get, {.forwarded = {.client_ip = "::",
                                          .host = bad,
                                          .x_forwarded = false,
                                          .forwarded = true}}) == kRefused);
    HeaderEdits edits;
    edits.set = {{"x", std::string(bad)}};
    CHECK(request_out(get, {.edits = &edits}) == kRefused);
    CHECK(response_out("HTTP/1.1 204 No\r\n\r\n", {.edits = &edits}) == kRefused);
  }
  CHECK(request_out(get, {.path = "/a b"}) == kRefused);
  CHECK(request_out(get, {.forwarded = {.client_ip = "a\"b", .forwarded = true}}) == kRefused);
}

// One that is plain is not looked at again.
TEST_CASE("write_request_head: a head that is not plain, whose bytes were changed -> refused") {
  const std::string text = "GET / HTTP/1.1\r\nHost: a\r\nX: yyyy\r\nY: z\r\n\r\n";
  for (const char bad : {'\r', '\n', '\0'}) {
    Parsed parsed = parse_all_ways(text);
    parsed.bytes[parsed.fields[1].value_at + 1] = bad;
    parsed.head.base = parsed.bytes.data();
    parsed.head.plain = false;
    CHECK(request_out(parsed, {}) == kRefused);
  }
}

TEST_CASE("writers: edits of framing fields -> refused") {
  for (const char* name : {"content-length", "transfer-encoding", "connection", "host", "te",
                           "upgrade", "keep-alive", "early-data", "X-Upper", "x y", ""}) {
    INFO(std::string(name));
    HeaderEdits edits;
    edits.add = {{name, "1"}};
    CHECK_FALSE(is_editable_field_name(name));
    CHECK(request_out("GET / HTTP/1.1\r\nHost: a\r\n\r\n", {.edits = &edits}) == kRefused);
  }
}

TEST_CASE("writers: a buffer too small by one byte -> refused, exact -> taken") {
  const Parsed parsed = parse_all_ways("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n");
  const RequestPlan plan{.body = BodyKind::kChunked, .forwarded = {.client_ip = "192.0.2.7"}};
  const std::string full = request_out(parsed, plan);
  CHECK(request_out(parsed, plan, full.size()) == full);
  for (size_t room = 0; room < full.size(); ++room) {
    CHECK(request_out(parsed, plan, room) == kRefused);
  }
}

TEST_CASE("write_response_head: fields, framing and our Connection") {
  const std::string_view text =
      "HTTP/1.0 200 Fine\r\nServer: x\r\nContent-Length: 3\r\nConnection: close, X-Hop\r\n"
      "X-Hop: 1\r\nSet-Cookie: a\r\nset-cookie: b\r\n\r\n";
  const std::string common = "HTTP/1.1 200 Fine\r\nServer: x\r\nSet-Cookie: a\r\nset-cookie: b\r\n";
  const ResponsePlan length{.body = BodyKind::kLength, .content_length = 3};
  CHECK(response_out(text, length) == common + "Content-Length: 3\r\n\r\n");
  ResponsePlan plan = length;
  plan.keep_alive = false;
  CHECK(response_out(text, plan) == common + "Content-Length: 3\r\nConnection: close\r\n\r\n");
  plan = length;
  plan.client_version_minor = 0;
  CHECK(response_out(text, plan) == common + "Content-Length: 3\r\nConnection: keep-alive\r\n\r\n");
  CHECK(response_out(text, {.body = BodyKind::kChunked}) ==
        common + "Transfer-Encoding: chunked\r\n\r\n");
  CHECK(response_out(text, {.body = BodyKind::kUntilClose}) ==
        common + "Connection: close\r\n\r\n");
  CHECK(response_out(text, {.body = BodyKind::kChunked, .client_version_minor = 0}) == kRefused);
  CHECK(response_out(text, {.content_length = 9, .has_content_length = true}) ==
        common + "Content-Length: 9\r\n\r\n");
}

TEST_CASE("write_response_head: 1xx and 204 -> neither framing nor, for 1xx, Connection") {
  CHECK(response_out("HTTP/1.1 103 Early Hints\r\nLink: x\r\nContent-Length: 4\r\n\r\n",
                     {.has_content_length = true, .keep_alive = false}) ==
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
  CHECK(response_out("HTTP/1.1 204\r\nTransfer-Encoding: chunked\r\n\r\n",
                     {.has_content_length = true}) == "HTTP/1.1 204 \r\n\r\n");
}

TEST_CASE("write_response_head: 101 -> Upgrade and Connection stay") {
  CHECK(response_out("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n"
                     "connection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
                     {.upgrade = true}, {.upgrade_forwarded = true}) ==
        "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\nUpgrade: websocket\r\n"
        "Connection: upgrade\r\n\r\n");
}

std::string own_out(const OwnResponse& response) {
  std::vector<char> buffer(1024);
  Out out(buffer);
  return write_own_response(response, out) ? std::string(out.written()) : kRefused;
}

TEST_CASE("write_own_response: body, HEAD, extra fields, no content") {
  CHECK(own_out({.status = 404, .body = "gone\n", .keep_alive = true}) ==
        "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\n"
        "Content-Length: 5\r\n\r\ngone\n");
  CHECK(own_out({.status = 503,
                 .body = "busy",
                 .content_type = "a/b",
                 .extra = "Retry-After: 1\r\nX: y\r\n",
                 .head_only = true}) ==
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: a/b\r\nContent-Length: 4\r\n"
        "Retry-After: 1\r\nX: y\r\nConnection: close\r\n\r\n");
  CHECK(own_out({.status = 204, .keep_alive = true}) == "HTTP/1.1 204 No Content\r\n\r\n");
  CHECK(own_out({.status = 302, .extra = "Location: /a\r\n", .keep_alive = true}) ==
        "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /a\r\n\r\n");
  CHECK(own_out({.status = 100}) == "HTTP/1.1 100 Continue\r\n\r\n");
  for (const std::string_view bad :
       {"X: y"sv, "X: y\n"sv, "X: y\r\n\r\n"sv, "\r\n"sv, "X: \0\r\n"sv, "X: y\r\nZ"sv}) {
    CHECK(own_out({.status = 400, .extra = bad}) == kRefused);
  }
  CHECK(own_out({.status = 400, .body = "x", .content_type = "a\r\nb"}) == kRefused);
  CHECK(own_out({.status = 99}) == kRefused);
}

TEST_CASE("reason_phrase: registered -> the phrase; others -> Unknown") {
  CHECK(reason_phrase(200) == "OK");
  CHECK(reason_phrase(431) == "Request Header Fields Too Large");
  CHECK(reason_phrase(599) == "Unknown");
  CHECK(reason_phrase(299) == "Unknown");
}

TEST_CASE("valid_field_name and valid_field_value: for configured fields") {
  CHECK(valid_field_name("x-a"));
  CHECK_FALSE(valid_field_name("X-A"));
  CHECK_FALSE(valid_field_name(""));
  CHECK_FALSE(valid_field_name("x:"));
  CHECK(valid_field_value(""));
  CHECK(valid_field_value("a\tb \xe4"));
  CHECK_FALSE(valid_field_value(" a"));
  CHECK_FALSE(valid_field_value("a\t"));
  CHECK_FALSE(valid_field_value("a\r\nb"));
  CHECK_FALSE(valid_field_value("a\0"sv));
}

TEST_CASE("round trip: a written request head parses to the same request") {
  const Parsed first = parse_all_ways(
      "PUT http://h:8080/a//b?c HTTP/1.1\r\nHost: H:8080\r\nA: 1\r\nB:2\r\nC:  3 \r\nD:\r\n"
      "Connection: x\r\nContent-Length: 10\r\n\r\n");
  const std::string text =
      request_out(first, {.body = first.head.body, .content_length = first.head.content_length});
  const Parsed second = parse_all_ways(text);
  REQUIRE(second.done());
  CHECK(second.head.head_len == text.size());
  CHECK(second.head.method == first.head.method);
  CHECK(second.path() == first.path());
  CHECK(second.text(second.head.query) == first.text(first.head.query));
  CHECK(second.text(second.head.authority) == first.text(first.head.authority));
  CHECK(second.head.body == first.head.body);
  CHECK(second.head.content_length == first.head.content_length);
  for (const char* name : {"a", "b", "c", "d"}) {
    const Field* const before = first.head.find(name);
    const Field* const after = second.head.find(name);
    REQUIRE(after != nullptr);
    CHECK(std::string(first.head.value(*before)) == std::string(second.head.value(*after)));
  }
}

TEST_CASE("write_request_head: own fields -> the client's go, in any spelling; ours are said") {
  const std::vector<std::string> names{"x-ssl-client-verify", "x-old"};
  OwnFields own;
  own.start(names);
  own.add("x-ssl-client-verify", "NONE");
  own.add("x-new", "1");
  const std::string head =
      "GET / HTTP/1.1\r\nHost: a\r\nX-SSL-Client-Verify: SUCCESS\r\nA: b\r\n"
      "X_SSL_CLIENT_VERIFY: SUCCESS\r\nx.ssl~client-verify: SUCCESS\r\nX-Old: 2\r\nX_New: 2\r\n"
      "X-SSL-Client-Verify2: c\r\nXSSLClientVerify: d\r\nx-ssl-client-verify:SUCCESS\r\n"
      "Connection: x-new, x-ssl-client-verify\r\n\r\n";
  const std::string kept =
      "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nX-SSL-Client-Verify2: c\r\nXSSLClientVerify: d\r\n";
  CHECK(request_out(head, {.own = &own}) == kept + "x-ssl-client-verify: NONE\r\nx-new: 1\r\n\r\n");
  // What the configuration removes or sets is its business.
  const HeaderEdits edits{
      .remove = {"x-new"}, .set = {{"x-ssl-client-verify", "hidden"}}, .add = {}};
  CHECK(request_out(head, {.own = &own, .edits = &edits}) ==
        kept + "x-ssl-client-verify: hidden\r\n\r\n");
  own.start(names);
  CHECK(request_out(head, {.own = &own}).find("SUCCESS") == std::string::npos);
  CHECK(request_out(head, {.own = &own}).find("X_New: 2") != std::string::npos);
  own.add("x-new", "a\r\nb");
  CHECK(request_out(head, {.own = &own}) == kRefused);
}

}  // namespace
}  // namespace ringway::http1
