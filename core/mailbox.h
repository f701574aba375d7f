// core/mailbox.h - bounded messages from other threads to one Io's thread.
//
// Affinity:  post() from any thread; take() on the owning thread only.
// Bounds:    `capacity` messages; post() returns false when full, and the sender decides.
// Why:       the only cross-thread path to a shard. Vyukov's bounded MPMC queue: no mutex, one
//            compare-and-swap per post; the doorbell is Io::wake(), rung only when needed.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace ringway {

// A message is a plain value: what to do and two words of argument; who frees a pointer in it is
// the business of the message's kind.
struct Message {
  uint32_t kind = 0;
  uint32_t small = 0;
  uint64_t a = 0;
  uint64_t b = 0;
  uint64_t c = 0;
};

class Mailbox {
 public:
  // `capacity` is a power of two, at least 2.
  explicit Mailbox(size_t capacity);

  // Enqueues; false when full. The caller rings the doorbell afterwards.
  [[nodiscard]] bool post(const Message& message);

  // Takes the oldest message; false when there is none. One consumer. Messages of one sender come
  // in the order they were posted. A sender interrupted inside post() hides those after its own
  // until it goes on; it rings the doorbell afterwards, so nothing is missed.
  [[nodiscard]] bool take(Message& out);

 private:
  struct Cell {
    std::atomic<size_t> sequence;
    Message message;
  };
  size_t mask_;
  std::unique_ptr<Cell[]> cells_;
  alignas(64) std::atomic<size_t> head_{0};
  alignas(64) size_t tail_ = 0;
};

}  // namespace ringway
