// core/uring_compat.h - kernel constants that liburing 2.3 does not know yet.
//
// Source: include/uapi/linux/io_uring.h of Linux 6.12, which introduced incremental buffers.
#pragma once

#include <liburing.h>

#include <cstdint>

namespace ringway {

// io_uring_buf_reg::flags, called `pad` in liburing 2.3: receives use a buffer up piece by piece.
inline constexpr uint16_t kPbufRingIncremental = 2;
// In a completion: the kernel goes on filling the buffer that it names.
inline constexpr uint32_t kCqeBufferMore = 1U << 4;

}  // namespace ringway
