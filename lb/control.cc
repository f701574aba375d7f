// lb/control.cc
#include "lb/control.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "core/base/check.h"
#include "core/base/utc.h"
#include "core/cpus.h"
#include "core/tls_shard.h"
#include "lb/engine_lines.h"
#include "lb/metrics_text.h"

namespace ringway {
namespace {

constexpr int64_t kStepMs = 50;  // how often drain, stop and old snapshots are looked at
constexpr int64_t kStopMsMax = 5'000;

int64_t clock_us(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return now.tv_sec * 1'000'000 + now.tv_nsec / 1000;
}

// The CPUs that shards may be pinned to: those of the configuration that we are allowed to use, one
// per physical core and within the quota.
CpuPlan cpu_plan(const config::Process& process) {
  CpuSources sources;
  if (!process.cpus.empty()) {
    const CpuPlan all = plan_cpus();
    for (const uint32_t cpu : process.cpus) {
      const int wanted = static_cast<int>(cpu);
      const bool allowed =
          std::find(all.allowed.begin(), all.allowed.end(), wanted) != all.allowed.end();
      if (allowed) sources.allowed.push_back(wanted);
    }
  }
  return plan_cpus(sources);
}

uint32_t shard_count(const config::Config& config) {
  if (config.process.shards != 0) return config.process.shards;
  return static_cast<uint32_t>(cpu_plan(config.process).shard_cpus.size());
}

EngineOptions engine_options(const config::Engine& engine) {
  EngineOptions options;
  switch (engine.kind) {
    case config::EngineKind::kAuto: options.kind = EngineKind::kAuto; break;
    case config::EngineKind::kIoUring: options.kind = EngineKind::kIoUring; break;
    case config::EngineKind::kEpoll: options.kind = EngineKind::kEpoll; break;
  }
  switch (engine.receive) {
    case config::Receive::kAuto: options.receive = ReceiveMode::kAuto; break;
    case config::Receive::kPoll: options.receive = ReceiveMode::kPoll; break;
    case config::Receive::kMultishot: options.receive = ReceiveMode::kMultishot; break;
  }
  options.entries = engine.entries;
  options.spin_us = static_cast<uint32_t>(engine.spin_us);
  return options;
}

const char* level_name(LogLevel level) {
  switch (level) {
    case LogLevel::kError: return "error";
    case LogLevel::kWarning: return "warning";
    case LogLevel::kInfo: return "info";
    case LogLevel::kDebug: return "debug";
  }
  return "";
}

// Those of all servers, in the order of the snapshot.
std::vector<ServerOverrides> overrides_of(const Snapshot* snapshot) {
  std::vector<ServerOverrides> all;
  if (snapshot == nullptr) return all;
  for (const auto& servers : snapshot->servers) {
    for (const auto& server : servers) all.push_back(server->controls.overrides());
  }
  return all;
}

// Closes the sockets of orders that no shard was given.
void close_unused(const std::vector<std::vector<ListenFd>>& orders) {
  for (const auto& order : orders) {
    for (const ListenFd& fd : order) {
      if (fd.fd >= 0) ::close(fd.fd);
    }
  }
}

}  // namespace

Control::Control(std::string path, std::unique_ptr<const config::Config> config)
    : path_(std::move(path)),
      first_config_(std::move(config)),
      shards_(shard_count(*first_config_)),
      book_(shards_.count()) {
  wall_offset_us_ = clock_us(CLOCK_REALTIME) - clock_us(CLOCK_MONOTONIC);
}

Control::~Control() {
  for (uint32_t i = 0; i < shards_.count(); ++i) shards_.at(i).join();
}

void Control::wake() {
  if (io_ != nullptr) io_->wake();
}

void Control::set_tick(void (*tick)(Control&), int64_t ms) {
  tick_ = tick;
  tick_ms_ = ms;
  tick_timer_ = std::make_unique<Timer>(*this);
}

void Control::say(LogLevel level, const std::string& text) {
  if (level > log_level_ || own_log_ == nullptr) return;
  const UtcText when(clock_us(CLOCK_REALTIME));
  const std::string_view pieces[] = {when.view(), " ", level_name(level), " ", text};
  own_log_->write(pieces);
}

void Control::say_lines(LogLevel level, const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    say(level, text.substr(at, end - at));
    at = end + 1;
  }
}

bool Control::open_logs(const config::Config& config, std::string& error) {
  process_log_ = LogWriter::open(config.process_log.output, error);
  if (process_log_ == nullptr) return false;
  own_log_ = &process_log_->add_ring();
  log_level_ = static_cast<LogLevel>(config.process_log.level);
  return true;
}

int Control::start() {
  std::string error;
  if (!open_logs(*first_config_, error)) {
    fprintf(stderr, "ringway: logs.process: %s\n", error.c_str());
    return kExitInvalid;
  }
  // "epoll" means no ring at all in this process: some who write that may not have one.
  EngineResult engine =
      make_engine(first_config_->engine.kind == config::EngineKind::kEpoll ? EngineKind::kEpoll
                                                                           : EngineKind::kAuto);
  io_ = std::move(engine.io);
  io_->set_wake_owner(*this);
  shards_.set_control(*io_);
  timers_ = std::make_unique<Timers>(io_->now_us() / 1000);
  started_us_ = io_->now_us();
  health_ = std::make_unique<HealthChecker>(*io_, *timers_, *this);
  tls_ = std::make_unique<TlsControl>(*timers_, cert_files_, *this);
  api_ = std::make_unique<AdminApi>(*io_, *timers_, *this);
  int exit_code = kExitOk;
  if (!start_shards(engine.reason, exit_code)) return exit_code;
  tls_->begin(*first_config_);
  while (!tls_->load(UINT32_MAX)) continue;
  if (!apply(std::move(first_config_), error)) {
    fprintf(stderr, "ringway: %s\n", error.c_str());
    begin_stop();
    while (phase_ != Phase::kStopped) {
      usleep(1000);
      step_phases();
    }
    return kExitInvalid;
  }
  return kExitOk;
}

bool Control::start_shards(const std::string& own_reason, int& exit_code) {
  const config::Config& config = *first_config_;
  const CpuPlan plan = cpu_plan(config.process);
  HashKey secret;
  if (getrandom(&secret, sizeof secret, 0) != sizeof secret) RW_CHECK(false);
  // More shards than cores share them, unpinned: the scheduler knows better then.
  const bool pinned = shards_.count() <= plan.shard_cpus.size();
  for (uint32_t i = 0; i < shards_.count(); ++i) {
    const WorkerOptions options{.shard = i,
                                .loads = shards_.loads(),
                                .peers = shards_.count() > 1 ? &shards_ : nullptr,
                                .clients_max = config.process.max_connections,
                                .seed = (i + 1) * 0x9e37'79b9'7f4a'7c15U,
                                .secret = secret,
                                .process_log = &process_log_->add_ring(1 << 18),
                                .wall_offset_us = wall_offset_us_};
    const std::string why = shards_.at(i).start(engine_options(config.engine), options,
                                                pinned ? plan.shard_cpus[i] : -1);
    if (why.empty()) continue;
    fprintf(stderr, "ringway: shard %u: %s\n", i, why.c_str());
    for (uint32_t j = 0; j < i; ++j) {
      (void)shards_.at(j).post({.kind = static_cast<uint32_t>(Mail::kStop)});
    }
    for (uint32_t j = 0; j < i; ++j) shards_.at(j).join();
    exit_code = kExitEnvironment;
    return false;
  }
  report_engines(own_reason);
  return true;
}

void Control::report_engines(const std::string& own_reason) {
  std::vector<std::string> names;
  std::vector<std::string> reasons;
  for (uint32_t i = 0; i < shards_.count(); ++i) {
    names.emplace_back(shards_.at(i).engine_name());
    reasons.push_back(shards_.at(i).engine_reason());
  }
  for (const std::string& line : engine_warnings(reasons, own_reason)) {
    say(LogLevel::kWarning, line);
  }
  say(LogLevel::kInfo,
      "started: " + std::to_string(shards_.count()) + " shard(s), engine " + engine_summary(names));
}

bool Control::apply(std::unique_ptr<const config::Config> config, std::string& error) {
  const config::Config& next = *config;
  std::unique_ptr<LogWriter> access;
  const config::Config* before = current_ == nullptr ? nullptr : current_->config.get();
  const bool new_log = before == nullptr || before->access_log.enabled != next.access_log.enabled ||
                       before->access_log.output != next.access_log.output;
  if (new_log && next.access_log.enabled) {
    access = LogWriter::open(next.access_log.output, error);
    if (access == nullptr) {
      error = "logs.access: " + error;
      return false;
    }
  }
  if (!tls_->prepare(next, error)) return false;
  std::vector<std::vector<ListenFd>> orders = book_.prepare(next, error);
  if (orders.empty()) return false;
  std::unique_ptr<AdminSocket> admin;
  if (!prepare_admin(next.admin, admin, error) || !update_metrics_server(next, error)) {
    close_unused(orders);
    return false;
  }
  book_.commit();
  commit_admin(next.admin, std::move(admin));
  log_level_ = static_cast<LogLevel>(next.process_log.level);
  if (new_log) replace_access_log(std::move(access));
  const std::shared_ptr<const Snapshot> previous = current_;
  if (previous != nullptr) old_.push_back(previous);
  const std::vector<ServerOverrides> overrides = overrides_of(previous.get());
  std::shared_ptr<Snapshot> made =
      Snapshot::build(std::move(config), previous.get(), shards_.count());
  made->tls = tls_->commit(*made->config);
  current_ = std::move(made);
  if (previous != nullptr) report_overruled(*previous, overrides);
  current_->set_limits(shards_);
  post_orders(std::move(orders));
  for (const std::string& failure :
       check_contexts_.apply(health_->tls(), *current_->config, *current_->tls)) {
    say(LogLevel::kError, failure);
  }
  warn_of_local_ends();
  update_health();
  for (const auto& [text, bound] : book_.bound()) {
    if (bound.fresh) say(LogLevel::kInfo, "listening on " + bound.address);
  }
  return true;
}

// What can be found out before the first connection fails for it.
void Control::warn_of_local_ends() {
  for (const config::Upstream& upstream : current_->config->upstreams) {
    for (const config::Server& server : upstream.servers) {
      if (server.local.empty()) continue;
      LocalPart failed{};
      const int error = try_local(server.address.storage.ss_family, server.local, failed);
      if (failed == LocalPart::kNone) continue;
      std::string text = "server " + upstream.name + "/" + server.name + " cannot be reached: ";
      text += local_failure_text(failed, error);
      if (failed == LocalPart::kSource) text += " (" + server.source_text + ")";
      if (failed == LocalPart::kInterface) text += " (" + server.local.interface + ")";
      say(LogLevel::kWarning, text);
    }
  }
}

void Control::replace_access_log(std::unique_ptr<LogWriter> log) {
  if (access_log_ != nullptr) old_logs_.push_back(std::move(access_log_));
  access_log_ = std::move(log);
  access_rings_.clear();
  for (uint32_t i = 0; access_log_ != nullptr && i < shards_.count(); ++i) {
    access_rings_.push_back(&access_log_->add_ring());
  }
}

void Control::post_orders(std::vector<std::vector<ListenFd>> orders) {
  for (uint32_t i = 0; i < shards_.count(); ++i) {
    auto order = std::make_unique<ShardOrder>();
    order->snapshot = current_;
    order->fds = std::move(orders[i]);
    order->access_log = access_rings_.empty() ? nullptr : access_rings_[i];
    const Message message{.kind = static_cast<uint32_t>(Mail::kApply),
                          .a = reinterpret_cast<uintptr_t>(order.release())};
    while (!shards_.at(i).post(message)) usleep(1000);  // Full: the shard is draining its mail.
  }
  ++orders_posted_;
}

void Control::publish_tls(const std::shared_ptr<const TlsMaterials>& materials) {
  for (const std::string& failure : check_contexts_.update(*materials)) {
    say(LogLevel::kError, failure);
  }
  for (uint32_t i = 0; i < shards_.count(); ++i) {
    auto order = std::make_unique<std::shared_ptr<const TlsMaterials>>(materials);
    const Message message{.kind = static_cast<uint32_t>(Mail::kTls),
                          .a = reinterpret_cast<uintptr_t>(order.release())};
    while (!shards_.at(i).post(message)) usleep(1000);
  }
}

void Control::update_health() {
  std::vector<CheckTarget> targets;
  for (size_t i = 0; i < current_->config->upstreams.size(); ++i) {
    const config::Upstream& upstream = current_->config->upstreams[i];
    if (upstream.health.type == config::HealthType::kOff) continue;
    for (size_t j = 0; j < upstream.servers.size(); ++j) {
      const config::Server& server = upstream.servers[j];
      ServerObject& object = *current_->servers[i][j];
      const config::ServerState state = object.controls.settings(server).state;
      if (state == config::ServerState::kMaintenance) continue;  // Nobody asks how it is.
      targets.push_back({.id = upstream.name + "/" + server.name,
                         .address = server.address,
                         .address_text = server.address_text,
                         .health = upstream.health,
                         .state = object.health,
                         .tls = check_tls_of(upstream, server.address_text, check_contexts_.of(i)),
                         .http = check_http_of(upstream),
                         .local = server.local});
    }
  }
  health_->set_targets(std::move(targets));
}

// Before a turn. Returns as HealthChecker::run().
int Control::run_checks() {
  TlsShard::set_wall_seconds((io_->now_us() + wall_offset_us_) / 1'000'000);
  return health_->run(io_->now_us());
}

bool Control::update_metrics_server(const config::Config& config, std::string& error) {
  const std::string wanted = config.metrics.enabled ? config.metrics.address_text : "";
  if (wanted == metrics_address_) return true;
  int fd = -1;
  if (!wanted.empty()) {
    fd = open_listener(config.metrics.address);
    if (fd < 0) {
      error = "metrics.prometheus cannot bind " + wanted + ": " + strerrordesc_np(-fd);
      return false;
    }
  }
  retire_metrics_server();
  metrics_address_ = wanted;
  if (fd < 0) return true;
  metrics_server_ = std::make_unique<MetricsServer>(*io_, *timers_, fd, *this);
  metrics_fd_ = fd;
  ServerAddress bound;
  bound.length = sizeof bound.storage;
  getsockname(fd, reinterpret_cast<sockaddr*>(&bound.storage), &bound.length);
  say(LogLevel::kInfo, "metrics on " + bound.text());
  return true;
}

void Control::retire_metrics_server() {
  if (metrics_server_ == nullptr) return;
  metrics_server_->stop();
  ::close(metrics_fd_);
  metrics_fd_ = -1;
  old_metrics_.push_back(std::move(metrics_server_));
}

void Control::on_verdict(const CheckTarget& target, bool up, std::string_view reason) {
  say(up ? LogLevel::kInfo : LogLevel::kWarning,
      "server " + target.id + " (" + target.address_text + ") is " + (up ? "up: " : "down: ") +
          std::string(reason));
  post_to_all({.kind = static_cast<uint32_t>(Mail::kHealth)});
}

void Control::post_to_all(const Message& message) {
  for (uint32_t i = 0; i < shards_.count(); ++i) {
    while (!shards_.at(i).post(message)) usleep(1000);
  }
}

void Control::on_wake() {
  if (signals_.reopen.exchange(false)) {
    process_log_->reopen();
    if (access_log_ != nullptr) access_log_->reopen();
  }
  if (signals_.reload.exchange(false)) {
    // logrotate and administrators both send SIGHUP: the logs are opened again as well.
    process_log_->reopen();
    if (access_log_ != nullptr) access_log_->reopen();
    (void)ask_reload();  // It will say how it went.
  }
  const uint32_t stop = signals_.stop.load();
  if (stop >= 1 && phase_ == Phase::kServing) begin_drain();
  if (stop >= 2 && phase_ == Phase::kDraining) begin_stop();
}

void Control::begin_drain() {
  phase_ = Phase::kDraining;
  stop_at_ms_ = io_->now_us() / 1000 + current_->config->process.drain_timeout;
  say(LogLevel::kInfo, "draining: no new connections, exchanges finish");
  post_to_all({.kind = static_cast<uint32_t>(Mail::kDrain)});
}

void Control::begin_stop() {
  phase_ = Phase::kStopping;
  stop_at_ms_ = io_->now_us() / 1000 + kStopMsMax;
  post_to_all({.kind = static_cast<uint32_t>(Mail::kStop)});
}

void Control::step_phases() {
  const auto all = [&](auto&& holds) {
    for (uint32_t i = 0; i < shards_.count(); ++i) {
      if (!holds(shards_.at(i))) return false;
    }
    return true;
  };
  if (phase_ == Phase::kDraining) {
    const bool quiet = all([](const Shard& shard) { return shard.quiet(); });
    if (!quiet && io_->now_us() / 1000 < stop_at_ms_) return;
    if (!quiet) {
      uint64_t left = 0;
      for (const ShardLoad& load : shards_.loads()) left += load.clients.load();
      say(LogLevel::kWarning, "drain timeout: closing " + std::to_string(left) + " connection(s)");
    }
    begin_stop();
  }
  if (phase_ == Phase::kStopping && all([](const Shard& shard) { return shard.stopped(); })) {
    for (uint32_t i = 0; i < shards_.count(); ++i) shards_.at(i).join();
    phase_ = Phase::kStopped;
  }
}

void Control::forget_old_snapshots() {
  bool all_applied = true;
  for (uint32_t i = 0; i < shards_.count(); ++i) {
    all_applied = all_applied && shards_.at(i).applied() == orders_posted_;
  }
  if (all_applied) old_logs_.clear();
  // A snapshot that only we still hold is used by no shard.
  std::erase_if(old_, [](const auto& snapshot) { return snapshot.use_count() == 1; });
  std::erase_if(old_metrics_, [](const auto& server) { return server->live() == 0; });
  forget_old_admin();
}

void Control::on_timer(Timer& timer) {
  RW_CHECK(&timer == tick_timer_.get());
  if (tick_ != nullptr) tick_(*this);
  timers_->set(timer, io_->now_us() / 1000 + tick_ms_);
}

int Control::run() {
  if (tick_timer_ != nullptr) timers_->set(*tick_timer_, io_->now_us() / 1000 + tick_ms_);
  while (phase_ != Phase::kStopped) {
    const bool busy = phase_ != Phase::kServing || !old_.empty() || !old_logs_.empty() ||
                      !old_metrics_.empty() || !old_admin_.empty();
    const int64_t next = timers_->next_in_ms(io_->now_us() / 1000);
    int64_t timeout = reload_is_due() ? 0 : busy ? kStepMs : 1000;
    if (next >= 0) timeout = std::min(timeout, next);
    const int checks = run_checks();
    if (checks >= 0) timeout = std::min<int64_t>(timeout, checks);
    io_->run_once(static_cast<int>(timeout));
    timers_->expire(io_->now_us() / 1000);
    step_reload();
    api_->step();
    step_phases();
    forget_old_snapshots();
  }
  tls_.reset();
  health_->stop();
  retire_metrics_server();
  retire_admin();
  for (const auto& socket : old_admin_) socket->stop();
  const auto idle = [&] {
    return health_->idle() &&
           std::all_of(old_metrics_.begin(), old_metrics_.end(),
                       [](const auto& server) { return server->live() == 0; }) &&
           std::all_of(old_admin_.begin(), old_admin_.end(),
                       [](const auto& socket) { return socket->quiet(); });
  };
  while (!idle()) {
    run_checks();
    io_->run_once(10);
    timers_->expire(io_->now_us() / 1000);
  }
  forget_old_admin();
  tick_timer_.reset();
  say(LogLevel::kInfo, "stopped");
  return kExitOk;
}

std::string Control::metrics() {
  const MetricsInputs inputs{.snapshot = *current_,
                             .shards = shards_,
                             .access_rings = access_rings_,
                             .uptime_us = io_->now_us() - started_us_,
                             .reloads_ok = reloads_ok_,
                             .reloads_failed = reloads_failed_,
                             .reload_running = reload_is_due(),
                             .draining = phase_ != Phase::kServing,
                             .certificates = tls_ == nullptr ? nullptr : &tls_->store(),
                             .trusts = tls_ == nullptr ? nullptr : &tls_->trusts()};
  return metrics_text(inputs);
}

}  // namespace ringway
