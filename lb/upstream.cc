// lb/upstream.cc
#include "lb/upstream.h"

#include <algorithm>

#include "core/base/check.h"

namespace ringway {

ShardUpstream::ShardUpstream(PoolContext& context, uint32_t shard, uint32_t shards, uint64_t seed)
    : context_(context), shard_(shard), shards_(shards), seed_(seed) {}

SlotSpec ShardUpstream::spec_of(const config::Server& server, const ServerObject& object) const {
  const config::Pool& pool = config_->pool;
  return {.address = server.address,
          .connect_timeout_ms = config_->timeouts.connect,
          .idle_timeout_ms = pool.idle_timeout,
          // A share per shard, at least one each: the bound is the whole process's.
          .idle_max = std::max<uint64_t>(pool.max_idle_per_server / shards_, 1),
          .requests_max = pool.max_requests_per_connection,
          // A server that is to become empty keeps no connection after its use.
          .reuse = pool.reuse && pool.max_idle_per_server > 0 &&
                   object.controls.settings(server).ready()};
}

void ShardUpstream::apply(std::shared_ptr<const Snapshot> next, uint32_t index) {
  const Snapshot& snapshot = *next;
  const config::Upstream& config = snapshot.config->upstreams[index];
  const bool same_balance = config_ != nullptr &&
                            config_->balance.algorithm == config.balance.algorithm &&
                            config_->balance.choices == config.balance.choices;
  config_ = &config;
  object_ = snapshot.upstreams[index];
  if (!same_balance) balancer_ = std::make_unique<Balancer>(config.balance, seed_);
  std::vector<std::unique_ptr<ShardServer>> old = std::move(servers_);
  servers_.clear();
  for (size_t i = 0; i < config.servers.size(); ++i) {
    const std::shared_ptr<ServerObject>& object = snapshot.servers[index][i];
    const SlotSpec spec = spec_of(config.servers[i], *object);
    // The snapshot shares a server's object exactly when name and address are unchanged.
    const auto known = std::find_if(old.begin(), old.end(), [&](const auto& server) {
      return server != nullptr && server->object == object;
    });
    if (known != old.end()) {
      (*known)->slot.update(spec);
      servers_.push_back(std::move(*known));
    } else {
      servers_.push_back(std::make_unique<ShardServer>(object, context_, spec, shard_));
    }
    servers_.back()->index = static_cast<uint32_t>(i);
  }
  for (auto& server : old) {
    if (server == nullptr) continue;
    server->retired = true;
    server->slot.retire();
    leaving_.push_back(std::move(server));
  }
  ++epoch_;
  snapshot_ = std::move(next);
  rebuild();
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

void ShardUpstream::refresh_health() {
  bool changed = false;
  for (const auto& server : servers_) {
    const config::Server& config = config_->servers[server->index];
    const ServerObject& object = *server->object;
    const ServerSettings settings = object.controls.settings(config);
    const bool up = object.health->up() && settings.ready();
    const Candidate& before = candidates_[server->index];
    changed = changed || up != before.up || settings.weight != before.weight;
    server->slot.update(spec_of(config, object));
    if (!up) server->slot.close_idle();
  }
  if (changed) rebuild();
}

void ShardUpstream::report(std::vector<PoolReport>& reports) const {
  for (const auto* list : {&servers_, &leaving_}) {
    for (const auto& server : *list) {
      const ServerStats& stats = server->object->shard.at(shard_);
      PoolReport& report = reports.emplace_back();
      report.shard = shard_;
      report.upstream = name();
      report.server = server->object->name;
      report.retired = server->retired;
      report.counts = {
          {"connections",
           {{"connecting", stats.connecting.get()},
            {"busy", stats.busy.get()},
            {"idle", stats.idle.get()}}},
          {"requests",
           {{"in_flight", server->in_flight},
            {"new", stats.requests.get() - stats.reused.get()},
            {"reused", stats.reused.get()}}},
          {"closed",
           {{"idle", stats.idle_closed.get()}, {"connect_error", stats.connect_errors.get()}}}};
      // So far all connections to a server are alike.
      report.keys = {{"default", {{"idle", stats.idle.get()}, {"busy", stats.busy.get()}}}};
    }
  }
}

void ShardUpstream::retire() {
  retired_ = true;
  for (auto& server : servers_) {
    server->retired = true;
    server->slot.retire();
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

ShardServer* ShardUpstream::pick(uint64_t hash, std::span<const uint32_t> tried) {
  if (candidates_.empty()) return nullptr;
  const uint32_t index = balancer_->pick(candidates_, hash, tried);
  if (index == Balancer::kNone) return nullptr;
  ShardServer& server = *servers_[index];
  ++server.in_flight;
  ++candidates_[index].in_flight;
  server.stats().sessions.add();
  return &server;
}

void ShardUpstream::release(ShardServer& server) {
  RW_CHECK(server.in_flight > 0);
  --server.in_flight;
  server.stats().sessions.sub();
  if (!server.retired) --candidates_[server.index].in_flight;
}

}  // namespace ringway
