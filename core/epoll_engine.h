// core/epoll_engine.h - the twin of the ring engine on edge-triggered epoll.
//
// Affinity: the thread that makes it. Why: the fallback where io_uring is forbidden, and the
// yardstick that shows what the ring brings.
#pragma once

#include <vector>

#include "core/socket_io.h"

namespace ringway {

class EpollEngine : public SocketIo {
 public:
  explicit EpollEngine(uint32_t spin_us);
  ~EpollEngine() override;
  const char* name() const override { return "epoll"; }

 private:
  // One registration per descriptor; kOut adds EPOLLOUT to it until it has been reported.
  struct Wanted {
    bool in = false;
    bool out = false;
    bool hangup = false;
  };

  static bool of_socket(Kind kind);
  void arm(Tag tag, int fd, bool once) override;
  bool cancel(Tag tag, int fd) override;
  void submit() override {}
  bool poll_now() override;
  size_t collect(int timeout_ms, Batch& batch) override;
  std::span<const std::byte> bytes_of(const Event& /*event*/) override { return {}; }
  void done_with(const Event& /*event*/) override {}
  size_t free_buffers() const override { return 0; }
  size_t take(int timeout_ms, Batch& batch, size_t count);

  int epoll_;
  std::vector<Wanted> wanted_;  // by slot of the socket table
  Batch early_;                 // found by poll_now(), not collected yet
  size_t early_count_ = 0;
};

}  // namespace ringway
