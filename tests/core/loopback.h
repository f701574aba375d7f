// tests/core/loopback.h - what the tests of real engines share: all engines, and loopback pairs.
#pragma once

#include <doctest/doctest.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "core/address.h"
#include "core/epoll_engine.h"
#include "core/ring_engine.h"

namespace ringway {

// A ring that receives by multishot into buffers of `shape`; null where the kernel cannot.
inline std::unique_ptr<RingEngine> make_multishot(uint32_t entries, uint32_t cq_entries,
                                                  ReceiveRing::Shape shape) {
  auto ring = std::make_unique<RingEngine>(0);
  ring->start(entries, cq_entries);
  if (!ring->probe().usable() || !ring->use_multishot(shape).empty()) return nullptr;
  return ring;
}

// Every engine that this machine offers, a tiny ring included: 8 completions for many sockets.
inline std::vector<std::unique_ptr<Io>> engines() {
  std::vector<std::unique_ptr<Io>> all;
  for (const auto& [entries, cq, spin] :
       {std::tuple{4096U, 0U, 0U}, std::tuple{4U, 8U, 0U}, std::tuple{256U, 0U, 50U}}) {
    auto ring = std::make_unique<RingEngine>(spin);
    ring->start(entries, cq);
    if (ring->probe().usable()) all.push_back(std::move(ring));
  }
  // Receiving by completions: as in production, and with far too few and too small buffers.
  using Shape = ReceiveRing::Shape;
  for (const auto& [entries, cq, shape] :
       {std::tuple{4096U, 0U, ReceiveRing::kPlain},
        std::tuple{4096U, 0U, ReceiveRing::kIncremental},
        std::tuple{4096U, 0U, Shape{2, 128, true}}, std::tuple{256U, 0U, Shape{2, 64, false}},
        std::tuple{4U, 8U, Shape{4, 16, true}}}) {
    auto ring = make_multishot(entries, cq, shape);
    if (ring != nullptr) all.push_back(std::move(ring));
  }
  all.push_back(std::make_unique<EpollEngine>(0));
  all.push_back(std::make_unique<EpollEngine>(50));
  return all;
}

struct Recorder final : SocketOwner {
  Recorder() : socket(*this) {}
  void on_connected(Socket& /*socket*/, int error) override { connected = error; }
  void on_receive(Socket& /*socket*/, std::span<const std::byte> bytes) override {
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (then) then();
  }
  void on_receive_end(Socket& /*socket*/, int error) override {
    ++ends;
    end_error = error;
  }
  void on_reset(Socket& /*socket*/, int error) override {
    ++resets;
    reset_error = error;
    if (then_reset) then_reset();
  }
  void on_detached(Socket& /*socket*/, int detached_fd, bool /*clean*/) override {
    ++detached;
    fd = detached_fd;
  }
  void on_writable(Socket& /*socket*/) override { ++writable; }
  void on_closed(Socket& /*socket*/) override { ++closed; }

  Socket socket;
  std::string text;
  std::function<void()> then;
  std::function<void()> then_reset;
  int connected = -1;
  int ends = 0;
  int end_error = -1;
  int resets = 0;
  int reset_error = -1;
  int writable = 0;
  int closed = 0;
  int detached = 0;
  int fd = -1;
};

struct Acceptor final : AcceptOwner {
  void on_accepted(int fd, const PeerAddress& peer) override {
    fds.push_back(fd);
    last = peer;
  }
  std::vector<int> fds;
  PeerAddress last;
};

inline ServerAddress bound(int fd) {
  ServerAddress address;
  address.length = sizeof address.storage;
  getsockname(fd, reinterpret_cast<sockaddr*>(&address.storage), &address.length);
  return address;
}

inline int listen_any() {
  ServerAddress any;
  REQUIRE(parse_address("127.0.0.1:0", any));
  const int fd = open_listener(any);
  REQUIRE(fd >= 0);
  return fd;
}

// The next connection of `listener`. Waits for it: also behind a connect(2) that has returned, the
// kernel may still owe it to a busy CPU.
inline int accept_next(int listener, int flags = SOCK_CLOEXEC) {
  pollfd waiting{listener, POLLIN, 0};
  REQUIRE(poll(&waiting, 1, 10'000) == 1);
  const int fd = accept4(listener, nullptr, nullptr, flags);
  INFO(strerror(errno));
  REQUIRE(fd >= 0);
  return fd;
}

inline int dial(const ServerAddress& to) {
  const int fd = socket(to.get()->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(connect(fd, to.get(), to.length) == 0);
  return fd;
}

// Runs turns until `done`, at most 30 s, so that a hang fails instead of blocking.
template <typename Done>
bool run_until(Io& io, Done done) {
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!done()) {
    if (std::chrono::steady_clock::now() > give_up) return false;
    io.run_once(1);
  }
  return true;
}

// A client descriptor and its accepted peer, adopted by the engine.
struct Pair {
  explicit Pair(Io& io) : io(io) {
    const int listener = listen_any();
    client = dial(bound(listener));
    const int fd = accept_next(listener, SOCK_NONBLOCK | SOCK_CLOEXEC);
    ::close(listener);
    io.adopt(side.socket, fd);
  }
  ~Pair() {
    if (client >= 0) ::close(client);
    io.close(side.socket);
    run_until(io, [&] { return !side.socket.open(); });
  }
  Io& io;
  Recorder side;
  int client = -1;
};

}  // namespace ringway
