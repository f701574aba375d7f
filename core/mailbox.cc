// core/mailbox.cc
#include "core/mailbox.h"

#include <bit>

#include "core/base/check.h"

namespace ringway {

// A cell's sequence says whose turn it is: equal to the position, a producer may fill it; one more,
// the consumer may take it; then it becomes the position of the next round.
Mailbox::Mailbox(size_t capacity)
    : mask_(capacity - 1), cells_(std::make_unique<Cell[]>(capacity)) {
  RW_CHECK(capacity >= 2 && std::has_single_bit(capacity));
  for (size_t i = 0; i < capacity; ++i) cells_[i].sequence.store(i, std::memory_order_relaxed);
}

bool Mailbox::post(const Message& message) {
  size_t position = head_.load(std::memory_order_relaxed);
  for (;;) {
    Cell& cell = cells_[position & mask_];
    const size_t sequence = cell.sequence.load(std::memory_order_acquire);
    const auto ahead = static_cast<ptrdiff_t>(sequence - position);
    if (ahead < 0) return false;  // Still holds the message of the round before: full.
    if (ahead > 0) {              // Another producer was faster.
      position = head_.load(std::memory_order_relaxed);
      continue;
    }
    if (head_.compare_exchange_weak(position, position + 1, std::memory_order_relaxed)) {
      cell.message = message;
      cell.sequence.store(position + 1, std::memory_order_release);
      return true;
    }
  }
}

bool Mailbox::take(Message& out) {
  Cell& cell = cells_[tail_ & mask_];
  if (cell.sequence.load(std::memory_order_acquire) != tail_ + 1) return false;
  out = cell.message;
  cell.sequence.store(tail_ + mask_ + 1, std::memory_order_release);
  ++tail_;
  return true;
}

}  // namespace ringway
