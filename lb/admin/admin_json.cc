// lb/admin/admin_json.cc
#include "lb/admin/admin_json.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "core/base/check.h"
#include "lb/admin/json_text.h"

namespace ringway {
namespace {

using Json = nlohmann::ordered_json;
using config::ServerState;

constexpr uint32_t kWeightMax = 1000;
constexpr uint64_t kLimitMax = 1'000'000'000;

const char* word_of(ServerState state) {
  switch (state) {
    case ServerState::kReady: return "ready";
    case ServerState::kDrain: return "drain";
    case ServerState::kMaintenance: return "maintenance";
  }
  return "";
}

std::string text_of_limit(uint64_t limit) {
  return limit == config::kUnlimited ? "off" : std::to_string(limit);
}

Json json_of_limit(uint64_t limit) {
  return limit == config::kUnlimited ? Json("off") : Json(limit);
}

bool refuse(ApiError& error, std::string what, std::string hint) {
  error = {.status = 400, .error = std::move(what), .hint = std::move(hint)};
  return false;
}

bool read_state(const Json& value, std::optional<ServerState>& out, ApiError& error) {
  if (value.is_null()) return out.reset(), true;
  for (const ServerState state :
       {ServerState::kReady, ServerState::kDrain, ServerState::kMaintenance}) {
    if (value == word_of(state)) return out = state, true;
  }
  return refuse(
      error, "state: " + value.dump(-1, ' ', true, Json::error_handler_t::replace) + " is no state",
      "\"ready\", \"drain\", \"maintenance\" or null (as configured)");
}

// What a number may be.
struct Range {
  uint64_t min = 0;
  uint64_t max = 0;
  bool off = false;  // or "off"
};
constexpr Range kLimitRange{.min = 1, .max = kLimitMax, .off = true};

template <typename T>
bool read_number(const char* key, const Json& value, Range range, std::optional<T>& out,
                 ApiError& error) {
  if (value.is_null()) return out.reset(), true;
  if (range.off && value == "off") return out = config::kUnlimited, true;
  const bool whole = value.is_number_unsigned();
  if (whole && value.get<uint64_t>() >= range.min && value.get<uint64_t>() <= range.max) {
    return out = static_cast<T>(value.get<uint64_t>()), true;
  }
  return refuse(error,
                std::string(key) + ": " +
                    value.dump(-1, ' ', true, Json::error_handler_t::replace) + " is out of range",
                "a whole number from " + std::to_string(range.min) + " to " +
                    std::to_string(range.max) + (range.off ? ", \"off\"" : "") +
                    " or null (as configured)");
}

Json load_into(Json json, const ServerLoad& load) {
  json["requests"] = load.requests;
  json["in_flight"] = load.in_flight;
  json["connecting"] = load.connecting;
  json["busy"] = load.busy;
  json["idle"] = load.idle;
  json["removable"] = load.removable();
  Json& blocks = json["blocks_removal"] = Json::object();
  if (load.in_flight > 0) blocks["requests"] = load.in_flight;
  for (size_t i = 1; i < kPlaces; ++i) {
    if (load.places[i] > 0) blocks[std::string(kPlaceNames[i])] = load.places[i];
  }
  return json;
}

void put_progress(Json& json, const ChangeProgress& progress) {
  json["acknowledged"] = progress.acknowledged;
  if (progress.waited) json["timed_out"] = progress.timed_out;
}

const char* health_of(const ServerRef& server, const ServerSettings& settings) {
  if (server.upstream->health.type == config::HealthType::kOff) return "unchecked";
  if (settings.state == ServerState::kMaintenance) return "unchecked";
  return server.object->health->up() ? "up" : "down";
}

Json json_of(const ServerRef& server) {
  const ServerSettings base = configured(*server.config);
  const ServerSettings now = server.object->controls.settings(*server.config);
  const ServerOverrides overrides = server.object->controls.overrides();
  Json json;
  json["upstream"] = server.upstream->name;
  json["server"] = server.config->name;
  json["address"] = server.config->address_text;
  json["state"] = word_of(now.state);
  json["health"] = health_of(server, now);
  json["weight"] = now.weight;
  json["backup"] = server.config->backup;
  json["max_requests"] = json_of_limit(now.max_requests);
  json["max_connections"] = json_of_limit(now.max_connections);
  // What an administrator has set, beside what the file says.
  Json& set = json["overrides"] = Json::object();
  if (overrides.state) set["state"] = {{"configured", word_of(base.state)}};
  if (overrides.weight) set["weight"] = {{"configured", base.weight}};
  if (overrides.max_requests) {
    set["max_requests"] = {{"configured", json_of_limit(base.max_requests)}};
  }
  if (overrides.max_connections) {
    set["max_connections"] = {{"configured", json_of_limit(base.max_connections)}};
  }
  return load_into(std::move(json), load_of(*server.object));
}

Json counts_of(const std::vector<NamedCount>& counts) {
  Json json = Json::object();
  for (const NamedCount& count : counts) json[count.name] = count.value;
  return json;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

struct EngineField {
  const char* name;
  Counter EngineCounters::*counter;
};
constexpr EngineField kEngineFields[] = {
    {"turns", &EngineCounters::turns},
    {"events", &EngineCounters::events},
    {"accepts", &EngineCounters::accepts},
    {"accept_pauses", &EngineCounters::accept_pauses},
    {"sq_full", &EngineCounters::sq_full},
    {"submit_busy", &EngineCounters::submit_busy},
    {"cq_overflows", &EngineCounters::cq_overflows},
    {"stale_events", &EngineCounters::stale_events},
    {"receive_starved", &EngineCounters::receive_starved},
    {"receive_held", &EngineCounters::receive_held},
    {"wakes", &EngineCounters::wakes},
    {"spins", &EngineCounters::spins},
    {"spin_us", &EngineCounters::spin_us},
    {"sleeps", &EngineCounters::sleeps},
};

}  // namespace

std::string error_json(const ApiError& error) {
  Json json;
  json["error"] = error.error;
  if (!error.hint.empty()) json["hint"] = error.hint;
  return text_of(json);
}

bool percent_decode(std::string_view text, std::string& out) {
  out.clear();
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    if (text.size() - i < 3) return false;
    const int high = hex_digit(text[i + 1]);
    const int low = hex_digit(text[i + 2]);
    if (high < 0 || low < 0) return false;
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return true;
}

bool parse_server_patch(std::string_view text, ServerOverrides& overrides, ApiError& error) {
  constexpr const char* kShape =
      "an object with \"state\", \"weight\", \"max_requests\" or \"max_connections\"";
  const Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) return refuse(error, "the body is not JSON", kShape);
  if (!json.is_object() || json.empty()) return refuse(error, "nothing to change", kShape);
  ServerOverrides next = overrides;
  for (const auto& [key, value] : json.items()) {
    bool good = false;
    if (key == "state") {
      good = read_state(value, next.state, error);
    } else if (key == "weight") {
      good = read_number("weight", value, {.max = kWeightMax}, next.weight, error);
    } else if (key == "max_requests") {
      good = read_number("max_requests", value, kLimitRange, next.max_requests, error);
    } else if (key == "max_connections") {
      good = read_number("max_connections", value, kLimitRange, next.max_connections, error);
    } else {
      return refuse(error, "unknown key \"" + key + "\"", kShape);
    }
    if (!good) return false;
  }
  overrides = next;
  return true;
}

std::string describe_change(const ServerOverrides& before, const ServerOverrides& after,
                            const config::Server& server) {
  const ServerSettings base = configured(server);
  std::string text;
  const auto put = [&text](const char* key, bool was_set, const std::string& was, bool is_set,
                           const std::string& is) {
    if (was_set == is_set && was == is) return;
    text += text.empty() ? "" : ", ";
    text += std::string(key) + " " + was + " -> " + is + (is_set ? "" : " (as configured)");
  };
  put("state", before.state.has_value(), word_of(before.state.value_or(base.state)),
      after.state.has_value(), word_of(after.state.value_or(base.state)));
  put("weight", before.weight.has_value(), std::to_string(before.weight.value_or(base.weight)),
      after.weight.has_value(), std::to_string(after.weight.value_or(base.weight)));
  put("max_requests", before.max_requests.has_value(),
      text_of_limit(before.max_requests.value_or(base.max_requests)),
      after.max_requests.has_value(),
      text_of_limit(after.max_requests.value_or(base.max_requests)));
  put("max_connections", before.max_connections.has_value(),
      text_of_limit(before.max_connections.value_or(base.max_connections)),
      after.max_connections.has_value(),
      text_of_limit(after.max_connections.value_or(base.max_connections)));
  return text;
}

ServerLoad load_of(const ServerObject& server) {
  ServerLoad load;
  for (const auto& cell : server.shard.stats) {
    const auto at = [&](Place place) {
      return cell.stats.pool.places[static_cast<size_t>(place)].get();
    };
    load.requests += cell.stats.requests.get();
    load.in_flight += cell.stats.sessions.get();
    for (size_t i = 1; i < kPlaces; ++i) load.places[i] += at(static_cast<Place>(i));
    load.connecting += at(Place::kConnecting);
    load.busy += at(Place::kBusy) + at(Place::kAvailable) + at(Place::kHeld) +
                 at(Place::kSessionBusy) + at(Place::kDraining);
    load.idle += at(Place::kIdleSafe) + at(Place::kIdleUnproven) + at(Place::kSessionIdle) +
                 at(Place::kTransit);
  }
  return load;
}

std::string servers_json(std::span<const ServerRef> servers) {
  Json json;
  Json& list = json["servers"] = Json::array();
  for (const ServerRef& server : servers) list.push_back(json_of(server));
  return text_of(json);
}

std::string server_json(const ServerRef& server, const ChangeProgress* progress) {
  Json json = json_of(server);
  if (progress != nullptr) put_progress(json, *progress);
  return text_of(json);
}

std::string removed_server_json(std::string_view upstream, std::string_view name,
                                const ServerObject& object, const ChangeProgress& progress) {
  Json json;
  json["upstream"] = upstream;
  json["server"] = name;
  json["removed"] = true;
  json = load_into(std::move(json), load_of(object));
  put_progress(json, progress);
  return text_of(json);
}

std::string pools_json(std::span<const std::unique_ptr<PoolOrder>> orders) {
  Json json;
  Json& list = json["pools"] = Json::array();
  for (const auto& order : orders) {
    RW_CHECK(order->done.load(std::memory_order_acquire));
    for (const PoolReport& report : order->reports) {
      Json one;
      one["shard"] = report.shard;
      one["upstream"] = report.upstream;
      one["server"] = report.server;
      one["retired"] = report.retired;
      for (const CountGroup& group : report.counts) one[group.name] = counts_of(group.counts);
      Json& keys = one["keys"] = Json::array();
      for (const KeyGroupReport& key : report.keys) {
        Json& entry = keys.emplace_back(Json::object());
        entry["key"] = key.key;
        for (const NamedCount& count : key.counts) entry[count.name] = count.value;
      }
      list.push_back(std::move(one));
    }
  }
  return text_of(json);
}

std::string shards_json(ShardSet& shards, const Snapshot& snapshot) {
  Json json;
  Json& list = json["shards"] = Json::array();
  for (uint32_t i = 0; i < shards.count(); ++i) {
    const Shard& shard = shards.at(i);
    uint64_t requests = 0;
    for (const auto& listener : snapshot.listeners)
      requests += listener->shard.at(i).requests.get();
    Json one;
    one["shard"] = i;
    one["cpu"] = shard.cpu() < 0 ? Json() : Json(shard.cpu());
    one["engine"] = shard.engine_name();
    one["clients"] = shards.loads()[i].clients.load(std::memory_order_relaxed);
    one["requests"] = requests;
    Json& engine = one["counters"] = Json::object();
    for (const EngineField& line : kEngineFields) {
      engine[line.name] = (shard.engine_counters()->*line.counter).get();
    }
    list.push_back(std::move(one));
  }
  return text_of(json);
}

}  // namespace ringway
