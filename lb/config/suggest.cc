// lb/config/suggest.cc
#include "lb/config/suggest.h"

#include <algorithm>
#include <array>

namespace ringway::config {
namespace {

constexpr Synonym kSynonyms[] = {
    {"acl", "HAProxy", "match"},
    {"address", "Envoy", "bind"},
    {"addresses", "Envoy", "bind"},
    {"backend", "HAProxy", "upstream"},
    {"backend", "HAProxy", "upstreams"},
    {"backends", "HAProxy", "upstreams"},
    {"busy_polling", "HAProxy", "busy_poll"},
    {"check", "HAProxy", "health"},
    {"client_body_timeout", "nginx", "request_body"},
    {"client_header_timeout", "nginx", "request_headers"},
    {"client_max_body_size", "nginx", "body_bytes"},
    {"cluster", "Envoy", "upstream"},
    {"clusters", "Envoy", "upstreams"},
    {"connect_timeout", "Envoy", "connect"},
    {"cpu_map", "HAProxy", "cpus"},
    {"default_backend", "HAProxy", "upstream"},
    {"downinter", "HAProxy", "down_interval"},
    {"endpoint", "Envoy", "servers"},
    {"endpoints", "Envoy", "servers"},
    {"entryPoints", "Traefik", "listeners"},
    {"entrypoints", "Traefik", "listeners"},
    {"fastinter", "HAProxy", "fast_interval"},
    {"frontend", "HAProxy", "listeners"},
    {"frontends", "HAProxy", "listeners"},
    {"hard_stop_after", "HAProxy", "drain_timeout"},
    {"healthCheck", "Traefik", "health"},
    {"health_check", "nginx", "health"},
    {"health_checks", "Envoy", "health"},
    {"healthy_threshold", "Envoy", "rise"},
    {"http_reuse", "HAProxy", "reuse"},
    {"init_state", "HAProxy", "initial"},
    {"inter", "HAProxy", "interval"},
    {"keepalive", "nginx", "max_idle_per_server"},
    {"keepalive", "nginx", "pool"},
    {"keepalive_requests", "nginx", "max_requests_per_connection"},
    {"keepalive_timeout", "nginx", "keep_alive"},
    {"lb_policy", "Envoy", "balance"},
    {"listen", "nginx", "bind"},
    {"listen", "HAProxy", "listeners"},
    {"loadBalancer", "Traefik", "balance"},
    {"location", "nginx", "match"},
    {"locations", "nginx", "routes"},
    {"log_level", "Traefik", "level"},
    {"max_reuse", "HAProxy", "max_requests_per_connection"},
    {"maxconn", "HAProxy", "max_connections"},
    {"middlewares", "Traefik", "filters"},
    {"mode", "HAProxy", "protocol"},
    {"nbthread", "HAProxy", "shards"},
    {"option_forwardfor", "HAProxy", "x_forwarded"},
    {"passHostHeader", "Traefik", "request_headers"},
    {"pool_max_conn", "HAProxy", "max_idle_per_server"},
    {"pool_purge_delay", "HAProxy", "idle_timeout"},
    {"prefix", "Envoy", "path_prefix"},
    {"proxy_connect_timeout", "nginx", "connect"},
    {"proxy_pass", "nginx", "upstream"},
    {"proxy_read_timeout", "nginx", "response_headers"},
    {"proxy_set_header", "nginx", "request_headers"},
    {"retries", "HAProxy", "attempts"},
    {"retries", "HAProxy", "retry"},
    {"return", "nginx", "respond"},
    {"routers", "Traefik", "routes"},
    {"rule", "Traefik", "match"},
    {"rules", "Traefik", "routes"},
    {"send_timeout", "nginx", "client_idle"},
    {"server", "HAProxy", "servers"},
    {"server_name", "nginx", "host"},
    {"service", "Traefik", "upstream"},
    {"services", "Traefik", "upstreams"},
    {"set_real_ip_from", "nginx", "trusted_proxies"},
    {"threads", "Pingora", "shards"},
    {"timeout_client", "HAProxy", "client_idle"},
    {"timeout_connect", "HAProxy", "connect"},
    {"timeout_http_keep_alive", "HAProxy", "keep_alive"},
    {"timeout_http_request", "HAProxy", "request_headers"},
    {"timeout_server", "HAProxy", "response_headers"},
    {"timeout_tunnel", "HAProxy", "tunnel_idle"},
    {"tune_bufsize", "HAProxy", "header_bytes"},
    {"unhealthy_threshold", "Envoy", "fall"},
    {"upstream", "nginx", "upstreams"},
    {"uri", "Caddy", "path"},
    {"url", "Traefik", "address"},
    {"use_backend", "HAProxy", "upstream"},
    {"virtual_hosts", "Envoy", "host"},
    {"worker_connections", "nginx", "max_connections"},
    {"worker_cpu_affinity", "nginx", "cpus"},
    {"worker_processes", "nginx", "shards"},
    {"worker_shutdown_timeout", "nginx", "drain_timeout"},
};

// `-`, `.` and `_` separate words alike.
bool same_word(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
    return (x == '-' || x == '.' || x == ' ' ? '_' : x) == y;
  });
}

}  // namespace

uint32_t edit_distance(std::string_view a, std::string_view b) {
  if (a.size() > kWordMax || b.size() > kWordMax) return kWordMax + 1;
  std::array<std::array<uint32_t, kWordMax + 1>, 3> rows{};
  for (uint32_t j = 0; j <= b.size(); ++j) rows[0][j] = j;
  for (uint32_t i = 1; i <= a.size(); ++i) {
    auto& row = rows[i % 3];
    const auto& last = rows[(i + 2) % 3];
    row[0] = i;
    for (uint32_t j = 1; j <= b.size(); ++j) {
      const uint32_t replaced = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, replaced});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], rows[(i + 1) % 3][j - 2] + 1);
      }
    }
  }
  return rows[a.size() % 3][b.size()];
}

std::string_view closest(std::string_view word, std::span<const std::string_view> candidates) {
  std::string_view best;
  uint32_t best_distance = word.size() <= 3 ? 2 : 3;  // one more than what is accepted
  for (const std::string_view candidate : candidates) {
    const uint32_t distance = edit_distance(word, candidate);
    if (distance < best_distance && distance < candidate.size()) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

const Synonym* find_synonym(std::string_view word, std::span<const std::string_view> candidates) {
  const Synonym* any = nullptr;
  for (const Synonym& synonym : kSynonyms) {
    if (!same_word(word, synonym.word)) continue;
    if (std::find(candidates.begin(), candidates.end(), synonym.ours) != candidates.end()) {
      return &synonym;
    }
    if (any == nullptr) any = &synonym;
  }
  return any;
}

}  // namespace ringway::config
