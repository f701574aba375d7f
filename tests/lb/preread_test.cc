// tests/lb/preread_test.cc - TCP sessions routed by what their TLS hello asks for.
#include <doctest/doctest.h>

#include "lb/l4_session.h"
#include "tests/lb/one_worker.h"

using namespace ringway;

namespace {

std::string number(size_t value, size_t bytes) {
  std::string out;
  for (size_t i = bytes; i-- > 0;) out += static_cast<char>(value >> 8 * i);
  return out;
}

// A hello for `name` (empty: for none) that offers "h2", in records of `bytes` bytes.
std::string hello(const std::string& name, size_t bytes = 1 << 14) {
  std::string extensions = number(16, 2) + number(5, 2) + number(3, 2) + "\2h2";
  if (!name.empty()) {
    extensions += number(0, 2) + number(name.size() + 5, 2) + number(name.size() + 3, 2) +
                  std::string(1, '\0') + number(name.size(), 2) + name;
  }
  const std::string body = "\3\3" + std::string(32, 'r') + std::string(1, '\0') + number(2, 2) +
                           "\x13\1" + std::string("\1\0", 2) + number(extensions.size(), 2) +
                           extensions;
  const std::string text = "\1" + number(body.size(), 3) + body;
  std::string out;
  for (size_t at = 0; at < text.size(); at += bytes) {
    const std::string part = text.substr(at, bytes);
    out += "\x16\3\1" + number(part.size(), 2) + part;
  }
  return out;
}

// Each server puts its number before what it sends back.
ServerScript numbered(const std::string& number) {
  return [number](SimConnection& connection, std::string_view bytes) -> size_t {
    connection.send(number + std::string(bytes));
    return bytes.size();
  };
}

// The first server is the one of the route without `sni`; the second of "a.example" and the names
// below "b.example".
const std::string kNamed =
    "[upstreams.named]\nprotocol = \"tcp\"\nservers = [{ address = \"10.0.1.2:80\" }]\n";
const std::string kPreread =
    "preread = { sni = true, timeout = \"100ms\", hello_bytes = \"1KiB\" }\n";
const std::string kRoutes =
    "\n[[routes]]\nname = \"named\"\nmatch = { sni = [\"a.example\", \"*.b.example\"] }\n"
    "upstream = \"named\"\n";

std::vector<ServerScript> two_servers() {
  return {numbered("0"), numbered("1")};
}

uint64_t errors(OneWorker& world, PrereadError error) {
  return world.listener().preread_errors[static_cast<size_t>(error)].get();
}

}  // namespace

TEST_CASE("preread: the name decides, whatever its case; the bytes come unchanged") {
  OneWorker world(two_servers(), kNamed, kPreread + kRoutes, true);
  for (const std::string name : {"a.example", "A.Example", "x.b.example", "x.y.b.example"}) {
    CHECK(world.ask(hello(name) + "rest") == "1" + hello(name) + "rest");
  }
  for (const std::string name : {"b.example", "aa.example", "example", ""}) {
    CHECK(world.ask(hello(name) + "rest") == "0" + hello(name) + "rest");
  }
  CHECK(world.ask("GET / HTTP/1.1\r\n\r\n") == "0GET / HTTP/1.1\r\n\r\n");
}

TEST_CASE("preread: single bytes, and records of any size -> the same") {
  OneWorker world(two_servers(), kNamed, kPreread + kRoutes, true);
  for (const size_t size : {1, 7, 1000}) {
    const std::string text = hello("a.example", size);
    CHECK(world.ask(text) == "1" + text);
  }
  const std::string text = hello("a.example");
  std::vector<std::string> bytes;
  for (const char c : text.substr(0, 60)) bytes.emplace_back(1, c);
  bytes.push_back(text.substr(60));
  SimConnection& slow = world.client(bytes);
  world.run(150);
  CHECK(slow.received() == "1" + text);
}

TEST_CASE("preread: no whole hello -> closed and counted, and no server is connected to") {
  OneWorker world(two_servers(), kNamed, kPreread + kRoutes, true);
  SimConnection& half = world.client({hello("a.example").substr(0, 30)});
  SimConnection& silent = world.client({});
  SimConnection& cut = world.client({hello("a.example").substr(0, 30)});
  SimConnection& wrong = world.client({"\x16\3\1" + number(5, 2) + "\2\0\0\1x"});
  SimConnection& large = world.client({"\x16\3\1" + number(2000, 2) + "\1" + number(1996, 3)});
  world.run(50);
  cut.finish();
  CHECK(wrong.ended());
  CHECK(large.ended());
  CHECK(!half.ended());
  CHECK(!silent.ended());
  world.run(100);
  CHECK(half.ended());
  CHECK(silent.ended());
  CHECK(cut.ended());
  CHECK(errors(world, PrereadError::kTimeout) == 2);
  CHECK(errors(world, PrereadError::kTruncated) == 1);
  CHECK(errors(world, PrereadError::kMalformed) == 1);
  CHECK(errors(world, PrereadError::kTooLong) == 1);
  CHECK(world.server(0).connects.get() == 0);
}

TEST_CASE("preread: behind a PROXY header, and the name goes on as AUTHORITY") {
  const std::string accept = "proxy_protocol = { accept = \"required\", from = [\"0.0.0.0/0\"] }\n";
  OneWorker world({numbered("0"),
                   [](SimConnection& connection, std::string_view bytes) -> size_t {
                     connection.send(bytes);
                     return bytes.size();
                   }},
                  kNamed + "send_proxy_protocol = \"v2\"\nsend_proxy_tlvs = [\"authority\"]\n",
                  kPreread + accept + kRoutes, true);
  std::array<char, 256> out;
  proxy::Plan plan{.family = proxy::Family::kIPv4, .authority = "other"};
  plan.source.ip[0] = 192;
  const std::string header(proxy::write_v2(plan, out));
  const std::string got = world.ask(header + hello("a.example"));
  const proxy::Parsed parsed = proxy::parse(got, 4096);
  REQUIRE(parsed.status == proxy::Status::kDone);
  CHECK(parsed.header.source.ip == plan.source.ip);
  // What the hello says is what the server will see; nothing else is said beside it.
  CHECK(proxy::find_tlv(parsed.header.tlvs, proxy::Tlv::kAuthority) == "a.example");
  CHECK(count_of(parsed.header.tlvs, "other") == 0);
  CHECK(got.substr(parsed.header.length) == hello("a.example"));
}
