// tests/lb/health_tls_test.cc - active checks over TLS: what makes a server up or down.
#include <doctest/doctest.h>

#include "lb/health/health.h"
#include "tests/core/real_tls_world.h"
#include "tests/lb/health_script.h"

namespace ringway {
namespace {

// A checker, and TLS servers that answer every request, on one engine and thread.
struct Bench {
  explicit Bench(Io& io)
      : world(io), timers(std::max<int64_t>(io.now_us() / 1000, 1)), checker(io, timers, log) {
    serve();
  }
  ~Bench() {
    checker.stop();
    CHECK(run([&] { return checker.idle(); }));
  }
  void serve() {
    world.on_accept = [](TlsEnd& end) {
      end.on_bytes = [one = &end] {
        if (!one->text.ends_with("\r\n\r\n")) return;
        REQUIRE(one->send("HTTP/1.1 204 No Content\r\n\r\n"));
      };
    };
  }
  template <typename Done>
  bool run(Done done) {
    return world.run([&] {
      timers.expire(world.io.now_us() / 1000);
      checker.run(world.io.now_us());
      return done();
    });
  }
  // Believes `authority`, by default that of the servers.
  std::shared_ptr<TlsClientContext> context(const test::MadeCertificate* authority = nullptr,
                                            bool verify = true) {
    TlsClientOptions options;
    options.trust = to_trust(authority == nullptr ? world.keys.authority : *authority);
    options.verify = verify;
    TlsClientResult made = TlsClientContext::make(checker.tls(), options);
    REQUIRE_MESSAGE(made.context != nullptr, made.error);
    return std::move(made.context);
  }
  // Waits for the one verdict on the server, from the opposite of `up` on.
  std::string reason_for(config::Health health, CheckTls tls, bool up) {
    health.rise = health.fall = 1;
    const std::string id = "u/" + std::to_string(next_id++);
    const auto state = std::make_shared<ServerHealth>(!up);
    checker.set_targets({{id, world.address, world.address_text(), health, state, std::move(tls)}});
    CHECK(run([&] { return log.of(id).size() == 1; }));
    CHECK(state->up() == up);
    return log.of(id).empty() ? "no verdict" : log.of(id).front().reason;
  }

  RealTlsWorld world;
  VerdictLog log;
  Timers timers;
  HealthChecker checker;
  int next_id = 0;
};

config::Health health_of(config::HealthType type) {
  config::Health health;
  health.type = type;
  health.interval = health.down_interval = 600'000;
  health.fast_interval = 10;
  health.timeout = 20'000;
  return health;
}

const config::Health kHttp = health_of(config::HealthType::kHttp);
const config::Health kTcp = health_of(config::HealthType::kTcp);

TEST_CASE("HealthChecker: TLS on every engine -> a request, or a handshake, in TLS") {
  for (const auto& io : engines()) {
    CAPTURE(io->name());
    Bench bench(*io);
    const auto context = bench.context();
    CheckTls tls{.enabled = true, .context = context, .name = "example.test"};
    CHECK(bench.reason_for(kHttp, tls, true) == "status 204");
    CHECK(bench.world.peer_of_last().server_name == "example.test");
    CHECK(bench.world.peer_of_last().text ==
          "GET / HTTP/1.1\r\nHost: " + bench.world.address_text() +
              "\r\nUser-Agent: ringway-health\r\nConnection: close\r\n\r\n");
    CHECK(bench.reason_for(kTcp, tls, true) == "connected, with TLS");
    CHECK(bench.run([&] { return bench.world.peer_of_last().ends == 1; }));
    CHECK(bench.world.peer_of_last().end == 0);  // A close_notify.
    CHECK(bench.world.peer_of_last().text.empty());
  }
}

TEST_CASE("HealthChecker: a certificate that is no good -> down, and why") {
  EpollEngine io(0);
  Bench bench(io);
  const auto context = bench.context();
  const auto other = test::make_certificate({.common_name = "x", .ca = true});
  const auto stranger = bench.context(&other);
  const auto careless = bench.context(nullptr, false);
  for (const auto& health : {kHttp, kTcp}) {
    CHECK(bench.reason_for(health, {true, context, "other.test"}, false) ==
          "tls_verify:wrong_name");
    // Without a name the certificate must be for the address.
    CHECK(bench.reason_for(health, {true, context, "", "127.0.0.1"}, false) ==
          "tls_verify:wrong_name");
    CHECK(bench.reason_for(health, {true, stranger, "example.test"}, false) ==
          "tls_verify:unknown_ca");
    CHECK(bench.reason_for(health, {true, nullptr, "example.test"}, false) ==
          "TLS: its settings cannot be used");
    bench.reason_for(health, {true, careless, "other.test"}, true);
  }
}

TEST_CASE("HealthChecker: no TLS, silence, an end in the handshake -> down, and why") {
  EpollEngine io(0);
  Bench bench(io);
  const CheckTls tls{.enabled = true, .context = bench.context(), .name = "example.test"};
  bench.world.plain_server = true;
  bench.world.on_accept = [](TlsEnd& end) {
    end.on_bytes = [one = &end] { REQUIRE(one->send("HTTP/1.1 400 Bad Request\r\n\r\n")); };
  };
  CHECK(bench.reason_for(kHttp, tls, false) == "tls_not_tls");
  bench.world.on_accept = [](TlsEnd& end) { end.on_bytes = [one = &end] { one->stream.close(); }; };
  CHECK(bench.reason_for(kTcp, tls, false) == "tls_closed_in_handshake");
  bench.world.on_accept = nullptr;
  config::Health health = kTcp;
  health.timeout = 50;
  CHECK(bench.reason_for(health, tls, false) == "TLS handshake: timeout after 50 ms");
}

TEST_CASE("HealthChecker: a PROXY header and TLS -> the header first, in clear") {
  const std::string local("\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", 16);
  EpollEngine io(0);
  Bench bench(io);
  const CheckTls tls{.enabled = true, .context = bench.context(), .name = "example.test"};
  for (const auto version : {config::ProxySend::kV1, config::ProxySend::kV2}) {
    const bool old = version == config::ProxySend::kV1;
    int receives = 0;
    bench.world.expect_preface(old ? "PROXY UNKNOWN\r\n" : local, receives);
    config::Health health = kTcp;
    health.send_proxy = version;
    CHECK(bench.reason_for(health, tls, true) == "connected, with TLS");
    CHECK(bench.run([&] { return bench.world.peer_of_last().secured == 1; }));
    CHECK(receives == 1);
  }
}

TEST_CASE("HealthChecker: other TLS settings, all else the same -> used by the next check") {
  EpollEngine io(0);
  Bench bench(io);
  config::Health health = kTcp;
  health.interval = health.down_interval = health.fast_interval = 10;
  health.rise = health.fall = 1;
  const auto state = std::make_shared<ServerHealth>(false);
  CheckTarget target{"u/s",
                     bench.world.address,
                     bench.world.address_text(),
                     health,
                     state,
                     {true, bench.context(), "example.test"}};
  bench.checker.set_targets({target});
  REQUIRE(bench.run([&] { return state->up(); }));
  target.tls = {true, bench.context(), "other.test"};
  bench.checker.set_targets({target});
  REQUIRE(bench.run([&] { return !state->up(); }));
  CHECK(bench.log.all.back().reason == "tls_verify:wrong_name");
}

TEST_CASE("check_tls_of: which name is asked for, and which must be in the certificate") {
  config::Upstream upstream;
  CHECK_FALSE(check_tls_of(upstream, "10.0.0.1:443", nullptr).enabled);
  upstream.tls.enabled = upstream.tls.sni_from_request = true;
  const auto names = [&](std::string_view address) {
    const CheckTls tls = check_tls_of(upstream, address, nullptr);
    CHECK(tls.enabled);
    return tls.name + "|" + tls.verify_name;
  };
  CHECK(names("10.0.0.1:443") == "|10.0.0.1");
  CHECK(names("[::1]:443") == "|::1");
  CHECK(names("unix:/run/x") == "|localhost");
  upstream.health.host = "api.example.com:8443";
  CHECK(names("10.0.0.1:443") == "api.example.com|");
  upstream.tls.sni_from_request = false;
  upstream.tls.sni = "fixed.example";
  CHECK(names("10.0.0.1:443") == "fixed.example|");
}

}  // namespace
}  // namespace ringway
