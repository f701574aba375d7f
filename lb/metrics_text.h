// lb/metrics_text.h - the Prometheus text of one scrape: every counter of every shard, summed.
//
// Affinity: control thread. Reads counters that shards are writing: each value may be a moment old.
#pragma once

#include <string>
#include <vector>

#include "core/log.h"
#include "lb/shard.h"
#include "lb/snapshot.h"
#include "lb/tls/cert_store.h"
#include "lb/tls/trust_watch.h"

namespace ringway {

struct MetricsInputs {
  const Snapshot& snapshot;
  ShardSet& shards;
  const std::vector<LogRing*>& access_rings;
  int64_t uptime_us = 0;
  uint64_t reloads_ok = 0;
  uint64_t reloads_failed = 0;
  bool reload_running = false;
  bool draining = false;
  const CertStore* certificates = nullptr;  // null: TLS has ended
  const TrustWatch* trusts = nullptr;       // the same
};

[[nodiscard]] std::string metrics_text(const MetricsInputs& inputs);

}  // namespace ringway
