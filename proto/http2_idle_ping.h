// proto/http2_idle_ping.h - when a silent HTTP/2 peer is asked by PING whether it lives, and when
// it did not say so.
//
// Affinity:  plain values; knows no clock and no timer: whoever has one calls step() when it fires.
// Why:       what comes in only notes its time, so that no timer moves with every segment.
// Source:    RFC 9113 6.7.
#pragma once

#include <cstdint>

namespace ringway::h2 {

// Times in milliseconds of one clock, above 0.
class IdlePing {
 public:
  enum class Act : uint8_t { kWait, kPing, kLost };
  struct Step {
    Act act;
    int64_t again_ms;  // when to call step() next; kLost: 0
  };

  // Something came, whatever it was; or the connection begins.
  void received(int64_t now_ms) {
    received_ms_ = now_ms;
    asked_ms_ = 0;
  }
  // A PING that was sent may not have left before now, since other bytes stood before it.
  void held_up(int64_t now_ms) {
    if (asked_ms_ != 0) asked_ms_ = now_ms;
  }
  // kPing: `interval_ms` have passed since anything came, so send one; kLost: as many again since
  // then. REQUIRES: interval_ms > 0.
  [[nodiscard]] Step step(int64_t now_ms, int64_t interval_ms) {
    const bool asked = asked_ms_ != 0;
    const int64_t due = (asked ? asked_ms_ : received_ms_) + interval_ms;
    if (now_ms < due) return {Act::kWait, due};
    if (asked) return {Act::kLost, 0};
    asked_ms_ = now_ms;
    return {Act::kPing, now_ms + interval_ms};
  }

 private:
  int64_t received_ms_ = 0;
  int64_t asked_ms_ = 0;  // when PING was sent; 0: something came since
};

}  // namespace ringway::h2
