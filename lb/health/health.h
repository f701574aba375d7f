// lb/health/health.h - active checks: one checker per process, on the control thread.
//
// Affinity:  HealthChecker on the control thread; ServerHealth::up() from any thread.
// Ownership: a ServerHealth is shared by the configuration snapshots that name the server and by
//            the checker; it outlives a reload when the server's name, address and checks are
//            unchanged.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/address.h"
#include "core/counters.h"
#include "core/io.h"
#include "core/timers.h"
#include "lb/config/config.h"

namespace ringway {

// The verdict on one server. Written by the control thread, read by shards (relaxed).
class ServerHealth {
 public:
  explicit ServerHealth(bool up) : up_(up) {}
  [[nodiscard]] bool up() const { return up_.load(std::memory_order_relaxed); }
  void set_up(bool up) { up_.store(up, std::memory_order_relaxed); }

  Counter checks_passed;
  Counter checks_failed;
  Counter checks_skipped;  // no descriptor, port or memory of our own: no result, tried again soon
  Counter transitions;

 private:
  std::atomic<bool> up_;
};

struct CheckTarget {
  std::string id;  // "upstream/server", unique
  ServerAddress address;
  std::string address_text;
  config::Health health;  // type is not kOff
  std::shared_ptr<ServerHealth> state;
};

class HealthEvents {
 public:
  // A verdict changed: ServerHealth::up() has the new value. `reason` says what the last check saw,
  // e.g. "connect: Connection refused", "status 503, expected 200-299", "connect: timeout after
  // 1000 ms". Called once per change. It must not call the HealthChecker.
  virtual void on_verdict(const CheckTarget& target, bool up, std::string_view reason) = 0;

 protected:
  ~HealthEvents() = default;
};

// The initial state counts as settled: `rise` passes in a row make a server up, `fall` failures in
// a row make it down. A check starts `interval` after the start of the one before while the server
// is up, `down_interval` while it is down, `fast_interval` while results disagree with its state.
// Bounds: one check in flight per target, 256 in all; the others wait in the order they were due.
class HealthChecker {
 public:
  HealthChecker(Io& io, Timers& timers, HealthEvents& events);
  ~HealthChecker();
  HealthChecker(const HealthChecker&) = delete;
  HealthChecker& operator=(const HealthChecker&) = delete;

  // Replaces the set of targets. A target with the same id, address, settings and state goes on
  // undisturbed; new ones start spread over their fast_interval (or interval, if shorter). Checks
  // in flight of others are closed.
  void set_targets(std::vector<CheckTarget> targets);

  // Closes all checks; run turns until idle() before destroying.
  void stop();
  [[nodiscard]] bool idle() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ringway
