// lb/health/health.cc
#include "lb/health/health.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "core/chunks.h"
#include "core/stream.h"
#include "core/tls_shard.h"
#include "lb/health/check.h"
#include "lb/tls/server_name.h"

namespace ringway {

CheckTls check_tls_of(const config::Upstream& upstream, std::string_view address,
                      std::shared_ptr<TlsClientContext> context) {
  if (!upstream.tls.enabled) {
    if (upstream.health.type != config::HealthType::kTls) return {};
    return {.enabled = true,
            .context = std::move(context),
            .name = std::string(name_without_port(upstream.health.host))};
  }
  std::string name = upstream.tls.sni;
  if (name.empty()) name = name_without_port(upstream.health.host);
  std::string must_be = name.empty() ? std::string(name_of_address(address)) : std::string();
  return {.enabled = true,
          .context = std::move(context),
          .name = std::move(name),
          .verify_name = std::move(must_be)};
}

CheckHttp check_http_of(const config::Upstream& upstream) {
  using config::HttpVersion;
  if (upstream.health.type == config::HealthType::kGrpc) return CheckHttp::kHttp2;
  if (upstream.protocol != config::Protocol::kHttp || !upstream.speaks(HttpVersion::kHttp2)) {
    return CheckHttp::kHttp1;
  }
  return upstream.speaks(HttpVersion::kHttp1) ? CheckHttp::kByAlpn : CheckHttp::kHttp2;
}

struct HealthChecker::Impl final : WatchedOwner {
  // Checks in flight at once; the others wait their turn.
  static constexpr size_t kInFlightMax = 256;
  // A reload leaves some that are being closed.
  static constexpr size_t kSessionsMax = 4 * kInFlightMax;

  // What checks send is small, so hardly ever does anything wait.
  static constexpr size_t kChunksMax = kInFlightMax;

  Impl(Io& from_io, Timers& from_timers, HealthEvents& from_events)
      : timers(from_timers),
        events(from_events),
        tls({.sessions_max = kSessionsMax, .gate = {}}, from_io.now_us()),
        env{from_io, chunks, &tls} {}

  bool may_start(Watched& watched) override {
    if (in_flight >= kInFlightMax) {
      waiting.push_back(&watched);
      return false;
    }
    ++in_flight;
    return true;
  }

  // A check that cannot start at all is over inside start(): the loop below goes on with the next,
  // so that no number of them is a recursion.
  void on_check_over() override {
    RW_CHECK(in_flight > 0);
    --in_flight;
    if (starting) return;
    starting = true;
    while (!waiting.empty() && in_flight < kInFlightMax) {
      Watched* next = waiting.front();
      waiting.pop_front();
      ++in_flight;
      next->start();
    }
    starting = false;
  }

  h2::SessionScratch& scratch() override {
    if (!h2_scratch) h2_scratch.emplace(kCheckHead.header_bytes, kCheckHead.fields);
    return *h2_scratch;
  }

  void retire(std::unique_ptr<Watched> watched) {
    waiting.erase(std::remove(waiting.begin(), waiting.end(), watched.get()), waiting.end());
    watched->stop();
    leaving.push_back(std::move(watched));
  }

  void sweep() {
    std::erase_if(leaving, [](const auto& watched) { return watched->quiet(); });
  }

  Timers& timers;
  HealthEvents& events;
  ChunkPool chunks{kChunksMax};
  TlsShard tls;
  StreamEnv env;
  std::optional<h2::SessionScratch> h2_scratch;  // made when first needed
  std::vector<std::unique_ptr<Watched>> watched;
  std::vector<std::unique_ptr<Watched>> leaving;  // stopped, their sockets not closed yet
  std::deque<Watched*> waiting;
  size_t in_flight = 0;
  bool starting = false;
};

HealthChecker::HealthChecker(Io& io, Timers& timers, HealthEvents& events)
    : impl_(std::make_unique<Impl>(io, timers, events)) {}

HealthChecker::~HealthChecker() {
  impl_->sweep();
  RW_CHECK(impl_->leaving.empty() && impl_->watched.empty());
}

namespace {

bool is_same(const CheckTarget& a, const CheckTarget& b) {
  return a.id == b.id && a.address == b.address && a.local == b.local && a.health == b.health &&
         a.state == b.state && a.http == b.http;
}

}  // namespace

void HealthChecker::set_targets(std::vector<CheckTarget> targets) {
  Impl& impl = *impl_;
  impl.sweep();
  std::vector<std::unique_ptr<Watched>> old = std::move(impl.watched);
  impl.watched.clear();
  std::unordered_map<std::string_view, std::unique_ptr<Watched>*> by_id;
  for (auto& watched : old) by_id.emplace(watched->target().id, &watched);
  for (CheckTarget& target : targets) {
    const auto same = by_id.find(target.id);
    if (same != by_id.end() && *same->second != nullptr &&
        is_same((*same->second)->target(), target)) {
      (*same->second)->set_tls(std::move(target.tls));
      impl.watched.push_back(std::move(*same->second));
      continue;
    }
    // The first checks of many servers are spread, the same way each time: over one interval, or a
    // fast one where that is shorter, because until then nobody knows how the servers are.
    const auto spread = static_cast<uint64_t>(
        std::max<int64_t>(std::min(target.health.interval, target.health.fast_interval), 1));
    const auto delay = static_cast<int64_t>(hash_bytes(target.id, HashKey{}) % spread);
    impl.watched.push_back(
        std::make_unique<Watched>(impl.env, impl.timers, impl.events, impl, std::move(target)));
    impl.watched.back()->schedule(delay);
  }
  for (auto& watched : old) {
    if (watched != nullptr) impl.retire(std::move(watched));
  }
}

TlsShard& HealthChecker::tls() {
  return impl_->tls;
}

int HealthChecker::run(int64_t now_us) {
  impl_->tls.run(now_us);
  return impl_->tls.next_in_ms(now_us);
}

void HealthChecker::stop() {
  for (auto& watched : impl_->watched) impl_->retire(std::move(watched));
  impl_->watched.clear();
}

bool HealthChecker::idle() const {
  impl_->sweep();
  return impl_->watched.empty() && impl_->leaving.empty();
}

}  // namespace ringway
