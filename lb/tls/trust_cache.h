// lb/tls/trust_cache.h - the trust stores of one shard: equal ones are made once.
//
// Affinity:  one thread. Ownership: shared with the contexts that use them.
// Why:       reading the system's authorities takes milliseconds, and every upstream has the same.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/tls_verify.h"
#include "lb/tls/tls_materials.h"

namespace ringway {

class TrustCache {
 public:
  // Null with `error`: an authority or a list that cannot be used.
  [[nodiscard]] std::shared_ptr<const TlsTrust> get(const std::shared_ptr<const TlsTrustText>& text,
                                                    std::string& error) {
    for (const Trust& trust : trusts_) {
      if (trust.text == text || *trust.text == *text) return trust.made;
    }
    TlsTrustResult made = TlsTrust::make(text->ca, text->crl);
    if (made.trust == nullptr) {
      error = made.error;
      return nullptr;
    }
    trusts_.push_back({text, std::move(made.trust)});
    return trusts_.back().made;
  }
  // Forgets those that nobody uses any more.
  void sweep() {
    std::erase_if(trusts_, [](const Trust& trust) { return trust.made.use_count() == 1; });
  }

 private:
  struct Trust {
    std::shared_ptr<const TlsTrustText> text;
    std::shared_ptr<const TlsTrust> made;
  };

  std::vector<Trust> trusts_;
};

}  // namespace ringway
