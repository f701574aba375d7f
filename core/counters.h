// core/counters.h - counters with one writing thread, readable from any.
//
// Affinity: add() and set() on the owning shard only; get() anywhere. A relaxed load and store, not
//           a locked instruction: readers may see a value that is a moment old.
#pragma once

#include <atomic>
#include <cstdint>

namespace ringway {

class Counter {
 public:
  void add(uint64_t n = 1) {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  void sub(uint64_t n = 1) {
    value_.store(value_.load(std::memory_order_relaxed) - n, std::memory_order_relaxed);
  }
  void set(uint64_t n) { value_.store(n, std::memory_order_relaxed); }
  [[nodiscard]] uint64_t get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

}  // namespace ringway
