// proto/http2_blocks.cc
#include "proto/http2_blocks.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "core/base/check.h"

namespace ringway::h2 {

BlockPool::BlockPool()
    : mem_{.mem_user_data = this,
           .malloc = on_malloc,
           .free = on_free,
           .calloc = on_calloc,
           .realloc = on_realloc} {}

BlockPool::~BlockPool() {
  for (size_t kind = 0; kind < kSizes.size(); ++kind) {
    for (size_t i = 0; i < num_kept_[kind]; ++i) free(kept_[kind][i]);
  }
}

// Never null: like operator new, running out of memory ends the process.
void* BlockPool::take(size_t size) {
  RW_CHECK(size <= SIZE_MAX - sizeof(Header));
  const size_t whole = size + sizeof(Header);
  size_t kind = 0;
  while (kind < kSizes.size() && kSizes[kind] < whole) ++kind;
  Header* header;
  if (kind < kSizes.size() && num_kept_[kind] > 0) {
    header = kept_[kind][--num_kept_[kind]];
  } else {
    ++mallocs_;
    header = static_cast<Header*>(malloc(kind < kSizes.size() ? kSizes[kind] : whole));
    RW_CHECK(header != nullptr);
    header->kind = kind;
  }
  header->size = size;
  return header + 1;
}

void BlockPool::give(void* block) {
  if (block == nullptr) return;
  Header* const header = static_cast<Header*>(block) - 1;
  const size_t kind = header->kind;
  if (kind == kSizes.size() || num_kept_[kind] == kKept) {
    free(header);
    return;
  }
  kept_[kind][num_kept_[kind]++] = header;
}

void* BlockPool::on_malloc(size_t size, void* pool) {
  return static_cast<BlockPool*>(pool)->take(size);
}

void BlockPool::on_free(void* block, void* pool) {
  static_cast<BlockPool*>(pool)->give(block);
}

void* BlockPool::on_calloc(size_t number, size_t size, void* pool) {
  RW_CHECK(size == 0 || number <= SIZE_MAX / size);
  void* const block = static_cast<BlockPool*>(pool)->take(number * size);
  memset(block, 0, number * size);
  return block;
}

void* BlockPool::on_realloc(void* block, size_t size, void* pool) {
  BlockPool& self = *static_cast<BlockPool*>(pool);
  void* const larger = self.take(size);
  if (block != nullptr) {
    memcpy(larger, block, std::min(size, (static_cast<Header*>(block) - 1)->size));
    self.give(block);
  }
  return larger;
}

}  // namespace ringway::h2
