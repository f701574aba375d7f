// core/timers.h - the shard's timers: one lazy wheel, driven by the loop's clock.
//
// Affinity:  one thread. Ownership: a Timer is embedded in its owner and links itself; a set timer
//            may die at any time, its destructor unlinks it. Either side may die first.
// Bounds:    expire() fires at most kExpiriesPerTurn timers a call and files at most kMovesPerTurn
//            again; the rest stays due at once. Any deadline may be set; the horizon of the wheel
//            is 37 hours, beyond which a timer is looked at once per horizon.
// Why:       a deadline moves on every request, so cancelling it or moving it later costs one store
//            and the entry is dropped or filed again when the wheel reaches it
//            (docs/decisions.md).
#pragma once

#include <array>
#include <boost/intrusive/list.hpp>
#include <cstdint>

namespace ringway {

class Timer;
class Timers;

class TimerOwner {
 public:
  // The deadline has passed; the timer is no longer set and may be set again.
  virtual void on_timer(Timer& timer) = 0;

 protected:
  ~TimerOwner() = default;
};

class Timer : public boost::intrusive::list_base_hook<
                  boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
 public:
  explicit Timer(TimerOwner& owner) : owner_(owner) {}
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  [[nodiscard]] bool is_set() const { return deadline_ms_ != 0; }
  // The deadline, or 0 when not set.
  [[nodiscard]] int64_t deadline_ms() const { return deadline_ms_; }

 private:
  friend class Timers;

  TimerOwner& owner_;
  int64_t deadline_ms_ = 0;  // 0: not set. May lie later than where the timer is filed.
  int64_t filed_tick_ = 0;   // where it is filed, while linked
};

class Timers {
 public:
  // `now_ms` is the clock's value at construction, > 0.
  explicit Timers(int64_t now_ms);
  ~Timers();

  // Fires `timer` once, at or after `deadline_ms` (at most one tick of 8 ms late, plus the turn).
  // Replaces an earlier deadline. O(1); later than before: one store. REQUIRES: deadline_ms > 0.
  void set(Timer& timer, int64_t deadline_ms);
  // Idempotent. O(1): one store; the entry stays filed until the wheel comes by.
  void cancel(Timer& timer);

  // Fires what is due, at most kExpiriesPerTurn. Owners may set, cancel and destroy any timer
  // meanwhile, their own included, but not call expire(). Costs what fires or moves, however far
  // the clock has jumped.
  void expire(int64_t now_ms);

  // Milliseconds until something may be due: 0 when due now, -1 when nothing is filed. May be too
  // early (moved and cancelled deadlines, coarse levels), never too late by more than one tick.
  [[nodiscard]] int64_t next_in_ms(int64_t now_ms) const;

  static constexpr int kExpiriesPerTurn = 1024;
  static constexpr int kMovesPerTurn = 16 * 1024;
  static constexpr int64_t kTickMs = 8;

 private:
  static constexpr int kLevels = 4;
  static constexpr int kSlots = 64;
  using List = boost::intrusive::list<Timer, boost::intrusive::constant_time_size<false>>;

  static constexpr int64_t kNever = INT64_MAX;

  void file(Timer& timer, int64_t tick);
  int64_t next_visit(int level) const;
  int64_t next_visit() const;
  void visit(int64_t tick);

  std::array<std::array<List, kSlots>, kLevels> wheel_;
  // A bit per slot that may be non-empty: a timer that dies unlinks itself and leaves its bit,
  // which the next look at that slot clears.
  mutable std::array<uint64_t, kLevels> occupied_{};
  List due_;      // reached by the wheel, not yet looked at; left over when a budget is used up
  int64_t tick_;  // the next tick to visit; filed timers lie at or after it
};

}  // namespace ringway
