// lb/control.h - the control thread: loads, applies, checks health, serves metrics, obeys signals.
//
// Affinity:  the thread that calls run(), usually main(). Ownership: owns the shards and everything
//            that is not a shard's.
// Why:       whatever may block or take long happens here, so that a shard never waits.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/engines.h"
#include "core/log.h"
#include "core/timers.h"
#include "lb/admin/admin_api.h"
#include "lb/admin/admin_socket.h"
#include "lb/admin/metrics.h"
#include "lb/admin/metrics_server.h"
#include "lb/config/load.h"
#include "lb/health/check_contexts.h"
#include "lb/health/health.h"
#include "lb/listen_book.h"
#include "lb/shard.h"
#include "lb/tls/tls_control.h"

namespace ringway {

// Exit codes of the process (docs/configuration.md).
inline constexpr int kExitOk = 0;
inline constexpr int kExitInvalid = 1;  // the configuration, or an address it names
inline constexpr int kExitUsage = 2;
inline constexpr int kExitEnvironment = 71;  // the kernel or a limit forbids it

// Requests to the control thread; set from signal handlers or other threads, then wake().
struct ControlSignals {
  std::atomic<bool> reload{false};
  std::atomic<bool> reopen{false};
  std::atomic<uint32_t> stop{0};  // 1: drain, 2: at once
};

class Control final : public WakeOwner,
                      public TimerOwner,
                      public HealthEvents,
                      public MetricsSource,
                      public TlsHost,
                      public AdminHost {
 public:
  // `path` is loaded again on reload; empty for a configuration that has no file.
  Control(std::string path, std::unique_ptr<const config::Config> config);
  ~Control();

  // Starts everything. Returns kExitOk, or an exit code after having said why on stderr.
  [[nodiscard]] int start();
  // Serves until it is told to stop, drains, and returns the exit code.
  int run();

  // Any thread, and signal handlers.
  ControlSignals& signals() { return signals_; }
  void wake();

  // Calls `tick` about every `ms` from run(), for the demo's live line.
  void set_tick(void (*tick)(Control&), int64_t ms);

  [[nodiscard]] const Snapshot& snapshot() const { return *current_; }
  [[nodiscard]] const ListenBook& book() const { return book_; }
  [[nodiscard]] ShardSet& shards() { return shards_; }
  [[nodiscard]] int64_t now_us() const { return io_->now_us(); }

  void on_wake() override;
  void on_timer(Timer& timer) override;
  void on_verdict(const CheckTarget& target, bool up, std::string_view reason) override;
  std::string metrics() override;
  void publish_tls(const std::shared_ptr<const TlsMaterials>& materials) override;
  void tls_line(LogLevel level, const std::string& line) override { say(level, line); }
  int64_t tls_now_ms() override { return io_->now_us() / 1000; }

  // For the admin API.
  const std::shared_ptr<const Snapshot>& admin_snapshot() override { return current_; }
  ShardSet& admin_shards() override { return shards_; }
  Status status() override;
  uint64_t ask_reload() override;
  uint64_t post_controls() override;
  void checks_changed() override { update_health(); }
  void audit(const std::string& text) override;

 private:
  enum class Phase : uint8_t { kServing, kDraining, kStopping, kStopped };

  [[nodiscard]] bool open_logs(const config::Config& config, std::string& error);
  // `own_reason`: why this thread's engine is not what was asked for, or empty.
  [[nodiscard]] bool start_shards(const std::string& own_reason, int& exit_code);
  void report_engines(const std::string& own_reason);
  // Gives `config` to all shards. False with `error`: nothing has changed.
  // REQUIRES: tls_ has loaded its certificates.
  [[nodiscard]] bool apply(std::unique_ptr<const config::Config> config, std::string& error);
  void post_to_all(const Message& message);
  // Starts `log`, or none if null, in place of the access log there is.
  void replace_access_log(std::unique_ptr<LogWriter> log);
  // Sends each shard its order of `orders`, for the current snapshot.
  void post_orders(std::vector<std::vector<ListenFd>> orders);
  void warn_of_local_ends();
  void update_health();
  int run_checks();
  [[nodiscard]] bool update_metrics_server(const config::Config& config, std::string& error);
  void retire_metrics_server();
  // Opens the admin socket that `config` wants into `opened`, unless it is the one there is. False
  // with `error`: nothing has changed.
  [[nodiscard]] bool prepare_admin(const config::Admin& config,
                                   std::unique_ptr<AdminSocket>& opened, std::string& error);
  // Puts `opened`, or the end of the socket, or another mode, into force.
  void commit_admin(const config::Admin& config, std::unique_ptr<AdminSocket> opened);
  void retire_admin();
  void forget_old_admin();
  // Says which overrides a new configuration has overruled.
  void report_overruled(const Snapshot& before, const std::vector<ServerOverrides>& overrides);
  void begin_drain();
  void begin_stop();
  void step_phases();
  void forget_old_snapshots();
  void say(LogLevel level, const std::string& text);
  void say_lines(LogLevel level, const std::string& text);
  void report_immutable(const config::Config& next);
  // A reload is asked for or running: step_reload() has something to do in every turn.
  [[nodiscard]] bool reload_is_due() const { return reload_wanted_ || loading_ != nullptr; }
  void step_reload();
  [[nodiscard]] bool begin_reload();
  void finish_reload();
  void end_reload(const Reloaded& outcome);

  std::string path_;
  std::unique_ptr<const config::Config> first_config_;
  std::unique_ptr<Io> io_;
  std::unique_ptr<Timers> timers_;
  ControlSignals signals_;
  ShardSet shards_;
  ListenBook book_;
  std::shared_ptr<const Snapshot> current_;
  std::vector<std::shared_ptr<const Snapshot>> old_;
  std::vector<LogRing*> access_rings_;  // one per shard; empty when off
  std::unique_ptr<LogWriter> process_log_;
  std::unique_ptr<LogWriter> access_log_;
  std::vector<std::unique_ptr<LogWriter>> old_logs_;  // until all shards have moved on
  LogRing* own_log_ = nullptr;
  LogLevel log_level_ = LogLevel::kInfo;
  std::unique_ptr<HealthChecker> health_;
  CheckContexts check_contexts_;
  DiskCertFiles cert_files_;
  std::unique_ptr<TlsControl> tls_;
  std::unique_ptr<MetricsServer> metrics_server_;
  int metrics_fd_ = -1;
  std::vector<std::unique_ptr<MetricsServer>>
      old_metrics_;  // until their last connection is closed
  std::string metrics_address_;
  std::unique_ptr<AdminApi> api_;
  std::unique_ptr<AdminSocket> admin_;
  std::vector<std::unique_ptr<AdminSocket>> old_admin_;  // until their last connection is closed
  std::unique_ptr<Timer> tick_timer_;
  void (*tick_)(Control&) = nullptr;
  int64_t tick_ms_ = 0;
  int64_t wall_offset_us_ = 0;
  int64_t started_us_ = 0;
  int64_t stop_at_ms_ = 0;
  uint64_t orders_posted_ = 0;
  uint64_t controls_posted_ = 0;
  std::unique_ptr<const config::Config> loading_;  // valid; its certificates are being loaded
  bool reload_wanted_ = false;                     // another one
  uint64_t reloads_begun_ = 0;
  uint64_t reloads_ok_ = 0;
  uint64_t reloads_failed_ = 0;
  Phase phase_ = Phase::kServing;
};

}  // namespace ringway
