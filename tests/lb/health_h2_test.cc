// tests/lb/health_h2_test.cc - active checks over HTTP/2: plain requests and gRPC.
#include <doctest/doctest.h>

#include <map>

#include "lb/config/load.h"
#include "lb/health/grpc_check.h"
#include "lb/health/health.h"
#include "tests/core/loopback.h"
#include "tests/core/real_tls_world.h"
#include "tests/lb/health_script.h"
#include "tests/support/h2_answers.h"
#include "tests/support/hpack.h"

namespace ringway {
namespace {

using h2::FrameType;
using h2::Pairs;
using End = ScriptedServer::End;
using When = ScriptedServer::When;

std::string frame(FrameType type, uint8_t flags, uint32_t stream, std::string_view payload) {
  char head[h2::kFrameHeaderBytes];
  h2::write_frame_header({.length = static_cast<uint32_t>(payload.size()),
                          .type = static_cast<uint8_t>(type),
                          .flags = flags,
                          .stream = stream},
                         head);
  return std::string(head, sizeof head).append(payload);
}

std::string settings() {
  return frame(FrameType::kSettings, 0, 0, {});
}

std::string headers(const Pairs& fields, bool end) {
  const uint8_t flags = h2::flag::kEndHeaders | (end ? h2::flag::kEndStream : 0);
  return frame(FrameType::kHeaders, flags, 1, h2::hpack_block(fields));
}

std::string data(std::string_view bytes, bool end) {
  return frame(FrameType::kData, end ? h2::flag::kEndStream : 0, 1, bytes);
}

std::string number(uint32_t first, uint32_t second) {
  std::string text(8, '\0');
  h2::write32(text.data(), first);
  h2::write32(text.data() + 4, second);
  return text;
}

// A gRPC answer with `message` and these trailers.
std::string grpc(std::string_view message, const Pairs& trailers) {
  return settings() + headers({{":status", "200"}, {"content-type", "application/grpc"}}, false) +
         data(message, false) + headers(trailers, true);
}

// HealthCheckResponse with this status.
std::string serving(char status) {
  return std::string("\0\0\0\0\2\x08", 6) + status;
}

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
  // The one verdict on a server that says `bytes` to whoever connects.
  std::string reason_for(const std::string& bytes, config::Health health, bool up,
                         End end = End::kStay) {
    health.rise = health.fall = 1;
    listeners.push_back(listen_any());
    servers.push_back(std::make_unique<ScriptedServer>(
        io, listeners.back(), ScriptedServer::Script{bytes, end, When::kAccepted}));
    const ServerAddress address = bound(listeners.back());
    const std::string id = "u/" + std::to_string(servers.size());
    const auto state = std::make_shared<ServerHealth>(!up);
    checker.set_targets({{id, address, address.text(), health, state, {}, CheckHttp::kHttp2}});
    CHECK(run([&] { return log.of(id).size() == 1; }));
    CHECK(state->up() == up);
    return log.of(id).empty() ? "no verdict" : log.of(id).front().reason;
  }

  Io& io;
  VerdictLog log;
  Timers timers;
  HealthChecker checker;
  std::vector<int> listeners;
  std::vector<std::unique_ptr<ScriptedServer>> servers;
};

config::Health health_of(config::HealthType type) {
  config::Health health;
  health.type = type;
  health.interval = health.down_interval = 600'000;
  health.fast_interval = 10;
  health.timeout = 20'000;
  return health;
}

// A server that closes while the request is on its way may also be heard of by a reset.
bool is_reason(const std::string& reason, const std::string& wanted) {
  return reason.starts_with(wanted) ||
         (wanted.starts_with("closed inside") && reason.ends_with("Connection reset by peer"));
}

struct Row {
  std::string bytes;
  std::string reason;
  bool up = false;
  std::string body{};  // expected
  End end = End::kStay;
};

std::vector<Row> http_rows() {
  const std::string open = settings() + headers({{":status", "200"}}, false);
  return {
      {settings() + headers({{":status", "204"}}, true), "status 204", true},
      {settings() + headers({{":status", "103"}}, false) + headers({{":status", "200"}}, true),
       "status 200", true},
      {settings() + headers({{":status", "503"}}, true), "status 503, expected 200-299"},
      {open + data("all is fi", false) + data("ne", true), "body matches", true, "fine"},
      {open + data("all is bad", true), "body does not contain \"fine\"", false, "fine"},
      {open + headers({{"x-fine", "fine"}}, true), "body does not contain \"fine\"", false, "fine"},
      {open, "closed inside the response", false, "fine", End::kClose},
      {open + frame(FrameType::kRstStream, 0, 1, number(2, 0).substr(0, 4)),
       "the server has reset the stream (INTERNAL_ERROR)", false, "fine"},
      {settings() + frame(FrameType::kRstStream, 0, 1, number(7, 0).substr(0, 4)),
       "the server has reset the stream (REFUSED_STREAM)"},
      {settings() + frame(FrameType::kGoaway, 0, 0, number(0, 0)),
       "the server ends the connection (GOAWAY, NO_ERROR)"},
      {settings() + frame(FrameType::kGoaway, 0, 0, number(1, 0)) +
           headers({{":status", "200"}}, true),
       "status 200", true},
      {settings() + headers({{"status", "200"}}, true),
       "malformed response: it breaks a rule of HTTP/2"},
      {settings() + headers({{":status", "200"}, {"content-length", "9"}}, false) +
           data("fin", true),
       "malformed response: it breaks a rule of HTTP/2", false, "fine"},
      {"HTTP/1.1 400 Bad Request\r\n\r\n", "malformed HTTP/2: "},
  };
}

TEST_CASE("HealthChecker: what HTTP/2 servers answer -> up or down, and why, on every engine") {
  for (const auto& io : engines()) {
    const std::string engine = io->name();
    CAPTURE(engine);
    Bench bench(*io);
    for (const Row& row : http_rows()) {
      config::Health health = health_of(config::HealthType::kHttp);
      health.expect_body = row.body;
      const std::string reason = bench.reason_for(row.bytes, health, row.up, row.end);
      CHECK_MESSAGE(is_reason(reason, row.reason), reason, " instead of ", row.reason);
    }
  }
}

std::vector<Row> grpc_rows() {
  const Pairs ok{{"grpc-status", "0"}};
  const std::string head =
      headers({{":status", "200"}, {"content-type", "application/grpc+proto"}}, false);
  return {
      {grpc(serving(1), ok), "SERVING", true},
      {grpc(serving(2), ok), "NOT_SERVING"},
      {grpc(serving(0), ok), "UNKNOWN"},
      {grpc(serving(3), ok), "SERVICE_UNKNOWN"},
      {grpc(serving(9), ok), "serving status 9"},
      {grpc(std::string(5, '\0'), ok), "UNKNOWN"},  // proto3 leaves out a 0.
      // Unknown fields of every kind around it, and the last one counts.
      {grpc(std::string("\0\0\0\0\x14", 5) +
                std::string("\x08\x02\x12\x02hi\x1d....\x21........\x08\x01", 22).substr(0, 20),
            ok),
       "NOT_SERVING"},
      {grpc(std::string("\0\0\0\0\x16", 5) +
                std::string("\x08\x02\x12\x02hi\x1d....\x21........\x08\x01", 22),
            ok),
       "SERVING", true},
      {grpc("", ok), "no message in the answer"},
      {grpc(std::string("\1\0\0\0\2\x08\x01", 7), ok), "compressed message"},
      {grpc(std::string("\0\0\0\0\3\x08\x01", 7), ok), "malformed message"},
      {grpc(std::string("\0\0\0\0\1\x08", 6), ok), "malformed message"},
      {grpc(std::string("\0\0\0\0\2\x0a\x09", 7), ok), "malformed message"},
      {grpc(serving(1), {{"grpc-status", "14"}, {"grpc-message", "going"}}),
       "grpc-status 14 (UNAVAILABLE): going"},
      {grpc(serving(1), {{"grpc-status", "99"}}), "grpc-status 99"},
      {grpc(serving(1), {{"x", "1"}}), "no grpc-status in the trailers"},
      {settings() + head + data(serving(1), true), "no trailers"},
      {settings() +
           headers({{":status", "200"}, {"content-type", "application/grpc"}, {"grpc-status", "5"}},
                   true),
       "grpc-status 5 (NOT_FOUND)"},
      {settings() + headers({{":status", "200"}, {"content-type", "text/html"}}, true),
       "not gRPC: content-type \"text/html\""},
      {settings() + headers({{":status", "502"}}, true), "status 502 instead of a gRPC answer"},
      {settings() + head + data(serving(1), false),
       "closed inside the response",
       false,
       {},
       End::kClose},
  };
}

TEST_CASE("HealthChecker: what gRPC servers answer -> only SERVING is up") {
  EpollEngine io(0);
  Bench bench(io);
  for (const Row& row : grpc_rows()) {
    const std::string reason =
        bench.reason_for(row.bytes, health_of(config::HealthType::kGrpc), row.up, row.end);
    CHECK_MESSAGE(is_reason(reason, row.reason), reason, " instead of ", row.reason);
  }
}

TEST_CASE("HealthChecker: HTTP/2 checks -> one request, exactly this, and GOAWAY") {
  EpollEngine io(0);
  Bench bench(io);
  const auto asked = [&](const config::Health& health, const std::string& bytes) {
    bench.reason_for(bytes, health, true);
    ScriptedServer& server = *bench.servers.back();
    CHECK(bench.run([&] { return server.quiet(); }));
    h2::Answers reader({}, false);
    reader.feed(server.received());
    REQUIRE(reader.streams.size() == 1);
    CHECK(reader.said.ends_with("goaway 0\n"));
    CHECK(reader.streams[0]->ended);
    return reader.said.substr(0, reader.said.find("\r\n\r\n")) + "|" + reader.streams[0]->body;
  };
  config::Health health = health_of(config::HealthType::kHttp);
  health.path = "/healthz?deep=1";
  health.host = "api.example.com";
  CHECK(asked(health, settings() + headers({{":status", "200"}}, true)) ==
        "request 1 whole GET /healthz?deep=1 HTTP/1.1\r\nhost: api.example.com\r\n"
        "user-agent: ringway-health|");
  health = health_of(config::HealthType::kGrpc);
  health.host = "api.example.com";
  const std::string rest =
      "request 1 open POST /grpc.health.v1.Health/Check HTTP/1.1\r\nhost: api.example.com\r\n"
      "user-agent: ringway-health\r\ncontent-type: application/grpc\r\nte: trailers|";
  const std::string up = grpc(serving(1), {{"grpc-status", "0"}});
  CHECK(asked(health, up) == rest + std::string(5, '\0'));
  health.service = "a.B";
  CHECK(asked(health, up) == rest + std::string("\0\0\0\0\5\x0a\x03", 7) + "a.B");
}

TEST_CASE("grpc_check_message: long names -> the length takes two bytes") {
  const std::string name(200, 'x');
  CHECK(grpc_check_message(name) == std::string("\0\0\0\0\xcb\x0a\xc8\x01", 8) + name);
}

// Where both versions are possible the server chooses; where only HTTP/2 is, it must choose that.
TEST_CASE("HealthChecker: over TLS -> the version that ALPN chose") {
  EpollEngine io(0);
  RealTlsWorld world(io);
  VerdictLog log;
  Timers timers(std::max<int64_t>(io.now_us() / 1000, 1));
  HealthChecker checker(io, timers, log);
  const auto run = [&](auto done) {
    return world.run([&] {
      timers.expire(io.now_us() / 1000);
      checker.run(io.now_us());
      return done();
    });
  };
  world.on_accept = [](TlsEnd& end) {
    end.on_bytes = [one = &end] {
      if (one->text.ends_with("\r\n\r\n")) REQUIRE(one->send("HTTP/1.1 200 OK\r\n\r\n"));
    };
  };
  TlsClientOptions options;
  options.verify = false;
  TlsClientResult made = TlsClientContext::make(checker.tls(), options);
  REQUIRE(made.context != nullptr);
  const CheckTls tls{.enabled = true, .context = std::move(made.context), .name = "example.test"};
  const auto reason_for = [&](config::HealthType type, CheckHttp http, bool up) {
    config::Health health = health_of(type);
    health.rise = health.fall = 1;
    const auto state = std::make_shared<ServerHealth>(!up);
    const size_t before = log.all.size();
    checker.set_targets({{"u/" + std::to_string(before), world.address, world.address_text(),
                          health, state, tls, http}});
    CHECK(run([&] { return log.all.size() > before; }));
    return log.all.empty() ? "no verdict" : log.all.back().reason;
  };
  const auto kHttp = config::HealthType::kHttp;
  CHECK(reason_for(kHttp, CheckHttp::kByAlpn, true) == "status 200");
  const std::string none = "TLS: the server does not choose HTTP/2 (ALPN)";
  CHECK(reason_for(kHttp, CheckHttp::kHttp2, false) == none);
  CHECK(reason_for(config::HealthType::kGrpc, CheckHttp::kHttp2, false) == none);
  CHECK(reason_for(config::HealthType::kTls, CheckHttp::kHttp1, true) == "connected, with TLS");
  checker.stop();
  CHECK(run([&] { return checker.idle(); }));
}

TEST_CASE("checks of an upstream -> which version and which TLS") {
  using config::HttpVersion;
  config::Upstream upstream;
  upstream.health.type = config::HealthType::kHttp;
  CHECK(check_http_of(upstream) == CheckHttp::kHttp1);
  upstream.http_versions = {HttpVersion::kHttp2};
  CHECK(check_http_of(upstream) == CheckHttp::kHttp2);
  upstream.http_versions = {HttpVersion::kHttp2, HttpVersion::kHttp1};
  CHECK(check_http_of(upstream) == CheckHttp::kByAlpn);
  upstream.health.type = config::HealthType::kGrpc;
  CHECK(check_http_of(upstream) == CheckHttp::kHttp2);
  CHECK_FALSE(check_tls_of(upstream, "10.0.0.1:443", nullptr).enabled);
  // A handshake without `tls` asks for the host, and the certificate has to be for it.
  upstream.health.type = config::HealthType::kTls;
  upstream.health.host = "api.test:443";
  const CheckTls tls = check_tls_of(upstream, "10.0.0.1:443", nullptr);
  CHECK(tls.enabled);
  CHECK(tls.name == "api.test");
  CHECK(tls.verify_name.empty());
  CHECK(upstream.tls_of_checks().enabled);
  CHECK(upstream.tls_of_checks().verify);
  upstream.health.tls = {.verify = false, .ca = {}};
  CHECK_FALSE(upstream.tls_of_checks().verify);
  // Where requests speak TLS, checks speak it as they do.
  upstream.tls.enabled = true;
  upstream.tls.ca.path = "/ca.pem";
  CHECK(upstream.tls_of_checks() == upstream.tls);
  upstream.tls.enabled = false;
  upstream.health.type = config::HealthType::kTcp;
  CHECK_FALSE(upstream.tls_of_checks().enabled);
}

// What `ringway check` says to keys under [upstreams.app.health], and `more` in the upstream.
std::string said_to(const std::string& keys, const std::string& more = "") {
  const config::LoadResult result = config::load_text(
      "version = 1\n[listeners.web]\nbind = '127.0.0.1:80'\n[[routes]]\nname = 'all'\n"
      "upstream = 'app'\n[upstreams.app]\nservers = [{ address = '127.0.0.1:81' }]\n" +
          more + "[upstreams.app.health]\n" + keys,
      "test");
  return result.config != nullptr ? "fine" : config::render(result, false);
}

TEST_CASE("config: what a health check's type does not use -> E0317") {
  const std::string h2 = "http_versions = 'h2'\n";
  CHECK(said_to("type = 'http'", h2) == "fine");
  CHECK(said_to("type = 'grpc'\nservice = 'a.B'\nhost = 'x'", h2) == "fine");
  CHECK(said_to("type = 'tls'\nhost = 'x'") == "fine");
  CHECK(said_to("type = 'tls'\nhost = 'x'\ntls = { ca = '/ca.pem' }") == "fine");
  CHECK(said_to("type = 'tls'\ntls = { verify = false }") == "fine");
  CHECK(said_to("type = 'tls'", "tls = { sni = 'x' }\n") == "fine");
  const std::pair<std::string, std::string> rows[] = {
      {said_to("type = 'grpc'"), "type = \"grpc\" speaks HTTP/2"},
      {said_to("type = 'grpc'\npath = '/x'", h2), "`path` belongs to type = \"http\""},
      {said_to("type = 'grpc'\nexpect = { body = 'x' }", h2), "`expect` belongs to type"},
      {said_to("type = 'http'\nservice = 'a'"), "`service` belongs to type = \"grpc\""},
      {said_to("type = 'tls'\nservice = 'a'"), "`service` belongs to type = \"grpc\""},
      {said_to("type = 'tls'\nmethod = 'GET'"), "`method` belongs to type = \"http\""},
      {said_to("type = 'tcp'\nhost = 'x'"), "`host` belongs to type = \"http\""},
      {said_to("type = 'tcp'\ntls = { verify = false }"), "`tls` belongs to type = \"tls\""},
      {said_to("type = 'tls'\ntls = { verify = false, ca = '/ca.pem' }"),
       "`ca` has no effect with verify = false"},
      {said_to("type = 'tls'\ntls = { verify = false }", "tls = { sni = 'x' }\n"),
       "`tls` has no effect on checks beside [upstreams.app.tls]"},
  };
  for (const auto& [said, wanted] : rows) {
    CHECK_MESSAGE(said.find("error[E0317]: " + wanted) != std::string::npos, said);
  }
  const std::string missing = said_to("type = 'tls'");
  CHECK_MESSAGE(missing.find("error[E0106]: `host` is missing in the health checks of \"app\"") !=
                    std::string::npos,
                missing);
  CHECK_MESSAGE(missing.find("tls = { verify = false }") != std::string::npos, missing);
  for (const char* name : {"''", "'a b'", "'a\u00e4'"}) {
    const std::string said = said_to(std::string("type = 'grpc'\nservice = ") + name, h2);
    CHECK_MESSAGE(said.find("error[E0304]: a service name has") != std::string::npos, said);
  }
}

}  // namespace
}  // namespace ringway
