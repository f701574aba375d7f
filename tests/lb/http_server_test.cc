// tests/lb/http_server_test.cc - bodies and late answers; metrics_test.cc has the rest.
#include "lb/admin/http_server.h"

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "core/engines.h"

using namespace ringway;

namespace {

// Answers with the request's body; late ones when the test says so.
struct Echo final : HttpHandler {
  void on_request(HttpServer& server, HttpTicket ticket, const HttpRequest& request) override {
    bodies.emplace_back(request.body);
    peer = request.peer;
    if (request.path == "/late") return tickets.push_back(ticket);
    server.respond(ticket, {.body = "<" + std::string(request.body) + ">"});
  }
  std::vector<std::string> bodies;
  std::vector<HttpTicket> tickets;
  HttpPeer peer;
};

struct World {
  explicit World(EngineKind kind) {
    EngineResult engine = make_engine(kind);
    REQUIRE(engine.io != nullptr);
    io = std::move(engine.io);
    timers = std::make_unique<Timers>(io->now_us() / 1000);
    char folder[] = "/tmp/rw_http_XXXXXX";
    REQUIRE(mkdtemp(folder) != nullptr);
    directory = folder;
    REQUIRE(parse_address("unix:" + directory + "/s", address));
    listen_fd = open_listener(address);
    REQUIRE(listen_fd >= 0);
    server = std::make_unique<HttpServer>(*io, *timers, listen_fd, echo,
                                          HttpServerLimits{.connections = 4, .body_bytes = 1000});
  }
  ~World() {
    server->stop();
    CHECK(run_until([&] { return server->live() == 0; }));
    for (const int fd : clients) close(fd);
    server.reset();
    close(listen_fd);
    unlink((directory + "/s").c_str());
    rmdir(directory.c_str());
  }

  int dial_and_say(std::string_view text) {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(connect(fd, address.get(), address.length) == 0);
    clients.push_back(fd);
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
      timers->expire(io->now_us() / 1000 + skipped_ms);
    }
    return true;
  }
  // What arrives until it ends with `end`, or until FIN if `end` is empty.
  std::string hear(int fd, std::string_view end) {
    std::string text;
    bool fin = false;
    CHECK(run_until([&] {
      char buffer[4096];
      const ssize_t got = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
      if (got > 0) text.append(buffer, static_cast<size_t>(got));
      fin = got == 0;
      return fin || (!end.empty() && text.ends_with(end));
    }));
    CHECK(fin == end.empty());
    return text;
  }

  std::unique_ptr<Io> io;
  std::unique_ptr<Timers> timers;
  Echo echo;
  std::string directory;
  ServerAddress address;
  int listen_fd = -1;
  std::unique_ptr<HttpServer> server;
  std::vector<int> clients;
  int64_t skipped_ms = 0;
};

constexpr EngineKind kKinds[] = {EngineKind::kAuto, EngineKind::kEpoll};
constexpr std::string_view kChunked =
    "PATCH /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: v\r\n\r\n";

std::string post(std::string_view path, std::string_view body) {
  return "POST " + std::string(path) +
         " HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         std::string(body);
}

}  // namespace

TEST_CASE("HttpServer: bodies by length or chunked, in pieces or ahead -> handed over whole") {
  for (const EngineKind kind : kKinds) {
    World w(kind);
    CAPTURE(w.io->name());
    const int client = w.dial_and_say(post("/", "hello") + std::string(kChunked) + post("/", ""));
    const std::string text = w.hear(client, "<>");
    CHECK(text.find("<hello>") < text.find("<abcde>"));
    for (const std::string& request : {post("/", "x=1"), std::string(kChunked)}) {
      for (const char c : request) {
        w.say(client, std::string_view(&c, 1));
        w.io->run_once(1);
      }
      w.hear(client, ">");
    }
    CHECK(w.echo.bodies == std::vector<std::string>{"hello", "abcde", "", "x=1", "abcde"});
    CHECK(w.echo.peer.uid == getuid());
    CHECK(w.echo.peer.pid == getpid());
  }
}

TEST_CASE(
    "HttpServer: body too large, malformed, or never complete -> refused, or closed in time") {
  for (const EngineKind kind : kKinds) {
    World w(kind);
    CAPTURE(w.io->name());
    CHECK(w.hear(w.dial_and_say(post("/", std::string(1000, 'x'))), ">").find("200 OK") == 9);
    w.hang_up(w.clients.back());
    CHECK(w.hear(w.dial_and_say(post("/", std::string(1001, 'x'))), "").find("413") == 9);
    w.hang_up(w.clients.back());
    CHECK(w.hear(w.dial_and_say(
                     "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
                 "")
              .find("400") == 9);
    w.hang_up(w.clients.back());
    CHECK(w.run_until([&] { return w.server->live() == 0; }));
    w.dial_and_say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc");
    CHECK(w.run_until([&] { return w.server->live() == 1; }));
    w.run_until([] { return true; });
    w.skipped_ms += HttpServerLimits{}.body_ms + 100;
    CHECK(w.run_until([&] { return w.server->live() == 0; }));
    CHECK(w.echo.bodies.size() == 1);
  }
}

TEST_CASE(
    "HttpServer: late answers -> in any order, however long; to clients that left -> nothing") {
  for (const EngineKind kind : kKinds) {
    World w(kind);
    CAPTURE(w.io->name());
    const int first = w.dial_and_say(post("/late", "1") + post("/", "ahead"));
    CHECK(w.run_until([&] { return w.echo.tickets.size() == 1; }));
    const int second = w.dial_and_say(post("/late", "2"));
    CHECK(w.run_until([&] { return w.echo.tickets.size() == 2; }));
    const int gone = w.dial_and_say(post("/late", "3"));
    CHECK(w.run_until([&] { return w.echo.tickets.size() == 3; }));
    w.skipped_ms += 3'600'000;  // The handler may take its time.
    w.run_until([] { return true; });
    CHECK(w.server->live() == 3);
    // One that is gone may only have ended its side: it is given up after a while.
    w.hang_up(gone);
    w.io->run_once(10);
    w.skipped_ms += HttpServerLimits{}.half_closed_ms + 100;
    CHECK(w.run_until([&] { return w.server->live() == 2; }));
    w.server->respond(w.echo.tickets[2], {.body = "three"});
    w.server->respond(w.echo.tickets[1], {.body = "two"});
    w.hear(second, "two");
    w.server->respond(w.echo.tickets[0], {.body = "one"});
    CHECK(w.hear(first, "<ahead>").find("one") != std::string::npos);
  }
}

TEST_CASE("HttpServer: half-close before a late answer -> answered, then closed") {
  for (const EngineKind kind : kKinds) {
    World w(kind);
    CAPTURE(w.io->name());
    const int client = w.dial_and_say(post("/late", "1"));
    shutdown(client, SHUT_WR);
    CHECK(w.run_until([&] { return w.echo.tickets.size() == 1; }));
    w.io->run_once(10);
    w.server->respond(w.echo.tickets[0], {.body = "one"});
    CHECK(w.hear(client, "").ends_with("one"));
  }
}

TEST_CASE("HttpServer: finish -> idle ones closed, a waiting one gets its answer and is closed") {
  for (const EngineKind kind : kKinds) {
    World w(kind);
    CAPTURE(w.io->name());
    const int waiting = w.dial_and_say(post("/late", "1"));
    CHECK(w.run_until([&] { return w.echo.tickets.size() == 1; }));
    const int idle = w.dial_and_say(post("/", ""));
    w.hear(idle, "<>");
    w.server->finish();
    CHECK(w.hear(idle, "").empty());
    CHECK(w.run_until([&] { return w.server->live() == 1; }));
    w.server->respond(w.echo.tickets[0], {.body = "one"});
    CHECK(w.hear(waiting, "").ends_with("one"));
    w.hang_up(waiting);
    CHECK(w.run_until([&] { return w.server->live() == 0; }));
  }
}
