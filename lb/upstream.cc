// lb/upstream.cc
#include "lb/upstream.h"

#include <algorithm>
#include <utility>

#include "core/base/check.h"
#include "lb/tls/server_name.h"
#include "lb/tls/shard_tls.h"

namespace ringway {

ShardUpstream::ShardUpstream(UpstreamContext& context, uint64_t seed)
    : context_(context), seed_(seed) {}

ShardUpstream::~ShardUpstream() {
  if (restless_) --context_.restless;
}

namespace {

HttpChoice choice_of(const config::Upstream& upstream) {
  const bool http = upstream.protocol == config::Protocol::kHttp;
  if (!http || !upstream.speaks(config::HttpVersion::kHttp2)) return HttpChoice::kHttp1;
  return upstream.speaks(config::HttpVersion::kHttp1) ? HttpChoice::kByAlpn : HttpChoice::kHttp2;
}

}  // namespace

SlotSpec ShardUpstream::spec_of(const config::Server& server, const ServerObject& object,
                                uint32_t index) const {
  const config::Pool& pool = config_->pool;
  const uint32_t share = pool.warm / context_.shards;
  const uint32_t warm = share + (context_.shard < pool.warm % context_.shards ? 1 : 0);
  const bool http = config_->protocol == config::Protocol::kHttp;
  return {.address = server.address,
          .local = server.local,
          .connect_timeout_ms = config_->timeouts.connect,
          .pool = {.mode = pool.reuse,
                   .requests_max = pool.max_requests_per_connection,
                   .idle_ms = pool.idle_timeout,
                   .age_ms = pool.max_age,
                   .idle_floor = std::max(pool.min_idle_per_shard, warm)},
          // One that is to become empty opens none.
          .warm = http && object.controls.settings(server).ready() ? warm : 0,
          // With a PROXY header no two shards have connections in common.
          .borrow = http && pool.share == config::Share::kBorrow &&
                    config_->send_proxy == config::ProxySend::kOff,
          .tls = context_.tls.upstream(index),
          .sni = config_->tls.sni,
          .tls_address = std::string(name_of_address(server.address_text)),
          .http = choice_of(*config_),
          .max_streams = pool.max_streams_per_connection,
          .header_table = static_cast<uint32_t>(pool.header_table),
          .idle_ping_ms = pool.idle_ping};
}

void ShardUpstream::apply(std::shared_ptr<const Snapshot> next, uint32_t index) {
  const Snapshot& snapshot = *next;
  const config::Upstream& config = snapshot.config->upstreams[index];
  const bool same_balance = config_ != nullptr &&
                            config_->balance.algorithm == config.balance.algorithm &&
                            config_->balance.choices == config.balance.choices;
  config_ = &config;
  index_ = index;
  object_ = snapshot.upstreams[index];
  if (waiting_ == nullptr) {
    waiting_ =
        std::make_unique<WaitQueue>(context_.pool.timers, config.queue.max, stats().queued, *this);
  }
  waiting_->set_max(config.queue.max);
  if (!same_balance) balancer_ = std::make_unique<Balancer>(config.balance, seed_);
  std::vector<std::unique_ptr<ShardServer>> old = std::move(servers_);
  servers_.clear();
  for (size_t i = 0; i < config.servers.size(); ++i) {
    const std::shared_ptr<ServerObject>& object = snapshot.servers[index][i];
    const SlotSpec spec = spec_of(config.servers[i], *object, index);
    // The snapshot shares a server's object exactly when name and address are unchanged.
    const auto known = std::find_if(old.begin(), old.end(), [&](const auto& server) {
      return server != nullptr && server->object == object;
    });
    if (known != old.end()) {
      (*known)->slot.update(spec);
      servers_.push_back(std::move(*known));
    } else {
      servers_.push_back(std::make_unique<ShardServer>(object, context_, spec, *this));
    }
    servers_.back()->index = static_cast<uint32_t>(i);
  }
  for (auto& server : old) {
    if (server == nullptr) continue;
    server->retired = true;
    server->slot.retire(CloseReason::kReplaced);
    leaving_.push_back(std::move(server));
  }
  ++epoch_;
  snapshot_ = std::move(next);
  passed_over_.reserve(servers_.size() + 32);
  for (const auto& server : servers_) {
    serve_or_not(*server, server->object->controls.settings(config.servers[server->index]));
  }
  rebuild();
  room_ = true;
}

void ShardUpstream::rebuild() {
  candidates_.clear();
  names_.clear();
  for (const auto& server : servers_) {
    const config::Server& config = config_->servers[server->index];
    const ServerObject& object = *server->object;
    const ServerSettings settings = object.controls.settings(config);
    candidates_.push_back({.weight = settings.weight,
                           .in_flight = server->in_flight,
                           .up = object.health->up() && settings.ready(),
                           .backup = config.backup});
    names_.push_back(config.name);
  }
  balancer_->rebuild(candidates_, names_);
}

// A server that is to become empty starts no request and keeps no connection after its use.
void ShardUpstream::serve_or_not(ShardServer& server, const ServerSettings& settings) {
  if (settings.ready()) return server.slot.return_to_service();
  server.slot.retire(CloseReason::kOutOfService);
}

void ShardUpstream::refresh_health() {
  bool changed = false;
  for (const auto& server : servers_) {
    const config::Server& config = config_->servers[server->index];
    const ServerObject& object = *server->object;
    const ServerSettings settings = object.controls.settings(config);
    const bool up = object.health->up() && settings.ready();
    const Candidate& before = candidates_[server->index];
    changed = changed || up != before.up || settings.weight != before.weight;
    server->slot.update(spec_of(config, object, index_));
    serve_or_not(*server, settings);
    if (!up) server->slot.close_idle(CloseReason::kDown);
  }
  if (changed) rebuild();
  room_ = room_ || changed;
}

namespace {

template <size_t kCount>
std::vector<NamedCount> counts_of(const std::array<Counter, kCount>& counters,
                                  const std::array<std::string_view, kCount>& names,
                                  size_t from = 0) {
  std::vector<NamedCount> counts;
  for (size_t i = from; i < kCount; ++i) {
    counts.push_back({names[i].data(), counters[i].get()});  // Literals: they end in NUL.
  }
  return counts;
}

// The units of the limits that this shard holds, and has in use; none of what is not limited.
std::vector<NamedCount> leases_of(const ShardServer& server) {
  struct Share {
    const BudgetShare& share;
    const char* held;
    const char* used;
  };
  std::vector<NamedCount> counts;
  for (const Share& each : {Share{server.requests, "requests_held", "requests_used"},
                            Share{server.connections, "connections_held", "connections_used"},
                            Share{server.idle, "idle_held", "idle_used"}}) {
    if (each.share.budget().max() == Budget::kOff) continue;
    counts.push_back({each.held, static_cast<uint64_t>(each.share.granted())});
    counts.push_back({each.used, static_cast<uint64_t>(each.share.used())});
  }
  return counts;
}

// The limits of the whole process; none of those that are off.
std::vector<NamedCount> limits_of(const ServerBudgets& budgets) {
  std::vector<NamedCount> counts;
  for (const auto& [name, budget] :
       {std::pair{"requests", &budgets.requests}, std::pair{"connections", &budgets.connections},
        std::pair{"idle", &budgets.idle}}) {
    if (budget->max() != Budget::kOff) {
      counts.push_back({name, static_cast<uint64_t>(budget->max())});
    }
  }
  return counts;
}

// Keys are bytes; what a person can read of them tells them apart.
std::string key_text(const KeyGroup& group, const ServerPool& pool) {
  if (&group == &pool.fixed_group()) return "default";
  std::string text;
  for (const char c : group.bytes()) text += c > ' ' && c < 0x7f ? c : '.';
  return text;
}

constexpr size_t kKeysReported = 1'000;  // per server and shard

}  // namespace

void ShardUpstream::report(std::vector<PoolReport>& reports) const {
  for (const auto* list : {&servers_, &leaving_}) {
    for (const auto& server : *list) {
      const ServerStats& stats = server->object->shard.at(context_.shard);
      const PoolStats& pool = stats.pool;
      PoolReport& report = reports.emplace_back();
      report.shard = context_.shard;
      report.upstream = name();
      report.server = server->object->name;
      report.retired = server->retired;
      report.counts = {{"connections", counts_of(pool.places, kPlaceNames, 1)},
                       {"requests",
                        {{"in_flight", server->in_flight},
                         {"waiting", waiting_ == nullptr ? 0 : waiting_->length()},
                         {"stale", stats.stale.get()},
                         {"borrowed", stats.borrows.get()},
                         {"lent", stats.lent.get()}}},
                       {"got", counts_of(pool.handed, kHowNames)},
                       {"missed", counts_of(pool.missed, kMissNames)},
                       {"closed", counts_of(pool.closed, kCloseReasonNames)},
                       {"limits", limits_of(server->object->budgets)},
                       {"leases", leases_of(*server)},
                       {"blocks_removal",
                        {{"requests", server->in_flight},
                         {"log_lines", server->pins},
                         {"connections", server->slot.pool().total()},
                         {"waiting_to_join", server->slot.waiting()}}}};
      server->slot.pool().for_each_group([&](const KeyGroup& group) {
        if (report.keys.size() >= kKeysReported) return;
        report.keys.push_back({key_text(group, server->slot.pool()),
                               {{"connections", group.connections()},
                                {"idle", group.idle()},
                                {"available", group.available()}}});
      });
    }
  }
}

void ShardUpstream::retire() {
  retired_ = true;
  room_ = true;  // Who waits is to learn that there is no server any more.
  for (auto& server : servers_) {
    server->retired = true;
    server->slot.retire(CloseReason::kReplaced);
    leaving_.push_back(std::move(server));
  }
  servers_.clear();
  candidates_.clear();
  names_.clear();
}

bool ShardUpstream::sweep() {
  std::erase_if(leaving_, [](const auto& server) { return server->empty(); });
  return retired_ && leaving_.empty() && users == 0;
}

ShardUpstream::Picked ShardUpstream::pick(uint64_t hash, std::span<const uint32_t> tried) {
  if (candidates_.empty()) return {};
  const uint32_t first = balancer_->pick(candidates_, hash, tried);
  if (first == Balancer::kNone) return {};
  if (servers_[first]->requests.try_acquire()) return {.server = &count(first)};
  passed_over_.assign(tried.begin(), tried.end());
  for (uint32_t full = first;;) {
    servers_[full]->wants_request = true;
    passed_over_.push_back(full);
    full = balancer_->pick(candidates_, hash, passed_over_);
    if (full == Balancer::kNone) return {.full = true};
    if (servers_[full]->requests.try_acquire()) return {.server = &count(full)};
  }
}

ShardUpstream::Picked ShardUpstream::pick_bound(const ServerPool& pool) {
  for (const auto& server : servers_) {
    if (&server->slot.pool() != &pool) continue;
    if (!server->requests.try_acquire()) return {};  // Better another server than to wait for one.
    return {.server = &count(server->index)};
  }
  return {};
}

bool ShardUpstream::enqueue(Waiter& waiter) {
  constexpr int64_t kForEverMs = 30LL * 24 * 3600 * 1000;
  const int64_t wait_ms = config_->timeouts.queue;
  const int64_t deadline =
      context_.pool.now_ms() + (wait_ms == config::kOff ? kForEverMs : wait_ms);
  if (!waiting_->push(waiter, deadline)) return false;
  stats().queued_total.add();
  set_restless();  // settle() asks for what was missing.
  return true;
}

void ShardUpstream::set_restless() {
  if (restless_) return;
  restless_ = true;
  ++context_.restless;
}

void ShardUpstream::serve_queue() {
  if (!restless_) return;
  if (room_ && !waiting_->empty()) {
    room_ = false;
    waiting_->wake(waiting_->length());
  }
  settle();
}

// Asks for what those who wait were refused, and gives back what was given and not taken.
void ShardUpstream::settle() {
  const bool waiting = !waiting_->empty();
  for (const auto* list : {&servers_, &leaving_}) {
    for (const auto& server : *list) {
      const bool serves = waiting && !server->retired;
      server->requests.settle(serves && server->wants_request);
      server->connections.settle(serves && server->wants_connection);
      note_asked(serves && server->wants_request, server->asked_request_us);
      note_asked(serves && server->wants_connection, server->asked_connection_us);
      if (serves) continue;
      server->wants_request = false;
      server->wants_connection = false;
    }
  }
  if (waiting) return;
  restless_ = false;
  --context_.restless;
}

void ShardUpstream::note_asked(bool asked, int64_t& since_us) const {
  if (!asked) {
    since_us = 0;
  } else if (since_us == 0) {
    since_us = context_.pool.stream.io.now_us();
  }
}

void ShardUpstream::check() const {
  for (const auto* list : {&servers_, &leaving_}) {
    for (const auto& server : *list) {
      server->slot.pool().check();
      RW_CHECK(server->requests.used() == server->in_flight);
      RW_CHECK(server->connections.used() == server->slot.pool().total());
      RW_CHECK(server->idle.used() == server->slot.pool().idle());
    }
  }
}

ServerSlot* ShardUpstream::find_slot(const void* object) {
  for (const auto* list : {&servers_, &leaving_}) {
    for (const auto& server : *list) {
      if (server->object.get() == object) return &server->slot;
    }
  }
  return nullptr;
}

bool ShardUpstream::take_mail(ShardServer& server, const ShardMail& mail) {
  ServerBudgets& budgets = server.object->budgets;
  BudgetShare* share = nullptr;
  if (mail.object == &budgets.requests) share = &server.requests;
  if (mail.object == &budgets.connections) share = &server.connections;
  if (mail.object == &budgets.idle) share = &server.idle;
  if (share == nullptr) return false;
  if (mail.kind == ShardMail::Kind::kAskReturn) {
    share->return_surplus();
    if (share == &server.connections) server.slot.free_asked();
    if (share == &server.idle) server.slot.free_idle();
  } else {
    share->collect();
    int64_t& asked_us =
        share == &server.requests ? server.asked_request_us : server.asked_connection_us;
    if (share != &server.idle && asked_us != 0) {
      const int64_t waited_us = context_.pool.stream.io.now_us() - asked_us;
      server.stats().limit_wait.record(static_cast<uint64_t>(std::max<int64_t>(waited_us, 0)));
      asked_us = 0;
    }
    // Whoever still misses such a unit says so again.
    if (share == &server.requests) server.wants_request = false;
    if (share == &server.connections) server.wants_connection = false;
    room_ = true;
    set_restless();
  }
  return true;
}

bool ShardUpstream::take_mail(const ShardMail& mail) {
  for (const auto* list : {&servers_, &leaving_}) {
    for (const auto& server : *list) {
      if (take_mail(*server, mail)) return true;
    }
  }
  return false;
}

ShardServer& ShardUpstream::count(uint32_t index) {
  ShardServer& server = *servers_[index];
  ++server.in_flight;
  ++candidates_[index].in_flight;
  server.stats().sessions.add();
  return server;
}

void ShardUpstream::release(ShardServer& server) {
  RW_CHECK(server.in_flight > 0);
  --server.in_flight;
  server.stats().sessions.sub();
  server.requests.release();
  if (!server.retired) --candidates_[server.index].in_flight;
  room_ = true;
}

}  // namespace ringway
