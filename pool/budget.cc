// pool/budget.cc
//
// Why no unit is forgotten. All operations on the shared words are sequentially consistent (the
// default below; on x86-64 a load costs nothing more), so two threads that each write one word and
// then read the other's cannot both miss. Four pairs of that form carry everything:
//
// 1. A unit comes free, and a shard wants. give(): free_ += n, then reads wanting_ and want_ in
//    serve(). want(): wanting_ += 1, sets its bit, then reads free_ in serve(). One of them hands
//    the unit over. A thread in serve() that took a unit and found no bit puts it back and looks at
//    the bits again, which is give() once more.
// 2. A unit stays unused in a share, and another shard wants. The holder sets its bit in listed_,
//    then reads wanting_ (calm()), and returns all if it is not zero. want(): wanting_ += 1, then
//    takes the bits out of listed_ and sends ask_return() to each. So a surplus is listed, or an
//    ask_return() is on its way, or the holder is about to return it. Once listed the holder leaves
//    its bit alone: later releases need no store that others see, since the one that takes the bit
//    sends a message, and the mailbox orders what the holder does after it behind want().
// 3. Units must be repaid. set_max(): free_ drops below zero, then takes the bits out of listed_.
//    The holder: its bit, then free_ in calm(). The same pair as 2 with another word.
// 4. A unit that could be freed (should_free()): the same pair as 2 again. Not every idle
// connection
//    is closed for one unit: freeing_ counts the promises, and a shard declines when there are
//    enough. A promise ends (freeing_ -= 1) before its unit is given, and if somebody still wants
//    after that, the listed ones are asked again; so a promise whose unit went elsewhere does not
//    leave anybody waiting.
//
// Gifts: whoever takes a shard's want bit owes it a unit: adds to its gifts, then sends notify().
// The shard uses it or, in settle(), gives it back, which is 1 again.
//
// Turns: units that come free under want go by turn_ through serve() even when the releasing shard
// has waiters of its own, and try_acquire() takes nothing from free_ while anybody wants, so each
// wanting shard is served within one round of the others.
#include "pool/budget.h"

#include <algorithm>
#include <bit>

namespace ringway {

namespace {

constexpr uint64_t bit_of(uint32_t shard) {
  return uint64_t{1} << (shard % 64);
}

}  // namespace

Budget::Budget(uint32_t shards, int64_t max)
    : free_(0),
      max_(max),
      shards_(shards),
      gifts_(std::make_unique<Gifts[]>((shards + kGiftsPerLine - 1) / kGiftsPerLine)) {
  RW_CHECK(shards >= 1 && shards <= kShardsMax);
  RW_CHECK(max == kOff || (max >= 0 && max <= kLimitMax));
  free_ = units(max);
}

Budget::~Budget() {
  RW_CHECK(free() + gifts() == units());  // every unit came back
}

int64_t Budget::gifts() const {
  int64_t sum = 0;
  for (uint32_t i = 0; i < shards_; ++i) sum += gifts_to(i).load(std::memory_order_relaxed);
  return sum;
}

void Budget::set_max(int64_t max, BudgetPeers& peers) {
  RW_CHECK(max == kOff || (max >= 0 && max <= kLimitMax));
  const int64_t change = units(max) - units();
  max_ = max;
  give(change, peers);
  if (change < 0) ask_listed(peers, kNobody);
}

// A share of `units` that one shard may hold without starving the others.
int64_t Budget::chunk_of(int64_t units) const {
  if (max() == kOff) return kOffChunk;
  return std::clamp<int64_t>(units / (2 * int64_t{shards_}), 1, kChunkMax);
}

int64_t Budget::take_chunk() {
  int64_t free = free_.load();
  while (free > 0) {
    const int64_t count = std::min(chunk_of(free), free);
    if (free_.compare_exchange_weak(free, free - count)) return count;
  }
  return 0;
}

bool Budget::take_one() {
  int64_t free = free_.load();
  while (free > 0) {
    if (free_.compare_exchange_weak(free, free - 1)) return true;
  }
  return false;
}

// `count` may be negative: the limit was lowered.
void Budget::give(int64_t count, BudgetPeers& peers) {
  const int64_t before = free_.fetch_add(count);
  serve(peers);
  // The last shard has reported after kOff: only now it is known what is to be freed.
  if (before < -kLimitMax && before + count >= -kLimitMax && before + count < 0) {
    ask_listed(peers, kNobody);
  }
}

// Hands free units to the shards that want, in turn, until either runs out.
void Budget::serve(BudgetPeers& peers) {
  while (wanting_.load() != 0 && take_one()) {
    const uint32_t shard = claim_next();
    if (shard != kNobody) {
      gifts_to(shard).fetch_add(1);
      peers.notify(*this, shard);
      continue;
    }
    // Others were faster, or a bit is not set yet, and its shard will look at free_ itself.
    free_.fetch_add(1);
    if (std::all_of(want_.begin(), want_.end(), [](auto& word) { return word.load() == 0; }))
      return;
  }
}

// Takes the want bit that comes next after the shard served last, going round.
uint32_t Budget::claim_next() {
  const uint32_t start = (turn_.load() + 1) % kShardsMax;
  for (uint32_t i = 0; i <= kWords; ++i) {
    const uint32_t word = (start / 64 + i) % kWords;
    uint64_t bits = want_[word].load();
    if (i == 0) bits &= ~uint64_t{0} << (start % 64);
    for (; bits != 0; bits &= bits - 1) {
      const uint32_t shard = word * 64 + static_cast<uint32_t>(std::countr_zero(bits));
      if (!claim(shard)) continue;
      turn_ = shard;
      return shard;
    }
  }
  return kNobody;
}

bool Budget::claim(uint32_t shard) {
  if ((want_[shard / 64].fetch_and(~bit_of(shard)) & bit_of(shard)) == 0) return false;
  wanting_.fetch_sub(1);
  return true;
}

void Budget::want(uint32_t shard) {
  wanting_.fetch_add(1);
  const uint64_t before = want_[shard / 64].fetch_or(bit_of(shard));
  RW_CHECK((before & bit_of(shard)) == 0);  // only the shard itself sets it
}

// Asks the shards that may have something to return, `self` excepted, each once per listing.
void Budget::ask_listed(BudgetPeers& peers, uint32_t self) {
  for (uint32_t word = 0; word < kWords; ++word) {
    const uint64_t own = self / 64 == word ? bit_of(self) : 0;
    if ((listed_[word].load() & ~own) == 0) continue;
    uint64_t bits = listed_[word].fetch_and(own) & ~own;
    for (; bits != 0; bits &= bits - 1) {
      peers.ask_return(*this, word * 64 + static_cast<uint32_t>(std::countr_zero(bits)));
    }
  }
}

// True when more units are needed than are being freed already; counts one more.
bool Budget::begin_free() {
  const int64_t free = free_.load();
  // Below -kLimitMax some shard has not said yet what it does not use: give() asks again.
  const int64_t owed = free < 0 && free >= -kLimitMax ? -free : 0;
  uint32_t freeing = freeing_.load();
  while (freeing < int64_t{wanting_.load()} + owed) {
    if (freeing_.compare_exchange_weak(freeing, freeing + 1)) return true;
  }
  return false;
}

BudgetShare::~BudgetShare() {
  RW_CHECK(used_ == 0);
  withdraw();
  collect();
  budget_.listed_[shard_ / 64].fetch_and(~bit_of(shard_));
  if (granted_ > 0) give_back(granted_);
}

bool BudgetShare::acquire_slowly() {
  if (used_ < granted_) give_back(granted_ - used_);  // the limit was lowered
  if (budget_.wanting_.load() != 0) return false;
  const int64_t taken = budget_.take_chunk();
  if (taken == 0) return false;
  if (refills_ != nullptr) refills_->add();
  granted_ += taken;
  ++used_;
  return_excess();
  return true;
}

void BudgetShare::want() {
  if ((budget_.want_[shard_ / 64].load() & bit_of(shard_)) != 0) return;
  budget_.want(shard_);
  budget_.serve(peers_);
  budget_.ask_listed(peers_, shard_);
}

void BudgetShare::withdraw() {
  if ((budget_.want_[shard_ / 64].load() & bit_of(shard_)) != 0) budget_.claim(shard_);
}

void BudgetShare::return_surplus() {
  listed_ = false;  // who asked has taken our bit
  if (used_ < granted_) give_back(granted_ - used_);
}

void BudgetShare::collect() {
  const uint32_t given = budget_.gifts_to(shard_).exchange(0);
  if (given > 0 && refills_ != nullptr) refills_->add();
  granted_ += given;
}

void BudgetShare::settle(bool still_waiting) {
  return_excess();
  if (still_waiting) {
    want();
  } else {
    withdraw();
  }
}

void BudgetShare::release_asked() {
  RW_CHECK(used_ > 0);
  RW_CHECK(budget_.freeing_.load() > 0);
  --used_;
  budget_.freeing_.fetch_sub(1);
  give_back(granted_ - used_);
  if (!budget_.calm()) budget_.ask_listed(peers_, Budget::kNobody);
}

bool BudgetShare::should_free_slowly() {
  list();
  return !budget_.calm() && budget_.begin_free();
}

void BudgetShare::list() {
  if (listed_) return;
  listed_ = true;
  budget_.listed_[shard_ / 64].fetch_or(bit_of(shard_));
}

// Gives back what is unused beyond what may be kept: nothing while others want, and nothing of a
// small limit.
void BudgetShare::return_excess() {
  const int64_t max = budget_.max();
  const bool small = max < 2 * int64_t{budget_.shards()};
  const int64_t keep = small ? 0 : budget_.chunk_of(max);
  surplus_max_ = 2 * keep;
  if (used_ == granted_) return;
  if (small || !budget_.calm()) {
    give_back(granted_ - used_);
    return;
  }
  if (granted_ - used_ > surplus_max_) give_back(granted_ - used_ - keep);
  list();
  if (!budget_.calm()) give_back(granted_ - used_);
}

void BudgetShare::give_back(int64_t count) {
  granted_ -= count;
  budget_.give(count, peers_);
}

}  // namespace ringway
