// core/socket_io.cc
#include "core/socket_io.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "core/base/check.h"

namespace ringway {
namespace {

constexpr uint8_t kArmedIn = 1;
constexpr uint8_t kArmedOut = 2;

}  // namespace

Socket::~Socket() {
  RW_CHECK(fd_ < 0);
}

SocketIo::SocketIo()
    : scratch_(std::make_unique<std::byte[]>(kScratchBytes)),
      wake_fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  RW_CHECK(wake_fd_ >= 0);
  refresh_clock();
}

SocketIo::~SocketIo() {
  ::close(wake_fd_);
  for (const Entry& entry : table_) {
    RW_CHECK(entry.socket == nullptr);  // Owners close their sockets and run turns until closed.
  }
}

void SocketIo::listen(int fd, AcceptOwner& owner) {
  listeners_.push_back({.fd = fd, .owner = &owner, .armed = true});
  const auto index = static_cast<uint32_t>(listeners_.size() - 1);
  arm({Kind::kListen, index, 0}, fd);
}

void SocketIo::unlisten(int fd) {
  for (uint32_t i = 0; i < listeners_.size(); ++i) {
    Listener& listener = listeners_[i];
    if (listener.fd != fd || listener.stopped) continue;
    accept_all(listener);
    listener.stopped = true;
    listener.resume_at_ms = 0;
    if (listener.armed && cancel({Kind::kListen, i, 0}, fd)) listener.armed = false;
  }
}

void SocketIo::discard(int fd) {
  ::close(fd);
}

void SocketIo::set_wake_owner(WakeOwner& owner) {
  RW_CHECK(wake_owner_ == nullptr);
  wake_owner_ = &owner;
  arm({Kind::kWake, 0, 0}, wake_fd_);
}

void SocketIo::wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_fd_, &one, sizeof one);
}

void SocketIo::refresh_clock() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  now_us_ = now.tv_sec * 1'000'000 + now.tv_nsec / 1000;
}

void SocketIo::attach(Socket& socket, int fd) {
  RW_CHECK(!socket.open());
  RW_CHECK(fd >= 0);
  if (free_slots_.empty()) {
    table_.emplace_back();
    free_slots_.push_back(static_cast<uint32_t>(table_.size() - 1));
  }
  socket.slot_ = free_slots_.back();
  free_slots_.pop_back();
  table_[socket.slot_].socket = &socket;
  socket.fd_ = fd;
  socket.armed_ = 0;
  socket.receiving_ = socket.readable_ = socket.ended_ = false;
  socket.connecting_ = socket.closing_ = socket.queued_ = false;
}

void SocketIo::adopt(Socket& socket, int fd) {
  attach(socket, fd);
  arm_once(socket, Kind::kIn);
}

int SocketIo::connect(Socket& socket, const sockaddr* address, socklen_t length) {
  const int fd = ::socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  if (address->sa_family != AF_UNIX) {
    const int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  }
  if (::connect(fd, address, length) != 0 && errno != EINPROGRESS) {
    const int error = errno;
    ::close(fd);
    return error;
  }
  attach(socket, fd);
  socket.connecting_ = true;
  arm_once(socket, Kind::kOut);
  return 0;
}

SocketIo::Tag SocketIo::tag_of(const Socket& socket, Kind kind) const {
  return {kind, socket.slot_, table_[socket.slot_].generation};
}

void SocketIo::arm_once(Socket& socket, Kind kind) {
  const uint8_t bit = kind == Kind::kIn ? kArmedIn : kArmedOut;
  if ((socket.armed_ & bit) != 0) return;
  socket.armed_ |= bit;
  arm(tag_of(socket, kind), socket.fd_);
}

void SocketIo::enqueue(Socket& socket) {
  if (socket.queued_) return;
  socket.queued_ = true;
  ready_.push_back(&socket);
}

void SocketIo::set_receiving(Socket& socket, bool on) {
  RW_CHECK(socket.open());
  socket.receiving_ = on;
  // Edges that came while paused were latched: without this the connection would hang.
  if (on && socket.readable_) enqueue(socket);
}

ssize_t SocketIo::send(Socket& socket, std::span<const iovec> pieces) {
  RW_CHECK(socket.open() && !socket.closing_);
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(pieces.data());  // sendmsg(2) does not write to it.
  message.msg_iovlen = pieces.size();
  const ssize_t sent = sendmsg(socket.fd_, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent >= 0) return sent;
  if (errno == EAGAIN || errno == EINTR) return 0;
  return -errno;
}

void SocketIo::want_writable(Socket& socket) {
  RW_CHECK(socket.open() && !socket.closing_);
  arm_once(socket, Kind::kOut);
}

void SocketIo::shutdown_send(Socket& socket) {
  RW_CHECK(socket.open());
  ::shutdown(socket.fd_, SHUT_WR);
}

void SocketIo::close(Socket& socket) {
  if (!socket.open() || socket.closing_) return;
  socket.closing_ = true;
  socket.receiving_ = false;
  // Without shutdown(2) an armed poll keeps the file alive and the peer sees no FIN.
  ::shutdown(socket.fd_, SHUT_RDWR);
  if ((socket.armed_ & kArmedIn) != 0 && cancel(tag_of(socket, Kind::kIn), socket.fd_)) {
    socket.armed_ &= static_cast<uint8_t>(~kArmedIn);
  }
  if ((socket.armed_ & kArmedOut) != 0 && cancel(tag_of(socket, Kind::kOut), socket.fd_)) {
    socket.armed_ &= static_cast<uint8_t>(~kArmedOut);
  }
  release_if_quiet(socket);
}

void SocketIo::release_if_quiet(Socket& socket) {
  if (socket.closing_ && socket.armed_ == 0) graveyard_.push_back(&socket);
}

void SocketIo::flush_graveyard() {
  while (!graveyard_.empty()) {
    Socket& socket = *graveyard_.back();
    graveyard_.pop_back();
    if (socket.queued_) std::erase(ready_, &socket);
    ++table_[socket.slot_].generation;
    table_[socket.slot_].socket = nullptr;
    free_slots_.push_back(socket.slot_);
    ::close(socket.fd_);
    socket.fd_ = -1;
    socket.owner_.on_closed(socket);  // May free or re-use the socket: last access.
  }
}

void SocketIo::on_ready(Tag tag, int error, bool last) {
  if (tag.kind == Kind::kWake) {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t got = ::read(wake_fd_, &count, sizeof count);
    if (last) arm(tag, wake_fd_);
    wake_owner_->on_wake();
    return;
  }
  if (tag.kind == Kind::kListen) {
    Listener& listener = listeners_[tag.slot];
    if (last) listener.armed = false;
    if (listener.stopped) return;
    accept_all(listener);
    if (!listener.armed && listener.resume_at_ms == 0) listener.resume_at_ms = 1;
    return;
  }
  Socket* socket = table_[tag.slot].socket;
  RW_CHECK(socket != nullptr);
  RW_CHECK((table_[tag.slot].generation ^ tag.generation) % (1U << 24) == 0);
  const bool in = tag.kind == Kind::kIn;
  if (last) socket->armed_ &= static_cast<uint8_t>(~(in ? kArmedIn : kArmedOut));
  if (socket->closing_) {
    if (last) release_if_quiet(*socket);
    return;
  }
  if (!in) {
    if (socket->connecting_) {
      finish_connect(*socket);
    } else {
      socket->owner_.on_writable(*socket);
    }
    return;
  }
  // A multishot poll may end by itself (a full completion queue): armed again, nothing is lost.
  if (last && error == 0) arm_once(*socket, Kind::kIn);
  socket->readable_ = true;
  if (socket->receiving_) read(*socket);
}

void SocketIo::finish_connect(Socket& socket) {
  socket.connecting_ = false;
  int error = 0;
  socklen_t length = sizeof error;
  getsockopt(socket.fd_, SOL_SOCKET, SO_ERROR, &error, &length);
  if (error == 0) arm_once(socket, Kind::kIn);
  socket.owner_.on_connected(socket, error);
}

void SocketIo::read(Socket& socket) {
  for (int i = 0; i < kReadsPerTurn; ++i) {
    if (!socket.receiving_ || socket.ended_ || socket.closing_) return;
    const ssize_t got = recv(socket.fd_, scratch_.get(), kScratchBytes, MSG_DONTWAIT);
    if (got > 0) {
      // A short read does not clear the latch: a FIN behind it may have shared the same edge.
      socket.owner_.on_receive(socket, {scratch_.get(), static_cast<size_t>(got)});
      continue;
    }
    if (got == 0) return end_receive(socket, 0);
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return end_receive(socket, errno);
    socket.readable_ = false;
    return;
  }
  if (socket.receiving_ && !socket.closing_) enqueue(socket);
}

void SocketIo::end_receive(Socket& socket, int error) {
  socket.ended_ = true;
  socket.readable_ = false;
  socket.owner_.on_receive_end(socket, error);
}

void SocketIo::run_ready_list() {
  running_.swap(ready_);
  for (Socket* socket : running_) {
    socket->queued_ = false;
    if (socket->open() && !socket->closing_ && socket->readable_) read(*socket);
  }
  running_.clear();
}

void SocketIo::accept_all(Listener& listener) {
  constexpr int kAcceptsPerTurn = 64;
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    sockaddr_storage peer;
    socklen_t length = sizeof peer;
    auto* address = reinterpret_cast<sockaddr*>(&peer);
    const int fd = accept4(listener.fd, address, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      listener.owner->on_accepted(fd, PeerAddress::from(*address));
      continue;
    }
    if (errno == EINTR || errno == ECONNABORTED) continue;
    if (errno != EAGAIN) {
      // Out of descriptors or memory: trying again at once would fail again and burn the core.
      ++accept_pauses_;
      listener.resume_at_ms = now_us_ / 1000 + kAcceptPauseMs;
    }
    return;
  }
  listener.resume_at_ms = 1;  // More may wait: the edge is used up, so look again next turn.
}

void SocketIo::resume_listeners(int64_t now_ms) {
  for (uint32_t i = 0; i < listeners_.size(); ++i) {
    Listener& listener = listeners_[i];
    if (listener.resume_at_ms == 0 || listener.resume_at_ms > now_ms) continue;
    listener.resume_at_ms = 0;
    if (!listener.armed) {
      listener.armed = true;
      arm({Kind::kListen, i, 0}, listener.fd);
    }
    accept_all(listener);
  }
}

void SocketIo::run_once(int timeout_ms) {
  run_ready_list();
  flush_graveyard();
  refresh_clock();
  const int64_t now_ms = now_us_ / 1000;
  resume_listeners(now_ms);
  if (!ready_.empty() || !graveyard_.empty()) timeout_ms = 0;
  for (const Listener& listener : listeners_) {
    if (listener.resume_at_ms == 0) continue;
    const int pause = static_cast<int>(std::max<int64_t>(listener.resume_at_ms - now_ms, 0));
    timeout_ms = timeout_ms < 0 ? pause : std::min(timeout_ms, pause);
  }
  wait(timeout_ms);
  flush_graveyard();
}

}  // namespace ringway
