// core/socket_io.h - what the io_uring engine and its epoll twin share: sockets driven by
// readiness.
//
// Affinity:  one thread. Ownership: see core/io.h; the table keeps a pointer to each open Socket.
// Bounds:    a socket that nobody watches (expect_nothing(), or behind the peer's FIN) is watched
//            after kLateUs.
//            Per wake-up a socket reads at most kReadsPerTurn scratch buffers, then waits its turn;
//            a turn takes at most kBatches times kBatchEvents events.
//            Bytes behind a pause: kHeldChunks for all sockets, beyond that a socket ends with
//            ENOBUFS.
// Why:       both engines only say "readable" and "writable"; recv(2) into one hot scratch buffer
//            and direct send(2) were measured fastest, so an idle connection holds no buffer at
//            all. An engine may also receive by completions (core/socket_receive.cc).
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "core/base/slab.h"
#include "core/chunks.h"
#include "core/io.h"
#include "core/spin.h"

namespace ringway {

// What a paused socket has received: bytes, and perhaps the end behind them.
struct HeldBytes {
  OutQueue bytes;
  bool ended = false;
  int error = 0;
};

class SocketIo : public Io {
 public:
  // `spin_us`: how long at most to spin before sleeping; 0 is off.
  explicit SocketIo(uint32_t spin_us);
  ~SocketIo() override;

  const EngineCounters& counters() const override { return counters_; }
  int64_t now_us() const override { return now_us_; }
  void listen(int fd, AcceptOwner& owner) override;
  void unlisten(int fd) override;
  void discard(int fd) override;
  void set_wake_owner(WakeOwner& owner) override;
  void wake() override;
  void adopt(Socket& socket, int fd) override;
  using Io::connect;
  int connect(Socket& socket, const ServerAddress& address, const LocalEnd& local) override;
  void set_receiving(Socket& socket, bool on) override;
  void expect_nothing(Socket& socket) override;
  ssize_t send(Socket& socket, std::span<const iovec> pieces) override;
  [[nodiscard]] bool something_waits(const Socket& socket) const override;
  void want_writable(Socket& socket) override;
  void shutdown_send(Socket& socket) override;
  void close(Socket& socket) override;
  void abort(Socket& socket) override;
  void detach(Socket& socket) override;
  void run_once(int timeout_ms) override;

 protected:
  // kHangup: only what ends both directions, errors above all.
  enum class Kind : uint8_t {
    kListen = 1,
    kIn = 2,
    kOut = 3,
    kWake = 4,
    kReceive = 5,
    kBell = 6,
    kHangup = 7
  };

  // Names one operation in the kernel: what, on which table slot, in which life of that slot.
  struct Tag {
    Kind kind;
    uint32_t slot;
    uint32_t generation;  // 24 bits
  };
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init): collect() fills what it counts
  struct Event {
    Tag tag;
    uint32_t mask;  // poll(2) bits; 0 if the operation failed
    bool last;      // the operation has ended with it
    // kReceive only: bytes, or 0 for the end, or a negative errno; and what names the buffer.
    int32_t result = 0;
    uint32_t buffer = 0;
  };
  static constexpr size_t kBatchEvents = 256;
  using Batch = std::array<Event, kBatchEvents>;

  static constexpr uint64_t pack(Tag tag) {
    return static_cast<uint64_t>(tag.kind) << 56 |
           static_cast<uint64_t>(tag.generation & 0xffffff) << 32 | tag.slot;
  }
  static constexpr Tag unpack(uint64_t user) {
    return {static_cast<Kind>(user >> 56), static_cast<uint32_t>(user),
            static_cast<uint32_t>(user >> 32) & 0xffffff};
  }

  // Asks the kernel to report readiness (kReceive: for bytes) until cancelled, or `once`, which an
  // engine may take as until cancelled. kHangup may report what is no error, too.
  virtual void arm(Tag tag, int fd, bool once) = 0;
  // Ends an operation. Returns true if it has ended already, false if a last event will come.
  virtual bool cancel(Tag tag, int fd) = 0;
  // Gives what was asked for to the kernel, so that poll_now() can see its events.
  virtual void submit() = 0;
  // Without a system call where possible: could collect() return something at once?
  virtual bool poll_now() = 0;
  // Waits up to `timeout_ms` (-1: for ever) and fills `batch`. Returns the number of events; a full
  // batch means that more may be ready.
  virtual size_t collect(int timeout_ms, Batch& batch) = 0;
  // The bytes of a kReceive event, until done_with() it.
  virtual std::span<const std::byte> bytes_of(const Event& event) = 0;
  virtual void done_with(const Event& event) = 0;
  // How many starved sockets may be armed now.
  virtual size_t free_buffers() const = 0;

  // Sockets attached from now on receive by kReceive instead of kIn.
  void receive_by_completions() { completes_ = true; }

  // What others read to ring: on a cache line that this thread does not write once it runs.
  int wake_fd_ = -1;
  int doorbell_fd_ = -1;  // of engines that take ring messages

  alignas(64) EngineCounters counters_;

 private:
  static constexpr int kReadsPerTurn = 4;
  static constexpr int kBatches = 8;
  static constexpr size_t kScratchBytes = 64 * 1024;
  static constexpr int kAcceptsPerTurn = 64;
  static constexpr int kAcceptPauseMs = 50;
  static constexpr size_t kHeldChunks = 8192;  // 128 MiB
  static constexpr size_t kSocketsMax = 1 << 24;
  static constexpr int64_t kLateUs = 10'000;
  // A short connection has a request and an end; what lives longer is watched until cancelled.
  static constexpr uint8_t kShortWaits = 2;

  struct Entry {
    Socket* socket = nullptr;
    uint32_t generation = 0;
  };
  // A socket that was not watched, and when that ends.
  struct Late {
    Tag tag;
    int64_t due_us;
  };
  struct Listener {
    int fd = -1;
    AcceptOwner* owner = nullptr;  // null: stopped
    uint32_t generation = 0;
    bool armed = false;
    bool in_use = false;
    int64_t resume_at_ms = 0;  // 0: not paused
  };

  void attach(Socket& socket, int fd);
  void arm_once(Socket& socket, Kind kind);
  // When a socket is watched: core/socket_watch.cc.
  void guess_or_watch(Socket& socket);
  void watch(Socket& socket);
  void watch_now(Socket& socket);
  void end_patience(Socket& socket);
  Socket* find_late(Tag tag);
  void watch_late();
  // Behind the peer's FIN.
  void watch_late_for_reset(Socket& socket);
  void watch_for_reset(Socket& socket);
  void look_for_reset(Socket& socket);
  void learn_guess(Socket& socket, bool right);
  Tag tag_of(const Socket& socket, Kind kind) const;
  void enqueue(Socket& socket);
  void run_ready_list();
  // What keeps `kind` in Socket::armed_.
  static uint8_t bit_of(Kind kind);
  void cancel_armed(Socket& socket, Kind kind);
  // By completions: core/socket_receive.cc.
  void start_receiving(Socket& socket);
  void on_receive_event(const Event& event);
  void take_completion(Socket& socket, const Event& event);
  void hold(Socket& socket, std::span<const std::byte> bytes);
  void hold_end(Socket& socket, int error);
  HeldBytes& held_of(Socket& socket);
  void deliver_held(Socket& socket);
  void drop_held(Socket& socket);
  void feed_starved();
  void on_event(const Event& event);
  void on_listen_event(const Event& event);
  void on_wake_event(const Event& event);
  void on_doorbell();
  void read(Socket& socket);
  void read_bytes(Socket& socket);
  void end_receive(Socket& socket, int error);
  void finish_connect(Socket& socket);
  void start_closing(Socket& socket);
  void release_if_quiet(Socket& socket);
  void flush_graveyard();
  void accept_all(Listener& listener, int most);
  void resume_listeners(int64_t now_ms);
  int bound_timeout(int timeout_ms) const;
  size_t wait(int timeout_ms, Batch& batch);
  void refresh_clock();

  std::unique_ptr<std::byte[]> scratch_;
  std::unique_ptr<Batch> batch_;
  int64_t now_us_ = 0;
  WakeOwner* wake_owner_ = nullptr;
  Spin spin_;
  std::vector<Entry> table_;
  std::vector<uint32_t> free_slots_;
  std::vector<Socket*> ready_;  // null: closed since
  std::vector<Socket*> running_;
  std::vector<Socket*> graveyard_;
  std::vector<Listener> listeners_;
  std::vector<Late> late_;  // by due time, from late_at_ on
  size_t late_at_ = 0;
  std::vector<Tag> answered_;  // of late_ ones: their owner has sent
  int guess_score_ = 128;      // of 256: how often a new socket was readable at once
  uint32_t guesses_skipped_ = 0;
  bool completes_ = false;
  ChunkPool held_chunks_{kHeldChunks};
  Slab<HeldBytes> held_{kSocketsMax};
  std::vector<Tag> starved_;  // first come, first served, from starved_at_ on
  size_t starved_at_ = 0;
};

}  // namespace ringway
