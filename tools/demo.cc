// tools/demo.cc
#include "tools/demo.h"

#include <stdio.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <thread>

#include "core/engines.h"
#include "tools/demo_origin.h"
#include "tools/serve.h"

namespace ringway {
namespace {

constexpr size_t kOrigins = 3;

uint16_t port_of(int fd) {
  sockaddr_in address{};
  socklen_t length = sizeof address;
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  return ntohs(address.sin_port);
}

// Serves the origins until `stop`.
void run_origins(std::array<int, kOrigins> fds, const std::atomic<bool>& stop) {
  const EngineResult engine = make_engine(EngineKind::kAuto);
  std::array<std::unique_ptr<DemoOrigin>, kOrigins> origins;
  for (size_t i = 0; i < kOrigins; ++i) {
    origins[i] = std::make_unique<DemoOrigin>(*engine.io, fds[i]);
  }
  while (!stop.load()) engine.io->run_once(100);
  for (auto& origin : origins) origin->close_all();
  const auto busy = [&] {
    for (auto& origin : origins) {
      if (origin->live() > 0) return true;
    }
    return false;
  };
  while (busy()) engine.io->run_once(10);
}

struct Totals {
  uint64_t requests = 0;
  uint64_t connections = 0;
  uint64_t to_servers = 0;
  uint64_t reused = 0;
  uint64_t idle = 0;
};

uint64_t reused_of(const PoolStats& pool) {
  uint64_t sum = 0;
  for (const Counter& how : pool.handed) sum += how.get();
  return sum - pool.handed[static_cast<size_t>(How::kFresh)].get();
}

uint64_t idle_of(const PoolStats& pool) {
  return pool.places[static_cast<size_t>(Place::kIdleSafe)].get() +
         pool.places[static_cast<size_t>(Place::kIdleUnproven)].get();
}

Totals sum(Control& control) {
  Totals totals;
  const Snapshot& snapshot = control.snapshot();
  for (uint32_t shard = 0; shard < control.shards().count(); ++shard) {
    for (const auto& listener : snapshot.listeners) {
      totals.requests += listener->shard.at(shard).requests.get();
      totals.connections += listener->shard.at(shard).active.get();
    }
    for (const auto& servers : snapshot.servers) {
      for (const auto& server : servers) {
        totals.to_servers += server->shard.at(shard).requests.get();
        totals.reused += reused_of(server->shard.at(shard).pool);
        totals.idle += idle_of(server->shard.at(shard).pool);
      }
    }
  }
  return totals;
}

void live_line(Control& control) {
  static Totals before;  // one demo per process
  const Totals now = sum(control);
  const double share = now.to_servers == 0 ? 0.0
                                           : 100.0 * static_cast<double>(now.reused) /
                                                 static_cast<double>(now.to_servers);
  const bool tty = isatty(STDERR_FILENO) != 0;
  if (!tty && now.requests == before.requests) return;
  fprintf(stderr,
          "%s%llu requests/s, %llu client connections, %llu idle to servers, %.1f %% reused %s",
          tty ? "\r" : "", static_cast<unsigned long long>(now.requests - before.requests),
          static_cast<unsigned long long>(now.connections),
          static_cast<unsigned long long>(now.idle), share, tty ? "  " : "\n");
  before = now;
}

}  // namespace

int run_demo() {
  std::array<int, kOrigins> fds{};
  std::string servers;
  ServerAddress any;
  if (!parse_address("127.0.0.1:0", any)) return kExitInvalid;
  for (int& fd : fds) {
    fd = open_listener(any);
    if (fd < 0) {
      fprintf(stderr, "ringway: the demo cannot listen on 127.0.0.1\n");
      return kExitInvalid;
    }
    servers += "{ address = \"127.0.0.1:" + std::to_string(port_of(fd)) + "\" }, ";
  }
  config::LoadResult loaded = config::load_text(
      "version = 1\n[logs.process]\nlevel = \"warning\"\n[process]\ndrain_timeout = \"5s\"\n"
      "[listeners.demo]\nbind = \"127.0.0.1:0\"\n[[routes]]\nname = \"all\"\nupstream = "
      "\"origins\"\n"
      "[upstreams.origins]\nservers = [" +
          servers + "]\n",
      "demo");
  if (loaded.config == nullptr) {
    fputs(config::render(loaded, false).c_str(), stderr);
    return kExitInvalid;
  }
  std::atomic<bool> stop{false};
  std::thread origins([&] { run_origins(fds, stop); });
  int code = kExitOk;
  {
    Control control("", std::move(loaded.config));
    code = control.start();
    if (code == kExitOk) {
      route_signals_to(control);
      const std::string& address = control.book().bound().begin()->second.address;
      fprintf(stderr,
              "ringway demo: %zu origins behind %u shard(s), engine %s. Try:\n"
              "  curl http://%s/\n  wrk -c 64 -d 5 http://%s/\nCtrl-C drains and stops.\n",
              kOrigins, control.shards().count(), control.shards().at(0).engine_name(),
              address.c_str(), address.c_str());
      control.set_tick(live_line, 1000);
      code = control.run();
      forget_control();
    }
  }
  stop.store(true);
  origins.join();
  for (const int fd : fds) ::close(fd);
  fprintf(stderr, "\nringway demo: stopped\n");
  return code;
}

}  // namespace ringway
