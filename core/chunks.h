// core/chunks.h - bytes that had to wait: pooled chunks, and the queues made of them.
//
// Affinity:  one thread. Ownership: a queue owns its chunks until clear(); the pool owns the
// memory. Bounds:    ChunkPool::capacity() chunks of 16 KiB. Asking for more fails, which callers
// treat as an
//            operating error: close, or answer 503.
// Why:       the usual case is that nothing waits at all, so an idle connection holds no chunk; the
//            free list is LIFO, so that the few in use stay in the cache.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "core/counters.h"

namespace ringway {

struct Chunk {
  static constexpr size_t kBytes = 16 * 1024 - 16;

  Chunk* next = nullptr;
  uint32_t at = 0;   // first byte that is still wanted
  uint32_t end = 0;  // one past the last
  char bytes[kBytes];
};
static_assert(sizeof(Chunk) == 16 * 1024);

class ChunkPool {
 public:
  explicit ChunkPool(size_t capacity) : capacity_(capacity) {}
  ~ChunkPool();
  ChunkPool(const ChunkPool&) = delete;
  ChunkPool& operator=(const ChunkPool&) = delete;

  // An empty chunk, or nullptr when `capacity` are in use (counted).
  [[nodiscard]] Chunk* take();
  void give_back(Chunk* chunk);

  [[nodiscard]] size_t in_use() const { return in_use_; }
  [[nodiscard]] size_t capacity() const { return capacity_; }
  // Any thread.
  [[nodiscard]] uint64_t refused() const { return refused_.get(); }

 private:
  size_t capacity_;
  size_t in_use_ = 0;
  Chunk* free_ = nullptr;
  std::vector<std::unique_ptr<Chunk>> all_;
  Counter refused_;
};

// Bytes on their way to a socket whose send buffer is full.
class OutQueue {
 public:
  OutQueue() = default;
  ~OutQueue();
  OutQueue(const OutQueue&) = delete;
  OutQueue& operator=(const OutQueue&) = delete;

  [[nodiscard]] bool empty() const { return bytes_ == 0; }
  [[nodiscard]] size_t bytes() const { return bytes_; }

  // Appends `pieces` without their first `skip` bytes. False when the pool is exhausted; what was
  // appended until then stays, and the caller gives the connection up.
  [[nodiscard]] bool append(ChunkPool& pool, std::span<const iovec> pieces, size_t skip);
  // The first bytes, as at most out.size() pieces. Returns how many pieces were filled.
  [[nodiscard]] size_t peek(std::span<iovec> out) const;
  // Drops the first `bytes` bytes. REQUIRES: that many are queued.
  void consume(ChunkPool& pool, size_t bytes);
  void clear(ChunkPool& pool) { consume(pool, bytes_); }

 private:
  Chunk* first_ = nullptr;
  Chunk* last_ = nullptr;
  size_t bytes_ = 0;
};

// Received bytes that could not be used yet, contiguous: a partial head, or pipelined requests.
// One chunk while they fit; a larger head moves to the heap, up to the caller's bound.
class InBuffer {
 public:
  InBuffer() = default;
  ~InBuffer();
  InBuffer(const InBuffer&) = delete;
  InBuffer& operator=(const InBuffer&) = delete;

  [[nodiscard]] bool empty() const { return end_ == at_; }
  [[nodiscard]] size_t size() const { return end_ - at_; }
  [[nodiscard]] std::string_view view() const {
    return empty() ? std::string_view() : std::string_view(base() + at_, size());
  }

  // Appends `bytes`. False when the pool is exhausted or size() would exceed `limit`.
  [[nodiscard]] bool append(ChunkPool& pool, std::string_view bytes, size_t limit);
  // Drops the first `bytes` bytes; the memory goes back when nothing is left.
  void consume(ChunkPool& pool, size_t bytes);
  void clear(ChunkPool& pool) { consume(pool, size()); }

 private:
  [[nodiscard]] const char* base() const { return large_ ? large_.get() : chunk_->bytes; }
  bool make_room(ChunkPool& pool, size_t more);

  Chunk* chunk_ = nullptr;
  std::unique_ptr<char[]> large_;  // instead of chunk_, once that is too small
  uint32_t at_ = 0;
  uint32_t end_ = 0;
  uint32_t capacity_ = 0;
};

}  // namespace ringway
