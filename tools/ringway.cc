// tools/ringway.cc - the command line: `ringway tcp LISTEN SERVER...` and `ringway demo`.
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/engines.h"
#include "lb/l4_session.h"
#include "tools/demo_origin.h"

namespace {

using namespace ringway;  // NOLINT(google-build-using-namespace): a main() of ours

constexpr int kExitUsage = 2;
constexpr int kExitFailure = 1;
constexpr int kExitEnvironment = 71;

volatile sig_atomic_t g_stop = 0;  // NOLINT: written by the signal handler only

void on_signal(int /*signal*/) {
  g_stop = 1;
}

constexpr const char* kUsage =
    "usage:\n"
    "  ringway demo                               origin and balancer on loopback, to try it out\n"
    "  ringway tcp [--engine=E] LISTEN SERVER...  layer 4: relay LISTEN to the servers, round "
    "robin\n"
    "  ringway --version\n"
    "LISTEN and SERVER: 127.0.0.1:80, [::1]:80 or unix:/path. E: auto (default), io_uring, epoll.\n"
    "Ctrl-C or SIGTERM stops. Exit codes: 0 stopped, 1 failure, 2 usage, 71 io_uring refused.\n";

uint16_t port_of(int fd) {
  sockaddr_in address{};
  socklen_t length = sizeof address;
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  return ntohs(address.sin_port);
}

int listen_or_explain(const std::string& text) {
  ServerAddress address;
  if (!parse_address(text, address)) {
    fprintf(stderr, "ringway: \"%s\" is no address (127.0.0.1:80, [::1]:80, unix:/path)\n",
            text.c_str());
    return -1;
  }
  const int fd = open_listener(address);
  if (fd < 0) fprintf(stderr, "ringway: cannot listen on %s: %s\n", text.c_str(), strerror(-fd));
  return fd;
}

void serve(Io& io, L4Listener& balancer, bool live_line) {
  int turns = 0;
  while (g_stop == 0) {
    io.run_once(200);
    if (live_line && ++turns % 4096 == 0) {
      fprintf(stderr, "\r%llu connections, %llu bytes relayed ",
              static_cast<unsigned long long>(balancer.counters().accepted),
              static_cast<unsigned long long>(balancer.counters().bytes));
    }
  }
  balancer.close_all();
  for (int i = 0; i < 1000 && balancer.live() > 0; ++i) io.run_once(10);
  const L4Counters& total = balancer.counters();
  fprintf(stderr, "\nringway: stopped; %llu connections, %llu refused, %llu bytes relayed\n",
          static_cast<unsigned long long>(total.accepted),
          static_cast<unsigned long long>(total.refused),
          static_cast<unsigned long long>(total.bytes));
}

int run_demo(Io& io) {
  const int origin_fd = listen_or_explain("127.0.0.1:0");
  const int front_fd = listen_or_explain("127.0.0.1:0");
  if (origin_fd < 0 || front_fd < 0) return kExitFailure;
  DemoOrigin origin(io, origin_fd);
  ServerAddress server;
  if (!parse_address("127.0.0.1:" + std::to_string(port_of(origin_fd)), server))
    return kExitFailure;
  L4Listener balancer(io, front_fd, {server});
  fprintf(stderr,
          "ringway demo (%s). Try:\n  curl http://127.0.0.1:%u/\n"
          "  wrk -c 64 -d 5 http://127.0.0.1:%u/\n",
          io.name(), port_of(front_fd), port_of(front_fd));
  serve(io, balancer, true);
  origin.close_all();
  for (int i = 0; i < 1000 && origin.live() > 0; ++i) io.run_once(10);
  return 0;
}

int run_tcp(Io& io, const std::vector<std::string>& words) {
  std::vector<ServerAddress> servers;
  for (size_t i = 1; i < words.size(); ++i) {
    servers.emplace_back();
    if (!parse_address(words[i], servers.back())) {
      fprintf(stderr, "ringway: \"%s\" is no address\n", words[i].c_str());
      return kExitUsage;
    }
  }
  const int fd = listen_or_explain(words[0]);
  if (fd < 0) return kExitFailure;
  L4Listener balancer(io, fd, std::move(servers));
  fprintf(stderr, "ringway: tcp on %s (%s)\n", words[0].c_str(), io.name());
  serve(io, balancer, false);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  EngineKind kind = EngineKind::kAuto;
  if (words.size() > 1 && words[1].starts_with("--engine=")) {
    const std::string engine = words[1].substr(9);
    if (engine != "auto" && engine != "io_uring" && engine != "epoll") {
      fputs(kUsage, stderr);
      return kExitUsage;
    }
    if (engine == "io_uring") kind = EngineKind::kIoUring;
    if (engine == "epoll") kind = EngineKind::kEpoll;
    words.erase(words.begin() + 1);
  }
  const std::string command = words.empty() ? "" : words[0];
  if (command == "--version") return puts("ringway 0.1.0"), 0;
  if (command == "--help") return fputs(kUsage, stdout), 0;
  const bool tcp = command == "tcp" && words.size() >= 3;
  if (!tcp && !(command == "demo" && words.size() == 1)) {
    fputs(kUsage, stderr);
    return kExitUsage;
  }
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);

  EngineResult engine = make_engine(kind);
  if (engine.io == nullptr) {
    fprintf(stderr, "ringway: %s\n", engine.reason.c_str());
    return kExitEnvironment;
  }
  if (!engine.reason.empty()) {
    fprintf(stderr, "ringway: using epoll: %s\n", engine.reason.c_str());
  }
  words.erase(words.begin());
  return tcp ? run_tcp(*engine.io, words) : run_demo(*engine.io);
}
