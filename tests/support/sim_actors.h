// tests/support/sim_actors.h - scripted clients and servers for simulated runs.
//
// Affinity:  their SimIo's thread. Ownership: each must outlive its connections: close() or wait,
//            then run the net until done() or live() == 0, before destroying it.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/io.h"
#include "tests/support/sim_io.h"
#include "tests/support/sim_net.h"

namespace ringway {

class SimConnection;

// What a scripted peer does with a connection. All calls come from the connection's owner.
class SimHandler {
 public:
  virtual ~SimHandler() = default;
  // Connected or accepted; the connection may send from now on.
  virtual void on_open(SimConnection& /*connection*/) {}
  // Bytes came; they are appended to connection.received() already.
  virtual void on_bytes(SimConnection& /*connection*/, std::string_view /*bytes*/) {}
  // The peer has ended its direction: 0 for FIN, else a positive errno. The default closes after
  // everything queued was sent.
  virtual void on_end(SimConnection& connection, int error);
  // The connection is closed. The last call.
  virtual void on_done(SimConnection& /*connection*/) {}
};

// What stands between the bytes that a peer means and those that go over the wire: TLS. Each call
// returns what is to be sent then.
class SimCodec {
 public:
  virtual ~SimCodec() = default;
  virtual std::string begin() = 0;
  // The connection is on its way; the other side may have it long before begin().
  virtual void connecting() {}
  virtual std::string seal(std::string_view plain) = 0;
  // Appends what `wire` meant to `plain`.
  virtual std::string open(std::string_view wire, std::string& plain) = 0;
  virtual std::string end() = 0;  // of what this side sends
};

// A peer's connection: queues what it sends, collects what it receives, may read slowly.
class SimConnection final : public SocketOwner, public SimTimerOwner {
 public:
  SimConnection(SimNet& net, SimIo& io) : net_(net), io_(io), socket_(*this) {}
  ~SimConnection();
  SimConnection(const SimConnection&) = delete;
  SimConnection& operator=(const SimConnection&) = delete;

  // Who hears of it, besides the handler, that the connection is closed: the last call.
  void set_handler(SimHandler* handler) { handler_ = handler; }
  // REQUIRES: not connected yet.
  void set_codec(std::unique_ptr<SimCodec> codec) { codec_ = std::move(codec); }
  void set_on_closed(std::function<void()> on_closed) { on_closed_ = std::move(on_closed); }
  // Reads at most `bytes`, rounded up to what one event brings, then pauses for `pause_us`.
  // 0: no limit.
  void read_slowly(size_t bytes, int64_t pause_us);
  // The first `bytes` bytes go out one by one, `pause_us` apart.
  void send_slowly(size_t bytes, int64_t pause_us);
  // Keeps no received bytes, only their number and hash.
  void keep_nothing() { keep_ = false; }

  // Returns connect()'s errno, 0 when the attempt was started.
  [[nodiscard]] int connect(const ServerAddress& server);
  void adopt(int fd);

  // Queues bytes to be sent. After finish(), close() or a failed send they are dropped.
  void send(std::string_view bytes);
  // FIN once everything queued is sent.
  void finish();
  // close() once everything queued is sent; at once if that is impossible.
  void close_after_send();
  void close();
  // Resets the connection.
  void abort();

  [[nodiscard]] SimNet& net() { return net_; }
  [[nodiscard]] bool open() const { return socket_.open(); }
  [[nodiscard]] const std::string& received() const { return received_; }
  [[nodiscard]] uint64_t received_bytes() const { return received_bytes_; }
  [[nodiscard]] uint64_t received_hash() const { return received_hash_; }
  [[nodiscard]] uint64_t sent_bytes() const { return sent_bytes_; }
  [[nodiscard]] size_t queued_bytes() const { return queue_.size() - queue_at_; }
  // The peer ended with FIN, and no send had failed before.
  [[nodiscard]] bool ended_cleanly() const { return ended_ && end_error_ == 0 && !send_failed_; }
  [[nodiscard]] bool ended() const { return ended_; }
  [[nodiscard]] int end_error() const { return end_error_; }
  [[nodiscard]] bool connected() const { return connected_; }
  [[nodiscard]] int connect_error() const { return connect_error_; }
  [[nodiscard]] bool send_failed() const { return send_failed_; }
  // Was open, and is closed now.
  [[nodiscard]] bool done() const { return done_; }

  void on_connected(Socket& socket, int error) override;
  void on_receive(Socket& socket, std::span<const std::byte> bytes) override;
  void on_receive_end(Socket& socket, int error) override;
  void on_writable(Socket& socket) override;
  void on_closed(Socket& socket) override;
  void on_sim_timer(uint32_t tag) override;

 private:
  void opened();
  void flush();
  void send_end();

  SimNet& net_;
  SimIo& io_;
  Socket socket_;
  SimHandler* handler_ = nullptr;
  std::unique_ptr<SimCodec> codec_;  // or null
  std::function<void()> on_closed_;
  std::string queue_;
  size_t queue_at_ = 0;
  std::string received_;
  uint64_t received_bytes_ = 0;
  uint64_t received_hash_ = 0;
  uint64_t sent_bytes_ = 0;
  size_t slice_bytes_ = 0;
  size_t slice_got_ = 0;
  int64_t pause_us_ = 0;
  uint64_t timer_ = 0;
  size_t single_bytes_ = 0;  // still to be sent one by one
  int64_t single_pause_us_ = 0;
  uint64_t send_timer_ = 0;
  int end_error_ = 0;
  int connect_error_ = 0;
  bool keep_ = true;
  bool waiting_ = false;  // for on_writable()
  bool fin_after_ = false;
  bool fin_sent_ = false;
  bool close_after_ = false;
  bool closing_ = false;
  bool connected_ = false;
  bool ended_ = false;
  bool send_failed_ = false;
  bool done_ = false;
};

// The hash SimConnection keeps of what it received, continued over `bytes`: whoever knows what was
// sent can compare. Independent of how the bytes were cut.
[[nodiscard]] uint64_t stream_hash(std::string_view bytes, uint64_t hash = 0);

// A client with a script: connects, sends pieces with pauses, ends as told, collects the answer.
class SimClient final : public SimTimerOwner, private SimHandler {
 public:
  enum class End : uint8_t { kNone, kFin, kClose, kReset };
  struct Piece {
    int64_t delay_us = 0;  // after the piece before it, or after being connected
    std::string bytes;
  };
  struct Script {
    std::vector<Piece> pieces;
    End end = End::kFin;       // what follows the last piece
    int64_t end_delay_us = 0;  // how long after it
    size_t read_slice = 0;     // see SimConnection::read_slowly()
    int64_t read_pause_us = 0;
  };

  SimClient(SimNet& net, SimIo& io, Script script);
  ~SimClient();
  // `observer` sees the connection's events too; it may send more, or close.
  void set_observer(SimHandler* observer) { observer_ = observer; }
  // Connects now or after a delay.
  void start(const ServerAddress& server, int64_t delay_us = 0);

  // Nothing is open or planned any more.
  [[nodiscard]] bool done() const { return started_ && !planned_ && !connection_.open(); }
  [[nodiscard]] SimConnection& connection() { return connection_; }

 private:
  void on_open(SimConnection& connection) override;
  void on_bytes(SimConnection& connection, std::string_view bytes) override;
  void on_end(SimConnection& connection, int error) override;
  void on_done(SimConnection& connection) override;
  void on_sim_timer(uint32_t tag) override;
  void plan_next();

  SimNet& net_;
  SimConnection connection_;
  Script script_;
  ServerAddress server_;
  SimHandler* observer_ = nullptr;
  size_t next_piece_ = 0;
  uint64_t timer_ = 0;
  bool started_ = false;
  bool planned_ = false;  // start() was called, connect() not yet
};

// A server: accepts, and gives each connection to a handler made for it.
class SimServer final : public AcceptOwner {
 public:
  using MakeHandler = std::function<std::unique_ptr<SimHandler>(SimConnection&)>;

  // Listens on `address`, port 0 for a free one.
  SimServer(SimNet& net, SimIo& io, const ServerAddress& address, MakeHandler make);
  // REQUIRES: stop() was called and live() is 0.
  ~SimServer();

  [[nodiscard]] const ServerAddress& address() const { return address_; }
  [[nodiscard]] size_t live() const { return live_; }
  [[nodiscard]] uint64_t accepted() const { return accepted_; }
  // Stops listening: connecting is refused. start() listens again on the same address.
  void stop();
  void start();
  // Closes all connections.
  void close_all();

  void on_accepted(int fd, const PeerAddress& peer) override;

 private:
  struct Served {
    std::unique_ptr<SimConnection> connection;
    std::unique_ptr<SimHandler> handler;
  };

  void remove_done();

  SimNet& net_;
  SimIo& io_;
  ServerAddress address_;
  MakeHandler make_;
  int fd_ = -1;
  std::vector<Served> served_;
  size_t live_ = 0;
  uint64_t accepted_ = 0;
};

}  // namespace ringway
