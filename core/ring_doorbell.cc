// core/ring_doorbell.cc - waking another shard's ring by IORING_OP_MSG_RING.
//
// A doorbell is a submission like any other, so it costs no system call of its own: it leaves with
// the turn's one enter, at most one per target and turn. The target gets a completion. It says
// "look into the mailbox", so it carries nothing, and one too many does no harm. Whatever goes
// wrong with it (the target's completion queue is full: EOVERFLOW) is repeated by wake(), whose
// eventfd cannot overflow.
#include <string.h>
#include <time.h>

#include <thread>

#include "core/base/check.h"
#include "core/ring_engine.h"

namespace ringway {

void RingEngine::wake_other(Io& target) {
  // Both must have been found to work here: a ring that cannot take doorbells sends none either.
  if (doorbell_fd_ < 0 || target.doorbell_fd() < 0) return target.wake();
  uint32_t index = 0;
  while (index < bells_.size() && bells_[index].target != &target) ++index;
  if (index == bells_.size()) bells_.push_back({&target, false});
  if (bells_[index].queued) return;
  bells_[index].queued = bells_queued_ = true;
  counters_.doorbells.add();
  // Generation 1 tells our own completion from a doorbell that was rung at us.
  push({{Kind::kBell, index, 1}, target.doorbell_fd(), false, true});
}

// What was queued leaves with the enter that follows: later doorbells need one of their own. While
// submissions wait for room, a doorbell may be among them.
void RingEngine::forget_bells() {
  if (!bells_queued_ || !backlog_.empty()) return;
  for (Bell& bell : bells_) bell.queued = false;
  bells_queued_ = false;
}

void RingEngine::on_bell_failed(Tag tag, int error) {
  RW_CHECK(tag.slot < bells_.size());
  RW_CHECK(error > 0);
  counters_.doorbells_failed.add();
  bells_[tag.slot].target->wake();
}

std::string RingEngine::use_ring_messages() {
  RW_CHECK(probe_.usable() && doorbell_fd_ < 0);
  std::string failure = test_ring_messages();
  if (failure.empty()) doorbell_fd_ = ring_.ring_fd;
  return failure;
}

// Another thread's ring rings twice: perhaps before this thread waits in the kernel, and surely
// while it does. A ring with deferred task work wakes up only if the kernel cares for that case.
std::string RingEngine::test_ring_messages() {
  io_uring sender{};
  const int made = io_uring_queue_init(4, &sender, 0);
  if (made != 0) return std::string("self-test: io_uring_setup: ") + strerrordesc_np(-made);
  std::thread ringer([this, &sender] {
    for (int i = 0; i < 2; ++i) {
      io_uring_sqe* entry = io_uring_get_sqe(&sender);
      io_uring_prep_msg_ring(entry, ring_.ring_fd, 0, pack({Kind::kBell, 0, 0}), 0);
      io_uring_submit(&sender);
      const timespec pause{.tv_sec = 0, .tv_nsec = 500'000};
      nanosleep(&pause, nullptr);
    }
  });
  std::string reason;
  for (int i = 0; i < 2 && reason.empty(); ++i) {
    int32_t result = 0;
    uint32_t flags = 0;
    if (!next_completion(result, flags)) {
      reason = "self-test: a ring message did not wake a waiting ring";
    } else if (result != 0) {
      reason = "self-test: a ring message reported " + std::to_string(result);
    }
  }
  ringer.join();
  io_uring_queue_exit(&sender);
  return reason;
}

}  // namespace ringway
