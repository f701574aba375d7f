// core/engines.h - makes an Io: io_uring where the kernel allows it, else its epoll twin.
#pragma once

#include <memory>
#include <string>

#include "core/io.h"

namespace ringway {

enum class EngineKind { kAuto, kIoUring, kEpoll };

struct EngineResult {
  std::unique_ptr<Io> io;  // null only for kIoUring, when the kernel refuses
  std::string reason;      // why io_uring is not used; empty when it is, or was not asked for
};

// Makes an engine for the calling thread, which alone may use it. Needs Linux 6.1 for io_uring.
[[nodiscard]] EngineResult make_engine(EngineKind kind);

}  // namespace ringway
