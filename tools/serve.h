// tools/serve.h - runs a Control under the process's signals.
//
// Affinity: the main thread.
#pragma once

#include <memory>
#include <string>

#include "lb/control.h"

namespace ringway {

// SIGHUP reloads, SIGUSR1 opens the logs again, SIGTERM and SIGINT drain, a second one stops at
// once. REQUIRES: no other thread exists yet, and `control` outlives the signals
// (forget_control()).
void route_signals_to(Control& control);
void forget_control();

// Raises RLIMIT_NOFILE to what `connections` clients need. Returns "" or a warning.
[[nodiscard]] std::string raise_descriptor_limit(uint64_t connections);

// Starts and runs `config`, which was loaded from `path` (empty: from no file).
int serve(const std::string& path, std::unique_ptr<const config::Config> config);

}  // namespace ringway
