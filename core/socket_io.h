// core/socket_io.h - what the io_uring engine and its epoll twin share: sockets driven by
// readiness.
//
// Affinity:  one thread. Ownership: see core/io.h; the table keeps a pointer to each open Socket.
// Bounds:    per wake-up a socket reads at most kReadsPerTurn scratch buffers, then waits its turn.
// Why:       both engines only say "readable" and "writable"; recv(2) into one hot scratch buffer
// and
//            direct send(2) were measured fastest, so an idle connection holds no buffer at all.
#pragma once

#include <memory>
#include <vector>

#include "core/io.h"

namespace ringway {

class SocketIo : public Io {
 public:
  SocketIo();
  ~SocketIo() override;

  int64_t now_us() const override { return now_us_; }
  void listen(int fd, AcceptOwner& owner) override;
  void unlisten(int fd) override;
  void discard(int fd) override;
  void set_wake_owner(WakeOwner& owner) override;
  void wake() override;
  void adopt(Socket& socket, int fd) override;
  int connect(Socket& socket, const sockaddr* address, socklen_t length) override;
  void set_receiving(Socket& socket, bool on) override;
  ssize_t send(Socket& socket, std::span<const iovec> pieces) override;
  void want_writable(Socket& socket) override;
  void shutdown_send(Socket& socket) override;
  void close(Socket& socket) override;
  void run_once(int timeout_ms) override;

  // Times accepting was paused because descriptors or memory ran out (EMFILE, ENFILE, ENOBUFS).
  [[nodiscard]] uint64_t accept_pauses() const { return accept_pauses_; }

 protected:
  enum class Kind : uint8_t { kListen = 1, kIn = 2, kOut = 3, kWake = 4 };

  // Names one operation in the kernel: what, on which table slot, in which life of that slot.
  struct Tag {
    Kind kind;
    uint32_t slot;
    uint32_t generation;
  };

  // Asks the kernel to report readiness: kIn and kListen until cancelled, kOut once.
  virtual void arm(Tag tag, int fd) = 0;
  // Ends an operation. Returns true if it has ended already, false if a last event will come.
  virtual bool cancel(Tag tag, int fd) = 0;
  // Waits for events and passes each to on_ready().
  virtual void wait(int timeout_ms) = 0;

  // An event of the kernel. `last`: the operation has ended with it. `error` is a positive errno.
  void on_ready(Tag tag, int error, bool last);

 private:
  static constexpr int kReadsPerTurn = 4;
  static constexpr size_t kScratchBytes = 64 * 1024;
  static constexpr int kAcceptPauseMs = 50;

  struct Entry {
    Socket* socket = nullptr;
    uint32_t generation = 0;
  };
  struct Listener {
    int fd = -1;
    AcceptOwner* owner = nullptr;
    bool armed = false;
    bool stopped = false;
    int64_t resume_at_ms = 0;  // 0: not paused
  };

  void attach(Socket& socket, int fd);
  void arm_once(Socket& socket, Kind kind);
  Tag tag_of(const Socket& socket, Kind kind) const;
  void enqueue(Socket& socket);
  void run_ready_list();
  void read(Socket& socket);
  void end_receive(Socket& socket, int error);
  void finish_connect(Socket& socket);
  void release_if_quiet(Socket& socket);
  void flush_graveyard();
  void accept_all(Listener& listener);
  void resume_listeners(int64_t now_ms);

  void refresh_clock();

  std::unique_ptr<std::byte[]> scratch_;
  int64_t now_us_ = 0;
  int wake_fd_ = -1;
  WakeOwner* wake_owner_ = nullptr;
  std::vector<Entry> table_;
  std::vector<uint32_t> free_slots_;
  std::vector<Socket*> ready_;
  std::vector<Socket*> running_;
  std::vector<Socket*> graveyard_;
  std::vector<Listener> listeners_;
  uint64_t accept_pauses_ = 0;
};

}  // namespace ringway
