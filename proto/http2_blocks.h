// proto/http2_blocks.h - memory for nghttp2's header compression that is used again and again.
//
// Affinity:  one thread; one per codec. Internal to proto.
// Bounds:    keeps at most kKept freed blocks of each size (3 KiB together); what is larger, or
//            one too many, comes from malloc(3) and goes back there.
// Why:       nghttp2 allocates for each block, each literal and each table entry, and frees as
// much:
//            in steady state those are the same few sizes.
#pragma once

#include <nghttp2/nghttp2.h>

#include <array>
#include <cstddef>
#include <cstdint>

namespace ringway::h2 {

class BlockPool {
 public:
  BlockPool();
  ~BlockPool();
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  // For nghttp2_hd_*_new2(). Lives as long as the pool, which must outlive what uses it.
  [[nodiscard]] nghttp2_mem* mem() { return &mem_; }
  // How often malloc(3) was asked.
  [[nodiscard]] uint64_t mallocs() const { return mallocs_; }

 private:
  static constexpr std::array<size_t, 3> kSizes = {64, 192, 512};  // a Header's included
  static constexpr size_t kKept = 4;
  // In front of each block; keeps what nghttp2 puts behind it aligned.
  struct alignas(16) Header {
    size_t kind;  // an index into kSizes, or kSizes.size()
    size_t size;  // of what was asked for
  };

  static void* on_malloc(size_t size, void* pool);
  static void on_free(void* block, void* pool);
  static void* on_calloc(size_t number, size_t size, void* pool);
  static void* on_realloc(void* block, size_t size, void* pool);

  void* take(size_t size);
  void give(void* block);

  nghttp2_mem mem_;
  std::array<std::array<Header*, kKept>, kSizes.size()> kept_{};
  std::array<uint8_t, kSizes.size()> num_kept_{};
  uint64_t mallocs_ = 0;
};

}  // namespace ringway::h2
