// core/ring_engine.h - io_uring as a source of readiness: multishot polls, one enter per turn.
//
// Affinity:  the thread that calls start(). Bounds: submissions that the kernel does not take wait
// in
//            backlog_, at most two per socket.
// Source:    io_uring_setup(2), io_uring_enter(2); Linux 6.1.
#pragma once

#include <liburing.h>

#include <string>
#include <vector>

#include "core/socket_io.h"

namespace ringway {

// What io_uring offers on this machine, as found by trying.
struct RingProbe {
  int setup_error = 0;       // positive errno of io_uring_setup(2)
  uint32_t features = 0;     // IORING_FEAT_*
  uint32_t setup_flags = 0;  // those that were accepted
  bool registered_fd = false;
  bool multishot_poll = false;  // the self-test passed
  std::string failure;          // what the self-test saw, if it failed

  [[nodiscard]] bool usable() const { return setup_error == 0 && failure.empty(); }
};

// What a failed io_uring_setup(2) usually means, and what the operator can do about it.
[[nodiscard]] std::string ring_setup_failure(int error);

class RingEngine final : public SocketIo {
 public:
  explicit RingEngine(const uint32_t spin_us) : SocketIo(spin_us) {}
  ~RingEngine() override;

  // Sets the ring up and tests it. The engine may be used if probe().usable() afterwards.
  // `cq_entries` 0: four times `entries`.
  void start(uint32_t entries, uint32_t cq_entries = 0);
  [[nodiscard]] const RingProbe& probe() const { return probe_; }

  const char* name() const override { return "io_uring"; }

 private:
  // A submission that found no room.
  struct Waiting {
    Tag tag;
    int fd;
    bool is_cancel;
  };

  bool set_up(uint32_t entries, uint32_t cq_entries, uint32_t flags);
  void self_test();
  void prepare(io_uring_sqe& entry, const Waiting& what);
  void push(const Waiting& what);
  void push_backlog();
  void arm(Tag tag, int fd) override;
  bool cancel(Tag tag, int fd) override;
  void submit() override;
  bool poll_now() override;
  size_t collect(int timeout_ms, Batch& batch) override;
  size_t reap(Batch& batch);

  io_uring ring_{};
  RingProbe probe_;
  std::vector<Waiting> backlog_;
  bool up_ = false;
};

}  // namespace ringway
