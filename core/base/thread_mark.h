// core/base/thread_mark.h - which thread this is, for checks that an object stays with its own.
//
// Affinity:  any thread; each gets its own mark. Bounds: one address; no call into the system.
#pragma once

namespace ringway {

// The same in every call from one thread, another one in each living thread. Never null.
[[nodiscard]] inline const void* this_thread_mark() {
  static thread_local const char mark = 0;
  return &mark;
}

}  // namespace ringway
