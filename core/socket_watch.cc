// core/socket_watch.cc - when the kernel is asked to watch a socket for bytes and its peer's end.
//
// A poll that is armed keeps the file open: closing then takes shutdown(2), a cancel and the
// cancelled poll's last event. So the first polls of a connection end with their first event, and
// the next one is armed no sooner than needed: not while bytes are known to wait, and not while the
// owner expects_nothing(). Arming looks at the socket's state at once, so whatever came meanwhile
// is reported then. A connection that lives longer gets a poll that reports until it is cancelled.
//
// Behind the peer's FIN such a poll would report the FIN, at once and for ever. Who is still open a
// while later gets one that only tells of errors: the peer may reset what it no longer wants to
// read. A hang-up without an error is none: both directions have ended as they should, or (AF_UNIX)
// the peer has closed behind its last byte.
#include "core/socket_io.h"

namespace ringway {

// Clients send at once after connecting, so where that has mostly been seen, reading a new socket
// without being told saves the poll. Misses cost a recv(2); a few are made to learn of a change.
void SocketIo::guess_or_watch(Socket& socket) {
  constexpr int kWorthwhile = 128;
  constexpr uint32_t kTryEvery = 64;
  if (guess_score_ < kWorthwhile && ++guesses_skipped_ % kTryEvery != 0) return watch(socket);
  socket.guessed_ = socket.readable_ = true;  // Read as soon as the owner wants bytes.
}

void SocketIo::learn_guess(Socket& socket, bool right) {
  socket.guessed_ = false;
  guess_score_ += ((right ? 256 : 0) - guess_score_) / 16;
}

void SocketIo::watch(Socket& socket) {
  if (socket.completes_ || socket.ended_ || socket.closing_ || socket.late_) return;
  if (!socket.patient_ || socket.short_waits_ >= kShortWaits) return watch_now(socket);
  if ((socket.armed_ & bit_of(Kind::kIn)) != 0) return;
  socket.late_ = true;
  late_.push_back({tag_of(socket, Kind::kIn), now_us_ + kLateUs});
}

void SocketIo::watch_now(Socket& socket) {
  socket.late_ = false;
  if (socket.ended_) return watch_for_reset(socket);
  const uint8_t bit = bit_of(Kind::kIn);
  if ((socket.armed_ & bit) != 0) return;
  socket.armed_ |= bit;
  const bool once = socket.short_waits_ < kShortWaits;
  if (once) ++socket.short_waits_;
  arm(tag_of(socket, Kind::kIn), socket.fd_, once);
}

void SocketIo::watch_late_for_reset(Socket& socket) {
  if (!socket.half_closed_ || socket.closing_ || socket.late_) return;
  socket.late_ = true;
  late_.push_back({tag_of(socket, Kind::kHangup), now_us_ + kLateUs});
}

void SocketIo::watch_for_reset(Socket& socket) {
  if (!socket.half_closed_) return;
  if ((socket.armed_ & (bit_of(Kind::kIn) | bit_of(Kind::kHangup))) == 0) {
    return arm_once(socket, Kind::kHangup);
  }
  // A poll that is armed tells of what comes from now on, and has told of what came with the FIN.
  if (!socket.failed_) return;
  socket.readable_ = true;
  enqueue(socket);  // Owners get events from the ready list, not before a wait.
}

void SocketIo::look_for_reset(Socket& socket) {
  socket.readable_ = false;
  if (!socket.failed_ || !socket.half_closed_) return;
  socket.failed_ = false;
  int error = 0;  // Of a send, if that has met it first.
  socklen_t length = sizeof error;
  getsockopt(socket.fd_, SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0) socket.owner_->on_reset(socket, error);
}

void SocketIo::expect_nothing(Socket& socket) {
  socket.patient_ = true;
}

// Not watched at once: its owner may be about to close it.
void SocketIo::end_patience(Socket& socket) {
  if (!socket.patient_) return;
  socket.patient_ = false;
  if (socket.late_ && !socket.ended_) answered_.push_back(tag_of(socket, Kind::kIn));
}

// The socket if it still waits to be watched.
Socket* SocketIo::find_late(Tag tag) {
  const Entry& entry = table_[tag.slot];
  if (entry.socket == nullptr || entry.generation != tag.generation) return nullptr;
  return entry.socket->late_ && !entry.socket->closing_ ? entry.socket : nullptr;
}

void SocketIo::watch_late() {
  for (const Tag tag : answered_) {
    if (Socket* socket = find_late(tag)) watch_now(*socket);
  }
  answered_.clear();
  // Those that are gone are passed over early, so that nothing wakes up for them.
  for (; late_at_ < late_.size(); ++late_at_) {
    Socket* socket = find_late(late_[late_at_].tag);
    if (socket == nullptr) continue;
    if (late_[late_at_].due_us > now_us_) break;
    watch_now(*socket);
  }
  // At least half of it is in use after this.
  if (late_at_ * 2 < late_.size()) return;
  late_.erase(late_.begin(), late_.begin() + static_cast<ptrdiff_t>(late_at_));
  late_at_ = 0;
}

}  // namespace ringway
