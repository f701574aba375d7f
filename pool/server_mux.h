// pool/server_mux.h - HTTP/2 on a server connection: a session and its streams.
//
// A ServerConn that speaks HTTP/2 has one ServerMux, which stands between its bytes and the
// requests: frames come in by receive(), what requests send is put into frames, gathered over the
// turn and sent with one call. What a window or the socket does not take waits in its stream.
//
// Affinity:  one shard. Ownership: slab objects of the shard's ServerMuxes; a mux goes when its
//            connection is being closed and no stream refers to it, a stream when its user is done.
// Bounds:    h2::SessionLimits; per stream one window of a response, above here, and a high-water
//            mark of a request; kQueuedMax bytes that the socket does not take.
// Why:       users are told of losses and get their places in flush() only, at the end of a turn:
//            so nobody is called from inside of what somebody else does with a stream.
#pragma once

#include <array>
#include <boost/intrusive/list.hpp>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "core/base/slab.h"
#include "core/chunks.h"
#include "core/timers.h"
#include "pool/join_waiter.h"
#include "pool/server_conn.h"
#include "pool/server_stream.h"
#include "proto/http2_idle_ping.h"
#include "proto/http2_session.h"

namespace ringway {

using StreamList =
    boost::intrusive::list<ServerStream, boost::intrusive::base_hook<StreamHook<StreamListTag>>,
                           boost::intrusive::constant_time_size<false>>;
using StreamQueue =
    boost::intrusive::list<ServerStream, boost::intrusive::base_hook<StreamHook<StreamQueueTag>>,
                           boost::intrusive::constant_time_size<false>>;

class ServerMux final : public h2::SessionOwner, public TimerOwner {
 public:
  static constexpr size_t kQueuedMax = 1024 * 1024;

  // Before the server's SETTINGS at most `first_streams` are started.
  ServerMux(PoolContext& context, ServerConn& conn, h2::SessionScratch& scratch,
            const h2::SessionLimits& limits, uint32_t first_streams);
  ~ServerMux();

  // For the connection and its slot. `preface` goes out before everything else.
  void begin(std::string_view preface);
  void receive(std::span<const std::byte> bytes);
  // The socket took some of what was queued.
  void on_output_moved() { watch_.held_up(context_.now_ms()); }
  // Few of it is left.
  void on_output_drained() { pump(); }
  // The connection has ended, by `error` or (0) by the server's FIN, or must end: every stream is
  // lost, and it is closed. `reason`: kError also where it was idle and the server ended it.
  void connection_lost(int error, std::string_view cause, CloseReason reason = CloseReason::kError);
  // It is being closed. The last call.
  void detach();
  // A stream for a request that the pool has counted already. Null: out of memory.
  [[nodiscard]] ServerStream* open_stream(StreamUser& user);
  // How many further streams can be opened now.
  [[nodiscard]] uint32_t room() const;
  // Streams that have a user; as many as the pool counts.
  [[nodiscard]] uint32_t live() const { return live_; }
  [[nodiscard]] bool settings_received() const { return session_.settings_received(); }
  [[nodiscard]] uint32_t peer_max_streams() const { return session_.peer_max_streams(); }
  [[nodiscard]] bool takes_websocket() const { return session_.peer_websocket(); }
  // The server has said GOAWAY.
  [[nodiscard]] bool going_away() const { return going_away_; }
  [[nodiscard]] bool broken() const { return broken_ || session_.dead(); }
  void note_dirty();

  // SessionOwner.
  void on_request(uint32_t id, const h2::HeadBuilder& head, bool end) override;
  void on_bad_request(uint32_t id, h2::BlockError error, bool end) override;
  void on_response(h2::Stream& stream, const h2::HeadBuilder& head, bool end) override;
  void on_data(h2::Stream& stream, std::string_view bytes) override;
  void on_end(h2::Stream& stream, std::string_view trailers) override;
  void on_reset(h2::Stream& stream, h2::ErrorCode code, bool ours) override;
  void on_window(h2::Stream* /*stream*/) override {}  // receive() pumps at its end.
  void on_goaway(uint32_t last, h2::ErrorCode code) override;
  void on_capacity() override;
  void on_ping_ack() override {}
  void on_drained() override {}
  void on_fatal(h2::ErrorCode code, h2::Flood flood, std::string_view cause) override;
  void put(std::string_view head, std::string_view payload) override;

  // The server was silent for a while.
  void on_timer(Timer& timer) override;

 private:
  friend class ServerMuxes;
  friend class ServerStream;

  static constexpr size_t kTurnChunks = 4;
  static constexpr size_t kStepBytes = 1024;

  // How a stream was lost; see StreamUser::on_stream_lost().
  struct Loss {
    bool unseen;
    h2::ErrorCode code;
    std::string_view cause;  // static text
  };

  [[nodiscard]] uint32_t startable() const;
  [[nodiscard]] bool start(ServerStream& stream, std::string_view text, std::string_view scheme,
                           bool websocket, bool end);
  [[nodiscard]] bool was_sent(const ServerStream& stream) const;
  void feed(std::string_view bytes);
  void close_stream(ServerStream& stream, h2::ErrorCode code);
  void unlink(ServerStream& stream);
  void lose(ServerStream& stream, const Loss& loss);
  void lose_all(std::string_view cause);
  void keep(ServerStream& stream, std::string_view bytes);
  void note_broken();
  [[nodiscard]] bool output_blocked() const;
  void append(std::string_view bytes);
  void send_gathered();
  void tell_settings();
  void flush();
  void pump();
  bool pump_stream(ServerStream& stream);
  [[nodiscard]] ServerStream* next_waiting();

  PoolContext& context_;
  ServerConn* conn_;  // null: gone
  h2::Session session_;
  StreamList all_;                          // with a user
  StreamQueue waiting_;                     // have bytes or an end for a window, or for the socket
  InBuffer in_;                             // less than a frame
  std::array<Chunk*, kTurnChunks> turn_{};  // gathered in this turn
  size_t turn_count_ = 0;
  uint64_t put_bytes_ = 0;   // put into frames so far
  uint64_t turn_bytes_ = 0;  // of those not given to the socket
  std::string_view cause_;   // of a session's end
  Timer ping_timer_;         // looks at watch_
  h2::IdlePing watch_;
  const uint32_t first_streams_;
  uint32_t live_ = 0;           // in all_
  uint32_t memory_ = 0;         // streams of it that are not freed yet
  bool dirty_ = false;          // stands on the shard's list
  bool broken_ = false;         // the connection must be closed
  bool going_away_ = false;     // see going_away()
  bool settings_news_ = false;  // streams that await them are to be told
  bool woken_ = false;          // was idle, and nothing has answered since
  bool feeding_ = false;
  bool pumping_ = false;
};

// What the HTTP/2 connections to servers of one shard share.
class ServerMuxes {
 public:
  ServerMuxes(size_t muxes_max, size_t streams_max)
      : muxes_(muxes_max), streams_(streams_max), waiters_(streams_max) {}
  ~ServerMuxes();
  ServerMuxes(const ServerMuxes&) = delete;
  ServerMuxes& operator=(const ServerMuxes&) = delete;

  // Heads of so many bytes and fields will go and come. To be called before the first connection.
  void prepare(uint32_t head_bytes, uint32_t fields);
  // At the end of a turn: tells who has lost a stream or got a place, and sends what was gathered.
  // Users are called. pending(): there is more to do, next turn.
  void flush();
  [[nodiscard]] bool pending() const {
    return !dirty_.empty() || !lost_.empty() || !scattered_.empty();
  }
  // Frees what died in this turn. No function of theirs is on the stack.
  void reclaim();
  [[nodiscard]] bool empty() const {
    return muxes_.in_use() == 0 && streams_.in_use() == 0 && waiters_.in_use() == 0;
  }

 private:
  friend class ServerConn;
  friend class ServerMux;
  friend class ServerSlot;

  static constexpr int kRoundsPerTurn = 8;

  void tell_lost();
  void tell_scattered();

  Slab<ServerMux> muxes_;
  Slab<ServerStream> streams_;
  Slab<JoinWaiter> waiters_;
  // Sessions keep a reference, so a larger one replaces an older only for new connections.
  std::vector<std::unique_ptr<h2::SessionScratch>> scratches_;
  uint32_t head_bytes_ = 0;
  uint32_t fields_ = 0;
  StreamList lost_;        // whose users are to be told
  JoinWaiters scattered_;  // whose connection is gone, or takes fewer
  std::vector<ServerMux*> dirty_;
  std::vector<ServerMux*> flushing_;
  std::vector<ServerMux*> dead_muxes_;
  std::vector<ServerStream*> dead_streams_;
};

}  // namespace ringway
