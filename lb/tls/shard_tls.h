// lb/tls/shard_tls.h - the TLS of one shard: a context per profile and per upstream.
//
// Affinity:  one shard. Ownership: part of the Worker; outlives all its streams.
// Bounds:    contexts of older configurations stay until their last handshake has ended.
// Why:       BoringSSL's contexts, keys and stores lock and count references, so each shard has its
//            own, made from shared bytes (lb/tls/tls_materials.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/tls_client.h"
#include "core/tls_server.h"
#include "core/tls_shard.h"
#include "lb/tls/tls_materials.h"
#include "lb/tls/trust_cache.h"

namespace ringway {

// How servers are spoken to over TLS as `tls` says; `options` has the rest, its protocols above
// all. Null with `error`: the loader has checked everything that can be wrong, so normally not.
// REQUIRES: tls.enabled.
[[nodiscard]] std::shared_ptr<TlsClientContext> make_client_context(
    TlsShard& shard, TrustCache& trusts, const config::UpstreamTls& tls,
    const TlsUpstreamMaterial& material, TlsClientOptions options, std::string& error);

// Gives `context` the authorities of `material`, if it verifies with any. False with `error`, and
// nothing has changed.
[[nodiscard]] bool update_trust(TlsClientContext& context, TrustCache& trusts,
                                const TlsUpstreamMaterial& material, std::string& error);

class ShardTls {
 public:
  explicit ShardTls(int64_t now_us);
  ~ShardTls();
  ShardTls(const ShardTls&) = delete;
  ShardTls& operator=(const ShardTls&) = delete;

  // Takes over a configuration. Handshakes that have begun end as they began. Returns what could
  // not be made, one line each; its handshakes are refused. The loader has checked everything that
  // can be wrong, so normally nothing.
  std::vector<std::string> apply(const config::Config& config, const TlsMaterials& materials);
  // New certificates, ticket keys or authorities for the same configuration. Returns as apply():
  // what could not be made leaves the old in force.
  std::vector<std::string> update(const TlsMaterials& materials);
  // Frees contexts that are no longer used. True if none is left.
  bool sweep();

  // Of a listener of the present configuration, by index: its profile with the protocols (ALPN)
  // that it offers. Null if it has no profile, or it could not be made.
  [[nodiscard]] TlsServerContext* listener(uint32_t index) { return servers_[index].get(); }
  // Null as well: the upstream speaks no TLS.
  [[nodiscard]] std::shared_ptr<TlsClientContext> upstream(uint32_t index) const {
    return index < clients_.size() ? clients_[index] : nullptr;
  }
  [[nodiscard]] TlsShard& shard() { return shard_; }
  [[nodiscard]] const TlsShard& shard() const { return shard_; }

 private:
  [[nodiscard]] std::unique_ptr<TlsServerContext> make_server(const config::TlsProfile& profile,
                                                              const TlsProfileMaterial& material,
                                                              const config::Listener& listener,
                                                              std::string& error);
  TlsShard shard_;
  TrustCache trusts_;
  std::vector<std::unique_ptr<TlsServerContext>> servers_;  // as Config::listeners
  std::vector<std::optional<uint32_t>> profile_of_;         // the same
  std::vector<std::shared_ptr<TlsClientContext>> clients_;  // as Config::upstreams
  std::vector<std::unique_ptr<TlsServerContext>> old_servers_;
  std::vector<std::shared_ptr<TlsClientContext>> old_clients_;
};

}  // namespace ringway
