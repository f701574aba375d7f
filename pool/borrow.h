// pool/borrow.h - one shard asks another for an idle connection.
//
// Affinity:  a Borrow belongs to the shard that holds it and travels whole, by mailbox. BorrowHints
//            are shared; shards write them when they begin or cease to have something to lend, at
//            most some fifty times a second each, and read them only when they have nothing.
// Bounds:    ServerSlot::kBorrowsMax requests under way per server and shard.
// Why:       with many shards and little traffic each shard would keep connections of its own and
//            hardly ever use one twice (docs/decisions.md).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

namespace ringway {

// What a connection has been through, so that the pool that takes it in knows it as well.
struct ConnPast {
  int64_t created_ms = 0;
  int64_t hint_ms = 0;
  uint64_t requests = 0;
  uint64_t finished = 0;
  uint64_t requests_max = UINT64_MAX;
  int64_t age_max_ms = INT64_MAX;
  bool usable = true;  // it may go on: nothing has ended its use meanwhile
};

// The question, and in the same object the answer.
struct Borrow {
  const void* server = nullptr;  // which one: the object that all shards know it by
  uint32_t from = 0;             // the shard that asks
  uint64_t token = 0;            // its name for this question
  uint64_t hash = 0;
  std::string key;           // the whole key; equal in all shards, which share the secret
  bool proven_only = false;  // only one that has served a second request will do
  int fd = -1;               // the answer; -1: nothing to lend
  ConnPast past;
};

// Which shards have connections to one server to lend.
class BorrowHints {
 public:
  static constexpr uint32_t kNobody = UINT32_MAX;
  static constexpr uint32_t kShardsMax = 256;

  void set(uint32_t shard) { word(shard).fetch_or(bit(shard), std::memory_order_relaxed); }
  void clear(uint32_t shard) { word(shard).fetch_and(~bit(shard), std::memory_order_relaxed); }
  [[nodiscard]] bool is_set(uint32_t shard) const {
    return (words_[shard / 64].load(std::memory_order_relaxed) & bit(shard)) != 0;
  }
  // The next shard after `start` that has something, other than `self`; kNobody: none.
  [[nodiscard]] uint32_t next(uint32_t start, uint32_t self, uint32_t shards) const {
    for (uint32_t i = 1; i <= shards; ++i) {
      const uint32_t shard = (start + i) % shards;
      if (shard != self && is_set(shard)) return shard;
    }
    return kNobody;
  }

 private:
  static uint64_t bit(uint32_t shard) { return uint64_t{1} << (shard % 64); }
  std::atomic<uint64_t>& word(uint32_t shard) { return words_[shard / 64]; }

  alignas(64) std::array<std::atomic<uint64_t>, kShardsMax / 64> words_{};
};

// How a slot reaches the slots of the same server on other shards.
class BorrowPost {
 public:
  // Takes the question to shard `to`, whose slot of that server gets it by lend().
  virtual void ask(uint32_t to, std::unique_ptr<Borrow> borrow) = 0;
  // Takes the answer back to borrow->from, whose slot gets it by lent(). Whoever finds no such
  // server closes the descriptor.
  virtual void answer(std::unique_ptr<Borrow> borrow) = 0;

 protected:
  ~BorrowPost() = default;
};

}  // namespace ringway
