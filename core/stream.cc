// core/stream.cc
#include "core/stream.h"

#include <errno.h>

#include <array>

#include "core/base/check.h"
#include "core/tls_client.h"
#include "core/tls_server.h"
#include "core/tls_session.h"

namespace ringway {

bool Stream::start_tls_server(TlsServerContext& context) {
  RW_CHECK(open() && tls_ == nullptr && env_.tls != nullptr);
  tls_ = context.start(*env_.tls, *this);
  return tls_ != nullptr;
}

bool Stream::start_tls_client(TlsClientContext& context, const TlsClientParams& params) {
  RW_CHECK(open() && tls_ == nullptr && env_.tls != nullptr);
  tls_ = context.start(*env_.tls, *this, params);
  return tls_ != nullptr;
}

bool Stream::write(std::span<const iovec> pieces) {
  RW_CHECK(!fin_wanted_);
  if (!open() || error_ != 0) return false;
  return tls_ == nullptr ? send(pieces) : tls_->write(pieces);
}

bool Stream::something_waits() const {
  return (tls_ != nullptr && tls_->something_waits()) || env_.io.something_waits(socket_);
}

// The bytes as they go over the wire.
bool Stream::send(std::span<const iovec> pieces) {
  if (error_ != 0) return false;
  size_t sent = 0;
  if (out_.empty()) {
    size_t total = 0;
    for (const iovec& piece : pieces) total += piece.iov_len;
    const ssize_t result = env_.io.send(socket_, pieces);
    if (result < 0) {
      error_ = static_cast<int>(-result);
      return false;
    }
    sent = static_cast<size_t>(result);
    if (sent == total) return true;
  }
  if (!out_.append(env_.chunks, pieces, sent)) {
    error_ = ENOBUFS;
    return false;
  }
  want_writable();
  return true;
}

void Stream::want_writable() {
  if (waiting_writable_) return;
  waiting_writable_ = true;
  env_.io.want_writable(socket_);
}

bool Stream::flush() {
  waiting_writable_ = false;
  if (!open()) return false;
  while (!out_.empty()) {
    std::array<iovec, 16> pieces;
    const size_t count = out_.peek(pieces);
    size_t total = 0;
    for (size_t i = 0; i < count; ++i) total += pieces[i].iov_len;
    const ssize_t result = env_.io.send(socket_, std::span(pieces).first(count));
    if (result < 0) {
      error_ = static_cast<int>(-result);
      return false;
    }
    out_.consume(env_.chunks, static_cast<size_t>(result));
    if (static_cast<size_t>(result) < total) {
      want_writable();
      return true;
    }
  }
  if (fin_wanted_) env_.io.shutdown_send(socket_);
  return true;
}

void Stream::shutdown_send() {
  if (!open() || fin_wanted_) return;
  if (tls_ != nullptr) tls_->send_close_notify();
  fin_wanted_ = true;
  if (out_.empty()) env_.io.shutdown_send(socket_);
}

void Stream::close() {
  if (tls_ != nullptr && open() && !fin_wanted_ && out_.empty()) tls_->send_close_notify();
  if (tls_ != nullptr) tls_->leave();
  out_.clear(env_.chunks);
  if (!socket_.open() || closing_) return;
  closing_ = true;
  receiving_ = false;
  env_.io.close(socket_);
}

void Stream::abort() {
  if (tls_ != nullptr) tls_->leave();
  out_.clear(env_.chunks);
  if (!socket_.open() || closing_) return;
  closing_ = true;
  receiving_ = false;
  env_.io.abort(socket_);
}

void Stream::detach() {
  RW_CHECK(open() && out_.empty() && error_ == 0 && can_detach());
  closing_ = true;
  receiving_ = false;
  env_.io.detach(socket_);
}

void Stream::set_receiving(bool on) {
  if (receiving_ == on || !open()) return;
  receiving_ = on;
  if (tls_ != nullptr) return tls_->set_receiving(on);
  env_.io.set_receiving(socket_, on);
}

}  // namespace ringway
