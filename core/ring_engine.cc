// core/ring_engine.cc
#include "core/ring_engine.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/check.h"

namespace ringway {
namespace {

constexpr uint32_t kFeaturesNeeded =
    IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_CQE_SKIP | IORING_FEAT_FAST_POLL;

}  // namespace

std::string ring_setup_failure(int error) {
  std::string text = std::string("io_uring_setup: ") + strerrordesc_np(error);
  switch (error) {
    case EPERM:
      return text +
             " (forbidden by sysctl kernel.io_uring_disabled or a container's seccomp profile:"
             " set kernel.io_uring_disabled=0, or allow io_uring in the profile)";
    case ENOMEM: return text + " (locked memory: raise LimitMEMLOCK or ulimit -l to 8 MiB)";
    case ENOSYS: return text + " (this kernel has no io_uring; Linux 6.1 or newer is needed)";
    case EINVAL: return text + " (kernel too old; Linux 6.1 or newer is needed)";
    default: return text;
  }
}

RingEngine::~RingEngine() {
  if (up_) io_uring_queue_exit(&ring_);
}

bool RingEngine::try_set_up(uint32_t entries, uint32_t cq_entries, uint32_t flags) {
  io_uring_params params{};
  params.flags = flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
  params.cq_entries = cq_entries;
  const int result = queue_init_(entries, &ring_, &params);
  if (result < 0) {
    probe_.setup_error = -result;
    return false;
  }
  up_ = true;
  probe_.setup_error = 0;
  probe_.features = params.features;
  probe_.setup_flags = params.flags;
  return true;
}

// EINVAL does not say which flag was refused. First the two without which little changes are given
// up, one by one; then, as on older kernels, the newest of the rest, step by step.
bool RingEngine::set_up(uint32_t entries, uint32_t cq_entries) {
  constexpr uint32_t kDefer = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  constexpr uint32_t kCoop = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
  constexpr uint32_t kSteps[] = {
      kDefer | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
      kDefer | IORING_SETUP_TASKRUN_FLAG,
      kDefer | IORING_SETUP_SUBMIT_ALL,
      kDefer,
      IORING_SETUP_SINGLE_ISSUER | kCoop | IORING_SETUP_SUBMIT_ALL,  // Linux 6.0
      kCoop | IORING_SETUP_SUBMIT_ALL,                               // 5.19
      IORING_SETUP_SUBMIT_ALL,                                       // 5.18
      0,
  };
  for (const uint32_t flags : kSteps) {
    if (try_set_up(entries, cq_entries, flags)) return true;
    // Rings are charged to RLIMIT_MEMLOCK on new kernels: a small one beats none.
    if (probe_.setup_error == ENOMEM && try_set_up(256, 1024, flags)) return true;
    if (probe_.setup_error != EINVAL) return false;
  }
  return false;
}

void RingEngine::start(uint32_t entries, uint32_t cq_entries) {
  if (!set_up(entries, cq_entries == 0 ? entries * 4 : cq_entries)) return;
  if ((probe_.features & kFeaturesNeeded) != kFeaturesNeeded) {
    probe_.failure = "features are missing; Linux 6.1 or newer is needed";
    return;
  }
  probe_.registered_fd = io_uring_register_ring_fd(&ring_) == 1;
  self_test();
}

bool RingEngine::next_completion(int32_t& result, uint32_t& flags) {
  __kernel_timespec limit{.tv_sec = 1, .tv_nsec = 0};
  io_uring_cqe* cqe = nullptr;
  if (io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &limit, nullptr) < 0) return false;
  if (cqe == nullptr) return false;
  result = cqe->res;
  flags = cqe->flags;
  io_uring_cqe_seen(&ring_, cqe);
  return true;
}

// A multishot poll must report twice and end when it is cancelled. Trying is the only way to know:
// there is no feature bit, and versions lie (backports, seccomp).
void RingEngine::self_test() {
  const int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  const Tag tag{Kind::kWake, 0xffff'ffff, 0};
  arm(tag, fd, false);
  int32_t result = 0;
  uint32_t flags = 0;
  for (int i = 0; i < 2 && probe_.failure.empty(); ++i) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(fd, &one, sizeof one);
    if (!next_completion(result, flags) || result <= 0 || (flags & IORING_CQE_F_MORE) == 0) {
      probe_.failure = "self-test: a multishot poll reported " + std::to_string(result);
    }
  }
  cancel(tag, fd);
  // The cancel's own completion is skipped, so the next one is the poll's last.
  if (probe_.failure.empty() && (!next_completion(result, flags) || result != -ECANCELED)) {
    probe_.failure = "self-test: a cancelled poll reported " + std::to_string(result);
  }
  ::close(fd);
  probe_.multishot_poll = probe_.failure.empty();
}

std::string RingEngine::use_multishot(ReceiveRing::Shape shape) {
  RW_CHECK(probe_.usable() && receive_ == nullptr);
  receive_ = std::make_unique<ReceiveRing>();
  const int error = receive_->start(ring_, shape);
  if (error != 0) return std::string("provided buffers: ") + strerrordesc_np(error);
  receive_by_completions();
  return test_multishot();
}

// Two messages through a socket pair must come whole, and a cancel must end the receive.
std::string RingEngine::test_multishot() {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) {
    return std::string("self-test: socketpair: ") + strerrordesc_np(errno);
  }
  std::string reason;
  const Tag tag{Kind::kReceive, 0xffff'ffff, 0};
  arm(tag, pair[0], false);
  int32_t result = 0;
  uint32_t flags = 0;
  for (const char message : {'a', 'b'}) {
    if (::send(pair[1], &message, 1, MSG_NOSIGNAL) != 1) reason = "self-test: send";
    if (!reason.empty()) break;
    if (!next_completion(result, flags) || result != 1 || (flags & IORING_CQE_F_MORE) == 0) {
      reason = "self-test: a multishot receive reported " + std::to_string(result);
      break;
    }
    receive_->note(flags);
    if (receive_->bytes(flags, result)[0] != static_cast<std::byte>(message)) {
      reason = "self-test: a multishot receive delivered other bytes than were sent";
    }
    receive_->give_back(flags);
  }
  cancel(tag, pair[0]);
  if (reason.empty() && (!next_completion(result, flags) || result != -ECANCELED)) {
    reason = "self-test: a cancelled receive reported " + std::to_string(result);
  }
  ::close(pair[0]);
  ::close(pair[1]);
  return reason;
}

std::span<const std::byte> RingEngine::bytes_of(const Event& event) {
  return receive_->bytes(event.buffer, event.result);
}

void RingEngine::done_with(const Event& event) {
  receive_->give_back(event.buffer);
}

size_t RingEngine::free_buffers() const {
  return receive_ == nullptr ? 0 : receive_->with_kernel();
}

void RingEngine::prepare(io_uring_sqe& entry, const Waiting& what) {
  if (what.is_cancel) {
    io_uring_prep_cancel64(&entry, pack(what.tag), 0);  // By user data: descriptors are reused.
    entry.flags |= IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data64(&entry, 0);
    return;
  }
  if (what.tag.kind == Kind::kBell) {
    io_uring_prep_msg_ring(&entry, what.fd, 0, pack({Kind::kBell, 0, 0}), 0);
    entry.flags |= IOSQE_CQE_SKIP_SUCCESS;  // Only a failure is told: on_bell_failed().
  } else if (what.tag.kind == Kind::kReceive) {
    receive_->prepare(entry, what.fd);
  } else if (what.once) {
    const bool out = what.tag.kind == Kind::kOut;
    io_uring_prep_poll_add(&entry, what.fd, out ? POLLOUT : POLLIN | POLLRDHUP);
  } else {
    // The kernel adds errors, hang-ups and POLLRDHUP to what is asked for. So behind a FIN a poll
    // that is to report once would end at once; one until cancelled reports the FIN, and waits.
    const bool hangup = what.tag.kind == Kind::kHangup;
    io_uring_prep_poll_multishot(&entry, what.fd, hangup ? 0 : POLLIN | POLLRDHUP);
  }
  io_uring_sqe_set_data64(&entry, pack(what.tag));
}

void RingEngine::push(const Waiting& what) {
  io_uring_sqe* entry = backlog_.empty() ? io_uring_get_sqe(&ring_) : nullptr;
  if (entry == nullptr && backlog_.empty()) {
    counters_.sq_full.add();
    submit();
    entry = io_uring_get_sqe(&ring_);
  }
  // Still full: the kernel wants its completions reaped first. Order is kept: all later ones wait.
  if (entry == nullptr) return backlog_.push_back(what);
  prepare(*entry, what);
}

void RingEngine::push_backlog() {
  size_t done = 0;
  for (; done < backlog_.size(); ++done) {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    if (entry == nullptr) break;
    prepare(*entry, backlog_[done]);
  }
  backlog_.erase(backlog_.begin(), backlog_.begin() + static_cast<ptrdiff_t>(done));
}

void RingEngine::arm(Tag tag, int fd, bool once) {
  counters_.arms.add();
  push({tag, fd, false, once});
}

bool RingEngine::cancel(Tag tag, int fd) {
  counters_.cancels.add();
  push({tag, fd, true, true});
  return false;
}

void RingEngine::submit() {
  forget_bells();
  const int result = io_uring_submit(&ring_);
  if (result < 0 && result != -EINTR) counters_.submit_busy.add();
}

bool RingEngine::poll_now() {
  if (io_uring_cq_ready(&ring_) > 0) return true;
  // With deferred task work nothing completes until we enter; this flag says that it would.
  const unsigned flags = __atomic_load_n(ring_.sq.kflags, __ATOMIC_RELAXED);
  return (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

size_t RingEngine::collect(int timeout_ms, Batch& batch) {
  if (!backlog_.empty()) {
    push_backlog();
    timeout_ms = backlog_.empty() ? timeout_ms : 0;
  }
  forget_bells();
  bool held_back = io_uring_cq_has_overflow(&ring_);
  __kernel_timespec timeout{.tv_sec = timeout_ms / 1000,
                            .tv_nsec = timeout_ms % 1000 * 1'000'000LL};
  io_uring_cqe* first = nullptr;
  const int result = io_uring_submit_and_wait_timeout(
      &ring_, &first, timeout_ms == 0 ? 0 : 1, timeout_ms <= 0 ? nullptr : &timeout, nullptr);
  // -ETIME and -EINTR are normal, and so is -EAGAIN from a look that found nothing. With something
  // left in the submission queue -EBUSY and -EAGAIN mean: reap first.
  if ((result == -EBUSY || result == -EAGAIN) && io_uring_sq_ready(&ring_) > 0) {
    counters_.submit_busy.add();
  }
  size_t count = reap(batch, 0);
  // Without anything to wait for, deferred work runs only if asked.
  if (timeout_ms == 0 && count == 0) {
    held_back = held_back || io_uring_cq_has_overflow(&ring_);
    io_uring_get_events(&ring_);
    count = reap(batch, count);
  }
  if (held_back) counters_.cq_overflows.add();
  return count;
}

size_t RingEngine::reap(Batch& batch, size_t count) {
  unsigned head = 0;
  unsigned seen = 0;
  io_uring_cqe* cqe = nullptr;
  // Copied out before the queue moves on: handlers may submit, which may need the room.
  io_uring_for_each_cqe(&ring_, head, cqe) {
    if (count == batch.size()) break;
    ++seen;
    if (cqe->user_data == 0) continue;  // a cancel that found nothing: the poll had just ended
    const Tag tag = unpack(cqe->user_data);
    if (tag.kind == Kind::kBell && tag.generation != 0) {
      on_bell_failed(tag, -cqe->res);
      continue;
    }
    if (tag.kind == Kind::kReceive) receive_->note(cqe->flags);
    batch[count++] = {.tag = tag,
                      .mask = cqe->res < 0 ? 0 : static_cast<uint32_t>(cqe->res),
                      .last = (cqe->flags & IORING_CQE_F_MORE) == 0,
                      .result = cqe->res,
                      .buffer = cqe->flags};
  }
  io_uring_cq_advance(&ring_, seen);
  return count;
}

}  // namespace ringway
