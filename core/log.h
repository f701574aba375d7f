// core/log.h - lines leave the shards through one byte ring each; a writer thread does the I/O.
//
// Affinity:  LogRing::write() on its one producing thread; LogWriter's thread is the only consumer.
// Ownership: a LogWriter owns its sinks and rings; producers keep references that stay valid until
//            the writer is destroyed, which flushes first.
// Bounds:    a ring of fixed capacity; a line that does not fit is dropped and counted.
// Why:       a shard never makes a system call to log and never waits for a disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/counters.h"

namespace ringway {

enum class LogLevel : uint8_t { kError, kWarning, kInfo, kDebug };

class LogRing {
 public:
  // `capacity` in bytes, a power of two.
  explicit LogRing(size_t capacity);
  ~LogRing();

  // Appends one line, without its newline, given in pieces. Newlines inside become spaces. False:
  // no room, dropped and counted. Never blocks and makes no system call.
  bool write(std::span<const std::string_view> pieces);
  bool write(std::string_view line) { return write(std::span(&line, 1)); }

  // Lines that found no room, and lines taken. Any thread.
  [[nodiscard]] uint64_t dropped() const;
  [[nodiscard]] uint64_t lines() const;

 private:
  friend class LogWriter;
  struct Shared;
  std::unique_ptr<Shared> shared_;
};

// Writes the lines of many rings to one output, batched, on its own thread. SIGHUP's reopen() lets
// logrotate move the file away.
class LogWriter {
 public:
  // `output`: "stdout", "stderr" or "file:/path". On failure returns null and sets `error`.
  [[nodiscard]] static std::unique_ptr<LogWriter> open(const std::string& output,
                                                       std::string& error);
  ~LogWriter();  // Writes what is queued (bounded by 2 s of a stalled output), then stops.

  // Adds a producer. Any thread, before or while the writer runs. `capacity` in bytes, a power of
  // two; rings are looked at every 10 ms while lines come, so it should hold what comes in that
  // time.
  [[nodiscard]] LogRing& add_ring(size_t capacity = 1 << 20);

  // Opens the file again at its path before the next write; if that fails, the old one stays in
  // use. Nothing happens for stdout and stderr. Any thread.
  void reopen();

  // Lines lost because the output failed, e.g. a full disk. Reported on standard error at most once
  // a second. Any thread.
  [[nodiscard]] uint64_t write_errors() const;

 private:
  struct Impl;
  explicit LogWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ringway
