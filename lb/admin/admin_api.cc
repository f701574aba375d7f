// lb/admin/admin_api.cc
#include "lb/admin/admin_api.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "core/base/check.h"
#include "core/version.h"
#include "lb/admin/json_text.h"
#include "lb/admin/metrics.h"
#include "lb/config/suggest.h"

namespace ringway {
namespace {

using Json = nlohmann::ordered_json;
using http1::Method;

constexpr std::string_view kJson = "application/json";
constexpr const char* kPaths =
    "GET /v1/servers, GET or PATCH /v1/servers/UPSTREAM/SERVER, GET /v1/pools, /v1/shards, "
    "/v1/metrics, /v1/config, /v1/version, POST /v1/reload";

std::string who(const HttpPeer& peer) {
  return "uid " + std::to_string(peer.uid) + " pid " + std::to_string(peer.pid);
}

// Without an error if there is such an upstream.
ApiError no_upstream(const Snapshot& snapshot, const std::string& name) {
  std::vector<std::string_view> names;
  for (const config::Upstream& upstream : snapshot.config->upstreams) {
    if (upstream.name == name) return {};
    names.emplace_back(upstream.name);
  }
  const std::string near(config::closest(name, names));
  return {404, "there is no upstream \"" + name + "\"",
          near.empty() ? "GET /v1/servers lists them" : "did you mean \"" + near + "\"?"};
}

}  // namespace

// A request on its way to its answer.
struct AdminApi::Call {
  HttpServer& server;
  HttpTicket ticket;
  const HttpRequest& request;
  bool has_wait = false;
  uint64_t wait_s = 0;
  bool has_upstream = false;
  std::string upstream;

  void reply(std::string json) { server.respond(ticket, {200, std::move(json), kJson}); }
  void refuse(const ApiError& error, std::string_view extra = {}) {
    server.respond(ticket, {error.status, error_json(error), kJson, extra});
  }
  // The method is one of `allowed`, or the request is refused. HEAD goes with GET.
  bool allows(Method first, Method second, std::string_view field) {
    const Method method = request.method == Method::kHead ? Method::kGet : request.method;
    if (method == first || method == second) return true;
    refuse({405, "this path does not take that method",
            std::string(field.substr(0, field.find('\r')))},
           field);
    return false;
  }
  bool allows_get() { return allows(Method::kGet, Method::kGet, "Allow: GET, HEAD\r\n"); }
  bool read_query(bool takes_wait, bool takes_upstream);

 private:
  bool read_parameter(std::string_view name, std::string_view value, bool takes_wait,
                      bool takes_upstream);
};

// What waits for the shards.
struct AdminApi::Pending {
  enum class Kind : uint8_t { kServer, kReload, kPools };
  enum class Stage : uint8_t {
    kReload,       // until reload number `sequence` has ended
    kAcknowledge,  // until all shards have read the settings
    kConnecting,   // until no request is connecting to a server that was taken out
    kFence,        // until what was connecting last has sent its request
    kWait          // until nothing is left on the server
  };

  Kind kind = Kind::kServer;
  Stage stage = Stage::kAcknowledge;
  HttpServer* server = nullptr;  // null: nobody waits any more
  HttpTicket ticket = 0;
  uint64_t sequence = 0;
  std::vector<std::shared_ptr<ServerObject>> leaving;
  int64_t connecting_until_ms = 0;
  ChangeProgress progress;
  bool wait = false;
  int64_t wait_until_ms = 0;
  std::string by;                          // kReload: who asked
  std::shared_ptr<const Snapshot> before;  // kReload: what was in force then
  std::string upstream;                    // kServer
  std::string name;
  std::shared_ptr<ServerObject> object;
  std::vector<std::unique_ptr<PoolOrder>> orders;  // kPools
};

bool AdminApi::Call::read_parameter(std::string_view name, std::string_view value, bool takes_wait,
                                    bool takes_upstream) {
  if (takes_upstream && name == "upstream") {
    has_upstream = true;
    if (percent_decode(value, upstream)) return true;
    refuse({400, "malformed percent-encoding in the query", ""});
    return false;
  }
  if (takes_wait && name == "wait") {
    has_wait = true;
    const auto parsed = std::from_chars(value.data(), value.data() + value.size(), wait_s);
    if (parsed.ec == std::errc{} && parsed.ptr == value.data() + value.size() &&
        wait_s <= kWaitSecondsMax) {
      return true;
    }
    refuse({400, "wait: \"" + std::string(value) + "\" is out of range",
            "whole seconds, at most " + std::to_string(kWaitSecondsMax)});
    return false;
  }
  refuse({400, "unknown parameter \"" + std::string(name) + "\"",
          takes_upstream ? "?upstream=NAME"
          : takes_wait   ? "?wait=SECONDS"
                         : "this path takes none"});
  return false;
}

// False: the request was refused.
bool AdminApi::Call::read_query(bool takes_wait, bool takes_upstream) {
  std::string_view rest = request.query;
  while (!rest.empty()) {
    const std::string_view one = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(one.size() + 1, rest.size()));
    const size_t equals = std::min(one.find('='), one.size());
    const std::string_view value = one.substr(std::min(equals + 1, one.size()));
    if (!read_parameter(one.substr(0, equals), value, takes_wait, takes_upstream)) return false;
  }
  return true;
}

AdminApi::AdminApi(Io& io, Timers& timers, AdminHost& host)
    : io_(io), timers_(timers), host_(host) {}

AdminApi::~AdminApi() = default;

void AdminApi::on_request(HttpServer& server, HttpTicket ticket, const HttpRequest& request) {
  Call call{.server = server, .ticket = ticket, .request = request, .upstream = {}};
  route(call);
}

void AdminApi::route(Call& call) {
  const std::string_view path = call.request.path;
  if (path == "/v1/servers") return route_servers(call);
  constexpr std::string_view kServer = "/v1/servers/";
  if (path.starts_with(kServer)) return route_server(call, path.substr(kServer.size()));
  if (path == "/v1/pools") return ask_pools(call);
  if (path == "/v1/reload") return reload(call);
  const bool known = path == "/v1/shards" || path == "/v1/metrics" || path == "/v1/config" ||
                     path == "/v1/version";
  if (!known) return call.refuse({404, "there is nothing at this path", kPaths});
  if (!call.allows_get() || !call.read_query(false, false)) return;
  if (path == "/v1/shards") {
    return call.reply(shards_json(host_.admin_shards(), *host_.admin_snapshot()));
  }
  if (path == "/v1/metrics") {
    return call.server.respond(call.ticket, {200, host_.metrics(), MetricsWriter::kContentType});
  }
  Json json;
  if (path == "/v1/version") {
    json["version"] = kVersion;
    json["pid"] = getpid();
    return call.reply(text_of(json));
  }
  const AdminHost::Status status = host_.status();
  json["generation"] = host_.admin_snapshot()->number;
  json["file"] = status.file;
  json["reloads_ok"] = status.reloads_ok;
  json["reloads_failed"] = status.reloads_failed;
  json["uptime_seconds"] = status.uptime_us / 1'000'000;
  json["reloading"] = status.reloading;
  json["draining"] = status.draining;
  call.reply(text_of(json));
}

void AdminApi::route_servers(Call& call) {
  if (!call.allows_get() || !call.read_query(false, true)) return;
  const Snapshot& snapshot = *host_.admin_snapshot();
  if (call.has_upstream) {
    const ApiError error = no_upstream(snapshot, call.upstream);
    if (!error.error.empty()) return call.refuse(error);
  }
  std::vector<ServerRef> servers;
  for (size_t i = 0; i < snapshot.config->upstreams.size(); ++i) {
    const config::Upstream& upstream = snapshot.config->upstreams[i];
    if (call.has_upstream && upstream.name != call.upstream) continue;
    for (size_t j = 0; j < upstream.servers.size(); ++j) {
      servers.push_back({&upstream, &upstream.servers[j], snapshot.servers[i][j].get()});
    }
  }
  call.reply(servers_json(servers));
}

ServerRef AdminApi::find(std::string_view upstream, std::string_view server) {
  const Snapshot& snapshot = *host_.admin_snapshot();
  for (size_t i = 0; i < snapshot.config->upstreams.size(); ++i) {
    const config::Upstream& config = snapshot.config->upstreams[i];
    if (config.name != upstream) continue;
    for (size_t j = 0; j < config.servers.size(); ++j) {
      if (config.servers[j].name != server) continue;
      return {&config, &config.servers[j], snapshot.servers[i][j].get()};
    }
  }
  return {};
}

void AdminApi::route_server(Call& call, std::string_view rest) {
  const size_t slash = rest.find('/');
  std::string upstream;
  std::string name;
  if (slash == std::string_view::npos || !percent_decode(rest.substr(0, slash), upstream) ||
      !percent_decode(rest.substr(slash + 1), name)) {
    return call.refuse({400, "malformed path", "/v1/servers/UPSTREAM/SERVER, percent-encoded"});
  }
  const ServerRef server = find(upstream, name);
  if (server.object == nullptr) {
    ApiError error = no_upstream(*host_.admin_snapshot(), upstream);
    if (!error.error.empty()) return call.refuse(error);
    return call.refuse({404, "upstream \"" + upstream + "\" has no server \"" + name + "\"",
                        "GET /v1/servers?upstream=" + upstream + " lists them"});
  }
  if (!call.allows(Method::kGet, Method::kPatch, "Allow: GET, HEAD, PATCH\r\n")) return;
  if (!call.read_query(true, false)) return;
  if (call.request.method == Method::kPatch) return patch_server(call, server);
  if (!call.has_wait) return call.reply(server_json(server, nullptr));
  if (server.object->controls.settings(*server.config).ready()) {
    return call.refuse({409, "the server is ready: waiting until it is empty has no end",
                        "set \"drain\" or \"maintenance\" first"});
  }
  auto pending = std::make_unique<Pending>();
  pending->upstream = upstream;
  pending->name = name;
  wait_for_shards(call, std::move(pending));
}

void AdminApi::patch_server(Call& call, const ServerRef& server) {
  const ServerOverrides before = server.object->controls.overrides();
  ServerOverrides after = before;
  ApiError error;
  if (!parse_server_patch(call.request.body, after, error)) return call.refuse(error);
  const ServerSettings old = server.object->controls.settings(*server.config);
  const ServerSettings now = settings_with(*server.config, after);
  if (call.has_wait && now.ready()) {
    return call.refuse({400, "only a server that takes no new work becomes empty",
                        "wait goes with \"drain\" and \"maintenance\""});
  }
  server.object->controls.set(after);
  host_.admin_snapshot()->set_limits(host_.admin_shards());
  const std::string change = describe_change(before, after, *server.config);
  const std::string id = server.upstream->name + "/" + server.config->name;
  if (!change.empty()) host_.audit(who(call.request.peer) + ": server " + id + ": " + change);
  if ((old.state == config::ServerState::kMaintenance) !=
      (now.state == config::ServerState::kMaintenance)) {
    // What was known before the maintenance means nothing after it.
    if (now.state != config::ServerState::kMaintenance) {
      server.object->health->set_up(server.upstream->health.type == config::HealthType::kOff ||
                                    server.upstream->health.initial_up);
    }
    host_.checks_changed();
  }
  auto pending = std::make_unique<Pending>();
  pending->upstream = server.upstream->name;
  pending->name = server.config->name;
  wait_for_shards(call, std::move(pending));
}

void AdminApi::reload(Call& call) {
  if (!call.allows(Method::kPost, Method::kPost, "Allow: POST\r\n")) return;
  if (!call.read_query(false, false)) return;
  auto pending = std::make_unique<Pending>();
  pending->kind = Pending::Kind::kReload;
  pending->stage = Pending::Stage::kReload;
  pending->server = &call.server;
  pending->ticket = call.ticket;
  pending->by = who(call.request.peer);
  pending->before = host_.admin_snapshot();
  pending->sequence = host_.ask_reload();
  pending_.push_back(std::move(pending));
}

void AdminApi::reloaded(uint64_t number, const AdminHost::Reloaded& outcome) {
  // An answer may let its connection's next request in, which is another one that waits.
  for (size_t i = 0; i < pending_.size(); ++i) {
    Pending& pending = *pending_[i];
    if (pending.stage != Pending::Stage::kReload || pending.sequence != number) continue;
    if (outcome.good) {
      await_reload(pending);
    } else {
      refuse_reload(pending, outcome);
    }
  }
}

void AdminApi::refuse_reload(Pending& pending, const AdminHost::Reloaded& outcome) {
  host_.audit(pending.by + ": reload: failed, configuration " +
              std::to_string(host_.admin_snapshot()->number) + " stays");
  pending.stage = Pending::Stage::kAcknowledge;
  if (pending.server == nullptr) return;
  Json json;
  json["error"] = outcome.error;
  json["hint"] = "the configuration in force stays";
  if (!outcome.text.empty()) json["text"] = outcome.text;
  const Json list = Json::parse(outcome.diagnostics, nullptr, false);
  if (!list.is_discarded() && list.contains("diagnostics")) {
    json["diagnostics"] = list["diagnostics"];
  }
  pending.server->respond(pending.ticket, {422, text_of(json), kJson});
  pending.server = nullptr;
}

// Servers that are no longer configured, or take no new work, get no request after the answer.
void AdminApi::await_reload(Pending& pending) {
  const std::shared_ptr<const Snapshot> before = std::move(pending.before);
  const std::shared_ptr<const Snapshot> now = host_.admin_snapshot();
  host_.audit(pending.by + ": reload: configuration " + std::to_string(before->number) + " -> " +
              std::to_string(now->number));
  std::vector<ServerObject*> kept;
  for (size_t i = 0; i < now->servers.size(); ++i) {
    for (size_t j = 0; j < now->servers[i].size(); ++j) {
      const auto& object = now->servers[i][j];
      if (object->controls.settings(now->config->upstreams[i].servers[j]).ready()) {
        kept.push_back(object.get());
      } else {
        pending.leaving.push_back(object);
      }
    }
  }
  std::sort(kept.begin(), kept.end());
  for (const auto& servers : before->servers) {
    for (const auto& object : servers) {
      if (!std::binary_search(kept.begin(), kept.end(), object.get())) {
        pending.leaving.push_back(object);
      }
    }
  }
  pending.stage = Pending::Stage::kAcknowledge;
  pending.connecting_until_ms = now_ms() + kConnectingMsMax;
  pending.sequence = host_.post_controls();
}

// The answer comes when the shards have read the settings of servers, and what follows from them.
void AdminApi::wait_for_shards(Call& call, std::unique_ptr<Pending> pending) {
  pending->server = &call.server;
  pending->ticket = call.ticket;
  if (pending->kind == Pending::Kind::kServer) {
    const Snapshot& snapshot = *host_.admin_snapshot();
    for (size_t i = 0; i < snapshot.servers.size(); ++i) {
      if (snapshot.config->upstreams[i].name != pending->upstream) continue;
      for (size_t j = 0; j < snapshot.servers[i].size(); ++j) {
        const config::Server& config = snapshot.config->upstreams[i].servers[j];
        if (config.name != pending->name) continue;
        pending->object = snapshot.servers[i][j];
        if (!pending->object->controls.settings(config).ready()) {
          pending->leaving.push_back(pending->object);
        }
      }
    }
    RW_CHECK(pending->object != nullptr);
  }
  pending->wait = call.has_wait;
  pending->progress.waited = call.has_wait;
  pending->wait_until_ms = now_ms() + static_cast<int64_t>(call.wait_s) * 1000;
  pending->connecting_until_ms = now_ms() + kConnectingMsMax;
  pending->sequence = host_.post_controls();
  pending_.push_back(std::move(pending));
  timers_.set(timer_, now_ms() + kPollMs);
}

void AdminApi::ask_pools(Call& call) {
  if (!call.allows_get() || !call.read_query(false, true)) return;
  if (call.has_upstream) {
    const ApiError error = no_upstream(*host_.admin_snapshot(), call.upstream);
    if (!error.error.empty()) return call.refuse(error);
  }
  auto pending = std::make_unique<Pending>();
  pending->kind = Pending::Kind::kPools;
  pending->server = &call.server;
  pending->ticket = call.ticket;
  ShardSet& shards = host_.admin_shards();
  for (uint32_t i = 0; i < shards.count(); ++i) {
    pending->orders.push_back(std::make_unique<PoolOrder>());
    PoolOrder& order = *pending->orders.back();
    order.upstream = call.upstream;
    const Message message{.kind = static_cast<uint32_t>(Mail::kReport),
                          .a = reinterpret_cast<uintptr_t>(&order)};
    if (shards.at(i).post(message)) continue;
    order.done.store(true, std::memory_order_relaxed);  // Nobody has it: its mailbox is full.
    pending->server = nullptr;
  }
  const bool refused = pending->server == nullptr;
  pending_.push_back(std::move(pending));  // In any case: some shards fill their orders.
  timers_.set(timer_, now_ms() + kPollMs);
  if (refused) call.refuse({503, "a shard is too busy to answer", "try again"});
}

bool AdminApi::acknowledged(uint64_t sequence) {
  ShardSet& shards = host_.admin_shards();
  for (uint32_t i = 0; i < shards.count(); ++i) {
    if (shards.at(i).controlled() < sequence) return false;
  }
  return true;
}

bool AdminApi::advance(Pending& pending) {
  using Stage = Pending::Stage;
  if (pending.kind == Pending::Kind::kPools) {
    for (const auto& order : pending.orders) {
      if (!order->done.load(std::memory_order_acquire)) return false;
    }
    answer(pending);
    return true;
  }
  if (pending.stage == Stage::kReload) return false;  // Whoever asked is named when it has ended.
  if (pending.server == nullptr) return true;
  if (pending.stage == Stage::kAcknowledge) {
    if (!acknowledged(pending.sequence)) return false;
    pending.stage = Stage::kConnecting;
  }
  if (pending.stage == Stage::kConnecting) {
    const bool none =
        std::all_of(pending.leaving.begin(), pending.leaving.end(),
                    [](const auto& object) { return load_of(*object).connecting == 0; });
    if (!none && now_ms() < pending.connecting_until_ms) return false;
    pending.progress.acknowledged = none;
    pending.stage = Stage::kFence;
    pending.sequence = host_.post_controls();
  }
  if (pending.stage == Stage::kFence) {
    if (!acknowledged(pending.sequence)) return false;
    pending.stage = Stage::kWait;
  }
  if (pending.wait && !advance_wait(pending)) return false;
  answer(pending);
  return true;
}

// True: the wait is over.
bool AdminApi::advance_wait(Pending& pending) {
  if (load_of(*pending.object).removable()) return true;
  pending.progress.timed_out = now_ms() >= pending.wait_until_ms;
  if (pending.progress.timed_out) return true;
  const ServerRef server = find(pending.upstream, pending.name);
  if (server.object != pending.object.get()) return false;  // Removed: its last ones still finish.
  if (!server.object->controls.settings(*server.config).ready()) return false;
  pending.server->respond(
      pending.ticket,
      {409,
       error_json({409, "the server was made ready while this waited for it to become empty", ""}),
       kJson});
  pending.server = nullptr;
  return true;
}

void AdminApi::answer(Pending& pending) {
  if (pending.server == nullptr) return;
  std::string json;
  switch (pending.kind) {
    case Pending::Kind::kPools: json = pools_json(pending.orders); break;
    case Pending::Kind::kReload: {
      Json object;
      object["generation"] = host_.admin_snapshot()->number;
      object["acknowledged"] = pending.progress.acknowledged;
      json = text_of(object);
      break;
    }
    case Pending::Kind::kServer: {
      const ServerRef server = find(pending.upstream, pending.name);
      json = server.object == pending.object.get()
                 ? server_json(server, &pending.progress)
                 : removed_server_json(pending.upstream, pending.name, *pending.object,
                                       pending.progress);
      break;
    }
  }
  pending.server->respond(pending.ticket, {200, std::move(json), kJson});
}

void AdminApi::step() {
  if (pending_.empty()) return;
  std::erase_if(pending_, [this](const auto& pending) { return advance(*pending); });
  if (!pending_.empty()) timers_.set(timer_, now_ms() + kPollMs);
}

void AdminApi::on_timer(Timer&) {
  step();
}

void AdminApi::forget(const HttpServer& server) {
  for (const auto& pending : pending_) {
    if (pending->server == &server) pending->server = nullptr;
  }
}

}  // namespace ringway
