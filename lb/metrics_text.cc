// lb/metrics_text.cc
#include "lb/metrics_text.h"

#include <array>
#include <utility>

#include "lb/admin/metrics.h"
#include "lb/metrics_pools.h"

namespace ringway {
namespace {

constexpr std::array<std::string_view, 6> kClasses{"none", "1xx", "2xx", "3xx", "4xx", "5xx"};

// One counter of a stats struct, and how it is called.
template <typename Stats>
struct Line {
  std::string_view name;
  std::string_view help;
  MetricType type = MetricType::kCounter;
  Counter Stats::*counter = nullptr;
};

constexpr Line<ListenerStats> kListenerLines[] = {
    {"ringway_listener_accepted_total", "Client connections accepted.", MetricType::kCounter,
     &ListenerStats::accepted},
    {"ringway_listener_connections", "Client connections open.", MetricType::kGauge,
     &ListenerStats::active},
    {"ringway_listener_refused_limit_total", "Closed at once by max_connections.",
     MetricType::kCounter, &ListenerStats::refused_limit},
    {"ringway_listener_refused_memory_total", "Refused for want of memory.", MetricType::kCounter,
     &ListenerStats::refused_memory},
    {"ringway_listener_handed_over_total", "Accepted by one shard, served by another.",
     MetricType::kCounter, &ListenerStats::handed_over},
    {"ringway_listener_requests_total", "HTTP requests with a valid head.", MetricType::kCounter,
     &ListenerStats::requests},
    {"ringway_listener_active_requests", "HTTP requests in progress.", MetricType::kGauge,
     &ListenerStats::active_requests},
    {"ringway_listener_rejected_heads_total", "Requests refused before routing.",
     MetricType::kCounter, &ListenerStats::rejected_heads},
    {"ringway_listener_timeouts_total", "Client-side timeouts.", MetricType::kCounter,
     &ListenerStats::timeouts},
    {"ringway_listener_tls_handshakes_total", "TLS handshakes with clients that were completed.",
     MetricType::kCounter, &ListenerStats::tls_handshakes},
    {"ringway_listener_tls_resumed_total", "Of those, how many resumed an earlier session.",
     MetricType::kCounter, &ListenerStats::tls_resumed},
    {"ringway_listener_tls_failures_total",
     "TLS handshakes with clients that failed or did not end in time.", MetricType::kCounter,
     &ListenerStats::tls_failures},
    {"ringway_listener_early_requests_total", "HTTP requests that came as early data (0-RTT).",
     MetricType::kCounter, &ListenerStats::early_requests},
    {"ringway_listener_http2_connections_total", "Client connections that spoke HTTP/2.",
     MetricType::kCounter, &ListenerStats::http2_connections},
    {"ringway_listener_http2_errors_total", "Of those, ended since the client broke the protocol.",
     MetricType::kCounter, &ListenerStats::http2_errors},
    {"ringway_listener_http2_idle_ping_timeouts_total",
     "HTTP/2 connections ended since a silent client did not answer PING.", MetricType::kCounter,
     &ListenerStats::http2_ping_timeouts},
    {"ringway_listener_http2_refused_streams_total",
     "Requests refused since max_streams were open.", MetricType::kCounter,
     &ListenerStats::http2_refused},
    {"ringway_listener_http2_stalled_streams_total",
     "Answers cut since the client opened no window, or took too little.", MetricType::kCounter,
     &ListenerStats::http2_stalls},
    {"ringway_listener_client_aborts_total", "Requests or sessions that the client broke off.",
     MetricType::kCounter, &ListenerStats::client_aborts},
    {"ringway_listener_received_bytes_total", "Bytes from clients.", MetricType::kCounter,
     &ListenerStats::bytes_received},
    {"ringway_listener_sent_bytes_total", "Bytes to clients.", MetricType::kCounter,
     &ListenerStats::bytes_sent},
};

constexpr Line<UpstreamStats> kUpstreamLines[] = {
    {"ringway_upstream_requests_total", "Requests or sessions sent to an upstream.",
     MetricType::kCounter, &UpstreamStats::requests},
    {"ringway_upstream_active", "Requests or sessions in progress.", MetricType::kGauge,
     &UpstreamStats::active},
    {"ringway_upstream_retries_total", "Attempts after the first.", MetricType::kCounter,
     &UpstreamStats::retries},
    {"ringway_upstream_retries_stale_total", "Of those, since a reused connection was dead.",
     MetricType::kCounter, &UpstreamStats::retries_stale},
    {"ringway_upstream_retries_unseen_total",
     "Of those, since the server had not looked at the request (HTTP/2).", MetricType::kCounter,
     &UpstreamStats::retries_unseen},
    {"ringway_upstream_retries_denied_method_total",
     "Failed on a dead reused connection: the method forbids to repeat them.", MetricType::kCounter,
     &UpstreamStats::denied_method},
    {"ringway_upstream_retries_denied_body_total",
     "Failed on a dead reused connection: their body was not kept.", MetricType::kCounter,
     &UpstreamStats::denied_body},
    {"ringway_upstream_retries_denied_attempts_total",
     "Failed since no server could be reached and no attempt was left.", MetricType::kCounter,
     &UpstreamStats::denied_attempts},
    {"ringway_upstream_no_server_total", "Refused since no server was available.",
     MetricType::kCounter, &UpstreamStats::no_server},
    {"ringway_upstream_bad_responses_total", "Malformed or cut responses.", MetricType::kCounter,
     &UpstreamStats::bad_responses},
    {"ringway_upstream_timeouts_total", "No connection or response in time.", MetricType::kCounter,
     &UpstreamStats::timeouts},
    {"ringway_upstream_queued", "Wait for a server to have room.", MetricType::kGauge,
     &UpstreamStats::queued},
    {"ringway_upstream_queued_total", "Had to wait for a server to have room.",
     MetricType::kCounter, &UpstreamStats::queued_total},
    {"ringway_upstream_queue_full_total", "Refused: every server and the queue were full.",
     MetricType::kCounter, &UpstreamStats::queue_full},
    {"ringway_upstream_queue_timeouts_total", "Refused: no server had room in time.",
     MetricType::kCounter, &UpstreamStats::queue_timeouts},
};

constexpr Line<ServerStats> kServerLines[] = {
    {"ringway_server_requests_total", "Requests or sessions given a connection.",
     MetricType::kCounter, &ServerStats::requests},
    {"ringway_server_sessions", "Requests or sessions in flight.", MetricType::kGauge,
     &ServerStats::sessions},
    {"ringway_server_connects_total", "Connections attempted.", MetricType::kCounter,
     &ServerStats::connects},
    {"ringway_server_connect_errors_total", "Connections that failed.", MetricType::kCounter,
     &ServerStats::connect_errors},
    {"ringway_server_local_failures_total",
     "Of those, since `source` or `socket` could not be had on this machine.", MetricType::kCounter,
     &ServerStats::local_failures},
    {"ringway_server_stale_total", "Reused connections that were dead when they were used.",
     MetricType::kCounter, &ServerStats::stale},
    {"ringway_server_borrows_total", "Times another shard was asked for an idle connection.",
     MetricType::kCounter, &ServerStats::borrows},
    {"ringway_server_borrows_refused_total", "Which had none.", MetricType::kCounter,
     &ServerStats::borrows_refused},
    {"ringway_server_borrows_late_total", "Which answered after this shard had begun to connect.",
     MetricType::kCounter, &ServerStats::borrows_late},
    {"ringway_server_lent_total", "Idle connections given to another shard.", MetricType::kCounter,
     &ServerStats::lent},
    {"ringway_server_full_total", "Requests that found the limit of connections reached.",
     MetricType::kCounter, &ServerStats::full},
    {"ringway_server_sent_bytes_total", "Bytes to servers.", MetricType::kCounter,
     &ServerStats::bytes_sent},
    {"ringway_server_received_bytes_total", "Bytes from servers.", MetricType::kCounter,
     &ServerStats::bytes_received},
};

constexpr Line<EngineCounters> kEngineLines[] = {
    {"ringway_shard_turns_total", "Turns of the main loop.", MetricType::kCounter,
     &EngineCounters::turns},
    {"ringway_shard_events_total", "Events delivered by the kernel.", MetricType::kCounter,
     &EngineCounters::events},
    {"ringway_shard_accept_pauses_total", "Accepting paused: descriptors or memory ran out.",
     MetricType::kCounter, &EngineCounters::accept_pauses},
    {"ringway_shard_sq_full_total", "A full submission queue was submitted early.",
     MetricType::kCounter, &EngineCounters::sq_full},
    {"ringway_shard_submit_busy_total", "The kernel took no submissions for now.",
     MetricType::kCounter, &EngineCounters::submit_busy},
    {"ringway_shard_cq_overflows_total", "Turns with held-back completions.", MetricType::kCounter,
     &EngineCounters::cq_overflows},
    {"ringway_shard_stale_events_total", "Events for what was closed already.",
     MetricType::kCounter, &EngineCounters::stale_events},
    {"ringway_shard_receive_starved_total", "Multishot receives that found no buffer.",
     MetricType::kCounter, &EngineCounters::receive_starved},
    {"ringway_shard_receive_held_bytes_total", "Bytes copied aside behind a pause.",
     MetricType::kCounter, &EngineCounters::receive_held},
    {"ringway_shard_wakes_total", "Wake-ups by other threads.", MetricType::kCounter,
     &EngineCounters::wakes},
    {"ringway_shard_spins_total", "Waits that began by spinning.", MetricType::kCounter,
     &EngineCounters::spins},
    {"ringway_shard_spin_microseconds_total", "Time spent spinning.", MetricType::kCounter,
     &EngineCounters::spin_us},
    {"ringway_shard_sleeps_total", "Waits that gave up the core.", MetricType::kCounter,
     &EngineCounters::sleeps},
};

template <typename Stats>
uint64_t total(PerShard<Stats>& per_shard, Counter Stats::*counter) {
  uint64_t sum = 0;
  for (auto& cell : per_shard.stats) sum += (cell.stats.*counter).get();
  return sum;
}

// One family of listeners for a whole array of counters.
template <size_t kCount>
void write_reasons(MetricsWriter& out, const Snapshot& snapshot, const char* name, const char* help,
                   const std::array<std::string_view, kCount>& reasons,
                   Counter (ListenerStats::*counters)[kCount]) {
  out.family(name, help, MetricType::kCounter);
  for (const auto& listener : snapshot.listeners) {
    for (size_t i = 0; i < kCount; ++i) {
      uint64_t sum = 0;
      for (auto& cell : listener->shard.stats) sum += (cell.stats.*counters)[i].get();
      const MetricLabel labels[] = {{"listener", listener->name}, {"reason", reasons[i]}};
      out.sample(labels, sum);
    }
  }
}

void write_listeners(MetricsWriter& out, const Snapshot& snapshot) {
  for (const auto& line : kListenerLines) {
    out.family(line.name, line.help, line.type);
    for (const auto& listener : snapshot.listeners) {
      const MetricLabel labels[] = {{"listener", listener->name}};
      out.sample(labels, total(listener->shard, line.counter));
    }
  }
  out.family("ringway_listener_responses_total", "Responses by status class; none: client gone.",
             MetricType::kCounter);
  for (const auto& listener : snapshot.listeners) {
    for (size_t i = 0; i < kClasses.size(); ++i) {
      uint64_t sum = 0;
      for (auto& cell : listener->shard.stats) sum += cell.stats.responses[i].get();
      const MetricLabel labels[] = {{"listener", listener->name}, {"class", kClasses[i]}};
      out.sample(labels, sum);
    }
  }
  write_reasons(out, snapshot, "ringway_proxy_protocol_errors_total",
                "Clients closed over a PROXY header.", kProxyErrorNames,
                &ListenerStats::proxy_errors);
  write_reasons(out, snapshot, "ringway_listener_preread_errors_total",
                "TCP clients closed over their TLS hello.", kPrereadErrorNames,
                &ListenerStats::preread_errors);
  write_reasons(out, snapshot, "ringway_listener_http2_floods_total",
                "HTTP/2 connections ended over a flood.", h2::kFloodNames,
                &ListenerStats::http2_floods);
  out.family("ringway_listener_duration_seconds",
             "From the head of a request, or the accepting of "
             "a session, to its end.",
             MetricType::kHistogram);
  for (const auto& listener : snapshot.listeners) {
    LatencySnapshot sum;
    for (auto& cell : listener->shard.stats) sum.add(cell.stats.duration);
    const MetricLabel labels[] = {{"listener", listener->name}};
    out.histogram(labels, sum);
  }
}

void write_upstreams(MetricsWriter& out, const Snapshot& snapshot) {
  for (const auto& line : kUpstreamLines) {
    out.family(line.name, line.help, line.type);
    for (const auto& upstream : snapshot.upstreams) {
      const MetricLabel labels[] = {{"upstream", upstream->name}};
      out.sample(labels, total(upstream->shard, line.counter));
    }
  }
  out.family("ringway_upstream_retry_outcomes_total",
             "Further tries of HTTP requests, by why there was one and what became of it.",
             MetricType::kCounter);
  for (const auto& upstream : snapshot.upstreams) {
    for (size_t cause = 0; cause < kRetryCauseNames.size(); ++cause) {
      for (size_t outcome = 0; outcome < kRetryOutcomeNames.size(); ++outcome) {
        uint64_t sum = 0;
        for (auto& cell : upstream->shard.stats) sum += cell.stats.retried[cause][outcome].get();
        const MetricLabel labels[] = {{"upstream", upstream->name},
                                      {"cause", kRetryCauseNames[cause]},
                                      {"outcome", kRetryOutcomeNames[outcome]}};
        out.sample(labels, sum);
      }
    }
  }
}

void write_server_states(MetricsWriter& out, const Snapshot& snapshot) {
  constexpr std::array<std::pair<config::ServerState, std::string_view>, 3> kStates = {
      {{config::ServerState::kReady, "ready"},
       {config::ServerState::kDrain, "drain"},
       {config::ServerState::kMaintenance, "maintenance"}}};
  out.family("ringway_server_admin_state",
             "1 for the state that the configuration or the administrator has put the server in.",
             MetricType::kGauge);
  for (size_t i = 0; i < snapshot.servers.size(); ++i) {
    for (size_t j = 0; j < snapshot.servers[i].size(); ++j) {
      const ServerObject& server = *snapshot.servers[i][j];
      const config::ServerState now =
          server.controls.settings(snapshot.config->upstreams[i].servers[j]).state;
      for (const auto& [state, name] : kStates) {
        const MetricLabel labels[] = {
            {"upstream", snapshot.upstreams[i]->name}, {"server", server.name}, {"state", name}};
        out.sample(labels, uint64_t{state == now ? 1U : 0U});
      }
    }
  }
}

void write_servers(MetricsWriter& out, const Snapshot& snapshot) {
  for (const auto& line : kServerLines) {
    out.family(line.name, line.help, line.type);
    for_each_server(snapshot, [&](MetricLabels labels, ServerObject& server) {
      out.sample(labels, total(server.shard, line.counter));
    });
  }
  out.family("ringway_server_responses_total", "Responses by status class; none: there was none.",
             MetricType::kCounter);
  for_each_server(snapshot, [&](MetricLabels labels, ServerObject& server) {
    for (size_t i = 0; i < kClasses.size(); ++i) {
      uint64_t sum = 0;
      for (auto& cell : server.shard.stats) sum += cell.stats.responses[i].get();
      const MetricLabel with_class[] = {labels[0], labels[1], {"class", kClasses[i]}};
      out.sample(with_class, sum);
    }
  });
  out.family("ringway_server_up", "1 while health checks find the server up, or there are none.",
             MetricType::kGauge);
  for_each_server(snapshot, [&](MetricLabels labels, ServerObject& server) {
    out.sample(labels, uint64_t{server.health->up() ? 1U : 0U});
  });
  out.family("ringway_server_checks_total",
             "Health checks by result; skipped for lack of descriptors, ports or memory here.",
             MetricType::kCounter);
  for_each_server(snapshot, [&](MetricLabels labels, ServerObject& server) {
    const MetricLabel passed[] = {labels[0], labels[1], {"result", "passed"}};
    out.sample(passed, server.health->checks_passed.get());
    const MetricLabel failed[] = {labels[0], labels[1], {"result", "failed"}};
    out.sample(failed, server.health->checks_failed.get());
    const MetricLabel skipped[] = {labels[0], labels[1], {"result", "skipped"}};
    out.sample(skipped, server.health->checks_skipped.get());
  });
  out.family("ringway_server_transitions_total", "Changes between up and down.",
             MetricType::kCounter);
  for_each_server(snapshot, [&](MetricLabels labels, ServerObject& server) {
    out.sample(labels, server.health->transitions.get());
  });
  write_server_states(out, snapshot);
}

// Why TLS ended connections, with clients and servers, and how long handshakes were held back.
void write_tls(MetricsWriter& out, ShardSet& shards) {
  out.family("ringway_tls_failures_total", "Connections that TLS ended, by cause.",
             MetricType::kCounter);
  for (size_t cause = 1; cause < static_cast<size_t>(TlsCause::kCount); ++cause) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < shards.count(); ++i) {
      sum += shards.at(i).tls()->counters().failures[cause].get();
    }
    const MetricLabel labels[] = {{"cause", name_of(static_cast<TlsCause>(cause))}};
    out.sample(labels, sum);
  }
  out.family("ringway_tls_refused_certificates_total", "Certificates of peers, by why not.",
             MetricType::kCounter);
  for (auto verdict = static_cast<size_t>(TlsVerdict::kExpired);
       verdict < static_cast<size_t>(TlsVerdict::kCount); ++verdict) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < shards.count(); ++i) {
      sum += shards.at(i).tls()->counters().refused[verdict].get();
    }
    const MetricLabel labels[] = {{"reason", name_of(static_cast<TlsVerdict>(verdict))}};
    out.sample(labels, sum);
  }
  out.family("ringway_tls_early_data_total",
             "Handshakes with clients that sent early data (0-RTT), by what became of it.",
             MetricType::kCounter);
  for (const auto& [result, counter] : {std::pair{"accepted", &TlsCounters::early_accepted},
                                        std::pair{"rejected", &TlsCounters::early_rejected}}) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < shards.count(); ++i) {
      sum += (shards.at(i).tls()->counters().*counter).get();
    }
    const MetricLabel labels[] = {{"result", result}};
    out.sample(labels, sum);
  }
  out.family("ringway_tls_ech_total",
             "Handshakes with clients that encrypted the name they asked for (ECH).",
             MetricType::kCounter);
  uint64_t hidden = 0;
  for (uint32_t i = 0; i < shards.count(); ++i) {
    hidden += shards.at(i).tls()->counters().ech_accepted.get();
  }
  out.sample({}, hidden);
  out.family("ringway_tls_handshake_wait_seconds",
             "How long handshakes with clients waited for their turn.", MetricType::kHistogram);
  LatencySnapshot waits;
  for (uint32_t i = 0; i < shards.count(); ++i) waits.add(shards.at(i).tls()->handshake_wait());
  out.histogram({}, waits);
}

void write_certificates(MetricsWriter& out, const CertStore& store) {
  out.family("ringway_certificate_not_after_seconds",
             "When a certificate ends, in seconds since 1970.", MetricType::kGauge);
  for (const CertExpiry& expiry : store.expiries()) {
    const MetricLabel labels[] = {
        {"source", expiry.source}, {"file", expiry.file}, {"name", expiry.name}};
    out.sample(labels, static_cast<uint64_t>(std::max<int64_t>(expiry.not_after_s, 0)));
  }
  out.family("ringway_certificate_reloads_total", "Certificates replaced or added while serving.",
             MetricType::kCounter);
  out.sample({}, store.reloads());
  out.family("ringway_certificate_reload_failures_total",
             "Changed certificate files that were no good, so that the old ones stayed.",
             MetricType::kCounter);
  out.sample({}, store.reload_failures());
}

void write_trusts(MetricsWriter& out, const TrustWatch& trusts) {
  out.family("ringway_trust_reloads_total",
             "Files of authorities or revocation lists that were read again while serving.",
             MetricType::kCounter);
  out.sample({}, trusts.reloads());
  out.family("ringway_trust_reload_failures_total",
             "Changed ones that were no good, so that the old ones stayed.", MetricType::kCounter);
  out.sample({}, trusts.failures());
}

void write_shards(MetricsWriter& out, ShardSet& shards) {
  out.family("ringway_shard_connections", "Client connections of each shard.", MetricType::kGauge);
  for (uint32_t i = 0; i < shards.count(); ++i) {
    const std::string number = std::to_string(i);
    const MetricLabel labels[] = {{"shard", number}};
    out.sample(labels, uint64_t{shards.loads()[i].clients.load(std::memory_order_relaxed)});
  }
  for (const auto& line : kEngineLines) {
    out.family(line.name, line.help, line.type);
    for (uint32_t i = 0; i < shards.count(); ++i) {
      const std::string number = std::to_string(i);
      const MetricLabel labels[] = {{"shard", number}};
      out.sample(labels, (shards.at(i).engine_counters()->*line.counter).get());
    }
  }
  out.family("ringway_engine_info", "1; the engine of each shard.", MetricType::kGauge);
  for (uint32_t i = 0; i < shards.count(); ++i) {
    const std::string number = std::to_string(i);
    const MetricLabel labels[] = {{"shard", number}, {"engine", shards.at(i).engine_name()}};
    out.sample(labels, uint64_t{1});
  }
}

}  // namespace

std::string metrics_text(const MetricsInputs& inputs) {
  MetricsWriter out;
  write_listeners(out, inputs.snapshot);
  write_upstreams(out, inputs.snapshot);
  write_servers(out, inputs.snapshot);
  write_pool_metrics(out, inputs.snapshot);
  write_shards(out, inputs.shards);
  write_tls(out, inputs.shards);
  if (inputs.certificates != nullptr) write_certificates(out, *inputs.certificates);
  if (inputs.trusts != nullptr) write_trusts(out, *inputs.trusts);
  out.family("ringway_uptime_seconds", "Since the start.", MetricType::kGauge);
  out.sample({}, static_cast<double>(inputs.uptime_us) / 1e6);
  out.family("ringway_config_number", "Counts up with every reload that succeeded.",
             MetricType::kGauge);
  out.sample({}, inputs.snapshot.number);
  out.family("ringway_reloads_total", "Reloads by result.", MetricType::kCounter);
  const MetricLabel succeeded[] = {{"result", "ok"}};
  out.sample(succeeded, inputs.reloads_ok);
  const MetricLabel failed[] = {{"result", "failed"}};
  out.sample(failed, inputs.reloads_failed);
  out.family("ringway_reload_running", "1 while a reload loads its certificates.",
             MetricType::kGauge);
  out.sample({}, uint64_t{inputs.reload_running ? 1U : 0U});
  out.family("ringway_draining", "1 while the process drains.", MetricType::kGauge);
  out.sample({}, uint64_t{inputs.draining ? 1U : 0U});
  out.family("ringway_access_log_dropped_total", "Access log lines dropped: the ring was full.",
             MetricType::kCounter);
  uint64_t dropped = 0;
  for (const LogRing* ring : inputs.access_rings) dropped += ring->dropped();
  out.sample({}, dropped);
  return out.take();
}

}  // namespace ringway
