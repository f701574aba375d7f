// pool/server_slot_mux.cc - connections that speak HTTP/2: who joins one, and how many it takes.
//
// While a connection that is expected to speak HTTP/2 is being made, requests join it, up to what
// the server took lately. Before its SETTINGS have come, no more than that are sent, or one: a
// server that takes ten at once never sees an eleventh.
#include <errno.h>

#include <algorithm>
#include <utility>

#include "core/base/check.h"
#include "core/tls_session.h"
#include "pool/server_mux.h"
#include "pool/server_slot.h"

namespace ringway {
namespace {

constexpr uint32_t kStreamWindow = 256 * 1024;
// Before a server has said anything: what RFC 9113 6.5.2 wants at least.
constexpr uint32_t kStreamsUsual = 100;
// A server may well answer each of very many requests by an interim response first.
constexpr h2::FloodLimit kControlMax{.count = 100'000};

bool same_key(const ServerConn& conn, const KeyGroup& fixed, const ConnKey* key) {
  const KeyGroup* group = conn.group();
  if (group == nullptr) return false;
  if (key == nullptr) return group == &fixed;
  return group->hash() == key->hash && group->bytes() == key->bytes;
}

// It is one client's own, and not this one's. One that no session could keep is nobody's.
bool is_another_s(const ServerConn& conn, const SessionStore* session) {
  return conn.reserved() && (session == nullptr || conn.session() != session);
}

}  // namespace

// --- what is spoken ---

bool ServerSlot::expects_http2() const {
  switch (spec_.http) {
    case HttpChoice::kHttp1: return false;
    case HttpChoice::kByAlpn: return spec_.tls != nullptr && last_was_http2_;
    case HttpChoice::kHttp2: return true;
  }
  return false;
}

bool ServerSlot::chose_http2(const ServerConn& conn) const {
  const TlsSession* tls = conn.stream_.tls();
  switch (spec_.http) {
    case HttpChoice::kHttp1: return false;
    case HttpChoice::kByAlpn: return tls != nullptr && tls->alpn() == "h2";
    case HttpChoice::kHttp2: return tls == nullptr || tls->alpn() == "h2";
  }
  return false;
}

uint32_t ServerSlot::expected_streams() const {
  const uint32_t seen = streams_seen_.get(context_.now_ms());
  const uint32_t server = seen == RecentMin::kNone ? kStreamsUsual : seen;
  const uint64_t requests = std::min<uint64_t>(spec_.pool.requests_max, UINT32_MAX);
  const uint32_t most = std::min(spec_.max_streams, static_cast<uint32_t>(requests));
  return std::max(1U, std::min(server, most));
}

// The connection's window is credited when half of it was used, so twice the sum of the streams'
// windows is what keeps streams that stall from ever stopping another one.
h2::SessionLimits ServerSlot::session_limits() const {
  const uint32_t streams = std::max(1U, spec_.max_streams);
  const uint64_t all = uint64_t{2} * kStreamWindow * streams;
  const ServerMuxes& muxes = *context_.muxes;
  return {.max_streams = streams,
          .stream_window = kStreamWindow,
          .connection_window = static_cast<uint32_t>(std::min<uint64_t>(all, h2::kWindowMax)),
          .header_table = spec_.header_table,
          // A reset costs us one request of our own; retries are bounded elsewhere.
          .resets = {.count = 0},
          .control = kControlMax,
          .head = {.header_bytes = muxes.head_bytes_, .fields = muxes.fields_}};
}

// --- joining a connection that is being made ---

ServerConn* ServerSlot::joinable(const ConnKey* key, const PickRules& rules) {
  if (joinable_.empty() || retired_) return nullptr;
  if (spec_.pool.mode == ReuseMode::kNever && !rules.own) return nullptr;
  if (key != nullptr && key->single_use) return nullptr;
  const SessionStore* session = rules.session;
  const bool own_only = rules.own || spec_.pool.mode == ReuseMode::kSafe;  // ServerPool::hold()
  if (own_only && session == nullptr) return nullptr;
  const uint32_t expected = expected_streams();
  for (ServerConn& conn : joinable_) {
    if (conn.place() == Place::kDraining || is_another_s(conn, session)) continue;
    const bool ahead = conn.place() == Place::kConnecting && conn.user_ == nullptr;
    if (own_only && !ahead && conn.opener_ != session) continue;
    if (!same_key(conn, pool_.fixed_group(), key)) continue;
    const uint32_t users = conn.user_ != nullptr ? 1 : conn.streams();
    if (users + conn.waiters_.size() < expected) return &conn;
  }
  return nullptr;
}

ServerSlot::Taken ServerSlot::join(ServerConn& conn, ServerUser& user, const ConnKey* key,
                                   const PickRules& rules) {
  RW_CHECK(user.stream_user() != nullptr);
  if (conn.place() == Place::kConnecting && conn.user_ == nullptr) {  // Opened ahead.
    conn.user_ = &user;
    conn.opener_ = rules.session;
    stats_.requests.add();
    return {.conn = &conn};
  }
  JoinWaiter* waiter = context_.muxes->waiters_.take(*this, user, key, rules);
  if (waiter == nullptr) return {.error = ENOBUFS};
  conn.waiters_.push_back(*waiter);
  ++waiting_;
  return {.conn = &conn};
}

void ServerSlot::drop(JoinWaiter& waiter) {
  RW_CHECK(waiting_ > 0);
  --waiting_;
  context_.muxes->waiters_.give_back(&waiter);  // Unlinks itself.
}

void ServerSlot::cancel(ServerConn& conn, ServerUser& user) {
  if (waiting_ > 0) {
    for (JoinWaiter& waiter : context_.muxes->scattered_) {  // `conn` may be gone.
      if (&waiter.user == &user) return drop(waiter);
    }
    for (JoinWaiter& waiter : conn.waiters_) {
      if (&waiter.user == &user) return drop(waiter);
    }
  }
  RW_CHECK(conn.place() == Place::kConnecting && conn.user_ == &user);
  if (conn.waiters_.empty()) return discard(conn);
  JoinWaiter& next = conn.waiters_.front();
  conn.user_ = &next.user;
  conn.opener_ = next.rules.session;
  stats_.requests.add();
  drop(next);
}

void ServerConn::scatter(int error) {
  if (waiters_.empty()) return;
  for (JoinWaiter& waiter : waiters_) waiter.error = error;
  JoinWaiters& scattered = context_.muxes->scattered_;
  scattered.splice(scattered.end(), waiters_);
}

void ServerSlot::retake(JoinWaiter& waiter) {
  ServerUser& user = waiter.user;
  if (waiter.error != 0) {
    const int error = waiter.error;
    drop(waiter);
    return user.on_server_connected(error);
  }
  const ConnKey named = waiter.key();
  const ConnKey* key = waiter.keyed() ? &named : nullptr;
  Taken taken;
  if (waiter.rules.own) {
    const TargetRef target{.kind = TargetRef::Kind::kServer, .object = &pool_};
    taken = take_private(user, *waiter.rules.session, target, key);
  }
  if (taken.conn == nullptr) taken = take(user, key, waiter.rules);
  drop(waiter);
  if (taken.conn == nullptr) return user.on_server_connected(taken.error);
  user.on_server_moved(*taken.conn);
  if (taken.stream != nullptr) return user.on_server_stream(*taken.stream);
  if (taken.connected) user.on_server_connected(0);
}

// At the end of a turn: whoever waits for a place on `conn`, which is up, and there is one.
void ServerSlot::serve_waiters(ServerConn& conn) {
  while (!conn.waiters_.empty() && ServerPool::takes_more(conn)) {
    JoinWaiter& waiter = conn.waiters_.front();
    ServerUser& user = waiter.user;
    SessionStore* const session = waiter.rules.session;
    // The mode has changed since it began to wait.
    if (in_session(conn.place()) && conn.session() != session) return conn.scatter(0);
    drop(waiter);
    if (conn.streams() == 0) context_.timers.cancel(conn.timer_);
    pool_.add_request(conn);
    stats_.requests.add();
    const Taken taken = take_stream(conn, user, session);
    if (taken.stream == nullptr) {
      user.on_server_connected(taken.error);
    } else {
      user.on_server_stream(*taken.stream);
    }
  }
  // It takes fewer than were expected.
  if (conn.mux_ != nullptr && conn.mux_->settings_received()) conn.scatter(0);
}

// --- a connection that is up ---

void ServerSlot::begin_plain(ServerConn& conn) {
  if (!conn.only_http1_) last_was_http2_ = false;
  conn.JoinableHook::unlink();
  conn.scatter(0);
  conn.preface_ = {};  // Its user's to send.
  if (conn.user_ == nullptr) return opened_ahead(conn);
  pool_.connected(conn);
  conn.user_->on_server_connected(0);
}

void ServerSlot::begin_mux(ServerConn& conn) {
  last_was_http2_ = true;
  ServerMuxes& muxes = *context_.muxes;
  RW_CHECK(!muxes.scratches_.empty());
  const uint32_t seen = streams_seen_.get(context_.now_ms());
  conn.mux_ = muxes.muxes_.take(context_, conn, *muxes.scratches_.back(), session_limits(),
                                seen == RecentMin::kNone ? 1 : std::max(1U, seen));
  if (conn.mux_ == nullptr) return conn.connect_failed(ENOBUFS);
  conn.keep_on_shard();
  conn.mux_->begin(std::exchange(conn.preface_, {}));
  // Requests may wait for its SETTINGS, too.
  if (!conn.JoinableHook::is_linked()) joinable_.push_back(conn);
  if (conn.user_ == nullptr) {
    opened_ahead(conn);
    if (conn.mux_ != nullptr) set_capacity(conn, true);
    return;
  }
  ServerUser& user = *conn.user_;
  conn.user_ = nullptr;
  pool_.connected(conn);
  const Taken taken = take_stream(conn, user, conn.opener_);
  if (taken.stream == nullptr) return user.on_server_connected(taken.error);
  user.on_server_stream(*taken.stream);
}

// The pool has counted the request already.
ServerSlot::Taken ServerSlot::take_stream(ServerConn& conn, ServerUser& user,
                                          SessionStore* session) {
  StreamUser* stream_user = user.stream_user();
  RW_CHECK(stream_user != nullptr);
  ServerStream* stream = conn.mux_->open_stream(*stream_user);
  if (stream == nullptr) {
    stream_over(conn, false);
    return {.error = ENOBUFS};
  }
  set_capacity(conn, true);
  if (session != nullptr) pool_.hold(conn, *session);
  // Before its SETTINGS it can say nothing else.
  const int64_t wait = conn.mux_->settings_received() ? 0 : spec_.connect_timeout_ms;
  if (wait != 0 && !conn.timer_.is_set()) {
    context_.timers.set(conn.timer_, context_.now_ms() + wait);
  }
  return {.conn = &conn, .connected = true, .stream = stream};
}

void ServerSlot::settings_came(ServerConn& conn) {
  streams_seen_.note(conn.mux_->peer_max_streams(), context_.now_ms());
  takes_websocket_ = conn.mux_->takes_websocket();
  conn.JoinableHook::unlink();
  if (conn.in_use()) context_.timers.cancel(conn.timer_);
  set_capacity(conn, ServerPool::takes_more(conn));
}

void ServerSlot::set_capacity(ServerConn& conn, bool had_room) {
  pool_.on_capacity(conn, conn.mux_->room());
  const bool opened = !had_room && ServerPool::takes_more(conn);
  if (opened && shares_.connections != nullptr && events_ != nullptr) events_->on_room();
}

// One request less on it, which may close it.
void ServerSlot::stream_over(ServerConn& conn, bool completed) {
  const ServerMux& mux = *conn.mux_;
  RW_CHECK(conn.streams() == mux.live() + 1);
  const int64_t now = context_.now_ms();
  if (completed) finished_.note(now);
  // One that is never idle must get old, too; and one without further ids is of no use.
  const bool done = spec_.http == HttpChoice::kHttp1 ||
                    ServerPool::expiry(conn, now) == CloseReason::kAge ||
                    (mux.live() == 0 && mux.room() == 0);
  const bool had_room = ServerPool::takes_more(conn);
  if (done) pool_.drain(conn);
  const FinishNotes notes{.clean = conn.stream_.open() && !mux.broken(),
                          .server_keeps = !mux.going_away() && spec_.http != HttpChoice::kHttp1,
                          .hint_max = UINT64_MAX,
                          .cut = !completed,
                          .proven = completed && mux.settings_received()};
  after_finish(conn, pool_.finish(conn, notes, now));
  if (conn.mux_ == nullptr) return;
  set_capacity(conn, had_room);
  if (conn.mux_ != nullptr && !conn.waiters_.empty()) conn.mux_->note_dirty();
}

void ServerSlot::connection_lost(ServerConn& conn, bool stale, CloseReason reason) {
  if (stale) return discard_stale(conn);
  const bool idle = is_idle(conn.place()) || conn.place() == Place::kSessionIdle;
  const bool ended = idle && reason == CloseReason::kError;
  discard(conn, ended ? CloseReason::kServerIdle : reason);
}

}  // namespace ringway
