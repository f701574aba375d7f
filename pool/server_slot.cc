// pool/server_slot.cc
#include "pool/server_slot.h"

#include <errno.h>

#include <algorithm>

#include "core/base/check.h"
#include "core/tls_client.h"
#include "pool/server_mux.h"

namespace ringway {
namespace {

// The key of connections that no request changes. How TLS is spoken never changes for a slot.
ConnKey fixed_key(ConnKeyBuffer& buffer, const SlotSpec& spec, HashKey secret) {
  const LocalEnd& local = spec.local;
  return buffer.build({.destination = spec.address.get(),
                       .destination_length = spec.address.length,
                       .source = local.source.length == 0 ? nullptr : local.source.get(),
                       .source_length = local.source.length,
                       .interface = local.interface,
                       .mark = local.mark,
                       .has_mark = local.mark != 0,
                       .tls_profile = spec.tls != nullptr ? 1U : 0U,
                       .sni = spec.sni},
                      secret);
}

}  // namespace

ServerSlot::ServerSlot(PoolContext& context, const SlotSpec& spec, ServerStats& stats,
                       const SlotShares& shares, SlotEvents* events, const SlotPeers& peers)
    : context_(context),
      spec_(spec),
      stats_(stats),
      shares_(shares),
      events_(events),
      pool_(context.memory, stats.pool,
            fixed_key(context.memory.key_buffer, spec, context.memory.secret), shares.idle),
      peers_(peers),
      next_lender_(peers.shard),
      purge_timer_(*this),
      hint_timer_(*this) {
  pool_.update(spec.pool);
  keep_warm();
}

ServerSlot::~ServerSlot() {
  RW_CHECK(empty());
}

ServerSlot::Taken ServerSlot::take(ServerUser& user, const ConnKey* key, const PickRules& rules) {
  if (rules.session != nullptr && !rules.fresh) {
    if (PooledConn* held = pool_.pick_held(*rules.session, key)) {
      stats_.requests.add();
      return take_stream(static_cast<ServerConn&>(*held), user, rules.session);
    }
  }
  for (;;) {
    const ServerPool::Picked picked = pool_.pick(key, rules);
    if (picked.conn == nullptr) return take_unmade(user, key, picked.miss, rules);
    if (hinted_ && pool_.idle() == 0) hide_hint();
    ServerConn& conn = static_cast<ServerConn&>(*picked.conn);
    RW_CHECK(conn.user_ == nullptr);
    const bool was_idle = picked.how != How::kAvailable;
    if (was_idle) note_idle_time(conn, stats_.pool.idle_at_reuse);
    if (was_idle && looks_dead(conn, rules)) {
      if (conn.mux_ != nullptr) {  // It may be a PING as well as its end: the next turn tells.
        stream_over(conn, false);
        return open(&user, key, Miss::kForcedFresh, rules);
      }
      discard_stale(conn);
      continue;
    }
    // It bounded the idle time, not the user's.
    if (was_idle) context_.timers.cancel(conn.timer_);
    stats_.requests.add();
    if (conn.mux_ != nullptr) return take_stream(conn, user, rules.session);
    conn.user_ = &user;
    return {.conn = &conn, .connected = true};
  }
}

// None is there: one that is being made for others, if it will have room, else one of its own.
ServerSlot::Taken ServerSlot::take_unmade(ServerUser& user, const ConnKey* key, Miss miss,
                                          const PickRules& rules) {
  ServerConn* others = joinable(key, rules);
  const Taken joined = others == nullptr ? Taken() : join(*others, user, key, rules);
  return joined.conn != nullptr ? joined : open(&user, key, miss, rules);
}

// The server's end may wait in the kernel already. Whatever can be repeated finds out by itself.
bool ServerSlot::looks_dead(const ServerConn& conn, const PickRules& rules) const {
  if (rules.repeatable || context_.now_ms() - conn.idle_since_ms() < kLookAfterMs) return false;
  return conn.stream_.something_waits();
}

void ServerSlot::note_idle_time(const ServerConn& conn, LatencyHistogram& histogram) const {
  const int64_t idle_ms = context_.now_ms() - conn.idle_since_ms();
  histogram.record(static_cast<uint64_t>(std::max<int64_t>(idle_ms, 0)) * 1000);
}

ServerSlot::Taken ServerSlot::take_private(ServerUser& user, SessionStore& store,
                                           const TargetRef& target, const ConnKey* key) {
  PooledConn* picked = pool_.pick_private(store, target, key, spec_.http != HttpChoice::kHttp1);
  if (picked == nullptr) return {};
  ServerConn& conn = static_cast<ServerConn&>(*picked);
  RW_CHECK(conn.user_ == nullptr);
  if (conn.streams() == 1) {  // It was idle.
    note_idle_time(conn, stats_.pool.idle_at_reuse);
    context_.timers.cancel(conn.timer_);
  }
  stats_.requests.add();
  if (conn.mux_ != nullptr) return take_stream(conn, user, nullptr);
  conn.user_ = &user;
  return {.conn = &conn, .connected = true};
}

ServerSlot::Taken ServerSlot::open_single(ServerUser& user, std::string_view preface) {
  const ConnKey single{.bytes = {}, .hash = 0, .single_use = true, .preface = preface};
  return open(&user, &single, Miss::kPrivate);
}

// What is known of `conn` while it is being made.
void ServerSlot::note_opened(ServerConn& conn, ServerUser* user, const ConnKey* key,
                             const PickRules& rules) {
  pool_.begin(conn, key, context_.now_ms());
  conn.user_ = user;
  conn.opener_ = rules.session;
  conn.only_http1_ = key != nullptr && key->only_http1;
  // With TLS it has gone out, or will before the handshake.
  if (key != nullptr && spec_.tls == nullptr) conn.preface_ = key->preface;
  if (expects_http2() && !conn.only_http1_ && conn.group() != nullptr) {
    joinable_.push_back(conn);
  }
}

ServerSlot::Taken ServerSlot::open(ServerUser* user, const ConnKey* key, Miss miss,
                                   const PickRules& rules) {
  local_failure_ = {};  // Of the one before: this may fail for want of memory.
  if (shares_.connections != nullptr && !shares_.connections->try_acquire()) {
    stats_.full.add();
    // An idle one with another key holds a place that this request could use once it is closed.
    if (user != nullptr && pool_.idle() > 0) {
      pool_.close(*pool_.oldest_idle(), CloseReason::kMakeRoom);
    }
    return {.error = EAGAIN};
  }
  ServerConn* conn = context_.conns.take(context_, *this);
  const bool borrow = conn != nullptr && user != nullptr && may_borrow(key, miss, rules);
  int error = conn == nullptr ? ENOBUFS : 0;
  if (error == 0 && !borrow) error = connect(*conn, key);
  if (!borrow) stats_.connects.add();
  if (error != 0) {
    if (conn != nullptr) context_.conns.give_back(conn);
    if (shares_.connections != nullptr) shares_.connections->release();
    stats_.connect_errors.add();
    if (user != nullptr && shed_idle(error)) return {.error = EAGAIN};
    return {.error = error};
  }
  note_opened(*conn, user, key, rules);
  if (user != nullptr) stats_.requests.add();
  if (borrow) {
    start_borrow(*conn, key, pool_.usable(rules) == ServerPool::Usable::kProven);
  } else if (spec_.connect_timeout_ms != 0) {
    context_.timers.set(conn->timer_, context_.now_ms() + spec_.connect_timeout_ms);
  }
  return {.conn = conn};
}

// Out of descriptors or memory: an idle connection holds some that a request can use, once it is
// closed.
bool ServerSlot::shed_idle(int error) {
  const bool out = error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
  if (!out || pool_.idle() == 0) return false;
  pool_.close(*pool_.oldest_idle(), CloseReason::kMakeRoom);
  return true;
}

// Starts a connection, with TLS where that is spoken. The result is Stream::connect()'s.
int ServerSlot::connect(ServerConn& conn, const ConnKey* key) {
  conn.connect_us_ = context_.stream.io.now_us();
  const int error = conn.stream_.connect(spec_.address, spec_.local);
  local_failure_ = {};
  if (error != 0 && conn.stream_.local_failure() != LocalPart::kNone) {
    local_failure_ = local_failure_text(conn.stream_.local_failure(), error);
    stats_.local_failures.add();
  }
  if (error != 0 || spec_.tls == nullptr) return error;
  const std::string_view name = key != nullptr && !key->sni.empty() ? key->sni : spec_.sni;
  const TlsTicket ticket = pool_.take_ticket(key);
  // Without room for it the connection fails once it is up: it is never used without TLS.
  const std::string_view must_be = name.empty() ? std::string_view(spec_.tls_address) : name;
  (void)conn.stream_.start_tls_client(
      *spec_.tls, {.server_name = name,
                   .verify_name = must_be,
                   .ticket = &ticket,
                   .preface = key != nullptr ? key->preface : std::string_view(),
                   .only_http1 = key != nullptr && key->only_http1});
  return 0;
}

void ServerSlot::opened_ahead(ServerConn& conn) {
  after_finish(conn, pool_.connected_idle(conn, context_.now_ms()));
}

void ServerSlot::give_back(ServerConn& conn, const FinishNotes& notes) {
  RW_CHECK(conn.queued() == 0 || !notes.clean);
  FinishNotes seen = notes;
  seen.clean = seen.clean && conn.stream_.open();
  if (spec_.http == HttpChoice::kHttp2) seen.server_keeps = false;  // Since a reload.
  conn.user_ = nullptr;
  const int64_t now = context_.now_ms();
  finished_.note(now);
  after_finish(conn, pool_.finish(conn, seen, now));
}

void ServerSlot::after_finish(ServerConn& conn, ServerPool::Verdict verdict) {
  if (verdict != ServerPool::Verdict::kParked && verdict != ServerPool::Verdict::kKeptPrivate) {
    return;
  }
  conn.stream_.set_receiving(true);  // So that its end is noticed while it is idle.
  const int64_t life = pool_.idle_life_ms(conn);
  if (life == 0) {
    context_.timers.cancel(conn.timer_);
  } else {
    context_.timers.set(conn.timer_, context_.now_ms() + life);
  }
  arm_purge();
  if (!hinted_ && conn.mux_ == nullptr) arm_hint();
  if (shares_.connections == nullptr) return;
  // Another shard may need the place more than this one an idle connection.
  if (verdict == ServerPool::Verdict::kParked && shares_.connections->should_free()) {
    conn.asked_ = true;
    return pool_.close(conn, CloseReason::kMakeRoom);
  }
  if (events_ != nullptr) events_->on_room();
}

void ServerSlot::free_asked() {
  while (pool_.idle() > 0 && shares_.connections->should_free()) {
    ServerConn& conn = static_cast<ServerConn&>(*pool_.oldest_idle());
    conn.asked_ = true;
    pool_.close(conn, CloseReason::kMakeRoom);
  }
}

void ServerSlot::discard(ServerConn& conn, CloseReason reason) {
  conn.user_ = nullptr;
  pool_.close(conn, reason);
}

void ServerSlot::discard_with_reset(ServerConn& conn, CloseReason reason) {
  conn.reset_ = true;
  discard(conn, reason);
}

void ServerSlot::discard_stale(ServerConn& conn) {
  stats_.stale.add();
  pool_.suspect(conn);
  discard(conn, CloseReason::kStale);
}

void ServerSlot::reclaim(ServerConn& conn) {
  const bool asked = conn.asked_;
  pool_.closed(conn);
  context_.conns.give_back(&conn);
  if (shares_.connections == nullptr) return;
  asked ? shares_.connections->release_asked() : shares_.connections->release();
  if (events_ != nullptr) events_->on_room();
}

void ServerSlot::update(const SlotSpec& spec) {
  RW_CHECK(spec.address == spec_.address && spec.local == spec_.local);
  if (spec.http != spec_.http) pool_.close_idle(CloseReason::kReplaced);
  spec_ = spec;
  pool_.update(spec.pool);
  keep_warm();
}

void ServerSlot::retire(CloseReason reason) {
  retired_ = true;
  context_.timers.cancel(purge_timer_);
  hide_hint();
  pool_.retire(reason);
}

void ServerSlot::return_to_service() {
  if (!retired_) return;
  retired_ = false;
  pool_.return_to_service();
  keep_warm();
}

// Opens what is missing of the connections that are to be held ready.
void ServerSlot::keep_warm() {
  if (retired_ || spec_.warm == 0 || spec_.pool.mode == ReuseMode::kNever) return;
  const uint32_t in_use =
      pool_.count(Place::kBusy) + pool_.count(Place::kAvailable) + pool_.count(Place::kHeld);
  for (uint32_t have = pool_.idle() + pool_.count(Place::kConnecting) + in_use; have < spec_.warm;
       ++have) {
    if (open(nullptr, nullptr, Miss::kNoneIdle).conn == nullptr) break;
  }
  arm_purge();
}

void ServerSlot::arm_purge() {
  if (purge_timer_.is_set() || retired_) return;
  context_.timers.set(purge_timer_, context_.now_ms() + ServerPool::kPurgeMs);
}

void ServerSlot::on_timer(Timer& timer) {
  if (&timer == &hint_timer_) return show_hint();
  pool_.purge(context_.now_ms());
  keep_warm();
  if (pool_.total() > 0 || spec_.warm > 0 || pool_.need() > 0) arm_purge();
}

}  // namespace ringway
