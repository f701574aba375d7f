// pool/server_conn.cc
#include "pool/server_conn.h"

#include <errno.h>

#include "core/base/check.h"
#include "pool/server_slot.h"

namespace ringway {

ServerConn::ServerConn(PoolContext& context, ServerSlot& slot)
    : context_(context), slot_(slot), stream_(*this, context.stream), timer_(*this) {}

ServerConn::~ServerConn() {
  RW_CHECK(user_ == nullptr);
  RW_CHECK(!hook_.is_linked());
}

void ServerConn::set_deadline(int64_t ms) {
  RW_CHECK(place_ == Place::kBusy);
  if (ms == 0) return context_.timers.cancel(timer_);
  context_.timers.set(timer_, context_.now_ms() + ms);
}

void ServerConn::on_connected(Socket& /*socket*/, int error) {
  RW_CHECK(place_ == Place::kConnecting);
  ServerUser* user = user_;
  if (error != 0) {
    slot_.stats_.connect_errors.add();
    slot_.close(*this, false);
    user->on_server_connected(error);
    return;
  }
  slot_.move(*this, Place::kBusy);
  context_.timers.cancel(timer_);
  stream_.set_receiving(true);
  user->on_server_connected(0);
}

void ServerConn::on_receive(Socket& /*socket*/, std::span<const std::byte> bytes) {
  slot_.stats_.bytes_received.add(bytes.size());
  if (place_ == Place::kBusy) return user_->on_server_bytes(bytes);
  // Bytes that no request asked for: whatever they are, they would corrupt the next response.
  RW_CHECK(place_ == Place::kIdle);
  slot_.stats_.idle_closed.add();
  slot_.close(*this, false);
}

void ServerConn::on_receive_end(Socket& /*socket*/, int error) {
  if (place_ == Place::kBusy) return user_->on_server_end(error);
  RW_CHECK(place_ == Place::kIdle);
  slot_.stats_.idle_closed.add();
  slot_.close(*this, false);
}

void ServerConn::on_writable(Socket& /*socket*/) {
  RW_CHECK(place_ == Place::kBusy);
  if (!stream_.flush()) return user_->on_server_end(stream_.error());
  if (stream_.queued() <= Stream::kLowWaterBytes) user_->on_server_drained();
}

void ServerConn::on_closed(Socket& /*socket*/) {
  slot_.reclaim(*this);  // Frees *this: last access.
}

void ServerConn::on_timer(Timer& /*timer*/) {
  switch (place_) {
    case Place::kBusy: return user_->on_server_timeout();
    case Place::kConnecting: {
      ServerUser* user = user_;
      slot_.stats_.connect_errors.add();
      slot_.close(*this, false);
      return user->on_server_connected(ETIMEDOUT);
    }
    case Place::kIdle: slot_.stats_.idle_closed.add(); return slot_.close(*this, false);
    case Place::kNew:
    case Place::kClosing: RW_CHECK(false);
  }
}

}  // namespace ringway
