// pool/server_slot_borrow.cc - lending and borrowing idle connections between shards.
//
// A shard that has none asks one that has, and connects itself if no answer comes in time. A
// connection changes shards only when nothing of it is with the kernel: detached here, adopted
// there. Its unit of the limit stays here until then; the borrower holds one of its own already.
#include <algorithm>

#include "core/base/check.h"
#include "pool/server_slot.h"

namespace ringway {

bool ServerSlot::may_borrow(const ConnKey* key, Miss miss, const PickRules& rules) const {
  if (peers_.post == nullptr || !spec_.borrow || retired_) return false;
  if (spec_.tls != nullptr) return false;              // The state of TLS stays with its shard,
  if (spec_.http == HttpChoice::kHttp2) return false;  // and that of HTTP/2.
  if (miss != Miss::kNoneIdle && miss != Miss::kOtherKeys) return false;
  if (key != nullptr && key->single_use) return false;
  // Where it comes from changes nothing about who may use it.
  if (pool_.usable(rules) == ServerPool::Usable::kNone) return false;
  if (pending_.size() >= kBorrowsMax) return false;
  if (finished_.per_second(context_.now_ms()) > kBorrowRateMax) return false;
  return peers_.hints->next(next_lender_, peers_.shard, peers_.shards) != BorrowHints::kNobody;
}

void ServerSlot::start_borrow(ServerConn& conn, const ConnKey* key, bool proven_only) {
  // Another one each time, so that no shard is asked by all.
  next_lender_ = peers_.hints->next(next_lender_, peers_.shard, peers_.shards);
  if (next_lender_ == BorrowHints::kNobody) {  // It is gone since: nobody else to ask.
    next_lender_ = peers_.shard;
    return start_connect_later(conn);
  }
  auto borrow = std::make_unique<Borrow>();
  const KeyGroup& fixed = pool_.fixed_group();
  borrow->server = peers_.server;
  borrow->from = peers_.shard;
  borrow->token = next_token_++;
  borrow->hash = key != nullptr ? key->hash : fixed.hash();
  borrow->key = key != nullptr ? key->bytes : fixed.bytes();
  borrow->proven_only = proven_only;
  stats_.borrows.add();
  pending_.push_back({borrow->token, &conn, context_.stream.io.now_us()});
  conn.borrowing_ = true;
  context_.timers.set(conn.timer_, context_.now_ms() + kBorrowWaitMs);
  peers_.post->ask(next_lender_, std::move(borrow));
}

// Not from inside take(), whose caller does not know the connection yet.
void ServerSlot::start_connect_later(ServerConn& conn) {
  conn.borrowing_ = true;
  context_.timers.set(conn.timer_, context_.now_ms());
}

void ServerSlot::start_connect(ServerConn& conn) {
  RW_CHECK(conn.place() == Place::kConnecting && conn.user_ != nullptr);
  conn.borrowing_ = false;
  context_.timers.cancel(conn.timer_);
  stats_.connects.add();
  const int error = connect(conn, nullptr);  // Without TLS, so no key matters.
  if (error != 0) return conn.connect_failed(error);
  if (spec_.connect_timeout_ms != 0) {
    context_.timers.set(conn.timer_, context_.now_ms() + spec_.connect_timeout_ms);
  }
}

bool ServerSlot::forget_borrow(const ServerConn& conn) {
  return std::erase_if(pending_, [&](const Pending& item) { return item.conn == &conn; }) > 0;
}

void ServerSlot::borrow_is_late(ServerConn& conn) {
  if (forget_borrow(conn)) stats_.borrows_late.add();
  start_connect(conn);
}

// Closed before it had a socket: nothing is in flight but perhaps a question.
void ServerSlot::never_opened(ServerConn& conn) {
  forget_borrow(conn);
  reclaim(conn);
}

void ServerSlot::lend(std::unique_ptr<Borrow> borrow) {
  PooledConn* found = retired_ ? nullptr
                               : pool_.begin_transit(borrow->key, borrow->hash, borrow->proven_only,
                                                     context_.now_ms() - kLendAfterMs);
  if (found == nullptr) {
    hide_hint();  // Perhaps there is something for others in a while.
    arm_hint();
    return peers_.post->answer(std::move(borrow));
  }
  ServerConn& conn = static_cast<ServerConn&>(*found);
  if (pool_.idle() == 0) hide_hint();
  context_.timers.cancel(conn.timer_);
  conn.leaving_ = std::move(borrow);
  conn.stream_.detach();
}

void ServerSlot::detached(ServerConn& conn, int fd, bool clean) {
  std::unique_ptr<Borrow> borrow = std::move(conn.leaving_);
  borrow->past = pool_.end_transit(conn);
  if (!borrow->past.usable || !clean) {
    context_.stream.io.discard(fd);
  } else {
    borrow->fd = fd;
    stats_.lent.add();
  }
  reclaim(conn);  // Last access.
  peers_.post->answer(std::move(borrow));
}

void ServerSlot::lent(std::unique_ptr<Borrow> borrow) {
  const auto asked = std::find_if(pending_.begin(), pending_.end(),
                                  [&](const Pending& item) { return item.token == borrow->token; });
  if (borrow->fd < 0) stats_.borrows_refused.add();
  if (asked == pending_.end()) {  // It connects already, or its request is gone.
    if (borrow->fd >= 0) take_in(*borrow);
    return;
  }
  ServerConn& conn = *asked->conn;
  const int64_t asked_us = asked->asked_us;
  pending_.erase(asked);
  if (borrow->fd < 0) return start_connect(conn);
  stats_.borrow_time.record(static_cast<uint64_t>(context_.stream.io.now_us() - asked_us));
  conn.borrowing_ = false;
  context_.timers.cancel(conn.timer_);
  conn.stream_.adopt(borrow->fd);
  conn.stream_.set_receiving(true);
  pool_.inherit(conn, borrow->past);
  pool_.connected(conn);
  conn.user_->on_server_connected(0);
}

// Nobody waits for it any more: it is idle here from now on, if there is room.
void ServerSlot::take_in(Borrow& borrow) {
  ServerConn* conn = nullptr;
  const bool room =
      !retired_ && (shares_.connections == nullptr || shares_.connections->try_acquire());
  if (room) conn = context_.conns.take(context_, *this);
  if (conn == nullptr) {
    if (room && shares_.connections != nullptr) shares_.connections->release();
    return context_.stream.io.discard(borrow.fd);
  }
  const ConnKey key{.bytes = borrow.key, .hash = borrow.hash};
  const bool fixed = borrow.key == pool_.fixed_group().bytes();
  pool_.begin(*conn, fixed ? nullptr : &key, context_.now_ms());
  conn->stream_.adopt(borrow.fd);
  conn->stream_.set_receiving(true);
  pool_.inherit(*conn, borrow.past);
  opened_ahead(*conn);
}

void ServerSlot::arm_hint() {
  if (peers_.post == nullptr || !spec_.borrow || retired_ || hint_timer_.is_set()) return;
  if (spec_.tls != nullptr) return;
  const PooledConn* oldest = pool_.oldest_idle();
  if (oldest == nullptr) return;
  context_.timers.set(hint_timer_, oldest->idle_since_ms() + kLendAfterMs);
}

// To be lent, it must be surplus here: what is in demand is never idle for long.
void ServerSlot::show_hint() {
  if (retired_ || pool_.idle() == 0 || hinted_) return;
  if (context_.now_ms() - pool_.oldest_idle()->idle_since_ms() < kLendAfterMs) return arm_hint();
  hinted_ = true;
  peers_.hints->set(peers_.shard);
}

void ServerSlot::hide_hint() {
  if (!hinted_) return;
  hinted_ = false;
  peers_.hints->clear(peers_.shard);
}

}  // namespace ringway
