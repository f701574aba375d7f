// bench/load/bench_origin.cc - the server behind the balancers: HTTP/1.1 and raw echo, very cheap.
//
// bench_origin --http PORT --echo PORT: GET .../N answers N bytes; POST is drained by its
// Content-Length and answered with 128 bytes. To a request with `Connection: close` it says the
// same, but leaves the closing to its peer, which may be a bench/floor that forwards both as they
// are. Knows only what bench/compare sends; not a server.
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "bench/load/sockets.h"

namespace ringway::bench {
namespace {

constexpr size_t kBodyMax = 16 << 20;
constexpr size_t kHeadMax = 64 << 10;    // longest request head
constexpr size_t kOutMax = 64 << 10;     // answers gathered before a send
constexpr size_t kInlineMax = 32 << 10;  // bodies that are copied behind their head
constexpr uint64_t kHttpListener = 1;
constexpr uint64_t kEchoListener = 2;

struct Connection {
  int fd = -1;
  bool echo = false;
  bool says_close = false;  // the request being read does, so its answer does
  bool wants_out = false;   // the socket was full
  size_t body_to_skip = 0;  // of the current request
  size_t body_to_send = 0;  // of the current response, behind `out`
  std::string in;           // the start of a head that is not complete yet
  std::string out;          // not sent yet
};

struct Request {
  bool post = false;
  bool close = false;
  size_t content_length = 0;
  size_t answer_length = 128;
};

size_t to_number(std::string_view text) {
  size_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

bool starts_with_name(std::string_view line, std::string_view name) {
  return line.size() > name.size() && strncasecmp(line.data(), name.data(), name.size()) == 0;
}

// Reads the request line and the two fields that matter here; `head` ends with an empty line.
Request read_head(std::string_view head) {
  Request request;
  request.post = head.starts_with("POST ");
  const size_t line_end = head.find("\r\n");
  const std::string_view target = head.substr(0, head.rfind(' ', line_end));
  if (!request.post) {
    request.answer_length = std::min(to_number(target.substr(target.rfind('/') + 1)), kBodyMax);
  }
  for (size_t at = line_end + 2; at < head.size();) {
    const size_t end = head.find("\r\n", at);
    const std::string_view line = head.substr(at, end - at);
    if (line.empty()) break;
    if (starts_with_name(line, "content-length:")) {
      request.content_length = to_number(line.substr(line.find_first_not_of(" \t", 15)));
    } else if (starts_with_name(line, "connection:")) {
      request.close = strcasestr(std::string(line).c_str(), "close") != nullptr;
    }
    at = end + 2;
  }
  return request;
}

class Origin {
 public:
  Origin(uint16_t http_port, uint16_t echo_port)
      : http_(listen_on(http_port)), echo_(listen_on(echo_port)), body_(kBodyMax, 'b') {
    poller_.add(http_, EPOLLIN, kHttpListener);
    poller_.add(echo_, EPOLLIN, kEchoListener);
  }

  [[noreturn]] void run() {
    for (;;) {
      for (const Poller::Event& event : poller_.wait(-1)) {
        if (event.tag == kHttpListener) {
          accept_all(http_, false);
        } else if (event.tag == kEchoListener) {
          accept_all(echo_, true);
        } else {
          serve(*reinterpret_cast<Connection*>(event.tag), event.events);
        }
      }
    }
  }

 private:
  void accept_all(int listener, bool echo) {
    for (int fd = accept_from(listener); fd >= 0; fd = accept_from(listener)) {
      auto* connection = new Connection;  // freed by close()
      connection->fd = fd;
      connection->echo = echo;
      poller_.add(fd, EPOLLIN, reinterpret_cast<uint64_t>(connection));
    }
  }

  void close(Connection& connection) {
    ::close(connection.fd);
    delete &connection;
  }

  // Nothing is read while answers wait to be sent, so that what is held stays bounded.
  void serve(Connection& connection, uint32_t events) {
    if ((events & EPOLLOUT) != 0) {
      if (!flush(connection)) return close(connection);
    } else if (!read(connection)) {
      return close(connection);
    }
    if (connection.wants_out) return;
    // Requests that were read together with one whose answer had to wait.
    if ((events & EPOLLOUT) != 0 && !connection.in.empty()) {
      const std::string waiting = std::move(connection.in);
      connection.in.clear();
      if (!answer(connection, waiting)) close(connection);
    }
  }

  bool read(Connection& connection) {
    const ssize_t got = recv(connection.fd, buffer_.data(), buffer_.size(), 0);
    if (got < 0) return errno == EAGAIN;
    if (got == 0) return false;
    const std::string_view bytes(buffer_.data(), static_cast<size_t>(got));
    if (connection.echo) {
      connection.out.append(bytes);
      return flush(connection);
    }
    if (connection.in.empty()) return answer(connection, bytes);
    connection.in.append(bytes);
    const std::string whole = std::move(connection.in);
    connection.in.clear();
    return answer(connection, whole);
  }

  // Answers all requests in `bytes`, and keeps what cannot be answered yet. False: close.
  bool answer(Connection& connection, std::string_view bytes) {
    while (!bytes.empty() && !connection.wants_out) {
      if (connection.body_to_skip > 0) {
        const size_t skip = std::min(connection.body_to_skip, bytes.size());
        connection.body_to_skip -= skip;
        bytes.remove_prefix(skip);
        if (connection.body_to_skip == 0) respond(connection, 128);
        continue;
      }
      const size_t end = bytes.find("\r\n\r\n");
      if (end == std::string_view::npos) break;
      const Request request = read_head(bytes.substr(0, end + 4));
      bytes.remove_prefix(end + 4);
      connection.says_close = request.close;
      connection.body_to_skip = request.post ? request.content_length : 0;
      if (connection.body_to_skip == 0) respond(connection, request.answer_length);
      if ((connection.out.size() >= kOutMax || connection.body_to_send > 0) && !flush(connection)) {
        return false;
      }
    }
    connection.in.assign(bytes);
    if (connection.in.size() > kHeadMax && !connection.wants_out) return false;
    return connection.wants_out || flush(connection);
  }

  void respond(Connection& connection, size_t length) {
    std::array<char, 128> head;
    const int size = std::snprintf(head.data(), head.size(),
                                   "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain"
                                   "\r\nContent-Length: %zu\r\n%s\r\n",
                                   length, connection.says_close ? "Connection: close\r\n" : "");
    connection.out.append(head.data(), static_cast<size_t>(size));
    if (length <= kInlineMax) {
      connection.out.append(body_, 0, length);
    } else {
      connection.body_to_send = length;
    }
  }

  // Sends what waits. False: the peer is gone. What stays is told by `wants_out`.
  bool flush(Connection& connection) {
    bool full = false;
    while (!full && !(connection.out.empty() && connection.body_to_send == 0)) {
      const bool head = !connection.out.empty();
      const char* from = head ? connection.out.data() : body_.data();
      const size_t size = head ? connection.out.size() : connection.body_to_send;
      const int more = head && connection.body_to_send > 0 ? MSG_MORE : 0;
      const ssize_t sent = send(connection.fd, from, size, more);
      if (sent < 0 && errno != EAGAIN) return false;
      full = sent < static_cast<ssize_t>(size);
      const size_t done = sent < 0 ? 0 : static_cast<size_t>(sent);
      if (head) {
        connection.out.erase(0, done);
      } else {
        connection.body_to_send -= done;
      }
    }
    if (full != connection.wants_out) {
      connection.wants_out = full;
      poller_.change(connection.fd, full ? EPOLLOUT : EPOLLIN,
                     reinterpret_cast<uint64_t>(&connection));
    }
    return true;
  }

  Poller poller_;
  int http_;
  int echo_;
  std::string body_;
  std::array<char, 256 << 10> buffer_{};
};

int run(int argc, char** argv) {
  uint64_t http_port = 0;
  uint64_t echo_port = 0;
  for (const Argument& argument : arguments(argc, argv)) {
    if (argument.name == "http")
      http_port = number(argument.value, 65535);
    else if (argument.name == "echo")
      echo_port = number(argument.value, 65535);
    else
      fail("usage: bench_origin --http PORT --echo PORT");
  }
  prepare_process();
  std::make_unique<Origin>(static_cast<uint16_t>(http_port), static_cast<uint16_t>(echo_port))
      ->run();
}

}  // namespace
}  // namespace ringway::bench

int main(int argc, char** argv) {
  return ringway::bench::run(argc, argv);
}
