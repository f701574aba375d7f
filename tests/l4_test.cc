// tests/l4_test.cc - both engines relay over real loopback sockets: one suite, run on each.
#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>

#include "core/engines.h"
#include "lb/l4_session.h"
#include "tools/demo_origin.h"

using namespace ringway;

namespace {

ServerAddress bound(int fd) {
  ServerAddress address;
  address.length = sizeof address.storage;
  getsockname(fd, reinterpret_cast<sockaddr*>(&address.storage), &address.length);
  return address;
}

int listen_any() {
  ServerAddress any;
  REQUIRE(parse_address("127.0.0.1:0", any));
  const int fd = open_listener(any);
  REQUIRE(fd >= 0);
  return fd;
}

int dial(const ServerAddress& to) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(connect(fd, reinterpret_cast<const sockaddr*>(&to.storage), to.length) == 0);
  return fd;
}

// Runs turns until `done`. Gives up after 30 s, so that a hang fails instead of blocking; a count
// of turns would not do, since each event may be a turn of its own.
template <typename Done>
bool run_until(Io& io, Done done) {
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!done()) {
    if (std::chrono::steady_clock::now() > give_up) return false;
    io.run_once(1);
  }
  return true;
}

}  // namespace

TEST_CASE("parse_address: every form, and what is none") {
  ServerAddress a;
  CHECK(parse_address("127.0.0.1:80", a));
  CHECK(parse_address("[::1]:80", a));
  CHECK(parse_address("unix:/tmp/x", a));
  for (const char* bad : {"", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "host:80", "::1:80",
                          "[::1]", "unix:", "1.2.3.4:80x"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_address(bad, a));
  }
}

TEST_CASE("L4: request relayed, dead server skipped, all dead -> client closed") {
  for (const EngineKind kind : {EngineKind::kAuto, EngineKind::kEpoll}) {
    EngineResult engine = make_engine(kind);
    REQUIRE(engine.io != nullptr);
    CAPTURE(engine.io->name());
    Io& io = *engine.io;
    const int origin_fd = listen_any();
    const int front_fd = listen_any();
    const int dead_fd = listen_any();
    const int lost_fd = listen_any();
    const ServerAddress dead = bound(dead_fd);
    close(dead_fd);  // Nobody listens there now: connecting is refused.
    DemoOrigin origin(io, origin_fd);
    L4Listener balancer(io, front_fd, {dead, bound(origin_fd)});
    L4Listener hopeless(io, lost_fd, {dead});

    const int client = dial(bound(front_fd));
    REQUIRE(write(client, "GET / HTTP/1.1\r\n\r\n", 18) == 18);
    std::string answer;
    CHECK(run_until(io, [&] {
      char buffer[256];
      const ssize_t got = recv(client, buffer, sizeof buffer, MSG_DONTWAIT);
      if (got > 0) answer.append(buffer, static_cast<size_t>(got));
      return answer.ends_with("Hello from Ringway\n");
    }));
    close(client);
    CHECK(run_until(io, [&] { return balancer.live() == 0 && origin.live() == 0; }));

    const int unlucky = dial(bound(lost_fd));
    char byte = 0;
    CHECK(run_until(io, [&] { return recv(unlucky, &byte, 1, MSG_DONTWAIT) == 0; }));
    CHECK(hopeless.counters().refused == 1);
    close(unlucky);
    CHECK(run_until(io, [&] { return hopeless.live() == 0; }));
    close(origin_fd);
    close(front_fd);
    close(lost_fd);
  }
}

// Goal: half-close and back-pressure. The peer echoes 8 MiB while the client writes first and reads
// late, so both directions fill their buffers; then the client's FIN must pass and come back.
TEST_CASE("L4: 8 MiB echoed through a slow reader -> every byte, then FIN") {
  for (const EngineKind kind : {EngineKind::kAuto, EngineKind::kEpoll}) {
    EngineResult engine = make_engine(kind);
    Io& io = *engine.io;
    CAPTURE(io.name());
    const int echo_fd = listen_any();
    const int front_fd = listen_any();
    L4Listener balancer(io, front_fd, {bound(echo_fd)});
    constexpr size_t kTotal = 8 << 20;
    const int client = dial(bound(front_fd));

    size_t got = 0;
    bool intact = true;
    std::thread echo([&] {
      pollfd ready{echo_fd, POLLIN, 0};
      if (poll(&ready, 1, 10'000) != 1) return;
      const int fd = accept(echo_fd, nullptr, nullptr);
      std::string buffer(65536, '\0');
      for (ssize_t n; (n = read(fd, buffer.data(), buffer.size())) > 0;) {
        for (ssize_t at = 0, w; at < n; at += w) {
          w = write(fd, buffer.data() + at, static_cast<size_t>(n - at));
          if (w <= 0) break;
        }
      }
      close(fd);
    });
    std::thread writer([&] {
      std::string block(65536, '\0');
      for (size_t at = 0; at < kTotal; at += block.size()) {
        for (size_t i = 0; i < block.size(); ++i) block[i] = static_cast<char>((at + i) * 7 / 3);
        for (size_t done = 0; done < block.size();) {
          const ssize_t n = write(client, block.data() + done, block.size() - done);
          if (n <= 0) return;
          done += static_cast<size_t>(n);
        }
      }
      shutdown(client, SHUT_WR);
    });
    std::thread reader([&] {
      usleep(20'000);
      std::string buffer(16384, '\0');
      for (ssize_t n; (n = read(client, buffer.data(), buffer.size())) > 0;) {
        for (ssize_t i = 0; i < n; ++i) {
          const size_t at = got + static_cast<size_t>(i);
          intact = intact && buffer[static_cast<size_t>(i)] == static_cast<char>(at * 7 / 3);
        }
        got += static_cast<size_t>(n);
      }
    });
    CHECK(run_until(io, [&] { return balancer.counters().accepted == 1 && balancer.live() == 0; }));
    if (balancer.live() > 0) balancer.close_all();
    run_until(io, [&] { return balancer.live() == 0; });
    writer.join();
    reader.join();
    echo.join();
    CHECK(got == kTotal);
    CHECK(intact);
    close(client);
    close(echo_fd);
    close(front_fd);
  }
}
