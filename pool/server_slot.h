// pool/server_slot.h - one server on one shard: its connections, and the decision to reuse one.
//
// Affinity:  one shard. Ownership: owned by lb's upstream; lives until it is retired and its last
//            connection is closed.
// Bounds:    idle connections by SlotSpec::idle_max, all of them by the shard's slab.
#pragma once

#include <cstdint>

#include "core/counters.h"
#include "pool/server_conn.h"

namespace ringway {

// What the pool must know of a server. Times in milliseconds.
struct SlotSpec {
  ServerAddress address;
  int64_t connect_timeout_ms = 2'000;
  int64_t idle_timeout_ms = 25'000;
  uint64_t idle_max = 512;             // this shard's share
  uint64_t requests_max = UINT64_MAX;  // per connection
  bool reuse = true;
};

// Counted per server and shard; written by the shard, read by the metrics endpoint.
struct ServerStats {
  Counter requests;        // handed a connection for
  Counter connects;        // attempts to open one
  Counter connect_errors;  // refused, timed out, ...
  Counter reused;          // requests that took an idle connection
  Counter idle_closed;     // idle connections that ended, by either side
  Counter responses[6];    // by class, [0]: none came
  Counter bytes_sent;      // to the server
  Counter bytes_received;  // from it
  Counter busy;            // gauge: in use
  Counter idle;            // gauge
  Counter connecting;      // gauge
  Counter sessions;        // gauge: in flight, what the balancer counts
};

class ServerSlot {
 public:
  ServerSlot(PoolContext& context, const SlotSpec& spec, ServerStats& stats);
  ~ServerSlot();
  ServerSlot(const ServerSlot&) = delete;
  ServerSlot& operator=(const ServerSlot&) = delete;

  // A connection for `user`: the idle one used last, if any (unless `fresh`), else a new one.
  // `conn` null: none could be made, `error` is the errno. `connected` false: wait for
  // on_server_connected().
  struct Taken {
    ServerConn* conn = nullptr;
    bool connected = false;
    int error = 0;
  };
  [[nodiscard]] Taken take(ServerUser& user, bool fresh);

  // The user is done with `conn`, which is clean: both messages ended, nothing queued, and it is to
  // be kept. Parks it as idle, or closes it by the limits.
  void give_back(ServerConn& conn);
  // The user is done with `conn`, which must not be used again. Also while connecting.
  void discard(ServerConn& conn);
  // The same with a reset, so that the server sees that the stream was cut.
  void discard_with_reset(ServerConn& conn);

  // New limits after a reload; the address stays. Excess idle connections are closed.
  void update(const SlotSpec& spec);
  // No further connections: idle ones close now, the others when they are given back.
  void retire();
  // Closes the idle connections, e.g. since the server was found down.
  void close_idle();

  [[nodiscard]] bool empty() const { return live_ == 0; }
  [[nodiscard]] size_t idle() const { return idle_count_; }
  [[nodiscard]] const SlotSpec& spec() const { return spec_; }
  [[nodiscard]] ServerStats& stats() { return stats_; }

 private:
  friend class ServerConn;

  using IdleList = boost::intrusive::list<
      ServerConn, boost::intrusive::member_hook<ServerConn, ServerConn::Hook, &ServerConn::hook_>,
      boost::intrusive::constant_time_size<false>>;

  // The only writer of ServerConn::place_: unlinks, counts and links.
  void move(ServerConn& conn, ServerConn::Place to);
  Counter* gauge(ServerConn::Place place);
  void close(ServerConn& conn, bool with_reset);
  void reclaim(ServerConn& conn);
  Taken open(ServerUser& user);

  PoolContext& context_;
  SlotSpec spec_;
  ServerStats& stats_;
  IdleList idle_;  // front: used last
  size_t idle_count_ = 0;
  size_t live_ = 0;  // all connections, closing ones included
  bool retired_ = false;
};

}  // namespace ringway
