// core/base/slab.h - objects of one type in fixed-address blocks with a LIFO free list.
//
// Affinity:  one thread. Ownership: take() constructs, give_back() destroys; the Slab frees the
//            memory. All objects must be given back before it dies.
// Bounds:    at most `capacity` objects; blocks of kBlock objects are allocated as the number in
// use
//            first reaches them and never freed, so the steady state allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "core/base/check.h"

namespace ringway {

template <typename T>
class Slab {
 public:
  explicit Slab(size_t capacity) : capacity_(capacity) {}
  ~Slab() { RW_CHECK(in_use_ == 0); }
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;

  // Constructs an object, or returns nullptr when `capacity` objects are in use.
  template <typename... Args>
  [[nodiscard]] T* take(Args&&... args) {
    if (free_ == nullptr && !grow()) return nullptr;
    Cell* cell = free_;
    free_ = cell->next;
    ++in_use_;
    return new (static_cast<void*>(cell)) T(std::forward<Args>(args)...);
  }

  // Destroys `object`. REQUIRES: it came from this slab's take().
  void give_back(T* object) {
    RW_CHECK(object != nullptr && in_use_ > 0);
    object->~T();
    Cell* cell = new (static_cast<void*>(object)) Cell;
    cell->next = free_;
    free_ = cell;
    --in_use_;
  }

  [[nodiscard]] size_t in_use() const { return in_use_; }
  [[nodiscard]] size_t capacity() const { return capacity_; }
  // Memory taken from the heap so far, in bytes.
  [[nodiscard]] size_t reserved_bytes() const { return blocks_.size() * kBlock * sizeof(Cell); }

 private:
  static constexpr size_t kBlock = sizeof(T) > 4096 ? 4 : 64;

  union Cell {
    Cell() : next(nullptr) {}
    Cell* next;
    alignas(T) std::byte storage[sizeof(T)];
  };

  bool grow() {
    const size_t have = blocks_.size() * kBlock;
    if (have >= capacity_) return false;
    blocks_.push_back(std::make_unique<Cell[]>(kBlock));
    // The last block may reach past the capacity: the rest of it stays unused.
    const size_t count = capacity_ - have < kBlock ? capacity_ - have : kBlock;
    for (size_t i = count; i > 0; --i) {
      Cell& cell = blocks_.back()[i - 1];
      cell.next = free_;
      free_ = &cell;
    }
    return true;
  }

  size_t capacity_;
  size_t in_use_ = 0;
  Cell* free_ = nullptr;
  std::vector<std::unique_ptr<Cell[]>> blocks_;
};

}  // namespace ringway
