// lb/balance/balancer.h - which server of an upstream gets the next request.
//
// Affinity:  one per upstream and shard; one thread. Pure functions of the candidates and its own
//            state: no clock, no I/O; randomness comes from a seed.
// Bounds:    pick() allocates nothing. rebuild() may.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lb/config/config.h"

namespace ringway {

// One server as the balancer sees it. The shard keeps an array of them per upstream, by index.
struct Candidate {
  uint32_t weight = 100;
  uint32_t in_flight = 0;  // requests, or L4 sessions, of this shard
  bool up = true;          // healthy and not in maintenance
  bool backup = false;
};

class Balancer {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  // `seed` makes the random choices repeatable; shards get different ones, so that their round
  // robins do not march in step.
  Balancer(const config::Balance& balance, uint64_t seed);
  ~Balancer();
  Balancer(const Balancer&) = delete;
  Balancer& operator=(const Balancer&) = delete;

  // Weights, up or backup of some candidate changed, or their number. `names` identify servers for
  // consistent hashing, so that a changed list moves only the keys it must. Backups are considered
  // only while no other candidate is up.
  void rebuild(std::span<const Candidate> candidates, std::span<const std::string> names);

  // The server for the next request: its index, or kNone when none is usable. `hash` is the key's
  // hash for kHash (ignored otherwise); servers in `tried` are not chosen again.
  [[nodiscard]] uint32_t pick(std::span<const Candidate> candidates, uint64_t hash,
                              std::span<const uint32_t> tried);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ringway
