// tests/shared_writes/recorder.cc - counts cache lines that move between shards.
//
// Stands in for libtsan: a program compiled with -fsanitize=thread calls it at every load and store
// of its own code (not at those of the kernel and of libraries, of which memcpy(3) and its like are
// seen). It follows each line as caches do: a write takes the line from whoever wrote it last, and
// who reads it after that fetches it again. A line whose memory is freed by one shard and used by
// another moves once for that, not per request.
//
// Affinity:  any thread; only threads named shard-N are looked at, N below kShards.
// Ownership: the file named by SHARED_WRITES_FILE is the table, mapped by the test too, which
//            switches recording on and off, and clears it (tests/e2e/test_shared_writes.py has the
//            same layout).
// Bounds:    kSlots lines; those that find no place are counted in `dropped`.
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace {

constexpr size_t kShards = 4;
constexpr unsigned kSlotBits = 17;
constexpr size_t kSlots = size_t{1} << kSlotBits;
constexpr size_t kProbesMax = 64;
constexpr unsigned kLineBits = 6;

// Code addresses are those of the last write that took the line away from others, and of the last
// read that fetched it.
struct Slot {
  std::atomic<uint64_t> line;     // 0: free
  std::atomic<uint32_t> owner;    // 1 + the shard that wrote last; 0: none since it was cleared
  std::atomic<uint32_t> holders;  // bits of the shards that have seen the last write
  std::atomic<uint32_t> writes[kShards];
  std::atomic<uint32_t> takes[kShards];    // writes to what another shard had written last
  std::atomic<uint32_t> fetches[kShards];  // reads of what another shard had written since
  std::atomic<uint64_t> write_code[kShards];
  std::atomic<uint64_t> fetch_code[kShards];
};
static_assert(sizeof(Slot) == 128);

struct Table {
  std::atomic<uint32_t> on;
  std::atomic<uint32_t> dropped;
  char pad[120];
  Slot slots[kSlots];
};

Table* g_table = nullptr;
thread_local int t_shard = -1;  // none
void* (*g_memcpy)(void*, const void*, size_t) = nullptr;
void* (*g_memmove)(void*, const void*, size_t) = nullptr;
void* (*g_memset)(void*, int, size_t) = nullptr;
int (*g_setname)(pthread_t, const char*) = nullptr;

void bump(std::atomic<uint32_t>& one) {
  one.store(one.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

Slot* slot_of(uint64_t line) {
  const size_t start = (line * 0x9E3779B97F4A7C15) >> (64 - kSlotBits);
  for (size_t i = 0; i < kProbesMax; ++i) {
    Slot& slot = g_table->slots[(start + i) % kSlots];
    uint64_t there = slot.line.load(std::memory_order_relaxed);
    if (there == line) return &slot;
    if (there == 0 && (slot.line.compare_exchange_strong(there, line) || there == line)) {
      return &slot;
    }
  }
  g_table->dropped.fetch_add(1);
  return nullptr;
}

void on_write(Slot& slot, uint32_t shard, uint64_t code) {
  const uint32_t self = shard + 1;
  const uint32_t bit = 1U << shard;
  bump(slot.writes[shard]);
  if (slot.owner.load() == self && slot.holders.load() == bit) return;
  slot.write_code[shard].store(code, std::memory_order_relaxed);
  const uint32_t before = slot.owner.exchange(self);
  slot.holders.store(bit);
  if (before != 0 && before != self) bump(slot.takes[shard]);
}

void on_read(Slot& slot, uint32_t shard, uint64_t code) {
  const uint32_t owner = slot.owner.load(std::memory_order_relaxed);
  const uint32_t bit = 1U << shard;
  if (owner == 0 || owner == shard + 1 || (slot.holders.load() & bit) != 0) return;
  slot.holders.fetch_or(bit);
  bump(slot.fetches[shard]);
  slot.fetch_code[shard].store(code, std::memory_order_relaxed);
}

void record(const volatile void* address, size_t size, bool write, const void* code) {
  if (t_shard < 0 || g_table == nullptr || size == 0) return;
  if (g_table->on.load(std::memory_order_relaxed) == 0) return;
  const auto at = reinterpret_cast<uintptr_t>(address);
  for (uint64_t line = at >> kLineBits; line <= (at + size - 1) >> kLineBits; ++line) {
    Slot* slot = slot_of(line);
    if (slot == nullptr) continue;
    (write ? on_write : on_read)(*slot, static_cast<uint32_t>(t_shard),
                                 reinterpret_cast<uintptr_t>(code));
  }
}

template <typename Function>
void find_next(Function& function, const char* name) {
  function = reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

[[gnu::constructor]] void begin() {
  find_next(g_memcpy, "memcpy");
  find_next(g_memmove, "memmove");
  find_next(g_memset, "memset");
  find_next(g_setname, "pthread_setname_np");
  const char* path = getenv("SHARED_WRITES_FILE");
  if (path == nullptr) return;
  const int fd = open(path, O_RDWR | O_CLOEXEC);
  void* mapped =
      fd < 0 ? MAP_FAILED : mmap(nullptr, sizeof(Table), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mapped == MAP_FAILED) {
    perror(path);
    _exit(71);
  }
  close(fd);
  g_table = static_cast<Table*>(mapped);
}

}  // namespace

#define RW_CODE __builtin_return_address(0)

extern "C" {

// Until begin() has run nobody records, and the real ones are not known.
void* memcpy(void* to, const void* from, size_t size) {
  if (g_memcpy == nullptr) {
    for (size_t i = 0; i < size; ++i) static_cast<char*>(to)[i] = static_cast<const char*>(from)[i];
    return to;
  }
  record(from, size, false, RW_CODE);
  record(to, size, true, RW_CODE);
  return g_memcpy(to, from, size);
}

void* memmove(void* to, const void* from, size_t size) {
  if (g_memmove == nullptr) find_next(g_memmove, "memmove");
  record(from, size, false, RW_CODE);
  record(to, size, true, RW_CODE);
  return g_memmove(to, from, size);
}

void* memset(void* to, int value, size_t size) {
  if (g_memset == nullptr) {
    for (size_t i = 0; i < size; ++i) static_cast<char*>(to)[i] = static_cast<char>(value);
    return to;
  }
  record(to, size, true, RW_CODE);
  return g_memset(to, value, size);
}

int pthread_setname_np(pthread_t thread, const char* name) {
  unsigned number = 0;
  if (thread == pthread_self() && sscanf(name, "shard-%u", &number) == 1 && number < kShards) {
    t_shard = static_cast<int>(number);
  }
  return g_setname(thread, name);
}

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_atomic_thread_fence(int) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
}
void __tsan_atomic_signal_fence(int) {
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

void __tsan_read_range(void* at, unsigned long size) {
  record(at, size, false, RW_CODE);
}
void __tsan_write_range(void* at, unsigned long size) {
  record(at, size, true, RW_CODE);
}
void __tsan_vptr_read(void** at) {
  record(at, sizeof *at, false, RW_CODE);
}
void __tsan_vptr_update(void** at, void*) {
  record(at, sizeof *at, true, RW_CODE);
}

#define RW_PLAIN(size)                          \
  void __tsan_read##size(void* at) {            \
    record(at, size, false, RW_CODE);           \
  }                                             \
  void __tsan_write##size(void* at) {           \
    record(at, size, true, RW_CODE);            \
  }                                             \
  void __tsan_unaligned_read##size(void* at) {  \
    record(at, size, false, RW_CODE);           \
  }                                             \
  void __tsan_unaligned_write##size(void* at) { \
    record(at, size, true, RW_CODE);            \
  }
RW_PLAIN(1)
RW_PLAIN(2)
RW_PLAIN(4)
RW_PLAIN(8)
RW_PLAIN(16)

// Sequentially consistent, whatever was asked for. One that compares in vain takes the line too.
#define RW_FETCH(bits, type, name)                                              \
  type __tsan_atomic##bits##_fetch_##name(volatile type* at, type value, int) { \
    record(at, sizeof *at, true, RW_CODE);                                      \
    return __atomic_fetch_##name(at, value, __ATOMIC_SEQ_CST);                  \
  }
#define RW_COMPARE(bits, type, name)                                                             \
  int __tsan_atomic##bits##_compare_exchange_##name(volatile type* at, type* wanted, type value, \
                                                    int, int) {                                  \
    record(at, sizeof *at, true, RW_CODE);                                                       \
    return __atomic_compare_exchange_n(at, wanted, value, false, __ATOMIC_SEQ_CST,               \
                                       __ATOMIC_SEQ_CST);                                        \
  }
#define RW_ATOMIC(bits, type)                                                                      \
  type __tsan_atomic##bits##_load(const volatile type* at, int) {                                  \
    record(at, sizeof *at, false, RW_CODE);                                                        \
    return __atomic_load_n(at, __ATOMIC_SEQ_CST);                                                  \
  }                                                                                                \
  void __tsan_atomic##bits##_store(volatile type* at, type value, int) {                           \
    record(at, sizeof *at, true, RW_CODE);                                                         \
    __atomic_store_n(at, value, __ATOMIC_SEQ_CST);                                                 \
  }                                                                                                \
  type __tsan_atomic##bits##_exchange(volatile type* at, type value, int) {                        \
    record(at, sizeof *at, true, RW_CODE);                                                         \
    return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST);                                       \
  }                                                                                                \
  type __tsan_atomic##bits##_compare_exchange_val(volatile type* at, type wanted, type value, int, \
                                                  int) {                                           \
    record(at, sizeof *at, true, RW_CODE);                                                         \
    __atomic_compare_exchange_n(at, &wanted, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);    \
    return wanted;                                                                                 \
  }                                                                                                \
  RW_COMPARE(bits, type, strong)                                                                   \
  RW_COMPARE(bits, type, weak)                                                                     \
  RW_FETCH(bits, type, add)                                                                        \
  RW_FETCH(bits, type, sub)                                                                        \
  RW_FETCH(bits, type, and)                                                                        \
  RW_FETCH(bits, type, or)                                                                         \
  RW_FETCH(bits, type, xor)                                                                        \
  RW_FETCH(bits, type, nand)
RW_ATOMIC(8, char)
RW_ATOMIC(16, short)
RW_ATOMIC(32, int)
RW_ATOMIC(64, long)

}  // extern "C"
