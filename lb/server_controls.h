// lb/server_controls.h - what an administrator set for one server while the process runs.
//
// Affinity:  set() on the control thread. The effective values may be read by any thread; shards
//            read them when they are told to (Mail::kControls) or take over a configuration, never
//            per request.
// Ownership: part of the ServerObject, so overrides survive a reload as long as the server's name
//            and address stay. A key whose configured value changes loses its override: the file
//            wins (Snapshot::build).
// Why:       an override is kept apart from the configured value, so "back to what is configured"
//            needs no memory of what that was.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

#include "lb/config/config.h"

namespace ringway {

// Each absent: as configured.
struct ServerOverrides {
  std::optional<config::ServerState> state{};
  std::optional<uint32_t> weight{};
  std::optional<uint64_t> max_requests{};     // config::kUnlimited: off
  std::optional<uint64_t> max_connections{};  // config::kUnlimited: off
  bool operator==(const ServerOverrides&) const = default;
};

// What holds for a server: as configured, or as overridden.
struct ServerSettings {
  config::ServerState state = config::ServerState::kReady;
  uint32_t weight = 100;
  uint64_t max_requests = config::kUnlimited;     // in flight, whole process
  uint64_t max_connections = config::kUnlimited;  // whole process
  bool operator==(const ServerSettings&) const = default;

  // Takes new work, if it is healthy.
  [[nodiscard]] bool ready() const { return state == config::ServerState::kReady; }
};

// What the file says.
[[nodiscard]] inline ServerSettings configured(const config::Server& server) {
  return {.state = server.state,
          .weight = server.weight,
          .max_requests = server.max_requests,
          .max_connections = server.max_connections};
}

// What holds for `server` under these overrides.
[[nodiscard]] inline ServerSettings settings_with(const config::Server& server,
                                                  const ServerOverrides& overrides) {
  const ServerSettings base = configured(server);
  return {.state = overrides.state.value_or(base.state),
          .weight = overrides.weight.value_or(base.weight),
          .max_requests = overrides.max_requests.value_or(base.max_requests),
          .max_connections = overrides.max_connections.value_or(base.max_connections)};
}

class ServerControls {
 public:
  // Any thread. What holds for this server, whose configuration is `server`.
  [[nodiscard]] ServerSettings settings(const config::Server& server) const {
    return settings_with(server, overrides());
  }

  // Control thread: replaces all four. Shards act on it after the next Mail::kControls.
  void set(const ServerOverrides& overrides) {
    put(state_, overrides.state);
    put(weight_, overrides.weight);
    put(max_requests_, overrides.max_requests);
    put(max_connections_, overrides.max_connections);
  }
  [[nodiscard]] ServerOverrides overrides() const {
    return {.state = get<config::ServerState>(state_),
            .weight = get<uint32_t>(weight_),
            .max_requests = get<uint64_t>(max_requests_),
            .max_connections = get<uint64_t>(max_connections_)};
  }

 private:
  using Value = std::atomic<uint64_t>;
  static constexpr uint64_t kNone = UINT64_MAX - 1;
  static_assert(kNone != config::kUnlimited);

  // Relaxed: the mailbox orders a change before the message that announces it.
  template <typename T>
  static void put(Value& value, const std::optional<T>& to) {
    value.store(to.has_value() ? static_cast<uint64_t>(*to) : kNone, std::memory_order_relaxed);
  }
  template <typename T>
  static std::optional<T> get(const Value& value) {
    const uint64_t set = value.load(std::memory_order_relaxed);
    return set == kNone ? std::nullopt : std::optional<T>(static_cast<T>(set));
  }

  Value state_{kNone};
  Value weight_{kNone};
  Value max_requests_{kNone};
  Value max_connections_{kNone};
};

}  // namespace ringway
