// core/log.cc - no mutex anywhere: rings are single-producer, single-consumer, the list of rings
// only grows, and the writer is woken by an eventfd. Outputs are written without blocking where the
// kernel allows it, so that a stuck reader can delay neither the producers nor our end.
#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <thread>
#include <utility>

#include "core/base/check.h"

namespace ringway {
namespace {

// How long the writer sleeps between two looks at the rings.
constexpr int kIdleMs = 50;    // when nothing came for a second
constexpr int kActiveMs = 10;  // when lines come
constexpr int kBusyMs = 1;     // when a ring was more than a 16th full
constexpr int kActiveForMs = 1000;
constexpr int kFlushMs = 2000;   // what the destructor grants a stalled output
constexpr int kReportMs = 1000;  // between two reports of write errors

int64_t monotonic_ms() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1'000'000;
}

}  // namespace

// Positions count bytes for ever; a position's place in `bytes` is its low bits.
struct LogRing::Shared {
  explicit Shared(size_t capacity) : mask(capacity - 1), bytes(std::make_unique<char[]>(capacity)) {
    RW_CHECK(std::has_single_bit(capacity));
  }

  // Copies `piece` to `position`, newlines as spaces: a line stays a line.
  void put(size_t position, std::string_view piece) {
    while (!piece.empty()) {
      char* to = &bytes[position & mask];
      const size_t length = std::min(piece.size(), mask + 1 - (position & mask));
      memcpy(to, piece.data(), length);
      for (char* at = to;
           (at = static_cast<char*>(memchr(at, '\n', static_cast<size_t>(to + length - at)))) !=
           nullptr;
           ++at) {
        *at = ' ';
      }
      position += length;
      piece.remove_prefix(length);
    }
  }

  // The bytes from `from` up to `to`, in at most two parts. Returns how many.
  int view(size_t from, size_t to, iovec (&out)[2]) const {
    const size_t size = to - from;
    const size_t first = std::min(size, mask + 1 - (from & mask));
    out[0] = {&bytes[from & mask], first};
    out[1] = {&bytes[0], size - first};
    return size > first ? 2 : 1;
  }

  const size_t mask;
  const std::unique_ptr<char[]> bytes;
  // The producer's.
  alignas(64) std::atomic<size_t> head{0};
  size_t tail_seen = 0;
  Counter lines;
  Counter dropped;
  // The writer's.
  alignas(64) std::atomic<size_t> tail{0};
};

LogRing::LogRing(size_t capacity) : shared_(std::make_unique<Shared>(capacity)) {}

LogRing::~LogRing() = default;

bool LogRing::write(std::span<const std::string_view> pieces) {
  Shared& ring = *shared_;
  size_t size = 1;
  for (const std::string_view piece : pieces) size += piece.size();
  const size_t head = ring.head.load(std::memory_order_relaxed);
  const size_t capacity = ring.mask + 1;
  if (capacity - (head - ring.tail_seen) < size) {
    ring.tail_seen = ring.tail.load(std::memory_order_acquire);
    if (capacity - (head - ring.tail_seen) < size) {
      ring.dropped.add();
      return false;
    }
  }
  size_t position = head;
  for (const std::string_view piece : pieces) {
    ring.put(position, piece);
    position += piece.size();
  }
  ring.bytes[position & ring.mask] = '\n';
  ring.lines.add();
  ring.head.store(position + 1, std::memory_order_release);
  return true;
}

uint64_t LogRing::dropped() const {
  return shared_->dropped.get();
}

uint64_t LogRing::lines() const {
  return shared_->lines.get();
}

struct LogWriter::Impl {
  struct Node {
    explicit Node(size_t capacity) : ring(capacity) {}
    LogRing ring;
    Node* next = nullptr;
  };
  enum class Way : uint8_t {
    kWrite,   // a regular file, or a description of our own that does not block
    kSend,    // a socket, journald's say: send(2) can be told not to block
    kCareful  // blocking and not ours to change: poll(2) first, then what surely fits
  };

  Impl() : wake_fd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) { RW_CHECK(wake_fd >= 0); }
  ~Impl();

  bool open_file();
  void open_standard(int standard_fd);
  void ring_bell() const;
  void run();
  int flush_all();
  int flush(LogRing::Shared& ring);
  ssize_t write_some(const iovec* pieces, int num_pieces);
  bool wait_writable();
  void give_up(LogRing::Shared& ring, size_t from, size_t to, int error);
  void report(const char* what, int error);
  bool stop_due() const;

  std::string path;  // empty for stdout and stderr
  int fd = -1;
  bool own_fd = false;
  Way way = Way::kWrite;
  int wake_fd;
  bool torn = false;  // the output ends inside a line whose rest was lost
  int64_t last_report_ms = INT64_MIN / 2;
  uint64_t errors_reported = 0;
  Counter errors;  // the writer thread's
  std::atomic<Node*> rings{nullptr};
  std::atomic<bool> reopen{false};
  std::atomic<int64_t> stop_at_ms{0};  // 0: running; else when the writer must be gone
  std::thread thread;
};

LogWriter::Impl::~Impl() {
  if (own_fd) ::close(fd);
  ::close(wake_fd);
  for (Node* node = rings.load(); node != nullptr;) delete std::exchange(node, node->next);
}

// Opens `path`. On failure errno tells why and what was open stays in use.
bool LogWriter::Impl::open_file() {
  // O_NONBLOCK matters to named pipes only, and refuses one without a reader.
  const int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  const int opened = ::open(path.c_str(), flags, 0640);
  if (opened < 0) return false;
  if (own_fd) ::close(fd);
  fd = opened;
  own_fd = true;
  torn = false;
  return true;
}

// Standard output and error may be shared with a shell and others, so their own mode is left alone:
// pipes and terminals are opened a second time through /proc, with a mode of our own.
void LogWriter::Impl::open_standard(int standard_fd) {
  fd = standard_fd;
  struct stat info {};
  if (fstat(fd, &info) != 0 || S_ISREG(info.st_mode)) return;
  if (S_ISSOCK(info.st_mode)) {
    way = Way::kSend;
    return;
  }
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const int opened = ::open(link.c_str(), O_WRONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (opened < 0) {
    way = Way::kCareful;
    return;
  }
  fd = opened;
  own_fd = true;
}

void LogWriter::Impl::ring_bell() const {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_fd, &one, sizeof one);
}

bool LogWriter::Impl::stop_due() const {
  const int64_t at = stop_at_ms.load(std::memory_order_acquire);
  return at != 0 && monotonic_ms() >= at;
}

void LogWriter::Impl::run() {
  int64_t active_until_ms = 0;
  for (;;) {
    // Read before the rings: what was queued before the stop is then seen by this pass.
    const bool stopping = stop_at_ms.load(std::memory_order_acquire) != 0;
    const int sixteenths = flush_all();
    if (stopping) return;
    const int64_t now = monotonic_ms();
    if (sixteenths >= 0) active_until_ms = now + kActiveForMs;
    if (sixteenths >= 4) continue;
    pollfd bell{wake_fd, POLLIN, 0};
    const int active_ms = sixteenths >= 1 ? kBusyMs : kActiveMs;
    if (poll(&bell, 1, now < active_until_ms ? active_ms : kIdleMs) == 1) {
      uint64_t count = 0;
      [[maybe_unused]] const ssize_t got = ::read(wake_fd, &count, sizeof count);
    }
  }
}

// One pass over the rings. Returns how full the fullest was in 16ths, or -1 if all were empty.
int LogWriter::Impl::flush_all() {
  if (reopen.exchange(false, std::memory_order_acq_rel) && !path.empty() && !open_file()) {
    report("cannot open the file again, writing to the old one", errno);
  }
  int fullest = -1;
  for (Node* node = rings.load(std::memory_order_acquire); node != nullptr; node = node->next) {
    fullest = std::max(fullest, flush(*node->ring.shared_));
  }
  if (errors.get() != errors_reported) report("lines lost", 0);
  return fullest;
}

// Writes what `ring` holds now, which ends with a line's end. Returns as flush_all().
int LogWriter::Impl::flush(LogRing::Shared& ring) {
  size_t from = ring.tail.load(std::memory_order_relaxed);
  const size_t to = ring.head.load(std::memory_order_acquire);
  if (from == to) return -1;
  const auto sixteenths = static_cast<int>((to - from) * 16 / (ring.mask + 1));
  bool inside_line = false;
  while (from != to) {
    iovec pieces[2];
    const int num_pieces = ring.view(from, to, pieces);
    iovec mend[3] = {{const_cast<char*>("\n"), 1}, pieces[0], pieces[1]};
    ssize_t written = torn ? write_some(mend, num_pieces + 1) : write_some(pieces, num_pieces);
    if (written > 0 && torn) {
      torn = false;
      --written;
    }
    if (written == -EAGAIN && wait_writable()) continue;
    if (written < 0) {
      give_up(ring, from, to, static_cast<int>(-written));
      torn = torn || inside_line;
      from = to;
    } else if (written > 0) {
      from += static_cast<size_t>(written);
      inside_line = ring.bytes[(from - 1) & ring.mask] != '\n';
    }
    ring.tail.store(from, std::memory_order_release);
  }
  return sixteenths;
}

// Returns the bytes written, or a negative errno: -EAGAIN if the output takes nothing now.
ssize_t LogWriter::Impl::write_some(const iovec* pieces, int num_pieces) {
  ssize_t written = 0;
  if (way == Way::kSend) {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(pieces);  // sendmsg(2) does not write to it.
    message.msg_iovlen = static_cast<size_t>(num_pieces);
    written = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } else if (way == Way::kCareful) {
    // A pipe that polls as writable takes at least PIPE_BUF bytes without blocking.
    constexpr size_t kSurely = 4096;
    pollfd output{fd, POLLOUT, 0};
    if (poll(&output, 1, 0) != 1) return -EAGAIN;
    written = ::write(fd, pieces[0].iov_base, std::min(pieces[0].iov_len, kSurely));
  } else {
    written = writev(fd, pieces, num_pieces);
  }
  if (written >= 0) return written;
  return errno == EINTR ? -EAGAIN : -errno;
}

// Waits for room in the output. False: the time to stop is up.
bool LogWriter::Impl::wait_writable() {
  if (stop_due()) return false;
  pollfd output{fd, POLLOUT, 0};
  poll(&output, 1, kIdleMs);
  return true;
}

// Skips [from, to) of `ring` after a write error, so that a full disk does not stop the rings.
void LogWriter::Impl::give_up(LogRing::Shared& ring, size_t from, size_t to, int error) {
  iovec pieces[2];
  const int num_pieces = ring.view(from, to, pieces);
  uint64_t lines = 0;
  for (int i = 0; i < num_pieces; ++i) {
    const auto* text = static_cast<const char*>(pieces[i].iov_base);
    lines += static_cast<uint64_t>(std::count(text, text + pieces[i].iov_len, '\n'));
  }
  errors.add(lines);
  report("write failed", error);
}

// Tells standard error, at most once a second and only if that cannot block.
void LogWriter::Impl::report(const char* what, int error) {
  const int64_t now = monotonic_ms();
  pollfd output{STDERR_FILENO, POLLOUT, 0};
  if (now - last_report_ms < kReportMs || poll(&output, 1, 0) != 1) return;
  last_report_ms = now;
  errors_reported = errors.get();
  const char* name = path.empty() ? "standard stream" : path.c_str();
  char text[256];
  char why[96] = "";
  if (error != 0) snprintf(why, sizeof why, ": %s", strerrordesc_np(error));
  const int length = snprintf(
      text, sizeof text, "ringway: log %.100s: %s%s (lines lost so far: %llu)\n", name, what, why,
      static_cast<unsigned long long>(errors_reported));  // NOLINT
  const size_t bytes = std::min(static_cast<size_t>(length), sizeof text - 1);
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text, bytes);
}

LogWriter::LogWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

std::unique_ptr<LogWriter> LogWriter::open(const std::string& output, std::string& error) {
  auto impl = std::make_unique<Impl>();
  if (output == "stdout") {
    impl->open_standard(STDOUT_FILENO);
  } else if (output == "stderr") {
    impl->open_standard(STDERR_FILENO);
  } else if (output.starts_with("file:") && output.size() > 5) {
    impl->path = output.substr(5);
    if (!impl->open_file()) {
      error = impl->path + ": " + strerrordesc_np(errno);
      return nullptr;
    }
  } else {
    error = "\"" + output + "\" is not stdout, stderr or file:/path";
    return nullptr;
  }
  // Signals belong to other threads, and a closed pipe is an error of write(2), not a SIGPIPE.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  impl->thread = std::thread([&impl = *impl] { impl.run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return std::unique_ptr<LogWriter>(new LogWriter(std::move(impl)));
}

LogWriter::~LogWriter() {
  impl_->stop_at_ms.store(monotonic_ms() + kFlushMs, std::memory_order_release);
  impl_->ring_bell();
  impl_->thread.join();
}

LogRing& LogWriter::add_ring(size_t capacity) {
  auto* node = new Impl::Node(capacity);
  node->next = impl_->rings.load(std::memory_order_relaxed);
  while (!impl_->rings.compare_exchange_weak(node->next, node, std::memory_order_release,
                                             std::memory_order_relaxed)) {
  }
  return node->ring;
}

void LogWriter::reopen() {
  impl_->reopen.store(true, std::memory_order_release);
  impl_->ring_bell();
}

uint64_t LogWriter::write_errors() const {
  return impl_->errors.get();
}

}  // namespace ringway
