// pool/wait_queue.cc
#include "pool/wait_queue.h"

#include "core/base/check.h"

namespace ringway {

Waiter::~Waiter() {
  if (queue_ != nullptr) queue_->remove(*this);
}

void Waiter::Alarm::on_timer(Timer& /*timer*/) {
  RW_CHECK(waiter_.queue_ != nullptr);
  waiter_.queue_->remove(waiter_);
  waiter_.on_queue_timeout();  // The last act: it may destroy us.
}

WaitQueue::~WaitQueue() {
  RW_CHECK(list_.empty());
}

bool WaitQueue::push(Waiter& waiter, int64_t deadline_ms) {
  RW_CHECK(!waiter.is_waiting());
  RW_CHECK(deadline_ms > 0);
  if (length_ >= max_) return false;
  waiter.deadline_ms_ = deadline_ms;
  waiter.ticket_ = next_ticket_++;
  list_.push_back(waiter);
  linked(waiter);
  return true;
}

void WaitQueue::push_front(Waiter& waiter) {
  RW_CHECK(!waiter.is_waiting());
  RW_CHECK(waiter.deadline_ms_ > 0);  // it has been in the queue
  list_.push_front(waiter);
  linked(waiter);
}

void WaitQueue::remove(Waiter& waiter) {
  if (!waiter.is_waiting()) return;
  RW_CHECK(waiter.queue_ == this);
  unlink(waiter);
  if (length_ == 0) owner_.on_queue_empty();
}

Waiter* WaitQueue::pop_front() {
  if (list_.empty()) return nullptr;
  Waiter& waiter = list_.front();
  unlink(waiter);
  return &waiter;
}

bool WaitQueue::wake(uint64_t count) {
  // Tickets, not addresses: a waiter may be gone after its turn, and newcomers are not called.
  const uint64_t end = next_ticket_;
  for (; count > 0 && !list_.empty() && list_.front().ticket_ < end; --count) {
    Waiter& waiter = *pop_front();
    const uint64_t ticket = waiter.ticket_;
    waiter.on_turn();
    if (!list_.empty() && list_.front().ticket_ == ticket) return false;
  }
  return true;
}

void WaitQueue::linked(Waiter& waiter) {
  waiter.queue_ = this;
  ++length_;
  gauge_.add();
  timers_.set(waiter.timer_, waiter.deadline_ms_);
}

void WaitQueue::unlink(Waiter& waiter) {
  RW_CHECK(length_ > 0);
  timers_.cancel(waiter.timer_);
  list_.erase(list_.iterator_to(waiter));
  waiter.queue_ = nullptr;
  --length_;
  gauge_.sub();
}

}  // namespace ringway
