// lb/worker.h - a shard's balancer: listeners, upstreams, sessions, on one Io.
//
// Affinity:  one thread, the Io's. Ownership: owns everything of its shard; the Io outlives it.
// Bounds:    WorkerOptions; running out refuses clients, with a counter.
// Why:       knows no thread and no kernel, so the simulator runs it unchanged.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/slab.h"
#include "core/chunks.h"
#include "core/io.h"
#include "core/log.h"
#include "core/stream.h"
#include "core/timers.h"
#include "lb/access_log.h"
#include "lb/client_conn.h"
#include "lb/exchange.h"
#include "lb/http2_client.h"
#include "lb/l4_session.h"
#include "lb/listener.h"
#include "lb/output_pace.h"
#include "lb/pool_report.h"
#include "lb/snapshot.h"
#include "lb/tls/shard_tls.h"
#include "lb/upstream.h"
#include "pool/server_mux.h"
#include "proto/own_fields.h"

namespace ringway {

// How many client connections each shard has. Written per connection, never per request.
struct alignas(64) ShardLoad {
  std::atomic<uint32_t> clients{0};
};

// The other shards, as a worker sees them.
class Peers {
 public:
  // Gives an accepted descriptor to shard `to`, whose load the caller has counted already. False:
  // its mailbox is full.
  [[nodiscard]] virtual bool hand_over(uint32_t to, uint32_t listener_id, int fd,
                                       const PeerAddress& peer) = 0;
  // False: its mailbox is full, and `mail` is still the caller's.
  [[nodiscard]] virtual bool tell(uint32_t to, const ShardMail& mail) = 0;

 protected:
  ~Peers() = default;
};

struct WorkerOptions {
  uint32_t shard = 0;
  std::span<ShardLoad> loads;      // of all shards, this one included
  Peers* peers = nullptr;          // null if there is one shard only
  uint64_t clients_max = 100'000;  // of all shards together
  size_t chunks_max = 65'536;      // 1 GiB of waiting bytes
  uint64_t seed = 1;
  HashKey secret{};                // of connection keys; the same for all shards
  LogRing* process_log = nullptr;  // null: silent
  int64_t wall_offset_us = 0;      // wall clock minus Io::now_us()
};

// A snapshot in use on this shard. Counted here, so that requests touch no shared counter.
struct SnapshotUse {
  std::shared_ptr<const Snapshot> snapshot;
  uint32_t users = 0;
};

class Worker final : public BudgetPeers, public BorrowPost {
 public:
  Worker(Io& io, const WorkerOptions& options);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Takes over a configuration: listeners and upstreams are compared by identity, the unchanged
  // keep their sockets and connections. `fds` names every bind address of the new configuration.
  // `access_log` null: no access log.
  void apply(std::shared_ptr<const Snapshot> snapshot, std::span<const ListenFd> fds,
             LogRing* access_log);
  // A client that another shard accepted; its load is counted already.
  void adopt(uint32_t listener_id, int fd, const PeerAddress& peer);
  // Another shard, or this one, has something to say about a server.
  void take_mail(const ShardMail& mail);
  // Any thread: nobody will take this mail any more. Returns a descriptor to close, or -1.
  [[nodiscard]] static int drop(const ShardMail& mail);
  void ask_return(Budget& budget, uint32_t shard) override;
  void notify(Budget& budget, uint32_t shard) override;
  void ask(uint32_t to, std::unique_ptr<Borrow> borrow) override;
  void answer(std::unique_ptr<Borrow> borrow) override;
  // Reads the health verdicts and the administrator's settings of servers again.
  void refresh_health();
  // New certificates or ticket keys for the configuration that was applied last.
  void refresh_tls(const TlsMaterials& materials);
  // Where the server connections of this shard are.
  void report(PoolOrder& order) const;
  // Stops accepting, closes idle clients, and answers the rest with "Connection: close".
  void drain();
  // Closes every client at once.
  void stop();
  // No client is left and nothing is accepted. After drain() or stop().
  [[nodiscard]] bool quiet() const;
  // After stop(): closes what is left of pools; true once all sockets are closed.
  [[nodiscard]] bool finished();

  // Walks every pool and checks its invariants. For the simulator.
  void check_pools() const;

  // Any thread, while the Worker lives.
  [[nodiscard]] const TlsShard& tls() const { return tls_.shard(); }

  // Sends what connections have gathered.
  void flush_output() {
    // Each side may give the other something to say.
    muxes_.flush();
    http2_.flush();
    if (muxes_.pending()) muxes_.flush();
    if (http2_.restless()) http2_.flush();
  }
  // Whether what was gathered waits for what the next turn brings.
  [[nodiscard]] bool gathers_more();
  // Between turns: fires timers, frees what died. Returns the milliseconds until the next timer.
  int64_t after_turn();

  // The rest is for the sessions of this shard.
  [[nodiscard]] int64_t now_us() const { return io_.now_us(); }
  [[nodiscard]] int64_t now_ms() const { return io_.now_us() / 1000; }
  [[nodiscard]] int64_t wall_us() const { return io_.now_us() + options_.wall_offset_us; }
  Timers& timers() { return timers_; }
  ChunkPool& chunks() { return chunks_; }
  StreamEnv& stream_env() { return stream_env_; }
  [[nodiscard]] bool draining() const { return draining_; }
  // A hot buffer for heads on their way out; its contents last until the next use.
  std::span<char> render_buffer() { return {render_.get(), render_bytes_}; }
  // Scratch for what a request tells its server in place of the client.
  http1::OwnFields& own_fields() { return own_fields_; }
  // Scratch for a rewritten path, and for the text of a client's address.
  std::string& path_buffer() { return path_buffer_; }
  std::span<char, 46> ip_buffer() { return ip_buffer_; }
  http1::HeadParser* take_parser();
  void give_back_parser(http1::HeadParser* parser);
  SnapshotUse& use_snapshot();
  void release_snapshot(SnapshotUse& use);
  // Upstream number `index` of the current snapshot.
  [[nodiscard]] ShardUpstream& upstream(uint32_t index) { return *by_index_[index]; }
  Slab<Exchange>& exchanges() { return exchanges_; }
  Slab<SessionEntry>& session_entries() { return session_entries_; }
  Http2Shard& http2() { return http2_; }
  // What is known of the connection `fd` that `listener` accepted; nullptr: out of memory
  // (counted).
  [[nodiscard]] ClientOrigin* take_origin(ShardListener& listener, int fd);
  // `origin` may be null.
  void give_back_origin(ClientOrigin* origin);
  // The PROXY header for a server about `client`. Valid until the next call. Gives `origin` a
  // unique id if one is wanted and it has none, and what `tls`, of the client or null, says.
  [[nodiscard]] std::string_view proxy_header(config::ProxySend version,
                                              const config::ProxyTlvs& tlvs,
                                              const PeerAddress& client, const TlsSession* tls,
                                              ClientOrigin& origin);
  // Counts and logs that a client at `peer` is closed over its PROXY header.
  void note_proxy_error(ShardListener& listener, const PeerAddress& peer, ProxyError error);
  // The key of connections of `pool` that are kept apart by `parts` of a request, by the name that
  // is asked for in TLS, and by the PROXY header they began with. Valid until the next call.
  struct RequestKey {
    std::string_view host;
    std::string_view sni;           // empty: the server's own
    std::string_view proxy_header;  // empty: none
    const PeerAddress& client;
    bool only_http1 = false;  // though HTTP/2 could be chosen
  };
  [[nodiscard]] ConnKey connection_key(const ServerPool& pool,
                                       std::span<const config::PoolKey> parts,
                                       const RequestKey& request);
  // Frees it at the end of the turn, since its own functions may still be on the stack.
  void bury(Exchange& exchange);
  // A buffer of at least `bytes` for an answer of our own, beside render_buffer().
  std::span<char> answer_buffer(size_t bytes);
  [[nodiscard]] const config::Route* tcp_route(uint32_t listener,
                                               const tls::ClientHello& hello) const;
  [[nodiscard]] bool logs_access() const { return access_log_ != nullptr; }
  void log_access(const AccessRecord& record);
  void log_event(std::span<const std::string_view> pieces);
  // A client session of either kind is over.
  void client_gone(ClientConn& client);
  void session_gone(L4Session& session);
  // What `session` has read, `bytes`, is not to be passed through: HTTP goes on with its client,
  // with `fd` and `origin`, which may be null. Frees the session.
  void session_becomes_http(L4Session& session, int fd, ClientOrigin* origin,
                            std::string_view bytes);
  void discard(int fd) { io_.discard(fd); }

 private:
  friend class ShardListener;

  void accept(ShardListener& listener, int fd, const PeerAddress& peer);
  void serve(ShardListener& listener, int fd, const PeerAddress& peer);
  void apply_listeners(std::span<const ListenFd> fds);
  void apply_tls();
  void log_lines(const std::vector<std::string>& lines);
  void apply_upstreams();
  void retire(std::unique_ptr<ShardListener> listener);
  void uncount_client(ShardListener& listener);
  void reclaim();
  void sweep();
  void send_mail(uint32_t shard, const ShardMail& mail);
  void deliver_mail();
  [[nodiscard]] ServerSlot* find_slot(const void* object);
  void serve_queues();
  [[nodiscard]] uint32_t least_loaded() const;
  [[nodiscard]] uint64_t clients_everywhere() const;

  using ClientList = boost::intrusive::list<ClientConn, boost::intrusive::base_hook<ClientHook>,
                                            boost::intrusive::constant_time_size<false>>;
  using SessionList = boost::intrusive::list<L4Session, boost::intrusive::base_hook<SessionHook>,
                                             boost::intrusive::constant_time_size<false>>;

  Io& io_;
  WorkerOptions options_;
  Timers timers_;
  ChunkPool chunks_;
  ShardTls tls_;
  StreamEnv stream_env_;
  Slab<ServerConn> server_conns_;
  Slab<KeyGroup> key_groups_;
  Slab<SessionEntry> session_entries_;
  Prng prng_;
  ConnKeyBuffer key_buffer_;
  PoolMemory pool_memory_;
  Slab<ClientConn> clients_;
  Slab<Exchange> exchanges_;
  Http2Shard http2_;
  OutputPace pace_{0};
  Slab<L4Session> sessions_;
  Slab<TlvRoom> tlv_rooms_;  // before origins_, whose objects give rooms back
  Slab<ClientOrigin> origins_;
  std::array<char, ClientOrigin::kHeaderBytes> proxy_header_{};
  http1::OwnFields own_fields_;
  uint64_t next_id_ = 0;  // of the unique ids made here
  ServerMuxes muxes_;
  PoolContext pool_;
  ClientList client_list_;
  SessionList session_list_;
  std::vector<http1::HeadParser*> free_parsers_;
  uint32_t parser_fields_ = 0;
  std::unique_ptr<char[]> render_;
  size_t render_bytes_ = 0;
  std::vector<char> answer_;
  std::string path_buffer_;
  std::array<char, 46> ip_buffer_{};
  std::vector<std::unique_ptr<SnapshotUse>> snapshots_;
  SnapshotUse* current_ = nullptr;
  std::vector<std::unique_ptr<ShardListener>> listeners_;
  std::vector<std::unique_ptr<ShardListener>> leaving_listeners_;
  std::vector<std::unique_ptr<ShardUpstream>> upstreams_;
  std::vector<std::unique_ptr<ShardUpstream>> leaving_upstreams_;
  std::vector<ShardUpstream*> by_index_;
  std::vector<Exchange*> dead_;
  struct Undelivered {
    uint32_t shard = 0;
    ShardMail mail;
  };
  std::vector<Undelivered> undelivered_;  // for this shard itself, and what a full mailbox refused
  std::vector<Undelivered> delivering_;
  std::string pool_name_;
  UpstreamContext upstream_context_;
  LogRing* access_log_ = nullptr;
  AccessLogFormatter access_formatter_;
  config::AccessFormat access_format_ = config::AccessFormat::kJson;
  uint32_t turns_ = 0;
  bool unsettled_ = false;  // something retired by a reload is still in use
  bool draining_ = false;
  bool stopping_ = false;
};

}  // namespace ringway
