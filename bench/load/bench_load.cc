// bench/load/bench_load.cc - a load generator for what wrk cannot do: raw TCP, fixed rates, crowds.
//
// One request, read from a file, is sent again and again over --connections connections (closed
// loop), or --rate times a second, while --idle further connections stay open after one request
// each. With --http the answer must be a 200 with --expect body bytes, else --expect bytes of
// anything. --reconnect 1 takes a new connection for every request. --tls 1 speaks TLS 1.3,
// --resume 1 with sessions from before: then one that is not resumed while it is measured is an
// error.
//
// Protocol with bench/compare: connect, warm up, let everything in flight end, print READY, wait
// for a line on stdin, measure, let everything in flight end, print one line of JSON. So the caller
// can read the balancer's CPU clock before and after exactly the requests that are counted.
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "bench/load/sockets.h"
#include "bench/load/tls_client.h"
#include "core/base/check.h"

namespace ringway::bench {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;
constexpr uint64_t kDrainMax = 5 * kSecond;  // for what is in flight when a phase ends
constexpr uint64_t kErrorsMax = 100;         // more end the run
constexpr size_t kHeadMax = 16 << 10;
constexpr size_t kOpeningMax = 64;  // idle connections that are being opened at one time

struct Options {
  uint16_t port = 0;
  bool http = false;
  bool reconnect = false;
  bool tls = false;
  bool resume = false;
  size_t connections = 0;
  size_t idle = 0;
  uint64_t rate = 0;  // requests a second; 0: closed loop
  uint64_t warm_up_ns = 0;
  uint64_t measure_ns = kSecond;
  size_t expect = 0;
  std::string request;
};

// Latencies in buckets that are 1/32 of a power of two wide.
class Histogram {
 public:
  void record(uint64_t ns) {
    ++buckets_[bucket_of(ns)];
    ++count_;
  }
  [[nodiscard]] uint64_t count() const { return count_; }
  // Milliseconds below which `fraction` of all latencies lie; 0 when there are none.
  [[nodiscard]] double percentile_ms(double fraction) const {
    const auto rank = static_cast<uint64_t>(fraction * static_cast<double>(count_));
    uint64_t seen = 0;
    for (size_t i = 0; i < buckets_.size(); ++i) {
      seen += buckets_[i];
      if (seen > rank) return static_cast<double>(upper_bound_of(i)) / 1e6;
    }
    return 0;
  }

 private:
  static constexpr size_t kSteps = 32;
  static size_t bucket_of(uint64_t ns) {
    if (ns < kSteps) return ns;
    const auto shift = static_cast<size_t>(std::bit_width(ns)) - 6;
    return (shift * kSteps) + static_cast<size_t>(ns >> shift);
  }
  static uint64_t upper_bound_of(size_t bucket) {
    if (bucket < 2 * kSteps) return bucket;
    const size_t shift = (bucket / kSteps) - 1;
    return ((bucket - (shift * kSteps)) + 1) << shift;
  }

  std::array<uint64_t, 64 * kSteps> buckets_{};
  uint64_t count_ = 0;
};

struct Connection {
  int fd = -1;
  ssl_st* tls = nullptr;
  bool in_flight = false;
  bool waits_out = false;  // EPOLLOUT is asked for: the request is not sent whole yet
  bool in_head = false;
  size_t sent = 0;
  size_t to_receive = 0;  // body bytes
  uint64_t started = 0;
  std::string head;  // the part of a response head that has arrived
};

class Load {
 public:
  explicit Load(Options options)
      : options_(std::move(options)),
        connections_(options_.connections + options_.idle),
        tls_(options_.resume) {}
  ~Load() {
    for (Connection& connection : connections_) {
      if (connection.fd >= 0) close(connection);
    }
  }
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;

  void run() {
    open_idle();
    for (size_t i = options_.idle; i < connections_.size(); ++i) free_.push_back(i);
    phase(options_.warm_up_ns);
    std::printf("READY\n");
    std::fflush(stdout);
    if (errors_ > kErrorsMax || std::getchar() == EOF) return report(0);
    histogram_ = {};
    measuring_ = true;
    const uint64_t begin = now_ns();
    phase(options_.measure_ns);
    report(now_ns() - begin);
  }

 private:
  // One request on each of the idle connections, a few at a time; afterwards they only lie there.
  void open_idle() {
    size_t opened = 0;
    // A handshake may cost both sides a millisecond or two.
    const uint64_t give_up = now_ns() + (options_.tls ? 120 : 30) * kSecond;
    while ((opened < options_.idle || in_flight_ > 0) && now_ns() < give_up && !hopeless()) {
      while (opened < options_.idle && in_flight_ < kOpeningMax) begin(opened++, now_ns());
      turn(kSecond / 10);
    }
    errno = 0;
    if (opened < options_.idle || in_flight_ > 0) error("idle connections could not be opened");
    free_.clear();
  }

  // Issues requests for `ns`, then waits for the answers of all that are in flight.
  void phase(uint64_t ns) {
    if (connections_.size() == options_.idle) return turn(0);  // sees those that were closed
    const uint64_t end = now_ns() + ns;
    next_due_ = now_ns();
    issuing_ = true;
    for (uint64_t now = now_ns(); now < end && !hopeless(); now = now_ns()) {
      issue(now);
      uint64_t until = end;
      if (options_.rate > 0 && !free_.empty()) until = std::min(until, next_due_);
      const uint64_t before_wait = now_ns();
      turn(until - std::min(until, before_wait));
    }
    issuing_ = false;
    const uint64_t give_up = now_ns() + kDrainMax;
    while (in_flight_ > 0 && now_ns() < give_up && !hopeless()) turn(kSecond / 10);
    for (size_t i = options_.idle; in_flight_ > 0 && i < connections_.size(); ++i) {
      errno = 0;
      if (connections_[i].in_flight) fail_connection(i, "no answer");
    }
  }

  [[nodiscard]] bool hopeless() const { return errors_ > kErrorsMax; }

  // Starts what is due on the connections that are free. A late start counts from when it was due.
  void issue(uint64_t now) {
    while (!free_.empty() && (options_.rate == 0 || next_due_ <= now)) {
      const size_t index = free_.back();
      free_.pop_back();
      begin(index, options_.rate == 0 ? now : next_due_);
      if (options_.rate > 0) next_due_ += kSecond / options_.rate;
      if (hopeless()) return;
    }
  }

  void turn(uint64_t ns) {
    for (const Poller::Event& event : poller_.wait(static_cast<int64_t>(ns))) {
      Connection& connection = connections_[event.tag];
      if (connection.fd < 0) continue;  // closed earlier in this turn
      if (connection.waits_out && (event.events & EPOLLOUT) != 0) send_rest(event.tag);
      if (connection.fd >= 0 && (event.events & ~uint32_t{EPOLLOUT}) != 0) receive(event.tag);
    }
  }

  void begin(size_t index, uint64_t started) {
    Connection& connection = connections_[index];
    RW_CHECK(!connection.in_flight);
    connection.in_flight = true;
    connection.in_head = options_.http;
    connection.sent = 0;
    connection.to_receive = options_.expect;
    connection.started = started;
    ++in_flight_;
    if (connection.fd < 0) {
      connection.fd = connect_to(options_.port);
      if (connection.fd < 0) return fail_connection(index, "connect");
      if (options_.tls) connection.tls = tls_.open(connection.fd);
      connection.waits_out = false;
      poller_.add(connection.fd, EPOLLIN, index);
    }
    send_rest(index);
  }

  void send_rest(size_t index) {
    Connection& connection = connections_[index];
    const std::string_view rest = std::string_view(options_.request).substr(connection.sent);
    const ssize_t sent = connection.tls != nullptr
                             ? TlsClient::send(connection.tls, rest)
                             : send(connection.fd, rest.data(), rest.size(), 0);
    // In a handshake it may be the server's turn: receive() comes back here.
    const bool servers_turn = sent < 0 && errno == EINPROGRESS && connection.tls != nullptr;
    if (sent < 0 && errno != EAGAIN && !servers_turn) return fail_connection(index, "send");
    connection.sent += sent < 0 ? 0 : static_cast<size_t>(sent);
    const bool wait = connection.sent < options_.request.size() && !servers_turn;
    if (wait == connection.waits_out) return;
    connection.waits_out = wait;
    poller_.change(connection.fd, wait ? EPOLLIN | EPOLLOUT : EPOLLIN, index);
  }

  void receive(size_t index) {
    Connection& connection = connections_[index];
    if (connection.tls == nullptr) {
      return take(index, recv(connection.fd, buffer_.data(), buffer_.size(), 0));
    }
    // The poller knows of bytes in the socket, not of those that TLS has read already.
    while (connection.tls != nullptr) {
      if (connection.in_flight && connection.sent < options_.request.size()) {
        return send_rest(index);
      }
      const ssize_t got = TlsClient::receive(connection.tls, buffer_);
      const bool none = got < 0 && errno == EAGAIN;
      take(index, got);
      if (none) return;
    }
  }

  // `got` is the result of receiving into buffer_.
  void take(size_t index, ssize_t got) {
    Connection& connection = connections_[index];
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
      if (got == 0) errno = 0;
      return fail_connection(index, connection.in_flight ? "closed before the answer" : "closed");
    }
    std::string_view bytes(buffer_.data(), static_cast<size_t>(got));
    errno = 0;  // What can be wrong from here on is not the system's doing.
    if (!connection.in_flight) return fail_connection(index, "bytes that nobody asked for");
    if (connection.in_head && !receive_head(index, bytes)) return;
    if (bytes.size() > connection.to_receive) return fail_connection(index, "too many bytes");
    connection.to_receive -= bytes.size();
    if (connection.to_receive == 0 && !connection.in_head) complete(index);
  }

  // Takes the head off `bytes`. False: it failed, or is not complete yet.
  bool receive_head(size_t index, std::string_view& bytes) {
    Connection& connection = connections_[index];
    const size_t before = connection.head.size();
    connection.head.append(bytes);
    const size_t end = connection.head.find("\r\n\r\n");
    if (end == std::string::npos) {
      if (connection.head.size() > kHeadMax) fail_connection(index, "endless head");
      return false;
    }
    const std::string_view head = std::string_view(connection.head).substr(0, end + 2);
    const bool good = head.starts_with("HTTP/1.1 200") && content_length(head) == options_.expect;
    if (!good) {
      fail_connection(index, "not a 200 of the expected length");
      return false;
    }
    bytes.remove_prefix(end + 4 - before);
    connection.head.clear();
    connection.in_head = false;
    return true;
  }

  static size_t content_length(std::string_view head) {
    constexpr std::string_view kName = "\r\ncontent-length:";
    for (size_t at = head.find("\r\n"); at + kName.size() < head.size();
         at = head.find("\r\n", at + 2)) {
      if (strncasecmp(head.data() + at, kName.data(), kName.size()) != 0) continue;
      const size_t digits = head.find_first_not_of(' ', at + kName.size());
      size_t value = 0;
      std::from_chars(head.data() + digits, head.data() + head.size(), value);
      return value;
    }
    return SIZE_MAX;
  }

  void complete(size_t index) {
    Connection& connection = connections_[index];
    const uint64_t now = now_ns();
    histogram_.record(now - std::min(now, connection.started));
    if (measuring_ && options_.resume && !TlsClient::resumed(connection.tls)) error("not resumed");
    connection.in_flight = false;
    --in_flight_;
    if (options_.reconnect) close(connection);
    if (index < options_.idle) return;
    if (issuing_ && options_.rate == 0) return begin(index, now);
    free_.push_back(index);
  }

  void close(Connection& connection) {
    if (connection.tls != nullptr) tls_.close(connection.tls);
    connection.tls = nullptr;
    ::close(connection.fd);
    connection.fd = -1;
  }

  void fail_connection(size_t index, const char* what) {
    Connection& connection = connections_[index];
    error(what);
    if (connection.fd >= 0) close(connection);
    connection.head.clear();
    if (!connection.in_flight) return;
    connection.in_flight = false;
    --in_flight_;
    free_.push_back(index);
  }

  void error(const char* what) {
    if (errors_++ == 0) {
      first_error_ = what;
      if (errno != 0) first_error_ += std::string(": ") + std::strerror(errno);
    }
  }

  void report(uint64_t ns) {
    const double seconds = static_cast<double>(ns) / 1e9;
    const auto requests = static_cast<double>(histogram_.count());
    std::printf(
        "{\"requests\":%.0f,\"seconds\":%.6f,\"rps\":%.1f,\"p50\":%.4f,\"p99\":%.4f,"
        "\"p999\":%.4f,\"errors\":%ju,\"error\":\"%s\"}\n",
        requests, seconds, seconds > 0 ? requests / seconds : 0, histogram_.percentile_ms(0.5),
        histogram_.percentile_ms(0.99), histogram_.percentile_ms(0.999),
        static_cast<uintmax_t>(errors_), first_error_.c_str());
  }

  Options options_;
  std::vector<Connection> connections_;  // the idle ones first; the index is the tag
  std::vector<size_t> free_;             // active ones with nothing in flight
  TlsClient tls_;
  Poller poller_;
  Histogram histogram_;
  std::string first_error_;
  size_t in_flight_ = 0;
  uint64_t errors_ = 0;
  uint64_t next_due_ = 0;  // of the next request, with a rate
  bool issuing_ = false;
  bool measuring_ = false;
  std::array<char, 256 << 10> buffer_{};
};

std::string read_file(const char* path) {
  std::FILE* file = std::fopen(path, "rb");
  if (file == nullptr) fail(path);
  std::string text(1 << 20, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  if (text.empty()) fail("the request is empty");
  return text;
}

Options options_of(int argc, char** argv) {
  Options options;
  for (const auto& [name, value] : arguments(argc, argv)) {
    if (name == "request") {
      options.request = read_file(value);
      continue;
    }
    const uint64_t given = number(value, 1'000'000'000);
    if (name == "port")
      options.port = static_cast<uint16_t>(given);
    else if (name == "http")
      options.http = given != 0;
    else if (name == "reconnect")
      options.reconnect = given != 0;
    else if (name == "tls")
      options.tls = given != 0;
    else if (name == "resume")
      options.resume = given != 0;
    else if (name == "connections")
      options.connections = given;
    else if (name == "idle")
      options.idle = given;
    else if (name == "rate")
      options.rate = given;
    else if (name == "warm-up-ms")
      options.warm_up_ns = given * 1'000'000;
    else if (name == "measure-ms")
      options.measure_ns = given * 1'000'000;
    else if (name == "expect")
      options.expect = given;
    else
      fail("unknown argument");
  }
  if (options.request.empty() || options.port == 0 || options.expect == 0) {
    fail("--port, --request and --expect are needed");
  }
  if (options.reconnect && options.idle > 0) fail("--reconnect and --idle exclude each other");
  if (options.resume && !options.tls) fail("--resume needs --tls");
  return options;
}

}  // namespace
}  // namespace ringway::bench

int main(int argc, char** argv) {
  ringway::bench::prepare_process();
  std::make_unique<ringway::bench::Load>(ringway::bench::options_of(argc, argv))->run();
  return 0;
}
