// lb/health/check_contexts.cc
#include "lb/health/check_contexts.h"

#include "lb/tls/shard_tls.h"

namespace ringway {

std::vector<std::string> CheckContexts::apply(TlsShard& shard, const config::Config& config,
                                              const TlsMaterials& materials) {
  std::vector<std::string> errors;
  contexts_.clear();
  for (size_t i = 0; i < config.upstreams.size(); ++i) {
    const config::Upstream& upstream = config.upstreams[i];
    contexts_.emplace_back();
    if (!upstream.tls.enabled || upstream.health.type == config::HealthType::kOff) continue;
    std::vector<std::string> alpn;
    if (upstream.health.type == config::HealthType::kHttp) alpn = {"http/1.1"};
    std::string error;
    contexts_.back() =
        make_client_context(shard, trusts_, upstream, materials.upstreams[i], alpn, error);
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
