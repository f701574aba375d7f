// tests/support/tls_world.h - a TLS server and a TLS client, two streams against each other on one
// Io: the simulated one or a real one.
#pragma once

#include <doctest/doctest.h>
#include <time.h>

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/stream.h"
#include "core/tls_client.h"
#include "core/tls_server.h"
#include "core/tls_session.h"
#include "core/tls_shard.h"
#include "core/tls_verify.h"
#include "tests/support/make_certificate.h"
#include "tests/support/sim_io.h"

namespace ringway {

// One side: remembers what it was told.
struct TlsEnd final : SocketOwner {
  explicit TlsEnd(StreamEnv& env) : stream(*this, env) {}

  bool send(std::string_view text) {
    const iovec piece{const_cast<char*>(text.data()), text.size()};
    return stream.write({&piece, 1});
  }
  void keep_facts() {
    const TlsSession& tls = *stream.tls();
    cause = tls.failure().text();
    version = tls.version();
    cipher = tls.cipher();
    alpn = tls.alpn();
    server_name = tls.server_name();
    resumed = tls.resumed();
    verdict = tls.verdict();
    has_peer = tls.peer(peer);
  }
  void on_connected(Socket& /*socket*/, int error) override {
    connected = error;
    if (stream.tls() == nullptr) return;
    keep_facts();
    if (error == 0 && wants) stream.set_receiving(true);
    if (error == 0 && then) then();
  }
  void on_secured(Socket& /*socket*/) override {
    ++secured;
    keep_facts();
    if (then) then();
  }
  void on_confirmed(Socket& /*socket*/) override {
    ++confirmed;
    CHECK_FALSE(stream.tls()->early());
  }
  void on_receive(Socket& /*socket*/, std::span<const std::byte> bytes) override {
    CHECK(stream.receiving());
    if (stream.tls() != nullptr && stream.tls()->early()) early_bytes += bytes.size();
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    ++receives;
    if (on_bytes) on_bytes();
  }
  void on_receive_end(Socket& /*socket*/, int error) override {
    ++ends;
    end = error;
    if (stream.tls() != nullptr) cause = stream.tls()->failure().text();
    if (on_end) on_end();
  }
  void on_reset(Socket& /*socket*/, int error) override {
    ++resets;
    reset = error;
  }
  void on_writable(Socket& /*socket*/) override {
    ++writables;
    [[maybe_unused]] const bool good = stream.flush();
    if (on_room) on_room();
  }
  void on_closed(Socket& /*socket*/) override { ++closed; }
  void on_tls_ticket(Socket& /*socket*/, TlsTicket ticket) override {
    tickets.push_back(std::move(ticket));
  }
  // The handshake is over, one way or the other.
  [[nodiscard]] bool decided() const { return secured > 0 || connected >= 0 || ends > 0; }

  Stream stream;
  std::function<void()> then;
  std::function<void()> on_bytes;
  std::function<void()> on_end;
  std::function<void()> on_room;
  std::vector<TlsTicket> tickets;
  std::string text;
  std::string cause;
  std::string version;
  std::string cipher;
  std::string alpn;
  std::string server_name;
  TlsPeer peer;
  TlsVerdict verdict = TlsVerdict::kNone;
  bool wants = true;
  bool resumed = false;
  bool has_peer = false;
  int connected = -1;
  int secured = 0;
  int confirmed = 0;
  size_t early_bytes = 0;  // of `text`: came as early data
  int receives = 0;
  int ends = 0;
  int end = -1;
  int resets = 0;
  int reset = -1;
  int writables = 0;
  int closed = 0;
};

inline std::shared_ptr<const TlsCertificate> to_tls(
    const test::MadeCertificate& made,
    std::initializer_list<const test::MadeCertificate*> more = {}) {
  std::string chain = made.cert_pem;
  for (const test::MadeCertificate* one : more) chain += one->cert_pem;
  auto loaded = load_certificate({.cert_pem = chain, .key_pem = made.key_pem});
  REQUIRE(loaded.has_value());
  return std::make_shared<const TlsCertificate>(std::move(*loaded));
}

inline std::shared_ptr<const TlsTrust> to_trust(const test::MadeCertificate& authority,
                                                const std::string& crl = "") {
  TlsTrustResult made = TlsTrust::make(authority.cert_pem, crl);
  REQUIRE_MESSAGE(made.trust != nullptr, made.error);
  return std::move(made.trust);
}

using TlsCertificates = std::vector<std::shared_ptr<const TlsCertificate>>;

inline std::shared_ptr<const TlsNames> to_names(TlsCertificates certificates) {
  return std::make_shared<const TlsNames>(std::move(certificates));
}

// An authority and a server of it, "example.test".
struct TlsKeys {
  test::MadeCertificate authority = test::make_certificate({.common_name = "Test CA", .ca = true});
  test::MadeCertificate server = test::make_certificate(
      {.common_name = "server", .names = {"example.test"}, .issuer = &authority});
  std::shared_ptr<const TlsTicketKeys> tickets = TlsTicketKeys::random();
};

// Everything of two shards, on an Io that somebody else turns.
class TlsWorld : public AcceptOwner {
 public:
  explicit TlsWorld(Io& io, const TlsGateOptions& gate = {.per_turn = 1000})
      : io(io),
        server_shard({.sessions_max = 4096, .gate = gate, .records_per_key = 100}, io.now_us()),
        client_shard({.sessions_max = 4096, .gate = {}}, io.now_us()) {
    TlsShard::set_wall_seconds(time(nullptr));
    client_options.trust = to_trust(keys.authority);
    server_options.session_context = "tests";
    names = to_names({to_tls(keys.server)});
  }
  virtual ~TlsWorld() = default;

  // Contexts are made of the options when first used.
  TlsServerContext& server_context() {
    if (server == nullptr) {
      TlsServerResult made =
          TlsServerContext::make(server_shard, server_options, names, keys.tickets);
      REQUIRE_MESSAGE(made.context != nullptr, made.error);
      server = std::move(made.context);
    }
    return *server;
  }
  TlsClientContext& client_context() {
    if (client == nullptr) {
      TlsClientResult made = TlsClientContext::make(client_shard, client_options);
      REQUIRE_MESSAGE(made.context != nullptr, made.error);
      client = std::move(made.context);
    }
    return *client;
  }

  void on_accepted(int fd, const PeerAddress& /*peer*/) override {
    accepted.emplace_back(std::make_unique<TlsEnd>(server_env));
    TlsEnd& end = *accepted.back();
    end.wants = server_wants;
    end.stream.adopt(fd);
    if (end.wants) end.stream.set_receiving(true);
    if (!plain_server) REQUIRE(end.stream.start_tls_server(server_context()));
    if (on_accept) on_accept(end);
  }

  TlsEnd& dial(const TlsClientParams& params = {.server_name = "example.test"}) {
    dialled.emplace_back(std::make_unique<TlsEnd>(client_env));
    TlsEnd& end = *dialled.back();
    REQUIRE(end.stream.connect(address) == 0);
    if (!plain_client) REQUIRE(end.stream.start_tls_client(client_context(), params));
    return end;
  }
  TlsEnd& peer_of_last() { return *accepted.back(); }

  // From now on servers take `bytes` in clear before they speak TLS, and count the receives that
  // this took in `receives`.
  void expect_preface(const std::string& bytes, int& receives) {
    plain_server = true;
    on_accept = [this, &receives, bytes](TlsEnd& end) {
      end.on_bytes = [this, &receives, bytes, one = &end] {
        if (one->stream.tls() != nullptr) return;
        ++receives;
        const size_t common = std::min(bytes.size(), one->text.size());
        CHECK(one->text.compare(0, common, bytes, 0, common) == 0);
        if (one->text.size() <= bytes.size()) return;
        const std::string rest = one->text.substr(bytes.size());
        one->text.clear();
        REQUIRE(one->stream.start_tls_server(server_context()));
        one->stream.feed(std::as_bytes(std::span(rest)));
      };
    };
  }

  // Runs until both sides of the last connection know how the handshake went.
  void settle() {
    REQUIRE(run([this] {
      return dialled.back()->decided() && accepted.size() == dialled.size() &&
             accepted.back()->decided();
    }));
  }
  // A connection that is up; its server's end is peer_of_last().
  TlsEnd& connect(const TlsClientParams& params = {.server_name = "example.test"}) {
    TlsEnd& end = dial(params);
    settle();
    CHECK(end.connected == 0);
    CHECK(accepted.back()->secured == 1);
    return end;
  }
  void close_all() {
    for (auto* ends : {&dialled, &accepted}) {
      for (auto& end : *ends) end->stream.close();
    }
    REQUIRE(run([this] {
      for (auto* ends : {&dialled, &accepted}) {
        for (auto& end : *ends) {
          if (end->stream.attached()) return false;
        }
      }
      return true;
    }));
    dialled.clear();
    accepted.clear();
  }
  void run_shards() {
    server_shard.run(io.now_us());
    client_shard.run(io.now_us());
  }
  // Milliseconds until run_shards() has work; -1: none.
  [[nodiscard]] int shards_next_ms() const {
    const int a = server_shard.next_in_ms(io.now_us());
    const int b = client_shard.next_in_ms(io.now_us());
    if (a < 0 || b < 0) return std::max(a, b);
    return std::min(a, b);
  }
  // Turns until `done`; false if that does not happen.
  virtual bool run(const std::function<bool()>& done) = 0;

  Io& io;
  ChunkPool chunks{4096};
  TlsShard server_shard;
  TlsShard client_shard;
  StreamEnv server_env{io, chunks, &server_shard};
  StreamEnv client_env{io, chunks, &client_shard};
  TlsKeys keys;
  TlsServerOptions server_options;
  TlsClientOptions client_options;
  std::shared_ptr<const TlsNames> names;
  std::unique_ptr<TlsServerContext> server;
  std::unique_ptr<TlsClientContext> client;
  ServerAddress address;
  bool server_wants = true;
  bool plain_server = false;
  bool plain_client = false;
  std::function<void(TlsEnd&)> on_accept;
  std::vector<std::unique_ptr<TlsEnd>> accepted;
  std::vector<std::unique_ptr<TlsEnd>> dialled;
};

class SimTlsWorld : public TlsWorld, public SimLoop {
 public:
  explicit SimTlsWorld(uint64_t seed = 1, const TlsGateOptions& gate = {.per_turn = 1000},
                       bool faults = false)
      : SimTlsWorld(std::make_unique<Net>(seed, faults), gate) {}
  ~SimTlsWorld() override {
    net.stop_faults();
    close_all();
    io.unlisten(listener_);
    net.close_listener(listener_);
  }

  void turn() override {
    run_shards();
    io.run_once(0);
    const int next = shards_next_ms();
    deadline_us_ = next < 0 ? kNever : net.now_us() + std::max(next, 0) * 1000;
  }
  [[nodiscard]] int64_t deadline_us() const override { return deadline_us_; }
  bool run(const std::function<bool()>& done) override {
    // What a test did in between may have made work for the shards.
    const int next = shards_next_ms();
    if (next >= 0) deadline_us_ = std::min(deadline_us_, net.now_us() + next * 1000);
    return net.run_until(done, 2'000'000);
  }

 private:
  struct Net {
    Net(uint64_t seed, bool faults) : net({.seed = seed, .faults = faults}), io(net) {}
    SimNet net;
    SimIo io;
  };
  SimTlsWorld(std::unique_ptr<Net> made, const TlsGateOptions& gate)
      : TlsWorld(made->io, gate), made_(std::move(made)), net(made_->net) {
    net.set_loop(made_->io, this);
    REQUIRE(parse_address("10.0.0.1:443", address));
    listener_ = net.make_listener(address);
    io.listen(listener_, *this);
  }

  std::unique_ptr<Net> made_;
  int listener_ = -1;
  int64_t deadline_us_ = kNever;

 public:
  SimNet& net;
};

}  // namespace ringway
