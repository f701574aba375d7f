// tests/core/every_engine.h - one suite for all engines, the simulated one included: what differs
// between them is who stands at the other end of a connection.
//
// Real engines have loopback sockets as peers, used without an engine; the simulated one has ends
// on another SimIo of its net. Without faults and delay the net behaves as loopback does: what was
// sent is there in the next turn.
#pragma once

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/address.h"
#include "tests/core/loopback.h"
#include "tests/support/sim_io.h"
#include "tests/support/sim_net.h"

namespace ringway {

// An engine under test, and where its peers live.
struct AnyEngine {
  std::unique_ptr<SimNet> net;    // null: a real engine
  std::unique_ptr<SimIo> others;  // the peers'
  std::unique_ptr<Io> io;

  Io* operator->() const { return io.get(); }
  Io& operator*() const { return *io; }
  [[nodiscard]] bool simulated() const { return net != nullptr; }
};

inline std::vector<AnyEngine> every_engine() {
  std::vector<AnyEngine> all;
  for (auto& io : engines()) {
    all.emplace_back();
    all.back().io = std::move(io);
  }
  for (const uint64_t seed : {1, 2, 3}) {  // Other windows, and another order of events.
    all.emplace_back();
    AnyEngine& engine = all.back();
    engine.net = std::make_unique<SimNet>(SimOptions{.seed = seed,
                                                     .faults = false,
                                                     .latency_us_min = 0,
                                                     .latency_us_max = 0,
                                                     .window_bytes = seed * 32 * 1024});
    engine.others = std::make_unique<SimIo>(*engine.net);
    engine.io = std::make_unique<SimIo>(*engine.net);
  }
  return all;
}

// The other end of a connection of the engine under test.
class Peer {
 public:
  Peer() = default;
  virtual ~Peer() = default;
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  // Sends what is taken now. Returns the number of bytes.
  virtual size_t try_write(std::string_view bytes) = 0;
  void write(std::string_view bytes) { REQUIRE(try_write(bytes) == bytes.size()); }
  // Waits for bytes. Returns their number, 0 at the end, or a negative errno.
  virtual ssize_t read(std::span<char> into) = 0;
  ssize_t read_byte() {
    char byte = 0;
    return read({&byte, 1});
  }
  // FIN; FIN both ways; RST.
  virtual void finish() = 0;
  virtual void close() = 0;
  virtual void cut() = 0;
  // Where it connected from.
  [[nodiscard]] virtual uint16_t port() const = 0;
};

class RealPeer final : public Peer {
 public:
  explicit RealPeer(int fd) : fd_(fd) {}
  ~RealPeer() override { close(); }
  size_t try_write(std::string_view bytes) override {
    const ssize_t n = send(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    return n > 0 ? static_cast<size_t>(n) : 0;
  }
  ssize_t read(std::span<char> into) override {
    const ssize_t n = recv(fd_, into.data(), into.size(), 0);
    return n >= 0 ? n : -errno;
  }
  void finish() override { REQUIRE(shutdown(fd_, SHUT_WR) == 0); }
  void close() override {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  void cut() override {
    const linger at_once{1, 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close();
  }
  [[nodiscard]] int fd() const { return fd_; }
  [[nodiscard]] uint16_t port() const override {
    return ntohs(reinterpret_cast<const sockaddr_in&>(bound(fd_).storage).sin_port);
  }

 private:
  int fd_;
};

class SimPeer final : public Peer, private SocketOwner {
 public:
  SimPeer(SimNet& net, SimIo& io) : net_(net), io_(io), socket_(*this) {}
  ~SimPeer() override {
    close();
    CHECK(net_.run_until([&] { return !socket_.open(); }, 100'000));
  }
  void adopt(int fd) { io_.adopt(socket_, fd); }
  // Returns what connecting ended with, a positive errno or 0.
  int connect(const ServerAddress& to) {
    const int error = io_.connect(socket_, to);
    if (error != 0) return error;
    REQUIRE(net_.run_until([&] { return connected_ >= 0; }, 100'000));
    return connected_;
  }
  size_t try_write(std::string_view bytes) override {
    const iovec piece{const_cast<char*>(bytes.data()), bytes.size()};
    const ssize_t n = io_.send(socket_, {&piece, 1});
    return n > 0 ? static_cast<size_t>(n) : 0;
  }
  ssize_t read(std::span<char> into) override {
    if (text_.empty()) io_.set_receiving(socket_, true);
    REQUIRE(net_.run_until([&] { return !text_.empty() || error_ >= 0; }, 100'000));
    io_.set_receiving(socket_, false);
    const size_t n = std::min(into.size(), text_.size());
    text_.copy(into.data(), n);
    text_.erase(0, n);
    return n > 0 ? static_cast<ssize_t>(n) : -error_;
  }
  void finish() override { io_.shutdown_send(socket_); }
  void close() override { io_.close(socket_); }
  void cut() override { io_.abort(socket_); }
  [[nodiscard]] uint16_t port() const override { return net_.client_of(socket_.fd()).port; }

 private:
  void on_connected(Socket& /*socket*/, int error) override { connected_ = error; }
  void on_receive(Socket& /*socket*/, std::span<const std::byte> bytes) override {
    text_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  void on_receive_end(Socket& /*socket*/, int error) override { error_ = error; }
  void on_writable(Socket& /*socket*/) override {}
  void on_closed(Socket& /*socket*/) override {}

  SimNet& net_;
  SimIo& io_;
  Socket socket_;
  std::string text_;
  int connected_ = -1;
  int error_ = -1;
};

inline int listen_any(const AnyEngine& engine) {
  if (!engine.simulated()) return listen_any();
  ServerAddress any;
  REQUIRE(parse_address("127.0.0.1:0", any));
  return engine.net->make_listener(any);
}

inline ServerAddress bound(const AnyEngine& engine, int listener) {
  return engine.simulated() ? engine.net->address_of(listener) : bound(listener);
}

inline std::unique_ptr<Peer> dial(const AnyEngine& engine, const ServerAddress& to) {
  if (!engine.simulated()) return std::make_unique<RealPeer>(dial(to));
  auto peer = std::make_unique<SimPeer>(*engine.net, *engine.others);
  REQUIRE(peer->connect(to) == 0);
  return peer;
}

// Nobody listens there.
inline bool refused(const AnyEngine& engine, const ServerAddress& there) {
  if (engine.simulated()) {
    return SimPeer(*engine.net, *engine.others).connect(there) == ECONNREFUSED;
  }
  const int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool failed = connect(client, there.get(), there.length) != 0 && errno == ECONNREFUSED;
  ::close(client);
  return failed;
}

// Takes what the engine has connected to `listener`, which nobody else listens to.
inline std::unique_ptr<Peer> accept_one(const AnyEngine& engine, int listener) {
  if (!engine.simulated()) {
    return std::make_unique<RealPeer>(accept_next(listener));
  }
  Acceptor acceptor;
  engine.others->listen(listener, acceptor);
  REQUIRE(engine.net->run_until([&] { return !acceptor.fds.empty(); }, 100'000));
  engine.others->unlisten(listener);
  auto peer = std::make_unique<SimPeer>(*engine.net, *engine.others);
  peer->adopt(acceptor.fds[0]);
  return peer;
}

// Two ends of a connection: `side` is the engine's, `peer` the other one.
struct AnyPair {
  explicit AnyPair(const AnyEngine& engine) : io(*engine) {
    if (engine.simulated()) {
      const auto [mine, other] = engine.net->make_pair();
      auto end = std::make_unique<SimPeer>(*engine.net, *engine.others);
      end->adopt(other);
      peer = std::move(end);
      io.adopt(side.socket, mine);
      return;
    }
    const int listener = listen_any();
    peer = std::make_unique<RealPeer>(dial(bound(listener)));
    const int fd = accept_next(listener, SOCK_NONBLOCK | SOCK_CLOEXEC);
    ::close(listener);
    io.adopt(side.socket, fd);
  }
  ~AnyPair() {
    peer.reset();
    io.close(side.socket);
    CHECK(run_until(io, [&] { return !side.socket.open(); }));
  }
  Io& io;
  Recorder side;
  std::unique_ptr<Peer> peer;
};

}  // namespace ringway
