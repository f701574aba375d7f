// tests/alloc_counter.h - replaces operator new, and malloc(3) by --wrap, by ones that count.
//
// For one file of a program only; one thread.
#pragma once

#include <stdlib.h>

#include <atomic>
#include <cstdint>
#include <new>

namespace {

std::atomic<uint64_t> g_allocations{0};
bool g_counting = true;  // one thread

void count_one() {
  if (g_counting) g_allocations.fetch_add(1, std::memory_order_relaxed);
}

// What the test's own peers allocate is not the balancer's.
struct Uncounted {
  Uncounted() { g_counting = false; }
  ~Uncounted() { g_counting = true; }
  Uncounted(const Uncounted&) = delete;
  Uncounted& operator=(const Uncounted&) = delete;
};

}  // namespace

// By --wrap: malloc(3) of our libraries, which HPACK's memory comes from (proto/http2_blocks.cc).
extern "C" void* __real_malloc(size_t bytes);   // NOLINT(bugprone-reserved-identifier)
extern "C" void* __wrap_malloc(size_t bytes);   // NOLINT(bugprone-reserved-identifier)
extern "C" void* __wrap_malloc(size_t bytes) {  // NOLINT(bugprone-reserved-identifier)
  count_one();
  return __real_malloc(bytes);
}

namespace {

void* counted(size_t bytes) {
  count_one();
  void* memory = __real_malloc(bytes);
  if (memory == nullptr) abort();
  return memory;
}

}  // namespace

void* operator new(size_t bytes) {
  return counted(bytes);
}
void* operator new[](size_t bytes) {
  return counted(bytes);
}
void* operator new(size_t bytes, std::align_val_t alignment) {
  count_one();
  const auto align = static_cast<size_t>(alignment);
  void* memory = aligned_alloc(align, (bytes + align - 1) / align * align);
  if (memory == nullptr) abort();
  return memory;
}
void operator delete(void* memory) noexcept {
  free(memory);
}
void operator delete(void* memory, size_t) noexcept {
  free(memory);
}
void operator delete[](void* memory) noexcept {
  free(memory);
}
void operator delete[](void* memory, size_t) noexcept {
  free(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  free(memory);
}
void operator delete(void* memory, size_t, std::align_val_t) noexcept {
  free(memory);
}
