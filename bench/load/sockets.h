// bench/load/sockets.h - what the origin and the load generator share: arguments, TCP, epoll.
//
// Affinity:  single-threaded programs; nothing here is safe to share.
// Why:       the benchmark must not depend on the code it measures, so it has its own few calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace ringway::bench {

// Ends the program with exit code 2 and one line on stderr: `what`, then errno's text if it is set.
[[noreturn]] void fail(const char* what);

// "--name value" pairs, in order.
struct Argument {
  std::string_view name;  // without the dashes
  const char* value;
};
std::vector<Argument> arguments(int argc, char** argv);
// A whole decimal number in `text`, or fail(). At most `max`.
uint64_t number(std::string_view text, uint64_t max);

// Raises RLIMIT_NOFILE as far as it goes, ignores SIGPIPE, and has the kernel send SIGTERM when
// the parent goes away, so that no program outlives bench/compare.
void prepare_process();

// Non-blocking TCP sockets on 127.0.0.1 with TCP_NODELAY; -1 and errno on failure.
// connect_to() may return a socket that is still connecting: EPOLLOUT says when it is done.
int connect_to(uint16_t port);
// Ends the program when the port cannot be had.
int listen_on(uint16_t port);
// The next accepted connection, or -1 when none waits.
int accept_from(int listener);

// Monotonic nanoseconds.
uint64_t now_ns();

// epoll, level triggered; `tag` comes back with each event.
class Poller {
 public:
  struct Event {
    uint32_t events;
    uint64_t tag;
  };
  Poller();
  void add(int fd, uint32_t events, uint64_t tag);
  void change(int fd, uint32_t events, uint64_t tag);
  // Up to 256 events; waits at most `ns` nanoseconds, for ever when negative. The span is valid
  // until the next call.
  const std::vector<Event>& wait(int64_t ns);

 private:
  int fd_;
  std::vector<Event> ready_;
};

}  // namespace ringway::bench
