// tools/serve.cc
#include "tools/serve.h"

#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>

namespace ringway {
namespace {

// A signal handler has no other way to find it.
// NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables)
std::atomic<Control*> g_control{nullptr};

void on_signal(int signal) {
  Control* control = g_control.load();
  if (control == nullptr) return;
  switch (signal) {
    case SIGHUP: control->signals().reload.store(true); break;
    case SIGUSR1: control->signals().reopen.store(true); break;
    default: control->signals().stop.fetch_add(1); break;
  }
  control->wake();
}

}  // namespace

void route_signals_to(Control& control) {
  g_control.store(&control);
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGHUP, SIGUSR1, SIGTERM, SIGINT}) sigaction(signal, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
}

void forget_control() {
  g_control.store(nullptr);
}

std::string raise_descriptor_limit(uint64_t connections) {
  // Two descriptors per client, and a reserve for listeners, logs, checks and scrapes.
  const rlim_t wanted = 2 * connections + 1024;
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur >= wanted) return "";
  rlimit raised = limit;
  raised.rlim_cur = wanted;
  raised.rlim_max = std::max(limit.rlim_max, wanted);
  if (setrlimit(RLIMIT_NOFILE, &raised) == 0) return "";
  raised.rlim_cur = std::min<rlim_t>(wanted, limit.rlim_max);
  raised.rlim_max = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &raised);
  if (raised.rlim_cur >= wanted) return "";
  return "process.max_connections = " + std::to_string(connections) + " may need " +
         std::to_string(wanted) + " descriptors, but the limit is " +
         std::to_string(raised.rlim_cur) +
         ": raise LimitNOFILE (accepting pauses when they run out)";
}

int serve(const std::string& path, std::unique_ptr<const config::Config> config) {
  const std::string warning = raise_descriptor_limit(config->process.max_connections);
  if (!warning.empty()) fprintf(stderr, "ringway: %s\n", warning.c_str());
  Control control(path, std::move(config));
  const int started = control.start();
  if (started != kExitOk) return started;
  route_signals_to(control);
  const int code = control.run();
  forget_control();
  return code;
}

}  // namespace ringway
