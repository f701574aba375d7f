// lb/admin/http_server.h - a small HTTP/1.1 server for the control thread: metrics and admin.
//
// Affinity:  the control thread's Io and Timers; all calls on that thread.
// Ownership: owns its connections, not the listening descriptor. stop() it and run turns until
//            live() is 0 before it dies.
// Bounds:    HttpServerLimits. One request per connection at a time; what a client sends ahead
// waits
//            in the kernel.
// Why:       a slow or stuck client must cost nothing but its own slot.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/slab.h"
#include "core/io.h"
#include "core/timers.h"
#include "proto/http1_head.h"

namespace ringway {

// Times in milliseconds.
struct HttpServerLimits {
  size_t connections = 64;  // more are closed at once
  uint32_t head_bytes = 8 * 1024;
  uint64_t body_bytes = 0;   // 0: bodies are not read, a request that has one is the last
  int64_t head_ms = 10'000;  // for a head, from its first byte
  int64_t body_ms = 10'000;  // for all of a body
  int64_t send_ms = 30'000;  // for taking all of an answer
  int64_t idle_ms = 120'000;
  int64_t drain_ms = 2'000;  // for the peer to end before we close
  // A peer that ended its side but waits for an answer may do so for this long: it may as well be
  // gone, which looks the same.
  int64_t half_closed_ms = 10'000;
};

// Who is at the other end of a unix socket, as the kernel says. -1: another kind of socket.
struct HttpPeer {
  int64_t uid = -1;
  int64_t pid = -1;
};

// Valid during HttpHandler::on_request() only.
struct HttpRequest {
  http1::Method method = http1::Method::kGet;
  std::string_view path{};   // as sent, percent-encoded
  std::string_view query{};  // without "?"
  std::string_view body{};
  HttpPeer peer;
};

struct HttpAnswer {
  uint16_t status = 200;
  std::string body;
  std::string_view content_type = "text/plain; charset=utf-8";  // a constant
  std::string_view extra{};  // complete field lines, or nothing; a constant
};

// Names one request that waits for its answer. Never used twice by one server.
using HttpTicket = uint64_t;

class HttpServer;

class HttpHandler {
 public:
  // Exactly one server.respond(ticket) has to follow, inside this call or later.
  virtual void on_request(HttpServer& server, HttpTicket ticket, const HttpRequest& request) = 0;

 protected:
  ~HttpHandler() = default;
};

class HttpServer final : public AcceptOwner {
 public:
  // Starts accepting on `listen_fd`, which stays the caller's and open until stop(). All references
  // must outlive the server.
  HttpServer(Io& io, Timers& timers, int listen_fd, HttpHandler& handler,
             const HttpServerLimits& limits);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Answers a request. Nothing happens if its client has gone meanwhile.
  void respond(HttpTicket ticket, HttpAnswer answer);

  // Stops accepting and closes every connection. Idempotent.
  void stop();
  // Stops accepting; connections end with the answer they wait for or are being sent, idle ones
  // now. Idempotent.
  void finish();

  // Connections that have not been closed yet.
  [[nodiscard]] size_t live() const { return slab_.in_use(); }
  // Connections closed because too many were open.
  [[nodiscard]] uint64_t refused() const { return refused_; }

  void on_accepted(int fd, const PeerAddress& peer) override;

 private:
  class Connection;

  void forget(Connection& connection);

  Io& io_;
  Timers& timers_;
  HttpHandler& handler_;
  HttpServerLimits limits_;
  int listen_fd_;  // -1 once stopped
  bool finishing_ = false;
  uint64_t refused_ = 0;
  HttpTicket last_ticket_ = 0;
  Slab<Connection> slab_;
  std::vector<Connection*> connections_;  // all of slab_'s
};

}  // namespace ringway
