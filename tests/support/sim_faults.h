// tests/support/sim_faults.h - which faults a simulated run injects, drawn from its seed.
//
// Affinity:  one thread. Why: each kind is active in a quarter of the seeds only (as FoundationDB's
//            BUGGIFY does), so that a run meets few kinds at a time, but those often and together.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "core/base/prng.h"

namespace ringway {

enum class Fault : uint8_t {
  kShortReceive,   // a receive hands out 1..n of the n bytes that are there
  kShortSend,      // a send takes 1..n of the bytes for which there is room
  kZeroSend,       // a send takes nothing although there is room
  kReset,          // a reset from the network at any byte or later, seen by both ends
  kRefuse,         // connecting fails: refused, unreachable or timed out
  kLostSyn,        // a connection request is lost and repeated after 1, 2, 4 ... s, 6 times
  kLateConnect,    // the server has accepted, the client hears of it up to 30 s later
  kNoAttempt,      // connect() itself fails: no port, descriptor or route
  kStall,          // bytes and FIN of one direction are held for up to 2 min
  kNoDescriptors,  // accept fails with EMFILE and pauses
  kLateEvent,      // an event is delivered some turns later
  kReorder,        // events of different sockets are delivered in another order
  kLateWake,       // a wake() is heard up to 50 ms later
  kTinyWindow,     // a direction buffers 1..512 bytes only
  kLossyReset,     // a reset destroys bytes that were under way or unread
  kIdleTurn,       // a turn without any event
  kOverflow,       // of what came behind a pause a part is lost: ENOBUFS ends the socket after it
  kCount,
};

class FaultPlan {
 public:
  // Draws which kinds are active and how probable they are; none when `enabled` is false.
  FaultPlan(Prng& prng, bool enabled) {
    for (size_t i = 0; i < kKinds; ++i) {
      const bool active = prng.chance(0.25);
      const double spread = kLimits[i].high - kLimits[i].low;
      const double probability = kLimits[i].low + prng.unit() * spread;
      if (active && enabled) probabilities_[i] = probability;
    }
  }

  // Draws whether `fault` happens now.
  [[nodiscard]] bool hits(Fault fault, Prng& prng) const {
    return prng.chance(probabilities_[static_cast<size_t>(fault)]);
  }
  // Sets one kind's probability, 0 to switch it off.
  void set(Fault fault, double probability) {
    probabilities_[static_cast<size_t>(fault)] = probability;
  }
  void stop() { probabilities_.fill(0); }

  // The active kinds with their probabilities, to be printed by a failing test.
  [[nodiscard]] std::string text() const {
    std::string out;
    for (size_t i = 0; i < kKinds; ++i) {
      if (probabilities_[i] <= 0) continue;
      out += (out.empty() ? "" : " ") + std::string(kLimits[i].name) + "=" +
             std::to_string(probabilities_[i]);
    }
    return out.empty() ? "none" : out;
  }

 private:
  static constexpr size_t kKinds = static_cast<size_t>(Fault::kCount);
  struct Limits {
    const char* name;
    double low;
    double high;
  };
  static constexpr std::array<Limits, kKinds> kLimits = {{{"short_receive", 0.05, 0.9},
                                                          {"short_send", 0.05, 0.9},
                                                          {"zero_send", 0.02, 0.5},
                                                          {"reset", 0.001, 0.05},
                                                          {"refuse", 0.05, 0.5},
                                                          {"lost_syn", 0.05, 0.8},
                                                          {"late_connect", 0.05, 0.5},
                                                          {"no_attempt", 0.02, 0.3},
                                                          {"stall", 0.001, 0.03},
                                                          {"no_descriptors", 0.05, 0.5},
                                                          {"late_event", 0.05, 0.7},
                                                          {"reorder", 0.1, 1.0},
                                                          {"late_wake", 0.1, 0.9},
                                                          {"tiny_window", 0.1, 0.9},
                                                          {"lossy_reset", 0.1, 1.0},
                                                          {"idle_turn", 0.05, 0.5},
                                                          {"overflow", 0.02, 0.5}}};

  std::array<double, kKinds> probabilities_{};
};

}  // namespace ringway
