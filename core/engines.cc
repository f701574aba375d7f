// core/engines.cc - the two engines: each only tells SocketIo what is ready.
#include "core/engines.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <array>

#include "core/base/check.h"
#include "core/socket_io.h"

namespace ringway {
namespace {

// What a failed io_uring_setup(2) usually means, and what the operator can do.
std::string setup_failure(int error) {
  std::string text = "io_uring_setup: ";
  text += strerror(error);
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

// io_uring for readiness: multishot polls, one submit-and-wait per turn.
class RingEngine final : public SocketIo {
 public:
  // Returns 0 or a positive errno; the engine is unusable after an error.
  int start() {
    io_uring_params params{};
    params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                   IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    params.cq_entries = kCqEntries;
    const int result = io_uring_queue_init_params(kSqEntries, &ring_, &params);
    if (result < 0) return -result;
    up_ = true;
    constexpr unsigned kNeeded =
        IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_CQE_SKIP | IORING_FEAT_FAST_POLL;
    return (params.features & kNeeded) == kNeeded ? 0 : EINVAL;
  }
  ~RingEngine() override {
    if (up_) io_uring_queue_exit(&ring_);
  }
  const char* name() const override { return "io_uring"; }

 private:
  static constexpr unsigned kSqEntries = 4096;
  static constexpr unsigned kCqEntries = 16384;
  static constexpr int kBatch = 256;

  static uint64_t pack(Tag tag) {
    return static_cast<uint64_t>(tag.kind) << 56 |
           static_cast<uint64_t>(tag.generation & 0xffffff) << 32 | tag.slot;
  }

  io_uring_sqe& sqe() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    while (sqe == nullptr) {  // Full: submit, never drop. -EBUSY means completions must go first.
      io_uring_submit_and_get_events(&ring_);
      sqe = io_uring_get_sqe(&ring_);
    }
    return *sqe;
  }

  void arm(Tag tag, int fd) override {
    io_uring_sqe& entry = sqe();
    if (tag.kind == Kind::kOut) {
      io_uring_prep_poll_add(&entry, fd, POLLOUT);
    } else {
      io_uring_prep_poll_multishot(&entry, fd, POLLIN | POLLRDHUP);
    }
    io_uring_sqe_set_data64(&entry, pack(tag));
  }

  bool cancel(Tag tag, int /*fd*/) override {
    io_uring_sqe& entry = sqe();
    io_uring_prep_cancel64(&entry, pack(tag), 0);  // By user data: descriptors are reused.
    io_uring_sqe_set_data64(&entry, 0);
    return false;
  }

  void wait(int timeout_ms) override {
    __kernel_timespec timeout{.tv_sec = timeout_ms / 1000,
                              .tv_nsec = timeout_ms % 1000 * 1'000'000LL};
    io_uring_cqe* first = nullptr;
    // -ETIME, -EINTR, -EBUSY and -EAGAIN are normal: reap what is there, submit again next turn.
    io_uring_submit_and_wait_timeout(&ring_, &first, 1, timeout_ms < 0 ? nullptr : &timeout,
                                     nullptr);
    std::array<io_uring_cqe*, kBatch> batch;
    const unsigned count = io_uring_peek_batch_cqe(&ring_, batch.data(), kBatch);
    for (unsigned i = 0; i < count; ++i) {
      const uint64_t user = batch[i]->user_data;
      if (user == 0) continue;
      const int result = batch[i]->res;
      on_ready({static_cast<Kind>(user >> 56), static_cast<uint32_t>(user),
                static_cast<uint32_t>(user >> 32) & 0xffffff},
               result < 0 ? -result : 0, (batch[i]->flags & IORING_CQE_F_MORE) == 0);
    }
    io_uring_cq_advance(&ring_, count);
  }

  io_uring ring_{};
  bool up_ = false;
};

// The same on epoll, edge-triggered.
class EpollEngine final : public SocketIo {
 public:
  EpollEngine() : epoll_(epoll_create1(EPOLL_CLOEXEC)) { RW_CHECK(epoll_ >= 0); }
  ~EpollEngine() override { ::close(epoll_); }
  const char* name() const override { return "epoll"; }

 private:
  // One registration per descriptor; kOut adds and removes EPOLLOUT on it.
  void arm(Tag tag, int fd) override {
    epoll_event event{};
    event.events = EPOLLET | EPOLLIN | EPOLLRDHUP | (tag.kind == Kind::kOut ? EPOLLOUT : 0U);
    event.data.u64 = static_cast<uint64_t>(tag.kind == Kind::kListen) << 63 |
                     static_cast<uint64_t>(tag.kind == Kind::kWake) << 62 |
                     static_cast<uint64_t>(tag.generation & 0xffffff) << 32 | tag.slot;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) {
      RW_CHECK(errno == EEXIST);
      RW_CHECK(epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event) == 0);
    }
    if (tag.kind == Kind::kListen || tag.kind == Kind::kWake) return;
    if (tag.slot >= want_.size()) want_.resize(tag.slot + 1);
    if (tag.kind == Kind::kOut) want_[tag.slot].out = true;
    if (tag.kind == Kind::kIn) want_[tag.slot].in = true;
    want_[tag.slot].fd = fd;
  }

  bool cancel(Tag tag, int fd) override {
    epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);  // ENOENT on the second kind: already gone.
    if (tag.kind != Kind::kListen) want_[tag.slot] = {};
    return true;
  }

  void wait(int timeout_ms) override {
    std::array<epoll_event, 256> events;
    const int count =
        epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), timeout_ms);
    for (int i = 0; i < count; ++i) {
      const uint64_t user = events[static_cast<size_t>(i)].data.u64;
      const uint32_t bits = events[static_cast<size_t>(i)].events;
      const auto slot = static_cast<uint32_t>(user);
      const auto generation = static_cast<uint32_t>(user >> 32) & 0xffffff;
      if ((user >> 62 & 1) != 0) {
        on_ready({Kind::kWake, 0, 0}, 0, false);
        continue;
      }
      if (user >> 63 != 0) {
        on_ready({Kind::kListen, slot, 0}, 0, false);
        continue;
      }
      // Every owner is asked again before each report: it may have closed on the one before.
      if ((bits & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0 && want_[slot].out) {
        want_[slot].out = false;
        on_ready({Kind::kOut, slot, generation}, 0, true);
      }
      if ((bits & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP)) != 0 && want_[slot].in) {
        on_ready({Kind::kIn, slot, generation}, 0, false);
      }
    }
  }

  struct Want {
    int fd = -1;
    bool in = false;
    bool out = false;
  };
  int epoll_;
  std::vector<Want> want_;  // by slot
};

}  // namespace

EngineResult make_engine(EngineKind kind) {
  EngineResult result;
  if (kind != EngineKind::kEpoll) {
    auto ring = std::make_unique<RingEngine>();
    const int error = ring->start();
    if (error == 0) {
      result.io = std::move(ring);
      return result;
    }
    result.reason = setup_failure(error);
    if (kind == EngineKind::kIoUring) return result;
  }
  result.io = std::make_unique<EpollEngine>();
  return result;
}

}  // namespace ringway
