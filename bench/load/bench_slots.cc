// bench/load/bench_slots.cc - a server with few places, which measures how long a free one stays
// so.
//
// bench_slots --http PORT --places N --service-us US --measure-ms MS: answers every request after
// that time, and measures for MS from the first one on: what comes later, when clients leave in the
// middle of their requests, counts for nothing. Before it stand a balancer that sends at most N
// requests at once and more clients than that, so whenever a place is free, a request waits for it
// in the balancer. From the answer to the next request that takes the place is the time the
// balancer, two sockets and the scheduler of the machine need. On SIGTERM it prints one line of
// JSON: the quantiles of that, and the most requests at once.
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "bench/load/sockets.h"

namespace ringway::bench {
namespace {

constexpr uint64_t kListener = 1;
constexpr uint64_t kSignal = 2;
constexpr size_t kGapsMax = 10'000'000;
constexpr std::string_view kAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

class Slots {
 public:
  Slots(uint16_t port, size_t places, uint64_t service_ns, uint64_t measure_ns)
      : listener_(listen_on(port)),
        places_(places),
        service_ns_(service_ns),
        measure_ns_(measure_ns) {
    poller_.add(listener_, EPOLLIN, kListener);
    sigset_t term;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, nullptr);
    signal_ = signalfd(-1, &term, SFD_CLOEXEC);
    if (signal_ < 0) fail("signalfd");
    poller_.add(signal_, EPOLLIN, kSignal);
  }

  [[noreturn]] void run() {
    for (;;) {
      const uint64_t now = now_ns();
      const int64_t wait =
          due_.empty()
              ? -1
              : static_cast<int64_t>(due_.front().at_ns > now ? due_.front().at_ns - now : 0);
      for (const Poller::Event& event : poller_.wait(wait)) {
        if (event.tag == kSignal) report();
        event.tag == kListener ? accept_all() : read(static_cast<int>(event.tag >> 8));
      }
      answer_due();
    }
  }

 private:
  struct Due {
    uint64_t at_ns;
    int fd;
    uint64_t id;
  };

  void accept_all() {
    for (int fd = accept_from(listener_); fd >= 0; fd = accept_from(listener_)) {
      ids_[fd] = ++last_id_;
      poller_.add(fd, EPOLLIN, static_cast<uint64_t>(fd) << 8);
    }
  }

  // The balancer sends one request at a time over a connection, and each fits a read.
  void read(int fd) {
    const ssize_t got = recv(fd, buffer_.data(), buffer_.size(), 0);
    if (got <= 0) {
      ids_.erase(fd);
      ::close(fd);
      return;
    }
    const uint64_t now = now_ns();
    if (end_ns_ == 0) end_ns_ = now + measure_ns_;
    const bool counts = now < end_ns_;
    if (!free_since_.empty()) {
      if (counts && gaps_.size() < kGapsMax) gaps_.push_back(now - free_since_.front());
      free_since_.pop_front();
    }
    if (counts) most_ = std::max(most_, due_.size() + 1);
    due_.push_back({now + service_ns_, fd, ids_[fd]});
  }

  void answer_due() {
    const uint64_t now = now_ns();
    while (!due_.empty() && due_.front().at_ns <= now) {
      const Due due = due_.front();
      due_.pop_front();
      const auto open = ids_.find(due.fd);
      if (open != ids_.end() && open->second == due.id) {
        if (send(due.fd, kAnswer.data(), kAnswer.size(), MSG_NOSIGNAL) < 0) ++failed_;
      }
      // Places that were never all taken say nothing.
      if (most_ >= places_) free_since_.push_back(now_ns());
    }
  }

  double quantile_us(double q) const {
    if (gaps_.empty()) return -1;
    const auto at = static_cast<size_t>(q * static_cast<double>(gaps_.size() - 1));
    return static_cast<double>(gaps_[at]) / 1000;
  }

  [[noreturn]] void report() {
    std::sort(gaps_.begin(), gaps_.end());
    const auto over = gaps_.end() - std::upper_bound(gaps_.begin(), gaps_.end(), 1'000'000U);
    std::printf(
        "{\"gaps\": %zu, \"p50_us\": %.0f, \"p99_us\": %.0f, \"p999_us\": %.0f, \"max_us\": %.0f, "
        "\"over_1ms\": %zu, \"most\": %zu, \"failed\": %zu}\n",
        gaps_.size(), quantile_us(0.5), quantile_us(0.99), quantile_us(0.999), quantile_us(1),
        static_cast<size_t>(over), most_, failed_);
    std::fflush(stdout);
    std::_Exit(0);
  }

  Poller poller_;
  int listener_;
  int signal_ = -1;
  size_t places_;
  uint64_t service_ns_;
  uint64_t measure_ns_;
  uint64_t end_ns_ = 0;
  uint64_t last_id_ = 0;
  std::unordered_map<int, uint64_t> ids_;  // which connection a descriptor is
  std::deque<Due> due_;                    // in the order of their times
  std::deque<uint64_t> free_since_;
  std::vector<uint64_t> gaps_;
  size_t most_ = 0;
  size_t failed_ = 0;
  std::array<char, 16 << 10> buffer_{};
};

int run(int argc, char** argv) {
  uint64_t port = 0;
  uint64_t places = 0;
  uint64_t service_us = 2'000;
  uint64_t measure_ms = 1'000;
  for (const Argument& argument : arguments(argc, argv)) {
    if (argument.name == "http")
      port = number(argument.value, 65535);
    else if (argument.name == "places")
      places = number(argument.value, 100'000);
    else if (argument.name == "service-us")
      service_us = number(argument.value, 10'000'000);
    else if (argument.name == "measure-ms")
      measure_ms = number(argument.value, 10'000'000);
    else
      fail("usage: bench_slots --http PORT --places N --service-us US --measure-ms MS");
  }
  prepare_process();
  std::make_unique<Slots>(static_cast<uint16_t>(port), places, service_us * 1000,
                          measure_ms * 1'000'000)
      ->run();
}

}  // namespace
}  // namespace ringway::bench

int main(int argc, char** argv) {
  return ringway::bench::run(argc, argv);
}
