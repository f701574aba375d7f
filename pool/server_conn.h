// pool/server_conn.h - one connection to a server: its socket, its deadline, its user.
//
// Affinity:  one shard. Ownership: a slab object; its ServerSlot hands it to one user at a time and
//            takes it back. It frees itself once its socket is closed.
// Why:       where it is, is PooledConn's to say (pool/places.h); here is what moves bytes.
#pragma once

#include <boost/intrusive/list.hpp>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/base/check.h"
#include "core/base/slab.h"
#include "core/stream.h"
#include "core/timers.h"
#include "pool/join_waiter.h"
#include "pool/pooled_conn.h"

namespace ringway {

struct Borrow;
class ServerConn;
class ServerMux;
class ServerMuxes;
class ServerSlot;
class ServerStream;
class StreamUser;
struct PoolMemory;

// What the pools of one shard share.
struct PoolContext {
  StreamEnv& stream;
  Timers& timers;
  Slab<ServerConn>& conns;
  PoolMemory& memory;
  ServerMuxes* muxes = nullptr;  // null: no server speaks HTTP/2

  [[nodiscard]] int64_t now_ms() const { return stream.io.now_us() / 1000; }
};

// Whoever is using a connection. Called from Io turns and timers only.
class ServerUser {
 public:
  // The connection is up (0), or could not be made: a positive errno, ETIMEDOUT after the connect
  // timeout. After an error the connection is gone already. EAGAIN, which only those hear that
  // waited for somebody else's connection: the limit of connections is reached, as from take().
  virtual void on_server_connected(int error) = 0;
  // Instead of on_server_connected(0): the connection speaks HTTP/2, and this is the request's
  // stream. Whoever uses servers that may speak it returns stream_user().
  virtual void on_server_stream(ServerStream& /*stream*/) { RW_CHECK(false); }
  // The connection that is waited for is another one from now on; the old one may be gone. Right
  // before one of the calls above, or a while. Only with HTTP/2.
  virtual void on_server_moved(ServerConn& /*conn*/) { RW_CHECK(false); }
  // Who uses the stream that on_server_stream() or ServerSlot::take() gives. Null: nobody, since
  // the server never speaks HTTP/2.
  virtual StreamUser* stream_user() { return nullptr; }
  // Bytes of the response; all of them are taken before it returns.
  virtual void on_server_bytes(std::span<const std::byte> bytes) = 0;
  // The server ended the stream: 0 for FIN, else a positive errno.
  virtual void on_server_end(int error) = 0;
  // What waited to be sent fell below the low-water mark.
  virtual void on_server_drained() = 0;
  // The deadline set by set_deadline() has passed.
  virtual void on_server_timeout() = 0;

 protected:
  ~ServerUser() = default;
};

// Links it into its slot's list of those that others may join.
using JoinableHook =
    boost::intrusive::list_base_hook<boost::intrusive::tag<struct JoinableTag>,
                                     boost::intrusive::link_mode<boost::intrusive::auto_unlink>>;

class ServerConn final : public PooledConn,
                         public SocketOwner,
                         public TimerOwner,
                         public JoinableHook {
 public:
  ServerConn(PoolContext& context, ServerSlot& slot);
  ~ServerConn();

  // For the user, while it has the connection. See Stream for write().
  [[nodiscard]] bool write(std::span<const iovec> pieces) { return stream_.write(pieces); }
  void shutdown_send() { stream_.shutdown_send(); }
  void set_receiving(bool on) { stream_.set_receiving(on); }
  [[nodiscard]] bool above_high_water() const { return stream_.above_high_water(); }
  [[nodiscard]] size_t queued() const { return stream_.queued(); }
  [[nodiscard]] int error() const { return stream_.error(); }
  // As Socket::fd().
  [[nodiscard]] int fd() const { return stream_.fd(); }
  // Calls on_server_timeout() after `ms`; 0 switches it off.
  void set_deadline(int64_t ms);

  // It has served a request before this one.
  [[nodiscard]] bool reused() const { return requests() > 1; }
  [[nodiscard]] ServerSlot& slot() { return slot_; }
  // It speaks HTTP/2: its requests have streams, and nothing above is for them.
  [[nodiscard]] bool multiplexed() const { return mux_ != nullptr; }

  // PooledConn, SocketOwner, TimerOwner.
  void on_pool_close(CloseReason reason) override;
  void on_connected(Socket& socket, int error) override;
  void on_receive(Socket& socket, std::span<const std::byte> bytes) override;
  void on_receive_end(Socket& socket, int error) override;
  void on_reset(Socket& socket, int error) override;
  void on_writable(Socket& socket) override;
  void on_closed(Socket& socket) override;
  void on_detached(Socket& socket, int fd, bool clean) override;
  void on_tls_ticket(Socket& socket, TlsTicket ticket) override;
  void on_timer(Timer& timer) override;

 private:
  friend class ServerMux;
  friend class ServerSlot;

  [[nodiscard]] bool in_use() const;
  void connect_failed(int error);
  // Those that wait for it are told `error` at the end of the turn; 0: they try for another one.
  void scatter(int error);

  PoolContext& context_;
  ServerSlot& slot_;
  ServerUser* user_ = nullptr;      // while connecting (null: opened ahead) or in use, by one
  SessionStore* opener_ = nullptr;  // of user_ while connecting, see PickRules::session
  ServerMux* mux_ = nullptr;        // speaks HTTP/2, from connecting until it closes
  JoinWaiters waiters_;             // for places on it, behind user_; first come, first served
  Stream stream_;
  Timer timer_;
  int64_t connect_us_ = 0;           // when it began to connect
  std::string preface_;              // ConnKey's, without TLS: for HTTP/2, if that is spoken
  std::unique_ptr<Borrow> leaving_;  // while it is on its way to another shard
  bool borrowing_ = false;           // connecting: another shard was asked first
  bool asked_ = false;               // its place was promised to another shard
  bool only_http1_ = false;          // HTTP/2 was not offered
  bool reset_ = false;               // close by reset: the exchange was cut
};

}  // namespace ringway
