// core/socket_receive.cc - receiving by completions: the kernel brings the bytes along.
//
// A multishot receive runs while the owner wants bytes. It is not cancelled when the owner pauses,
// since most pauses end before more arrives; only when bytes do arrive behind a pause they are
// copied aside and the receive is cancelled, so that the peer's window fills. Completions of one
// receive come in order and what is held goes first, so the stream keeps its order.
#include <errno.h>

#include "core/base/check.h"
#include "core/socket_io.h"

namespace ringway {

void SocketIo::start_receiving(Socket& socket) {
  if (!socket.receiving_ || socket.ended_ || socket.closing_ || socket.connecting_) return;
  // Held bytes go first, and a starved socket waits for its turn.
  if (socket.held_ != nullptr || socket.starved_) return;
  arm_once(socket, Kind::kReceive);
}

void SocketIo::on_receive_event(const Event& event) {
  Socket* socket = table_[event.tag.slot].socket;
  // A slot is released after the last event of each of its operations, and buffers come back only
  // through events: a stray one would be a bug of ours.
  RW_CHECK(socket != nullptr && table_[event.tag.slot].generation == event.tag.generation);
  RW_CHECK((socket->armed_ & bit_of(Kind::kReceive)) != 0);
  if (event.last) {
    socket->armed_ &= static_cast<uint8_t>(~bit_of(Kind::kReceive));
    socket->stopping_ = false;
  }
  if (socket->closing_) {
    // Later completions lie behind these bytes in the buffer. An end is found again by whoever
    // reads the descriptor next; bytes are not.
    if (!bytes_of(event).empty()) socket->tainted_ = true;
    done_with(event);
    if (event.last) release_if_quiet(*socket);
    return;
  }
  take_completion(*socket, event);
  done_with(event);
  if (event.last && socket->completes_) start_receiving(*socket);
}

void SocketIo::take_completion(Socket& socket, const Event& event) {
  const std::span<const std::byte> bytes = bytes_of(event);
  if (!bytes.empty()) {
    if (!socket.receiving_ || socket.held_ != nullptr) return hold(socket, bytes);
    return socket.owner_->on_receive(socket, bytes);
  }
  switch (-event.result) {
    case ECANCELED: return;  // by a pause that bytes had followed
    case ENOBUFS:
      counters_.receive_starved.add();
      socket.starved_ = true;
      return starved_.push_back(event.tag);
    case EINVAL:
    case EFAULT:
      // Not an error of the socket: some kernels say so at the tail of an incremental buffer
      // (liburing issues 1433, 1548). recv(2) finds the truth, for the rest of its life.
      socket.completes_ = false;
      return watch(socket);
    default:
      if (socket.receiving_ && socket.held_ == nullptr) return end_receive(socket, -event.result);
      return hold_end(socket, -event.result);
  }
}

HeldBytes& SocketIo::held_of(Socket& socket) {
  if (socket.held_ == nullptr) socket.held_ = held_.take();
  RW_CHECK(socket.held_ != nullptr);
  socket.readable_ = true;  // Found by set_receiving().
  return *socket.held_;
}

void SocketIo::hold(Socket& socket, std::span<const std::byte> bytes) {
  if ((socket.armed_ & bit_of(Kind::kReceive)) != 0 && !socket.stopping_) {
    socket.stopping_ = true;
    cancel(tag_of(socket, Kind::kReceive), socket.fd_);
  }
  counters_.receive_held.add(bytes.size());
  HeldBytes& held = held_of(socket);
  const iovec piece{const_cast<std::byte*>(bytes.data()), bytes.size()};
  if (!held.ended && !held.bytes.append(held_chunks_, {&piece, 1}, 0)) {
    // The stream has a hole now: the owner gets what came before it, and an error.
    held.ended = true;
    held.error = ENOBUFS;
  }
}

void SocketIo::hold_end(Socket& socket, int error) {
  HeldBytes& held = held_of(socket);
  if (held.ended) return;
  held.ended = true;
  held.error = error;
}

void SocketIo::deliver_held(Socket& socket) {
  HeldBytes& held = *socket.held_;
  for (int i = 0; i < kReadsPerTurn * 4 && !held.bytes.empty(); ++i) {
    if (!socket.receiving_ || socket.closing_) return;
    iovec piece{};
    RW_CHECK(held.bytes.peek({&piece, 1}) == 1);
    socket.owner_->on_receive(socket,
                              {static_cast<const std::byte*>(piece.iov_base), piece.iov_len});
    held.bytes.consume(held_chunks_, piece.iov_len);
  }
  if (!socket.receiving_ || socket.closing_) return;
  if (!held.bytes.empty()) return enqueue(socket);
  const bool ended = held.ended;
  const int error = held.error;
  drop_held(socket);
  socket.readable_ = false;
  if (ended) return end_receive(socket, error);
  if (socket.completes_) return start_receiving(socket);
  socket.readable_ = true;  // An edge may have come while the held bytes were first.
  enqueue(socket);
}

void SocketIo::drop_held(Socket& socket) {
  if (socket.held_ == nullptr) return;
  socket.held_->bytes.clear(held_chunks_);
  held_.give_back(socket.held_);
  socket.held_ = nullptr;
}

// No more than there are buffers: with more, the rest would fail at once and go round in circles.
void SocketIo::feed_starved() {
  for (size_t free = free_buffers(); free > 0 && starved_at_ < starved_.size(); --free) {
    const Tag tag = starved_[starved_at_++];
    const Entry& entry = table_[tag.slot];
    if (entry.socket == nullptr || entry.generation != tag.generation) continue;  // closed since
    entry.socket->starved_ = false;
    start_receiving(*entry.socket);
  }
  // Each starved socket stands in it once, so half of it at least is in use after this.
  if (starved_at_ * 2 < starved_.size()) return;
  starved_.erase(starved_.begin(), starved_.begin() + static_cast<ptrdiff_t>(starved_at_));
  starved_at_ = 0;
}

}  // namespace ringway
