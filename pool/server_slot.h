// pool/server_slot.h - one server on one shard: makes its connections and hands them out.
//
// Affinity:  one shard. Ownership: owned by lb's upstream; lives until it is retired and its last
//            connection is closed.
// Bounds:    the shares of the process's limits in SlotShares; the shard's slab.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/counters.h"
#include "core/local_end.h"
#include "pool/borrow.h"
#include "pool/recent_min.h"
#include "pool/recent_rate.h"
#include "pool/server_conn.h"
#include "pool/server_pool.h"
#include "pool/server_stream.h"

namespace ringway {

class TlsClientContext;

// What is spoken to a server. kByAlpn: what it chooses in the TLS handshake. kHttp2: with TLS it
// must choose "h2"; in clear text it is known to speak it (RFC 9113 3.3).
enum class HttpChoice : uint8_t { kHttp1, kByAlpn, kHttp2 };

// What the pool must know of a server. Times in milliseconds.
struct SlotSpec {
  ServerAddress address;
  LocalEnd local{};  // what its connections are bound to; part of their key, as the address is
  int64_t connect_timeout_ms = 2'000;
  PoolLimits pool;
  uint32_t warm = 0;  // connections to hold ready, this shard's share
  bool borrow = false;
  // TLS to the server: what is spoken, and which name is asked for unless a key says another. With
  // neither, its certificate must be for `tls_address`: there is always something that it must be
  // for.
  std::shared_ptr<TlsClientContext> tls{};  // null: none
  std::string sni{};
  std::string tls_address{};
  HttpChoice http = HttpChoice::kHttp1;
  uint32_t max_streams = 100;    // requests at once on an HTTP/2 connection, the server willing
  uint32_t header_table = 4096;  // of HPACK there, each direction
  // HTTP/2: silent for so long, a server is sent a PING, and must say something in as long again;
  // 0: never.
  int64_t idle_ping_ms = 0;
};

// This shard's parts of the limits of the whole process.
struct SlotShares {
  BudgetShare* connections = nullptr;  // null: unlimited
  BudgetShare* idle = nullptr;
};

// The other shards' slots of the same server. `post` null: there are none.
struct SlotPeers {
  const void* server = nullptr;  // see Borrow::server
  BorrowHints* hints = nullptr;
  BorrowPost* post = nullptr;
  uint32_t shard = 0;
  uint32_t shards = 1;
};

// Told when a connection's place became free, so that who waits may try again.
class SlotEvents {
 public:
  virtual void on_room() = 0;

 protected:
  ~SlotEvents() = default;
};

// What is limited over all shards (pool/budget.h).
enum class Limit : uint8_t { kRequests, kConnections, kIdle };
inline constexpr size_t kLimits = 3;
inline constexpr std::array<std::string_view, kLimits> kLimitNames = {"requests", "connections",
                                                                      "idle"};

// Counted per server and shard; written by the shard, read by the metrics endpoint.
struct ServerStats {
  Counter requests;               // handed a connection for
  Counter connects;               // attempts to open one
  Counter connect_errors;         // refused, timed out, ...
  Counter local_failures;         // of those, since they could not be bound to SlotSpec::local
  Counter tls_failures;           // of those, by TLS: a certificate that is no good, ...
  Counter stale;                  // reused ones that were dead when they were used
  Counter full;                   // requests that found every connection of the limit in use
  Counter borrows;                // questions to other shards,
  Counter borrows_refused;        // which had nothing,
  Counter borrows_late;           // or whose answer came too late
  Counter lent;                   // connections given to other shards
  Counter responses[6];           // by class, [0]: none came
  Counter bytes_sent;             // to the server
  Counter bytes_received;         // from it
  Counter sessions;               // gauge: in flight, what the balancer counts
  LatencyHistogram connect_time;  // until it could be used, TLS included; failures are not counted
  LatencyHistogram borrow_time;   // from asking another shard until its connection was here
  // Limits, by kLimitNames: how often units came to this shard, and how long it waited for one that
  // it had asked for.
  std::array<Counter, kLimits> refills;
  LatencyHistogram limit_wait;
  PoolStats pool;
};

class ServerSlot final : public TimerOwner {
 public:
  ServerSlot(PoolContext& context, const SlotSpec& spec, ServerStats& stats,
             const SlotShares& shares = {}, SlotEvents* events = nullptr,
             const SlotPeers& peers = {});
  ~ServerSlot();
  ServerSlot(const ServerSlot&) = delete;
  ServerSlot& operator=(const ServerSlot&) = delete;

  // A connection for `user`. `conn` null: none could be made, `error` is the errno, or EAGAIN when
  // the limit of connections is reached, or an idle one is being closed for want of resources
  // (on_room() follows one day). `connected` false: wait for
  // on_server_connected().
  // `stream`: the request's place on a connection that speaks HTTP/2, `connected` then. What is
  // said of a connection's user below is said for streams in pool/server_stream.h.
  struct Taken {
    ServerConn* conn = nullptr;
    bool connected = false;
    int error = 0;
    ServerStream* stream = nullptr;
  };
  // `key` null: the connection does not depend on the request.
  [[nodiscard]] Taken take(ServerUser& user, const ConnKey* key, const PickRules& rules);
  // The session's own connection under `target` with this key, idle or with room for another
  // request; `conn` null: there is none.
  [[nodiscard]] Taken take_private(ServerUser& user, SessionStore& store, const TargetRef& target,
                                   const ConnKey* key);
  // `user` does not want to wait for `conn` any more, on which on_server_connected() or
  // on_server_stream() has not come. Others that wait for it go on. `conn` is what take() said or
  // on_server_moved() has said since.
  void cancel(ServerConn& conn, ServerUser& user);
  // A new connection that is closed after its one use. `preface`: see ConnKey.
  [[nodiscard]] Taken open_single(ServerUser& user, std::string_view preface = {});
  // What a connection's key has as its preface was sent when it was opened; with HTTP/2 always.
  [[nodiscard]] bool sends_preface() const { return spec_.tls != nullptr; }
  // The server's last SETTINGS say that it takes WebSockets over HTTP/2 (RFC 8441).
  [[nodiscard]] bool takes_websocket() const { return takes_websocket_; }
  // `conn` belongs to this session from now on; see ServerPool::make_private().
  void reserve(ServerConn& conn, SessionStore& store, const TargetRef& target,
               PrivateReason reason) {
    if (!pool_.make_private(conn, store, target, reason)) stats_.pool.unkept.add();
  }

  // The user is done with `conn`; `notes` say in which state. Nothing of it waits to be sent.
  void give_back(ServerConn& conn, const FinishNotes& notes);
  // The user is done with `conn`, which must not be used again. Also while connecting; cancel() is
  // better then, since others may wait for it.
  void discard(ServerConn& conn, CloseReason reason = CloseReason::kError);
  // The same with a reset, so that the server sees that the stream was cut.
  void discard_with_reset(ServerConn& conn, CloseReason reason = CloseReason::kError);
  // `conn`, reused, was dead: closes it and the idle ones that are at least as old.
  void discard_stale(ServerConn& conn);

  // New limits after a reload; both ends' addresses stay.
  void update(const SlotSpec& spec);
  // No further connections: idle ones close now, the others when they are given back.
  void retire(CloseReason reason);
  void return_to_service();
  // Closes the idle connections, e.g. since the server was found down.
  void close_idle(CloseReason reason) { pool_.close_idle(reason); }
  // Another shard asks for an idle connection: answers, now or when the connection is out of here.
  void lend(std::unique_ptr<Borrow> borrow);
  // The answer to a question of this slot.
  void lent(std::unique_ptr<Borrow> borrow);
  // The limit of idle connections was lowered.
  void free_idle() { pool_.free_idle(); }
  // Other shards want places under the limit of connections: closes idle ones while that helps.
  void free_asked();

  [[nodiscard]] bool empty() const { return pool_.total() == 0 && waiting_ == 0; }
  // Requests that wait for a connection which another one has opened.
  [[nodiscard]] uint32_t waiting() const { return waiting_; }
  [[nodiscard]] ServerPool& pool() { return pool_; }
  [[nodiscard]] const ServerPool& pool() const { return pool_; }
  [[nodiscard]] const SlotSpec& spec() const { return spec_; }
  [[nodiscard]] ServerStats& stats() { return stats_; }
  // Why TLS failed the connection that failed last: static text, empty if it was not TLS.
  [[nodiscard]] std::string_view tls_failure() const { return tls_failure_; }
  // Why the one that failed last could not be bound to SlotSpec::local: the same.
  [[nodiscard]] std::string_view local_failure() const { return local_failure_; }

  void on_timer(Timer& timer) override;

 private:
  friend class ServerConn;
  friend class ServerMux;
  friend class ServerMuxes;

  // Idle for so long, a connection is looked at before a request that cannot be repeated goes out.
  static constexpr int64_t kLookAfterMs = 50;
  // How long an answer is waited for before connecting: a tick of the timers at least.
  static constexpr int64_t kBorrowWaitMs = 8;
  static constexpr size_t kBorrowsMax = 8;
  static constexpr int64_t kLendAfterMs = 20;  // idle for so long: may be lent
  // Above this many requests per second a shard keeps its own connections warm, and borrowing only
  // moves them to and fro (docs/decisions.md).
  static constexpr uint32_t kBorrowRateMax = 10;

  struct Pending {
    uint64_t token;
    ServerConn* conn;
    int64_t asked_us;
  };

  [[nodiscard]] bool looks_dead(const ServerConn& conn, const PickRules& rules) const;
  void note_idle_time(const ServerConn& conn, LatencyHistogram& histogram) const;
  bool shed_idle(int error);
  void note_opened(ServerConn& conn, ServerUser* user, const ConnKey* key, const PickRules& rules);
  Taken open(ServerUser* user, const ConnKey* key, Miss miss, const PickRules& rules = {});
  [[nodiscard]] bool may_borrow(const ConnKey* key, Miss miss, const PickRules& rules) const;
  void start_borrow(ServerConn& conn, const ConnKey* key, bool proven_only);
  void start_connect(ServerConn& conn);
  [[nodiscard]] int connect(ServerConn& conn, const ConnKey* key);
  void start_connect_later(ServerConn& conn);
  bool forget_borrow(const ServerConn& conn);
  void take_in(Borrow& borrow);
  void detached(ServerConn& conn, int fd, bool clean);
  void arm_hint();
  void show_hint();
  void hide_hint();
  void borrow_is_late(ServerConn& conn);
  void never_opened(ServerConn& conn);
  void opened_ahead(ServerConn& conn);
  void after_finish(ServerConn& conn, ServerPool::Verdict verdict);
  void reclaim(ServerConn& conn);
  void keep_warm();
  void arm_purge();

  // HTTP/2: server_slot_mux.cc.
  [[nodiscard]] bool expects_http2() const;
  [[nodiscard]] bool chose_http2(const ServerConn& conn) const;
  [[nodiscard]] uint32_t expected_streams() const;
  [[nodiscard]] h2::SessionLimits session_limits() const;
  [[nodiscard]] ServerConn* joinable(const ConnKey* key, const PickRules& rules);
  Taken join(ServerConn& conn, ServerUser& user, const ConnKey* key, const PickRules& rules);
  Taken take_unmade(ServerUser& user, const ConnKey* key, Miss miss, const PickRules& rules);
  void begin_mux(ServerConn& conn);
  void begin_plain(ServerConn& conn);
  Taken take_stream(ServerConn& conn, ServerUser& user, SessionStore* session);
  void serve_waiters(ServerConn& conn);
  void drop(JoinWaiter& waiter);
  // Told by ServerMuxes::flush(), out of every list.
  void retake(JoinWaiter& waiter);
  void settings_came(ServerConn& conn);
  void set_capacity(ServerConn& conn, bool had_room);
  void stream_over(ServerConn& conn, bool completed);
  void connection_lost(ServerConn& conn, bool stale, CloseReason reason);

  PoolContext& context_;
  SlotSpec spec_;
  ServerStats& stats_;
  SlotShares shares_;
  SlotEvents* events_;
  ServerPool pool_;
  SlotPeers peers_;
  std::vector<Pending> pending_;  // questions without an answer yet
  uint64_t next_token_ = 1;
  uint32_t next_lender_ = 0;
  RecentRate finished_;  // requests
  Timer purge_timer_;
  Timer hint_timer_;
  std::string_view tls_failure_;
  std::string_view local_failure_;
  boost::intrusive::list<ServerConn, boost::intrusive::base_hook<JoinableHook>,
                         boost::intrusive::constant_time_size<false>>
      joinable_;                 // being made or without SETTINGS yet; oldest first
  RecentMin streams_seen_;       // MAX_CONCURRENT_STREAMS of its connections
  uint32_t waiting_ = 0;         // JoinWaiters of this slot
  bool last_was_http2_ = false;  // what its last connection chose
  bool takes_websocket_ = false;
  bool hinted_ = false;  // the others know that there is something to lend
  bool retired_ = false;
};

}  // namespace ringway
