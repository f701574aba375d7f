// tests/pool/pool_world.cc - requests and what they find; the rest is in pool_world_events.cc.
#include "tests/pool/pool_world.h"

#include <algorithm>
#include <array>

#include "core/base/check.h"

namespace ringway {

using model::demand;
using Verdict = ServerPool::Verdict;

namespace {

constexpr PoolLimits kLimits{.mode = ReuseMode::kAlways};

constexpr uint32_t bit(Place place) {
  return 1U << static_cast<uint32_t>(place);
}

struct NamedKey {
  const char* bytes;
  uint64_t hash;
  bool single_use;
};
// Two and two have equal hashes, which differ in their first bits, too; one has the bytes of
// another, but is for a single use.
constexpr uint64_t kHashes[] = {7, 1 + (1ULL << 63), 2 + (3ULL << 61)};
constexpr std::array<NamedKey, 8> kKeys = {{{"fixed", kHashes[0], false},
                                            {"a", kHashes[1], false},
                                            {"b", kHashes[1], false},
                                            {"c", kHashes[0], false},
                                            {"d", kHashes[2], false},
                                            {"e", kHashes[2], false},
                                            {"a", kHashes[1], true},
                                            {"fixed", kHashes[0], false}}};

ConnKey key_at(uint32_t index) {
  const NamedKey& named = kKeys[index % kKeys.size()];
  return {.bytes = named.bytes, .hash = named.hash, .single_use = named.single_use};
}
model::Key model_key(uint32_t index) {
  const NamedKey& named = kKeys[index % kKeys.size()];
  return {.bytes = named.bytes, .single_use = named.single_use};
}
// The first is what a server has that no request changes: no key at all.
bool is_fixed(uint32_t index) {
  return index % kKeys.size() == 0;
}

}  // namespace

void WorldConn::on_pool_close(CloseReason reason) {
  demand(place() == Place::kClosing, "told of a close while elsewhere", id);
  world_.closures_.emplace_back(id, reason);
}

PoolWorld::PoolWorld(uint64_t seed) {
  Prng prng(seed);
  const bool scarce = prng.chance(0.3);  // in groups and entries
  for (int i = 0; i < kServers; ++i) {
    servers_.push_back(std::make_unique<Server>());
    Server& server = *servers_.back();
    const int64_t max = prng.chance(0.5) ? Budget::kOff : static_cast<int64_t>(prng.below(9));
    server.idle = std::make_unique<Budget>(uint32_t{kShards}, max);
    for (uint32_t shard = 0; shard < kShards; ++shard) {
      server.shares.push_back(std::make_unique<BudgetShare>(*server.idle, shard, server.peers));
    }
  }
  slots_ = std::vector<Slot>(size_t{kShards} * kServers);
  for (int i = 0; i < kShards; ++i) {
    const size_t groups = scarce ? kServers + prng.below(6) : 64;
    const size_t entries = scarce ? prng.below(5) : 256;
    shards_.push_back(std::make_unique<Shard>(groups, entries, prng.next()));
    Shard& shard = *shards_.back();
    shard.memory = std::make_unique<PoolMemory>(PoolMemory{
        .groups = shard.groups, .secret = {}, .prng = shard.prng, .key_buffer = shard.key_buffer});
    model_.shards[i] = {.groups_max = groups, .entries_max = entries};
    for (int server = 0; server < kServers; ++server) make_pool(i * kServers + server);
  }
  for (int i = 0; i < kShards * kServers; ++i) {
    const PoolLimits limits = draw_limits(static_cast<uint32_t>(prng.next()));
    pool(i).update(limits);
    model_.update(i, limits, take_closures());
  }
  model_.now_ms = now_ms_;
}

PoolWorld::~PoolWorld() {
  for (auto& shard : shards_) {
    for (KeyGroup* group : shard->held_groups) shard->groups.give_back(group);
    for (SessionEntry* entry : shard->held_entries) shard->entries.give_back(entry);
  }
  for (Slot& slot : slots_) slot.pool.reset();
  for (auto& shard : shards_) {
    demand(shard->groups.in_use() == 0, "groups leaked");
    demand(shard->entries.in_use() == 0, "entries leaked");
  }
}

void PoolWorld::make_pool(int index) {
  const int shard = index / kServers;
  Slot& slot = slots_[static_cast<size_t>(index)];
  BudgetShare* share =
      servers_[static_cast<size_t>(index % kServers)]->shares[static_cast<size_t>(shard)].get();
  slot.pool = std::make_unique<ServerPool>(*shards_[static_cast<size_t>(shard)]->memory, slot.stats,
                                           key_at(0), share);
  model_.pools[index] = {.shard = shard,
                         .limits = slot.pool->limits(),
                         .idle_limited = share->budget().max() != Budget::kOff};
}

PoolLimits PoolWorld::draw_limits(uint32_t bits) const {
  constexpr std::array<ReuseMode, 8> kModes = {
      ReuseMode::kNever,  ReuseMode::kSafe, ReuseMode::kSafe,   ReuseMode::kAggressive,
      ReuseMode::kAlways, ReuseMode::kAuto, ReuseMode::kAlways, ReuseMode::kAggressive};
  PoolLimits limits = kLimits;
  limits.mode = kModes[bits & 7];
  if ((bits >> 3 & 3) == 0) limits.requests_max = bits >> 5 & 7;
  if ((bits >> 8 & 3) == 0) limits.idle_ms = 0;
  if ((bits >> 8 & 3) == 1) limits.idle_ms = 3'000;
  if ((bits >> 10 & 3) == 0) limits.age_ms = 20'000;
  limits.idle_floor = bits >> 12 & 3;
  if ((bits >> 14 & 1) == 0) limits.groups_max = 1 + (bits >> 15 & 3);
  return limits;
}

FinishNotes PoolWorld::draw_notes(uint32_t bits) const {
  constexpr std::array<int64_t, 4> kHints = {1'000, 2'000, 5'000, 60'000};
  constexpr std::array<uint64_t, 4> kMax = {0, 1, 3, UINT64_MAX - 1};
  FinishNotes notes{
      .clean = bits % 16 != 0, .server_keeps = (bits >> 4) % 16 != 0, .hint_max = UINT64_MAX};
  if ((bits >> 8) % 8 == 0) notes.hint_ms = kHints[bits >> 11 & 3];
  if ((bits >> 13) % 8 == 0) notes.hint_max = kMax[bits >> 16 & 3];
  return notes;
}

TargetRef PoolWorld::target_of(model::Target target, int pool) const {
  if (target == model::Target::kUpstream) {
    return {.kind = TargetRef::Kind::kUpstream, .object = this};
  }
  return {.kind = TargetRef::Kind::kServer, .object = slots_[static_cast<size_t>(pool)].pool.get()};
}

model::Closures PoolWorld::take_closures() {
  return std::exchange(closures_, {});
}

PoolWorld::Session* PoolWorld::session(int id) {
  for (Session& session : sessions_) {
    if (session.id == id) return &session;
  }
  return nullptr;
}

// Connections at any of the places, by age.
std::vector<int> PoolWorld::conns_at(uint32_t places) const {
  std::vector<int> found;
  for (const auto& [id, conn] : conns_) {
    if ((bit(conn->place()) & places) != 0) found.push_back(id);
  }
  return found;
}

void PoolWorld::accept(const PoolOp& op) {
  if (sessions_.size() >= 12) return;
  const int shard = static_cast<int>(op.a % kShards);
  const SessionLimits limits{.targets = op.b % 4, .idle_per_entry = (op.b >> 2) % 3};
  const int id = next_session_++;
  sessions_.push_back({.id = id,
                       .shard = shard,
                       .store = std::make_unique<SessionStore>(
                           shards_[static_cast<size_t>(shard)]->entries, limits)});
  model_.sessions[id] = {.shard = shard, .limits = limits, .entries = {}};
}

// As lb does it: its own, a shared one by the table, or a new one.
void PoolWorld::request(const PoolOp& op) {
  if (sessions_.empty() || conns_.size() > 70) return;
  Session& by = sessions_[op.a % sessions_.size()];
  const int index = by.shard * kServers + static_cast<int>(op.b % kServers);
  const uint32_t key = op.b >> 4;
  const ConnKey bytes = key_at(key);
  const ConnKey* named = is_fixed(key) ? nullptr : &bytes;
  const PickRules rules{.first = by.requests == 0 || (op.c >> 5) % 4 == 0,
                        .repeatable = (op.c & 1) != 0,
                        .fresh = (op.c >> 1) % 16 == 0,
                        .own = (op.c >> 8) % 8 == 1};  // See taken().
  ++by.requests;
  for (const model::Target target : {model::Target::kUpstream, model::Target::kServer}) {
    PooledConn* own = pool(index).pick_private(*by.store, target_of(target, index), named, true);
    auto* got = static_cast<WorldConn*>(own);
    model_.pick_private(by.id, target, index, model_key(key), got == nullptr ? -1 : got->id);
    if (got == nullptr) continue;
    if (got->streams() > 1) ++joined_own_;
    exchanges_.push_back({got->id, by.id, false});
    return taken(*got, by.id, op.c >> 8);
  }
  auto* held = static_cast<WorldConn*>(pool(index).pick_held(*by.store, named));
  model_.pick_held(by.id, index, model_key(key), held == nullptr ? -1 : held->id);
  if (held != nullptr) {
    ++held_;
    exchanges_.push_back({held->id, by.id, false});
    return taken(*held, by.id, op.c >> 8);
  }
  const ServerPool::Picked picked = pool(index).pick(named, rules);
  auto* got = static_cast<WorldConn*>(picked.conn);
  model_.pick(index, model_key(key), rules, got == nullptr ? -1 : got->id, picked);
  if (got == nullptr) return begin(index, by.id, key, false);
  demand(!got->reserved(), "a private one was shared", got->id);
  exchanges_.push_back({got->id, by.id, false});
  taken(*got, by.id, op.c >> 8);
}

void PoolWorld::begin(int index, int session, uint32_t key, bool ahead) {
  const int id = next_conn_++;
  auto made = std::make_unique<WorldConn>(*this, pool(index), id);
  WorldConn& conn = *made;
  conns_.emplace(id, std::move(made));
  conn.ahead = ahead;
  const ConnKey bytes = key_at(key);
  pool(index).begin(conn, is_fixed(key) ? nullptr : &bytes, now_ms_);
  model_.begin(id, index, model_key(key), take_closures());
  if (!ahead) exchanges_.push_back({id, session, true});
}

// A request has its connection: a login, or a mode that shares nothing, makes it private.
void PoolWorld::taken(WorldConn& conn, int session, uint32_t bits) {
  if (bits % 8 == 0) return reserve(conn, session, model::Target::kUpstream);
  const bool never = pool_of(conn).limits().mode == ReuseMode::kNever;
  if (never || bits % 8 == 1) return reserve(conn, session, model::Target::kServer);
  // A client of HTTP/2, and a connection that is.
  if (bits % 8 < 3 || conn.reserved()) return;
  pool_of(conn).hold(conn, *this->session(session)->store);
  model_.hold(conn.id, session);
}

void PoolWorld::reserve(WorldConn& conn, int id, model::Target target) {
  const int index = model_.conns.at(conn.id).pool;
  SessionStore& store = *session(id)->store;
  const bool kept = pool_of(conn).make_private(conn, store, target_of(target, index));
  model_.make_private(conn.id, id, target, kept, take_closures());
}

void PoolWorld::connect(const PoolOp& op) {
  const std::vector<int> waiting = conns_at(bit(Place::kConnecting));
  if (waiting.empty()) return;
  WorldConn& conn = *conns_.at(waiting[op.a % waiting.size()]);
  if (op.b % 8 == 0) return discard(conn, CloseReason::kConnect);
  if (conn.ahead) {
    const Verdict verdict = pool_of(conn).connected_idle(conn, now_ms_);
    model_.connected_idle(conn.id, verdict, take_closures());
    return parked(conn, verdict);
  }
  const uint32_t capacity = op.c % 3 == 0 ? op.c % 5 : 0;
  pool_of(conn).connected(conn, capacity);
  model_.connected(conn.id, capacity);
  for (Exchange& exchange : exchanges_) {
    if (exchange.conn != conn.id) continue;
    exchange.connecting = false;
    return taken(conn, exchange.session, op.c >> 8);
  }
  demand(false, "connected for nobody", conn.id);
}

void PoolWorld::respond(const PoolOp& op) {
  if (exchanges_.empty()) return;
  const size_t at = op.a % exchanges_.size();
  const Exchange exchange = exchanges_[at];
  if (exchange.connecting) return;
  if (op.c % 8 == 0) {  // 401 with NTLM
    reserve(*conns_.at(exchange.conn), exchange.session, model::Target::kUpstream);
  }
  finish(at, draw_notes(op.b));
}

void PoolWorld::finish(size_t at, const FinishNotes& notes) {
  WorldConn& conn = *conns_.at(exchanges_[at].conn);
  exchanges_.erase(exchanges_.begin() + static_cast<std::ptrdiff_t>(at));
  const Verdict verdict = pool_of(conn).finish(conn, notes, now_ms_);
  model_.finish(conn.id, notes, verdict, take_closures());
  parked(conn, verdict);
}

// What the server's slot does after a connection became idle.
void PoolWorld::parked(WorldConn& conn, Verdict verdict) {
  if (verdict != Verdict::kParked && verdict != Verdict::kKeptPrivate) return;
  const int64_t life = pool_of(conn).idle_life_ms(conn);
  model_.check_life(conn.id, life);
  conn.expires_ms = life == 0 ? 0 : now_ms_ + life;
}

void PoolWorld::discard(WorldConn& conn, CloseReason reason) {
  drop_exchanges(conn.id);
  pool_of(conn).close(conn, reason);
  model_.close(conn.id, reason, take_closures());
}

void PoolWorld::drop_exchanges(int conn) {
  std::erase_if(exchanges_, [&](const Exchange& exchange) { return exchange.conn == conn; });
}

void PoolWorld::compare_pool(int index) {
  ServerPool& p = pool(index);
  p.check();
  std::array<uint32_t, kPlaces> counts{};
  uint32_t total = 0;
  for (const auto& [id, conn] : model_.conns) {
    if (conn.pool != index) continue;
    ++counts[static_cast<size_t>(conn.place)];
    ++total;
  }
  const PoolStats& stats = slots_[static_cast<size_t>(index)].stats;
  for (size_t i = 1; i < kPlaces; ++i) {
    demand(p.count(static_cast<Place>(i)) == counts[i], "count of a place", static_cast<int>(i));
    demand(stats.places[i].get() == counts[i], "gauge of a place", static_cast<int>(i));
  }
  demand(p.total() == total, "total", index);
  demand(p.groups() == model_.groups(index), "groups", index);
  demand(stats.groups.get() == p.groups(), "gauge of groups", index);
  demand(p.need() == model_.pools.at(index).need, "need", index);
  const BudgetShare& share = *servers_[static_cast<size_t>(index % kServers)]
                                  ->shares[static_cast<size_t>(index / kServers)];
  demand(share.used() == p.idle(), "idle units", index);
}

void PoolWorld::compare() {
  demand(conns_.size() == model_.conns.size(), "connections");
  for (const auto& [id, conn] : conns_) {
    const model::Conn& want = model_.conns.at(id);
    demand(conn->place() == want.place, "place", id);
    demand(conn->streams() == want.streams && conn->capacity() == want.capacity, "streams", id);
    demand(conn->requests() == want.requests, "requests", id);
    demand(conn->reserved() == want.own && conn->proven() == (want.finished >= 2), "kind", id);
    const Session* owner = want.session < 0 ? nullptr : session(want.session);
    demand(conn->session() == (owner == nullptr ? nullptr : owner->store.get()), "session", id);
    const KeyGroup* group = conn->group();
    demand((group != nullptr) == (want.grouped && want.live()), "grouped", id);
    if (group != nullptr) demand(group->bytes() == want.key, "a group of another key", id);
  }
  for (const Session& each : sessions_) {
    demand(each.store->size() == model_.sessions.at(each.id).entries.size(), "entries", each.id);
  }
  for (int i = 0; i < kShards * kServers; ++i) compare_pool(i);
  for (const auto& server : servers_) {
    int64_t idle = 0;
    for (const auto& share : server->shares) idle += share->used();
    const int64_t max = server->idle->max();
    demand(max == Budget::kOff || server->idle->free() < 0 || idle <= max, "the idle limit");
  }
  for (const Exchange& exchange : exchanges_) {
    const model::Conn& conn = model_.conns.at(exchange.conn);
    demand(conn.session < 0 || conn.session == exchange.session, "two sessions", exchange.conn);
  }
}

}  // namespace ringway
