// bench/lb_bench.cc - what the decisions of a request cost: which route, which server.
//
// Budget: 500 host rules or 1,000 prefixes cost at most 1.04 of a request with one route
// (docs/performance.md); a pick takes no longer with 100 servers than with 10. Run: ninja
// bench/lb_bench.
#include <benchmark/benchmark.h>

#include <memory>
#include <string>
#include <vector>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "lb/balance/balancer.h"
#include "lb/router.h"
#include "proto/http1_head.h"

namespace ringway {
namespace {

using http1::HeadParser;

struct Parsed {
  explicit Parsed(const std::string& head) : text(head) {
    parser.start_request({});
    RW_CHECK(parser.parse(text) == HeadParser::Status::kDone);
  }
  std::string text;
  HeadParser parser{16};
};

// Requests that each match another route, taken in turn.
void find_all(benchmark::State& state, const config::Config& config,
              const std::vector<std::unique_ptr<Parsed>>& requests) {
  const Router router(config);
  size_t next = 0;
  for (auto _ : state) {
    const config::Route* route = router.find(0, requests[next]->parser.head());
    if (route == nullptr) return state.SkipWithError("no route");
    benchmark::DoNotOptimize(route);
    if (++next == requests.size()) next = 0;
  }
  state.SetItemsProcessed(state.iterations());
}

config::Config one_listener() {
  config::Config config;
  config.listeners.resize(1);
  return config;
}

config::Route route_to(const std::string& name) {
  config::Route route;
  route.name = name;
  route.listeners = {0};
  return route;
}

// The argument: host rules.
void bm_router_hosts(benchmark::State& state) {
  config::Config config = one_listener();
  std::vector<std::unique_ptr<Parsed>> requests;
  for (int64_t i = 0; i < state.range(0); ++i) {
    const std::string host = "host-" + std::to_string(i) + ".example";
    config.routes.push_back(route_to(host));
    config.routes.back().match.host.push_back(host);
    requests.push_back(std::make_unique<Parsed>("GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n"));
  }
  find_all(state, config, requests);
}
BENCHMARK(bm_router_hosts)->Arg(1)->Arg(10)->Arg(500);

// The argument: path prefixes.
void bm_router_prefixes(benchmark::State& state) {
  config::Config config = one_listener();
  std::vector<std::unique_ptr<Parsed>> requests;
  for (int64_t i = 0; i < state.range(0); ++i) {
    const std::string prefix = "/section-" + std::to_string(i) + "/";
    config.routes.push_back(route_to(prefix));
    config.routes.back().match.path_prefix.push_back(prefix);
    requests.push_back(
        std::make_unique<Parsed>("GET " + prefix + "page HTTP/1.1\r\nHost: example\r\n\r\n"));
  }
  find_all(state, config, requests);
}
BENCHMARK(bm_router_prefixes)->Arg(1)->Arg(10)->Arg(1000);

// The argument: servers. As much in flight as a busy shard has.
void pick_all(benchmark::State& state, config::Algorithm algorithm, uint32_t choices) {
  config::Balance balance;
  balance.algorithm = algorithm;
  balance.choices = choices;
  Balancer balancer(balance, 1);
  std::vector<Candidate> candidates(static_cast<size_t>(state.range(0)));
  std::vector<std::string> names;
  for (size_t i = 0; i < candidates.size(); ++i) {
    candidates[i].weight = 50 + static_cast<uint32_t>(i % 3) * 50;
    names.push_back("10.0.0." + std::to_string(i) + ":80");
  }
  balancer.rebuild(candidates, names);
  constexpr size_t kInFlight = 64;
  std::vector<uint32_t> taken(kInFlight, Balancer::kNone);
  size_t next = 0;
  uint64_t hash = 1;
  for (auto _ : state) {
    if (taken[next] != Balancer::kNone) --candidates[taken[next]].in_flight;
    hash = mix_bits(hash + 1);
    const uint32_t server = balancer.pick(candidates, hash, {});
    if (server == Balancer::kNone) return state.SkipWithError("no server");
    ++candidates[server].in_flight;
    taken[next] = server;
    if (++next == kInFlight) next = 0;
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK_CAPTURE(pick_all, round_robin, config::Algorithm::kRoundRobin, 0)->Arg(10)->Arg(100);
BENCHMARK_CAPTURE(pick_all, least_requests, config::Algorithm::kLeastRequests, 0)
    ->Arg(10)
    ->Arg(100);
BENCHMARK_CAPTURE(pick_all, two_choices, config::Algorithm::kLeastRequests, 2)->Arg(10)->Arg(100);
BENCHMARK_CAPTURE(pick_all, hash, config::Algorithm::kHash, 0)->Arg(10)->Arg(100);

}  // namespace
}  // namespace ringway

BENCHMARK_MAIN();
