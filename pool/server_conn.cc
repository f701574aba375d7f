// pool/server_conn.cc
#include "pool/server_conn.h"

#include <errno.h>

#include <utility>

#include "core/base/check.h"
#include "core/tls_session.h"
#include "pool/server_mux.h"
#include "pool/server_slot.h"

namespace ringway {

ServerConn::ServerConn(PoolContext& context, ServerSlot& slot)
    : PooledConn(slot.pool()),
      context_(context),
      slot_(slot),
      stream_(*this, context.stream),
      timer_(*this) {}

ServerConn::~ServerConn() {
  RW_CHECK(user_ == nullptr && mux_ == nullptr && waiters_.empty());
}

bool ServerConn::in_use() const {
  switch (place()) {
    case Place::kBusy:
    case Place::kAvailable:
    case Place::kHeld:
    case Place::kSessionBusy:
    case Place::kDraining: return true;
    case Place::kNew:
    case Place::kConnecting:
    case Place::kSessionIdle:
    case Place::kIdleUnproven:
    case Place::kIdleSafe:
    case Place::kTransit:
    case Place::kClosing: return false;
  }
  return false;
}

void ServerConn::set_deadline(int64_t ms) {
  RW_CHECK(in_use());
  if (ms == 0) return context_.timers.cancel(timer_);
  context_.timers.set(timer_, context_.now_ms() + ms);
}

// Closing by reset leaves no TIME_WAIT behind, which would use up the ports towards this server;
// all that the server had to say has been read by then. A cut exchange shows as such to the server.
void ServerConn::on_pool_close(CloseReason reason) {
  user_ = nullptr;
  context_.timers.cancel(timer_);
  JoinableHook::unlink();
  scatter(0);
  if (mux_ != nullptr) {
    mux_->detach();
    mux_ = nullptr;
  }
  // It was only asked for, or could not even begin to connect.
  if (!stream_.attached()) return slot_.never_opened(*this);  // Frees *this: last access.
  switch (reason) {
    case CloseReason::kConnect:
    case CloseReason::kServerIdle:
    case CloseReason::kServerClose:
    case CloseReason::kLayer4:
    case CloseReason::kError: return reset_ ? stream_.abort() : stream_.close();
    case CloseReason::kUnsolicited:
    case CloseReason::kIdleTimeout:
    case CloseReason::kUnneeded:
    case CloseReason::kIdleLimit:
    case CloseReason::kMakeRoom:
    case CloseReason::kGroupLimit:
    case CloseReason::kRequestsLimit:
    case CloseReason::kAge:
    case CloseReason::kOutOfService:
    case CloseReason::kDown:
    case CloseReason::kReplaced:
    case CloseReason::kSessionEnd:
    case CloseReason::kPrivateLimit:
    case CloseReason::kStale:
    case CloseReason::kReuseOff:
    case CloseReason::kPingTimeout: return stream_.abort();
  }
}

void ServerConn::connect_failed(int error) {
  ServerUser* user = user_;
  slot_.stats_.connect_errors.add();
  scatter(error);
  slot_.pool_.close(*this, CloseReason::kConnect);
  if (user != nullptr) user->on_server_connected(error);
}

void ServerConn::on_connected(Socket& /*socket*/, int error) {
  RW_CHECK(place() == Place::kConnecting);
  if (error == 0 && slot_.spec().tls != nullptr && stream_.tls() == nullptr) error = ENOBUFS;
  const bool http2 = error == 0 && slot_.chose_http2(*this);
  const bool http2_missing = error == 0 && !http2 && slot_.spec().http == HttpChoice::kHttp2;
  if (http2_missing) error = EPROTONOSUPPORT;
  if (error != 0) {
    const TlsSession* tls = stream_.tls();
    slot_.local_failure_ = {};
    slot_.tls_failure_ = tls != nullptr ? tls->failure().text() : std::string_view();
    if (http2_missing) slot_.tls_failure_ = "the server does not choose HTTP/2";
    if (!slot_.tls_failure_.empty()) slot_.stats_.tls_failures.add();
    return connect_failed(error);
  }
  context_.timers.cancel(timer_);
  const int64_t took_us = context_.stream.io.now_us() - connect_us_;
  slot_.stats_.connect_time.record(static_cast<uint64_t>(took_us));
  stream_.set_receiving(true);
  http2 ? slot_.begin_mux(*this) : slot_.begin_plain(*this);
}

void ServerConn::on_receive(Socket& /*socket*/, std::span<const std::byte> bytes) {
  slot_.stats_.bytes_received.add(bytes.size());
  if (mux_ != nullptr) return mux_->receive(bytes);
  if (in_use()) return user_->on_server_bytes(bytes);
  // Bytes that no request asked for: whatever they are, they would corrupt the next response.
  RW_CHECK(is_idle(place()) || place() == Place::kSessionIdle);
  slot_.pool_.close(*this, CloseReason::kUnsolicited);
}

void ServerConn::on_receive_end(Socket& /*socket*/, int error) {
  if (in_use() && mux_ != nullptr) {
    return mux_->connection_lost(
        error, error == 0 ? "the server closed the connection" : "the server reset the connection");
  }
  if (in_use()) return user_->on_server_end(error);
  RW_CHECK(is_idle(place()) || place() == Place::kSessionIdle);
  slot_.note_idle_time(*this, slot_.stats_.pool.idle_at_close);
  if (error == 0) slot_.pool_.learn(*this, context_.now_ms());
  slot_.pool_.close(*this, CloseReason::kServerIdle);
}

// Its user has heard of the FIN and half-closes: a tunnel, or layer 4.
void ServerConn::on_reset(Socket& /*socket*/, int error) {
  if (in_use() && mux_ == nullptr) user_->on_server_end(error);
}

void ServerConn::on_writable(Socket& /*socket*/) {
  if (mux_ != nullptr) {  // The last frames may wait while it is idle, too.
    if (!stream_.flush()) {
      return mux_->connection_lost(stream_.error(), "the connection broke while sending");
    }
    mux_->on_output_moved();
    if (stream_.queued() <= Stream::kLowWaterBytes) mux_->on_output_drained();
    return;
  }
  RW_CHECK(in_use());
  if (!stream_.flush()) return user_->on_server_end(stream_.error());
  if (stream_.queued() <= Stream::kLowWaterBytes) user_->on_server_drained();
}

void ServerConn::on_closed(Socket& /*socket*/) {
  slot_.reclaim(*this);  // Frees *this: last access.
}

void ServerConn::on_detached(Socket& /*socket*/, int fd, bool clean) {
  slot_.detached(*this, fd, clean);  // Frees *this: last access.
}

// The next connection with this key resumes where this one began.
void ServerConn::on_tls_ticket(Socket& /*socket*/, TlsTicket ticket) {
  slot_.pool_.keep_ticket(*this, std::move(ticket));
}

void ServerConn::on_timer(Timer& /*timer*/) {
  if (in_use() && mux_ != nullptr) {
    return mux_->connection_lost(ETIMEDOUT, "the server has sent no SETTINGS");
  }
  if (in_use()) return user_->on_server_timeout();
  if (borrowing_) return slot_.borrow_is_late(*this);
  if (place() == Place::kConnecting) return connect_failed(ETIMEDOUT);
  RW_CHECK(is_idle(place()) || place() == Place::kSessionIdle);
  slot_.pool_.close(*this, ServerPool::expiry(*this, context_.now_ms()));
}

}  // namespace ringway
