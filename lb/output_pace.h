// lb/output_pace.h - how long what HTTP/2 connections have gathered in a turn may wait for more.
//
// Affinity:  one thread; pure: the caller reads the clock. Bounds: 50 us since the first of what
//            waits; 10 us without an event; of these at most a fifth of the time (Spin).
// Why:       answers of many servers come some microseconds apart, each in a turn of its own. Sent
//            together they cost one system call, one packet and one wake-up of the client. Where
//            events are rare, what is there goes out at once.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/spin.h"

namespace ringway {

class OutputPace {
 public:
  static constexpr int64_t kPatienceUs = 10;
  static constexpr int64_t kGatherUs = 50;

  // `spin_us`: how long a shard may spin at all; 0: not.
  explicit OutputPace(int64_t spin_us)
      : patience_us_(std::clamp<int64_t>(spin_us, 0, kPatienceUs)) {}

  // At the end of a turn with something to send. `events`: how many there have ever been. True:
  // look for further events first; false: send.
  [[nodiscard]] bool waits(uint64_t events, int64_t now_us) {
    const bool news = events != events_;
    events_ = events;
    if (news) {
      gaps_.learn(now_us - news_at_us_, waited_us_);
      news_at_us_ = now_us;
      quiet_at_us_ = -1;
      waited_us_ = 0;
    } else if (quiet_at_us_ < 0) {
      quiet_at_us_ = now_us;
    } else {
      waited_us_ = now_us - quiet_at_us_;
    }
    if (since_us_ < 0) since_us_ = now_us;
    const bool more = gaps_.budget_us(now_us) > 0 && now_us - since_us_ < kGatherUs &&
                      (news || now_us - quiet_at_us_ < patience_us_);
    if (!more) rest();
    return more;
  }
  // There is nothing to send.
  void rest() { since_us_ = -1; }

 private:
  Spin gaps_{kGatherUs};
  int64_t patience_us_;
  uint64_t events_ = 0;
  int64_t news_at_us_ = 0;
  int64_t since_us_ = -1;     // the first of what waits; -1: nothing does
  int64_t quiet_at_us_ = -1;  // the first look since the last event
  int64_t waited_us_ = 0;     // since then
};

}  // namespace ringway
