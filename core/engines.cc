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
    if (ring->probe().usable() && options.receive == ReceiveMode::kMultishot) {
      const std::string failure = ring->use_multishot(ReceiveRing::kPlain);
      if (!failure.empty()) {
        result.reason = "receiving by poll: multishot " + failure;
        ring = std::make_unique<RingEngine>(options.spin_us);
        ring->start(options.entries);
      }
    }
    const RingProbe& probe = ring->probe();
    if (probe.usable()) {
      if (options.doorbell == Doorbell::kRingMessage) {
        const std::string failure = ring->use_ring_messages();
        if (!failure.empty()) result.reason = "doorbells by eventfd: " + failure;
      }
      result.io = std::move(ring);
      return result;
    }
    result.reason = probe.setup_error != 0 ? ring_setup_failure(probe.setup_error)
                                           : "io_uring " + probe.failure;
    if (options.kind == EngineKind::kIoUring) return result;
    result.reason = "using epoll: " + result.reason;
  }
  if (options.kind == EngineKind::kEpoll && options.receive == ReceiveMode::kMultishot) {
    result.reason = "receiving by poll: epoll has no multishot receive";
  }
  result.io = std::make_unique<EpollEngine>(options.spin_us);
  return result;
}

}  // namespace ringway
