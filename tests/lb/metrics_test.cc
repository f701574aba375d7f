// tests/lb/metrics_test.cc - the text format, and the server over real sockets on both engines.
#include "lb/admin/metrics.h"

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "core/engines.h"
#include "lb/admin/metrics_server.h"

using namespace ringway;

TEST_CASE("MetricsWriter: families and samples -> HELP and TYPE once, labels escaped") {
  MetricsWriter writer;
  writer.family("rw_requests_total", "Requests, by \"route\"\nand \\.", MetricType::kCounter);
  const MetricLabel labels[] = {{"route", "a\"b\\c\nd"}, {"listener", ""}};
  writer.sample(labels, UINT64_MAX);
  writer.sample({}, uint64_t{0});
  writer.family("rw_up", "Whether it runs.", MetricType::kGauge);
  writer.sample({}, 0.25);
  writer.sample({}, 1e300);
  writer.sample({}, std::nan(""));
  writer.sample({}, INFINITY);
  writer.sample({}, -INFINITY);
  CHECK(writer.take() ==
        "# HELP rw_requests_total Requests, by \"route\"\\nand \\\\.\n"
        "# TYPE rw_requests_total counter\n"
        "rw_requests_total{route=\"a\\\"b\\\\c\\nd\",listener=\"\"} 18446744073709551615\n"
        "rw_requests_total 0\n"
        "# HELP rw_up Whether it runs.\n"
        "# TYPE rw_up gauge\n"
        "rw_up 0.25\nrw_up 1e+300\nrw_up NaN\nrw_up +Inf\nrw_up -Inf\n");
  CHECK(writer.take().empty());
  writer.family("rw_up", "The same name in the next scrape.", MetricType::kGauge);
}

TEST_CASE("MetricsWriter: histogram -> cumulative buckets in seconds, +Inf equals count") {
  LatencyHistogram histogram;
  for (const uint64_t us : {50, 100, 101, 1'500'000, 20'000'000}) histogram.record(us);
  LatencySnapshot snapshot;
  snapshot.add(histogram);
  MetricsWriter writer;
  writer.family("rw_seconds", "Time.", MetricType::kHistogram);
  const MetricLabel labels[] = {{"upstream", "u"}};
  writer.histogram(labels, snapshot);
  writer.histogram({}, LatencySnapshot{});
  const std::string text = writer.take();
  CAPTURE(text);
  for (const char* line :
       {"# TYPE rw_seconds histogram\n", "rw_seconds_bucket{upstream=\"u\",le=\"0.0001\"} 2\n",
        "rw_seconds_bucket{upstream=\"u\",le=\"0.00025\"} 3\n",
        "rw_seconds_bucket{upstream=\"u\",le=\"1\"} 3\n",
        "rw_seconds_bucket{upstream=\"u\",le=\"2.5\"} 4\n",
        "rw_seconds_bucket{upstream=\"u\",le=\"10\"} 4\n",
        "rw_seconds_bucket{upstream=\"u\",le=\"+Inf\"} 5\n",
        "rw_seconds_sum{upstream=\"u\"} 21.500251\n", "rw_seconds_count{upstream=\"u\"} 5\n",
        "rw_seconds_bucket{le=\"+Inf\"} 0\n", "rw_seconds_sum 0\n", "rw_seconds_count 0\n"}) {
    CAPTURE(line);
    CHECK(text.find(line) != std::string::npos);
  }
}

TEST_CASE("MetricsWriter: histogram bounds -> the text is what the histogram counts by") {
  for (const uint64_t bound : LatencyHistogram::kBoundsUs) {
    LatencyHistogram histogram;
    histogram.record(bound);
    LatencySnapshot snapshot;
    snapshot.add(histogram);
    MetricsWriter writer;
    writer.family("rw_seconds", "Time.", MetricType::kHistogram);
    writer.histogram({}, snapshot);
    const std::string text = writer.take();
    const size_t counted = text.find("\"} 1\n");
    const size_t start = text.rfind("le=\"", counted) + 4;
    CHECK(std::stod(text.substr(start, counted - start)) * 1e6 ==
          doctest::Approx(static_cast<double>(bound)));
  }
}

namespace {

struct FixedSource final : MetricsSource {
  std::string metrics() override {
    ++scrapes;
    return text;
  }
  std::string text = "rw_up 1\n";
  int scrapes = 0;
};

// A server with its clients in one thread.
struct World {
  explicit World(EngineKind kind) {
    EngineResult engine = make_engine(kind);
    REQUIRE(engine.io != nullptr);
    io = std::move(engine.io);
    timers = std::make_unique<Timers>(now_ms());
    ServerAddress any;
    REQUIRE(parse_address("127.0.0.1:0", any));
    listen_fd = open_listener(any);
    REQUIRE(listen_fd >= 0);
    address.length = sizeof address.storage;
    getsockname(listen_fd, reinterpret_cast<sockaddr*>(&address.storage), &address.length);
    server = std::make_unique<MetricsServer>(*io, *timers, listen_fd, source);
  }
  ~World() {
    server->stop();
    server->stop();
    CHECK(run_until([&] { return server->live() == 0; }));
    for (const int fd : clients) close(fd);
    server.reset();
    close(listen_fd);
  }

  int64_t now_ms() const { return io->now_us() / 1000; }
  int dial() {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(connect(fd, address.get(), address.length) == 0);
    clients.push_back(fd);
    return fd;
  }
  int dial_and_say(std::string_view text) {
    const int fd = dial();
    say(fd, text);
    return fd;
  }
  static void say(int fd, std::string_view text) {
    REQUIRE(send(fd, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size()));
  }
  void hang_up(int fd) {
    std::erase(clients, fd);
    close(fd);
  }

  template <typename Done>
  bool run_until(Done done) {
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!done()) {
      if (std::chrono::steady_clock::now() > give_up) return false;
      io->run_once(1);
      timers->expire(now_ms() + skipped_ms);
    }
    return true;
  }
  // What arrives on `fd` until it ends with `end`; or until the server's FIN if `end` is empty.
  std::string hear(int fd, std::string_view end) {
    std::string text;
    bool fin = false;
    CHECK(run_until([&] {
      char buffer[65536];
      const ssize_t got = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
      if (got > 0) text.append(buffer, static_cast<size_t>(got));
      fin = got == 0;
      return fin || (!end.empty() && text.ends_with(end));
    }));
    CHECK(fin == end.empty());
    return text;
  }
  bool ends(int fd) {
    return run_until([&] {
      char byte = 0;
      return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
    });
  }

  std::unique_ptr<Io> io;
  std::unique_ptr<Timers> timers;
  FixedSource source;
  ServerAddress address;
  int listen_fd = -1;
  std::unique_ptr<MetricsServer> server;
  std::vector<int> clients;
  int64_t skipped_ms = 0;
};

constexpr EngineKind kKinds[] = {EngineKind::kAuto, EngineKind::kEpoll};

std::string get(std::string_view path) {
  return "GET " + std::string(path) + " HTTP/1.1\r\nHost: edge\r\n\r\n";
}

}  // namespace

TEST_CASE("MetricsServer: GET and HEAD, several on one connection -> answered in order") {
  for (const EngineKind kind : kKinds) {
    World w(kind);
    CAPTURE(w.io->name());
    const int client = w.dial_and_say(get("/metrics"));
    std::string text = w.hear(client, "rw_up 1\n");
    CHECK(text.starts_with("HTTP/1.1 200 OK\r\n"));
    CHECK(text.find("version=0.0.4") != std::string::npos);
    CHECK(w.source.scrapes == 1);

    w.say(client, get("/healthz?full=1"));
    CHECK(w.hear(client, "\r\n\r\nok\n").starts_with("HTTP/1.1 200 OK\r\n"));
    w.say(client, "HEAD /healthz HTTP/1.1\r\nHost: edge\r\n\r\n");
    CHECK(w.hear(client, "\r\n\r\n").starts_with("HTTP/1.1 200 OK\r\n"));
    w.say(client, get("/other"));
    CHECK(w.hear(client, "not found\n").starts_with("HTTP/1.1 404 Not Found\r\n"));
    w.say(client, "DELETE /metrics HTTP/1.1\r\nHost: edge\r\n\r\n");
    text = w.hear(client, "method not allowed\n");
    CHECK(text.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"));
    CHECK(text.find("\r\nAllow: GET, HEAD\r\n") != std::string::npos);
    CHECK(w.source.scrapes == 1);

    // Byte by byte.
    for (const char c : get("/metrics")) {
      w.say(client, std::string_view(&c, 1));
      w.io->run_once(1);
    }
    w.hear(client, "rw_up 1\n");
    CHECK(w.source.scrapes == 2);
    CHECK(w.server->live() == 1);
  }
}

TEST_CASE("MetricsServer: requests sent ahead -> all answered; half-close -> answered, closed") {
  for (const EngineKind kind : kKinds) {
    World w(kind);
    CAPTURE(w.io->name());
    std::string batch;
    for (int i = 0; i < 10; ++i) batch += get("/metrics");
    const int client = w.dial_and_say(batch + get("/healthz"));
    const std::string text = w.hear(client, "ok\n");
    CHECK(w.source.scrapes == 10);
    w.say(client, get("/healthz"));
    shutdown(client, SHUT_WR);
    CHECK(w.hear(client, "").ends_with("\r\n\r\nok\n"));
    CHECK(w.run_until([&] { return w.server->live() == 0; }));
  }
}

TEST_CASE("MetricsServer: bad, large, old or unwanted requests -> answered and closed") {
  for (const EngineKind kind : kKinds) {
    World w(kind);
    CAPTURE(w.io->name());
    struct Case {
      std::string request;
      std::string_view status;
    };
    const Case cases[] = {
        {"nonsense\r\n\r\n", "HTTP/1.1 501 "},
        {"GET /metrics HTTP/1.1\r\nHost : a\r\n\r\n", "HTTP/1.1 400 "},
        {"GET /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},  // No Host.
        {"GET /metrics HTTP/1.1\r\nHost: a\r\nX: " + std::string(9000, 'x'), "HTTP/1.1 431 "},
        {"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 "},
        {"GET /metrics HTTP/1.0\r\n\r\n", "HTTP/1.1 200 "},
        {"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nsome", "HTTP/1.1 405 "},
    };
    for (const Case& c : cases) {
      CAPTURE(c.request);
      const int client = w.dial_and_say(c.request);
      const std::string text = w.hear(client, "");
      CHECK(text.starts_with(c.status));
      CHECK(text.find("\r\nConnection: close\r\n") != std::string::npos);
      // It drains until we are gone.
      w.hang_up(client);
      CHECK(w.run_until([&] { return w.server->live() == 0; }));
    }
  }
}

// Goal: a stuck scraper keeps its own slot only, and its page arrives whole once it reads.
TEST_CASE("MetricsServer: scraper does not read -> others served; it reads later -> all bytes") {
  for (const EngineKind kind : kKinds) {
    World w(kind);
    CAPTURE(w.io->name());
    w.source.text.clear();
    for (int i = 0; w.source.text.size() < 16 << 20; ++i) {
      w.source.text += "rw_x{i=\"" + std::to_string(i) + "\"} 1\n";
    }
    w.source.text += "rw_end 1\n";
    const int stuck = w.dial_and_say(get("/metrics") + get("/healthz"));
    CHECK(w.run_until([&] { return w.source.scrapes == 1; }));
    const int other = w.dial_and_say(get("/healthz"));
    w.hear(other, "ok\n");
    const std::string text = w.hear(stuck, "\r\n\r\nok\n");
    const size_t body = text.find("\r\n\r\n") + 4;
    CHECK(text.substr(body, w.source.text.size()) == w.source.text);
    CHECK(w.source.scrapes == 1);
  }
}

TEST_CASE("MetricsServer: scraper stuck for good or gone while sending -> closed") {
  for (const EngineKind kind : kKinds) {
    World w(kind);
    CAPTURE(w.io->name());
    w.source.text = std::string(16 << 20, '\n');
    const int stuck = w.dial_and_say(get("/metrics"));
    CHECK(w.run_until([&] { return w.source.scrapes == 1; }));
    w.skipped_ms += MetricsServer::kSendMs - 1000;
    w.run_until([] { return true; });
    CHECK(w.server->live() == 1);
    w.skipped_ms += 2000;
    CHECK(w.run_until([&] { return w.server->live() == 0; }));
    w.hang_up(stuck);

    const int gone = w.dial_and_say(get("/metrics"));
    CHECK(w.run_until([&] { return w.source.scrapes == 2; }));
    w.hang_up(gone);
    CHECK(w.run_until([&] { return w.server->live() == 0; }));
  }
}

TEST_CASE("MetricsServer: idle, slow head or endless drain -> closed in time") {
  for (const EngineKind kind : kKinds) {
    World w(kind);
    CAPTURE(w.io->name());
    const int idle = w.dial();
    const int slow = w.dial_and_say("GET /metrics");
    const int draining = w.dial_and_say("nonsense\r\n\r\n");
    w.hear(draining, "");
    CHECK(w.run_until([&] { return w.server->live() == 3; }));
    w.say(draining, "more of it");
    w.skipped_ms += MetricsServer::kDrainMs + 100;
    CHECK(w.run_until([&] { return w.server->live() == 2; }));
    w.say(slow, " HT");  // Progress, but the time counts from the first byte.
    w.skipped_ms += MetricsServer::kHeadMs - MetricsServer::kDrainMs;
    CHECK(w.run_until([&] { return w.server->live() == 1; }));
    CHECK(w.ends(slow));
    w.skipped_ms += MetricsServer::kIdleMs;
    CHECK(w.run_until([&] { return w.server->live() == 0; }));
    CHECK(w.ends(idle));
  }
}

TEST_CASE("MetricsServer: too many connections -> refused until one goes") {
  for (const EngineKind kind : kKinds) {
    World w(kind);
    CAPTURE(w.io->name());
    for (size_t i = 0; i < MetricsServer::kConnectionsMax; ++i) w.dial();
    CHECK(w.run_until([&] { return w.server->live() == MetricsServer::kConnectionsMax; }));
    CHECK(w.ends(w.dial()));
    CHECK(w.server->refused() == 1);
    w.hang_up(w.clients.front());
    CHECK(w.run_until([&] { return w.server->live() < MetricsServer::kConnectionsMax; }));
    w.hear(w.dial_and_say(get("/healthz")), "ok\n");
  }
}
