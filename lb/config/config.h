// lb/config/config.h - the validated configuration: plain values, immutable once loaded.
//
// Affinity:  built by the loader on the control thread, read by all. Ownership: values only.
// Why:       one aggregate that says what the TOML file said, defaults filled in, names resolved to
//            indices; the loader (lb/config/load.h) is the only place that can fail.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/address.h"
#include "core/local_end.h"
#include "lb/config/config_tls.h"
#include "pool/places.h"
#include "proto/http1_head.h"
#include "proto/http1_write.h"

namespace ringway::config {

inline constexpr int64_t kOff = 0;                  // a duration that is switched off
inline constexpr uint64_t kUnlimited = UINT64_MAX;  // a bound that is switched off

// All in milliseconds; kOff where the file says "off".
struct Timeouts {
  int64_t proxy_header = 3'000;
  int64_t request_headers = 10'000;
  int64_t request_body = 30'000;
  int64_t client_idle = 60'000;
  int64_t keep_alive = 65'000;
  int64_t connect = 2'000;
  int64_t response_headers = 30'000;
  int64_t server_idle = 60'000;
  int64_t tunnel_idle = 3'600'000;
  int64_t half_closed = 10'000;
  int64_t queue = 5'000;
  int64_t tls_handshake = 10'000;
  bool operator==(const Timeouts&) const = default;
};

enum class Protocol : uint8_t { kHttp, kTcp };
enum class AcceptMode : uint8_t { kReuseport, kBalanced };

// Whether clients begin with a PROXY header. Optional: they may.
enum class ProxyAccept : uint8_t { kOff, kOptional, kRequired };

struct ProxyProtocol {
  ProxyAccept accept = ProxyAccept::kOff;
  std::vector<Network> from;     // who may send one; never empty unless kOff or from_unix
  bool from_unix = false;        // clients of unix sockets may
  uint32_t header_bytes = 4096;  // of a whole header of version 2
  bool operator==(const ProxyProtocol&) const = default;
};

// The PROXY header that servers are sent first.
enum class ProxySend : uint8_t { kOff, kV1, kV2 };

// What a header of version 2 says beside the addresses, where it is known.
struct ProxyTlvs {
  bool alpn = false;
  bool authority = false;
  bool unique_id = false;
  bool ssl = false;
  bool netns = false;
  bool custom = false;
  bool crc32c = false;
  bool operator==(const ProxyTlvs&) const = default;
};

// What a TCP listener reads of its clients before it routes them.
struct Preread {
  bool sni = false;  // a TLS ClientHello
  int64_t timeout = 3'000;
  uint32_t hello_bytes = 32 * 1024;  // with the heads of its records
  bool operator==(const Preread&) const = default;
};

struct Limits {
  uint32_t header_bytes = 64 * 1024;
  uint32_t headers = 128;
  uint32_t uri_bytes = 8 * 1024;
  uint64_t body_bytes = kUnlimited;
  bool operator==(const Limits&) const = default;
};

enum class HttpVersion : uint8_t { kHttp1, kHttp2 };

[[nodiscard]] inline bool contains(const std::vector<HttpVersion>& versions, HttpVersion wanted) {
  for (const HttpVersion one : versions) {
    if (one == wanted) return true;
  }
  return false;
}

// So many in any time of that length; 0: no limit.
struct EventRate {
  uint32_t count = 0;
  uint32_t period_ms = 10'000;
  bool operator==(const EventRate&) const = default;
};

// Bounds of a client's HTTP/2 connection.
struct Http2 {
  uint32_t max_streams = 100;
  uint64_t stream_window = 256 * 1024;
  uint64_t connection_window = 8 * 1024 * 1024;
  uint64_t header_table = 4096;
  EventRate max_resets{.count = 200};
  EventRate max_control{.count = 2000};
  int64_t idle_ping = kOff;
  bool operator==(const Http2&) const = default;
};

struct Listener {
  std::string name;
  Position position;
  struct Bind {
    ServerAddress address;
    std::string text;
    Position position;
    bool operator==(const Bind&) const = default;
  };
  std::vector<Bind> bind;
  Protocol protocol = Protocol::kHttp;
  AcceptMode accept = AcceptMode::kBalanced;
  int backlog = 4096;
  uint64_t max_connections = kUnlimited;  // whole process
  std::vector<Network> trusted_proxies;
  ProxyProtocol proxy;
  Preread preread;
  // In the order of preference; over TLS the client chooses by ALPN among them.
  std::vector<HttpVersion> http_versions{HttpVersion::kHttp2, HttpVersion::kHttp1};
  Http2 h2;
  Limits limits;
  Timeouts timeouts;            // the listener's own over [defaults.timeouts]
  bool forwarded = false;       // also write RFC 7239 Forwarded
  bool x_forwarded = true;      // write X-Forwarded-For, -Proto, -Host
  std::optional<uint32_t> tls;  // index of a profile; absent: clear text
  ClientCertificateHeaders certificate_headers;

  [[nodiscard]] bool speaks(HttpVersion version) const { return contains(http_versions, version); }
  bool operator==(const Listener&) const = default;
};

struct HeaderMatch {
  std::string name;   // lower case
  std::string value;  // exact; empty and `present` for "the field exists"
  bool present = false;
  bool operator==(const HeaderMatch&) const = default;
};

struct Match {
  std::vector<std::string> host;         // lower case; "*.example.com" matches one or more labels
  std::vector<std::string> path;         // exact
  std::vector<std::string> path_prefix;  // "/v1/" or "/v1": plain string prefix
  std::vector<std::string> path_regex;   // RE2, anchored at both ends
  std::vector<std::string> method;       // upper case
  std::vector<HeaderMatch> headers;      // all must hold
  std::vector<std::string> sni;          // as host; TCP with preread only, as is alpn
  std::vector<std::string> alpn;         // the client offers one of them
  uint32_t client_certificate = 0;       // bits by TlsVerdict; 0: any
  // Kinds are and-ed, alternatives of one kind are or-ed; the three path kinds are one.
  [[nodiscard]] bool empty() const;
  bool operator==(const Match&) const = default;
};

enum class Action : uint8_t { kUpstream, kRedirect, kRespond };

struct Route {
  std::string name;
  Position position;
  std::vector<uint32_t> listeners;  // indices; never empty (all of the protocol when not given)
  Match match;
  Action action = Action::kUpstream;
  uint32_t upstream = 0;  // index, for kUpstream
  struct Redirect {
    std::string scheme;  // empty: the request's
    std::string host;    // empty: the request's
    std::string path;    // empty: the request's, query included
    uint16_t status = 308;
    bool operator==(const Redirect&) const = default;
  } redirect;
  struct Respond {
    uint16_t status = 200;
    std::string body;
    std::string content_type = "text/plain; charset=utf-8";
    bool operator==(const Respond&) const = default;
  } respond;
  std::string strip_prefix;  // rewrite = { strip_prefix = "/v1" }
  http1::HeaderEdits request_headers;
  http1::HeaderEdits response_headers;
  bool has_timeouts = false;  // timeouts = {...} over the upstream's
  Timeouts timeouts;
  bool operator==(const Route&) const = default;
};

enum class Algorithm : uint8_t { kRoundRobin, kLeastRequests, kHash, kFirst };

struct Balance {
  Algorithm algorithm = Algorithm::kRoundRobin;
  uint32_t choices = 0;  // kLeastRequests: 0 for all, else how many random ones are compared
  std::string key = "client.ip";  // kHash; only "client.ip" so far
  bool operator==(const Balance&) const = default;
};

// Whether a server takes new work. Drain: no new work, what runs may finish; health checks go on.
// Maintenance: the same, and it is not checked either.
enum class ServerState : uint8_t { kReady, kDrain, kMaintenance };

struct Server {
  std::string name;
  Position position;
  ServerAddress address;
  std::string address_text;
  uint32_t weight = 100;  // 0..1000; 0 takes no new work
  bool backup = false;
  uint64_t max_requests = kUnlimited;       // in flight, whole process
  uint64_t max_connections = kUnlimited;    // the pool's max_connections_per_server
  ServerState state = ServerState::kReady;  // until an administrator says otherwise
  std::string source_text;                  // its own, else the upstream's; empty: none
  LocalEnd local;                           // of that and the upstream's `socket`
  bool operator==(const Server&) const = default;
};

enum class Share : uint8_t { kShard, kBorrow };

// Parts of a request that connections are kept apart by, beyond what is baked into them anyway.
enum class PoolKey : uint8_t { kRequestHost, kClientIp };

struct Pool {
  ReuseMode reuse = ReuseMode::kSafe;
  Share share = Share::kBorrow;
  uint64_t max_idle_per_server = 512;  // whole process
  uint32_t min_idle_per_shard = 1;
  int64_t idle_timeout = 25'000;
  int64_t max_age = kOff;
  uint64_t max_requests_per_connection = kUnlimited;
  uint64_t max_connections_per_server = kUnlimited;  // whole process
  uint32_t max_streams_per_connection = 100;         // HTTP/2
  uint64_t header_table = 4096;                      // HTTP/2: HPACK, each direction
  int64_t idle_ping = kOff;                          // HTTP/2
  uint32_t warm = 0;                                 // whole process
  std::vector<PoolKey> key;
  bool operator==(const Pool&) const = default;
};

struct Queue {
  uint64_t max = 1'024;  // requests that wait for a server, per shard and upstream
  bool operator==(const Queue&) const = default;
};

enum class HealthType : uint8_t { kOff, kTcp, kHttp, kTls, kGrpc };

struct StatusRange {
  uint16_t first = 200;
  uint16_t last = 299;
  bool operator==(const StatusRange&) const = default;
};

struct Health {
  HealthType type = HealthType::kOff;
  int64_t interval = 2'000;
  int64_t fast_interval = 500;
  int64_t down_interval = 5'000;
  int64_t timeout = 1'000;
  uint32_t rise = 2;
  uint32_t fall = 3;
  bool initial_up = true;
  std::string method = "GET";
  std::string path = "/";
  std::string host;     // empty: the server's address
  HealthTls tls;        // kTls, unless the upstream speaks TLS
  std::string service;  // kGrpc: what is asked for; empty: the server as a whole
  std::vector<StatusRange> expect_status{StatusRange{}};
  std::string expect_body;  // substring; empty: any
  // "LOCAL", or "UNKNOWN" in version 1. Not given: as the upstream's send_proxy.
  ProxySend send_proxy = ProxySend::kOff;
  bool send_proxy_given = false;
  bool operator==(const Health&) const = default;
};

struct Retry {
  uint32_t attempts = 2;  // further attempts after the first
  bool operator==(const Retry&) const = default;
};

// Options of the sockets to servers.
struct ServerSocket {
  uint32_t mark = 0;  // 0: none
  std::string interface {};
  bool operator==(const ServerSocket&) const = default;
};

struct Upstream {
  std::string name;
  Position position;
  Protocol protocol = Protocol::kHttp;
  std::string source_text;  // of servers that have none of their own
  ServerSocket socket;
  ProxySend send_proxy = ProxySend::kOff;
  ProxyTlvs send_proxy_tlvs;
  // What servers speak, best first. Both: they choose in the TLS handshake.
  std::vector<HttpVersion> http_versions{HttpVersion::kHttp1};
  Balance balance;
  std::vector<Server> servers;
  Pool pool;
  Queue queue;
  Health health;
  Retry retry;
  Timeouts timeouts;
  UpstreamTls tls;

  [[nodiscard]] bool speaks(HttpVersion version) const { return contains(http_versions, version); }
  // How checks speak TLS: as requests do, or of type "tls" by themselves.
  [[nodiscard]] UpstreamTls tls_of_checks() const;
  bool operator==(const Upstream&) const = default;
};

enum class EngineKind : uint8_t { kAuto, kIoUring, kEpoll };
enum class Receive : uint8_t { kAuto, kPoll, kMultishot };

struct Engine {
  EngineKind kind = EngineKind::kAuto;
  Receive receive = Receive::kAuto;
  uint32_t entries = 4096;
  int64_t spin_us = 10;  // busy_poll; 0 is off
  bool operator==(const Engine&) const = default;
};

struct Process {
  uint32_t shards = 0;         // 0: one per physical core of the cpuset and quota
  std::vector<uint32_t> cpus;  // empty: all that are allowed
  uint64_t max_connections = 100'000;
  int64_t drain_timeout = 600'000;
  bool operator==(const Process&) const = default;
};

enum class AccessFormat : uint8_t { kJson, kClf };
enum class Level : uint8_t { kError, kWarning, kInfo, kDebug };

struct AccessLog {
  bool enabled = false;
  std::string output = "stdout";  // "stdout", "stderr" or "file:/path"
  AccessFormat format = AccessFormat::kJson;
  bool operator==(const AccessLog&) const = default;
};

struct ProcessLog {
  std::string output = "stderr";
  Level level = Level::kInfo;
  bool operator==(const ProcessLog&) const = default;
};

struct Metrics {
  bool enabled = false;
  ServerAddress address;
  std::string address_text;
  Position position;
  bool operator==(const Metrics&) const = default;
};

struct Admin {
  std::string socket;    // an absolute path; empty: there is none
  uint32_t mode = 0600;  // of the socket's file
  bool operator==(const Admin&) const = default;
};

struct Config {
  Process process;
  Engine engine;
  std::vector<Listener> listeners;
  std::vector<Route> routes;  // in order; the first that matches wins
  std::vector<Upstream> upstreams;
  std::vector<TlsProfile> tls_profiles;
  std::vector<TlsCertificates> tls_certificates;
  // The names of all listeners' certificate_headers as http1::fold_name() makes them, each once.
  std::vector<std::string> own_names;
  AccessLog access_log;
  ProcessLog process_log;
  Metrics metrics;
  Admin admin;
};

}  // namespace ringway::config
