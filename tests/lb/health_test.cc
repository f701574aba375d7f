// tests/lb/health_test.cc - active checks: verdicts and reasons on every engine.
#include "lb/health/health.h"

#include <doctest/doctest.h>
#include <sys/resource.h>

#include <map>

#include "tests/core/loopback.h"
#include "tests/lb/health_script.h"

namespace ringway {
namespace {

using End = ScriptedServer::End;
using When = ScriptedServer::When;

// A checker on a real engine, with scripted servers on the same engine and thread.
struct Bench {
  explicit Bench(Io& from_io)
      : io(from_io), timers(std::max<int64_t>(io.now_us() / 1000, 1)), checker(io, timers, log) {}
  ~Bench() {
    checker.stop();
    for (auto& server : servers) server->stop();
    CHECK(run([&] {
      return checker.idle() && std::all_of(servers.begin(), servers.end(),
                                           [](const auto& server) { return server->quiet(); });
    }));
    for (const int fd : listeners) ::close(fd);
  }

  template <typename Done>
  bool run(Done done) {
    return run_until(io, [&] {
      timers.expire(io.now_us() / 1000);
      return done();
    });
  }
  // Starts a server and returns its address.
  ServerAddress serve(ScriptedServer::Script script) {
    const int fd = listen_any();
    listeners.push_back(fd);
    servers.push_back(std::make_unique<ScriptedServer>(io, fd, std::move(script)));
    return bound(fd);
  }
  // Waits for the one verdict on `address`, from the opposite of `up` on.
  std::string reason_for(const ServerAddress& address, config::Health health, bool up) {
    health.rise = health.fall = 1;
    const std::string id = "u/" + std::to_string(next_id++);
    const auto state = std::make_shared<ServerHealth>(!up);
    checker.set_targets({{id, address, address.text(), health, state}});
    CHECK(run([&] { return log.of(id).size() == 1; }));
    CHECK(state->up() == up);
    CHECK(state->transitions.get() == 1);
    CHECK((up ? state->checks_passed : state->checks_failed).get() == 1);
    return log.of(id).empty() ? "no verdict" : log.of(id).front().reason;
  }

  Io& io;
  VerdictLog log;
  Timers timers;
  HealthChecker checker;
  std::vector<int> listeners;
  std::vector<std::unique_ptr<ScriptedServer>> servers;
  int next_id = 0;
};

// Intervals too long for a second check, a time-out that nothing here reaches.
config::Health health_of(config::HealthType type) {
  config::Health health;
  health.type = type;
  health.interval = health.down_interval = 600'000;
  health.fast_interval = 10;
  health.timeout = 20'000;
  return health;
}

std::string answer(std::string_view body, std::string_view status = "200 OK") {
  return "HTTP/1.1 " + std::string(status) + "\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\n\r\n" + std::string(body);
}

struct Row {
  const char* name;
  ScriptedServer::Script script;
  bool up;
  const char* reason;
  const char* body = "";  // expected text
};

std::vector<Row> rows() {
  const std::string chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  const std::string until_close = "HTTP/1.1 200 OK\r\n\r\n";
  const char* lacks = "body does not contain \"fine\"";
  return {
      {"good", {answer("")}, true, "status 200"},
      {"204", {"HTTP/1.1 204 No Content\r\n\r\n"}, true, "status 204"},
      {"HTTP/1.0", {"HTTP/1.0 200 OK\r\n\r\n"}, true, "status 200"},
      {"the connection stays open", {answer(""), End::kStay}, true, "status 200"},
      {"only the head, then a reset", {answer("x"), End::kAbort}, true, "status 200"},
      {"503", {answer("", "503 No")}, false, "status 503, expected 200-299"},
      {"1xx first",
       {"HTTP/1.1 102 A\r\n\r\nHTTP/1.1 103 B\r\n\r\n" + answer("")},
       true,
       "status 200"},
      {"1xx and no more", {"HTTP/1.1 102 A\r\n\r\n"}, false, "closed before a response"},
      {"101",
       {"HTTP/1.1 101 A\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"},
       false,
       "malformed response: "},
      {"closed behind the request", {""}, false, "closed before a response"},
      {"closed in the head",
       {"HTTP/1.1 200 OK\r\nContent"},
       false,
       "closed inside the response head"},
      {"garbage", {"SSH-2.0-OpenSSH_9.2\r\n"}, false, "malformed response: "},
      {"huge head",
       {"HTTP/1.1 200 OK\r\nX: " + std::string(20'000, 'x')},
       false,
       "malformed response: "},
      {"endless fields, in a head that never ends",
       {ScriptedServer::many_fields(200)},
       false,
       "malformed response: "},
      {"length", {answer("all is fine here"), End::kStay}, true, "body matches", "fine"},
      {"length, another text", {answer("all is well"), End::kStay}, false, lacks, "fine"},
      {"no body", {answer(""), End::kStay}, false, "body does not contain \"fine\"", "fine"},
      {"chunked, the text across chunks",
       {chunked + "3\r\nafi\r\n2;x=1\r\nne\r\n0\r\n\r\n", End::kStay},
       true,
       "body matches",
       "fine"},
      {"chunked, found before the end",
       {chunked + "4\r\nfine\r\n", End::kStay},
       true,
       "body matches",
       "fine"},
      {"chunked, text in an extension",
       {chunked + "1;fine\r\na\r\n0\r\n\r\n", End::kStay},
       false,
       "body does not contain \"fine\"",
       "fine"},
      {"bad chunk",
       {chunked + "zz\r\n", End::kStay},
       false,
       "malformed response: bad chunk",
       "fine"},
      {"found, then a bad chunk",
       {chunked + "4\r\nfine\r\nzz\r\n", End::kStay},
       true,
       "body matches",
       "fine"},
      {"until close", {until_close + "all is fine"}, true, "body matches", "fine"},
      {"until close, another text",
       {until_close + "all is well"},
       false,
       "body does not contain \"fine\"",
       "fine"},
      {"until close, endless",
       {until_close + std::string(70'000, 'x'), End::kStay},
       false,
       "body does not contain \"fine\"",
       "fine"},
      {"behind 64 KiB",
       {until_close + std::string(65'536 - 3, 'x') + "fine", End::kStay},
       false,
       "body does not contain \"fine\"",
       "fine"},
      {"the last of 64 KiB",
       {until_close + std::string(65'536 - 4, 'x') + "fine", End::kStay},
       true,
       "body matches",
       "fine"},
      {"cut",
       {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfin"},
       false,
       "malformed response: closed inside the body",
       "fine"},
  };
}

TEST_CASE("HealthChecker: what servers answer -> verdict and reason, on every engine") {
  for (const auto& io : engines()) {
    Bench bench(*io);
    for (const Row& row : rows()) {
      const std::string engine = io->name();
      CAPTURE(engine);
      const std::string name = row.name;
      CAPTURE(name);
      config::Health health = health_of(config::HealthType::kHttp);
      health.expect_body = row.body;
      const std::string reason = bench.reason_for(bench.serve(row.script), health, row.up);
      CHECK_MESSAGE(reason.starts_with(row.reason), reason);
    }
  }
}

TEST_CASE("HealthChecker: resets and refusals -> down, with the kernel's word for it") {
  for (const auto& io : engines()) {
    const std::string engine = io->name();
    CAPTURE(engine);
    Bench bench(*io);
    const config::Health http = health_of(config::HealthType::kHttp);
    // What was closed at once is reset by the request that comes then: either may be heard first.
    for (const auto& script : {ScriptedServer::Script{"", End::kClose, When::kAccepted},
                               ScriptedServer::Script{"", End::kAbort, When::kAccepted},
                               ScriptedServer::Script{"", End::kAbort},
                               ScriptedServer::Script{"HTTP/1.1 200 OK\r\n", End::kAbort}}) {
      const std::string reason = bench.reason_for(bench.serve(script), http, false);
      const bool told =
          reason == "closed before a response" || reason == "response: Connection reset by peer" ||
          reason == "request: Connection reset by peer" || reason == "request: Broken pipe" ||
          reason == "connect: Connection reset by peer";
      CHECK_MESSAGE(told, reason);
    }
    const int closed = listen_any();
    const ServerAddress nobody = bound(closed);
    ::close(closed);
    ServerAddress missing;
    REQUIRE(parse_address("unix:/nonexistent/health.sock", missing));
    for (const auto type : {config::HealthType::kTcp, config::HealthType::kHttp}) {
      CHECK(bench.reason_for(nobody, health_of(type), false) == "connect: Connection refused");
      CHECK(bench.reason_for(missing, health_of(type), false) ==
            "connect: No such file or directory");
    }
  }
}

TEST_CASE("HealthChecker: silence -> down when the time is over") {
  for (const auto& io : engines()) {
    const std::string engine = io->name();
    CAPTURE(engine);
    Bench bench(*io);
    config::Health health = health_of(config::HealthType::kHttp);
    health.timeout = 30;
    for (const char* bytes : {"", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\n\r\nfi"}) {
      health.expect_body = "fine";
      CHECK(bench.reason_for(bench.serve({bytes, End::kStay}), health, false) ==
            "response: timeout after 30 ms");
    }
    // A server that is slow to speak is well for a TCP check.
    health.type = config::HealthType::kTcp;
    health.timeout = 20'000;
    CHECK(bench.reason_for(bench.serve({"", End::kStay}), health, true) == "connected");
  }
}

TEST_CASE("HealthChecker: HTTP check -> one request, exactly this") {
  EpollEngine io(0);
  Bench bench(io);
  config::Health health = health_of(config::HealthType::kHttp);
  health.path = "/healthz?deep=1";
  const ServerAddress address = bench.serve({answer("")});
  bench.reason_for(address, health, true);
  const std::string rest = "User-Agent: ringway-health\r\nConnection: close\r\n\r\n";
  CHECK(bench.servers.back()->received() ==
        "GET /healthz?deep=1 HTTP/1.1\r\nHost: " + address.text() + "\r\n" + rest);
  health.method = "HEAD";
  health.host = "api.example.com";
  // An interim response must not make the checker forget that HEAD has no body.
  bench.reason_for(
      bench.serve({"HTTP/1.1 103 A\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"}), health,
      true);
  CHECK(bench.servers.back()->received() ==
        "HEAD /healthz?deep=1 HTTP/1.1\r\nHost: api.example.com\r\n" + rest);
}

TEST_CASE("HealthChecker: send_proxy_protocol -> LOCAL or UNKNOWN goes first, and is a TCP check") {
  const std::string local("\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", 16);
  for (const auto& io : engines()) {
    Bench bench(*io);
    for (const auto version : {config::ProxySend::kV1, config::ProxySend::kV2}) {
      const std::string header = version == config::ProxySend::kV1 ? "PROXY UNKNOWN\r\n" : local;
      config::Health health = health_of(config::HealthType::kHttp);
      health.send_proxy = version;
      CHECK(bench.reason_for(bench.serve({answer("")}), health, true) == "status 200");
      CHECK(bench.servers.back()->received().starts_with(header + "GET / HTTP/1.1\r\n"));
      health.type = config::HealthType::kTcp;
      CHECK(bench.reason_for(bench.serve({"", End::kStay}), health, true) == "connected");
      CHECK(bench.run([&] { return bench.servers.back()->received() == header; }));
    }
  }
}

TEST_CASE("HealthChecker: HEAD that announces a length, and a text -> judged without waiting") {
  EpollEngine io(0);
  Bench bench(io);
  config::Health health = health_of(config::HealthType::kHttp);
  health.method = "HEAD";
  health.expect_body = "fine";
  const std::string head = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
  for (const std::string& first : {std::string(), std::string("HTTP/1.1 103 A\r\n\r\n")}) {
    CHECK(bench.reason_for(bench.serve({first + head, End::kStay}), health, false) ==
          "body does not contain \"fine\"");
  }
}

TEST_CASE("HealthChecker: unix socket -> Host localhost") {
  EpollEngine io(0);
  Bench bench(io);
  char folder[] = "/tmp/ringway-health-XXXXXX";
  REQUIRE(mkdtemp(folder) != nullptr);
  const std::string path = std::string(folder) + "/s";
  ServerAddress address;
  REQUIRE(parse_address("unix:" + path, address));
  const int fd = open_listener(address);
  REQUIRE(fd >= 0);
  bench.listeners.push_back(fd);
  bench.servers.push_back(
      std::make_unique<ScriptedServer>(io, fd, ScriptedServer::Script{answer("")}));
  bench.reason_for(address, health_of(config::HealthType::kHttp), true);
  CHECK(bench.servers.back()->received().find("\r\nHost: localhost\r\n") != std::string::npos);
  unlink(path.c_str());
  rmdir(folder);
}

TEST_CASE("HealthChecker: expected statuses -> any of the ranges, all named when none fits") {
  EpollEngine io(0);
  Bench bench(io);
  config::Health health = health_of(config::HealthType::kHttp);
  health.expect_status = {{200, 204}, {401, 401}};
  CHECK(bench.reason_for(bench.serve({answer("", "401 Who")}), health, true) == "status 401");
  CHECK(bench.reason_for(bench.serve({answer("", "205 X")}), health, false) ==
        "status 205, expected 200-204, 401");
}

// Goal: running out of descriptors is our trouble, and takes no server out of service.
TEST_CASE("HealthChecker: no descriptor left -> skipped, no verdict, tried again") {
  for (const auto& io : engines()) {
    const std::string engine = io->name();
    CAPTURE(engine);
    Bench bench(*io);
    config::Health health = health_of(config::HealthType::kTcp);
    health.rise = health.fall = 1;
    const ServerAddress address = bench.serve({"", End::kStay});
    const auto state = std::make_shared<ServerHealth>(true);
    rlimit before{};
    REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
    rlimit none = before;
    none.rlim_cur = 3;
    REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
    bench.checker.set_targets({{"u/s", address, address.text(), health, state}});
    const bool skipped = bench.run([&] { return state->checks_skipped.get() >= 3; });
    REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(skipped);
    CHECK(state->up());
    CHECK(state->checks_failed.get() == 0);
    CHECK(bench.run([&] { return state->checks_passed.get() == 1; }));
    CHECK(bench.log.all.empty());
  }
}

TEST_CASE("HealthChecker: stopped in every stage of a check -> idle, no verdict") {
  for (const auto& io : engines()) {
    for (const char* bytes : {"", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\n\r\nfi"}) {
      Bench bench(*io);
      config::Health health = health_of(config::HealthType::kHttp);
      health.expect_body = "fine";
      health.fall = 1;
      const ServerAddress address = bench.serve({bytes, End::kStay});
      const auto state = std::make_shared<ServerHealth>(true);
      bench.checker.set_targets({{"u/s", address, address.text(), health, state}});
      CHECK_FALSE(bench.checker.idle());
      CHECK(bench.run([&] { return !bench.servers.back()->received().empty(); }));
      bench.checker.stop();
      CHECK(bench.run([&] { return bench.checker.idle(); }));
      CHECK(bench.log.all.empty());
      CHECK(state->checks_failed.get() + state->checks_passed.get() == 0);
    }
  }
}

}  // namespace
}  // namespace ringway
