// lb/admin/admin_json.h - the admin API's JSON: what is asked for, and what is answered.
//
// Affinity: control thread; pure functions of their arguments, but for counters that shards write.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lb/pool_report.h"
#include "lb/shard.h"
#include "lb/snapshot.h"

namespace ringway {

// Why a request is refused, and what would help. `status` is the HTTP one.
struct ApiError {
  uint16_t status = 400;
  std::string error;
  std::string hint;
};

// {"error": ..., "hint": ...}
[[nodiscard]] std::string error_json(const ApiError& error);

// "a%2Fb" to "a/b". False if a percent sign has no two hex digits behind it.
[[nodiscard]] bool percent_decode(std::string_view text, std::string& out);

// Changes `overrides` as the object in `text` says: {"state": "drain", "weight": 50,
// "max_requests": "off", "max_connections": null}; null is "as configured". False with `error` and
// `overrides` untouched if it is anything but that.
[[nodiscard]] bool parse_server_patch(std::string_view text, ServerOverrides& overrides,
                                      ApiError& error);

// "state ready -> drain, weight 100 -> 50 (configured)", or "" if nothing differs.
[[nodiscard]] std::string describe_change(const ServerOverrides& before,
                                          const ServerOverrides& after,
                                          const config::Server& server);

// What a server is doing, over all shards. Every value may be a moment old.
struct ServerLoad {
  uint64_t requests = 0;   // so far
  uint64_t in_flight = 0;  // requests and sessions
  uint64_t connecting = 0;
  uint64_t busy = 0;
  uint64_t idle = 0;
  std::array<uint64_t, kPlaces> places{};  // all of its connections

  // Nothing of it is left: it could be switched off.
  [[nodiscard]] bool removable() const {
    return in_flight == 0 &&
           std::all_of(places.begin(), places.end(), [](uint64_t count) { return count == 0; });
  }
};
[[nodiscard]] ServerLoad load_of(const ServerObject& server);

// One server of a snapshot.
struct ServerRef {
  const config::Upstream* upstream = nullptr;
  const config::Server* config = nullptr;
  ServerObject* object = nullptr;
};

// How far a change has got; only some of an answer's fields.
struct ChangeProgress {
  bool acknowledged = false;  // no shard starts a request on it any more
  bool waited = false;
  bool timed_out = false;
};

[[nodiscard]] std::string servers_json(std::span<const ServerRef> servers);
[[nodiscard]] std::string server_json(const ServerRef& server, const ChangeProgress* progress);
// Of a server that a reload has removed.
[[nodiscard]] std::string removed_server_json(std::string_view upstream, std::string_view name,
                                              const ServerObject& object,
                                              const ChangeProgress& progress);
[[nodiscard]] std::string pools_json(std::span<const std::unique_ptr<PoolOrder>> orders);
[[nodiscard]] std::string shards_json(ShardSet& shards, const Snapshot& snapshot);

}  // namespace ringway
