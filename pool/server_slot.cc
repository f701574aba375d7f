// pool/server_slot.cc
#include "pool/server_slot.h"

#include <errno.h>

#include "core/base/check.h"

namespace ringway {

using Place = ServerConn::Place;

ServerSlot::ServerSlot(PoolContext& context, const SlotSpec& spec, ServerStats& stats)
    : context_(context), spec_(spec), stats_(stats) {}

ServerSlot::~ServerSlot() {
  RW_CHECK(live_ == 0);
}

Counter* ServerSlot::gauge(Place place) {
  switch (place) {
    case Place::kConnecting: return &stats_.connecting;
    case Place::kBusy: return &stats_.busy;
    case Place::kIdle: return &stats_.idle;
    case Place::kNew:
    case Place::kClosing: return nullptr;
  }
  return nullptr;
}

void ServerSlot::move(ServerConn& conn, Place to) {
  RW_CHECK(conn.place_ != to);
  RW_CHECK(conn.place_ != Place::kClosing);
  if (conn.place_ == Place::kIdle) {
    idle_.erase(idle_.iterator_to(conn));
    --idle_count_;
  }
  if (Counter* from = gauge(conn.place_)) from->sub();
  conn.place_ = to;
  if (Counter* into = gauge(to)) into->add();
  if (to == Place::kIdle) {
    idle_.push_front(conn);
    ++idle_count_;
  }
}

ServerSlot::Taken ServerSlot::take(ServerUser& user, bool fresh) {
  RW_CHECK(!retired_ || idle_count_ == 0);
  if (fresh || idle_.empty()) return open(user);
  ServerConn& conn = idle_.front();
  RW_CHECK(conn.place_ == Place::kIdle && conn.user_ == nullptr);
  context_.timers.cancel(conn.timer_);  // It bounded the idle time, not the user's.
  move(conn, Place::kBusy);
  conn.user_ = &user;
  ++conn.requests_;
  stats_.requests.add();
  stats_.reused.add();
  return {.conn = &conn, .connected = true};
}

ServerSlot::Taken ServerSlot::open(ServerUser& user) {
  stats_.connects.add();
  ServerConn* conn = context_.conns.take(context_, *this);
  if (conn == nullptr) {
    stats_.connect_errors.add();
    return {.error = ENOBUFS};
  }
  const int error = conn->stream_.connect(spec_.address);
  if (error != 0) {
    context_.conns.give_back(conn);
    stats_.connect_errors.add();
    return {.error = error};
  }
  ++live_;
  move(*conn, Place::kConnecting);
  conn->user_ = &user;
  conn->requests_ = 1;
  stats_.requests.add();
  if (spec_.connect_timeout_ms != 0) {
    context_.timers.set(conn->timer_, context_.now_ms() + spec_.connect_timeout_ms);
  }
  return {.conn = conn};
}

void ServerSlot::give_back(ServerConn& conn) {
  RW_CHECK(conn.place_ == Place::kBusy);
  RW_CHECK(conn.queued() == 0);
  const bool keep = spec_.reuse && !retired_ && idle_count_ < spec_.idle_max &&
                    conn.requests_ < spec_.requests_max && conn.stream_.open();
  if (!keep) return close(conn, false);
  conn.user_ = nullptr;
  move(conn, Place::kIdle);
  conn.stream_.set_receiving(true);  // So that its end is noticed while it is idle.
  if (spec_.idle_timeout_ms == 0) return context_.timers.cancel(conn.timer_);
  context_.timers.set(conn.timer_, context_.now_ms() + spec_.idle_timeout_ms);
}

void ServerSlot::discard(ServerConn& conn) {
  close(conn, false);
}

void ServerSlot::discard_with_reset(ServerConn& conn) {
  close(conn, true);
}

void ServerSlot::close(ServerConn& conn, bool with_reset) {
  move(conn, Place::kClosing);
  conn.user_ = nullptr;
  context_.timers.cancel(conn.timer_);
  with_reset ? conn.stream_.abort() : conn.stream_.close();
}

void ServerSlot::reclaim(ServerConn& conn) {
  RW_CHECK(conn.place_ == Place::kClosing);
  RW_CHECK(live_ > 0);
  --live_;
  context_.conns.give_back(&conn);
}

void ServerSlot::update(const SlotSpec& spec) {
  RW_CHECK(spec.address == spec_.address);
  spec_ = spec;
  while (idle_count_ > (spec_.reuse ? spec_.idle_max : 0)) {
    stats_.idle_closed.add();
    close(idle_.back(), false);
  }
}

void ServerSlot::close_idle() {
  while (!idle_.empty()) {
    stats_.idle_closed.add();
    close(idle_.back(), false);
  }
}

void ServerSlot::retire() {
  retired_ = true;
  close_idle();
}

}  // namespace ringway
