// core/timers.cc - level n has slots of 64^n ticks. A slot is visited when its first tick is due:
// its timers pass through due_, where each fires, or is filed again if its deadline is later (it
// was moved, or the slot was coarse). So both kinds of work share one bounded loop.
#include "core/timers.h"

#include <algorithm>
#include <bit>

#include "core/base/check.h"

namespace ringway {
namespace {

constexpr int kSlotBits = 6;

// The first tick that is not before `ms`.
int64_t tick_at_or_after(int64_t ms) {
  return (ms - 1) / Timers::kTickMs + 1;
}

}  // namespace

Timers::Timers(int64_t now_ms) : tick_(now_ms / kTickMs) {
  static_assert(1 << kSlotBits == kSlots);
  RW_CHECK(now_ms > 0);
}

Timers::~Timers() = default;  // The lists unlink what is still filed.

void Timers::set(Timer& timer, int64_t deadline_ms) {
  RW_CHECK(deadline_ms > 0);
  timer.deadline_ms_ = deadline_ms;
  const int64_t tick = tick_at_or_after(deadline_ms);
  if (timer.is_linked()) {
    if (tick >= timer.filed_tick_) return;
    timer.unlink();
  }
  file(timer, tick);
}

void Timers::cancel(Timer& timer) {
  timer.deadline_ms_ = 0;
}

void Timers::file(Timer& timer, int64_t tick) {
  constexpr int64_t kHorizon = (int64_t{1} << (kLevels * kSlotBits)) - 1;
  const int64_t ahead = std::clamp<int64_t>(tick - tick_, 0, kHorizon);
  const int level =
      (static_cast<int>(std::bit_width(static_cast<uint64_t>(ahead | 1))) - 1) / kSlotBits;
  timer.filed_tick_ = tick_ + ahead;
  const auto slot = static_cast<size_t>(timer.filed_tick_ >> (level * kSlotBits)) % size_t{kSlots};
  wheel_[static_cast<size_t>(level)][slot].push_back(timer);
  occupied_[static_cast<size_t>(level)] |= uint64_t{1} << slot;
}

// The first slot of `level` that is not empty, as the tick at which it is visited; kNever if none.
// Bits of slots that were emptied by dying timers are cleared on the way.
int64_t Timers::next_visit(int level) const {
  const auto n = static_cast<size_t>(level);
  const int shift = level * kSlotBits;
  // Slots start at multiples of 64^level; the one that contains tick_ has been visited already,
  // unless it starts right there.
  const int64_t first = (tick_ + (int64_t{1} << shift) - 1) >> shift;
  while (occupied_[n] != 0) {
    const int ahead = std::countr_zero(std::rotr(occupied_[n], static_cast<int>(first % kSlots)));
    const auto slot = static_cast<size_t>(first + ahead) % size_t{kSlots};
    if (!wheel_[n][slot].empty()) return (first + ahead) << shift;
    occupied_[n] &= ~(uint64_t{1} << slot);
  }
  return kNever;
}

int64_t Timers::next_visit() const {
  int64_t next = kNever;
  for (int level = 0; level < kLevels; ++level) next = std::min(next, next_visit(level));
  return next;
}

// Moves every slot that starts at `tick` to due_.
void Timers::visit(int64_t tick) {
  for (int level = kLevels - 1; level >= 0; --level) {
    const int shift = level * kSlotBits;
    if ((tick & ((int64_t{1} << shift) - 1)) != 0) continue;
    const auto slot = static_cast<size_t>(tick >> shift) % size_t{kSlots};
    const auto n = static_cast<size_t>(level);
    due_.splice(due_.end(), wheel_[n][slot]);
    occupied_[n] &= ~(uint64_t{1} << slot);
  }
}

void Timers::expire(int64_t now_ms) {
  const int64_t target = now_ms / kTickMs;
  int fired = 0;
  int moved = 0;
  for (;;) {
    while (!due_.empty()) {
      if (fired == kExpiriesPerTurn || moved == kMovesPerTurn) return;
      ++moved;
      Timer& timer = due_.front();
      due_.pop_front();
      if (timer.deadline_ms_ == 0) continue;  // Cancelled.
      if (timer.deadline_ms_ > now_ms) {
        file(timer, tick_at_or_after(timer.deadline_ms_));
        continue;
      }
      timer.deadline_ms_ = 0;
      ++fired;
      timer.owner_.on_timer(timer);  // May destroy `timer`, or any other one.
    }
    const int64_t next = next_visit();
    if (next > target) break;
    visit(next);
    tick_ = next + 1;
  }
  tick_ = std::max(tick_, target + 1);
}

int64_t Timers::next_in_ms(int64_t now_ms) const {
  if (!due_.empty()) return 0;
  const int64_t next = next_visit();
  if (next == kNever) return -1;
  return std::max<int64_t>(next * kTickMs - now_ms, 0);
}

}  // namespace ringway
