// bench/engine_bench.cc - the engines and receive modes against each other, in one process.
//
// Each message goes client -> engine -> sink over loopback TCP, everything in one thread, so that
// thread CPU time holds the whole cost; the peers' part of it is the same for all. The variants
// take turns in slices of 4 ms, and a ratio is that of neighbouring slices: noise from outside hits
// both. Budget: the default, 4 s per cell and 16 cells, runs 65 s.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "core/address.h"
#include "core/base/check.h"
#include "core/engines.h"
#include "core/ring_engine.h"

namespace ringway {
namespace {

constexpr int64_t kSliceNs = 4'000'000;
constexpr size_t kSizes[] = {128, 1024, 16 * 1024, 64 * 1024};
constexpr size_t kConnections[] = {1, 8, 64, 256};

struct Variant {
  const char* name;
  bool is_ring;
  ReceiveRing::Shape shape;  // of the multishot variants; count 0: receive by poll
};
constexpr Variant kVariants[] = {
    {"epoll", false, {}},
    {"ring, poll", true, {}},
    {"multishot, 32 x 64 KiB", true, {32, 64 * 1024, false}},
    {"64 x 16 KiB", true, {64, 16 * 1024, false}},
    {"incremental, 16 x 64 KiB", true, {16, 64 * 1024, true}},
    {"incremental, 2 x 512 KiB", true, {2, 512 * 1024, true}},
};
constexpr size_t kNumVariants = std::size(kVariants);

// Null when this kernel has not what `variant` needs.
std::unique_ptr<Io> make(const Variant& variant) {
  if (!variant.is_ring) return make_engine(EngineKind::kEpoll).io;
  auto ring = std::make_unique<RingEngine>(0);
  ring->start(4096);
  if (!ring->probe().usable()) return nullptr;
  if (variant.shape.count > 0 && !ring->use_multishot(variant.shape).empty()) return nullptr;
  return ring;
}

int64_t clock_ns(clockid_t which) {
  timespec now{};
  clock_gettime(which, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

// Forwards what comes in on one connection to another, with back-pressure.
class Link final : public SocketOwner {
 public:
  Link(Io& io, int in_fd, int out_fd) : io_(io), in_(*this), out_(*this) {
    io_.adopt(in_, in_fd);
    io_.adopt(out_, out_fd);
    io_.set_receiving(in_, true);
  }
  void close() {
    io_.close(in_);
    io_.close(out_);
  }
  // Bytes that have left towards the sink since the start.
  [[nodiscard]] size_t forwarded() const { return forwarded_; }
  [[nodiscard]] bool closed() const { return !in_.open() && !out_.open(); }

  void on_connected(Socket& /*socket*/, int /*error*/) override {}
  void on_receive(Socket& /*socket*/, std::span<const std::byte> bytes) override {
    if (waiting_.empty()) bytes = bytes.subspan(send(bytes));
    if (bytes.empty()) return;
    waiting_.insert(waiting_.end(), bytes.begin(), bytes.end());
    io_.set_receiving(in_, false);
    io_.want_writable(out_);
  }
  void on_receive_end(Socket& /*socket*/, int /*error*/) override {}
  void on_writable(Socket& /*socket*/) override {
    const size_t sent = send(waiting_);
    waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<ptrdiff_t>(sent));
    if (waiting_.empty()) return io_.set_receiving(in_, true);
    io_.want_writable(out_);
  }
  void on_closed(Socket& /*socket*/) override {}

 private:
  size_t send(std::span<const std::byte> bytes) {
    const iovec piece{const_cast<std::byte*>(bytes.data()), bytes.size()};
    const ssize_t sent = io_.send(out_, {&piece, 1});
    RW_CHECK(sent >= 0);
    forwarded_ += static_cast<size_t>(sent);
    return static_cast<size_t>(sent);
  }

  Io& io_;
  Socket in_;
  Socket out_;
  std::vector<std::byte> waiting_;
  size_t forwarded_ = 0;
};

// A listener that makes connected pairs of non-blocking descriptors.
class Pairs {
 public:
  Pairs() {
    ServerAddress any;
    RW_CHECK(parse_address("127.0.0.1:0", any));
    listener_ = open_listener(any);
    RW_CHECK(listener_ >= 0);
    here_.length = sizeof here_.storage;
    getsockname(listener_, reinterpret_cast<sockaddr*>(&here_.storage), &here_.length);
  }
  ~Pairs() { ::close(listener_); }
  Pairs(const Pairs&) = delete;
  Pairs& operator=(const Pairs&) = delete;

  void make(int& outer, int& inner) const {
    outer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    RW_CHECK(outer >= 0);  // Too few descriptors: raise ulimit -n.
    RW_CHECK(connect(outer, here_.get(), here_.length) == 0);
    RW_CHECK(fcntl(outer, F_SETFL, O_NONBLOCK) == 0);
    inner = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    RW_CHECK(inner >= 0);
  }

 private:
  int listener_ = -1;
  ServerAddress here_;
};

// One engine with its connections and their outer ends.
class Lane {
 public:
  Lane(const Variant& variant, size_t connections, size_t message_bytes)
      : io_(make(variant)), message_(message_bytes, 'm'), sink_(64 * 1024) {
    RW_CHECK(io_ != nullptr);
    const Pairs pairs;
    for (size_t i = 0; i < connections; ++i) {
      Ends& ends = ends_.emplace_back();
      int in = -1;
      int out = -1;
      pairs.make(ends.client, in);
      pairs.make(ends.sink, out);
      links_.push_back(std::make_unique<Link>(*io_, in, out));
    }
  }
  ~Lane() {
    for (const Ends& ends : ends_) {
      ::close(ends.client);
      ::close(ends.sink);
    }
    for (const auto& link : links_) link->close();
    for (const auto& link : links_) {
      while (!link->closed()) io_->run_once(1);
    }
  }
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  // One message over every connection, all of them on their way at once.
  void round() {
    for (Ends& ends : ends_) ends.to_send = ends.to_take = message_.size();
    for (size_t open = ends_.size(); open > 0;) {
      for (Ends& ends : ends_) push(ends);
      io_->run_once(0);
      // Only where something waits: the engines need a different number of turns per round, and a
      // recv(2) in vain on every sink in each turn would be charged to them.
      for (size_t i = 0; i < ends_.size(); ++i) {
        if (ends_[i].taken < links_[i]->forwarded()) open -= pull(ends_[i]) ? 1 : 0;
      }
    }
  }
  // Rounds for a slice of time. Returns the CPU time per message in nanoseconds.
  double slice() {
    const int64_t end_ns = clock_ns(CLOCK_MONOTONIC) + kSliceNs;
    const int64_t start_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    size_t messages = 0;
    do {
      round();
      messages += ends_.size();
    } while (clock_ns(CLOCK_MONOTONIC) < end_ns);
    const int64_t spent_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - start_ns;
    return static_cast<double>(spent_ns) / static_cast<double>(messages);
  }

 private:
  struct Ends {
    int client = -1;
    int sink = -1;
    size_t to_send = 0;
    size_t to_take = 0;
    size_t taken = 0;  // since the start
  };

  void push(Ends& ends) {
    if (ends.to_send == 0) return;
    const ssize_t sent =
        send(ends.client, message_.data(), ends.to_send, MSG_DONTWAIT | MSG_NOSIGNAL);
    RW_CHECK(sent >= 0 || errno == EAGAIN);
    if (sent > 0) ends.to_send -= static_cast<size_t>(sent);
  }
  // Returns true when the message has just become complete.
  bool pull(Ends& ends) {
    const ssize_t got = recv(ends.sink, sink_.data(), sink_.size(), MSG_DONTWAIT);
    RW_CHECK(got > 0 || (got < 0 && errno == EAGAIN));
    if (got <= 0) return false;
    ends.to_take -= static_cast<size_t>(got);
    ends.taken += static_cast<size_t>(got);
    return ends.to_take == 0;
  }

  std::unique_ptr<Io> io_;
  std::string message_;
  std::vector<char> sink_;
  std::vector<Ends> ends_;
  std::vector<std::unique_ptr<Link>> links_;
};

double quantile(std::vector<double> values, double at) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(at * static_cast<double>(values.size() - 1))];
}

struct Cell {
  double base_ns;              // CPU per message of the first variant
  double ratio[kNumVariants];  // medians, of neighbouring slices
  double spread;               // half the distance of the quartiles, the widest of the variants
};

Cell measure(size_t message_bytes, size_t connections, double seconds) {
  std::vector<std::unique_ptr<Lane>> lanes;
  for (const Variant& variant : kVariants) {
    lanes.push_back(std::make_unique<Lane>(variant, connections, message_bytes));
    for (int i = 0; i < 5; ++i) lanes.back()->slice();  // Buffers and windows grow first.
  }
  std::vector<double> ratios[kNumVariants];
  std::vector<double> base;
  const int64_t end_ns = clock_ns(CLOCK_MONOTONIC) + static_cast<int64_t>(seconds * 1e9);
  for (size_t turn = 0; clock_ns(CLOCK_MONOTONIC) < end_ns; ++turn) {
    double ns[kNumVariants];
    // The order rotates, so that none always follows the same neighbour.
    for (size_t i = 0; i < kNumVariants; ++i) {
      const size_t which = (turn + i) % kNumVariants;
      ns[which] = lanes[which]->slice();
    }
    base.push_back(ns[0]);
    for (size_t i = 0; i < kNumVariants; ++i) ratios[i].push_back(ns[i] / ns[0]);
  }
  Cell cell{};
  cell.base_ns = quantile(base, 0.5);
  for (size_t i = 0; i < kNumVariants; ++i) {
    cell.ratio[i] = quantile(ratios[i], 0.5);
    const double half = (quantile(ratios[i], 0.75) - quantile(ratios[i], 0.25)) / 2;
    cell.spread = std::max(cell.spread, half);
  }
  return cell;
}

std::string size_text(size_t bytes) {
  return bytes < 1024 ? std::to_string(bytes) + " B" : std::to_string(bytes / 1024) + " KiB";
}

int run(double seconds) {
  for (const Variant& variant : kVariants) {
    if (make(variant) != nullptr) continue;
    fprintf(stderr, "engine_bench: this kernel has no %s\n", variant.name);
    return 1;
  }
  utsname kernel{};
  uname(&kernel);
  printf("Linux %s, %.1f s per row. CPU per message; ratios to epoll, below 1 is better.\n\n",
         kernel.release, seconds);
  printf("| message | connections |");
  for (const Variant& variant : kVariants) printf(" %s |", variant.name);
  printf(" spread |\n|---|---|");
  for (size_t i = 0; i < kNumVariants; ++i) printf("---|");
  printf("---|\n");
  double logs[kNumVariants] = {};
  for (const size_t size : kSizes) {
    for (const size_t connections : kConnections) {
      const Cell cell = measure(size, connections, seconds);
      printf("| %s | %zu | %.0f ns |", size_text(size).c_str(), connections, cell.base_ns);
      for (size_t i = 1; i < kNumVariants; ++i) printf(" %.3f |", cell.ratio[i]);
      printf(" %.3f |\n", cell.spread);
      fflush(stdout);
      for (size_t i = 0; i < kNumVariants; ++i) logs[i] += std::log(cell.ratio[i]);
    }
  }
  const auto rows = static_cast<double>(std::size(kSizes) * std::size(kConnections));
  printf("| geometric mean | | 1 |");
  for (size_t i = 1; i < kNumVariants; ++i) printf(" %.3f |", std::exp(logs[i] / rows));
  printf(" |\n");
  return 0;
}

}  // namespace
}  // namespace ringway

// Usage: engine_bench [seconds per row]
int main(int argc, char** argv) {
  double seconds = 4;
  if (argc > 1) seconds = strtod(argv[1], nullptr);
  if (argc > 2 || !(seconds > 0 && seconds <= 600)) {
    fprintf(stderr, "usage: engine_bench [seconds per row]\n");
    return 2;
  }
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  return ringway::run(seconds);
}
