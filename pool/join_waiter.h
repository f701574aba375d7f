// pool/join_waiter.h - a request that waits for a connection which another one has opened.
//
// Affinity:  one shard. Ownership: a slab object of the shard's ServerMuxes, from joining until the
//            request was told, or has left.
// Bounds:    as many per connection as requests are expected to fit on it.
// Why:       a server that speaks HTTP/2 takes many requests on one connection, so those that come
//            while it is being made need none of their own.
#pragma once

#include <boost/intrusive/list.hpp>
#include <cstdint>
#include <string>

#include "pool/server_pool.h"

namespace ringway {

class ServerSlot;
class ServerUser;

class JoinWaiter : public boost::intrusive::list_base_hook<
                       boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
 public:
  JoinWaiter(ServerSlot& to, ServerUser& who, const ConnKey* key, const PickRules& how)
      : slot(to), user(who), rules(how), keyed_(key != nullptr) {
    if (key == nullptr) return;
    hash_ = key->hash;
    bytes_ = key->bytes;
    sni_ = key->sni;
    preface_ = key->preface;
  }

  // What the request asks of its connection. The views are valid as long as this object.
  [[nodiscard]] ConnKey key() const {
    return {.bytes = bytes_, .hash = hash_, .sni = sni_, .preface = preface_};
  }
  [[nodiscard]] bool keyed() const { return keyed_; }

  ServerSlot& slot;
  ServerUser& user;
  PickRules rules;
  int error = 0;  // once its connection is gone: why; 0: it tries for another one

 private:
  std::string bytes_;
  std::string sni_;
  std::string preface_;
  uint64_t hash_ = 0;
  bool keyed_;
};

using JoinWaiters = boost::intrusive::list<JoinWaiter, boost::intrusive::constant_time_size<false>>;

}  // namespace ringway
