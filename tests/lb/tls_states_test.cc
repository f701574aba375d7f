// tests/lb/tls_states_test.cc - TLS on both sides of one worker: what ends a handshake, and when.
#include <doctest/doctest.h>

#include "tests/lb/one_worker.h"
#include "tests/support/make_certificate.h"
#include "tests/support/sim_tls.h"

using namespace ringway;

namespace {

using test::KeyKind;
using test::MadeCertificate;

const std::string kProfile =
    "\n[tls.certificates]\nc = { pem = \"/c.pem\" }\n[tls.profiles.p]\ncertificates = \"c\"\n";
const std::string kTimeout = "timeouts = { tls_handshake = \"100ms\" }\n";

MadeCertificate self_signed() {
  return test::make_certificate(
      {.common_name = "c", .names = {"a.test"}, .key = KeyKind::kEd25519});
}

// One profile with `certificate`; servers are to be signed by `authority`, if it is not null.
std::shared_ptr<const TlsMaterials> materials(const MadeCertificate& certificate,
                                              const MadeCertificate* authority = nullptr) {
  auto loaded = load_certificate({certificate.cert_pem, certificate.key_pem});
  REQUIRE(loaded.has_value());
  std::vector<std::shared_ptr<const TlsCertificate>> all = {
      std::make_shared<const TlsCertificate>(std::move(*loaded))};
  auto made = std::make_shared<TlsMaterials>();
  made->profiles.push_back(
      {.names = std::make_shared<const TlsNames>(std::move(all)), .keys = TlsTicketKeys::random()});
  made->upstreams.resize(2);
  if (authority == nullptr) return made;
  made->upstreams[0].trust =
      std::make_shared<const TlsTrustText>(TlsTrustText{authority->cert_pem, ""});
  return made;
}

// A client of a TLS listener with `text` behind its bind.
struct TlsListener {
  explicit TlsListener(const std::string& text, bool tcp = false, const std::string& more = "")
      : world({answers("ok")}, more, text, tcp, materials(certificate)),
        clients(std::make_unique<SimTlsStore>(world.net, "")),
        others(std::make_unique<SimTlsStore>(world.net, "")) {}

  SimConnection& dial(const std::string& name, size_t hello_max = 0) {
    return world.client({kGet}, std::make_unique<SimTlsClient>(
                                    *clients, SimTlsAsk{.name = name, .hello_max = hello_max}));
  }
  [[nodiscard]] const SimTlsMeeting& last() const { return clients->meetings.back(); }

  ~TlsListener() { world.close_clients(); }

  MadeCertificate certificate = self_signed();
  OneWorker world;
  std::unique_ptr<SimTlsStore> clients;
  std::unique_ptr<SimTlsStore> others;  // with no session of those
};

}  // namespace

TEST_CASE("TLS listener: no whole handshake in time -> closed, counted, no server was asked") {
  for (const bool tcp : {false, true}) {
    CAPTURE(tcp);
    TlsListener tls("tls = \"p\"\n" + kTimeout + kProfile, tcp);
    SimConnection& silent = tls.world.client({});
    SimConnection& half = tls.dial("a.test", 100);
    SimConnection& whole = tls.dial("a.test");
    tls.world.run(50);
    CHECK_FALSE(silent.ended());
    CHECK_FALSE(half.ended());
    CHECK(count_of(whole.received(), "200 OK") == 1);
    tls.world.run(100);
    CHECK(silent.ended());
    CHECK(half.ended());
    CHECK_FALSE(whole.ended());
    CHECK(tls.world.listener().tls_failures.get() == 2);
    CHECK(tls.world.listener().tls_handshakes.get() == 1);
    CHECK(tls.world.requests[0] == 1);
    CHECK(tls.world.worker.tls().sessions() == 1);
  }
}

TEST_CASE("TLS listener: a client leaves inside its handshake -> counted, nothing is left of it") {
  for (const bool tcp : {false, true}) {
    CAPTURE(tcp);
    TlsListener tls("tls = \"p\"\n" + kTimeout + kProfile, tcp);
    SimConnection& finished = tls.dial("a.test", 100);
    SimConnection& cut = tls.dial("a.test", 100);
    SimConnection& wrong = tls.world.client({kGet});
    tls.world.run(10);
    finished.finish();
    cut.abort();
    tls.world.run(10);
    CHECK(wrong.ended());
    CHECK(tls.world.listener().tls_failures.get() == 3);
    CHECK(tls.world.worker.tls().sessions() == 0);
    CHECK(tls.world.listener().active.get() == 0);
    CHECK(tls.world.server(0).connects.get() == 0);
  }
}

// The listener answers one name and passes the other through, on one port.
TEST_CASE("preread on an HTTP listener: answered or passed through, by the name") {
  const MadeCertificate behind = self_signed();
  TlsListener tls(
      "tls = \"p\"\npreread = { sni = true, timeout = \"100ms\" }\n" + kProfile +
          "[[routes]]\nname = \"pass\"\nlisteners = \"web\"\nmatch = { sni = "
          "\"pass.test\" }\nupstream = \"behind\"\n",
      false, "[upstreams.behind]\nprotocol = \"tcp\"\nservers = [{ address = \"10.0.9.1:80\" }]\n");
  ServerAddress at;
  REQUIRE(parse_address("10.0.9.1:80", at));
  SimTlsServerStore store(behind, false, 1);
  uint64_t requests = 0;
  const ServerScript script = answers("behind");
  SimServer server(tls.world.net, tls.world.servers_io, at, [&](SimConnection& connection) {
    connection.set_codec(std::make_unique<SimTlsServer>(store));
    return std::make_unique<ScriptHandler>(script, requests);
  });
  SimConnection& answered = tls.dial("a.test");
  tls.world.run(20);
  CHECK(count_of(answered.received(), "ok") == 1);
  CHECK(tls.last().certificate == tls.certificate.cert_der());
  SimConnection& passed = tls.dial("pass.test");
  tls.world.run(20);
  CHECK(count_of(passed.received(), "behind") == 1);
  CHECK(tls.last().certificate == behind.cert_der());
  CHECK(requests == 1);
  CHECK(tls.world.listener().tls_handshakes.get() == 1);
  server.stop();
  server.close_all();
  tls.world.run(20);
}

TEST_CASE("TLS to servers: what is wrong with a certificate -> 502 with it, and no request") {
  const MadeCertificate authority = test::make_certificate(
      {.common_name = "CA", .key = KeyKind::kRsa2048, .rsa_number = 0, .ca = true});
  const MadeCertificate stranger = test::make_certificate(
      {.common_name = "other CA", .key = KeyKind::kRsa2048, .rsa_number = 1, .ca = true});
  const auto leaf = [](const MadeCertificate* issuer, const std::string& name, int64_t until_s) {
    return test::make_certificate({.names = {name},
                                   .key = KeyKind::kRsa2048,
                                   .rsa_number = 1,
                                   .issuer = issuer,
                                   .not_after_s = until_s});
  };
  struct Case {
    MadeCertificate certificate;
    std::string reason;
  };
  std::vector<Case> cases;
  cases.push_back({leaf(&authority, "s.test", 1000), ""});
  cases.push_back({leaf(&authority, "s.test", -1000), "expired"});
  cases.push_back({leaf(&authority, "t.test", 1000), "wrong_name"});
  cases.push_back({leaf(nullptr, "s.test", 1000), "self_signed"});
  cases.push_back({leaf(&stranger, "s.test", 1000), "unknown_ca"});
  for (const Case& one : cases) {
    CAPTURE(one.reason);
    SimTlsServerStore store(one.certificate, false, 1);
    OneWorker world(
        {answers("ok")},
        "retry = { attempts = \"off\" }\ntls = { ca = \"/ca.pem\", sni = \"s.test\" }\n",
        "\n" + kProfile, false, materials(self_signed(), &authority));
    world.server_codec = [&](size_t) { return std::make_unique<SimTlsServer>(store); };
    const std::string answer = world.ask(kGet);
    if (one.reason.empty()) {
      CHECK(count_of(answer, "200 OK") == 1);
      CHECK(store.handshakes == 1);
      continue;
    }
    CHECK(answer.starts_with("HTTP/1.1 502 "));
    CHECK(answer.ends_with("502 Bad Gateway: tls_verify:" + one.reason + "\n"));
    CHECK(world.requests[0] == 0);
    CHECK(store.handshakes == 0);
    CHECK(world.server(0).tls_failures.get() == 1);
    CHECK(world.server(0).connect_errors.get() == 1);
  }
}

TEST_CASE("TLS to servers: no TLS, silence, an end in the handshake -> why, or 503 in time") {
  struct Case {
    ServerScript script;
    std::string status;
    std::string cause;
  };
  const MadeCertificate authority = test::make_certificate({.common_name = "CA", .ca = true});
  const std::vector<Case> cases = {
      {[](SimConnection& connection, std::string_view bytes) {
         connection.send("HTTP/1.1 400 Bad Request\r\n\r\n");
         return bytes.size();
       },
       "502", "tls_not_tls"},
      {[](SimConnection& /*connection*/, std::string_view bytes) { return bytes.size(); }, "503",
       "connect: timeout"},
      {[](SimConnection& connection, std::string_view bytes) {
         connection.close();
         return bytes.size();
       },
       "502", "tls_closed_in_handshake"}};
  for (const Case& one : cases) {
    CAPTURE(one.cause);
    OneWorker world({one.script},
                    "retry = { attempts = \"off\" }\ntimeouts = { connect = \"100ms\" }\n"
                    "tls = { ca = \"/ca.pem\", sni = \"s.test\" }\n",
                    "\n" + kProfile, false, materials(self_signed(), &authority));
    const std::string answer = world.ask(kGet, 200);
    CHECK(answer.starts_with("HTTP/1.1 " + one.status + " "));
    CHECK(answer.ends_with(": " + one.cause + "\n"));
    CHECK(world.worker.tls().sessions() == 0);
  }
}

TEST_CASE("TLS: certificates replaced -> open connections go on, new ones see the new") {
  TlsListener tls("tls = \"p\"\n" + kProfile);
  SimConnection& before = tls.dial("a.test");
  tls.world.run(20);
  CHECK(tls.last().certificate == tls.certificate.cert_der());
  const MadeCertificate next = self_signed();
  tls.world.worker.refresh_tls(*materials(next));
  before.send(kGet);
  SimConnection& after = tls.world.client(
      {kGet}, std::make_unique<SimTlsClient>(*tls.others, SimTlsAsk{.name = "a.test"}));
  tls.world.run(20);
  CHECK(count_of(before.received(), "200 OK") == 2);
  CHECK(count_of(after.received(), "200 OK") == 1);
  CHECK(tls.others->meetings.back().certificate == next.cert_der());
}
