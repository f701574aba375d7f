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

class TlsClientContext;
class TlsShard;

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

// How a check speaks TLS.
struct CheckTls {
  bool enabled = false;
  // Null: it could not be made, and every check fails. Of HealthChecker::tls().
  std::shared_ptr<TlsClientContext> context{};
  std::string name{};         // asked for (SNI); empty: none
  std::string verify_name{};  // what the certificate must be for; empty: `name`
};

// What checks of a server of `upstream` at `address` ask for and verify. A request's host cannot
// choose the name here: it is the fixed one, else the host of the checks, else none, and then the
// certificate must be for the address.
[[nodiscard]] CheckTls check_tls_of(const config::Upstream& upstream, std::string_view address,
                                    std::shared_ptr<TlsClientContext> context);

// What a check that asks over HTTP speaks. Without TLS kByAlpn is HTTP/1.1.
enum class CheckHttp : uint8_t { kHttp1, kHttp2, kByAlpn };

// For checks of servers of `upstream`, whose health.type is not kOff: as requests do.
[[nodiscard]] CheckHttp check_http_of(const config::Upstream& upstream);

struct CheckTarget {
  std::string id;  // "upstream/server", unique
  ServerAddress address;
  std::string address_text;
  config::Health health;  // type is not kOff
  std::shared_ptr<ServerHealth> state;
  CheckTls tls{};
  CheckHttp http = CheckHttp::kHttp1;
  LocalEnd local{};  // what its connections are bound to
};

class HealthEvents {
 public:
  // A verdict changed: ServerHealth::up() has the new value. `reason` says what the last check saw,
  // e.g. "connect: Connection refused", "tls_verify:wrong_name", "status 503, expected 200-299",
  // "connect: timeout after 1000 ms". Called once per change. It must not call the HealthChecker.
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

  // Replaces the set of targets. A target with the same id, addresses, settings and state goes on
  // undisturbed, and speaks TLS as it is said now from its next check on; new ones start spread
  // over their fast_interval (or interval, if shorter). Checks in flight of others are closed.
  void set_targets(std::vector<CheckTarget> targets);

  // What the contexts of CheckTls belong to.
  [[nodiscard]] TlsShard& tls();
  // Once per turn, before Io::run_once(). Returns the milliseconds until it has work to do, -1 for
  // none.
  int run(int64_t now_us);

  // Closes all checks; run turns until idle() before destroying.
  void stop();
  [[nodiscard]] bool idle() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ringway
