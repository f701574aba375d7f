// pool/places.h - where a server connection is, why it left, and why a request found none.
//
// Affinity:  plain values.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace ringway {

// The one statement of where a connection is. ServerPool::move_to() is its only writer, and links,
// unlinks and counts by it; nothing else says the same thing twice (docs/invariants.md).
enum class Place : uint8_t {
  kNew,           // made, in nothing yet
  kConnecting,    // counted; in no list
  kBusy,          // one exclusive user, or a full multiplexed one; in no list
  kAvailable,     // multiplexed, in use, with room for more; in its group's available list
  kHeld,          // multiplexed, in use by one session and for no other; in that session's entry
  kSessionBusy,   // private, in use; in its session's entry
  kSessionIdle,   // private, idle; in its session's entry
  kIdleUnproven,  // idle; in its group's list and the LRU
  kIdleSafe,      // the same, and it has served a second request before
  kDraining,      // in use for the last time; in the pool's draining list
  kTransit,       // on its way to another shard; in no list, still counted here
  kClosing        // in no list; counted until its socket is closed
};
inline constexpr size_t kPlaces = 12;
inline constexpr std::array<std::string_view, kPlaces> kPlaceNames = {
    "new",          "connecting",    "busy",      "available", "held",    "private_busy",
    "private_idle", "idle_unproven", "idle_safe", "draining",  "transit", "closing"};

[[nodiscard]] constexpr bool is_idle(Place place) {
  return place == Place::kIdleUnproven || place == Place::kIdleSafe;
}
[[nodiscard]] constexpr bool is_private(Place place) {
  return place == Place::kSessionBusy || place == Place::kSessionIdle;
}
// In the entry of a session: private, or held by it while it is in use.
[[nodiscard]] constexpr bool in_session(Place place) {
  return is_private(place) || place == Place::kHeld;
}

// Why a connection was closed; each is a counter.
enum class CloseReason : uint8_t {
  kServerIdle,     // the server ended it while it was idle
  kUnsolicited,    // bytes while idle
  kConnect,        // it could not be made
  kError,          // its exchange did not end cleanly: cut, malformed, timed out, client gone
  kServerClose,    // the server asked for it: Connection: close, HTTP/1.0, until-close bodies
  kIdleTimeout,    // idle for longer than allowed or learned
  kUnneeded,       // the purge: more were idle than the load needs
  kIdleLimit,      // max_idle_per_server
  kMakeRoom,       // gave its place under max_connections_per_server to another key
  kGroupLimit,     // too many different keys
  kRequestsLimit,  // max_requests_per_connection, or the server's own "max"
  kAge,            // max_age
  kOutOfService,   // maintenance or drain
  kDown,           // health checks
  kReplaced,       // the server's address changed, or it was removed
  kSessionEnd,     // private, and its client left
  kPrivateLimit,   // private, and could not be kept for its session
  kStale,          // as old as one that was found dead
  kReuseOff,       // reuse = "never" without a session, or single use
  kLayer4,         // it carried a TCP session
  kPingTimeout     // HTTP/2: the server was silent, and did not answer PING
};
inline constexpr size_t kCloseReasons = 21;
inline constexpr std::array<std::string_view, kCloseReasons> kCloseReasonNames = {
    "server_idle",   "unsolicited",   "connect",  "error",          "server_close",
    "idle_timeout",  "unneeded",      "idle_max", "make_room",      "group_limit",
    "requests_max",  "age_max",       "service",  "down",           "replaced",
    "session_ended", "private_limit", "stale",    "reuse_disabled", "layer4",
    "ping_timeout"};

// What of the above can keep a connection that was given back from being parked.
inline constexpr std::array<CloseReason, 11> kParkRefusals = {
    CloseReason::kError,        CloseReason::kServerClose,   CloseReason::kUnneeded,
    CloseReason::kIdleLimit,    CloseReason::kRequestsLimit, CloseReason::kAge,
    CloseReason::kOutOfService, CloseReason::kDown,          CloseReason::kReplaced,
    CloseReason::kPrivateLimit, CloseReason::kReuseOff};

// How a request came by its connection. kAnticipated: by waiting for one that another request had
// opened, or for room on it.
enum class How : uint8_t {
  kFresh,
  kSession,
  kAvailable,
  kSafe,
  kUnproven,
  kBorrowed,
  kAnticipated
};
inline constexpr size_t kHows = 7;
inline constexpr std::array<std::string_view, kHows> kHowNames = {
    "fresh", "session", "available", "safe", "unproven", "borrowed", "anticipated"};

// Why a connection became one client's own.
enum class PrivateReason : uint8_t {
  kNever,       // reuse = "never"
  kLogin,       // its request carried a login of the connection's (NTLM, Negotiate)
  kChallenge,   // the server asked for one
  kProxyHeader  // it began with the client's PROXY header
};
inline constexpr size_t kPrivateReasons = 4;
inline constexpr std::array<std::string_view, kPrivateReasons> kPrivateReasonNames = {
    "reuse_never", "login", "challenge", "proxy_header"};

// Why a request got a fresh one.
enum class Miss : uint8_t {
  kNoneIdle,     // nothing was idle
  kOtherKeys,    // idle ones have other keys
  kPolicy,       // idle ones may not serve this request: the mode's rule for first requests
  kForcedFresh,  // idle ones were found dead before
  kPrivate       // it must not share
};
inline constexpr size_t kMisses = 5;
inline constexpr std::array<std::string_view, kMisses> kMissNames = {"none_idle", "other_keys",
                                                                     "policy", "stale", "private"};

// Which idle connections a request may use (docs/configuration.md, pool.reuse).
enum class ReuseMode : uint8_t { kNever, kSafe, kAggressive, kAlways, kAuto };

}  // namespace ringway
