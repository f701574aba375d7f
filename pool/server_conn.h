// pool/server_conn.h - one connection to a server: connecting, busy with a user, idle, or closing.
//
// Affinity:  one shard. Ownership: a slab object; its ServerSlot hands it to one user at a time and
//            takes it back. It frees itself once its socket is closed.
// Why:       the place of a connection is stored once, in place_, and only ServerSlot::move()
// changes
//            it together with list and counters (docs/invariants.md).
#pragma once

#include <boost/intrusive/list.hpp>
#include <cstdint>
#include <span>

#include "core/base/slab.h"
#include "core/stream.h"
#include "core/timers.h"

namespace ringway {

class ServerConn;
class ServerSlot;

// What the pools of one shard share.
struct PoolContext {
  StreamEnv& stream;
  Timers& timers;
  Slab<ServerConn>& conns;

  [[nodiscard]] int64_t now_ms() const { return stream.io.now_us() / 1000; }
};

// Whoever is using a connection. Called from Io turns and timers only.
class ServerUser {
 public:
  // The connection is up (0), or could not be made: a positive errno, ETIMEDOUT after the connect
  // timeout. After an error the connection is gone already.
  virtual void on_server_connected(int error) = 0;
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

class ServerConn final : public SocketOwner, public TimerOwner {
 public:
  enum class Place : uint8_t { kNew, kConnecting, kBusy, kIdle, kClosing };

  ServerConn(PoolContext& context, ServerSlot& slot);
  ~ServerConn();

  // For the user, while busy. See Stream for write().
  [[nodiscard]] bool write(std::span<const iovec> pieces) { return stream_.write(pieces); }
  void shutdown_send() { stream_.shutdown_send(); }
  void set_receiving(bool on) { stream_.set_receiving(on); }
  [[nodiscard]] bool above_high_water() const { return stream_.above_high_water(); }
  [[nodiscard]] size_t queued() const { return stream_.queued(); }
  [[nodiscard]] int error() const { return stream_.error(); }
  // Calls on_server_timeout() after `ms`; 0 switches it off.
  void set_deadline(int64_t ms);

  [[nodiscard]] Place place() const { return place_; }
  // It has served a request before this one.
  [[nodiscard]] bool reused() const { return requests_ > 1; }
  [[nodiscard]] uint64_t requests() const { return requests_; }
  [[nodiscard]] ServerSlot& slot() { return slot_; }

  // SocketOwner, TimerOwner.
  void on_connected(Socket& socket, int error) override;
  void on_receive(Socket& socket, std::span<const std::byte> bytes) override;
  void on_receive_end(Socket& socket, int error) override;
  void on_writable(Socket& socket) override;
  void on_closed(Socket& socket) override;
  void on_timer(Timer& timer) override;

 private:
  friend class ServerSlot;

  using Hook =
      boost::intrusive::list_member_hook<boost::intrusive::link_mode<boost::intrusive::safe_link>>;

  PoolContext& context_;
  ServerSlot& slot_;
  ServerUser* user_ = nullptr;  // while connecting or busy
  Stream stream_;
  Timer timer_;
  Hook hook_;  // in the slot's idle list, while idle
  uint64_t requests_ = 0;
  Place place_ = Place::kNew;
};

}  // namespace ringway
