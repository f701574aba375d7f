// tests/proto/websocket_test.cc - which requests ask for a WebSocket, and what proves the answer.
#include "proto/websocket.h"

#include <array>
#include <string>

#include "proto/http1_write.h"
#include "tests/proto/http1_parse.h"

namespace ringway::http1 {
namespace {

constexpr const char* kKey = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

Parsed request(const std::string& fields, const std::string& method = "GET") {
  Parsed parsed = parse_cut(method + " / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n", {}, {});
  REQUIRE(parsed.done());
  return parsed;
}

TEST_CASE("is_websocket: GET with both fields, and nothing else is asked for") {
  const std::string both = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n";
  CHECK(is_websocket(request(both).head));
  CHECK_FALSE(is_websocket(request("Upgrade: websocket\r\n").head));
  CHECK_FALSE(is_websocket(request("Connection: upgrade\r\n").head));
  CHECK_FALSE(is_websocket(request("Connection: upgrade\r\nUpgrade: other\r\n").head));
  CHECK_FALSE(is_websocket(request("Connection: upgrade\r\nUpgrade: websocket, other\r\n").head));
  CHECK_FALSE(is_websocket(request(both + "Upgrade: other\r\n").head));
  CHECK_FALSE(is_websocket(request(both, "OPTIONS").head));
  CHECK_FALSE(is_websocket(request(both + "Content-Length: 1\r\n").head));
}

TEST_CASE("websocket_key: 16 bytes in base64, or nothing") {
  CHECK(websocket_key(request(kKey).head) == "dGhlIHNhbXBsZSBub25jZQ==");
  CHECK(websocket_key(request("").head).empty());
  CHECK(websocket_key(request("Sec-WebSocket-Key: short\r\n").head).empty());
  CHECK(websocket_key(request("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQAA\r\n").head).empty());
}

TEST_CASE("websocket_accept: the example of RFC 6455 1.3") {
  std::array<char, kWebSocketAcceptBytes + 1> out;
  CHECK(websocket_accept("dGhlIHNhbXBsZSBub25jZQ==", out) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

TEST_CASE("write_websocket_response: what an HTTP/2 server's 200 says as a 101") {
  const Parsed parsed =
      parse_cut("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSec-WebSocket-Protocol: chat\r\n\r\n", {},
                {.response = true});
  REQUIRE(parsed.done());
  std::vector<char> buffer(4096);
  Out out(buffer);
  CHECK(write_websocket_response(parsed.head, "abc", false, out));
  CHECK(out.written() ==
        "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Protocol: chat\r\nUpgrade: websocket\r\n"
        "Connection: upgrade\r\nSec-WebSocket-Accept: abc\r\n\r\n");
  const Parsed proven =
      parse_cut("HTTP/1.1 200 OK\r\nSec-WebSocket-Accept: theirs\r\n\r\n", {}, {.response = true});
  REQUIRE(proven.done());
  Out refused(buffer);
  CHECK_FALSE(write_websocket_response(proven.head, "abc", false, refused));
}

}  // namespace
}  // namespace ringway::http1
