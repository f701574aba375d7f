// pool/server_pool_places.cc - the one function that changes places, and the check of all of them.
#include <algorithm>

#include "core/base/check.h"
#include "pool/server_pool.h"

namespace ringway {
namespace {

constexpr uint32_t bit(Place place) {
  return 1U << static_cast<uint32_t>(place);
}

// Where a connection may go from each place (docs/invariants.md). Closing is final.
constexpr std::array<uint32_t, kPlaces> kAllowed = {
    /* kNew */ bit(Place::kConnecting),
    /* kConnecting */ bit(Place::kBusy) | bit(Place::kAvailable) | bit(Place::kIdleUnproven) |
        bit(Place::kIdleSafe) | bit(Place::kClosing),
    /* kBusy */ bit(Place::kAvailable) | bit(Place::kHeld) | bit(Place::kSessionBusy) |
        bit(Place::kIdleUnproven) | bit(Place::kIdleSafe) | bit(Place::kDraining) |
        bit(Place::kClosing),
    /* kAvailable */ bit(Place::kBusy) | bit(Place::kHeld) | bit(Place::kIdleUnproven) |
        bit(Place::kIdleSafe) | bit(Place::kDraining) | bit(Place::kClosing),
    /* kHeld */ bit(Place::kBusy) | bit(Place::kClosing),
    /* kSessionBusy */ bit(Place::kSessionIdle) | bit(Place::kClosing),
    /* kSessionIdle */ bit(Place::kSessionBusy) | bit(Place::kClosing),
    /* kIdleUnproven */ bit(Place::kBusy) | bit(Place::kAvailable) | bit(Place::kTransit) |
        bit(Place::kClosing),
    /* kIdleSafe */ bit(Place::kBusy) | bit(Place::kAvailable) | bit(Place::kTransit) |
        bit(Place::kClosing),
    /* kDraining */ bit(Place::kClosing),
    /* kTransit */ bit(Place::kClosing),
    /* kClosing */ bit(Place::kNew)};

}  // namespace

void ServerPool::move_to(PooledConn& conn, Place to) {
  RW_CHECK(conn.pool_ == this);
  RW_CHECK(memory_.thread == this_thread_mark());
  const Place from = conn.place_;
  RW_CHECK((kAllowed[static_cast<size_t>(from)] & bit(to)) != 0);
  unlink(conn);
  conn.place_ = to;
  link(conn);
  count_move(from, to);
}

void ServerPool::unlink(PooledConn& conn) {
  KeyGroup* group = conn.group_;
  switch (conn.place_) {
    case Place::kIdleUnproven:
    case Place::kIdleSafe: {
      auto& list = conn.place_ == Place::kIdleSafe ? group->safe_ : group->unproven_;
      list.erase(list.iterator_to(conn));
      lru_.erase(lru_.iterator_to(conn));
      --group->idle_;
      if (idle_share_ == nullptr) return;
      idle_asked_ ? idle_share_->release_asked() : idle_share_->release();
      return;
    }
    case Place::kAvailable:
      group->available_.erase(group->available_.iterator_to(conn));
      --group->available_count_;
      if (group->available_count_ == 0) available_tree_.erase(available_tree_.iterator_to(*group));
      return;
    case Place::kHeld:
    case Place::kSessionBusy:
    case Place::kSessionIdle: return SessionStore::un_own(conn);
    case Place::kDraining: draining_.erase(draining_.iterator_to(conn)); return;
    case Place::kNew:
    case Place::kConnecting:
    case Place::kBusy:
    case Place::kTransit:
    case Place::kClosing: return;
  }
}

void ServerPool::link(PooledConn& conn) {
  KeyGroup* group = conn.group_;
  switch (conn.place_) {
    case Place::kIdleUnproven:
    case Place::kIdleSafe: {
      RW_CHECK(!conn.private_ && !conn.close_after_ && conn.streams_ == 0);
      auto& list = conn.place_ == Place::kIdleSafe ? group->safe_ : group->unproven_;
      list.push_front(conn);
      lru_.push_front(conn);
      ++group->idle_;
      return;
    }
    case Place::kAvailable:
      RW_CHECK(!conn.private_ && conn.streams_ > 0 && conn.capacity_ > 0);
      if (group->available_count_ == 0) available_tree_.insert(*group);
      group->available_.push_front(conn);
      ++group->available_count_;
      return;
    case Place::kHeld:
      RW_CHECK(!conn.private_ && group != nullptr);
      return SessionStore::own(*conn.entry_, conn);
    case Place::kSessionBusy:
    case Place::kSessionIdle:
      RW_CHECK(conn.private_ && (group != nullptr || conn.close_after_));
      return SessionStore::own(*conn.entry_, conn);
    case Place::kDraining: draining_.push_back(conn); return;
    case Place::kNew:
    case Place::kConnecting:
    case Place::kBusy:
    case Place::kTransit:
    case Place::kClosing: return;
  }
}

void ServerPool::count_move(Place from, Place to) {
  if (from != Place::kNew) {
    --counts_[static_cast<size_t>(from)];
    stats_.places[static_cast<size_t>(from)].sub();
  }
  if (to != Place::kNew) {
    ++counts_[static_cast<size_t>(to)];
    stats_.places[static_cast<size_t>(to)].add();
  }
  peak_used_ = std::max(peak_used_, used());
}

// The invariants of docs/invariants.md, by walking everything.
void ServerPool::check() const {
  std::array<uint32_t, kPlaces> walked{};
  size_t groups = 0;
  size_t with_available = 0;
  uint32_t in_groups = 0;
  for_each_group([&](const KeyGroup& group) {
    ++groups;
    RW_CHECK(idle_tree(group.hash()).find(group, ByKey()) != idle_tree(group.hash()).end());
    RW_CHECK(group.connections_ > 0 || group.pinned_);
    in_groups += group.connections_;
    uint32_t idle_here = 0;
    uint32_t available_here = 0;
    const auto count_list = [&](const auto& list, Place place, uint32_t& here) {
      for (const PooledConn& conn : list) {
        RW_CHECK(conn.place_ == place && conn.group_ == &group && conn.pool_ == this);
        RW_CHECK(conn.entry_ == nullptr && !conn.private_);
        ++walked[static_cast<size_t>(place)];
        ++here;
      }
    };
    count_list(group.safe_, Place::kIdleSafe, idle_here);
    count_list(group.unproven_, Place::kIdleUnproven, idle_here);
    count_list(group.available_, Place::kAvailable, available_here);
    RW_CHECK(idle_here == group.idle_ && available_here == group.available_count_);
    if (available_here > 0) ++with_available;
  });
  RW_CHECK(groups == group_count_);
  RW_CHECK(with_available == available_tree_.size());
  RW_CHECK(lru_.size() == idle());
  int64_t younger = INT64_MAX;
  for (const PooledConn& conn : lru_) {
    RW_CHECK(is_idle(conn.place_) && conn.idle_since_ms_ <= younger);
    younger = conn.idle_since_ms_;
  }
  for (const PooledConn& conn : draining_) {
    RW_CHECK(conn.place_ == Place::kDraining);
    ++walked[static_cast<size_t>(Place::kDraining)];
  }
  for (const SessionEntry& entry : session_entries_) {
    RW_CHECK(&entry.pool_ == this && entry.size_ > 0);
    RW_CHECK(entry.store_.find(entry.target_, this) == &entry);
    uint32_t idle_here = 0;
    uint32_t all = 0;
    for (const PooledConn& conn : entry.conns_) {
      RW_CHECK(conn.entry_ == &entry && conn.private_ == is_private(conn.place_));
      RW_CHECK(in_session(conn.place_));
      RW_CHECK(conn.group_ != nullptr || conn.close_after_);
      RW_CHECK(!conn.close_after_ || conn.capacity_ == 0);
      ++walked[static_cast<size_t>(conn.place_)];
      ++all;
      if (conn.place_ == Place::kSessionIdle) ++idle_here;
    }
    RW_CHECK(all == entry.size_ && idle_here == entry.idle_);
  }
  uint32_t sum = 0;
  for (size_t i = 0; i < kPlaces; ++i) {
    sum += counts_[i];
    const auto place = static_cast<Place>(i);
    const bool listed = is_idle(place) || in_session(place) || place == Place::kAvailable ||
                        place == Place::kDraining;
    if (listed) RW_CHECK(walked[i] == counts_[i]);
  }
  RW_CHECK(sum == total_);
  // Connections in groups: those that wait, the busy ones and those under way between shards too.
  RW_CHECK(in_groups <= total_ - count(Place::kClosing));
}

}  // namespace ringway
