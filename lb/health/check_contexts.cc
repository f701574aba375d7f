// lb/health/check_contexts.cc
#include "lb/health/check_contexts.h"

#include "lb/health/health.h"
#include "lb/tls/shard_tls.h"

namespace ringway {
namespace {

std::vector<std::string> alpn_of(const config::Upstream& upstream) {
  switch (upstream.health.type) {
    case config::HealthType::kOff:
    case config::HealthType::kTcp:
    case config::HealthType::kTls: return {};
    case config::HealthType::kHttp:
    case config::HealthType::kGrpc: break;
  }
  switch (check_http_of(upstream)) {
    case CheckHttp::kHttp1: return {"http/1.1"};
    case CheckHttp::kHttp2: return {"h2"};
    case CheckHttp::kByAlpn: return {"h2", "http/1.1"};
  }
  return {};
}

}  // namespace

std::vector<std::string> CheckContexts::apply(TlsShard& shard, const config::Config& config,
                                              const TlsMaterials& materials) {
  std::vector<std::string> errors;
  contexts_.clear();
  for (size_t i = 0; i < config.upstreams.size(); ++i) {
    const config::Upstream& upstream = config.upstreams[i];
    contexts_.emplace_back();
    if (upstream.health.type == config::HealthType::kOff) continue;
    const config::UpstreamTls tls = upstream.tls_of_checks();
    if (!tls.enabled) continue;
    TlsClientOptions options;
    options.fin_ends = upstream.protocol == config::Protocol::kHttp;
    options.alpn = alpn_of(upstream);
    std::string error;
    contexts_.back() =
        make_client_context(shard, trusts_, tls, materials.upstreams[i], std::move(options), error);
    if (contexts_.back() != nullptr) continue;
    errors.push_back("checks of upstream \"" + upstream.name + "\": " + error);
  }
  trusts_.sweep();
  return errors;
}

std::vector<std::string> CheckContexts::update(const TlsMaterials& materials) {
  std::vector<std::string> errors;
  for (size_t i = 0; i < contexts_.size(); ++i) {
    std::string error;
    if (contexts_[i] == nullptr) continue;
    if (!update_trust(*contexts_[i], trusts_, materials.upstreams[i], error)) {
      errors.push_back("checks: authorities of servers: " + error);
    }
  }
  trusts_.sweep();
  return errors;
}

}  // namespace ringway
