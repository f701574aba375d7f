// pool/server_pool.cc - picking, keeping and closing.
#include "pool/server_pool.h"

#include <algorithm>

#include "core/base/check.h"

namespace ringway {
namespace {

// Idle connections under this age say little about the server's timeout when they are closed.
constexpr int64_t kLearnMinMs = 500;

// Room for one more; a server without a limit has as much as the number holds.
uint32_t more(uint32_t capacity) {
  return capacity == UINT32_MAX ? capacity : capacity + 1;
}

}  // namespace

PooledConn::~PooledConn() {
  RW_CHECK(place_ == Place::kNew);
  RW_CHECK(group_ == nullptr && entry_ == nullptr);
}

SessionStore* PooledConn::session() const {
  return entry_ == nullptr ? nullptr : &entry_->store_;
}

KeyGroup::~KeyGroup() {
  RW_CHECK(connections_ == 0 && idle_ == 0 && available_count_ == 0);
}

ServerPool::ServerPool(PoolMemory& memory, PoolStats& stats, const ConnKey& fixed,
                       BudgetShare* idle_share)
    : memory_(memory), stats_(stats), idle_share_(idle_share) {
  fixed_ = memory_.groups.take(fixed);
  RW_CHECK(fixed_ != nullptr);
  fixed_->pinned_ = true;
  idle_trees_ = std::make_unique<IdleTree[]>(1);
  idle_trees_[0].insert(*fixed_);
  group_count_ = 1;
  stats_.groups.add();
}

ServerPool::~ServerPool() {
  RW_CHECK(total_ == 0);
  RW_CHECK(session_entries_.empty());
  IdleTree& tree = idle_tree(fixed_->hash());
  tree.erase(tree.iterator_to(*fixed_));
  stats_.groups.sub();
  memory_.groups.give_back(fixed_);
  RW_CHECK(available_tree_.empty());
  for (size_t i = 0; i < tops_; ++i) RW_CHECK(idle_trees_[i].empty());
}

// The table of docs/configuration.md: which list first, for this mode and kind of request. Later
// requests take unproven ones first: that is how they become proven.
PooledConn* ServerPool::choose_idle(KeyGroup& group, const PickRules& rules, Miss& miss) const {
  if (group.idle_ == 0) {
    miss = idle() == 0 ? Miss::kNoneIdle : Miss::kOtherKeys;
    return nullptr;
  }
  miss = Miss::kPolicy;
  PooledConn* safe = group.safe_.empty() ? nullptr : &group.safe_.front();
  PooledConn* unproven = group.unproven_.empty() ? nullptr : &group.unproven_.front();
  const Usable may = usable(rules);
  if (may == Usable::kNone) return nullptr;
  if (may == Usable::kProven) return safe;
  if (rules.first) return safe != nullptr ? safe : unproven;
  return unproven != nullptr ? unproven : safe;
}

ServerPool::Usable ServerPool::usable(const PickRules& rules) const {
  switch (limits_.mode) {
    case ReuseMode::kNever: return Usable::kNone;
    case ReuseMode::kSafe: return rules.first ? Usable::kNone : Usable::kAny;
    case ReuseMode::kAggressive: return rules.first ? Usable::kProven : Usable::kAny;
    case ReuseMode::kAlways: return Usable::kAny;
    case ReuseMode::kAuto: return rules.first && !rules.repeatable ? Usable::kNone : Usable::kAny;
  }
  return Usable::kNone;
}

// It gets another user: a private one, of its session.
void ServerPool::use(PooledConn& conn) {
  RW_CHECK(conn.capacity_ > 0);
  ++conn.streams_;
  --conn.capacity_;
  ++conn.requests_;
  if (conn.requests_ >= conn.requests_max_) conn.capacity_ = 0;  // Its last one.
  if (conn.place_ == Place::kSessionIdle) return move_to(conn, Place::kSessionBusy);
  if (in_session(conn.place_)) return;
  const Place to = conn.capacity_ > 0 ? Place::kAvailable : Place::kBusy;
  if (conn.place_ != to) move_to(conn, to);
}

void ServerPool::add_request(PooledConn& conn) {
  RW_CHECK(takes_more(conn));
  use(conn);
  stats_.handed[static_cast<size_t>(How::kAnticipated)].add();
}

PooledConn* ServerPool::pick_held(SessionStore& store, const ConnKey* key) {
  if (limits_.mode != ReuseMode::kSafe || retired_ || store.empty()) return nullptr;
  SessionEntry* entry = store.find({.kind = TargetRef::Kind::kServer, .object = this}, this);
  const KeyGroup* group = entry == nullptr ? nullptr : find_group(key);
  if (group == nullptr) return nullptr;
  PooledConn* held = with_room(*entry, *group, Place::kHeld);
  if (held == nullptr) return nullptr;
  use(*held);
  stats_.handed[static_cast<size_t>(How::kAvailable)].add();
  return held;
}

// Those in use stand behind the idle ones; each has a request of this session in flight, so they
// are few.
PooledConn* ServerPool::with_room(SessionEntry& entry, const KeyGroup& group, Place place) {
  uint32_t left = entry.size_ - entry.idle_;
  for (auto it = entry.conns_.rbegin(); left > 0; ++it, --left) {
    if (it->place_ == place && it->group_ == &group && it->capacity_ > 0) return &*it;
  }
  return nullptr;
}

PooledConn* ServerPool::idle_private(SessionEntry& entry, const KeyGroup& group) {
  uint32_t left = entry.idle_;
  for (auto it = entry.conns_.begin(); left > 0; ++it, --left) {
    if (it->group_ == &group) return &*it;
  }
  return nullptr;
}

void ServerPool::hold(PooledConn& conn, SessionStore& store) {
  RW_CHECK(conn.place_ != Place::kHeld || &conn.entry_->store_ == &store);
  if (limits_.mode != ReuseMode::kSafe) return;
  if (conn.place_ != Place::kBusy && conn.place_ != Place::kAvailable) return;
  // It has no group if nobody may share it, and others may be on it if the mode has changed since.
  if (conn.streams_ > 1 || conn.group_ == nullptr) return;
  const TargetRef target{.kind = TargetRef::Kind::kServer, .object = this};
  SessionEntry* entry = store.find(target, this);
  // No connection that must not be shared at all is given up for this.
  const bool room = store.size() < store.limits().targets;
  if (entry == nullptr && room) entry = store.ensure(target, *this);
  if (entry == nullptr) return;
  conn.entry_ = entry;
  move_to(conn, Place::kHeld);
}

// Its session holds it no longer.
void ServerPool::let_go(PooledConn& conn) {
  SessionEntry& entry = *conn.entry_;
  move_to(conn, Place::kBusy);
  conn.entry_ = nullptr;
  SessionStore::release(entry);
}

ServerPool::Picked ServerPool::pick(const ConnKey* key, const PickRules& rules) {
  Picked picked;
  if (retired_) return picked;
  if (rules.fresh) {
    picked.miss = Miss::kForcedFresh;
    stats_.missed[static_cast<size_t>(picked.miss)].add();
    return picked;
  }
  KeyGroup* group = find_group(key);
  if (group == nullptr) {
    picked.miss = idle() == 0 ? Miss::kNoneIdle : Miss::kOtherKeys;
  } else if (!group->available_.empty() && shares_in_use() && !rules.own) {
    picked.conn = &group->available_.front();
    picked.how = How::kAvailable;
  } else {
    picked.conn = choose_idle(*group, rules, picked.miss);
    if (picked.conn != nullptr) picked.how = picked.conn->proven_ ? How::kSafe : How::kUnproven;
  }
  if (picked.conn == nullptr) {
    stats_.missed[static_cast<size_t>(picked.miss)].add();
    return picked;
  }
  use(*picked.conn);
  stats_.handed[static_cast<size_t>(picked.how)].add();
  return picked;
}

PooledConn* ServerPool::pick_private(SessionStore& store, const TargetRef& target,
                                     const ConnKey* key, bool multiplexed) {
  SessionEntry* entry = store.find(target, this);
  if (entry == nullptr || retired_) return nullptr;
  const bool look_at_busy = multiplexed && entry->size_ > entry->idle_;
  if (entry->idle_ == 0 && !look_at_busy) return nullptr;
  const KeyGroup* group = find_group(key);
  if (group == nullptr) return nullptr;
  // Few busy ones rather than many, so that the others get old.
  PooledConn* conn = look_at_busy ? with_room(*entry, *group, Place::kSessionBusy) : nullptr;
  if (conn == nullptr) conn = idle_private(*entry, *group);
  if (conn == nullptr) return nullptr;
  RW_CHECK(conn->private_);
  use(*conn);
  stats_.handed[static_cast<size_t>(How::kSession)].add();
  return conn;
}

void ServerPool::begin(PooledConn& conn, const ConnKey* key, int64_t now_ms) {
  RW_CHECK(conn.place_ == Place::kNew && conn.pool_ == this);
  conn.created_ms_ = now_ms;
  conn.idle_since_ms_ = now_ms;
  conn.requests_max_ = limits_.requests_max;
  if (limits_.age_ms > 0) {
    // So that connections made together do not end together.
    const auto jitter = static_cast<uint64_t>(limits_.age_ms / 10 + 1);
    conn.age_max_ms_ = limits_.age_ms - static_cast<int64_t>(memory_.prng.below(jitter));
  }
  conn.group_ = ensure_group(key);
  if (conn.group_ != nullptr) {
    ++conn.group_->connections_;
  } else {
    conn.close_after_ = true;
  }
  ++total_;
  move_to(conn, Place::kConnecting);
}

void ServerPool::connected(PooledConn& conn, uint32_t capacity) {
  RW_CHECK(conn.place_ == Place::kConnecting);
  const How how = conn.requests_ == 0 ? How::kFresh : How::kBorrowed;
  conn.streams_ = 1;
  ++conn.requests_;
  // A single-use one, or one for a single request, has no room for others.
  conn.capacity_ = conn.close_after_ || conn.requests_max_ <= 1 ? 0 : capacity;
  stats_.handed[static_cast<size_t>(how)].add();
  move_to(conn, conn.capacity_ > 0 ? Place::kAvailable : Place::kBusy);
}

ServerPool::Verdict ServerPool::connected_idle(PooledConn& conn, int64_t now_ms) {
  RW_CHECK(conn.place_ == Place::kConnecting);
  if (retired_ || conn.close_after_ || limits_.mode == ReuseMode::kNever) {
    close(conn, retired_ ? retired_reason_ : CloseReason::kReuseOff);
    return Verdict::kClosed;
  }
  conn.capacity_ = 1;
  return park(conn, now_ms);
}

// One that is private already carries a login now: its client must come back to this server, so the
// upstream finds it from now on. The other way round it stays bound.
bool ServerPool::bind_further(PooledConn& conn, SessionStore& store, const TargetRef& target) {
  if (conn.entry_ == nullptr) return false;
  RW_CHECK(&conn.entry_->store_ == &store);  // One session for life.
  if (target.kind == TargetRef::Kind::kServer || conn.entry_->target() == target) return true;
  // Without room for another target it stays where it is: still private, found by its server.
  if (SessionEntry* entry = store.ensure(target, *this)) SessionStore::change_entry(conn, *entry);
  return true;
}

bool ServerPool::make_private(PooledConn& conn, SessionStore& store, const TargetRef& target,
                              PrivateReason reason) {
  if (conn.private_) return bind_further(conn, store, target);
  RW_CHECK(conn.streams_ > 0);
  // More than one user: whose would it be? It gets no further one.
  if (conn.streams_ > 1 || conn.place_ == Place::kDraining) {
    drain(conn);
    return false;
  }
  if (conn.place_ == Place::kHeld) let_go(conn);
  RW_CHECK(conn.place_ == Place::kBusy || conn.place_ == Place::kAvailable);
  conn.private_ = true;
  stats_.reserved[static_cast<size_t>(reason)].add();
  if (conn.place_ == Place::kAvailable) move_to(conn, Place::kBusy);
  SessionEntry* entry = store.ensure(target, *this);
  if (entry == nullptr) {
    conn.close_after_ = true;  // Fail closed: never shared, not even once more.
    conn.capacity_ = 0;
    return false;
  }
  conn.entry_ = entry;
  move_to(conn, Place::kSessionBusy);
  return true;
}

bool ServerPool::may_keep(const PooledConn& conn, const FinishNotes& notes, int64_t now_ms,
                          CloseReason& reason) const {
  if (!notes.clean) {
    reason = CloseReason::kError;
  } else if (!notes.server_keeps) {
    reason = CloseReason::kServerClose;
  } else if (retired_) {
    reason = retired_reason_;
  } else if (conn.requests_ >= conn.requests_max_) {
    reason = CloseReason::kRequestsLimit;
  } else if (now_ms - conn.created_ms_ >= conn.age_max_ms_) {
    reason = CloseReason::kAge;
  } else if (conn.close_after_) {
    reason = conn.private_ ? CloseReason::kPrivateLimit : CloseReason::kReuseOff;
  } else if (!conn.private_ && limits_.mode == ReuseMode::kNever) {
    reason = CloseReason::kReuseOff;
  } else {
    return true;
  }
  return false;
}

ServerPool::Verdict ServerPool::finish(PooledConn& conn, const FinishNotes& notes, int64_t now_ms) {
  RW_CHECK(conn.streams_ > 0);
  --conn.streams_;
  if (!notes.cut) ++conn.finished_;
  if (conn.finished_ >= 2 || notes.proven) conn.proven_ = true;
  if (notes.hint_ms > 0) conn.hint_ms_ = notes.hint_ms;
  if (notes.hint_max < UINT64_MAX - conn.requests_) {
    conn.requests_max_ = std::min(conn.requests_max_, conn.requests_ + notes.hint_max);
  }
  if (conn.streams_ > 0) {  // Multiplexed: its other requests go on.
    if (conn.place_ == Place::kDraining) return Verdict::kInUse;
    on_capacity(conn, more(conn.capacity_));
    return Verdict::kInUse;
  }
  if (conn.place_ == Place::kHeld) let_go(conn);
  CloseReason reason = CloseReason::kServerClose;
  const bool keep = may_keep(conn, notes, now_ms, reason);
  if (conn.place_ == Place::kDraining || !keep) {
    const bool by_server = conn.place_ == Place::kDraining && notes.clean && !retired_ &&
                           reason != CloseReason::kAge && reason != CloseReason::kRequestsLimit;
    return refuse(conn, by_server ? CloseReason::kServerClose : reason);
  }
  conn.capacity_ = more(conn.capacity_);
  return conn.private_ ? keep_private(conn, now_ms) : park(conn, now_ms);
}

// It is not kept for a further use.
ServerPool::Verdict ServerPool::refuse(PooledConn& conn, CloseReason reason) {
  stats_.refused[static_cast<size_t>(reason)].add();
  close(conn, reason);
  return Verdict::kClosed;
}

ServerPool::Verdict ServerPool::keep_private(PooledConn& conn, int64_t now_ms) {
  RW_CHECK(conn.entry_ != nullptr);
  SessionEntry& entry = *conn.entry_;
  if (entry.idle_ >= entry.store_.limits().idle_per_entry) {
    return refuse(conn, CloseReason::kPrivateLimit);
  }
  conn.idle_since_ms_ = now_ms;
  move_to(conn, Place::kSessionIdle);
  return Verdict::kKeptPrivate;
}

uint32_t ServerPool::used() const {
  return count(Place::kConnecting) + count(Place::kBusy) + count(Place::kAvailable) +
         count(Place::kHeld) + count(Place::kDraining);
}

// One of the process's idle places; the own oldest gives its up for a younger one.
bool ServerPool::take_idle_unit() {
  if (idle_share_ == nullptr || idle_share_->try_acquire()) return true;
  if (lru_.empty()) return false;
  close(lru_.back(), CloseReason::kIdleLimit);
  return idle_share_->try_acquire();
}

ServerPool::Verdict ServerPool::park(PooledConn& conn, int64_t now_ms) {
  // One-request clients would pile up connections that no later request ever needs. A key that
  // requests bring may keep one all the same: how many connections are in use at once says nothing
  // about how many clients, or hosts, take turns.
  const uint32_t idle_now = idle();
  const uint32_t wanted = std::max(need_, peak_used_) + limits_.idle_floor;
  const bool first_of_key = !conn.group_->pinned_ && conn.group_->idle_ == 0;
  if (idle_now >= limits_.idle_floor && used() + idle_now > wanted && !first_of_key) {
    return refuse(conn, CloseReason::kUnneeded);
  }
  if (!take_idle_unit()) return refuse(conn, CloseReason::kIdleLimit);
  conn.idle_since_ms_ = now_ms;
  stats_.parked.add();
  move_to(conn, conn.proven_ ? Place::kIdleSafe : Place::kIdleUnproven);
  return Verdict::kParked;
}

void ServerPool::on_capacity(PooledConn& conn, uint32_t free) {
  if (is_idle(conn.place_) || conn.place_ == Place::kSessionIdle) {
    conn.capacity_ = free;
    if (free == 0) close(conn, CloseReason::kServerClose);
    return;
  }
  const bool kept = in_session(conn.place_);  // whatever its capacity
  if (conn.place_ != Place::kBusy && conn.place_ != Place::kAvailable && !kept) return;
  const uint64_t left = conn.requests_max_ - std::min(conn.requests_max_, conn.requests_);
  conn.capacity_ = static_cast<uint32_t>(std::min<uint64_t>(free, left));
  if (conn.close_after_ || retired_) conn.capacity_ = 0;
  if (kept) return;
  const Place to = conn.capacity_ > 0 ? Place::kAvailable : Place::kBusy;
  if (conn.place_ != to) move_to(conn, to);
}

void ServerPool::drain(PooledConn& conn) {
  if (is_idle(conn.place_) || conn.place_ == Place::kSessionIdle) {
    return close(conn, CloseReason::kServerClose);
  }
  if (conn.place_ == Place::kHeld) let_go(conn);
  conn.close_after_ = true;
  conn.capacity_ = 0;
  if (conn.place_ == Place::kBusy || conn.place_ == Place::kAvailable) {
    move_to(conn, Place::kDraining);
  }
}

void ServerPool::close(PooledConn& conn, CloseReason reason) {
  stats_.closed[static_cast<size_t>(reason)].add();
  conn.streams_ = 0;
  conn.capacity_ = 0;
  SessionEntry* entry = conn.entry_;
  move_to(conn, Place::kClosing);
  if (entry != nullptr) {
    conn.entry_ = nullptr;
    SessionStore::release(*entry);
  }
  leave_group(conn);
  conn.on_pool_close(reason);
}

void ServerPool::closed(PooledConn& conn) {
  move_to(conn, Place::kNew);
  RW_CHECK(total_ > 0);
  --total_;
}

void ServerPool::learn(const PooledConn& conn, int64_t now_ms) {
  const int64_t age = now_ms - conn.idle_since_ms_;
  if (age < kLearnMinMs) return;
  // Twice the same age, at different times: a timeout, and not a restart that ends all at once.
  const int64_t gap = std::abs(age - last_close_age_ms_);
  const bool again =
      last_close_age_ms_ > 0 && gap * 10 <= age && now_ms - last_close_at_ms_ >= kLearnMinMs;
  last_close_age_ms_ = age;
  last_close_at_ms_ = now_ms;
  if (!again) return;
  learned_ms_ = age - age / 5;
  learned_at_ms_ = now_ms;
  stats_.learned_ms.set(static_cast<uint64_t>(learned_ms_));
}

int64_t ServerPool::idle_life_ms(const PooledConn& conn) const {
  int64_t life = limits_.idle_ms == 0 ? INT64_MAX : limits_.idle_ms;
  // A second below what the server says, or half of it: its clock started earlier than ours.
  if (conn.hint_ms_ > 0) {
    life = std::min(life, conn.hint_ms_ > 2'000 ? conn.hint_ms_ - 1'000 : conn.hint_ms_ / 2);
  }
  const bool known = learned_ms_ > 0 && conn.idle_since_ms_ - learned_at_ms_ < kLearnedForMs;
  if (known) life = std::min(life, learned_ms_);
  if (conn.age_max_ms_ != INT64_MAX) {
    life = std::min(life, conn.created_ms_ + conn.age_max_ms_ - conn.idle_since_ms_);
  }
  return life == INT64_MAX ? 0 : std::max<int64_t>(life, 1);
}

size_t ServerPool::suspect(const PooledConn& conn) {
  KeyGroup* group = conn.group_;
  if (group == nullptr) return 0;
  size_t closed = 0;
  for (auto* list : {&group->safe_, &group->unproven_}) {
    for (auto it = list->begin(); it != list->end();) {
      PooledConn& other = *it++;
      if (&other == &conn || other.idle_since_ms_ > conn.idle_since_ms_) continue;
      close(other, CloseReason::kStale);
      ++closed;
    }
  }
  return closed;
}

size_t ServerPool::purge(int64_t now_ms) {
  if (learned_ms_ > 0 && now_ms - learned_at_ms_ >= kLearnedForMs) {
    learned_ms_ = 0;
    stats_.learned_ms.set(0);
  }
  need_ = std::max((need_ + peak_used_) / 2, peak_used_);
  stats_.need.set(need_);
  const uint32_t in_use = used();
  peak_used_ = in_use;
  const uint32_t keep = std::max(limits_.idle_floor, need_ > in_use ? need_ - in_use : 0);
  const uint32_t have = idle();
  if (have <= keep) return 0;
  const uint32_t count = (have - keep + 1) / 2;
  for (uint32_t i = 0; i < count; ++i) close(lru_.back(), CloseReason::kUnneeded);
  return count;
}

void ServerPool::free_idle() {
  while (idle_share_ != nullptr && !lru_.empty() && idle_share_->should_free()) {
    idle_asked_ = true;
    close(lru_.back(), CloseReason::kIdleLimit);
    idle_asked_ = false;
  }
}

void ServerPool::close_idle(CloseReason reason) {
  while (!lru_.empty()) close(lru_.back(), reason);
  for (auto it = session_entries_.begin(); it != session_entries_.end();) {
    SessionEntry& entry = *it++;
    for (uint32_t idle = entry.idle_; idle > 0; --idle) close(entry.conns_.front(), reason);
  }
}

void ServerPool::retire(CloseReason reason) {
  retired_ = true;
  retired_reason_ = reason;
  close_idle(reason);
  while (!available_tree_.empty()) {
    PooledConn& conn = available_tree_.begin()->available_.front();
    conn.capacity_ = 0;
    move_to(conn, Place::kDraining);
  }
  for (SessionEntry& entry : session_entries_) {
    for (PooledConn& conn : entry.conns_) conn.capacity_ = 0;
  }
}

void ServerPool::update(const PoolLimits& limits) {
  limits_ = limits;
  if (limits_.mode == ReuseMode::kNever) {
    while (!lru_.empty()) close(lru_.back(), CloseReason::kReuseOff);
  }
}

PooledConn* ServerPool::begin_transit(std::string_view key_bytes, uint64_t hash, bool proven_only,
                                      int64_t idle_since_max_ms) {
  if (retired_) return nullptr;
  const ConnKey key{.bytes = key_bytes, .hash = hash};
  KeyGroup* group = find_group(&key);
  if (group == nullptr || group->idle_ == 0) return nullptr;
  if (proven_only && group->safe_.empty()) return nullptr;
  // The one that this shard misses least.
  PooledConn& conn = group->safe_.empty() ? group->unproven_.back() : group->safe_.back();
  if (conn.stays_ || conn.idle_since_ms() > idle_since_max_ms) return nullptr;
  move_to(conn, Place::kTransit);
  return &conn;
}

ConnPast ServerPool::end_transit(PooledConn& conn) {
  RW_CHECK(conn.place_ == Place::kTransit);
  const ConnPast past{
      .created_ms = conn.created_ms_,
      .hint_ms = conn.hint_ms_,
      .requests = conn.requests_,
      .finished = conn.finished_,
      .requests_max = conn.requests_max_,
      .age_max_ms = conn.age_max_ms_,
      .usable = !retired_ && !conn.close_after_ && limits_.mode != ReuseMode::kNever};
  conn.capacity_ = 0;
  move_to(conn, Place::kClosing);
  leave_group(conn);
  return past;
}

void ServerPool::inherit(PooledConn& conn, const ConnPast& past) {
  RW_CHECK(conn.place_ == Place::kConnecting);
  conn.created_ms_ = past.created_ms;
  conn.hint_ms_ = past.hint_ms;
  conn.requests_ = past.requests;
  conn.finished_ = past.finished;
  conn.proven_ = past.finished >= 2;
  conn.requests_max_ = std::min(conn.requests_max_, past.requests_max);
  conn.age_max_ms_ = past.age_max_ms;
}

}  // namespace ringway
