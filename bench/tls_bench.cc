// bench/tls_bench.cc - what TLS costs: records, handshakes of both sides, memory of who is idle.
//
// Both ends run in this process on the epoll engine over loopback, so a handshake's time is the
// client's and the server's; records are also sent without TLS, to be subtracted. Budget: memory of
// an idle connection at most 5 KiB (docs/performance.md).
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <malloc.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <csignal>
#include <memory>
#include <string>
#include <vector>

#include "core/base/check.h"
#include "core/epoll_engine.h"
#include "core/stream.h"
#include "core/tls_client.h"
#include "core/tls_server.h"
#include "core/tls_session.h"
#include "core/tls_shard.h"
#include "core/tls_verify.h"
#include "tests/support/make_certificate.h"

namespace ringway {
namespace {

struct End final : SocketOwner {
  explicit End(StreamEnv& env) : stream(*this, env) {}
  void on_connected(Socket& /*socket*/, int error) override {
    RW_CHECK(error == 0);
    up = true;
    stream.set_receiving(true);
  }
  void on_secured(Socket& /*socket*/) override { up = true; }
  void on_receive(Socket& /*socket*/, std::span<const std::byte> bytes) override {
    received += bytes.size();
    if (!echoes) return;
    const iovec piece{const_cast<std::byte*>(bytes.data()), bytes.size()};
    RW_CHECK(stream.write({&piece, 1}));
  }
  void on_receive_end(Socket& /*socket*/, int /*error*/) override { stream.close(); }
  void on_writable(Socket& /*socket*/) override { RW_CHECK(stream.flush()); }
  void on_closed(Socket& /*socket*/) override { closed = true; }
  void on_tls_ticket(Socket& /*socket*/, TlsTicket given) override { ticket = std::move(given); }

  Stream stream;
  TlsTicket ticket;
  size_t received = 0;
  bool up = false;
  bool closed = false;
  bool echoes = false;
};

struct Setup {
  bool tls = true;
  test::KeyKind key = test::KeyKind::kEcdsaP256;
  uint16_t version = kTls13;
  bool verify = true;
};

// A listener and what connects to it.
class World final : public AcceptOwner {
 public:
  explicit World(const Setup& setup) : setup_(setup) {
    TlsShard::set_wall_seconds(time(nullptr));
    const test::MadeCertificate authority =
        test::make_certificate({.common_name = "CA", .ca = true});
    const test::MadeCertificate made = test::make_certificate(
        {.common_name = "server", .names = {"bench.test"}, .key = setup.key, .issuer = &authority});
    auto certificate = load_certificate({.cert_pem = made.cert_pem, .key_pem = made.key_pem});
    RW_CHECK(certificate.has_value());
    std::vector<std::shared_ptr<const TlsCertificate>> all;
    all.push_back(std::make_shared<const TlsCertificate>(std::move(*certificate)));
    server_ = TlsServerContext::make(shard_, {}, std::make_shared<const TlsNames>(std::move(all)),
                                     TlsTicketKeys::random())
                  .context;
    TlsClientOptions options;
    options.verify = setup.verify;
    options.policy.version_max = setup.version;
    options.trust = TlsTrust::make(authority.cert_pem, "").trust;
    client_ = TlsClientContext::make(shard_, options).context;
    ServerAddress any;
    RW_CHECK(parse_address("127.0.0.1:0", any));
    listener_ = open_listener(any);
    address.length = sizeof address.storage;
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address.storage), &address.length);
    io.listen(listener_, *this);
  }
  ~World() {
    for (auto& end : ends_) end->stream.abort();
    while (!ends_.empty()) {
      turn();
      reap();
    }
    io.unlisten(listener_);
    ::close(listener_);
  }

  void on_accepted(int fd, const PeerAddress& /*peer*/) override {
    End& end = add();
    end.echoes = true;
    end.stream.adopt(fd);
    end.stream.set_receiving(true);
    if (setup_.tls) RW_CHECK(end.stream.start_tls_server(*server_));
    accepted = &end;
  }
  End& dial(const TlsTicket* ticket = nullptr) {
    End& end = add();
    accepted = nullptr;
    RW_CHECK(end.stream.connect(address) == 0);
    if (setup_.tls) {
      RW_CHECK(
          end.stream.start_tls_client(*client_, {.server_name = "bench.test", .ticket = ticket}));
    }
    return end;
  }
  End& connect(const TlsTicket* ticket = nullptr) {
    End& end = dial(ticket);
    while (!end.up || accepted == nullptr || (setup_.tls && !accepted->up)) turn();
    return end;
  }
  void turn() {
    shard_.run(io.now_us());
    io.run_once(1);
  }
  // Sends `text`, waits for its echo.
  void round_trip(End& end, std::string_view text) {
    const size_t until = end.received + text.size();
    const iovec piece{const_cast<char*>(text.data()), text.size()};
    RW_CHECK(end.stream.write({&piece, 1}));
    while (end.received < until) turn();
  }
  void reap() {
    std::erase_if(ends_, [](const auto& end) { return end->closed; });
  }

  EpollEngine io{0};
  ServerAddress address;  // where dial() goes
  End* accepted = nullptr;

 private:
  End& add() { return *ends_.emplace_back(std::make_unique<End>(env_)); }

  Setup setup_;
  ChunkPool chunks_{4096};
  TlsShard shard_{{.sessions_max = 1 << 20, .gate = {.per_turn = 1 << 20}}, io.now_us()};
  StreamEnv env_{io, chunks_, &shard_};
  std::unique_ptr<TlsServerContext> server_;
  std::unique_ptr<TlsClientContext> client_;
  int listener_ = -1;
  std::vector<std::unique_ptr<End>> ends_;
};

// There and back: two writes and two reads of so many bytes.
void bm_round_trip(benchmark::State& state) {
  World world({.tls = state.range(1) != 0});
  End& end = world.connect();
  const std::string text(static_cast<size_t>(state.range(0)), 'x');
  for (int i = 0; i < 50; ++i) world.round_trip(end, text);
  for (auto _ : state) world.round_trip(end, text);
  state.SetBytesProcessed(2 * state.range(0) * static_cast<int64_t>(state.iterations()));
}
BENCHMARK(bm_round_trip)
    ->ArgNames({"bytes", "tls"})
    ->ArgsProduct({{128, 16 * 1024, 64 * 1024}, {0, 1}})
    ->MinTime(0.2);

// A connection from connect(2) to both sides being secured, and its reset.
void bm_handshake(benchmark::State& state) {
  World world({.tls = state.range(2) != 0,
               .key = state.range(1) == 0 ? test::KeyKind::kEcdsaP256 : test::KeyKind::kRsa2048,
               .version = state.range(2) == 12 ? kTls12 : kTls13});
  TlsTicket ticket;
  if (state.range(0) != 0) {
    End& first = world.connect();
    world.round_trip(first, "x");
    ticket = std::move(first.ticket);
    RW_CHECK(!ticket.empty());
  }
  for (auto _ : state) {
    End& end = world.connect(&ticket);
    if (state.range(2) != 0) RW_CHECK(end.stream.tls()->resumed() == !ticket.empty());
    end.stream.abort();
    while (!world.accepted->closed) world.turn();
    world.reap();
  }
}
BENCHMARK(bm_handshake)
    ->ArgNames({"resumed", "rsa", "version"})
    ->Args({0, 0, 0})
    ->Args({0, 0, 13})
    ->Args({0, 1, 13})
    ->Args({1, 0, 13})
    ->Args({0, 0, 12})
    ->Args({0, 1, 12})
    ->Args({1, 0, 12})
    ->MinTime(0.2);

// The clients of bm_idle_memory, in a process of their own so that their memory does not count.
[[noreturn]] void run_clients(int from_parent, int to_parent, size_t count, const Setup& setup) {
  World world(setup);
  RW_CHECK(read(from_parent, &world.address, sizeof world.address) == sizeof world.address);
  for (size_t i = 0; i < count; ++i) {
    End& end = world.dial();
    while (!end.up) world.turn();
    world.round_trip(end, "x");
  }
  RW_CHECK(write(to_parent, "x", 1) == 1);
  for (;;) pause();
}

// User memory of a server's connection that was used once and is idle, without its owner.
void bm_idle_memory(benchmark::State& state) {
  const auto count = static_cast<size_t>(state.range(0));
  const Setup setup{.tls = state.range(1) != 0,
                    .version = state.range(1) == 12 ? kTls12 : kTls13,
                    .verify = false};
  for (auto _ : state) {
    int down[2];
    int up[2];
    RW_CHECK(pipe(down) == 0 && pipe2(up, O_NONBLOCK) == 0);
    const pid_t child = fork();
    if (child == 0) run_clients(down[0], up[1], count, setup);
    {
      World world(setup);
      world.connect();
      const size_t before = mallinfo2().uordblks;
      RW_CHECK(write(down[1], &world.address, sizeof world.address) == sizeof world.address);
      char byte = 0;
      while (read(up[0], &byte, 1) != 1) world.turn();
      const size_t bytes = (mallinfo2().uordblks - before) / count - sizeof(End);
      state.counters["bytes_each"] = static_cast<double>(bytes);
      kill(child, SIGKILL);
      waitpid(child, nullptr, 0);
    }
    for (const int fd : {down[0], down[1], up[0], up[1]}) ::close(fd);
  }
}
BENCHMARK(bm_idle_memory)
    ->ArgNames({"connections", "version"})
    ->Args({1000, 0})
    ->Args({1000, 12})
    ->Args({1000, 13})
    ->Iterations(1);

}  // namespace
}  // namespace ringway

BENCHMARK_MAIN();
