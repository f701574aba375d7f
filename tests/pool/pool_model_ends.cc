// tests/pool/pool_model_ends.cc - the model of how uses of connections end, and connections.
#include <algorithm>

#include "tests/pool/pool_model.h"

namespace ringway::model {

using Verdict = ServerPool::Verdict;

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
  if (conn.shared_idle() || conn.place == Place::kSessionIdle) {
    conn.capacity = free;
    return settle(free == 0 ? Closures{{id, CloseReason::kServerClose}} : Closures{}, closed);
  }
  settle({}, closed);
  const bool in_use = conn.place == Place::kBusy || conn.place == Place::kAvailable ||
                      conn.place == Place::kHeld || conn.place == Place::kSessionBusy;
  if (!in_use) return;
  const uint64_t left = conn.requests < conn.requests_max ? conn.requests_max - conn.requests : 0;
  conn.capacity = static_cast<uint32_t>(std::min<uint64_t>(free, left));
  if (conn.close_after || pools.at(conn.pool).retired) conn.capacity = 0;
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
    if (conn.place == Place::kHeld || conn.place == Place::kSessionBusy) conn.capacity = 0;
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
