// pool/budget.h - an exact limit over all shards, without a shared counter on the way of a request.
//
// Affinity:  Budget: any thread; set_max() on one thread only (control). BudgetShare and Lease: the
//            shard they belong to.
// Ownership: the Budget outlives its shares, and every share outlives the last message about it.
// Bounds:    at most kShardsMax shards; no call allocates; no lock, and no loop that waits for
//            another thread.
// Why:       a shard takes units from the Budget in chunks and counts their use in plain integers.
//            What it does not use it gives back when another shard wants it, and units that come
//            free go to the shards that want some, in turn. Small limits are not taken in chunks.
//
// Law:       free + granted of all shares + gifts under way == max, and used <= granted in each
//            share. So used over all shards never exceeds max; after max was lowered it does not
//            grow until it is below.
// Liveness:  pool/budget.cc says why no unit is forgotten while a shard wants one.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "core/base/check.h"
#include "core/counters.h"

namespace ringway {

class Budget;
class BudgetShare;
class Lease;

// How one thread reaches the shards; one object per thread. The messages of one kind to one shard
// about one budget may be merged while the shard has not seen them; none may be lost. `shard` may
// be the caller's own: handled later in the turn, not inside the call.
class BudgetPeers {
 public:
  // Shard `shard` is to call return_surplus() on its share, and then, if its units are held by what
  // can be given up (idle connections): while it has such, and should_free() says so, close one.
  virtual void ask_return(Budget& budget, uint32_t shard) = 0;
  // Shard `shard` was given a unit. It is to call collect(), then try_acquire() for its waiters in
  // order, then settle().
  virtual void notify(Budget& budget, uint32_t shard) = 0;

 protected:
  ~BudgetPeers() = default;
};

// One limit of one server.
class alignas(64) Budget {
 public:
  static constexpr uint32_t kShardsMax = 256;
  static constexpr int64_t kOff = INT64_MAX;  // no limit
  static constexpr int64_t kLimitMax = 1'000'000'000;

  // `shards`: 1..kShardsMax. `max`: 0..kLimitMax, or kOff.
  Budget(uint32_t shards, int64_t max);
  ~Budget();
  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  // Changes the limit. Raised: shards that want get units at once. Lowered below what is granted:
  // nobody acquires until enough was released. From kOff to a limit the shards first report what
  // they use: nobody acquires until all that used it have answered ask_return().
  void set_max(int64_t max, BudgetPeers& peers);
  [[nodiscard]] int64_t max() const { return max_.load(std::memory_order_relaxed); }
  [[nodiscard]] uint32_t shards() const { return shards_; }

  // For metrics and tests; a moment old.
  // What free() + granted of all shares + gifts() amount to: max(), or plenty when that is kOff.
  [[nodiscard]] int64_t units() const { return units(max()); }
  // Units nobody holds; negative: units that shards have to repay.
  [[nodiscard]] int64_t free() const { return free_.load(std::memory_order_relaxed); }
  // Shards that want a unit.
  [[nodiscard]] uint32_t wanting() const { return wanting_.load(std::memory_order_relaxed); }
  // Units given to shards that have not collected them yet.
  [[nodiscard]] int64_t gifts() const;

 private:
  friend class BudgetShare;

  static constexpr uint32_t kWords = kShardsMax / 64;
  static constexpr uint32_t kNobody = UINT32_MAX;
  // What a shard takes at once when there is no limit; more than it can ever use.
  static constexpr int64_t kOffChunk = int64_t{1} << 40;
  static constexpr int64_t kChunkMax = 64;
  using Bits = std::array<std::atomic<uint64_t>, kWords>;
  // To some shards. Lines of their own: what lies beside them in memory may be read per request.
  static constexpr uint32_t kGiftsPerLine = 16;
  struct alignas(64) Gifts {
    std::array<std::atomic<uint32_t>, kGiftsPerLine> of{};
  };

  // All units there are, for law and arithmetic: `max`, or a chunk for each shard.
  [[nodiscard]] int64_t units(int64_t max) const {
    return max == kOff ? int64_t{shards_} * kOffChunk : max;
  }
  // Nobody wants, and nobody has to repay.
  [[nodiscard]] bool calm() const { return wanting_.load() == 0 && free_.load() >= 0; }
  [[nodiscard]] int64_t chunk_of(int64_t units) const;
  [[nodiscard]] std::atomic<uint32_t>& gifts_to(uint32_t shard) const {
    return gifts_[shard / kGiftsPerLine].of[shard % kGiftsPerLine];
  }

  int64_t take_chunk();
  bool take_one();
  void give(int64_t count, BudgetPeers& peers);
  void serve(BudgetPeers& peers);
  void ask_listed(BudgetPeers& peers, uint32_t self);
  uint32_t claim_next();
  bool claim(uint32_t shard);
  void want(uint32_t shard);
  bool begin_free();

  // Read by every acquire and release, written only when units move between shards.
  std::atomic<int64_t> free_;
  std::atomic<int64_t> max_;
  std::atomic<uint32_t> wanting_{0};  // at least the number of bits set in want_
  std::atomic<uint32_t> freeing_{0};  // units that should_free() promised and that are under way
  uint32_t shards_;

  alignas(64) Bits want_{};        // shards that want a unit
  std::atomic<uint32_t> turn_{0};  // the shard that was served last
  alignas(64) Bits listed_{};      // shards that may have something to return
  std::unique_ptr<Gifts[]> gifts_;
};

// What one shard holds of one budget. Plain integers.
class BudgetShare {
 public:
  // `shard`: below budget.shards(), one share for each. `peers`: of this shard's thread.
  // `refills`, if any, counts how often units came from the budget.
  BudgetShare(Budget& budget, uint32_t shard, BudgetPeers& peers, Counter* refills = nullptr)
      : budget_(budget), peers_(peers), refills_(refills), shard_(shard) {
    RW_CHECK(shard < budget.shards());
  }
  // REQUIRES: used() == 0. Returns what it holds.
  ~BudgetShare();
  BudgetShare(const BudgetShare&) = delete;
  BudgetShare& operator=(const BudgetShare&) = delete;

  // Takes a unit; false: none to be had now. False as well when other shards want: they come first.
  // A caller with waiters of its own asks for them first, in their order; on false it queues and
  // calls want(), or refuses.
  // A refusal without want() may come while other shards hold units they do not use, at most
  // surplus_max() each.
  [[nodiscard]] bool try_acquire() {
    if (used_ < granted_ && budget_.free_.load(std::memory_order_relaxed) >= 0) {
      ++used_;
      return true;
    }
    return acquire_slowly();
  }

  // Returns a unit: to this shard, or to those that want it. REQUIRES: used() > 0.
  void release() {
    RW_CHECK(used_ > 0);
    --used_;
    if (listed_ && granted_ - used_ <= surplus_max_ && budget_.calm()) return;
    return_excess();
  }

  // Somebody waits on this shard: asks for one unit, which comes with notify(). Idempotent; valid
  // for one unit, so settle(true) asks again.
  void want();
  // Nobody waits any more. Idempotent. A unit may already be on its way; notify() tells.
  void withdraw();

  // On ask_return().
  void return_surplus();
  // On notify(): what was given is granted now.
  void collect();
  // After collect() and the try_acquire() of the waiters: asks for another unit, or withdraws, and
  // gives back what is not needed.
  void settle(bool still_waiting);

  // This shard holds a unit that it could free, such as an idle connection's: true when it is to
  // free it now because it is needed elsewhere; then release_asked() must follow once it is free.
  // To be called for each such unit when it could be freed first, and again on ask_return(). Cheap
  // when nobody wants.
  [[nodiscard]] bool should_free() {
    if (listed_ && budget_.calm()) return false;
    return should_free_slowly();
  }
  // release() of a unit for which should_free() was true. REQUIRES: used() > 0.
  void release_asked();

  [[nodiscard]] int64_t used() const { return used_; }
  [[nodiscard]] int64_t granted() const { return granted_; }
  // The most this shard keeps unused while nobody wants.
  [[nodiscard]] int64_t surplus_max() const { return surplus_max_; }
  [[nodiscard]] Budget& budget() const { return budget_; }
  [[nodiscard]] uint32_t shard() const { return shard_; }

 private:
  bool acquire_slowly();
  bool should_free_slowly();
  void list();
  void return_excess();
  void give_back(int64_t count);

  Budget& budget_;
  BudgetPeers& peers_;
  Counter* refills_;
  int64_t used_ = 0;
  int64_t granted_ = 0;
  int64_t surplus_max_ = 0;  // for the limit seen last
  uint32_t shard_;
  bool listed_ = false;  // our bit is set in the budget's list, or ask_return() is on its way
};

// One acquired unit; returns itself. Empty after a move.
class Lease {
 public:
  Lease() = default;
  // Empty when there was none to be had.
  [[nodiscard]] static Lease acquire(BudgetShare& share) {
    return share.try_acquire() ? Lease(&share) : Lease();
  }
  Lease(Lease&& other) noexcept : share_(std::exchange(other.share_, nullptr)) {}
  Lease& operator=(Lease&& other) noexcept {
    if (this != &other) {
      release();
      share_ = std::exchange(other.share_, nullptr);
    }
    return *this;
  }
  ~Lease() { release(); }

  explicit operator bool() const { return share_ != nullptr; }
  // Null when empty.
  [[nodiscard]] BudgetShare* share() const { return share_; }
  // Returns the unit now. Idempotent.
  void release() {
    if (BudgetShare* share = std::exchange(share_, nullptr)) share->release();
  }
  // The same after should_free() was true for it. REQUIRES: not empty.
  void release_asked() {
    RW_CHECK(share_ != nullptr);
    std::exchange(share_, nullptr)->release_asked();
  }

 private:
  explicit Lease(BudgetShare* share) : share_(share) {}
  BudgetShare* share_ = nullptr;
};

}  // namespace ringway
