// core/engines.cc
#include "core/engines.h"

#include "core/epoll_engine.h"
#include "core/ring_engine.h"

namespace ringway {

EngineResult make_engine(const EngineOptions& options) {
  EngineResult result;
  if (options.kind != EngineKind::kEpoll) {
    auto ring = std::make_unique<RingEngine>(options.spin_us);
    ring->start(options.entries);
    const RingProbe& probe = ring->probe();
    if (probe.usable()) {
      result.io = std::move(ring);
      return result;
    }
    result.reason = probe.setup_error != 0 ? ring_setup_failure(probe.setup_error)
                                           : "io_uring " + probe.failure;
    if (options.kind == EngineKind::kIoUring) return result;
    result.reason = "using epoll: " + result.reason;
  }
  result.io = std::make_unique<EpollEngine>(options.spin_us);
  return result;
}

}  // namespace ringway
