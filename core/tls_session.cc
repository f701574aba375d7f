// core/tls_session.cc
#include "core/tls_session.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <utility>

#include "core/base/check.h"
#include "core/stream.h"
#include "core/tls_client.h"
#include "core/tls_failure.h"
#include "core/tls_server.h"
#include "core/tls_shard.h"
#include "core/tls_verify.h"

namespace ringway {

TlsSession::TlsSession(TlsShard& shard, Stream& stream, ssl_st* ssl, Role role)
    : shard_(shard),
      stream_(stream),
      upper_(&stream.socket_.owner()),
      ssl_(ssl),
      handshake_(std::make_unique<Handshake>()),
      role_(role),
      upper_wants_(stream.receiving_),
      raw_on_(stream.receiving_) {
  stream.socket_.set_owner(*this);
  if (role == Role::kClient) state_ = State::kConnecting;
}

TlsSession::~TlsSession() {
  RW_CHECK(held_.empty());
  if (shard_.current_ == this) shard_.current_ = nullptr;
  if (shard_.writer_ == this) shard_.writer_ = nullptr;
  SSL_free(ssl_);
}

bool TlsSession::alive() const {
  return !left_ && state_ != State::kFailed;
}

// May BoringSSL read what came?
bool TlsSession::can_take() const {
  if (!alive() || ended_ || pending_end_ >= 0) return false;
  if (state_ == State::kHandshake) return !gated_;
  return state_ == State::kOpen && upper_wants_;
}

void TlsSession::update_receiving() {
  if (left_) return;
  // Behind a close_notify only the end of the connection is of interest: it may be a reset.
  const bool awaits_end = ended_ && alive() && stream_.error_ == 0;
  const bool on = awaits_end || (can_take() && held_.empty() && !unread_);
  if (on != raw_on_) {
    raw_on_ = on;
    stream_.env_.io.set_receiving(stream_.socket_, on);
  }
  if (!alive() || gated_ || !upper_wants_ || ended_) return;
  if (pending_end_ >= 0 || (waits_for_owner() && can_take())) shard_.make_ready(*this);
}

void TlsSession::on_connected(Socket& socket, int error) {
  RW_CHECK(state_ == State::kConnecting);
  if (error != 0) {
    state_ = State::kFailed;
    return upper_->on_connected(socket, error);
  }
  state_ = State::kHandshake;
  shard_.enter(*this);
  shard_.add_clear(handshake_->preface);
  feed({});
  update_receiving();
}

void TlsSession::on_receive(Socket& /*socket*/, std::span<const std::byte> bytes) {
  if (!alive() || ended_) return;
  size_t used = 0;
  if (held_.empty()) used = feed(bytes);
  if (used < bytes.size() && alive() && !ended_) hold(bytes.subspan(used));
  update_receiving();
}

void TlsSession::hold(std::span<const std::byte> bytes) {
  const iovec piece{const_cast<std::byte*>(bytes.data()), bytes.size()};
  if (held_.append(stream_.env_.chunks, {&piece, 1}, 0)) return;
  fail({TlsCause::kNoMemory}, ENOBUFS);
}

// Returns how many of `bytes` were used; the rest is wanted later.
size_t TlsSession::feed(std::span<const std::byte> bytes) {
  shard_.enter(*this);
  shard_.input_ = bytes;
  if (state_ == State::kHandshake) handshake();
  if (state_ == State::kOpen && can_take()) read_plain();
  const size_t used = bytes.size() - shard_.input_.size();
  shard_.input_ = {};
  return used;
}

void TlsSession::on_admitted() {
  RW_CHECK(gated_ && !admitted_);
  gated_ = false;
  admitted_ = true;
  // Nobody has said anything since the ClientHello, unless it was goodbye: who gave up while it
  // waited costs no signature.
  if (held_.empty() && stream_.something_waits()) return update_receiving();
  feed({});
  continue_input();
}

// Goes on with what was held, if that is wanted now.
void TlsSession::continue_input() {
  if (unread_ && can_take()) feed({});
  while (can_take() && !held_.empty()) {
    iovec piece{};
    RW_CHECK(held_.peek({&piece, 1}) == 1);
    const size_t used = feed({static_cast<const std::byte*>(piece.iov_base), piece.iov_len});
    if (left_ || held_.empty()) break;  // It was closed, or has failed: nothing is held then.
    held_.consume(stream_.env_.chunks, used);
  }
  if (alive() && !waits_for_owner() && pending_end_ >= 0 && upper_wants_) {
    const int error = std::exchange(pending_end_, -1);
    end_input(error);
  }
  update_receiving();
}

void TlsSession::handshake() {
  const int result = SSL_do_handshake(ssl_);
  if (result == 1) return finish_handshake();
  const int error = SSL_get_error(ssl_, result);
  switch (error) {
    case SSL_ERROR_WANT_READ: return send_scratch();
    case SSL_ERROR_PENDING_CERTIFICATE: return;  // TlsServerContext put us into the queue.
    default: break;
  }
  const TlsFailure failure = tls_failure(*this, true);
  send_scratch();  // The alert.
  fail(failure, kTlsFailed);
}

void TlsSession::finish_handshake() {
  if (!reverify()) {
    send_scratch();
    return fail({TlsCause::kVerify, static_cast<uint8_t>(verdict_)}, kTlsFailed);
  }
  // BoringSSL lets a server begin once its own flight is out if the client sends early data.
  early_ = role_ == Role::kServer && SSL_in_init(ssl_) == 1;
  TlsCounters& counters = shard_.counters_;
  if (early_) counters.early_accepted.add();
  if (role_ == Role::kServer && ech()) counters.ech_accepted.add();
  if (early_offered_ && !early_) counters.early_rejected.add();
  if (!early_) complete_handshake();
  state_ = State::kOpen;
  Socket& socket = stream_.socket_;
  // What the owner writes at once shares a packet with our last flight.
  if (role_ == Role::kServer) {
    upper_->on_secured(socket);
  } else {
    upper_->on_connected(socket, 0);
  }
  if (left_) return;
  shard_.enter(*this);
  send_scratch();
  deliver_tickets();
}

void TlsSession::complete_handshake() {
  const bool again = SSL_session_reused(ssl_) == 1;
  TlsCounters& counters = shard_.counters_;
  if (role_ == Role::kServer) (again ? counters.server_resumed : counters.server_full).add();
  if (role_ == Role::kClient) (again ? counters.client_resumed : counters.client_full).add();
  end_handshake();
}

// BoringSSL reads the client's last flight in passing, and would return what came behind it: so it
// is only asked what is next. `room` for one byte.
bool TlsSession::early_data_ended(std::byte* room) {
  (void)SSL_peek(ssl_, room, 1);
  return SSL_in_init(ssl_) == 0;
}

// The client's last flight is here. Hands up what came before it; true: what follows may be read.
bool TlsSession::hand_over_early(std::span<const std::byte> early) {
  const std::span<const std::byte> rest = std::exchange(shard_.input_, {});
  if (!early.empty()) upper_->on_receive(stream_.socket_, early);
  if (!left_) {
    early_ = false;
    complete_handshake();
    upper_->on_confirmed(stream_.socket_);
  }
  shard_.input_ = rest;
  if (!alive()) return false;
  shard_.enter(*this);
  unread_ = !can_take() && SSL_pending(ssl_) > 0;
  return can_take();
}

// A resumed session was verified when it was new; what it was may have expired or been revoked
// since. For servers BoringSSL asks TlsClientContext about it.
bool TlsSession::reverify() {
  if (role_ == Role::kClient || SSL_session_reused(ssl_) == 0) return true;
  return handshake_->server->reverify(*this);
}

void TlsSession::end_handshake() {
  if (handshake_ == nullptr) return;
  if (handshake_->server != nullptr) handshake_->server->session_done();
  if (handshake_->client != nullptr) handshake_->client->session_done();
  handshake_.reset();
}

void TlsSession::read_plain() {
  std::byte* const plain = shard_.plain_.get();
  size_t filled = 0;
  int end = -1;
  TlsFailure failure;
  unread_ = false;
  while (TlsShard::kPlainBytes - filled >= TlsShard::kRecordBytes) {
    if (early_ && early_data_ended(plain + filled)) {
      if (!hand_over_early({plain, filled})) return;
      filled = 0;
    }
    const int got =
        SSL_read(ssl_, plain + filled, static_cast<int>(TlsShard::kPlainBytes - filled));
    if (got > 0) {
      filled += static_cast<size_t>(got);
      if (shard_.input_.empty() && SSL_pending(ssl_) == 0) break;
      continue;
    }
    const int error = SSL_get_error(ssl_, got);
    if (error == SSL_ERROR_ZERO_RETURN) end = 0;
    if (error != SSL_ERROR_ZERO_RETURN && error != SSL_ERROR_WANT_READ) {
      failure = tls_failure(*this, false);
      end = kTlsFailed;
    }
    break;
  }
  send_scratch();  // Key updates and alerts.
  deliver_tickets();
  if (filled > 0 && alive()) upper_->on_receive(stream_.socket_, {plain, filled});
  if (end < 0 || left_) return;
  if (end != 0) return fail(failure, end);
  shard_.input_ = {};  // Nothing counts behind a close_notify.
  end_input(0);
}

void TlsSession::deliver_tickets() {
  if (ticket_.empty() || !alive()) return;
  upper_->on_tls_ticket(stream_.socket_, std::move(ticket_));
  ticket_ = TlsTicket();
}

void TlsSession::end_input(int error) {
  if (left_ || ended_) return;
  held_.clear(stream_.env_.chunks);  // Nothing counts behind the end.
  if (!upper_wants_) {
    pending_end_ = error;
    return update_receiving();
  }
  ended_ = true;
  update_receiving();
  upper_->on_receive_end(stream_.socket_, error);
}

void TlsSession::count_failure() {
  shard_.counters_.failures[static_cast<size_t>(failure_.cause)].add();
  if (failure_.cause == TlsCause::kVerify) shard_.counters_.refused[failure_.detail].add();
}

void TlsSession::fail(TlsFailure failure, int error) {
  if (!alive() || ended_ || pending_end_ >= 0) return;
  // What a callback of BoringSSL found out is more exact.
  if (failure_.cause == TlsCause::kNone) failure_ = failure;
  count_failure();
  held_.clear(stream_.env_.chunks);
  // Who was cut off can still be answered.
  if (stream_.error_ == 0 && failure_.cause != TlsCause::kTruncated) stream_.error_ = error;
  if (state_ == State::kOpen) return end_input(error);
  end_handshake();
  state_ = State::kFailed;
  ended_ = true;
  update_receiving();
  if (role_ == Role::kClient) return upper_->on_connected(stream_.socket_, error);
  upper_->on_receive_end(stream_.socket_, error);
}

void TlsSession::on_receive_end(Socket& /*socket*/, int error) {
  raw_on_ = false;
  if (alive() && ended_ && error != 0) return upper_->on_reset(stream_.socket_, error);
  if (!alive() || ended_) return;
  if (state_ == State::kHandshake) {
    return fail({TlsCause::kClosedInHandshake}, error != 0 ? error : kTlsTruncated);
  }
  if (early_) return fail({TlsCause::kClosedInHandshake}, error != 0 ? error : kTlsTruncated);
  if (error == 0 && !fin_ends_) return fail({TlsCause::kTruncated}, kTlsTruncated);
  end_input(error);
}

// The owner has heard of the end already, or will hear of a reset instead.
void TlsSession::on_reset(Socket& /*socket*/, int error) {
  if (!alive()) return;
  if (ended_) return upper_->on_reset(stream_.socket_, error);
  if (pending_end_ >= 0) pending_end_ = error;
}

void TlsSession::on_writable(Socket& socket) {
  if (left_) return;
  if (upper_writes_) {
    upper_->on_writable(socket);
    if (!left_ && stream_.queued() == 0) upper_writes_ = false;
    return;
  }
  if (stream_.flush() || !alive()) return;
  if (state_ == State::kHandshake) return fail({TlsCause::kClosedInHandshake}, stream_.error());
  if (pending_end_ < 0) end_input(stream_.error());
}

void TlsSession::on_closed(Socket& socket) {
  SocketOwner& upper = *upper_;
  stream_.tls_ = nullptr;
  socket.set_owner(upper);
  leave();
  shard_.sessions_.give_back(this);
  upper.on_closed(socket);
}

void TlsSession::leave() {
  if (left_) return;
  left_ = true;
  TlsWaiter::leave();
  gated_ = false;
  end_handshake();
  held_.clear(stream_.env_.chunks);
  if (shard_.writer_ == this) {
    shard_.writer_ = nullptr;
    shard_.scratch_size_ = 0;
  }
}

void TlsSession::set_receiving(bool on) {
  upper_wants_ = on;
  update_receiving();
}

}  // namespace ringway
