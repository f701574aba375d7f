// lb/http2_client.h - HTTP/2 on a client connection: streams, each with its exchange.
//
// A ClientConn that speaks HTTP/2 has one Http2Client, which stands between the bytes and the
// exchanges: frames come in by feed(), what exchanges answer is put into frames, gathered over the
// turn and sent with one call. A stream keeps what its exchange or its window cannot take yet.
//
// Affinity:  one shard. Ownership: slab objects of the Worker's Http2Shard; an Http2Client goes
//            when its connection is closed, a stream when its exchange is over and it is closed.
// Bounds:    h2::SessionLimits; a request body waits up to its stream's window, an answer up to a
//            high-water mark and one turn's reads.
// Why:       Exchange knows no frames: it speaks to a stream as it speaks to a ClientConn.
#pragma once

#include <array>
#include <boost/intrusive/list.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/slab.h"
#include "core/chunks.h"
#include "core/timers.h"
#include "proto/http2_idle_ping.h"
#include "proto/http2_session.h"

namespace ringway {

class ClientConn;
class Exchange;
class Http2Client;
class Worker;

struct Http2AllTag;
struct Http2WaitingTag;
template <typename Tag>
using Http2Hook =
    boost::intrusive::list_base_hook<boost::intrusive::tag<Tag>,
                                     boost::intrusive::link_mode<boost::intrusive::safe_link>>;

class Http2Stream final : public h2::Stream,
                          public TimerOwner,
                          public Http2Hook<Http2AllTag>,
                          public Http2Hook<Http2WaitingTag> {
 public:
  explicit Http2Stream(Http2Client& client) : client_(client), timer_(*this) {}
  ~Http2Stream();

  // For the exchange.
  // A response head as http1_write.h wrote it; `end`: nothing follows. False: it does not fit.
  [[nodiscard]] bool send_head(std::string_view text, bool end, bool websocket = false);
  // Body bytes: sends or keeps them. `end`: they are the last.
  void write(std::string_view bytes, bool end);
  // The answer ends here, with trailer lines or none.
  void finish(std::string_view trailers);
  // What waits for the client's windows, its end included.
  [[nodiscard]] size_t queued() const { return out_.bytes() + (end_waits_ ? 1 : 0); }
  [[nodiscard]] bool above_high_water() const { return out_.bytes() >= kHighWaterBytes; }
  // Offers bytes that wait, since the exchange can take some now.
  void resume_input();
  // All of the answer was framed. What is left of the request is swallowed for a while: not all
  // clients know what to do with a reset then (RFC 9113 8.1).
  void on_exchange_done();
  // Cuts the stream so that the client notices; the exchange hears on_client_gone().
  void abort(h2::ErrorCode code);
  // Inside on_request_bytes(): those bytes are the last of the request, and no trailers follow.
  [[nodiscard]] bool offers_last() const { return offers_last_; }

  void on_timer(Timer& timer) override;

 private:
  friend class Http2Client;

  // Lower than a connection's: many streams may wait on one connection.
  static constexpr size_t kHighWaterBytes = 32 * 1024;
  static constexpr size_t kLowWaterBytes = 8 * 1024;
  static constexpr int64_t kLingerMs = 2'000;
  // What a client must take of an answer in each client_idle: less is no sign of life, or a byte
  // now and then would hold a stream, its buffers and its server for ever.
  static constexpr uint64_t kDrainBytes = 1024;

  void deliver(std::string_view bytes);
  [[nodiscard]] size_t offer(std::string_view bytes);
  void keep_input(std::string_view bytes);
  void swallow(size_t bytes);
  void tell_end();
  void rearm();
  void watch_drain();
  [[nodiscard]] bool waits_for_others() const;
  void keep(std::string_view bytes);
  size_t send(std::string_view bytes, bool end);

  Http2Client& client_;
  Exchange* exchange_ = nullptr;
  InBuffer in_;           // of the request's body
  OutQueue out_;          // of the answer's
  std::string trailers_;  // of the request; empty in most
  std::string answer_trailers_;
  Timer timer_;
  // While the timer watches what the client takes of the answer, since it was set: what this stream
  // has put into frames, and what its connection had before.
  uint64_t drained_ = 0;
  uint64_t connection_mark_ = 0;
  bool draining_ = false;
  bool fresh_ = false;        // its head has not been offered a connection yet
  bool delivering_ = false;   // inside deliver()
  bool offers_last_ = false;  // see offers_last()
  bool input_ended_ = false;  // END_STREAM came
  bool end_told_ = false;     // and the exchange knows
  bool end_waits_ = false;    // the answer's end stands behind out_
  bool lingering_ = false;    // the exchange is over, the request is not
  bool buried_ = false;
};

class Http2Client final : public h2::SessionOwner, public TimerOwner {
 public:
  Http2Client(Worker& worker, ClientConn& client, const h2::SessionLimits& limits);
  ~Http2Client();

  void begin();
  // Returns the bytes used; the rest comes again. The connection may be closed afterwards.
  [[nodiscard]] size_t feed(std::string_view bytes);
  // The TLS handshake is over: requests that waited for it go on.
  void on_confirmed();
  // The client has taken what was queued.
  void on_output_drained() { pump(); }
  // The client sends no more, so it is gone.
  void on_input_end();
  // Says that no further request is wanted; the connection closes after the last answer.
  void drain() { session_.drain(); }
  // The step behind it, if the client does not answer in time.
  void finish_drain() { session_.finish_drain(); }
  // Both at once: the client was idle for too long, say.
  void end() {
    session_.drain();
    session_.finish_drain();
  }
  void fail(h2::ErrorCode code, std::string_view cause) {
    session_.fail(code, h2::Flood::kNone, cause);
  }
  // The connection is being closed: every exchange is told. The last call.
  void connection_gone();
  // Sends what was gathered. Called at the end of the turn, and when a lot has come together.
  void flush();

  [[nodiscard]] bool idle() const { return session_.streams() == 0 && live_ == 0; }
  [[nodiscard]] bool inside_head() const { return session_.inside_head(); }
  [[nodiscard]] bool draining() const { return session_.draining(); }
  [[nodiscard]] size_t streams() const { return session_.streams(); }
  [[nodiscard]] bool seen_request() const { return seen_request_; }

  // SessionOwner.
  void on_request(uint32_t id, const h2::HeadBuilder& head, bool end) override;
  void on_bad_request(uint32_t id, h2::BlockError error, bool end) override;
  void on_response(h2::Stream& stream, const h2::HeadBuilder& head, bool end) override;
  void on_data(h2::Stream& stream, std::string_view bytes) override;
  void on_end(h2::Stream& stream, std::string_view trailers) override;
  void on_reset(h2::Stream& stream, h2::ErrorCode code, bool ours) override;
  void on_window(h2::Stream* stream) override;
  void on_goaway(uint32_t last, h2::ErrorCode code) override;
  void on_capacity() override {}
  void on_ping_ack() override {}
  void on_drained() override { close_wanted_ = true; }
  void on_fatal(h2::ErrorCode code, h2::Flood flood, std::string_view cause) override;
  void put(std::string_view head, std::string_view payload) override;

  // The client was silent for a while.
  void on_timer(Timer& timer) override;

 private:
  friend class Http2Stream;
  friend class Http2Shard;

  static constexpr size_t kTurnChunks = 4;

  using All =
      boost::intrusive::list<Http2Stream, boost::intrusive::base_hook<Http2Hook<Http2AllTag>>,
                             boost::intrusive::constant_time_size<false>>;
  using Waiting =
      boost::intrusive::list<Http2Stream, boost::intrusive::base_hook<Http2Hook<Http2WaitingTag>>,
                             boost::intrusive::constant_time_size<true>>;

  [[nodiscard]] bool output_blocked() const;
  void append(std::string_view bytes);
  void send_gathered();
  void pump();
  // Frames what fits of one stream's waiting bytes. False: nothing did.
  bool pump_stream(Http2Stream& stream);
  [[nodiscard]] Http2Stream* next_waiting();
  void deliver_fresh();
  void bury(Http2Stream& stream);
  void refuse(uint32_t id, http1::HeadError error, bool end);
  void note_dirty();

  Worker& worker_;
  ClientConn* client_;  // null: gone
  h2::Session session_;
  All all_;
  Waiting waiting_;  // have bytes or an end for a window, or for the socket
  std::vector<Http2Stream*> fresh_;
  std::array<Chunk*, kTurnChunks> turn_{};  // gathered in this turn
  size_t turn_count_ = 0;
  Timer ping_timer_;  // looks at watch_
  h2::IdlePing watch_;
  uint64_t drained_ = 0;       // bytes of answers put into frames
  uint32_t live_ = 0;          // streams with an exchange
  bool dirty_ = false;         // stands on the shard's list
  bool broken_ = false;        // the connection must be closed
  bool close_wanted_ = false;  // once everything is sent
  bool feeding_ = false;
  bool pumping_ = false;
  bool seen_request_ = false;
  bool silent_ = false;  // ends since it answered no PING
};

// What the HTTP/2 connections of one shard share.
class Http2Shard {
 public:
  Http2Shard(size_t clients_max, size_t streams_max)
      : clients_(clients_max), streams_(streams_max) {}

  // Heads of so many bytes and fields will come.
  void prepare(uint32_t head_bytes, uint32_t fields);
  // Null: out of memory.
  [[nodiscard]] Http2Client* take(Worker& worker, ClientConn& client,
                                  const h2::SessionLimits& limits) {
    return clients_.take(worker, client, limits);
  }
  // Sends what the turn has gathered, and closes what is over.
  void flush();
  // Something is left for the next turn, which must not wait.
  [[nodiscard]] bool restless() const { return !dirty_.empty(); }
  // Frees what died in this turn. No function of theirs is on the stack.
  void reclaim();
  [[nodiscard]] bool empty() const { return clients_.in_use() == 0 && streams_.in_use() == 0; }

 private:
  friend class Http2Client;

  static constexpr int kFlushRounds = 8;

  Slab<Http2Client> clients_;
  Slab<Http2Stream> streams_;
  // Sessions keep a reference, so a larger one replaces an older only for new connections.
  std::vector<std::unique_ptr<h2::SessionScratch>> scratches_;
  uint32_t head_bytes_ = 0;
  uint32_t fields_ = 0;
  std::vector<Http2Client*> dirty_;
  std::vector<Http2Client*> flushing_;
  std::vector<Http2Client*> dead_clients_;
  std::vector<Http2Stream*> dead_streams_;
};

}  // namespace ringway
