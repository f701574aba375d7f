// pool/wait_queue.h - those who wait on one shard until a server of an upstream may be used.
//
// Affinity:  one shard. Ownership: links waiters, does not own them. A waiter may leave, or die, at
//            any time; the queue must be empty when it is destroyed.
// Bounds:    length() <= max, except for waiters put back by push_front(). No call allocates; all
//            are O(1) but wake().
// Why:       first come, first served, on each shard; between shards units go in turn
//            (pool/budget.h). Nobody is called from inside push(): the caller has its own answer.
#pragma once

#include <boost/intrusive/list.hpp>
#include <cstdint>

#include "core/counters.h"
#include "core/timers.h"

namespace ringway {

class WaitQueue;

// Someone in the queue. At most in one queue at a time.
class Waiter : public boost::intrusive::list_base_hook<
                   boost::intrusive::link_mode<boost::intrusive::safe_link>> {
 public:
  Waiter() : alarm_(*this), timer_(alarm_) {}
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;

  // It is first and something may have come free; it is out of the queue. It tries, and goes back
  // with push_front() when there was nothing for it. It may destroy itself and leave or end others.
  virtual void on_turn() = 0;
  // Its deadline has passed; it is out of the queue. The same holds.
  virtual void on_queue_timeout() = 0;

  [[nodiscard]] bool is_waiting() const { return queue_ != nullptr; }
  // Of the last push; it stays when its turn comes, for push_front().
  [[nodiscard]] int64_t deadline_ms() const { return deadline_ms_; }

 protected:
  // Leaves the queue.
  ~Waiter();

 private:
  friend class WaitQueue;

  // Not the waiter itself: it may have a timer of its own.
  class Alarm final : public TimerOwner {
   public:
    explicit Alarm(Waiter& waiter) : waiter_(waiter) {}
    void on_timer(Timer& timer) override;

   private:
    Waiter& waiter_;
  };

  WaitQueue* queue_ = nullptr;
  int64_t deadline_ms_ = 0;
  uint64_t ticket_ = 0;  // counts pushes; ascending from the front
  Alarm alarm_;
  Timer timer_;
};

class WaitQueueOwner {
 public:
  // The last waiter left or ran out of time, so units that were asked for are not needed. Not
  // called when wake() or pop_front() took it. Called from inside remove(): must not push.
  virtual void on_queue_empty() = 0;

 protected:
  ~WaitQueueOwner() = default;
};

class WaitQueue {
 public:
  // `max` waiters; 0: none may wait. `length`: a gauge this queue adds to; several may share it.
  WaitQueue(Timers& timers, uint64_t max, Counter& length, WaitQueueOwner& owner)
      : timers_(timers), owner_(owner), gauge_(length), max_(max) {}
  ~WaitQueue();
  WaitQueue(const WaitQueue&) = delete;
  WaitQueue& operator=(const WaitQueue&) = delete;

  // Appends. False when full: the waiter is left alone, and the caller refuses. on_queue_timeout()
  // comes at or after `deadline_ms`, in a turn to come even if it has passed.
  // REQUIRES: !waiter.is_waiting(), deadline_ms > 0.
  [[nodiscard]] bool push(Waiter& waiter, int64_t deadline_ms);
  // Puts back, before all others, one whose turn it was, with the deadline it had; even when full.
  void push_front(Waiter& waiter);
  // Leaves the queue. Idempotent.
  void remove(Waiter& waiter);

  // The one that waits longest, or null.
  [[nodiscard]] Waiter* front() { return list_.empty() ? nullptr : &list_.front(); }
  // Takes it out, without on_turn(); null when empty.
  Waiter* pop_front();
  // Calls on_turn() of the first ones, at most `count` and at most those that wait now; ends early
  // when one goes back to the front. True when all were called.
  bool wake(uint64_t count);

  // A lower limit refuses newcomers; those who wait stay.
  void set_max(uint64_t max) { max_ = max; }
  [[nodiscard]] uint64_t max() const { return max_; }
  [[nodiscard]] uint64_t length() const { return length_; }
  [[nodiscard]] bool empty() const { return length_ == 0; }

 private:
  friend class Waiter;

  using List = boost::intrusive::list<Waiter, boost::intrusive::constant_time_size<false>>;

  void linked(Waiter& waiter);
  void unlink(Waiter& waiter);

  Timers& timers_;
  WaitQueueOwner& owner_;
  Counter& gauge_;
  List list_;  // front: waits longest
  uint64_t max_;
  uint64_t length_ = 0;
  uint64_t next_ticket_ = 1;
};

}  // namespace ringway
