// core/io.h - the seam between Ringway and the kernel: completion-style socket I/O for one thread.
//
// Affinity:  an Io and all its sockets belong to the thread that made the Io.
// Ownership: a Socket is embedded in its owner and must not move or die between adopt()/connect()
//            and on_closed(). The engine owns the descriptor in between.
// Lifetime:  bytes handed to on_receive() are valid inside that call only. Bytes handed to send()
//            are not kept: what the kernel did not take stays with the caller.
// Why:       io_uring, its epoll twin and a simulated engine fit behind it, so the layers above
//            never see who moved the bytes (docs/decisions.md).
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/address.h"
#include "core/counters.h"
#include "core/local_end.h"
#include "core/tls_facts.h"

namespace ringway {

class Socket;
struct HeldBytes;

// What an engine counts. Written by its thread, read by any.
struct EngineCounters {
  Counter turns;
  Counter events;  // delivered by the kernel
  Counter accepts;
  Counter accept_pauses;     // EMFILE, ENFILE, ENOBUFS, ENOMEM
  Counter sq_full;           // a full submission queue was submitted early
  Counter submit_busy;       // the kernel took no submissions (EBUSY, EAGAIN); they were kept
  Counter cq_overflows;      // turns in which the kernel held back completions
  Counter stale_events;      // for a socket that was closed meanwhile
  Counter arms;              // readiness or bytes asked of the kernel
  Counter cancels;           // and taken back
  Counter receive_starved;   // multishot receives that found no buffer; they were armed again
  Counter receive_held;      // bytes that came behind a pause, copied until the owner wanted them
  Counter wakes;             // by other threads
  Counter doorbells;         // to other rings, as ring messages
  Counter doorbells_failed;  // and rung again by wake()
  Counter spins;             // waits that began by spinning
  Counter spin_us;           // spent so
  Counter sleeps;            // waits that gave up the core
};

// Receives the events of one Socket. Called from Io::run_once() only, never from inside a call
// that the owner itself makes on the Io.
class SocketOwner {
 public:
  // connect() has ended: 0, or a positive errno. After an error the owner still calls close().
  virtual void on_connected(Socket& socket, int error) = 0;
  // Bytes arrived. The owner forwards or copies all of them before it returns.
  virtual void on_receive(Socket& socket, std::span<const std::byte> bytes) = 0;
  // No more bytes will arrive: 0 for the peer's FIN, else a positive errno (a reset, say).
  virtual void on_receive_end(Socket& socket, int error) = 0;
  // Behind the peer's FIN, after on_receive_end(0): the peer has reset the connection, so nobody
  // reads what is sent. Also while not receiving; at most once, and not if a send has told of it;
  // 10 ms late at most. The owner still calls close().
  virtual void on_reset(Socket& socket, int error);
  // The send buffer has room again after want_writable(). One call per want_writable().
  virtual void on_writable(Socket& socket) = 0;
  // The last event of this socket: the descriptor is closed and `socket` may be reused or freed.
  virtual void on_closed(Socket& socket) = 0;
  // The last event after detach(): `fd` is the owner's, or another thread's, from here on. Not
  // `clean`: bytes that arrived meanwhile were lost, so the stream is of no use to anybody.
  virtual void on_detached(Socket& socket, int fd, bool clean);
  // Only where TLS is spoken (Stream::start_tls_server(), start_tls_client()).
  // The handshake with a client is done. For a server on_connected(0) says so.
  virtual void on_secured(Socket& socket);
  // Where that came before the client's last flight, as TlsSession::early() said: it is here now,
  // and what follows cannot be a replay. Never inside on_secured().
  virtual void on_confirmed(Socket& socket);
  // The server gave a session to resume in a later connection. The newest is the best.
  virtual void on_tls_ticket(Socket& socket, TlsTicket ticket);

 protected:
  ~SocketOwner() = default;
};

// Accepts connections of one listening descriptor.
class AcceptOwner {
 public:
  // Takes ownership of `fd`, a connected, non-blocking descriptor: adopt() it, hand it to another
  // thread's Io, or discard() it. `peer` is the client's address, valid during the call.
  virtual void on_accepted(int fd, const PeerAddress& peer) = 0;

 protected:
  ~AcceptOwner() = default;
};

// Is told on the Io's own thread that another thread called wake().
class WakeOwner {
 public:
  // At least one wake() happened since the last call; several may share one call.
  virtual void on_wake() = 0;
  // Owners have got events in this turn already, and the Io is about to wait for more: what they
  // gather over a turn must go out now.
  virtual void on_pause() {}

 protected:
  ~WakeOwner() = default;
};

// One connected (or connecting) stream socket. Fields are the engine's; owners use Io's calls.
class Socket {
 public:
  explicit Socket(SocketOwner& owner) : owner_(&owner) {}
  ~Socket();
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  // The descriptor while open, else -1. For getsockopt(2) and logging only.
  [[nodiscard]] int fd() const { return fd_; }
  [[nodiscard]] bool open() const { return fd_ >= 0; }
  [[nodiscard]] SocketOwner& owner() const { return *owner_; }
  // What of its LocalEnd made the last connect() fail; kNone: it was not that.
  [[nodiscard]] LocalPart local_failure() const { return local_failure_; }
  // Events go to `owner` from the next one on: TLS puts itself in between so (core/tls_session.h).
  void set_owner(SocketOwner& owner) { owner_ = &owner; }

 private:
  friend class SocketIo;
  friend class SimIo;  // the simulated engine of the tests

  SocketOwner* owner_;
  int fd_ = -1;
  uint32_t slot_ = 0;         // index into the engine's table while open
  uint8_t armed_ = 0;         // kernel operations in flight, a bit per kind
  bool receiving_ = false;    // the owner wants bytes
  bool readable_ = false;     // an edge came that no read has used up yet
  bool hangup_ = false;       // the peer's end or an error waits behind the bytes
  bool ended_ = false;        // on_receive_end() was delivered
  bool half_closed_ = false;  // it was the peer's FIN: only a reset can follow
  bool failed_ = false;       // an event said that an error is pending
  bool connecting_ = false;   // connect() has not ended yet
  bool closing_ = false;      // close() was called
  bool queued_ = false;       // stands on the engine's ready list
  bool completes_ = false;    // bytes come with completions, not by recv(2)
  bool starved_ = false;      // waits for a receive buffer
  bool stopping_ = false;     // its multishot receive was cancelled and has not ended yet
  bool leaving_ = false;      // detach() was called
  bool tainted_ = false;      // bytes were dropped while leaving
  bool patient_ = false;      // expect_nothing() holds
  bool late_ = false;         // not watched, on purpose: stands on the engine's list of such
  bool guessed_ = false;      // readable_ is a guess, right after it was accepted
  uint8_t short_waits_ = 0;   // polls so far that ended with their first event
  LocalPart local_failure_ = LocalPart::kNone;
  HeldBytes* held_ = nullptr;  // what came while it was paused; null: nothing
};

// The operations. Errors of the kernel come back as values; none of the calls blocks.
class Io {
 public:
  virtual ~Io() = default;

  // Which engine this is: "io_uring" or "epoll".
  [[nodiscard]] virtual const char* name() const = 0;

  // Any thread, while the Io lives.
  [[nodiscard]] virtual const EngineCounters& counters() const = 0;

  // The loop's clock: microseconds, monotonic, read once when a turn wakes up. Virtual time under
  // the simulator; nothing above core reads another clock.
  [[nodiscard]] virtual int64_t now_us() const = 0;

  // Starts accepting on `fd`, a non-blocking listening socket that stays the caller's. Out of
  // descriptors, accepting pauses for 50 ms and goes on by itself. `owner` must outlive unlisten().
  virtual void listen(int fd, AcceptOwner& owner) = 0;

  // Ends the listening on `fd`, for everybody who shares the socket; the caller closes it. What the
  // kernel had queued already is accepted first, inside this call. REQUIRES: listen(fd) was called.
  virtual void unlisten(int fd) = 0;

  // Closes a descriptor that nobody adopts: an accepted one, or a listener after unlisten().
  virtual void discard(int fd) = 0;

  // `owner` hears of wake(), and must outlive the Io. Called once, before the first turn.
  virtual void set_wake_owner(WakeOwner& owner) = 0;

  // Makes the owning thread's current or next run_once() return and call on_wake(). The only call
  // that any thread may make.
  virtual void wake() = 0;

  // As target.wake(), from the thread of this Io, which may have a cheaper way for it than a
  // system call. The target may hear of it only after this turn. It must outlive this Io's turns.
  virtual void wake_other(Io& target) { target.wake(); }

  // For wake_other(): the ring that takes IORING_OP_MSG_RING for this Io, or -1.
  [[nodiscard]] virtual int doorbell_fd() const { return -1; }

  // Gives `fd`, connected and non-blocking, to the engine. Receiving starts paused.
  virtual void adopt(Socket& socket, int fd) = 0;

  // Opens a socket and connects it; on_connected() tells how it went. Returns 0, or a positive
  // errno when no attempt could be started; `socket` is not open then and gets no event. `local` is
  // what it is bound to before; of its family, if both are IP addresses.
  [[nodiscard]] virtual int connect(Socket& socket, const ServerAddress& address,
                                    const LocalEnd& local) = 0;
  [[nodiscard]] int connect(Socket& socket, const ServerAddress& address) {
    return connect(socket, address, LocalEnd());
  }

  // Turns receiving on or off. Off is the back-pressure: the peer's window fills.
  virtual void set_receiving(Socket& socket, bool on) = 0;

  // A hint: the owner has all the bytes it needs for now and expects none before its next send().
  // Until that, or for 10 ms, the engine may leave the peer unwatched, which saves taking the watch
  // back if the owner sends and closes. Bytes and ends are noticed that much later; none is lost.
  virtual void expect_nothing(Socket& /*socket*/) {}

  // Sends what the kernel takes now. Returns the number of bytes taken, 0 if the send buffer is
  // full, or a negative errno.
  [[nodiscard]] virtual ssize_t send(Socket& socket, std::span<const iovec> pieces) = 0;

  // Looks, without an event: bytes, an end or an error wait to be received. One system call. For
  // what must not be sent to a peer that has just ended; it narrows that race and cannot close it.
  [[nodiscard]] virtual bool something_waits(const Socket& socket) const = 0;

  // Asks for one on_writable().
  virtual void want_writable(Socket& socket) = 0;

  // Sends FIN after what was sent; receiving goes on.
  virtual void shutdown_send(Socket& socket) = 0;

  // Ends the socket. Idempotent. on_closed() follows from run_once(), after the event under way,
  // and nothing else does.
  virtual void close(Socket& socket) = 0;

  // The same with a reset (RST) instead of a FIN, which tells the peer that the stream was cut.
  virtual void abort(Socket& socket) = 0;

  // Takes the socket out of the engine without closing it, so that it can be adopted elsewhere.
  // on_detached() follows from run_once() once nothing of it is with the kernel, and nothing else
  // does. REQUIRES: open, connected, not closing, nothing waits to be sent.
  virtual void detach(Socket& socket) = 0;

  // One turn: waits up to `timeout_ms` (-1: for ever) for events and delivers them.
  virtual void run_once(int timeout_ms) = 0;
};

}  // namespace ringway
