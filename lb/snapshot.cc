// lb/snapshot.cc
#include "lb/snapshot.h"

namespace ringway {
namespace {

struct KnownServer {
  std::shared_ptr<ServerObject> object;
  const config::Server* config = nullptr;  // as `previous` had it
};

KnownServer find_server(const Snapshot* previous, const config::Upstream& upstream,
                        const config::Server& server) {
  if (previous == nullptr) return {};
  const auto& upstreams = previous->config->upstreams;
  for (size_t i = 0; i < upstreams.size(); ++i) {
    if (upstreams[i].name != upstream.name) continue;
    for (size_t j = 0; j < upstreams[i].servers.size(); ++j) {
      const config::Server& old = upstreams[i].servers[j];
      if (old.name != server.name || !(old.address == server.address)) continue;
      if (!(old.local == server.local)) continue;
      // Connections of another kind of TLS must not be used any more.
      if (!upstreams[i].tls.same_as(upstream.tls)) continue;
      if (upstreams[i].http_versions != upstream.http_versions) continue;
      return {previous->servers[i][j], &old};
    }
  }
  return {};
}

// The file was edited after the override was made: the file wins.
void drop_overruled(ServerControls& controls, const config::Server& old,
                    const config::Server& now) {
  const ServerSettings before = configured(old);
  const ServerSettings after = configured(now);
  ServerOverrides overrides = controls.overrides();
  if (before.state != after.state) overrides.state.reset();
  if (before.weight != after.weight) overrides.weight.reset();
  if (before.max_requests != after.max_requests) overrides.max_requests.reset();
  if (before.max_connections != after.max_connections) overrides.max_connections.reset();
  controls.set(overrides);
}

bool in_maintenance(const ServerObject& object, const config::Server& server) {
  return object.controls.settings(server).state == config::ServerState::kMaintenance;
}

template <typename Object, typename Configs>
std::shared_ptr<Object> find_named(const std::vector<std::shared_ptr<Object>>* objects,
                                   const Configs* configs, const std::string& name) {
  if (objects == nullptr) return nullptr;
  for (size_t i = 0; i < configs->size(); ++i) {
    if ((*configs)[i].name == name) return (*objects)[i];
  }
  return nullptr;
}

void set_limit(Budget& budget, uint64_t configured, BudgetPeers& peers) {
  const int64_t wanted = ServerBudgets::limit(configured);
  if (budget.max() != wanted) budget.set_max(wanted, peers);
}

// What stands for `server` from now on: `old`'s object with the new configuration, or a new one.
std::shared_ptr<ServerObject> server_object(const config::Upstream& upstream,
                                            const config::Server& server, const KnownServer& old,
                                            uint32_t shards) {
  const bool checked = upstream.health.type != config::HealthType::kOff;
  std::shared_ptr<ServerObject> object = old.object;
  if (object != nullptr) {
    const bool unknown = in_maintenance(*object, *old.config);
    drop_overruled(object->controls, *old.config, server);
    // What was known before a maintenance means nothing after it.
    if (unknown && !in_maintenance(*object, server)) {
      object->health->set_up(upstream.health.initial_up);
    }
  } else {
    object = std::make_shared<ServerObject>(shards, !checked || upstream.health.initial_up, server,
                                            upstream.pool);
    object->name = server.name;
    object->address_text = server.address_text;
  }
  if (!checked) object->health->set_up(true);
  return object;
}

}  // namespace

std::shared_ptr<Snapshot> Snapshot::build(std::unique_ptr<const config::Config> config,
                                          const Snapshot* previous, uint32_t shards) {
  auto snapshot = std::make_shared<Snapshot>(std::move(config));
  snapshot->number = previous == nullptr ? 1 : previous->number + 1;
  for (const config::Listener& listener : snapshot->config->listeners) {
    auto object = find_named(previous ? &previous->listeners : nullptr,
                             previous ? &previous->config->listeners : nullptr, listener.name);
    // Shards read the name of one that stays.
    if (object == nullptr) {
      object = std::make_shared<ListenerObject>(shards);
      object->name = listener.name;
    }
    snapshot->listeners.push_back(std::move(object));
  }
  for (const config::Upstream& upstream : snapshot->config->upstreams) {
    auto object = find_named(previous ? &previous->upstreams : nullptr,
                             previous ? &previous->config->upstreams : nullptr, upstream.name);
    if (object == nullptr) {
      object = std::make_shared<UpstreamObject>(shards);
      object->name = upstream.name;
    }
    snapshot->upstreams.push_back(std::move(object));
    auto& servers = snapshot->servers.emplace_back();
    for (const config::Server& server : upstream.servers) {
      servers.push_back(
          server_object(upstream, server, find_server(previous, upstream, server), shards));
    }
  }
  return snapshot;
}

void Snapshot::set_limits(BudgetPeers& peers) const {
  for (size_t i = 0; i < servers.size(); ++i) {
    const config::Upstream& upstream = config->upstreams[i];
    for (size_t j = 0; j < servers[i].size(); ++j) {
      ServerBudgets& budgets = servers[i][j]->budgets;
      const ServerSettings now = servers[i][j]->controls.settings(upstream.servers[j]);
      set_limit(budgets.requests, now.max_requests, peers);
      set_limit(budgets.connections, now.max_connections, peers);
      set_limit(budgets.idle, upstream.pool.max_idle_per_server, peers);
    }
  }
}

}  // namespace ringway
