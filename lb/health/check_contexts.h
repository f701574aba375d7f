// lb/health/check_contexts.h - the TLS contexts of health checks: one per upstream that is checked
// over TLS.
//
// Affinity:  the checker's thread. Ownership: shared with the checks under way.
// Why:       checks run on the control thread, and BoringSSL's contexts belong to one thread; and
//            a check of type "tls" speaks it where requests do not.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/tls_client.h"
#include "lb/config/config.h"
#include "lb/tls/tls_materials.h"
#include "lb/tls/trust_cache.h"

namespace ringway {

class CheckContexts {
 public:
  // Makes those of `config` for `shard`, the checker's. Returns what could not be made, one line
  // each; the loader has checked everything that can be wrong, so normally nothing.
  std::vector<std::string> apply(TlsShard& shard, const config::Config& config,
                                 const TlsMaterials& materials);
  // Other authorities for the same configuration; checks under way may use them already. Returns as
  // apply().
  std::vector<std::string> update(const TlsMaterials& materials);
  // Of the upstream at `index` of that configuration; null: it is not checked, speaks no TLS, or
  // its context could not be made.
  [[nodiscard]] const std::shared_ptr<TlsClientContext>& of(size_t index) const {
    return contexts_[index];
  }

 private:
  TrustCache trusts_;
  std::vector<std::shared_ptr<TlsClientContext>> contexts_;
};

}  // namespace ringway
