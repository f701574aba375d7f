// lb/metrics_pools.h - the part of a scrape that tells how server connections are reused.
//
// Affinity: control thread. Reads counters that shards are writing: each value may be a moment old.
#pragma once

#include "lb/admin/metrics.h"
#include "lb/snapshot.h"

namespace ringway {

// Calls `write` for every server, with its labels.
template <typename Write>
void for_each_server(const Snapshot& snapshot, Write write) {
  for (size_t i = 0; i < snapshot.servers.size(); ++i) {
    for (const auto& server : snapshot.servers[i]) {
      const MetricLabel labels[] = {{"upstream", snapshot.upstreams[i]->name},
                                    {"server", server->name}};
      write(MetricLabels(labels), *server);
    }
  }
}

void write_pool_metrics(MetricsWriter& out, const Snapshot& snapshot);

}  // namespace ringway
