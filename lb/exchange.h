// lb/exchange.h - one HTTP request and its response: route, pick a server, relay, release.
//
// Affinity:  one shard. Ownership: a slab object owned by its ClientConn; freed at the end of the
//            turn in which it is done. Holds a server connection while it needs one.
// Bounds:    attempts by the upstream's retry setting; bodies stream, at most one high-water mark
// of
//            them waits on either side.
// Why:       run() reads top to bottom; only it and the do_*() functions decide where to go next.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "core/chunks.h"
#include "lb/gather.h"
#include "lb/upstream.h"
#include "pool/server_conn.h"
#include "pool/server_stream.h"
#include "proto/http1_body.h"
#include "proto/http1_head.h"
#include "proto/http1_write.h"

namespace ringway {

class ClientConn;
class Http2Stream;
class Worker;
struct SnapshotUse;

// The bytes of a request's head, kept for retries and the log.
// NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init): small_ is written before it is read
class HeadStore {
 public:
  ~HeadStore();
  // Copies `bytes`; nullptr when the pool is exhausted. They stay until clear().
  [[nodiscard]] const char* keep(ChunkPool& pool, std::string_view bytes);
  void clear(ChunkPool& pool);

 private:
  std::array<char, 1024> small_;
  Chunk* chunk_ = nullptr;
  std::unique_ptr<char[]> large_;  // beyond a chunk
};

class Exchange final : public ServerUser, public StreamUser, public Waiter {
 public:
  // `stream`: the client's, if it speaks HTTP/2; null: HTTP/1.
  Exchange(Worker& worker, ClientConn& client, Http2Stream* stream = nullptr);
  ~Exchange();

  // Begins with a parsed head, whose parser it keeps. `bytes` are the head's. `early`: they came as
  // early data, so all of this may be a replay (RFC 8470).
  void start(http1::HeadParser* parser, std::string_view bytes, bool early);

  // Bytes behind the head. Returns how many belong to this request and were used.
  size_t on_request_bytes(std::string_view bytes);
  // HTTP/2: the request's body is complete, all of it was taken. Such a body has no framing of its
  // own. REQUIRES: takes_request_end().
  void on_request_end(std::string_view trailers);
  [[nodiscard]] bool takes_request_end() const;
  // What waited for the client has been sent, or fell below the low-water mark.
  void on_client_drained();
  // The client's TLS handshake is over. REQUIRES: awaits_handshake().
  void on_handshake_done();
  [[nodiscard]] bool awaits_handshake() const { return state_ == State::kEarly; }
  // The client ended its side (0) or is gone (errno).
  void on_client_end(int error);
  // The client connection is being closed: let go of everything. The last call.
  void on_client_gone();
  // The client stalls while sending its body (408), or while reading the answer.
  void on_client_timeout(bool sending_body);

  // Request body bytes are still to come and can be taken.
  [[nodiscard]] bool wants_body() const;
  [[nodiscard]] bool request_done() const { return request_done_; }
  [[nodiscard]] bool in_tunnel() const { return state_ == State::kTunnel; }
  [[nodiscard]] bool finished() const { return state_ == State::kDone; }
  // Its answer has begun, and not all of it was given to the client's kernel.
  [[nodiscard]] bool answering() const { return response_started_ && state_ != State::kDone; }

  void on_server_connected(int error) override;
  void on_server_stream(ServerStream& stream) override;
  void on_server_moved(ServerConn& conn) override;
  StreamUser* stream_user() override { return this; }
  void on_stream_head(const h2::HeadBuilder& head, bool end) override;
  void on_stream_data(std::string_view bytes) override;
  void on_stream_end(std::string_view trailers) override;
  void on_stream_settings() override;
  void on_stream_drained() override;
  void on_stream_timeout() override;
  void on_stream_lost(bool unseen, h2::ErrorCode code, std::string_view cause) override;
  void on_server_bytes(std::span<const std::byte> bytes) override;
  void on_server_end(int error) override;
  void on_server_drained() override;
  void on_server_timeout() override;
  // Waiter: another server may have room now.
  void on_turn() override;
  void on_queue_timeout() override;

 private:
  enum class State : uint8_t {
    kEarly,       // came as early data, and does not go on before the handshake is over
    kRoute,       // which route, and what it does
    kPickServer,  // which server
    kQueued,      // all of them have as much as they may: waits for its turn
    kTakeConn,    // a connection to it
    kConnecting,  // waits for that connection
    kSendHead,    // has it; the head goes out with the first body bytes
    kRelay,       // bodies both ways
    kTunnel,      // after a 101: bytes both ways
    kFlush,       // the answer is complete but partly queued
    kDone
  };
  enum class Step : uint8_t { kNext, kWait };
  static constexpr uint8_t kStalePicksMax = 2;
  static constexpr uint8_t kStreamTriesMax = 5;  // of a request that its server did not look at
  // A body is kept so far for a second try on another connection.
  static constexpr size_t kKeptBodyBytes = Chunk::kBytes;
  enum class EndedBy : uint8_t { kNobody, kClient, kServer, kProxy };

  void run();
  Step do_route();
  Step do_pick_server();
  Step do_take_conn();
  Step wait_in_queue();
  Step connection_limit_reached();

  // Which server and connection (exchange_server.cc).
  [[nodiscard]] ShardUpstream::Picked pick_bound_server();
  [[nodiscard]] ServerSlot::Taken take_connection();
  // The header that fresh connections begin with; empty: none, or out of memory.
  [[nodiscard]] std::string_view proxy_header();
  void connection_ready();
  void reserve_connection(PrivateReason reason);
  void connect_failed(int error);
  void attempt_failed(std::string_view cause, bool timed_out, uint16_t status = 503);
  [[nodiscard]] bool try_again_after_stale();
  void note_denied();
  void retry_over(RetryOutcome outcome);
  void note_answered();

  // The request's way to the server (exchange.cc).
  size_t send_head(std::string_view bytes);
  size_t send_again(std::string_view head, std::string_view bytes);
  size_t forward_body(std::string_view head, std::string_view bytes);
  void start_body();
  void end_request_body(std::string_view trailers);
  [[nodiscard]] bool client_ends_here(size_t used, size_t bytes);
  void keep_body(std::string_view bytes);
  void wait_for_server();
  [[nodiscard]] http1::RequestPlan plan_request();
  [[nodiscard]] std::string_view rewritten_path();
  // What only the balancer may say; null: nothing, and nothing is removed.
  [[nodiscard]] const http1::OwnFields* own_fields();
  [[nodiscard]] std::span<const std::string> own_names() const;
  void body_is_bad();

  // To an HTTP/1 server or to a stream (exchange_stream.cc).
  [[nodiscard]] bool server_is_full() const;
  void set_server_deadline(int64_t ms);
  void hold_server();
  void release_server();
  size_t forward_by_stream(std::string_view head, std::string_view bytes);
  [[nodiscard]] bool websocket_by_stream() const;
  [[nodiscard]] bool may_open_websocket();
  void upgrade_by_http1();
  [[nodiscard]] bool server_ends_here() const;
  size_t tunnel_to_server(std::string_view bytes);
  void end_server_tunnel();

  // To an HTTP/1 client or to a stream (exchange_client.cc).
  [[nodiscard]] bool to_client(std::string_view head, std::span<const iovec> body);
  // A head without a body, an interim one for one. False: the client is gone, or it does not fit.
  [[nodiscard]] bool head_to_client(std::string_view head);
  void respond_by_stream(const http1::OwnResponse& response);
  void relay_by_stream(std::string_view head, std::string_view bytes);
  [[nodiscard]] size_t client_queued() const;
  [[nodiscard]] bool client_is_full() const;
  void resume_client();
  void cut_client();
  void end_client_tunnel();

  // The response's way to the client (exchange_response.cc).
  void read_response_head(std::string_view bytes);
  void interim_response();
  void start_response(std::string_view rest);
  void start_tunnel(std::string_view rest);
  [[nodiscard]] bool write_tunnel_head(http1::Out& out);
  [[nodiscard]] http1::ResponsePlan plan_response(const http1::Head& response);
  void relay_response(std::string_view head, std::string_view bytes);
  void end_response(bool extra_bytes);
  void bad_response(std::string_view cause);
  void cut_response(std::string_view cause);
  void tunnel_bytes(std::string_view bytes);
  void tunnel_server_end(int error, bool again);

  // Ends (exchange_end.cc).
  Step answer(uint16_t status, EndedBy by, std::string_view cause, std::string_view extra = {});
  Step answer_grpc(uint16_t status, EndedBy by, std::string_view cause);
  [[nodiscard]] bool is_grpc() const;
  Step respond(const http1::OwnResponse& response, EndedBy by, std::string_view cause);
  Step redirect();
  // The connection, if there is one, is clean and goes back, or is closed; the server is released.
  void give_back_server(const FinishNotes& notes);
  void let_go_of_server();
  void forget_response();
  void forget_server();
  void finish_when_flushed();
  void done();
  void release_all();
  void log();

  [[nodiscard]] const config::Timeouts& timeouts() const;
  [[nodiscard]] const http1::Head& request() const { return parser_->head(); }

  Worker& worker_;
  ClientConn& client_;
  Http2Stream* stream_;  // null: HTTP/1
  SnapshotUse& use_;
  http1::HeadParser* parser_ = nullptr;           // the request's head
  http1::HeadParser* response_parser_ = nullptr;  // while the response's head is read
  const config::Route* route_ = nullptr;
  ShardUpstream* upstream_ = nullptr;
  ShardServer* server_ = nullptr;
  ServerConn* conn_ = nullptr;             // connecting, or HTTP/1
  ServerStream* server_stream_ = nullptr;  // instead: HTTP/2
  ShardServer* last_server_ = nullptr;     // for the log; pinned
  http1::BodyReader request_body_;
  http1::BodyReader response_body_;
  InBuffer response_in_;  // a partial response head
  InBuffer kept_body_;    // as the client sent it, until it is known that it was not in vain
  HeadStore head_;

  FinishNotes notes_;  // what the response says about its connection
  int64_t queued_us_ = 0;
  int64_t queue_wait_us_ = 0;  // in the queue
  std::array<uint32_t, 16> tried_;
  uint32_t tried_count_ = 0;
  uint32_t tried_epoch_ = 0;
  uint32_t attempts_ = 0;
  http1::BodyKind request_framing_ = http1::BodyKind::kNone;   // towards the server
  http1::BodyKind response_framing_ = http1::BodyKind::kNone;  // towards the client

  int64_t start_us_;
  int64_t connected_us_ = 0;
  int64_t first_byte_us_ = 0;
  size_t held_ = 0;  // bytes of the server's stream that it was not credited yet
  uint64_t bytes_in_ = 0;
  uint64_t bytes_out_ = 0;
  std::string_view cause_;  // a literal: why it ended early
  uint16_t status_ = 0;
  // What the connection's key was made with; a reload may change the upstream's meanwhile.
  config::ProxySend proxy_version_ = config::ProxySend::kOff;
  config::ProxyTlvs proxy_tlvs_;
  State state_ = State::kRoute;
  EndedBy ended_by_ = EndedBy::kNobody;
  bool early_ = false;             // the head came as early data
  bool replayable_ = false;        // and may have been forwarded before, so the server is told
  bool request_done_ = false;      // all of the request was taken from the client
  bool request_started_ = false;   // any byte of it was given to a server
  bool body_kept_ = true;          // all that was sent of the body can be sent again
  bool sending_again_ = false;     // inside send_again()
  bool tunnel_cut_ = false;        // the server is to see that it was
  bool send_broken_ = false;       // the server takes no more of it
  bool response_started_ = false;  // any byte of the final head was given to the client
  bool keep_alive_ = false;        // the client's connection afterwards
  RetryCause next_retry_ = RetryCause::kNone;  // why there will be another try
  RetryCause retry_ = RetryCause::kNone;       // why there is the one under way
  uint8_t stale_picks_ = 0;                    // idle connections that were found dead
  bool login_ = false;          // the connection carries a login, so it is this client's alone
  bool in_turn_ = false;        // inside on_turn()
  bool proxy_due_ = false;      // the connection is fresh: a PROXY header goes first
  bool header_is_own_ = false;  // nobody else's connection can begin with its PROXY header
  bool alone_ = false;          // it shares its connection with no other client
  bool only_http1_ = false;     // by a connection that offers nothing else
  bool was_reused_ = false;
  bool client_ended_ = false;
  bool head_ends_ = false;   // HTTP/2 to the server: the response has no body
  bool body_ended_ = false;  // HTTP/2: the request's body has come to its end
  bool server_ended_ = false;
};

}  // namespace ringway
