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
  if (!available.empty() && p.limits.mode != ReuseMode::kSafe) return available;
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
  std::set<int> found;
  if (pools.at(pool).retired || key.single_use) return found;
  for (const auto& [id, conn] : conns) {
    if (conn.place == Place::kSessionIdle && conn.pool == pool && conn.session == session &&
        conn.target == target && conn.key == key.bytes) {
      found.insert(id);
    }
  }
  return found;
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
  if (conn.place == Place::kHeld) return;
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
  Conn& conn = conns.at(got);
  conn.place = Place::kSessionBusy;
  conn.streams = 1;
  conn.capacity = 0;
  ++conn.requests;
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
  conn.capacity = 0;
}

// All that is true of a connection at its end and forbids to keep it. Not `certain`: only its age,
// which is random by a tenth.
std::set<CloseReason> Model::causes(const Conn& conn, const FinishNotes& notes,
                                    bool& certain) const {
  const Pool& p = pools.at(conn.pool);
  std::set<CloseReason> all;
  if (!notes.clean) all.insert(CloseReason::kError);
  if (!notes.server_keeps || conn.place == Place::kDraining) all.insert(CloseReason::kServerClose);
  if (p.retired) all.insert(p.retired_reason);
  if (conn.requests >= conn.requests_max) all.insert(CloseReason::kRequestsLimit);
  if (conn.close_after) all.insert(conn.own ? CloseReason::kPrivateLimit : CloseReason::kReuseOff);
  if (!conn.own && p.limits.mode == ReuseMode::kNever) all.insert(CloseReason::kReuseOff);
  const int64_t age = now_ms - conn.created_ms;
  certain = !all.empty() || (conn.age_ms > 0 && age >= conn.age_ms);
  if (conn.age_ms > 0 && age >= conn.age_ms - conn.age_ms / 10) all.insert(CloseReason::kAge);
  return all;
}

void Model::finish(int id, const FinishNotes& notes, Verdict verdict, const Closures& closed) {
  Conn& conn = conns.at(id);
  demand(conn.streams > 0, "finished without a request", id);
  --conn.streams;
  ++conn.finished;
  if (notes.hint_ms > 0) conn.hint_ms = notes.hint_ms;
  const uint64_t further = UINT64_MAX - conn.requests;
  if (notes.hint_max < further) {
    conn.requests_max = std::min(conn.requests_max, conn.requests + notes.hint_max);
  }
  const uint32_t more = conn.capacity == UINT32_MAX ? conn.capacity : conn.capacity + 1;
  if (conn.streams > 0) {
    demand(verdict == Verdict::kInUse, "closed or parked in use", id);
    return conn.place == Place::kDraining ? settle({}, closed) : on_capacity(id, more, closed);
  }
  let_go(conn);
  bool certain = false;
  const std::set<CloseReason> why = causes(conn, notes, certain);
  if (certain || (!why.empty() && verdict == Verdict::kClosed && closed.size() == 1 &&
                  closed[0] == std::pair{id, CloseReason::kAge})) {
    demand(verdict == Verdict::kClosed, "kept what must not be kept", id);
    demand(closed.size() == 1 && closed[0].first == id, "closed others", id);
    demand(why.count(closed[0].second) == 1, "closed for what is not so", id);
    return settle(closed, closed);
  }
  conn.capacity = more;
  if (!conn.own) return park(id, verdict, closed);
  uint32_t idle = 0;
  for (const auto& [other, c] : conns) {
    idle += c.place == Place::kSessionIdle && c.session == conn.session && c.pool == conn.pool &&
                    c.target == conn.target
                ? 1
                : 0;
  }
  if (idle >= sessions.at(conn.session).limits.idle_per_entry) {
    demand(verdict == Verdict::kClosed, "kept too many for a session", id);
    return settle({{id, CloseReason::kPrivateLimit}}, closed);
  }
  demand(verdict == Verdict::kKeptPrivate, "not kept for its session", id);
  settle({}, closed);
  conn.idle_since_ms = now_ms;
  conn.place = Place::kSessionIdle;
}

void Model::park(int id, Verdict verdict, const Closures& closed) {
  Conn& conn = conns.at(id);
  const Pool& p = pools.at(conn.pool);
  const std::vector<int> have = idle(conn.pool);
  const bool first_of_key =
      conn.key != "fixed" && std::none_of(have.begin(), have.end(), [&](int other) {
        return conns.at(other).key == conn.key;
      });
  const bool enough =
      !first_of_key && have.size() >= p.limits.idle_floor &&
      used(conn.pool) + have.size() > std::max(p.need, p.peak) + p.limits.idle_floor;
  if (enough) {
    demand(verdict == Verdict::kClosed, "kept more than the load needs", id);
    return settle({{id, CloseReason::kUnneeded}}, closed);
  }
  demand(p.idle_limited || closed.empty(), "an idle limit that is off", id);
  // At the limit the oldest goes first; the units may be elsewhere even then.
  Closures expected;
  if (!have.empty() && !closed.empty()) {
    expected.emplace_back(have.front(), CloseReason::kIdleLimit);
  }
  if (verdict == Verdict::kClosed) expected.emplace_back(id, CloseReason::kIdleLimit);
  settle(expected, closed);
  if (verdict == Verdict::kClosed) return;
  demand(verdict == Verdict::kParked, "another end", id);
  demand(!conn.own && !conn.close_after && conn.grouped && conn.streams == 0, "parked", id);
  conn.place = conn.finished >= 2 ? Place::kIdleSafe : Place::kIdleUnproven;
  conn.idle_since_ms = now_ms;
  conn.parked = ++parked_;
}

void Model::on_capacity(int id, uint32_t free, const Closures& closed) {
  Conn& conn = conns.at(id);
  if (conn.shared_idle()) {
    conn.capacity = free;
    return settle(free == 0 ? Closures{{id, CloseReason::kServerClose}} : Closures{}, closed);
  }
  settle({}, closed);
  if (conn.place != Place::kBusy && conn.place != Place::kAvailable && conn.place != Place::kHeld) {
    return;
  }
  const uint64_t left = conn.requests < conn.requests_max ? conn.requests_max - conn.requests : 0;
  conn.capacity = static_cast<uint32_t>(std::min<uint64_t>(free, left));
  if (conn.close_after || conn.own || pools.at(conn.pool).retired) conn.capacity = 0;
  file(conn);
}

void Model::drain(int id, const Closures& closed) {
  Conn& conn = conns.at(id);
  if (conn.shared_idle() || conn.place == Place::kSessionIdle) {
    return settle({{id, CloseReason::kServerClose}}, closed);
  }
  settle({}, closed);
  let_go(conn);
  conn.close_after = true;
  conn.capacity = 0;
  if (conn.place == Place::kBusy || conn.place == Place::kAvailable) conn.place = Place::kDraining;
}

void Model::close(int id, CloseReason reason, const Closures& closed) {
  settle({{id, reason}}, closed);
}

void Model::learn(int id) {
  const Conn& conn = conns.at(id);
  Pool& p = pools.at(conn.pool);
  const int64_t age = now_ms - conn.idle_since_ms;
  if (age < 500) return;
  const int64_t gap = age > p.last_age_ms ? age - p.last_age_ms : p.last_age_ms - age;
  if (p.last_age_ms > 0 && 10 * gap <= age && now_ms - p.last_at_ms >= 500) {
    p.learned_ms = age - age / 5;
    p.learned_at_ms = now_ms;
  }
  p.last_age_ms = age;
  p.last_at_ms = now_ms;
}

void Model::check_life(int id, int64_t life_ms) const {
  const Conn& conn = conns.at(id);
  const Pool& p = pools.at(conn.pool);
  std::vector<int64_t> bounds;
  if (p.limits.idle_ms > 0) bounds.push_back(p.limits.idle_ms);
  if (conn.hint_ms > 0) {
    bounds.push_back(conn.hint_ms > 2000 ? conn.hint_ms - 1000 : conn.hint_ms / 2);
  }
  if (p.learned_ms > 0 && conn.idle_since_ms - p.learned_at_ms < 600'000) {
    bounds.push_back(p.learned_ms);
  }
  std::vector<int64_t> least = bounds;
  if (conn.age_ms > 0) {
    const int64_t age = conn.created_ms + conn.age_ms - conn.idle_since_ms;
    bounds.push_back(age);
    least.push_back(age - conn.age_ms / 10);
  }
  const auto shortest = [](const std::vector<int64_t>& all) {
    return all.empty() ? 0 : std::max<int64_t>(1, *std::min_element(all.begin(), all.end()));
  };
  demand(life_ms >= shortest(least) && life_ms <= shortest(bounds), "idle life", life_ms);
}

void Model::suspect(int id, size_t count, const Closures& closed) {
  const Conn& conn = conns.at(id);
  Closures expected;
  for (const int other : idle(conn.pool)) {
    const Conn& c = conns.at(other);
    if (conn.grouped && c.key == conn.key && c.idle_since_ms <= conn.idle_since_ms) {
      expected.emplace_back(other, CloseReason::kStale);
    }
  }
  demand(count == expected.size(), "suspects", static_cast<int64_t>(count));
  settle(expected, closed);
}

void Model::purge(int pool, size_t count, const Closures& closed) {
  Pool& p = pools.at(pool);
  if (p.learned_ms > 0 && now_ms - p.learned_at_ms >= 600'000) p.learned_ms = 0;
  p.need = std::max((p.need + p.peak) / 2, p.peak);
  p.peak = used(pool);
  const uint32_t busy = std::min(p.need, used(pool));
  const size_t keep = std::max(p.limits.idle_floor, p.need - busy);
  const std::vector<int> have = idle(pool);
  const size_t kill = have.size() > keep ? (have.size() - keep + 1) / 2 : 0;
  Closures expected;
  for (size_t i = 0; i < kill; ++i) expected.emplace_back(have[i], CloseReason::kUnneeded);
  demand(count == kill, "purged", static_cast<int64_t>(count));
  settle(expected, closed);
}

void Model::close_idle(int pool, CloseReason reason, const Closures& closed) {
  Closures expected;
  for (const int id : idle(pool)) expected.emplace_back(id, reason);
  for (const int id : private_idle(pool)) expected.emplace_back(id, reason);
  settle(expected, closed);
}

void Model::retire(int pool, CloseReason reason, const Closures& closed) {
  pools.at(pool).retired = true;
  pools.at(pool).retired_reason = reason;
  close_idle(pool, reason, closed);
  for (auto& [id, conn] : conns) {
    if (conn.pool != pool) continue;
    if (conn.place == Place::kHeld) conn.capacity = 0;
    if (conn.place != Place::kAvailable) continue;
    conn.place = Place::kDraining;
    conn.capacity = 0;
  }
}

void Model::update(int pool, const PoolLimits& limits, const Closures& closed) {
  pools.at(pool).limits = limits;
  Closures expected;
  if (limits.mode == ReuseMode::kNever) {
    for (const int id : idle(pool)) expected.emplace_back(id, CloseReason::kReuseOff);
  }
  settle(expected, closed);
}

void Model::begin_transit(int pool, const Key& key, int got) {
  std::set<int> may;
  for (const int id : idle(pool)) {
    if (!pools.at(pool).retired && conns.at(id).key == key.bytes) may.insert(id);
  }
  demand((got >= 0) == !may.empty(), "in transit, or none", got);
  if (got < 0) return;
  demand(may.count(got) == 1, "in transit with another key", got);
  conns.at(got).place = Place::kTransit;
}

void Model::end_transit(int id, const ConnPast& past, const Closures& closed) {
  const Conn& conn = conns.at(id);
  const Pool& p = pools.at(conn.pool);
  const bool over = p.retired || conn.close_after || p.limits.mode == ReuseMode::kNever;
  demand(past.usable == !over, "lent though its use had ended, or the other way round", id);
  demand(past.requests == conn.requests, "lent with a wrong past", id);
  demand(closed.empty(), "closed, and lent as well", id);
  now_closing(id);
}

void Model::close_session(int session, const Closures& closed) {
  Closures expected;
  for (const auto& [id, conn] : conns) {
    if (conn.session == session) expected.emplace_back(id, CloseReason::kSessionEnd);
  }
  settle(expected, closed);
  demand(sessions.at(session).entries.empty(), "an entry of a session that has ended", session);
  sessions.erase(session);
}

}  // namespace ringway::model
