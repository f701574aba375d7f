// core/epoll_engine.cc
#include "core/epoll_engine.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>

#include "core/base/check.h"

namespace ringway {

bool EpollEngine::of_socket(Kind kind) {
  return kind == Kind::kIn || kind == Kind::kOut || kind == Kind::kHangup;
}

EpollEngine::EpollEngine(uint32_t spin_us)
    : SocketIo(spin_us), epoll_(epoll_create1(EPOLL_CLOEXEC)) {
  RW_CHECK(epoll_ >= 0);
}

EpollEngine::~EpollEngine() {
  ::close(epoll_);
}

void EpollEngine::arm(Tag tag, int fd, bool /*once*/) {
  counters_.arms.add();
  const bool is_socket = of_socket(tag.kind);
  bool out = false;
  if (is_socket) {
    if (tag.slot >= wanted_.size()) wanted_.resize(tag.slot + 1);
    Wanted& wanted = wanted_[tag.slot];
    (tag.kind == Kind::kOut  ? wanted.out
     : tag.kind == Kind::kIn ? wanted.in
                             : wanted.hangup) = true;
    out = wanted.out;
  }
  // All kinds of a socket share its registration, so the second must not undo the first.
  epoll_event event{};
  event.events = EPOLLET | EPOLLIN | EPOLLRDHUP | (out ? EPOLLOUT : 0U);
  event.data.u64 = pack({is_socket ? Kind::kIn : tag.kind, tag.slot, tag.generation});
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) {
    RW_CHECK(errno == EEXIST);
    RW_CHECK(epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event) == 0);
  }
}

bool EpollEngine::cancel(Tag tag, int fd) {
  counters_.cancels.add();
  epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);  // ENOENT on the second kind: already gone.
  if (of_socket(tag.kind)) wanted_[tag.slot] = {};
  return true;
}

bool EpollEngine::poll_now() {
  if (early_count_ == 0) early_count_ = take(0, early_, 0);
  return early_count_ > 0;
}

size_t EpollEngine::collect(int timeout_ms, Batch& batch) {
  const size_t early = early_count_;
  std::copy_n(early_.begin(), early, batch.begin());
  early_count_ = 0;
  return early > 0 ? early : take(timeout_ms, batch, 0);
}

size_t EpollEngine::take(int timeout_ms, Batch& batch, size_t count) {
  // Half a batch: one report may stand for both directions of a socket.
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init): the kernel fills it
  std::array<epoll_event, kBatchEvents / 2> events;
  const int got = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), timeout_ms);
  for (int i = 0; i < got; ++i) {
    const uint32_t mask = events[static_cast<size_t>(i)].events;
    const Tag tag = unpack(events[static_cast<size_t>(i)].data.u64);
    if (tag.kind != Kind::kIn) {
      batch[count++] = {.tag = tag, .mask = mask, .last = false};
      continue;
    }
    Wanted& wanted = wanted_[tag.slot];
    if ((mask & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0 && wanted.out) {
      wanted.out = false;
      batch[count++] = {.tag = {Kind::kOut, tag.slot, tag.generation}, .mask = mask, .last = true};
    }
    if ((mask & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP)) != 0 && wanted.in) {
      batch[count++] = {.tag = tag, .mask = mask, .last = false};
    } else if ((mask & (EPOLLERR | EPOLLHUP)) != 0 && wanted.hangup) {
      const Tag hangup{Kind::kHangup, tag.slot, tag.generation};
      batch[count++] = {.tag = hangup, .mask = mask, .last = false};
    }
  }
  return count;
}

}  // namespace ringway
