// core/base/check.h - assertions that stay on in production.
//
// RW_CHECK is for bugs of ours. What a peer, the kernel or an operator does wrong is a typed error.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace ringway {

// Prints where and what failed to standard error and aborts. Never returns.
[[noreturn]] inline void check_failed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "%s:%d: check failed: %s\n", file, line, condition);
  std::abort();
}

}  // namespace ringway

#define RW_CHECK(condition)                                    \
  do {                                                         \
    if (__builtin_expect(!(condition), 0)) {                   \
      ::ringway::check_failed(__FILE__, __LINE__, #condition); \
    }                                                          \
  } while (false)
