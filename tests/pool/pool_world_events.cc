// tests/pool/pool_world_events.cc - what servers, timers and operators do to a PoolWorld, its list
// of operations, and its end.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "tests/pool/pool_world.h"

namespace ringway {

using model::demand;
using Verdict = ServerPool::Verdict;

namespace {

constexpr uint32_t bit(Place place) {
  return 1U << static_cast<uint32_t>(place);
}
constexpr uint32_t kIdlePlaces =
    bit(Place::kIdleSafe) | bit(Place::kIdleUnproven) | bit(Place::kSessionIdle);

}  // namespace

// A client that leaves takes its exchanges with it: those of their own connection cut it, the
// others end their stream.
void PoolWorld::end_session(const PoolOp& op) {
  if (sessions_.empty()) return;
  const size_t at = op.a % sessions_.size();
  const int id = sessions_[at].id;
  for (size_t i = exchanges_.size(); i > 0; --i) {
    if (exchanges_[i - 1].session != id) continue;
    WorldConn& conn = *conns_.at(exchanges_[i - 1].conn);
    if (conn.streams() > 1) {
      finish(i - 1, {.clean = true, .server_keeps = true, .hint_max = UINT64_MAX});
    } else {
      discard(conn, CloseReason::kError);
    }
  }
  sessions_[at].store->close_all();
  model_.close_session(id, take_closures());
  demand(sessions_[at].store->empty(), "a session that ended has connections", id);
  sessions_.erase(sessions_.begin() + static_cast<std::ptrdiff_t>(at));
}

void PoolWorld::abort(const PoolOp& op) {
  if (exchanges_.empty()) return;
  const size_t at = op.a % exchanges_.size();
  WorldConn& conn = *conns_.at(exchanges_[at].conn);
  if (conn.streams() > 1 && op.b % 4 != 0) {
    return finish(at, {.clean = false, .server_keeps = true, .hint_max = UINT64_MAX});
  }
  discard(conn, CloseReason::kError);
}

// A connection that had been idle was found dead.
void PoolWorld::stale(const PoolOp& op) {
  if (exchanges_.empty()) return;
  WorldConn& conn = *conns_.at(exchanges_[op.a % exchanges_.size()].conn);
  if (conn.requests() < 2) return;
  const size_t count = pool_of(conn).suspect(conn);
  model_.suspect(conn.id, count, take_closures());
  discard(conn, CloseReason::kStale);
}

void PoolWorld::idle_event(const PoolOp& op) {
  const std::vector<int> idle = conns_at(kIdlePlaces);
  if (idle.empty()) return;
  WorldConn& conn = *conns_.at(idle[op.a % idle.size()]);
  if (op.b % 6 == 0) return discard(conn, CloseReason::kUnsolicited);
  if (op.b % 6 == 1 && op.c % 2 == 0) return discard(conn, CloseReason::kPingTimeout);
  if (op.b % 6 > 1) {  // FIN
    pool_of(conn).learn(conn, now_ms_);
    model_.learn(conn.id);
    const model::Pool& p = model_.pools.at(model_.conns.at(conn.id).pool);
    if (p.learned_at_ms == now_ms_) ++learned_;
    demand(p.learned_ms == 0 ||
               static_cast<uint64_t>(p.learned_ms) == pool_of(conn).stats().learned_ms.get(),
           "learned", conn.id);
  }
  discard(conn, CloseReason::kServerIdle);
}

void PoolWorld::capacity(const PoolOp& op) {
  const std::vector<int> all = conns_at(~bit(Place::kClosing));
  if (all.empty()) return;
  WorldConn& conn = *conns_.at(all[op.a % all.size()]);
  const uint32_t free = op.b % 8 == 7 ? UINT32_MAX : op.b % 8;
  pool_of(conn).on_capacity(conn, free);
  model_.on_capacity(conn.id, free, take_closures());
}

void PoolWorld::goaway(const PoolOp& op) {
  const std::vector<int> all = conns_at(~bit(Place::kClosing));
  if (all.empty()) return;
  WorldConn& conn = *conns_.at(all[op.a % all.size()]);
  pool_of(conn).drain(conn);
  model_.drain(conn.id, take_closures());
}

// A socket is closed at last.
void PoolWorld::reap(const PoolOp& op) {
  const std::vector<int> closing = conns_at(bit(Place::kClosing));
  if (!closing.empty()) reap_one(closing[op.a % closing.size()]);
}

void PoolWorld::reap_one(int id) {
  WorldConn& conn = *conns_.at(id);
  pool_of(conn).closed(conn);
  model_.closed(id);
  conns_.erase(id);
}

void PoolWorld::advance(const PoolOp& op) {
  constexpr std::array<int64_t, 8> kSteps = {1, 7, 100, 500, 900, 2'000, 6'000, 30'000};
  now_ms_ += kSteps[op.a % kSteps.size()];
  if (op.b % 64 == 0) now_ms_ += 600'000;
  model_.now_ms = now_ms_;
  expire();
}

void PoolWorld::expire() {
  for (const int id : conns_at(kIdlePlaces)) {
    WorldConn& conn = *conns_.at(id);
    if (conn.expires_ms != 0 && conn.expires_ms <= now_ms_)
      discard(conn, CloseReason::kIdleTimeout);
  }
}

void PoolWorld::purge(const PoolOp& op) {
  const int index = static_cast<int>(op.a % (kShards * kServers));
  const size_t count = pool(index).purge(now_ms_);
  model_.purge(index, count, take_closures());
}

// Maintenance and back, down, and replaced: then the pool dies with its last connection.
void PoolWorld::service(const PoolOp& op) {
  const int index = static_cast<int>(op.a % (kShards * kServers));
  ServerPool& p = pool(index);
  if (op.b % 8 == 0) {
    p.close_idle(CloseReason::kDown);
    return model_.close_idle(index, CloseReason::kDown, take_closures());
  }
  const model::Pool& now = model_.pools.at(index);
  if (!now.retired) {
    constexpr std::array<CloseReason, 3> kWhy = {CloseReason::kOutOfService, CloseReason::kDown,
                                                 CloseReason::kReplaced};
    const CloseReason why = kWhy[op.c % kWhy.size()];
    p.retire(why);
    return model_.retire(index, why, take_closures());
  }
  if (now.retired_reason != CloseReason::kReplaced) {
    p.return_to_service();
    model_.pools.at(index).retired = false;
    return;
  }
  if (p.total() > 0) return;
  // With all groups held by others there is no room for the new pool's own.
  const PoolLimits limits = p.limits();
  slots_[static_cast<size_t>(index)].pool.reset();
  make_pool(index);
  pool(index).update(limits);
  model_.update(index, limits, take_closures());
}

void PoolWorld::change_limits(const PoolOp& op) {
  const int index = static_cast<int>(op.a % (kShards * kServers));
  const PoolLimits limits = draw_limits(op.b);
  pool(index).update(limits);
  model_.update(index, limits, take_closures());
}

void PoolWorld::transit(const PoolOp& op) {
  const std::vector<int> moving = conns_at(bit(Place::kTransit));
  if (!moving.empty() && op.b % 2 == 0) {
    WorldConn& conn = *conns_.at(moving[op.a % moving.size()]);
    if (op.b % 16 == 0) return discard(conn, CloseReason::kServerIdle);
    const ConnPast past = pool_of(conn).end_transit(conn);
    return model_.end_transit(conn.id, past, take_closures());
  }
  const std::vector<int> idle = conns_at(bit(Place::kIdleSafe) | bit(Place::kIdleUnproven));
  if (idle.empty()) return;
  const WorldConn& some = *conns_.at(idle[op.a % idle.size()]);
  const int index = model_.conns.at(some.id).pool;
  const model::Key key{.bytes = model_.conns.at(some.id).key};
  auto* got = static_cast<WorldConn*>(pool(index).begin_transit(key.bytes, some.group()->hash()));
  model_.begin_transit(index, key, got == nullptr ? -1 : got->id);
}

void PoolWorld::open_ahead(const PoolOp& op) {
  if (conns_.size() > 70) return;
  begin(static_cast<int>(op.a % (kShards * kServers)), -1, op.b % 4 == 0 ? op.b >> 2 : 0, true);
}

// Takes the slabs' objects away, so that the next group or entry cannot be made; or gives them
// back.
void PoolWorld::hold(const PoolOp& op) {
  const int index = static_cast<int>(op.a % kShards);
  Shard& shard = *shards_[static_cast<size_t>(index)];
  if (shard.held_groups.empty() && shard.held_entries.empty()) {
    for (size_t left = op.b % 4; shard.groups.in_use() + left < shard.groups.capacity();) {
      shard.held_groups.push_back(shard.groups.take(ConnKey{.bytes = "held"}));
    }
    if (!sessions_.empty()) {
      for (size_t left = op.c % 4; shard.entries.in_use() + left < shard.entries.capacity();) {
        shard.held_entries.push_back(shard.entries.take(*sessions_[0].store, pool(0),
                                                        target_of(model::Target::kUpstream, 0)));
      }
    }
  } else {
    for (KeyGroup* group : shard.held_groups) shard.groups.give_back(group);
    for (SessionEntry* entry : shard.held_entries) shard.entries.give_back(entry);
    shard.held_groups.clear();
    shard.held_entries.clear();
  }
  model_.shards.at(index).groups_held = shard.held_groups.size();
  model_.shards.at(index).entries_held = shard.held_entries.size();
}

// The process's idle limit changes, or a message about it arrives.
void PoolWorld::idle_limit(const PoolOp& op) {
  const size_t at = op.a % kServers;
  Server& server = *servers_[at];
  if (op.b % 8 == 0) {
    server.idle->set_max(op.c % 4 == 0 ? Budget::kOff : static_cast<int64_t>(op.c % 9),
                         server.peers);
  } else if (!server.peers.messages.empty()) {
    const auto [shard, asked] = server.peers.messages.front();
    server.peers.messages.pop_front();
    BudgetShare& share = *server.shares[shard];
    if (asked) {
      share.return_surplus();
    } else {
      share.collect();
      share.settle(false);
    }
  }
  // Once there was a limit, units may be missing until every message has arrived.
  for (int i = 0; i < kShards; ++i) {
    model::Pool& p = model_.pools.at(i * kServers + static_cast<int>(at));
    p.idle_limited =
        p.idle_limited || server.idle->max() != Budget::kOff || !server.peers.messages.empty();
  }
}

std::span<const PoolWorld::Kind> PoolWorld::kinds() {
  static constexpr std::array<Kind, 19> kKinds = {{{"accept", &PoolWorld::accept, 4},
                                                   {"end_session", &PoolWorld::end_session, 2},
                                                   {"request", &PoolWorld::request, 30},
                                                   {"connect", &PoolWorld::connect, 22},
                                                   {"respond", &PoolWorld::respond, 30},
                                                   {"abort", &PoolWorld::abort, 2},
                                                   {"stale", &PoolWorld::stale, 3},
                                                   {"idle_event", &PoolWorld::idle_event, 5},
                                                   {"capacity", &PoolWorld::capacity, 6},
                                                   {"goaway", &PoolWorld::goaway, 1},
                                                   {"reap", &PoolWorld::reap, 16},
                                                   {"advance", &PoolWorld::advance, 8},
                                                   {"purge", &PoolWorld::purge, 6},
                                                   {"service", &PoolWorld::service, 2},
                                                   {"limits", &PoolWorld::change_limits, 2},
                                                   {"transit", &PoolWorld::transit, 4},
                                                   {"open_ahead", &PoolWorld::open_ahead, 2},
                                                   {"hold", &PoolWorld::hold, 1},
                                                   {"idle_limit", &PoolWorld::idle_limit, 2}}};
  return kKinds;
}

PoolOp PoolWorld::draw(Prng& prng) {
  static const uint32_t kSum = [] {
    uint32_t sum = 0;
    for (const Kind& kind : kinds()) sum += kind.weight;
    return sum;
  }();
  uint64_t at = prng.below(kSum);
  PoolOp op;
  while (at >= kinds()[op.kind].weight) at -= kinds()[op.kind++].weight;
  op.a = static_cast<uint32_t>(prng.next());
  op.b = static_cast<uint32_t>(prng.next());
  op.c = static_cast<uint32_t>(prng.next());
  return op;
}

const char* PoolWorld::name_of(const PoolOp& op) {
  return kinds()[op.kind].name;
}

void PoolWorld::run(const PoolOp& op) {
  (this->*kinds()[op.kind].run)(op);
  demand(closures_.empty(), "closed without being asked");
  compare();
}

void PoolWorld::tally(Tally& sum) const {
  const auto add = [](auto& to, const auto& from) {
    for (size_t i = 0; i < to.size(); ++i) to[i] += from[i].get();
  };
  for (const Slot& slot : slots_) {
    add(sum.handed, slot.stats.handed);
    add(sum.missed, slot.stats.missed);
    add(sum.closed, slot.stats.closed);
    for (const Counter& reserved : slot.stats.reserved) sum.reserved += reserved.get();
  }
  sum.learned += learned_;
  sum.held += held_;
  sum.joined_own += joined_own_;
}

void PoolWorld::wind_down() {
  while (!exchanges_.empty()) {
    if (exchanges_[0].connecting) {
      discard(*conns_.at(exchanges_[0].conn), CloseReason::kConnect);
    } else {
      finish(0, {.clean = true, .server_keeps = true, .hint_max = UINT64_MAX});
    }
  }
  for (const int id : conns_at(bit(Place::kConnecting))) {
    discard(*conns_.at(id), CloseReason::kConnect);
  }
  for (const int id : conns_at(bit(Place::kTransit))) {
    discard(*conns_.at(id), CloseReason::kServerIdle);
  }
  while (!sessions_.empty()) end_session({});
  compare();
  // The need and what exceeds it are halved by each purge: k of them leave about (k + 1) / 2^k.
  for (int i = 0; i < kShards * kServers; ++i) {
    ServerPool& p = pool(i);
    const size_t most = std::max<size_t>({p.idle(), p.need(), model_.pools.at(i).peak});
    const int bits = std::bit_width(most);
    const int bound = bits + std::bit_width(static_cast<unsigned>(bits + 2)) + 2;
    for (int k = 0; k < bound; ++k) purge({.a = static_cast<uint32_t>(i)});
    demand(p.idle() <= p.limits().idle_floor, "idle above the floor after quiet purges", i);
  }
  compare();
  now_ms_ += 60'000;  // Longer than any idle life.
  model_.now_ms = now_ms_;
  expire();
  for (const int id : conns_at(kIdlePlaces)) {
    demand(conns_.at(id)->expires_ms == 0, "idle beyond its life", id);
  }
  for (int i = 0; i < kShards * kServers; ++i) {
    pool(i).retire(CloseReason::kReplaced);
    model_.retire(i, CloseReason::kReplaced, take_closures());
    demand(pool(i).total() == pool(i).count(Place::kClosing), "left after retiring", i);
  }
  for (const int id : conns_at(bit(Place::kClosing))) reap_one(id);
  compare();
  for (int i = 0; i < kShards * kServers; ++i) {
    demand(pool(i).total() == 0 && pool(i).groups() == 1, "left at the end", i);
  }
}

}  // namespace ringway
