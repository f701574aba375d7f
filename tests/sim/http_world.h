// tests/sim/http_world.h - the whole balancer in a simulated world: shards, clients, servers,
// faults.
//
// Affinity: one thread. Why: the same seed gives the same run, so every failure can be repeated.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lb/config/load.h"
#include "lb/worker.h"
#include "tests/sim/tls_sides.h"
#include "tests/support/sim_actors.h"

namespace ringway {

// What a simulated server does with a request; named in the request's path.
enum class Act : uint8_t {
  kLength,
  kChunked,
  kUntilClose,
  kInterim,    // a 103 first
  kEmpty,      // 204
  kEarly,      // answers without waiting for the body
  kMalformed,  // two lengths
  kCut,        // closes inside the body
  kSilent,     // never answers
  kCount
};

// One request: its path says who it is and what is to happen, so both ends can check the bytes.
struct Asked {
  uint64_t id = 0;
  Act act = Act::kLength;
  bool head = false;      // HEAD
  bool chunked = false;   // the request's body
  size_t body_bytes = 0;  // of the request; 0: GET
  size_t answer_bytes = 0;
  bool trailers = false;  // of the request, which is chunked then
  std::string host = "sim";
  std::string fields{};  // more lines of the head

  [[nodiscard]] std::string bytes() const;
  // The lines behind the request's body.
  [[nodiscard]] std::string trailer_lines() const;
};

// The bytes that belong to request `id`, as a body of either direction.
[[nodiscard]] std::string body_of(uint64_t id, size_t bytes, bool answer);

// The numbers of "GET /1/2/3/4/5 ...".
[[nodiscard]] bool parse_path(std::string_view head, Asked& out);

// Undoes chunked coding of a whole message. 0: not complete yet; else the bytes used. `trailers`:
// their lines.
[[nodiscard]] size_t take_chunks(std::string_view in, std::string& body, std::string& trailers);

class SimH2Client;
struct SimH2Stream;

// Knows more of a request than its path says.
class SimJudge {
 public:
  // A server has read its head, on a connection of `tls` (or null).
  virtual void judge(const Asked& asked, std::string_view head, const SimTlsServer* tls,
                     bool http2) = 0;

 protected:
  ~SimJudge() = default;
};

// What a server's connection has to do with: both may be null.
struct SimOriginSide {
  SimJudge* judge = nullptr;
  const SimTlsServer* tls = nullptr;
};

// A simulated origin: reads requests strictly, checks their bodies, answers as they ask.
class SimOrigin final : public SimHandler {
 public:
  explicit SimOrigin(const SimOriginSide& side) : side_(side) {}
  void on_bytes(SimConnection& connection, std::string_view bytes) override;

  // Requests whose body differed from what their id demands, in all origins.
  static uint64_t corrupted;
  // Complete requests seen, in all origins.
  static uint64_t served;
  // PROXY headers seen, in all origins.
  static uint64_t headers;
  // Requests that were marked as early data (RFC 8470), in all origins.
  static uint64_t early;
  // Requests with the right trailers, in all origins.
  static uint64_t with_trailers;
  // No connection may carry requests of several clients.
  static bool one_client_each;
  // `asked` came on a connection that names `client` (-1: nobody) and carried requests of `owner`
  // before, which becomes its client.
  static void check_client(const Asked& asked, int64_t client, int64_t& owner);
  // `lines` are the trailers that `asked` came with.
  static void check_trailers(const Asked& asked, std::string lines);

 private:
  // False: the PROXY header is not whole yet.
  [[nodiscard]] bool take_header(SimConnection& connection);
  [[nodiscard]] bool take_request(SimConnection& connection);
  void answer(SimConnection& connection, const Asked& asked);

  SimOriginSide side_;
  size_t at_ = 0;        // in connection.received()
  bool done_ = false;    // it has closed, or was asked to be silent
  bool early_ = false;   // the request that is being read was answered already
  bool begun_ = false;   // whether there is a PROXY header is known
  int64_t client_ = -1;  // whom it names; -1: nobody
  int64_t owner_ = -1;   // whose requests came
};

// One shard: the real worker on a simulated engine.
class SimShard final : public SimLoop, public WakeOwner {
 public:
  SimShard(SimNet& net, const WorkerOptions& options);
  ~SimShard();

  void turn() override;
  [[nodiscard]] int64_t deadline_us() const override { return deadline_us_; }
  void on_wake() override;
  void post(uint32_t listener, int fd, const PeerAddress& peer);
  void tell(const ShardMail& mail);
  void post(std::function<void()> order);

  SimIo io;
  Worker worker;

 private:
  struct Handed {
    uint32_t listener = 0;
    int fd = -1;  // -1: mail, or an order
    PeerAddress peer;
    ShardMail mail;
    std::function<void()> order{};
  };
  SimNet& net_;
  int64_t deadline_us_ = 0;
  std::deque<Handed> inbox_;
};

class HttpWorld final : public Peers, public BudgetPeers, public SimTimerOwner, public SimJudge {
 public:
  HttpWorld(uint64_t seed, bool faults);
  ~HttpWorld();

  // Runs clients, reloads and perhaps a drain; then without faults until all is at rest. False: it
  // did not come to rest.
  bool run();
  // Reads all clients' answers. Returns "" or the first thing that is wrong.
  [[nodiscard]] std::string check();

  bool hand_over(uint32_t to, uint32_t listener_id, int fd, const PeerAddress& peer) override;
  bool tell(uint32_t to, const ShardMail& mail) override;
  void ask_return(Budget& budget, uint32_t shard) override;
  void notify(Budget& budget, uint32_t shard) override;
  void on_sim_timer(uint32_t tag) override;
  void judge(const Asked& asked, std::string_view head, const SimTlsServer* tls,
             bool http2) override;

  SimNet net;
  uint64_t answered = 0;                 // 200 and 204 with the right bytes
  uint64_t refused = 0;                  // error answers of the balancer's own
  uint64_t queued = 0;                   // waited for room
  uint64_t h2_answered = 0;              // of these, to HTTP/2 clients
  uint64_t lent = 0;                     // connections that changed shards
  uint64_t explained = 0;                // refused with the reason why no server could be trusted
  uint64_t preread = 0;                  // hellos that were refused
  std::array<uint64_t, kHows> handed{};  // by How
  std::array<uint64_t, kCloseReasons> closed{};  // by CloseReason
  [[nodiscard]] SimTlsSides::Count tls_count() const { return tls_.count(); }

 private:
  struct Client {
    std::unique_ptr<SimClient> sim;
    std::vector<Asked> asked;  // in order, pipelined
    SimTlsSides::Way way;
    bool tcp = false;                 // nobody but its server reads what it says
    std::unique_ptr<SimH2Client> h2;  // instead of `sim`
  };

  void add_client(uint64_t number);
  void add_servers(SimTlsSides::Group group, int subnet, size_t count);
  void apply(bool first);
  void swap_certificates();
  [[nodiscard]] std::string configuration(uint64_t generation);
  [[nodiscard]] std::string limit();
  // No server connection is shared, whatever a reload changes.
  [[nodiscard]] bool alone() const { return seed_ % 5 == 4; }
  // Connections to servers are bound to a source.
  [[nodiscard]] bool bound() const { return seed_ / 8 % 2 == 1; }
  [[nodiscard]] bool clients_done() const;
  [[nodiscard]] std::string check_client(const Client& client);
  [[nodiscard]] std::string check_h2_stream(const SimH2Stream& stream);
  [[nodiscard]] Asked ask(uint64_t id, const SimTlsSides::Way& way);
  void add_h2_client(uint64_t number, const SimTlsSides::Way& way);
  // Not wrong: an answer of status 502 that says why its server was not trusted.
  [[nodiscard]] bool note_refused(std::string_view status, std::string_view body, bool head);
  [[nodiscard]] std::string check_sources() const;
  [[nodiscard]] std::string check_tls();
  [[nodiscard]] std::string check_gauges();
  void add_up(const Snapshot& snapshot, uint32_t shard);
  std::vector<const void*> counted_;

  Prng prng_;
  bool faults_;
  bool proxied_;  // clients begin with PROXY headers, and servers may be sent some
  uint64_t seed_;
  SimTlsSides tls_;
  std::vector<ShardLoad> loads_;
  std::vector<std::unique_ptr<SimShard>> shards_;
  SimIo servers_io_{net};
  SimIo clients_io_{net};
  std::vector<std::unique_ptr<SimServer>> origins_;
  std::vector<std::unique_ptr<SimServer>> raw_origins_;   // with preread only:
  std::vector<std::unique_ptr<SimServer>> pass_origins_;  // TLS of clients ends there
  std::vector<Client> clients_;
  std::string complaint_;  // the first one
  std::shared_ptr<Snapshot> snapshot_;
  std::vector<std::shared_ptr<Snapshot>> all_snapshots_;
  ServerAddress front_;
  ServerAddress front_tcp_;
  uint64_t generation_ = 0;
  bool drained_ = false;
};

}  // namespace ringway
