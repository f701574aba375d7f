// tests/support/sim_io.h - the simulated engine behind core/io.h: one per simulated thread.
//
// Affinity:  its SimNet's thread. Ownership: see core/io.h; the SimNet must outlive it.
// Contract:  stricter than the kernel's engines: misuse aborts, bytes handed to on_receive() are
//            destroyed after the call, on_closed() always comes in a later turn.
#pragma once

#include <memory>
#include <vector>

#include "core/io.h"
#include "tests/support/sim_net.h"

namespace ringway {

class SimIo final : public Io {
 public:
  explicit SimIo(SimNet& net);
  // REQUIRES: all its sockets are closed and all its listeners unlistened.
  ~SimIo() override;

  [[nodiscard]] const char* name() const override { return "simulated"; }
  [[nodiscard]] const EngineCounters& counters() const override { return counters_; }
  // Virtual time, read when a turn begins; outside of turns the net's.
  [[nodiscard]] int64_t now_us() const override;
  void listen(int fd, AcceptOwner& owner) override;
  void unlisten(int fd) override;
  void discard(int fd) override;
  void set_wake_owner(WakeOwner& owner) override;
  void wake() override;
  void adopt(Socket& socket, int fd) override;
  using Io::connect;
  [[nodiscard]] int connect(Socket& socket, const ServerAddress& address,
                            const LocalEnd& local) override;
  void set_receiving(Socket& socket, bool on) override;
  [[nodiscard]] ssize_t send(Socket& socket, std::span<const iovec> pieces) override;
  [[nodiscard]] bool something_waits(const Socket& socket) const override;
  void want_writable(Socket& socket) override;
  void shutdown_send(Socket& socket) override;
  void close(Socket& socket) override;
  void detach(Socket& socket) override;
  // Inside SimNet::step(): one turn without waiting. From a test: steps the whole net until this
  // Io has delivered an event, or the virtual time-out has passed, or nothing is left to happen.
  void run_once(int timeout_ms) override;

  void abort(Socket& socket) override;
  // The address that connect() comes from; its port is chosen per connection.
  void set_source(const PeerAddress& source) { source_ = source; }
  // Times accepting was paused for lack of descriptors.
  [[nodiscard]] uint64_t accept_pauses() const { return accept_pauses_; }
  // Sockets attached here and not closed.
  [[nodiscard]] size_t live_sockets() const { return attached_; }
  // Events delivered to owners so far.
  [[nodiscard]] uint64_t events() const { return events_; }

 private:
  friend class SimNet;

  struct Listening {
    int fd;
    AcceptOwner* owner;
    int64_t resume_at_us;  // 0: not paused
  };

  static constexpr size_t kScratchBytes = 64 * 1024;
  static constexpr int64_t kAcceptPauseUs = 50'000;

  // For SimNet.
  [[nodiscard]] bool has_work() const;
  void list(SimEnd& end, const SimRef& ref);
  void touch() { accepts_due_ = true; }
  void ring() { wake_due_ = true; }

  void turn();
  void deliver_all();
  void deliver(const SimRef& ref);
  void deliver_bytes(SimEnd& end, const SimRef& ref);
  void deliver_end(SimEnd& end, const SimRef& ref);
  void deliver_reset(SimEnd& end, const SimRef& ref);
  void deliver_writable(SimEnd& end, const SimRef& ref);
  void deliver_closed(SimEnd& end, const SimRef& ref);
  void deliver_detached(SimEnd& end, const SimRef& ref);
  void deliver_wake();
  void accept_all();
  void accept_from(int fd, size_t count_max);
  Listening* listening(int fd);
  void close(Socket& socket, bool abort);
  [[nodiscard]] bool writable(const SimEnd& end, const SimRef& ref) const;
  [[nodiscard]] bool deliverable(const SimEnd& end, const SimRef& ref) const;
  // A reset behind the peer's FIN that neither a send nor on_reset() has told of.
  [[nodiscard]] static bool reset_waits(const SimEnd& end);
  void relist(SimEnd& end, const SimRef& ref);

  void attach(Socket& socket, int fd);
  SimRef ref_of(const Socket& socket) const;
  SimEnd& end_of(const Socket& socket);

  SimNet& net_;
  EngineCounters counters_;
  std::unique_ptr<std::byte[]> scratch_;
  PeerAddress source_;
  int64_t now_us_ = 0;
  bool in_turn_ = false;
  bool accepts_due_ = false;
  bool waking_ = false;    // a wake() is on its way or due
  bool wake_due_ = false;  // on_wake() is to be called
  WakeOwner* wake_owner_ = nullptr;
  size_t attached_ = 0;
  uint64_t turns_ = 1;
  uint64_t events_ = 0;
  uint64_t accept_pauses_ = 0;
  std::vector<SimRef> listed_;
  std::vector<SimRef> running_;
  std::vector<Listening> listening_;
};

}  // namespace ringway
