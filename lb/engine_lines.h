// lb/engine_lines.h - what the log says about the engines that the threads of the process got.
//
// Affinity: control thread; pure.
// Why:      rings are charged to the limit of locked memory one by one, so with "auto" some threads
//           may get one and others not.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace ringway {

// Why each shard, by its number, and the control thread do not use what was asked for (as
// EngineResult::reason; empty: they do) -> a line for each distinct reason that says whom it
// concerns, in the order in which shards were started: "shards 0, 2-7 and control: using epoll...".
[[nodiscard]] std::vector<std::string> engine_warnings(std::span<const std::string> shards,
                                                       const std::string& control);

// The engines of the shards: "io_uring", or "io_uring (3 shards), epoll (1 shard)".
[[nodiscard]] std::string engine_summary(std::span<const std::string> names);

}  // namespace ringway
