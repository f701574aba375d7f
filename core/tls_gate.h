// core/tls_gate.h - how many TLS handshakes a shard begins: per turn, and per second.
//
// Affinity:  one shard. Ownership: links waiters, does not own them; they unlink themselves.
// Bounds:    per turn at most `per_turn` handshakes begin, per second `per_second`, of which a
// tenth
//            of a second's may come at once. Waiters stand in one queue, first come first served.
// Why:       a signature takes longer than hundreds of requests. A storm of handshakes would starve
//            the traffic that is established; so it waits, and what waits has not been computed.
#pragma once

#include <algorithm>
#include <boost/intrusive/list.hpp>
#include <cstdint>

#include "core/base/check.h"

namespace ringway {

struct TlsGateOptions {
  uint32_t per_turn = 4;    // > 0
  uint32_t per_second = 0;  // 0: as many as the turns allow
};

// A handshake whose ClientHello is there and whose turn has not come.
class TlsWaiter : public boost::intrusive::list_base_hook<
                      boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
 public:
  // Gives its place to the next one. Idempotent.
  void leave() {
    if (is_linked()) unlink();
  }

 protected:
  ~TlsWaiter() = default;

 private:
  friend class TlsGate;
  int64_t since_us_ = 0;
};

class TlsGate {
 public:
  TlsGate(const TlsGateOptions& options, int64_t now_us)
      : options_(options), burst_(std::max<int64_t>(options.per_second / 10, 1) * kToken) {
    RW_CHECK(options.per_turn > 0);
    tokens_ = burst_;
    filled_us_ = now_us;
  }
  ~TlsGate() { RW_CHECK(queue_.empty()); }

  // From now on; 0: as many as the turns allow.
  void set_per_second(uint32_t per_second) {
    options_.per_second = per_second;
    burst_ = std::max<int64_t>(per_second / 10, 1) * kToken;
  }
  // May a handshake begin now? If not, the caller waits in the queue.
  [[nodiscard]] bool enter(int64_t now_us) { return queue_.empty() && pass(now_us); }
  void wait(TlsWaiter& waiter, int64_t now_us) {
    waiter.since_us_ = now_us;
    queue_.push_back(waiter);
  }
  // A turn begins: a new allowance.
  void begin_turn() { this_turn_ = 0; }
  // The longest waiting one, whose handshake begins now; null if none waits or may begin.
  // `waited_us` says how long it waited.
  [[nodiscard]] TlsWaiter* next(int64_t now_us, int64_t& waited_us) {
    if (queue_.empty() || !pass(now_us)) return nullptr;
    TlsWaiter& first = queue_.front();
    queue_.pop_front();
    waited_us = std::max<int64_t>(now_us - first.since_us_, 0);
    return &first;
  }
  // Milliseconds until next() may have one: 0 is now, -1 when nobody waits.
  [[nodiscard]] int next_in_ms(int64_t now_us) const {
    if (queue_.empty()) return -1;
    if (options_.per_second == 0) return 0;
    const int64_t have = tokens_ + (now_us - filled_us_) * options_.per_second;
    if (have >= kToken) return 0;
    const int64_t us = (kToken - have + options_.per_second - 1) / options_.per_second;
    return static_cast<int>((us + 999) / 1000);
  }
  [[nodiscard]] bool anybody_waits() const { return !queue_.empty(); }
  // O(n): for reports.
  [[nodiscard]] size_t waiting() const { return queue_.size(); }

 private:
  static constexpr int64_t kToken = 1'000'000;  // so that per_second of them come per microsecond
  using Queue = boost::intrusive::list<TlsWaiter, boost::intrusive::constant_time_size<false>>;

  bool pass(int64_t now_us) {
    if (this_turn_ >= options_.per_turn) return false;
    if (options_.per_second > 0) {
      tokens_ = std::min(burst_, tokens_ + (now_us - filled_us_) * options_.per_second);
      filled_us_ = now_us;
      if (tokens_ < kToken) return false;
      tokens_ -= kToken;
    }
    ++this_turn_;
    return true;
  }

  TlsGateOptions options_;
  int64_t burst_;
  int64_t tokens_ = 0;
  int64_t filled_us_ = 0;
  uint32_t this_turn_ = 0;
  Queue queue_;
};

}  // namespace ringway
