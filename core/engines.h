// core/engines.h - makes an Io: io_uring where the kernel allows it, else its epoll twin.
#pragma once

#include <memory>
#include <string>

#include "core/io.h"

namespace ringway {

enum class EngineKind : uint8_t { kAuto, kIoUring, kEpoll };

struct EngineOptions {
  EngineKind kind = EngineKind::kAuto;
  uint32_t entries = 4096;  // of the submission queue; the completion queue is four times as long
  uint32_t spin_us = 0;     // the longest spin before sleeping; 0: sleep at once
};

struct EngineResult {
  std::unique_ptr<Io> io;  // null only for kIoUring, when the kernel refuses
  std::string reason;      // why io_uring is not used; empty when it is, or was not asked for
};

// Makes an engine for the calling thread, which alone may use it (but for wake() and counters()).
// io_uring needs Linux 6.1, and is tried out before it is trusted.
[[nodiscard]] EngineResult make_engine(const EngineOptions& options);
[[nodiscard]] inline EngineResult make_engine(EngineKind kind) {
  return make_engine(EngineOptions{.kind = kind});
}

}  // namespace ringway
