// core/ring_receive.h - the buffers that multishot receives fill: a small ring shared by all
// sockets of one engine.
//
// Affinity:  the thread of the ring. Ownership: the memory; it must outlive the io_uring.
// Bounds:    `count` buffers, each either with the kernel or on its way back; never lost. What a
//            paused socket must keep is copied out of them (core/socket_receive.cc), so that one
//            slow owner cannot starve the others.
// Why small: a large pool walks through the cache, and was measured up to 49 % dearer
//            (docs/decisions.md).
// Source:    io_uring_register_buf_ring(3); incremental use since Linux 6.12.
#pragma once

#include <liburing.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace ringway {

class ReceiveRing {
 public:
  struct Shape {
    uint32_t count;         // of buffers, a power of two
    uint32_t buffer_bytes;  // of each
    bool incremental;       // receives use a buffer up piece by piece, instead of one each
  };
  static constexpr Shape kPlain{32, 64 * 1024, false};
  static constexpr Shape kIncremental{16, 64 * 1024, true};

  ReceiveRing() = default;
  ~ReceiveRing();
  ReceiveRing(const ReceiveRing&) = delete;
  ReceiveRing& operator=(const ReceiveRing&) = delete;

  // Registers the buffers. Returns 0 or a positive errno: EINVAL where the kernel has none, or no
  // incremental ones. Once.
  [[nodiscard]] int start(io_uring& ring, Shape shape);
  [[nodiscard]] Shape shape() const { return shape_; }

  // Makes `entry` a multishot receive on `fd`.
  void prepare(io_uring_sqe& entry, int fd) const;
  // A completion with these cqe flags was taken from the queue. Each, in order.
  void note(uint32_t flags);
  // The bytes of that completion. Valid until give_back(). REQUIRES: in the order of note().
  [[nodiscard]] std::span<const std::byte> bytes(uint32_t flags, int32_t result);
  // The bytes are not needed any more. Once after bytes() for every completion.
  void give_back(uint32_t flags);
  // Buffers that the kernel can fill.
  [[nodiscard]] uint32_t with_kernel() const { return with_kernel_; }

 private:
  struct Buffer {
    uint32_t filled = 0;     // bytes handed out of it in this round
    bool returning = false;  // the kernel is done with it; give_back() follows
  };

  void unmap();
  void provide(uint32_t index);
  // Whether the kernel is done with the buffer that `flags` name.
  static bool ends_buffer(uint32_t flags);

  io_uring_buf_ring* entries_ = nullptr;  // shared with the kernel
  std::byte* memory_ = nullptr;
  size_t mapped_bytes_ = 0;
  Shape shape_{0, 0, false};
  uint32_t with_kernel_ = 0;
  std::vector<Buffer> buffers_;
};

}  // namespace ringway
