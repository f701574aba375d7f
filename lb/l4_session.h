// lb/l4_session.h - layer 4: one client relayed to one server, both ways.
//
// Affinity:  one shard. Ownership: a slab object of the Worker; frees itself once both sockets are
//            closed.
// Bounds:    either direction stops being read while more than Stream::kHighWaterBytes wait.
#pragma once

#include <array>
#include <boost/intrusive/list.hpp>
#include <cstdint>

#include "core/stream.h"
#include "core/timers.h"
#include "lb/listener.h"
#include "lb/proxy_gate.h"
#include "lb/upstream.h"
#include "pool/server_conn.h"

namespace ringway {

struct SessionTag;
using SessionHook =
    boost::intrusive::list_base_hook<boost::intrusive::tag<SessionTag>,
                                     boost::intrusive::link_mode<boost::intrusive::safe_link>>;

class L4Session final : public SocketOwner,
                        public ServerUser,
                        public TimerOwner,
                        public Waiter,
                        public SessionHook {
 public:
  L4Session(Worker& worker, ShardListener& listener, const PeerAddress& peer);
  ~L4Session();

  // Takes `fd`, picks a server and connects.
  void start(int fd);
  // Ends both sides at once.
  void close();

  // Of the client.
  void on_connected(Socket& socket, int error) override;
  void on_secured(Socket& socket) override;
  void on_receive(Socket& socket, std::span<const std::byte> bytes) override;
  void on_receive_end(Socket& socket, int error) override;
  void on_reset(Socket& socket, int error) override;
  void on_writable(Socket& socket) override;
  void on_closed(Socket& socket) override;
  void on_detached(Socket& socket, int fd, bool clean) override;
  void on_timer(Timer& timer) override;
  // Of the server.
  void on_server_connected(int error) override;
  void on_server_bytes(std::span<const std::byte> bytes) override;
  void on_server_end(int error) override;
  void on_server_drained() override;
  void on_server_timeout() override;
  void on_turn() override;
  void on_queue_timeout() override;

  [[nodiscard]] ShardListener& listener() { return listener_; }
  [[nodiscard]] const PeerAddress& peer() const { return peer_; }

 private:
  enum class EndedBy : uint8_t { kNobody, kClient, kServer, kProxy };

  // Where a session is before it has a server.
  // kLeaving: its client goes on as one of HTTP.
  enum class Phase : uint8_t { kProxyHeader, kHello, kHandshake, kServer, kLeaving };

  static constexpr int64_t kRetryMs = 50;  // until descriptors are asked for again

  void after_proxy_header();
  void handshake_over(EndedBy by, std::string_view cause);
  // Looks at what the client has said before a server is chosen, and goes on to the next phase.
  void read_prelude(ProxyInput input);
  [[nodiscard]] bool read_proxy_header(ProxyInput input);
  void start_phase(Phase phase, int64_t ms);
  void read_hello(ProxyInput input);
  void refuse_hello(PrereadError error);
  void become_http();
  void choose_route(const tls::ClientHello& hello);
  [[nodiscard]] uint64_t balance_hash() const;
  void no_connection(EndedBy by, std::string_view cause);
  void connect_next();
  void wait_in_queue();
  [[nodiscard]] bool wait_for_descriptors(int error);
  void touch();
  void finish_if_both_ended();
  void end_after_reset();
  void end(EndedBy by, std::string_view cause, bool reset);
  void release_server();
  [[nodiscard]] bool make_proxy_header(bool preface, std::string_view& header);
  void send_early();
  void server_takes_no_more();
  void log();

  Worker& worker_;
  ShardListener& listener_;
  Stream client_;
  Timer timer_;
  InBuffer early_;  // what the client sent before its server was connected to
  ShardUpstream* upstream_ = nullptr;
  ShardServer* server_ = nullptr;
  ServerConn* conn_ = nullptr;
  ClientOrigin* origin_ = nullptr;
  std::array<uint32_t, 16> tried_;
  uint32_t tried_count_ = 0;
  uint32_t tried_epoch_ = 0;
  uint32_t attempts_ = 0;
  int64_t start_us_;
  int64_t connected_us_ = 0;
  uint64_t bytes_in_ = 0;
  uint64_t bytes_out_ = 0;
  PeerAddress peer_;
  std::string_view cause_;
  std::string_view failure_;  // why no connection could even be begun; empty: nothing to say
  EndedBy ended_by_ = EndedBy::kNobody;
  Phase phase_ = Phase::kServer;
  bool connected_ = false;
  bool client_ended_ = false;
  bool server_ended_ = false;
  bool send_broken_ = false;   // the server takes no more bytes
  bool client_reset_ = false;  // behind its FIN
  bool server_reset_ = false;
  bool queued_ = false;   // waits for a server to have room
  bool in_turn_ = false;  // inside on_turn()
  bool closing_ = false;
};

}  // namespace ringway
