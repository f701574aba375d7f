// tests/pool/pool_model.cc
#include "tests/pool/pool_model.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace ringway::model {

using Verdict = ServerPool::Verdict;

void demand(bool condition, const char* what, int64_t who) {
  if (condition) return;
  std::fprintf(stderr, "the model disagrees: %s (%lld)\n", what, static_cast<long long>(who));
  std::abort();
}

std::vector<int> Model::idle(int pool) const {
  std::vector<int> found;
  for (const auto& [id, conn] : conns) {
    if (conn.pool == pool && conn.shared_idle()) found.push_back(id);
  }
  std::sort(found.begin(), found.end(),
            [&](int a, int b) { return conns.at(a).parked < conns.at(b).parked; });
  return found;
}

std::vector<int> Model::private_idle(int pool) const {
  std::vector<int> found;
  for (const auto& [id, conn] : conns) {
    if (conn.pool == pool && conn.place == Place::kSessionIdle) found.push_back(id);
  }
  return found;
}

uint32_t Model::count(int pool, Place place) const {
  uint32_t number = 0;
  for (const auto& [id, conn] : conns) number += conn.pool == pool && conn.place == place ? 1 : 0;
  return number;
}

// In use and shared.
uint32_t Model::used(int pool) const {
  return count(pool, Place::kConnecting) + count(pool, Place::kBusy) +
         count(pool, Place::kAvailable) + count(pool, Place::kHeld) + count(pool, Place::kDraining);
}

size_t Model::groups(int pool) const {
  std::set<std::string> keys{"fixed"};
  for (const auto& [id, conn] : conns) {
    if (conn.pool == pool && conn.grouped && conn.live()) keys.insert(conn.key);
  }
  return keys.size();
}

size_t Model::shard_groups(int shard) const {
  size_t number = shards.at(shard).groups_held;
  for (const auto& [id, pool] : pools) number += pool.shard == shard ? groups(id) : 0;
  return number;
}

size_t Model::shard_entries(int shard) const {
  size_t number = shards.at(shard).entries_held;
  for (const auto& [id, session] : sessions) {
    if (session.shard == shard) number += session.entries.size();
  }
  return number;
}

std::vector<int> Model::eligible(int pool, const Key& key, const PickRules& rules) const {
  const Pool& p = pools.at(pool);
  if (p.retired || rules.fresh || key.single_use || p.limits.mode == ReuseMode::kNever) return {};
  std::vector<int> available;
  std::vector<int> safe;
  std::vector<int> unproven;
  for (const auto& [id, conn] : conns) {
    if (conn.pool != pool || !conn.grouped || conn.key != key.bytes || conn.own) continue;
    if (conn.place == Place::kAvailable) available.push_back(id);
    if (conn.shared_idle()) (conn.finished >= 2 ? safe : unproven).push_back(id);
  }
  const bool shares = p.limits.mode != ReuseMode::kSafe && !rules.own;
  if (!available.empty() && shares) return available;
  const auto newest_last = [&](std::vector<int>& list) {
    std::sort(list.begin(), list.end(),
              [&](int a, int b) { return conns.at(a).parked < conns.at(b).parked; });
    return list;
  };
  newest_last(safe);
  newest_last(unproven);
  if (!rules.first) return unproven.empty() ? safe : unproven;
  const bool any = p.limits.mode == ReuseMode::kAlways ||
                   (p.limits.mode == ReuseMode::kAuto && rules.repeatable);
  if (any) return safe.empty() ? unproven : safe;
  return p.limits.mode == ReuseMode::kAggressive ? safe : std::vector<int>{};
}

std::set<int> Model::eligible_private(int session, Target target, int pool, const Key& key) const {
  std::set<int> idle;
  std::set<int> in_use;
  if (pools.at(pool).retired || key.single_use) return idle;
  for (const auto& [id, conn] : conns) {
    if (!conn.own || conn.pool != pool || conn.session != session || conn.target != target)
      continue;
    if (conn.key != key.bytes) continue;
    if (conn.place == Place::kSessionIdle) idle.insert(id);
    if (conn.place == Place::kSessionBusy && conn.capacity > 0) in_use.insert(id);
  }
  return in_use.empty() ? idle : in_use;
}

// In mode "safe" those in use by this session alone.
std::set<int> Model::eligible_held(int session, int pool, const Key& key) const {
  std::set<int> found;
  const Pool& p = pools.at(pool);
  if (p.retired || key.single_use || p.limits.mode != ReuseMode::kSafe) return found;
  for (const auto& [id, conn] : conns) {
    if (conn.place == Place::kHeld && conn.pool == pool && conn.session == session &&
        conn.key == key.bytes && conn.capacity > 0) {
      found.insert(id);
    }
  }
  return found;
}

void Model::peak(int pool) {
  pools.at(pool).peak = std::max(pools.at(pool).peak, used(pool));
}

void Model::now_closing(int id) {
  Conn& conn = conns.at(id);
  demand(conn.live(), "closed twice", id);
  conn.place = Place::kClosing;
  conn.streams = 0;
  conn.capacity = 0;
  leave_entry(conn);
}

void Model::leave_entry(Conn& conn) {
  if (conn.session < 0) return;
  Session& session = sessions.at(conn.session);
  const int of = conn.session;
  conn.session = -1;
  for (const auto& [id, other] : conns) {
    if (other.session == of && other.pool == conn.pool && other.target == conn.target) return;
  }
  std::erase(session.entries, Entry{conn.target, conn.pool});
}

void Model::let_go(Conn& conn) {
  if (conn.place != Place::kHeld) return;
  conn.place = Place::kBusy;
  leave_entry(conn);
}

void Model::settle(const Closures& expected, const Closures& closed) {
  const std::set<std::pair<int, CloseReason>> want(expected.begin(), expected.end());
  const std::set<std::pair<int, CloseReason>> got(closed.begin(), closed.end());
  demand(closed.size() == got.size(), "told twice of one close");
  for (const auto& each : want) demand(got.count(each) == 1, "not closed, or not so", each.first);
  for (const auto& each : got) demand(want.count(each) == 1, "closed, or not so", each.first);
  for (const auto& each : want) now_closing(each.first);
}

void Model::file(Conn& conn) {
  if (conn.session >= 0 && conn.own) conn.place = Place::kSessionBusy;
  if (conn.session >= 0) return;
  conn.place = conn.capacity > 0 ? Place::kAvailable : Place::kBusy;
}

void Model::use(Conn& conn) {
  demand(conn.capacity > 0, "used without room");
  ++conn.streams;
  ++conn.requests;
  conn.capacity = conn.requests >= conn.requests_max ? 0 : conn.capacity - 1;
  file(conn);
}

void Model::pick(int pool, const Key& key, const PickRules& rules, int got,
                 const ServerPool::Picked& said) {
  const std::vector<int> may = eligible(pool, key, rules);
  demand((got >= 0) == !may.empty(), "found one, or found none", got);
  if (got < 0 && !pools.at(pool).retired) {
    const std::vector<int> all = idle(pool);
    const bool same = !key.single_use && std::any_of(all.begin(), all.end(), [&](int id) {
      return conns.at(id).key == key.bytes;
    });
    const Miss want = rules.fresh   ? Miss::kForcedFresh
                      : all.empty() ? Miss::kNoneIdle
                      : same        ? Miss::kPolicy
                                    : Miss::kOtherKeys;
    demand(said.miss == want, "missed for another cause", static_cast<int>(said.miss));
  }
  if (got < 0) return;
  demand(std::find(may.begin(), may.end(), got) != may.end(), "not for this request", got);
  Conn& conn = conns.at(got);
  const How want = conn.place == Place::kAvailable ? How::kAvailable
                   : conn.finished >= 2            ? How::kSafe
                                                   : How::kUnproven;
  demand(said.how == want, "said to be another kind", got);
  if (conn.shared_idle()) demand(may.back() == got, "not the one used last", got);
  use(conn);
  peak(pool);
}

void Model::pick_private(int session, Target target, int pool, const Key& key, int got) {
  const std::set<int> may = eligible_private(session, target, pool, key);
  demand((got >= 0) == !may.empty(), "found a private one, or none", got);
  if (got < 0) return;
  demand(may.count(got) == 1, "not this session's", got);
  use(conns.at(got));
}

void Model::pick_held(int session, int pool, const Key& key, int got) {
  const std::set<int> may = eligible_held(session, pool, key);
  demand((got >= 0) == !may.empty(), "found a held one, or none", got);
  if (got < 0) return;
  demand(may.count(got) == 1, "held by another session", got);
  use(conns.at(got));
}

void Model::hold(int id, int of) {
  Conn& conn = conns.at(id);
  if (pools.at(conn.pool).limits.mode != ReuseMode::kSafe || conn.streams > 1) return;
  if (conn.place != Place::kBusy && conn.place != Place::kAvailable) return;
  if (!conn.grouped) return;
  Session& session = sessions.at(of);
  const Entry entry{Target::kServer, conn.pool};
  if (std::find(session.entries.begin(), session.entries.end(), entry) == session.entries.end()) {
    if (session.entries.size() >= session.limits.targets) return;
    if (shard_entries(session.shard) >= shards.at(session.shard).entries_max) return;
    session.entries.push_back(entry);
  }
  conn.session = of;
  conn.target = Target::kServer;
  conn.place = Place::kHeld;
}

// Whether there is room for the key, after the one used longest ago has made some.
bool Model::room_for_group(int pool, const Key& key, Closures& expected) {
  if (key.single_use) return false;
  const auto sharers = [&](const std::string& bytes) {
    return std::count_if(conns.begin(), conns.end(), [&](const auto& each) {
      return each.second.pool == pool && each.second.grouped && each.second.live() &&
             each.second.key == bytes;
    });
  };
  if (key.bytes == "fixed" || sharers(key.bytes) > 0) return true;
  const Pool& p = pools.at(pool);
  size_t made = 0;
  if (groups(pool) >= p.limits.groups_max) {
    for (const int id : idle(pool)) {
      if (conns.at(id).key == "fixed" || sharers(conns.at(id).key) != 1) continue;
      expected.emplace_back(id, CloseReason::kGroupLimit);
      made = 1;
      break;
    }
    if (made == 0) return false;
  }
  return shard_groups(p.shard) - made < shards.at(p.shard).groups_max;
}

void Model::begin(int id, int pool, const Key& key, const Closures& closed) {
  const Pool& p = pools.at(pool);
  Closures expected;
  const bool room = room_for_group(pool, key, expected);
  settle(expected, closed);
  Conn conn{.pool = pool,
            .key = key.bytes,
            .grouped = room,
            .requests_max = p.limits.requests_max,
            .created_ms = now_ms,
            .idle_since_ms = now_ms,
            .age_ms = p.limits.age_ms,
            .close_after = !room};
  conns.emplace(id, conn);
  peak(pool);
}

void Model::connected(int id, uint32_t capacity) {
  Conn& conn = conns.at(id);
  demand(conn.place == Place::kConnecting, "connected twice", id);
  conn.streams = 1;
  conn.requests = 1;
  conn.capacity = conn.close_after || conn.requests_max <= 1 ? 0 : capacity;
  file(conn);
}

void Model::connected_idle(int id, Verdict verdict, const Closures& closed) {
  Conn& conn = conns.at(id);
  const Pool& p = pools.at(conn.pool);
  if (p.retired || conn.close_after || p.limits.mode == ReuseMode::kNever) {
    demand(verdict == Verdict::kClosed, "kept what must not be kept", id);
    return settle({{id, p.retired ? p.retired_reason : CloseReason::kReuseOff}}, closed);
  }
  conn.capacity = 1;
  park(id, verdict, closed);
}

// Whether the session can hold this entry, after the oldest one that is all idle has made room.
bool Model::room_for_entry(int id, Target target, int pool, Closures& expected) {
  const Session& session = sessions.at(id);
  const Entry wanted{target, pool};
  if (std::find(session.entries.begin(), session.entries.end(), wanted) != session.entries.end()) {
    return true;
  }
  size_t made = 0;
  if (session.entries.size() >= session.limits.targets) {
    for (const Entry& entry : session.entries) {
      Closures all;
      bool busy = false;
      for (const auto& [other, conn] : conns) {
        if (conn.session != id || conn.pool != entry.pool || conn.target != entry.target) continue;
        all.emplace_back(other, CloseReason::kPrivateLimit);
        busy = busy || conn.place != Place::kSessionIdle;
      }
      if (busy) continue;
      expected = all;
      made = 1;
      break;
    }
    if (made == 0) return false;
  }
  return shard_entries(session.shard) - made < shards.at(session.shard).entries_max;
}

void Model::make_private(int id, int session, Target target, bool kept, const Closures& closed) {
  Conn& conn = conns.at(id);
  if (conn.own && (conn.session < 0 || target == Target::kServer || conn.target == target)) {
    demand(kept == (conn.session >= 0), "kept, or not", id);
    return settle({}, closed);
  }
  if (!conn.own && (conn.streams > 1 || conn.place == Place::kDraining)) {
    demand(!kept, "private with two users", id);
    return drain(id, closed);
  }
  let_go(conn);
  Closures expected;
  const bool room = room_for_entry(session, target, conn.pool, expected);
  settle(expected, closed);
  demand(kept == (room || conn.own), "kept for its session, or not", id);
  if (room) {
    std::vector<Entry>& entries = sessions.at(session).entries;
    const Entry entry{target, conn.pool};
    if (std::find(entries.begin(), entries.end(), entry) == entries.end()) entries.push_back(entry);
    leave_entry(conn);
    conn.session = session;
    conn.target = target;
    conn.place = Place::kSessionBusy;
  } else if (!conn.own) {
    conn.place = Place::kBusy;
    conn.close_after = true;
  }
  conn.own = true;
  if (conn.close_after) conn.capacity = 0;
}

}  // namespace ringway::model
