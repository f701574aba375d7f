// lb/tls/shard_tls.cc
#include "lb/tls/shard_tls.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace ringway {
namespace {

std::string joined(const std::vector<std::string>& words) {
  std::string all;
  for (const std::string& word : words) {
    if (!all.empty()) all += ':';
    all += word;
  }
  return all;
}

uint16_t number_of(config::TlsVersion version) {
  return version == config::TlsVersion::k12 ? kTls12 : kTls13;
}

TlsClientAuth auth_of(config::ClientAuthMode mode) {
  switch (mode) {
    case config::ClientAuthMode::kOff: return TlsClientAuth::kOff;
    case config::ClientAuthMode::kOptional: return TlsClientAuth::kOptional;
    case config::ClientAuthMode::kRequired: return TlsClientAuth::kRequired;
  }
  return TlsClientAuth::kRequired;
}

std::vector<std::string> alpn_of(const std::vector<config::HttpVersion>& versions) {
  std::vector<std::string> names;
  names.reserve(versions.size());
  for (const config::HttpVersion version : versions) {
    names.emplace_back(version == config::HttpVersion::kHttp2 ? "h2" : "http/1.1");
  }
  return names;
}

template <typename Pointer>
void retire(std::vector<Pointer>& from, std::vector<Pointer>& to) {
  for (Pointer& context : from) {
    if (context != nullptr) to.push_back(std::move(context));
  }
  from.clear();
}

}  // namespace

std::shared_ptr<TlsClientContext> make_client_context(TlsShard& shard, TrustCache& trusts,
                                                      const config::UpstreamTls& tls,
                                                      const TlsUpstreamMaterial& material,
                                                      TlsClientOptions options,
                                                      std::string& error) {
  options.policy.version_min = number_of(tls.min_version);
  options.verify = tls.verify;
  options.certificate = material.certificate;
  if (tls.verify) {
    options.trust = trusts.get(material.trust, error);
    if (options.trust == nullptr) return nullptr;
  }
  TlsClientResult made = TlsClientContext::make(shard, options);
  error = made.error;
  return std::move(made.context);
}

ShardTls::ShardTls(int64_t now_us) : shard_({}, now_us) {}

ShardTls::~ShardTls() = default;

std::unique_ptr<TlsServerContext> ShardTls::make_server(const config::TlsProfile& profile,
                                                        const TlsProfileMaterial& material,
                                                        const config::Listener& listener,
                                                        std::string& error) {
  TlsServerOptions options;
  options.policy = {.version_min = number_of(profile.min_version),
                    .version_max = number_of(profile.max_version),
                    .ciphers = joined(profile.ciphers),
                    .groups = joined(profile.groups)};
  const bool http = listener.protocol == config::Protocol::kHttp;
  if (http) options.alpn = alpn_of(listener.http_versions);
  options.strict_sni = profile.strict_sni;
  options.ocsp = profile.ocsp;
  options.client_auth = auth_of(profile.client_auth.mode);
  options.session_context = profile.name;
  if (material.keys == nullptr) options.tickets = 0;
  options.early_data = profile.early_data;
  options.ech = material.ech;
  // HTTP says itself where a message ends, and many clients end without a close_notify. In a
  // relayed stream that would pass for its end.
  options.fin_ends = http;
  if (material.client_trust != nullptr) {
    options.client_trust = trusts_.get(material.client_trust, error);
    if (options.client_trust == nullptr) return nullptr;
  }
  TlsServerResult made = TlsServerContext::make(shard_, options, material.names, material.keys);
  error = made.error;
  return std::move(made.context);
}

std::vector<std::string> ShardTls::apply(const config::Config& config,
                                         const TlsMaterials& materials) {
  std::vector<std::string> errors;
  uint64_t rate = config::kUnlimited;
  for (const config::TlsProfile& profile : config.tls_profiles) {
    rate = std::min(rate, profile.handshakes_per_shard);
  }
  shard_.set_handshake_rate(rate > UINT32_MAX ? 0 : static_cast<uint32_t>(rate));
  retire(servers_, old_servers_);
  retire(clients_, old_clients_);
  profile_of_.clear();
  for (const config::Listener& listener : config.listeners) {
    profile_of_.push_back(listener.tls);
    servers_.push_back(nullptr);
    if (!listener.tls.has_value()) continue;
    const uint32_t i = *listener.tls;
    std::string error;
    servers_.back() = make_server(config.tls_profiles[i], materials.profiles[i], listener, error);
    if (servers_.back() == nullptr) {
      errors.push_back("tls profile \"" + config.tls_profiles[i].name + "\": " + error);
    }
  }
  for (size_t i = 0; i < config.upstreams.size(); ++i) {
    const config::Upstream& upstream = config.upstreams[i];
    clients_.emplace_back();
    if (!upstream.tls.enabled) continue;
    TlsClientOptions options;
    options.fin_ends = upstream.protocol == config::Protocol::kHttp;
    if (options.fin_ends) options.alpn = alpn_of(upstream.http_versions);
    std::string error;
    clients_.back() = make_client_context(shard_, trusts_, upstream.tls, materials.upstreams[i],
                                          std::move(options), error);
    if (clients_.back() == nullptr) {
      errors.push_back("upstream \"" + upstream.name + "\": " + error);
    }
  }
  trusts_.sweep();
  return errors;
}

bool update_trust(TlsClientContext& context, TrustCache& trusts,
                  const TlsUpstreamMaterial& material, std::string& error) {
  if (material.trust == nullptr) return true;
  std::shared_ptr<const TlsTrust> trust = trusts.get(material.trust, error);
  if (trust == nullptr) return false;
  context.set_trust(std::move(trust));
  return true;
}

std::vector<std::string> ShardTls::update(const TlsMaterials& materials) {
  std::vector<std::string> errors;
  for (size_t i = 0; i < servers_.size(); ++i) {
    if (servers_[i] == nullptr || *profile_of_[i] >= materials.profiles.size()) continue;
    const TlsProfileMaterial& material = materials.profiles[*profile_of_[i]];
    servers_[i]->set_names(material.names);
    if (material.keys != nullptr) servers_[i]->set_ticket_keys(material.keys);
    if (material.ech != nullptr) servers_[i]->set_ech(material.ech);
    if (material.client_trust == nullptr) continue;
    std::string error;
    if (auto trust = trusts_.get(material.client_trust, error)) {
      servers_[i]->set_client_trust(std::move(trust));
    } else {
      errors.push_back("authorities of clients: " + error);
    }
  }
  for (size_t i = 0; i < clients_.size() && i < materials.upstreams.size(); ++i) {
    std::string error;
    if (clients_[i] == nullptr) continue;
    if (!update_trust(*clients_[i], trusts_, materials.upstreams[i], error)) {
      errors.push_back("authorities of servers: " + error);
    }
  }
  trusts_.sweep();
  return errors;
}

bool ShardTls::sweep() {
  std::erase_if(old_servers_, [](const auto& context) { return context->handshakes() == 0; });
  // Pools of retired servers may still hold one.
  std::erase_if(old_clients_, [](const auto& context) {
    return context.use_count() == 1 && context->handshakes() == 0;
  });
  return old_servers_.empty() && old_clients_.empty();
}

}  // namespace ringway
