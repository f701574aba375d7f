// lb/metrics_pools.cc
#include "lb/metrics_pools.h"

#include <array>
#include <string_view>

namespace ringway {
namespace {

struct Family {
  const char* name;
  const char* help;
  MetricType type;
  std::string_view label;
};

// One family for a whole array of counters, told apart by its label.
template <size_t kCount>
void write_array(MetricsWriter& out, const Snapshot& snapshot, const Family& family,
                 const std::array<std::string_view, kCount>& names,
                 std::array<Counter, kCount> PoolStats::*array, size_t from = 0) {
  out.family(family.name, family.help, family.type);
  for_each_server(snapshot, [&](MetricLabels labels, ServerObject& server) {
    for (size_t i = from; i < kCount; ++i) {
      uint64_t sum = 0;
      for (auto& cell : server.shard.stats) sum += (cell.stats.pool.*array)[i].get();
      const MetricLabel with_name[] = {labels[0], labels[1], {family.label, names[i]}};
      out.sample(with_name, sum);
    }
  });
}

// One histogram of each server's.
template <typename Of>
void write_times(MetricsWriter& out, const Snapshot& snapshot, const char* name, const char* help,
                 Of histogram_of) {
  out.family(name, help, MetricType::kHistogram);
  for_each_server(snapshot, [&](MetricLabels labels, ServerObject& server) {
    LatencySnapshot sum;
    for (auto& cell : server.shard.stats) sum.add(histogram_of(cell.stats));
    out.histogram(labels, sum);
  });
}

// Each shard learns by itself: what counts is the shortest.
void write_learned(MetricsWriter& out, const Snapshot& snapshot) {
  out.family("ringway_server_learned_idle_seconds",
             "How long connections stay idle by what the server has shown; 0: nothing yet.",
             MetricType::kGauge);
  for_each_server(snapshot, [&](MetricLabels labels, ServerObject& server) {
    uint64_t shortest_ms = 0;
    for (auto& cell : server.shard.stats) {
      const uint64_t learned_ms = cell.stats.pool.learned_ms.get();
      if (shortest_ms == 0 || (learned_ms != 0 && learned_ms < shortest_ms)) {
        shortest_ms = learned_ms;
      }
    }
    out.sample(labels, static_cast<double>(shortest_ms) / 1000);
  });
}

void write_park_refusals(MetricsWriter& out, const Snapshot& snapshot) {
  out.family("ringway_server_park_refused_total",
             "Connections that were given back and not kept for reuse, by the reason.",
             MetricType::kCounter);
  for_each_server(snapshot, [&](MetricLabels labels, ServerObject& server) {
    for (const CloseReason reason : kParkRefusals) {
      const auto at = static_cast<size_t>(reason);
      uint64_t sum = 0;
      for (auto& cell : server.shard.stats) sum += cell.stats.pool.refused[at].get();
      const MetricLabel with_reason[] = {labels[0], labels[1], {"reason", kCloseReasonNames[at]}};
      out.sample(with_reason, sum);
    }
  });
}

// How the shards came by the units of limits over all of them.
void write_limits(MetricsWriter& out, const Snapshot& snapshot) {
  out.family("ringway_server_limit_refills_total",
             "Times that a shard took or was given units of a limit.", MetricType::kCounter);
  for_each_server(snapshot, [&](MetricLabels labels, ServerObject& server) {
    for (size_t i = 0; i < kLimits; ++i) {
      uint64_t sum = 0;
      for (auto& cell : server.shard.stats) sum += cell.stats.refills[i].get();
      const MetricLabel with_limit[] = {labels[0], labels[1], {"limit", kLimitNames[i]}};
      out.sample(with_limit, sum);
    }
  });
  write_times(
      out, snapshot, "ringway_server_limit_wait_seconds",
      "From asking for a unit of a limit until another shard's came.",
      [](const ServerStats& stats) -> auto& { return stats.limit_wait; });
}

void write_counters(MetricsWriter& out, const Snapshot& snapshot) {
  struct PoolLine {
    const char* name;
    const char* help;
    MetricType type;
    Counter PoolStats::*counter;
  };
  constexpr PoolLine kLines[] = {
      {"ringway_server_parked_total", "Connections that were kept for reuse.", MetricType::kCounter,
       &PoolStats::parked},
      {"ringway_server_private_unkept_total", "Private connections that no session could keep.",
       MetricType::kCounter, &PoolStats::unkept},
      {"ringway_server_key_groups", "Different keys among the connections, summed over shards.",
       MetricType::kGauge, &PoolStats::groups},
      {"ringway_server_needed_connections",
       "Connections in use at once that the purge of idle ones reckons with, summed over shards.",
       MetricType::kGauge, &PoolStats::need},
  };
  for (const PoolLine& line : kLines) {
    out.family(line.name, line.help, line.type);
    for_each_server(snapshot, [&](MetricLabels labels, ServerObject& server) {
      uint64_t sum = 0;
      for (auto& cell : server.shard.stats) sum += (cell.stats.pool.*line.counter).get();
      out.sample(labels, sum);
    });
  }
}

}  // namespace

void write_pool_metrics(MetricsWriter& out, const Snapshot& snapshot) {
  write_array(
      out, snapshot,
      {"ringway_server_connections", "Connections by where they are.", MetricType::kGauge, "state"},
      kPlaceNames, &PoolStats::places, 1);
  write_array(out, snapshot,
              {"ringway_server_reuse_total", "Requests by how they got a connection.",
               MetricType::kCounter, "how"},
              kHowNames, &PoolStats::handed);
  write_array(
      out, snapshot,
      {"ringway_server_reuse_misses_total", "Requests that got a fresh connection, by the reason.",
       MetricType::kCounter, "reason"},
      kMissNames, &PoolStats::missed);
  write_array(out, snapshot,
              {"ringway_server_closes_total", "Connections closed, by the reason.",
               MetricType::kCounter, "reason"},
              kCloseReasonNames, &PoolStats::closed);
  write_array(
      out, snapshot,
      {"ringway_server_private_total", "Connections that became one client's own, by the reason.",
       MetricType::kCounter, "reason"},
      kPrivateReasonNames, &PoolStats::reserved);
  write_park_refusals(out, snapshot);
  write_limits(out, snapshot);
  write_counters(out, snapshot);
  write_learned(out, snapshot);
  write_times(
      out, snapshot, "ringway_server_connect_seconds",
      "Until a connection could be used, TLS included.",
      [](const ServerStats& stats) -> auto& { return stats.connect_time; });
  write_times(
      out, snapshot, "ringway_server_borrow_seconds",
      "From asking another shard until its idle connection was here.",
      [](const ServerStats& stats) -> auto& { return stats.borrow_time; });
  write_times(
      out, snapshot, "ringway_server_idle_at_reuse_seconds",
      "How long connections had been idle when they were used again.",
      [](const ServerStats& stats) -> auto& { return stats.pool.idle_at_reuse; });
  write_times(
      out, snapshot, "ringway_server_idle_at_close_seconds",
      "How long connections had been idle when the server ended them.",
      [](const ServerStats& stats) -> auto& { return stats.pool.idle_at_close; });
  out.family("ringway_upstream_queue_wait_seconds", "Waiting for a server to have room.",
             MetricType::kHistogram);
  for (const auto& upstream : snapshot.upstreams) {
    LatencySnapshot sum;
    for (auto& cell : upstream->shard.stats) sum.add(cell.stats.queue_wait);
    const MetricLabel labels[] = {{"upstream", upstream->name}};
    out.histogram(labels, sum);
  }
}

}  // namespace ringway
