// tools/demo.h - `ringway demo`: origins and a balancer on loopback, nothing to configure.
//
// Affinity: the main thread, as lb/control.h; the origins run on a thread of their own.
#pragma once

namespace ringway {

// Runs until SIGINT or SIGTERM. Returns the exit code.
int run_demo();

}  // namespace ringway
