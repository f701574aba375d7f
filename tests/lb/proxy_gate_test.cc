// tests/lb/proxy_gate_test.cc - whose PROXY header is believed, what it changes, what servers get.
#include "lb/proxy_gate.h"

#include "tests/lb/one_worker.h"

using namespace ringway;

namespace {

PeerAddress peer(const std::string& text) {
  ServerAddress address;
  REQUIRE(parse_address(text, address));
  return PeerAddress::from(*address.get());
}

const std::string kHeader = "PROXY TCP4 192.0.2.7 198.51.100.1 5555 443\r\n";

// With the clients of the simulation, which are at 127.0.0.1, as those to trust, or not.
std::string accept(const std::string& word, const std::string& from = "0.0.0.0/0") {
  return "proxy_protocol = { accept = \"" + word + "\", from = [\"" + from +
         "\"] }\ntimeouts.proxy_header = \"100ms\"\n";
}

uint64_t errors(OneWorker& world, ProxyError error) {
  uint64_t sum = 0;
  for (const Counter& counter : world.listener().proxy_errors) sum += counter.get();
  CHECK(sum == world.listener().proxy_errors[static_cast<size_t>(error)].get());
  return sum;
}

// Takes all that comes and sends back how it begins.
size_t echo(SimConnection& connection, std::string_view bytes) {
  connection.send(bytes);
  return bytes.size();
}

// Answers a request with its head, the PROXY header before it included.
size_t mirror(SimConnection& connection, std::string_view bytes) {
  const size_t end = bytes.find("\r\n\r\nGET");  // Not the signature of version 2.
  const size_t head_end = bytes.find("\r\n\r\n", end == std::string_view::npos ? 16 : end + 4);
  if (head_end == std::string_view::npos) return 0;
  const std::string body(bytes.substr(0, head_end + 4));
  connection.send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
                  body);
  return head_end + 4;
}

ProxyVerdict judge(config::ProxyAccept accept, std::string_view bytes,
                   ProxyInput input = ProxyInput::kBytes, bool trusted = true) {
  static config::ProxyProtocol config;
  config.accept = accept;
  config.from.resize(1);
  REQUIRE(Network::parse("10.0.0.0/8", config.from[0]));
  return judge_proxy_header(config, peer(trusted ? "10.0.0.1:1" : "11.0.0.1:1"), bytes, input);
}

}  // namespace

TEST_CASE("proxy gate: the table of who may send what") {
  using Kind = ProxyVerdict::Kind;
  constexpr auto kRequired = config::ProxyAccept::kRequired;
  constexpr auto kOptional = config::ProxyAccept::kOptional;
  CHECK(judge(kRequired, kHeader).kind == Kind::kHeader);
  CHECK(judge(kOptional, kHeader).kind == Kind::kHeader);
  CHECK(judge(kRequired, "", ProxyInput::kBytes, false).error == ProxyError::kUntrusted);
  CHECK(judge(kOptional, "", ProxyInput::kBytes, false).kind == Kind::kWait);
  // A whole signature is enough to know.
  CHECK(judge(kOptional, "PROXY", ProxyInput::kBytes, false).kind == Kind::kWait);
  CHECK(judge(kOptional, "PROXY ", ProxyInput::kBytes, false).error == ProxyError::kUntrusted);
  CHECK(judge(kOptional, "GET", ProxyInput::kBytes, false).kind == Kind::kNone);
  CHECK(judge(kRequired, "GET").error == ProxyError::kMissing);
  CHECK(judge(kOptional, "GET").kind == Kind::kNone);
  for (const auto accept : {kRequired, kOptional}) {
    CHECK(judge(accept, "PROXY x\r\n").error == ProxyError::kUnsupported);
    CHECK(judge(accept, "PROXY TCP4 x\r\n").error == ProxyError::kMalformed);
    CHECK(judge(accept, "PROXY " + std::string(200, 'x')).error == ProxyError::kTooLong);
    CHECK(judge(accept, "PROXY TC", ProxyInput::kEnd).error == ProxyError::kTruncated);
    CHECK(judge(accept, "PROXY TC", ProxyInput::kLate).error == ProxyError::kTimeout);
    CHECK(judge(accept, "P", ProxyInput::kLate).error == ProxyError::kTimeout);
  }
  CHECK(judge(kRequired, "", ProxyInput::kEnd).kind == Kind::kWait);
  CHECK(judge(kRequired, "P", ProxyInput::kEnd).error == ProxyError::kTruncated);
  CHECK(judge(kRequired, "", ProxyInput::kLate).error == ProxyError::kTimeout);
  CHECK(judge(kOptional, "", ProxyInput::kEnd).kind == Kind::kNone);
  CHECK(judge(kOptional, "P", ProxyInput::kEnd).kind == Kind::kNone);
  CHECK(judge(kOptional, "", ProxyInput::kLate).kind == Kind::kNone);
  CHECK(judge(config::ProxyAccept::kOff, kHeader, ProxyInput::kBytes, false).kind == Kind::kNone);
}

TEST_CASE("proxy gate: a reload switches headers off while clients are asked for one -> served") {
  for (const bool tcp : {false, true}) {
    OneWorker world({tcp ? ServerScript(echo) : mirror}, "", accept("required"), tcp);
    SimConnection& client = world.client({});
    world.run(20);
    world.set_listener("");
    world.apply("");
    client.send(kGet);
    world.run(50);
    CHECK(count_of(client.received(), "GET / HTTP/1.1") == 1);
    SimConnection& silent = world.client({});
    world.run(50);
    CHECK(!silent.ended());
  }
}

TEST_CASE("proxy gate: clients of unix sockets -> trusted by the word \"unix\" alone") {
  config::ProxyProtocol config{.accept = config::ProxyAccept::kRequired, .from = {}};
  config.from.resize(1);
  REQUIRE(Network::parse("0.0.0.0/0", config.from[0]));
  CHECK(judge_proxy_header(config, {}, kHeader, ProxyInput::kBytes).error ==
        ProxyError::kUntrusted);
  config.from_unix = true;
  CHECK(judge_proxy_header(config, {}, kHeader, ProxyInput::kBytes).kind ==
        ProxyVerdict::Kind::kHeader);
}

TEST_CASE("proxy gate: a carried address that is a mapped IPv4 one -> the IPv4 one") {
  const proxy::Parsed parsed =
      proxy::parse("PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 5555 443\r\n", 4096);
  REQUIRE(parsed.status == proxy::Status::kDone);
  CHECK(carried_client(parsed.header, {}) == peer("192.0.2.7:5555"));
  CHECK(carried_destination(parsed.header, {}) == peer("[2001:db8::1]:443"));
  const proxy::Parsed unknown = proxy::parse("PROXY UNKNOWN\r\n", 4096);
  CHECK(carried_client(unknown.header, peer("10.0.0.1:1")) == peer("10.0.0.1:1"));
}

TEST_CASE("proxy gate: headers for servers -> both families, mixed ones as IPv6") {
  Slab<TlvRoom> rooms(1);
  ClientOrigin origin(peer("198.51.100.1:443"), rooms);
  std::array<char, ClientOrigin::kHeaderBytes> out;
  const auto v1 = [&](const PeerAddress& client) {
    return write_proxy_header(config::ProxySend::kV1, {}, client, origin, out);
  };
  CHECK(v1(peer("192.0.2.7:5555")) == kHeader);
  CHECK(v1(peer("[2001:db8::7]:5555")) ==
        "PROXY TCP6 2001:db8::7 ::ffff:198.51.100.1 5555 443\r\n");
  CHECK(v1({}) == "PROXY UNKNOWN\r\n");
  CHECK(write_own_proxy_header(config::ProxySend::kV1, out) == "PROXY UNKNOWN\r\n");
  CHECK(write_own_proxy_header(config::ProxySend::kOff, out).empty());
}

TEST_CASE("proxy gate: TLVs -> only those that were asked for, and nothing when there is no room") {
  Slab<TlvRoom> rooms(1);
  ClientOrigin origin(peer("198.51.100.1:443"), rooms);
  CHECK(origin.find(proxy::Tlv::kAlpn).empty());
  REQUIRE(origin.add(proxy::Tlv::kAuthority, "a.example"));
  REQUIRE(origin.add(proxy::Tlv::kAlpn, "h2"));
  CHECK_FALSE(origin.add(proxy::Tlv::kSsl, std::string(TlvRoom::kBytes, 'x')));
  CHECK(origin.find(proxy::Tlv::kSsl).empty());
  ClientOrigin other(peer("198.51.100.1:443"), rooms);
  CHECK_FALSE(other.add(proxy::Tlv::kAlpn, "h2"));  // No second room.
  std::array<char, ClientOrigin::kHeaderBytes> out;
  const std::string_view header =
      write_proxy_header(config::ProxySend::kV2, {.authority = true, .crc32c = true},
                         peer("192.0.2.7:5555"), origin, out);
  const proxy::Parsed parsed = proxy::parse(header, 4096);
  REQUIRE(parsed.status == proxy::Status::kDone);
  CHECK(parsed.header.checksum);
  CHECK(proxy::find_tlv(parsed.header.tlvs, proxy::Tlv::kAuthority) == "a.example");
  CHECK(proxy::find_tlv(parsed.header.tlvs, proxy::Tlv::kAlpn).empty());
}

// A TLV as it stands in a header.
static std::string tlv(unsigned type, const std::string& value) {
  return std::string(1, static_cast<char>(type)) + static_cast<char>(value.size() >> 8) +
         static_cast<char>(value.size()) + value;
}

TEST_CASE("proxy gate: TLVs of the client's header -> kept, once a type, the known ones first") {
  Slab<TlvRoom> rooms(4);
  const PeerAddress to = peer("198.51.100.1:443");
  const std::string known = tlv(1, "h2") + tlv(2, "a.example") + tlv(5, "id") +
                            tlv(0x20,
                                "\x01"
                                "0000");
  const std::string custom = tlv(0xe0, "x") + tlv(0xef, std::string(2, '\0'));
  {
    ClientOrigin origin(to, rooms);
    // Noop, an empty one, repeated ones, one of an unknown type and of those for experiments.
    origin.keep_tlvs(tlv(4, "noop") + custom + tlv(0xe1, "") + tlv(0xe0, "again") + tlv(0xdf, "a") +
                     tlv(0xf0, "b") + tlv(0x30, "blue") + known + tlv(1, "http/1.1"));
    CHECK(origin.carried_tlvs() == known + tlv(0x30, "blue") + custom);
    CHECK(origin.custom_tlvs() == custom);
    CHECK(origin.find(proxy::Tlv::kNetns) == "blue");
  }
  {  // One custom TLV too long takes no room of the known ones, which stand behind it.
    ClientOrigin origin(to, rooms);
    origin.keep_tlvs(tlv(0xe0, std::string(TlvRoom::kCarriedBytes - 4, 'x')) + tlv(0xe1, "y") +
                     known);
    CHECK(origin.carried_tlvs() == known + tlv(0xe1, "y"));
  }
  {  // However much the header says, there is room for what we say.
    ClientOrigin origin(to, rooms);
    origin.keep_tlvs(tlv(0xe0, std::string(TlvRoom::kCarriedBytes - 3, 'x')));
    CHECK(origin.carried_tlvs().size() == TlvRoom::kCarriedBytes);
    CHECK(origin.set(proxy::Tlv::kAuthority, std::string(255, 'n')));
    CHECK(origin.set(proxy::Tlv::kUniqueId, std::string(32, 'i')));
  }
  ClientOrigin none(to, rooms);
  none.keep_tlvs("");
  CHECK(none.carried_tlvs().empty());
  CHECK(none.custom_tlvs().empty());
}

TEST_CASE("proxy gate: what we say ourselves -> holds instead of the header's, which stays known") {
  Slab<TlvRoom> rooms(1);
  ClientOrigin origin(peer("198.51.100.1:443"), rooms);
  const std::string said = tlv(1, "h2") + tlv(2, "a.example") + tlv(5, "id") + tlv(0xe3, "c");
  origin.keep_tlvs(said);
  CHECK(origin.set(proxy::Tlv::kAuthority, "b.example"));
  CHECK(origin.find(proxy::Tlv::kAuthority) == "b.example");
  CHECK(origin.set(proxy::Tlv::kAuthority, "c.example"));
  CHECK(origin.find(proxy::Tlv::kAuthority) == "c.example");
  CHECK(origin.find(proxy::Tlv::kAlpn) == "h2");
  origin.forget(proxy::Tlv::kAuthority);
  CHECK(origin.find(proxy::Tlv::kAuthority) == "a.example");
  // Our TLS with the client has no ALPN: that of another connection is none of it.
  origin.tls_kept = true;
  CHECK(origin.find(proxy::Tlv::kAlpn).empty());
  CHECK(origin.find(proxy::Tlv::kAuthority).empty());
  CHECK(origin.find(proxy::Tlv::kUniqueId) == "id");
  CHECK(origin.carried_tlvs() == said);
  std::array<char, ClientOrigin::kHeaderBytes> out;
  const auto written = [&](const config::ProxyTlvs& tlvs) {
    const std::string_view header =
        write_proxy_header(config::ProxySend::kV2, tlvs, peer("192.0.2.7:5555"), origin, out);
    return std::string(proxy::parse(header, 4096).header.tlvs);
  };
  CHECK(written({.alpn = true, .authority = true, .unique_id = true}) == tlv(5, "id"));
  CHECK(written({.netns = true, .custom = true}) == tlv(0xe3, "c"));
}

TEST_CASE("ClientConn: a PROXY header, at once or byte by byte -> its address in X-Forwarded-For") {
  OneWorker world({mirror}, "", accept("required"));
  const std::string at_once = world.ask(kHeader + kGet + kGet);
  CHECK(count_of(at_once, "X-Forwarded-For: 192.0.2.7\r\n") == 2);
  std::vector<std::string> bytes;
  for (const char c : kHeader + kGet) bytes.emplace_back(1, c);
  SimConnection& slow = world.client(bytes);
  world.run(90);  // All of the header is there within its time.
  world.run(100);
  CHECK(count_of(slow.received(), "X-Forwarded-For: 192.0.2.7\r\n") == 1);
  CHECK(errors(world, ProxyError::kMissing) == 0);
}

TEST_CASE("ClientConn: a carried address -> what trusted_proxies is asked about") {
  OneWorker world({mirror}, "", accept("required") + "trusted_proxies = [\"192.0.2.0/24\"]\n");
  const std::string get = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n";
  CHECK(count_of(world.ask(kHeader + get), "203.0.113.9, 192.0.2.7") == 1);
  const std::string other = "PROXY TCP4 192.1.2.7 198.51.100.1 5555 443\r\n";
  CHECK(count_of(world.ask(other + get), "203.0.113.9") == 0);
}

TEST_CASE("ClientConn: bad PROXY headers -> closed, counted by reason, and no server sees a byte") {
  struct Bad {
    const char* accept;
    const char* from;
    std::string bytes;
    ProxyError error;
  };
  const Bad bads[] = {
      {"required", "192.168.0.0/16", kHeader, ProxyError::kUntrusted},
      {"optional", "192.168.0.0/16", kHeader, ProxyError::kUntrusted},
      {"required", "0.0.0.0/0", "", ProxyError::kMissing},
      {"optional", "0.0.0.0/0", "PROXY TCP4 1 2 3 4\r\n", ProxyError::kMalformed},
      {"optional", "0.0.0.0/0", "PROXY " + std::string(120, 'x'), ProxyError::kTooLong},
      {"required", "0.0.0.0/0", "PROXY UDP4 1 2 3 4\r\n", ProxyError::kUnsupported},
  };
  for (const bool tcp : {false, true}) {
    for (const Bad& bad : bads) {
      CAPTURE(bad.bytes);
      OneWorker world({tcp ? ServerScript(echo) : answers("one")}, "", accept(bad.accept, bad.from),
                      tcp);
      SimConnection& client = world.client({bad.bytes + kGet});
      world.run(50);
      CHECK(client.received() == "");
      CHECK(client.ended());
      CHECK(errors(world, bad.error) == 1);
      CHECK(world.server(0).connects.get() == 0);
    }
  }
}

TEST_CASE("ClientConn: half a header, then silence or an end -> closed in time") {
  for (const bool tcp : {false, true}) {
    OneWorker world({tcp ? ServerScript(echo) : answers("one")}, "", accept("required"), tcp);
    SimConnection& silent = world.client({"PROXY TCP4 1"});
    world.run(50);
    CHECK(!silent.ended());
    world.run(100);
    CHECK(silent.ended());
    CHECK(errors(world, ProxyError::kTimeout) == 1);
    CHECK(world.listener().timeouts.get() == 1);
    SimConnection& cut = world.client({"PROXY TCP4 1"});
    world.run(20);
    cut.finish();
    world.run(20);
    CHECK(cut.ended());
    CHECK(world.listener().proxy_errors[static_cast<size_t>(ProxyError::kTruncated)].get() == 1);
    // A port check that says nothing is nobody's error.
    SimConnection& probe = world.client({});
    world.run(20);
    probe.finish();
    world.run(20);
    CHECK(probe.ended());
    CHECK(world.listener().proxy_errors[static_cast<size_t>(ProxyError::kTruncated)].get() == 1);
    CHECK(world.server(0).connects.get() == 0);
  }
}

TEST_CASE("ClientConn: optional and none -> served with the address it has, also after a silence") {
  OneWorker world({mirror}, "", accept("optional"));
  CHECK(count_of(world.ask(kGet), "X-Forwarded-For: 127.0.0.1") == 1);
  SimConnection& silent = world.client({});
  world.run(150);
  CHECK(!silent.ended());
  silent.send(kGet);
  world.run(50);
  CHECK(count_of(silent.received(), "HTTP/1.1 200") == 1);
  CHECK(errors(world, ProxyError::kTimeout) == 0);
}

TEST_CASE("ClientConn: only a header, then silence -> the deadline of a first head holds") {
  OneWorker world({mirror}, "", accept("required") + "timeouts.request_headers = \"200ms\"\n");
  SimConnection& client = world.client({kHeader});
  world.run(150);
  CHECK(!client.ended());
  world.run(150);
  CHECK(client.ended());
  CHECK(world.listener().timeouts.get() == 1);
}

TEST_CASE("L4Session: optional and silent -> connected after the time for a header") {
  OneWorker world({echo}, "", accept("optional"), true);
  SimConnection& client = world.client({});
  world.run(50);
  CHECK(world.server(0).connects.get() == 0);
  world.run(100);
  CHECK(world.server(0).connects.get() == 1);
  client.send("late");
  world.run(50);
  CHECK(client.received() == "late");
}

TEST_CASE("L4Session: the carried address is passed on, header first, then the client's bytes") {
  OneWorker world({echo}, "send_proxy_protocol = \"v1\"\n", accept("required"), true);
  CHECK(world.ask(kHeader + "abc") == kHeader + "abc");
  // Without a byte of the client the server is greeted as well.
  CHECK(world.ask(kHeader) == kHeader);
  // UNKNOWN: the connection's own ends.
  const std::string own = world.ask("PROXY UNKNOWN\r\nabc");
  CHECK(own.starts_with("PROXY TCP4 127.0.0.1 10.0.0.1 "));
  CHECK(own.ends_with(" 80\r\nabc"));
}

TEST_CASE("L4Session: TLVs of the client's header -> passed on with a unique id made here") {
  OneWorker world({echo},
                  "send_proxy_protocol = \"v2\"\n"
                  "send_proxy_tlvs = [\"alpn\", \"authority\", \"unique_id\", \"crc32c\"]\n",
                  accept("required"), true);
  std::array<char, 512> out;
  proxy::Plan plan{.family = proxy::Family::kIPv4, .alpn = "h2", .authority = "a.example"};
  plan.source.ip[0] = 1;
  plan.destination.ip[0] = 2;
  const std::string sent(proxy::write_v2(plan, out));
  const std::string first = world.ask(sent + "abc");
  const std::string second = world.ask(sent + "abc");
  const proxy::Parsed parsed = proxy::parse(first, 4096);
  REQUIRE(parsed.status == proxy::Status::kDone);
  CHECK(parsed.header.checksum);
  CHECK(parsed.header.source.ip == plan.source.ip);
  CHECK(first.substr(parsed.header.length) == "abc");
  CHECK(proxy::find_tlv(parsed.header.tlvs, proxy::Tlv::kAlpn) == "h2");
  CHECK(proxy::find_tlv(parsed.header.tlvs, proxy::Tlv::kAuthority) == "a.example");
  const std::string_view id = proxy::find_tlv(parsed.header.tlvs, proxy::Tlv::kUniqueId);
  CHECK(id.size() == 32);
  const proxy::Parsed again = proxy::parse(second, 4096);
  CHECK(proxy::find_tlv(again.header.tlvs, proxy::Tlv::kUniqueId) != id);
}

TEST_CASE("proxy gate: whose header can be nobody else's") {
  constexpr auto kV1 = config::ProxySend::kV1;
  constexpr auto kV2 = config::ProxySend::kV2;
  Slab<TlvRoom> rooms{4};
  const PeerAddress ip{.ip = {192, 0, 2, 7}, .port = 5, .family = PeerAddress::Family::kIPv4};
  ClientOrigin origin(ip, rooms);
  ClientOrigin unix_origin({}, rooms);
  // The ends of the client's own socket.
  CHECK(is_own_header(kV1, {}, ip, origin));
  CHECK(is_own_header(kV2, {.crc32c = true}, ip, origin));
  // No addresses: all say the same.
  CHECK_FALSE(is_own_header(kV1, {}, {}, unix_origin));
  CHECK_FALSE(is_own_header(kV2, {}, ip, unix_origin));
  CHECK_FALSE(is_own_header(kV2, {}, {}, origin));
  // A header that came may come again; an identifier does not.
  origin.carried = true;
  CHECK_FALSE(is_own_header(kV1, {}, ip, origin));
  CHECK_FALSE(is_own_header(kV2, {.authority = true, .ssl = true}, ip, origin));
  CHECK(is_own_header(kV2, {.unique_id = true}, ip, origin));
  CHECK(is_own_header(kV2, {.unique_id = true}, {}, unix_origin));
}

TEST_CASE("Exchange: send_proxy_protocol -> equal headers share as `reuse` says, others never do") {
  const std::string other = "PROXY TCP4 192.0.2.8 198.51.100.1 5555 443\r\n";
  const std::string port = "PROXY TCP4 192.0.2.7 198.51.100.1 5556 443\r\n";
  // After two requests the connection is proven, so all but these let a first request take it.
  for (const auto& [reuse, shares] :
       {std::pair{"safe", false}, std::pair{"aggressive", true}, std::pair{"always", true},
        std::pair{"auto", true}, std::pair{"never", false}}) {
    CAPTURE(reuse);
    OneWorker world({mirror},
                    "send_proxy_protocol = \"v1\"\npool.reuse = \"" + std::string(reuse) + "\"\n",
                    accept("required"));
    SimConnection& one = world.client({kHeader + kGet});
    world.run(50);
    one.send(kGet);
    world.run(50);
    // One connection, one header, two requests.
    CHECK(count_of(one.received(), "HTTP/1.1 200") == 2);
    CHECK(count_of(one.received(), kHeader) == 1);
    CHECK(world.server(0).connects.get() == 1);
    CHECK(count_of(world.ask(other + kGet), other) == 1);
    CHECK(count_of(world.ask(port + kGet), port) == 1);
    CHECK(world.server(0).connects.get() == 3);
    // The same header once more: it is sent, or its connection has begun with it already.
    const std::string again = world.ask(kHeader + kGet);
    CHECK(count_of(again, "HTTP/1.1 200") == 1);
    CHECK(count_of(again, kHeader) == (shares ? 0 : 1));
    CHECK(world.server(0).connects.get() == (shares ? 3 : 4));
    one.finish();
    world.run(50);
    const bool own = std::string_view(reuse) == "never";
    CHECK(world.server(0).pool.closed[static_cast<size_t>(CloseReason::kSessionEnd)].get() ==
          (own ? 1 : 0));
  }
}

TEST_CASE("Exchange: send_proxy_protocol with a client's own ends, or an identifier -> its alone") {
  for (const bool carried : {false, true}) {
    CAPTURE(carried);
    const std::string plan =
        carried ? "send_proxy_protocol = \"v2\"\nsend_proxy_tlvs = [\"unique_id\"]\n"
                : "send_proxy_protocol = \"v1\"\n";
    const std::string head = carried ? kHeader : "";
    OneWorker world({mirror}, plan + "pool.reuse = \"always\"\n",
                    carried ? accept("required") : "");
    SimConnection& one = world.client({head + kGet});
    world.run(50);
    one.send(kGet);
    world.run(50);
    CHECK(count_of(one.received(), "HTTP/1.1 200") == 2);
    CHECK(world.server(0).connects.get() == 1);
    CHECK(count_of(world.ask(head + kGet), "HTTP/1.1 200") == 1);
    CHECK(world.server(0).connects.get() == 2);
    // Gone with its client.
    one.finish();
    world.run(50);
    CHECK(world.server(0).pool.closed[static_cast<size_t>(CloseReason::kSessionEnd)].get() == 1);
    CHECK(world.server(0).pool.places[static_cast<size_t>(Place::kIdleSafe)].get() == 0);
  }
}

TEST_CASE(
    "Exchange: a connection with a header is found dead -> the fresh one has a header as well") {
  uint64_t asked = 0;
  OneWorker world({[&](SimConnection& connection, std::string_view bytes) -> size_t {
                    // The second request finds its connection being closed.
                    const size_t used = asked == 1 ? bytes.size() : mirror(connection, bytes);
                    if (used > 0 && ++asked == 2) connection.close();
                    return used;
                  }},
                  "send_proxy_protocol = \"v1\"\n", accept("required"));
  SimConnection& client = world.client({kHeader + kGet});
  world.run(50);
  client.send(kGet);
  world.run(50);
  CHECK(asked == 3);
  CHECK(count_of(client.received(), "HTTP/1.1 200") == 2);
  CHECK(count_of(client.received(), kHeader) == 2);
  CHECK(world.server(0).connects.get() == 2);
  CHECK(world.server(0).stale.get() == 1);
}

TEST_CASE(
    "Exchange: a reload that changes send_proxy_protocol -> no connection of before is used") {
  OneWorker world({mirror}, "", "");
  SimConnection& client = world.client({kGet});
  world.run(50);
  world.apply("send_proxy_protocol = \"v1\"\n");
  client.send(kGet);
  world.run(50);
  CHECK(count_of(client.received(), "PROXY TCP4 127.0.0.1 10.0.0.1 ") == 1);
  CHECK(world.server(0).connects.get() == 2);
  world.apply("");
  client.send(kGet);
  world.run(50);
  // The first one is still there; it never carried a header.
  CHECK(count_of(client.received(), "PROXY TCP4 127.0.0.1 10.0.0.1 ") == 1);
  CHECK(count_of(client.received(), "HTTP/1.1 200") == 3);
  CHECK(world.server(0).connects.get() == 2);
}
