// core/ring_receive.cc
#include "core/ring_receive.h"

#include <errno.h>
#include <sys/mman.h>

#include "core/base/check.h"
#include "core/uring_compat.h"

namespace ringway {
namespace {

constexpr uint16_t kGroup = 1;
constexpr size_t kPageBytes = 4096;

uint32_t index_of(uint32_t flags) {
  return flags >> IORING_CQE_BUFFER_SHIFT;
}

}  // namespace

ReceiveRing::~ReceiveRing() {
  unmap();
}

void ReceiveRing::unmap() {
  if (entries_ != nullptr) munmap(entries_, mapped_bytes_);
  entries_ = nullptr;
}

int ReceiveRing::start(io_uring& ring, Shape shape) {
  RW_CHECK(entries_ == nullptr);
  RW_CHECK(shape.count > 0 && (shape.count & (shape.count - 1)) == 0);
  const size_t ring_bytes =
      (shape.count * sizeof(io_uring_buf) + kPageBytes - 1) / kPageBytes * kPageBytes;
  mapped_bytes_ = ring_bytes + static_cast<size_t>(shape.count) * shape.buffer_bytes;
  void* memory =
      mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return errno;
  entries_ = static_cast<io_uring_buf_ring*>(memory);
  memory_ = static_cast<std::byte*>(memory) + ring_bytes;
  io_uring_buf_reg request{};
  request.ring_addr = reinterpret_cast<uintptr_t>(entries_);
  request.ring_entries = shape.count;
  request.bgid = kGroup;
  request.pad = shape.incremental ? kPbufRingIncremental : 0;
  const int result = io_uring_register_buf_ring(&ring, &request, 0);
  if (result != 0) {
    unmap();
    return -result;
  }
  io_uring_buf_ring_init(entries_);
  shape_ = shape;
  buffers_.assign(shape.count, Buffer{});
  for (uint32_t i = 0; i < shape.count; ++i) provide(i);
  return 0;
}

void ReceiveRing::provide(uint32_t index) {
  buffers_[index] = Buffer{};
  io_uring_buf_ring_add(entries_, memory_ + static_cast<size_t>(index) * shape_.buffer_bytes,
                        shape_.buffer_bytes, static_cast<unsigned short>(index),
                        io_uring_buf_ring_mask(shape_.count), 0);
  io_uring_buf_ring_advance(entries_, 1);
  ++with_kernel_;
  RW_CHECK(with_kernel_ <= shape_.count);
}

void ReceiveRing::prepare(io_uring_sqe& entry, int fd) const {
  io_uring_prep_recv_multishot(&entry, fd, nullptr, 0, 0);
  // Poll first: without it an empty buffer ring fails the receive even where no bytes wait.
  entry.ioprio |= IORING_RECVSEND_POLL_FIRST;
  entry.flags |= IOSQE_BUFFER_SELECT;
  entry.buf_group = kGroup;
}

bool ReceiveRing::ends_buffer(uint32_t flags) {
  return (flags & IORING_CQE_F_BUFFER) != 0 && (flags & kCqeBufferMore) == 0;
}

void ReceiveRing::note(uint32_t flags) {
  if (!ends_buffer(flags)) return;
  RW_CHECK(index_of(flags) < shape_.count);
  RW_CHECK(!buffers_[index_of(flags)].returning);
  RW_CHECK(with_kernel_ > 0);
  buffers_[index_of(flags)].returning = true;
  --with_kernel_;
}

std::span<const std::byte> ReceiveRing::bytes(uint32_t flags, int32_t result) {
  if (result <= 0) return {};
  RW_CHECK((flags & IORING_CQE_F_BUFFER) != 0);
  const uint32_t index = index_of(flags);
  RW_CHECK(index < shape_.count);
  Buffer& buffer = buffers_[index];
  const std::byte* first =
      memory_ + static_cast<size_t>(index) * shape_.buffer_bytes + buffer.filled;
  buffer.filled += static_cast<uint32_t>(result);
  RW_CHECK(buffer.filled <= shape_.buffer_bytes);
  return {first, static_cast<size_t>(result)};
}

void ReceiveRing::give_back(uint32_t flags) {
  if (!ends_buffer(flags)) return;
  RW_CHECK(buffers_[index_of(flags)].returning);
  provide(index_of(flags));
}

}  // namespace ringway
