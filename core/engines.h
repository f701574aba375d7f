// core/engines.h - makes an Io: io_uring where the kernel allows it, else its epoll twin.
#pragma once

#include <memory>
#include <string>

#include "core/io.h"

namespace ringway {

enum class EngineKind : uint8_t { kAuto, kIoUring, kEpoll };

// How io_uring receives: by readiness and recv(2), or by multishot receives into a small ring of
// buffers. kAuto is kPoll, which bench/engine shows to be the better (docs/decisions.md).
enum class ReceiveMode : uint8_t { kAuto, kPoll, kMultishot };

// How a shard wakes another one: by writing its eventfd, or by IORING_OP_MSG_RING where both have
// rings. kAuto is the one that bench/doorbell_bench shows to be the better (docs/decisions.md).
enum class Doorbell : uint8_t { kAuto, kEventfd, kRingMessage };

struct EngineOptions {
  EngineKind kind = EngineKind::kAuto;
  ReceiveMode receive = ReceiveMode::kAuto;
  Doorbell doorbell = Doorbell::kAuto;
  uint32_t entries = 4096;  // of the submission queue; the completion queue is four times as long
  uint32_t spin_us = 0;     // the longest spin before sleeping; 0: sleep at once
};

struct EngineResult {
  std::unique_ptr<Io> io;  // null only for kIoUring, when the kernel refuses
  std::string reason;      // what was asked for and is not used, and why; else empty
};

// Makes an engine for the calling thread, which alone may use it (but for wake() and counters()).
// io_uring needs Linux 6.1, and is tried out before it is trusted.
[[nodiscard]] EngineResult make_engine(const EngineOptions& options);
[[nodiscard]] inline EngineResult make_engine(EngineKind kind) {
  return make_engine(EngineOptions{.kind = kind});
}

}  // namespace ringway
