// tools/demo_origin.h - the demo's origin: answers every request head with one fixed response.
//
// Affinity: one thread. For the demo and tests only: it reads no bodies and judges no request.
#pragma once

#include <memory>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/base/check.h"
#include "core/io.h"

namespace ringway {

class DemoOrigin final : public AcceptOwner {
 public:
  DemoOrigin(Io& io, int fd) : io_(io) { io_.listen(fd, *this); }
  ~DemoOrigin() { RW_CHECK(connections_.empty()); }

  void on_accepted(int fd, const PeerAddress& /*peer*/) override {
    auto connection = std::make_unique<Connection>(*this);
    Socket& socket = connection->socket;
    connections_.emplace(&socket, std::move(connection));
    io_.adopt(socket, fd);
    io_.set_receiving(socket, true);
  }
  // Closes all connections; run turns until live() is 0 before destroying.
  void close_all() {
    for (const auto& [socket, connection] : connections_) io_.close(*socket);
  }
  [[nodiscard]] size_t live() const { return connections_.size(); }

 private:
  static constexpr std::string_view kAnswer =
      "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 19\r\n\r\n"
      "Hello from Ringway\n";

  struct Connection final : SocketOwner {
    explicit Connection(DemoOrigin& origin) : origin(origin), socket(*this) {}
    void on_connected(Socket& /*socket*/, int /*error*/) override {}
    void on_receive(Socket& from, std::span<const std::byte> bytes) override {
      for (const std::byte byte : bytes) {
        const char want = "\r\n\r\n"[matched];
        matched = static_cast<char>(byte) == want ? matched + 1 : (char(byte) == '\r' ? 1 : 0);
        if (matched < 4) continue;
        matched = 0;
        const iovec piece{const_cast<char*>(kAnswer.data()), kAnswer.size()};
        // A client that does not read its answers is dropped: the demo queues nothing.
        if (origin.io_.send(from, {&piece, 1}) != static_cast<ssize_t>(kAnswer.size())) {
          return origin.io_.close(from);
        }
      }
    }
    void on_receive_end(Socket& from, int /*error*/) override { origin.io_.close(from); }
    void on_writable(Socket& /*socket*/) override {}
    void on_closed(Socket& closed) override { origin.connections_.erase(&closed); }

    DemoOrigin& origin;
    Socket socket;
    size_t matched = 0;  // characters of the blank line seen so far
  };

  Io& io_;
  std::unordered_map<Socket*, std::unique_ptr<Connection>> connections_;
};

}  // namespace ringway
