// core/ring_engine.h - io_uring as a source of readiness, or of bytes: one enter per turn.
//
// Affinity:  the thread that calls start(). Bounds: submissions that the kernel does not take wait
//            in backlog_, at most one per kind and socket and its cancel.
// Source:    io_uring_setup(2), io_uring_enter(2); Linux 6.1.
#pragma once

#include <liburing.h>

#include <memory>
#include <string>
#include <vector>

#include "core/ring_receive.h"
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
  // As io_uring_queue_init_params(3); tests have others.
  using SetUp = int (*)(unsigned entries, io_uring* ring, io_uring_params* params);

  explicit RingEngine(const uint32_t spin_us, SetUp set_up = io_uring_queue_init_params)
      : SocketIo(spin_us), queue_init_(set_up) {}
  ~RingEngine() override;

  // Sets the ring up, with as few of the wanted flags given up as this kernel asks for, and tests
  // it. The engine may be used if probe().usable() afterwards.
  // `cq_entries` 0: four times `entries`.
  void start(uint32_t entries, uint32_t cq_entries = 0);
  [[nodiscard]] const RingProbe& probe() const { return probe_; }

  // Receives by multishot RECV into provided buffers from now on, if that works here. Returns an
  // empty text, or why it does not; this engine must not be used then. REQUIRES: probe().usable(),
  // no socket was attached yet; once.
  [[nodiscard]] std::string use_multishot(ReceiveRing::Shape shape);
  // The receive buffers, or null when receiving is by poll.
  [[nodiscard]] const ReceiveRing* receive_ring() const { return receive_.get(); }

  // Takes and sends doorbells as ring messages from now on, if a message of another thread's ring
  // wakes this one here. Returns an empty text, or why not; wake() does it all then. Takes about
  // a millisecond. REQUIRES: probe().usable(), no turn was run yet.
  [[nodiscard]] std::string use_ring_messages();
  void wake_other(Io& target) override;
  int doorbell_fd() const override { return doorbell_fd_; }

  const char* name() const override { return "io_uring"; }

 private:
  // Another Io whose doorbell was rung, and whether that waits in the submission queue.
  struct Bell {
    Io* target;
    bool queued;
  };
  // A submission that found no room.
  struct Waiting {
    Tag tag;
    int fd;
    bool is_cancel;
    bool once;
  };

  bool set_up(uint32_t entries, uint32_t cq_entries);
  bool try_set_up(uint32_t entries, uint32_t cq_entries, uint32_t flags);
  void self_test();
  std::string test_ring_messages();
  void on_bell_failed(Tag tag, int error);
  void forget_bells();
  // Waits up to a second for one completion during a self-test.
  bool next_completion(int32_t& result, uint32_t& flags);
  std::string test_multishot();
  void prepare(io_uring_sqe& entry, const Waiting& what);
  void push(const Waiting& what);
  void push_backlog();
  void arm(Tag tag, int fd, bool once) override;
  bool cancel(Tag tag, int fd) override;
  void submit() override;
  bool poll_now() override;
  size_t collect(int timeout_ms, Batch& batch) override;
  std::span<const std::byte> bytes_of(const Event& event) override;
  void done_with(const Event& event) override;
  size_t free_buffers() const override;
  // Takes completions into `batch` behind the `count` that are there; returns how many there are.
  size_t reap(Batch& batch, size_t count);

  std::unique_ptr<ReceiveRing> receive_;  // outlives ring_, which is closed in the destructor
  const SetUp queue_init_;
  io_uring ring_{};
  RingProbe probe_;
  std::vector<Waiting> backlog_;
  std::vector<Bell> bells_;  // by first use, at most one per Io of the process
  bool bells_queued_ = false;
  bool up_ = false;
};

}  // namespace ringway
