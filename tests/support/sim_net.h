// tests/support/sim_net.h - a simulated network: one virtual clock, one seed, any number of SimIo.
//
// Affinity:  one thread for the net and all its SimIo. Ownership: a SimIo registers itself and must
//            die before its SimNet.
// Model:     a connection is two byte streams with bounded windows and a delay in virtual time,
//            each ended by FIN or reset. Descriptors are numbers of the net's own, never reused, so
//            that stale ones are caught. Semantics follow Linux where they show through core/io.h.
// Why:       the whole balancer with its clients and servers runs in one thread under a seed; the
//            same seed gives the same run, hours of timers take milliseconds.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/address.h"
#include "core/base/prng.h"
#include "core/io.h"
#include "tests/support/sim_faults.h"

namespace ringway {

class SimIo;

// What runs when a SimIo has events. Without one, SimIo::run_once() alone is run.
class SimLoop {
 public:
  // One turn of the loop that owns the SimIo: calls run_once() once, expires its timers, and so on.
  virtual void turn() = 0;
  // When turn() is due even without events, in the net's microseconds; kNever for not at all.
  [[nodiscard]] virtual int64_t deadline_us() const = 0;

  static constexpr int64_t kNever = INT64_MAX;

 protected:
  ~SimLoop() = default;
};

class SimTimerOwner {
 public:
  // The time has come. Called from SimNet::step(), between turns.
  virtual void on_sim_timer(uint32_t tag) = 0;

 protected:
  ~SimTimerOwner() = default;
};

struct SimOptions {
  uint64_t seed = 0;
  bool faults = true;
  // Bounds of the one-way delay of a connection, in microseconds.
  uint64_t latency_us_min = 20;
  uint64_t latency_us_max = 2'000;
  uint64_t window_bytes = 0;  // of each direction; 0: drawn
};

// What one direction of a connection carried, in bytes of its owner.
struct SimFlow {
  uint64_t sent = 0;          // taken by send()
  uint64_t received = 0;      // handed to on_receive()
  bool fin_sent = false;      // by shutdown_send() or close()
  bool fin_received = false;  // on_receive_end(0) was delivered after it
};

// The account of one connection; it stays after the connection has ended.
struct SimRecord {
  std::string server;        // the address connected to
  PeerAddress client{};      // where from; kNone on a unix path
  int connect_error = 0;     // what on_connected() said, or will
  bool established = false;  // a listener took it
  bool reset = false;        // at least one end saw a reset
  SimFlow from_client;       // from the connecting end to the accepting one
  SimFlow from_server;
};

// Names one end of a connection, in one life of the slot that holds it.
struct SimRef {
  uint32_t slot = 0;
  uint32_t generation = 0;
  uint32_t side = 0;  // 0: the end that connected, 1: the end that accepted
};

// Bytes on their way to one end. Offsets count from the start of the stream.
struct SimPipe {
  std::vector<std::byte> bytes;  // those from `read` to `sent` start at bytes[head]
  size_t head = 0;
  uint64_t sent = 0;
  uint64_t arrived = 0;
  uint64_t read = 0;
  uint64_t acked = 0;         // what the sender knows to be read
  uint64_t cut = UINT64_MAX;  // bytes from here on are lost, FIN too
  uint64_t capacity = 0;      // bound of sent - acked
  int64_t last_arrival_us = 0;
  bool fin_sent = false;
  bool fin_arrived = false;
  bool ack_pending = false;

  [[nodiscard]] size_t readable() const { return static_cast<size_t>(arrived - read); }
  [[nodiscard]] size_t room() const { return static_cast<size_t>(capacity - (sent - acked)); }
};

// One end. SimIo keeps its state of the attached Socket here too.
struct SimEnd {
  int fd = -1;
  bool alive = false;  // has a descriptor, or waits in a listener's queue
  SimIo* io = nullptr;
  Socket* socket = nullptr;
  SimPipe in;
  bool broken = false;  // a reset arrived here
  int error = 0;        // the socket's pending error; the next operation reports it

  bool connecting = false;
  bool connect_done = false;
  int connect_error = 0;
  bool receiving = false;
  bool ended = false;
  bool fin_told = false;    // ended by on_receive_end(0)
  bool paused = false;      // receiving was switched off
  bool overflowed = false;  // behind that pause bytes were lost; only `held` of them are left
  size_t held = 0;
  bool wants_writable = false;
  bool closing = false;
  bool leaving = false;      // detach() was called
  bool listed = false;       // stands on its SimIo's list
  uint64_t closed_turn = 0;  // the turn in which close() was called
};

class SimNet {
 public:
  explicit SimNet(const SimOptions& options);
  ~SimNet();
  SimNet(const SimNet&) = delete;
  SimNet& operator=(const SimNet&) = delete;

  [[nodiscard]] int64_t now_us() const { return now_us_; }
  // The run's generator. Draws of the test itself should come from a fork() of it.
  [[nodiscard]] Prng& prng() { return prng_; }
  [[nodiscard]] FaultPlan& faults() { return faults_; }
  // Ends all fault kinds. Delays drawn already still pass; then everything must come to rest.
  void stop_faults();

  // Listens on `address`; port 0 gets a free port. Several listeners on one address share its
  // connections by hash, as SO_REUSEPORT does. Connections queue from now on, up to `backlog`.
  [[nodiscard]] int make_listener(const ServerAddress& address, size_t backlog = 4096);
  // The listener's address, with its port.
  [[nodiscard]] const ServerAddress& address_of(int listener_fd) const;
  // Closes a listener, after unlisten() if somebody listens. Connections still queued are reset.
  void close_listener(int listener_fd);
  // While set, connection requests to `address` vanish, and connecting times out after 63 s.
  void set_unreachable(const ServerAddress& address, bool unreachable);
  // While set, no connection can be made from `address`: the machine does not have it.
  void set_foreign(const PeerAddress& address, bool foreign);
  // Two ends of one connection, to be adopted by whichever SimIo.
  [[nodiscard]] std::pair<int, int> make_pair();

  // Runs `loop` instead of bare run_once() when `io` has events, or when it is due.
  void set_loop(SimIo& io, SimLoop* loop);

  // Runs one turn of each SimIo that has something to do. If none has, the clock jumps to the next
  // event. False: nothing is left to happen.
  bool step();
  // Steps until `done()`; false when it is not so after `max_steps` or at rest.
  template <typename Done>
  bool run_until(Done done, uint64_t max_steps) {
    for (uint64_t i = 0; i < max_steps; ++i) {
      if (done()) return true;
      if (!step()) return done();
    }
    return done();
  }
  // Steps until `us` of virtual time have passed or `max_steps` were made.
  void run_for(int64_t us, uint64_t max_steps);

  // Calls `owner` after `delay_us`. Returns the timer's number for cancel_timer().
  uint64_t start_timer(int64_t delay_us, SimTimerOwner& owner, uint32_t tag);
  // Idempotent, also after the timer has fired.
  void cancel_timer(uint64_t timer);

  // Descriptors of connections that are open: accepted or attached, and not closed.
  [[nodiscard]] size_t live_sockets() const { return live_sockets_; }
  [[nodiscard]] size_t live_listeners() const;
  // Accounts of all connections so far, in the order of their connect().
  [[nodiscard]] const std::vector<SimRecord>& records() const { return records_; }
  // The address that an open descriptor's connection came from.
  [[nodiscard]] const PeerAddress& client_of(int fd) const {
    return conns_[descriptor(fd).ref.slot]->client;
  }
  // The account of an open descriptor's connection, valid until the next connect().
  [[nodiscard]] const SimRecord& record_of(int fd) const;
  // A hash of all events so far: equal seeds give equal ones.
  [[nodiscard]] uint64_t trace_hash() const { return trace_hash_; }
  [[nodiscard]] uint64_t steps() const { return steps_; }
  // For a failing test: seed and active faults.
  [[nodiscard]] std::string describe() const;

 private:
  friend class SimIo;

  struct Conn {
    std::array<SimEnd, 2> ends;
    uint32_t generation = 0;
    size_t record = 0;
    uint64_t latency_us = 0;
    ServerAddress server;
    PeerAddress client;
    int syn_repeats = 0;
    bool hard_reset = false;  // a reset of both ends is under way
  };
  struct Listener {
    int fd = -1;
    ServerAddress address;
    std::string key;
    size_t backlog = 0;
    SimIo* io = nullptr;
    bool deaf = false;  // unlisten() was called: whoever connects is refused
    std::vector<SimRef> queue;
  };
  struct Descriptor {
    enum class Kind : uint8_t { kNone, kEnd, kListener };
    Kind kind = Kind::kNone;
    SimRef ref;
    uint32_t listener = 0;
  };
  struct Event {
    enum class Kind : uint8_t {
      kSyn,
      kConnected,
      kBytes,
      kFin,
      kReset,
      kAck,
      kTouch,
      kWake,
      kTimer
    };
    int64_t at_us = 0;
    uint64_t sequence = 0;
    Kind kind = Kind::kTouch;
    SimRef ref;
    uint64_t argument = 0;
  };
  struct Timer {
    SimTimerOwner* owner = nullptr;
    uint32_t tag = 0;
    uint32_t generation = 0;
  };

  void attach_io(SimIo& io);
  void detach_io(SimIo& io);
  [[nodiscard]] bool stepping() const { return stepping_; }
  void wait_for(SimIo& io, int timeout_ms);
  bool step_until(int64_t limit_us);
  bool run_turns();

  [[nodiscard]] bool hit(Fault fault) { return faults_.hits(fault, prng_); }
  void trace(uint64_t kind, uint64_t a, uint64_t b);
  void at(int64_t at_us, Event::Kind kind, const SimRef& ref, uint64_t argument = 0);
  void dispatch(const Event& event);

  // Connections.
  Conn* find(const SimRef& ref);
  Descriptor& descriptor(int fd);
  const Descriptor& descriptor(int fd) const;
  SimRef make_conn(const ServerAddress& server);
  int open_fd(const SimRef& ref);
  void release(const SimRef& ref);
  SimFlow& flow_to(Conn& conn, uint32_t side);
  uint64_t draw_capacity();

  [[nodiscard]] int start_connect(SimIo& io, Socket& socket, const ServerAddress& server,
                                  const PeerAddress& source);
  [[nodiscard]] bool is_foreign(const PeerAddress& address) const {
    return std::find(foreign_.begin(), foreign_.end(), address) != foreign_.end();
  }
  void on_syn(Conn& conn, const SimRef& ref);
  void repeat_syn(Conn& conn, const SimRef& ref);
  void finish_connect(Conn& conn, const SimRef& ref, int error, int64_t delay_us);
  Listener* pick_listener(const ServerAddress& server, uint64_t hash);
  [[nodiscard]] int accept(Listener& listener, PeerAddress& peer);
  Listener& listener_of(int fd);
  void stop_listening(Listener& listener);

  // Data. `ref` is the end that acts.
  [[nodiscard]] ssize_t send(const SimRef& ref, std::span<const iovec> pieces);
  size_t read(const SimRef& ref, std::span<std::byte> into);
  void send_fin(const SimRef& ref);
  void close_end(const SimRef& ref, bool abort);
  int64_t arrival_us(Conn& conn, SimPipe& pipe);
  void on_bytes(Conn& conn, const SimRef& ref, uint64_t upto);
  void on_fin(Conn& conn, const SimRef& ref);
  void on_reset(Conn& conn, const SimRef& ref, bool hard);
  void on_ack(Conn& conn, const SimRef& ref);
  void plan_hard_reset(Conn& conn, const SimRef& ref, int64_t at_us);
  void notify(Conn& conn, const SimRef& ref);

  uint64_t seed_;
  Prng prng_;
  FaultPlan faults_;
  SimOptions options_;
  int64_t now_us_ = 1'000'000;  // not 0: Timers wants a positive clock
  bool stepping_ = false;
  bool faults_stopped_ = false;
  uint64_t steps_ = 0;
  uint64_t sequence_ = 0;
  uint64_t trace_hash_ = 0;
  size_t live_sockets_ = 0;
  uint16_t next_port_ = 20'000;
  uint16_t next_client_port_ = 32'768;

  struct Member {
    SimIo* io;
    SimLoop* loop;
  };
  std::vector<Member> members_;
  std::vector<Member> order_;
  std::vector<Event> heap_;
  std::vector<std::unique_ptr<Conn>> conns_;
  std::vector<uint32_t> free_conns_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::map<std::string, std::vector<uint32_t>> groups_;
  std::map<std::string, bool> unreachable_;
  std::vector<PeerAddress> foreign_;
  std::vector<Descriptor> descriptors_;
  std::vector<Timer> timers_;
  std::vector<uint32_t> free_timers_;
  std::vector<SimRecord> records_;
};

}  // namespace ringway
