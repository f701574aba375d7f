// core/chunks.cc
#include "core/chunks.h"

#include <string.h>

#include <algorithm>

#include "core/base/check.h"

namespace ringway {

ChunkPool::~ChunkPool() {
  RW_CHECK(in_use_ == 0);
}

Chunk* ChunkPool::take() {
  if (free_ == nullptr) {
    if (all_.size() >= capacity_) {
      refused_.add();
      return nullptr;
    }
    // Not value-initialised: clearing 16 KiB would touch every line of it.
    all_.push_back(std::unique_ptr<Chunk>(new Chunk));
    free_ = all_.back().get();
  }
  Chunk* chunk = free_;
  free_ = chunk->next;
  chunk->next = nullptr;
  chunk->at = chunk->end = 0;
  ++in_use_;
  return chunk;
}

void ChunkPool::give_back(Chunk* chunk) {
  RW_CHECK(chunk != nullptr && in_use_ > 0);
  chunk->next = free_;
  free_ = chunk;
  --in_use_;
}

OutQueue::~OutQueue() {
  RW_CHECK(first_ == nullptr);
}

bool OutQueue::append(ChunkPool& pool, std::span<const iovec> pieces, size_t skip) {
  for (const iovec& piece : pieces) {
    const size_t jump = std::min(skip, piece.iov_len);
    skip -= jump;
    const char* from = static_cast<const char*>(piece.iov_base) + jump;
    size_t left = piece.iov_len - jump;
    while (left > 0) {
      if (last_ == nullptr || last_->end == Chunk::kBytes) {
        Chunk* chunk = pool.take();
        if (chunk == nullptr) return false;
        (last_ == nullptr ? first_ : last_->next) = chunk;
        last_ = chunk;
      }
      const size_t part = std::min(left, Chunk::kBytes - last_->end);
      memcpy(last_->bytes + last_->end, from, part);
      last_->end += static_cast<uint32_t>(part);
      bytes_ += part;
      from += part;
      left -= part;
    }
  }
  return true;
}

size_t OutQueue::peek(std::span<iovec> out) const {
  size_t count = 0;
  for (Chunk* chunk = first_; chunk != nullptr && count < out.size(); chunk = chunk->next) {
    out[count++] = {.iov_base = chunk->bytes + chunk->at, .iov_len = chunk->end - chunk->at};
  }
  return count;
}

void OutQueue::consume(ChunkPool& pool, size_t bytes) {
  RW_CHECK(bytes <= bytes_);
  bytes_ -= bytes;
  while (first_ != nullptr) {
    const size_t part = std::min<size_t>(bytes, first_->end - first_->at);
    first_->at += static_cast<uint32_t>(part);
    bytes -= part;
    if (first_->at != first_->end) break;
    Chunk* done = first_;
    first_ = done->next;
    if (first_ == nullptr) last_ = nullptr;
    pool.give_back(done);
  }
  RW_CHECK(bytes == 0);
}

InBuffer::~InBuffer() {
  RW_CHECK(chunk_ == nullptr);
}

bool InBuffer::append(ChunkPool& pool, std::string_view bytes, size_t limit) {
  if (bytes.empty()) return true;
  if (bytes.size() > limit || size() > limit - bytes.size()) return false;
  if (!make_room(pool, bytes.size())) return false;
  char* to = large_ ? large_.get() : chunk_->bytes;
  memcpy(to + end_, bytes.data(), bytes.size());
  end_ += static_cast<uint32_t>(bytes.size());
  return true;
}

bool InBuffer::make_room(ChunkPool& pool, size_t more) {
  if (chunk_ == nullptr && !large_ && more <= Chunk::kBytes) {
    chunk_ = pool.take();
    if (chunk_ == nullptr) return false;
    capacity_ = Chunk::kBytes;
    at_ = end_ = 0;
  }
  if (end_ + more <= capacity_) return true;
  const size_t used = size();
  if (used + more <= capacity_) {
    char* start = large_ ? large_.get() : chunk_->bytes;
    memmove(start, start + at_, used);
  } else {
    // Doubling keeps a head that trickles in linear.
    const size_t wanted = std::max<size_t>(used + more, size_t{2} * capacity_);
    auto larger = std::make_unique_for_overwrite<char[]>(wanted);
    if (used > 0) memcpy(larger.get(), base() + at_, used);
    if (chunk_ != nullptr) pool.give_back(chunk_);
    chunk_ = nullptr;
    large_ = std::move(larger);
    capacity_ = static_cast<uint32_t>(wanted);
  }
  at_ = 0;
  end_ = static_cast<uint32_t>(used);
  return true;
}

void InBuffer::consume(ChunkPool& pool, size_t bytes) {
  RW_CHECK(bytes <= size());
  at_ += static_cast<uint32_t>(bytes);
  if (at_ != end_) return;
  if (chunk_ != nullptr) pool.give_back(chunk_);
  chunk_ = nullptr;
  large_.reset();
  at_ = end_ = capacity_ = 0;
}

}  // namespace ringway
