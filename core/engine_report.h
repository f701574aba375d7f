// core/engine_report.h - what `ringway engine` prints: probed, used, not used, and why.
#pragma once

#include <string>

namespace ringway {

// Probes the running kernel by setting a ring up and trying it. Any thread.
[[nodiscard]] std::string engine_report();

}  // namespace ringway
