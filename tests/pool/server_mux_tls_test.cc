// tests/pool/server_mux_tls_test.cc - servers that choose HTTP/2, or do not, in the TLS handshake.
#include <doctest/doctest.h>
#include <errno.h>

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "tests/pool/mux_world.h"
#include "tests/support/tls_world.h"

namespace ringway {
namespace {

// A slot before a TLS server; HTTP/2 is spoken by those connections that chose it.
struct TlsMuxWorld final : SimTlsWorld {
  TlsMuxWorld(HttpChoice http, const std::vector<std::string>& alpn) {
    server_options.alpn = alpn;
    client_options.alpn = {"h2", "http/1.1"};
    on_accept = [this](TlsEnd& end) { accept(end); };
    muxes.prepare(16 * 1024, 64);
    SlotSpec spec = spec_with(kAlways);
    spec.address = address;
    spec.tls = std::shared_ptr<TlsClientContext>(&client_context(), [](TlsClientContext*) {});
    spec.sni = "example.test";
    spec.http = http;
    slot = std::make_unique<ServerSlot>(context, spec, stats);
  }
  ~TlsMuxWorld() override {
    slot->retire(CloseReason::kReplaced);
    CHECK(run([this] { return slot->empty(); }));
    slot.reset();
    muxes.reclaim();
    close_all();
  }
  void accept(TlsEnd& end) {
    end.then = [this, &end] {
      if (end.alpn != "h2") return;
      h2.push_back(std::make_unique<H2End>(
          [&end](std::string_view bytes) { (void)end.send(std::string(bytes)); }, 100));
      H2End& peer = *h2.back();
      end.on_bytes = [&end, &peer] { peer.on_bytes(std::exchange(end.text, {})); };
      peer.session.begin();
    };
  }
  void turn() override {
    SimTlsWorld::turn();
    timers.expire(net.now_us() / 1000);
    muxes.flush();
    muxes.reclaim();
    if (slot != nullptr) slot->pool().check();
  }
  [[nodiscard]] int64_t deadline_us() const override {
    const int64_t next = timers.next_in_ms(net.now_us() / 1000);
    const int64_t own = next < 0 ? kNever : net.now_us() + std::max<int64_t>(next, 1) * 1000;
    return std::min(SimTlsWorld::deadline_us(), muxes.pending() ? net.now_us() : own);
  }
  void take(H2User& user) {
    const ServerSlot::Taken taken = slot->take(user, nullptr, kLater);
    user.conn = taken.conn;
    user.failed = taken.error;
    if (taken.stream != nullptr) user.on_server_stream(*taken.stream);
  }
  // All of them have got a connection for themselves.
  void use_plain(std::deque<H2User>& users) {
    REQUIRE(run([&] {
      return std::all_of(users.begin(), users.end(),
                         [](const H2User& user) { return user.connected; });
    }));
    for (H2User& user : users) {
      CHECK_FALSE(user.conn->multiplexed());
      slot->give_back(*user.conn, kGood);
    }
  }
  void use_streams(std::deque<H2User>& users) {
    REQUIRE(run([&] {
      size_t waiting = 0;
      for (const auto& end : h2) waiting += end->waiting();
      return waiting == users.size();
    }));
    for (const auto& end : h2) end->answer_all();
    REQUIRE(run([&] {
      return std::all_of(users.begin(), users.end(),
                         [](const H2User& user) { return user.complete; });
    }));
  }

  Timers timers{net.now_us() / 1000 + 1};
  Slab<ServerConn> conns{64};
  Slab<KeyGroup> groups{64};
  Prng prng{1};
  ConnKeyBuffer key_buffer;
  PoolMemory memory{.groups = groups, .secret = {}, .prng = prng, .key_buffer = key_buffer};
  ServerMuxes muxes{64, 1024};
  PoolContext context{
      .stream = client_env, .timers = timers, .conns = conns, .memory = memory, .muxes = &muxes};
  ServerStats stats;
  std::vector<std::unique_ptr<H2End>> h2;
  std::unique_ptr<ServerSlot> slot;
};

}  // namespace

TEST_CASE("ServerMux: a server that chooses h2 is known to, and later requests share") {
  TlsMuxWorld w(HttpChoice::kByAlpn, {"h2", "http/1.1"});
  std::deque<H2User> first(2);
  for (H2User& user : first) w.take(user);
  CHECK(w.stats.connects.get() == 2);  // Nobody knows it yet.
  w.use_streams(first);
  w.slot->close_idle(CloseReason::kDown);
  std::deque<H2User> users(4);
  for (H2User& user : users) w.take(user);
  CHECK(w.stats.connects.get() == 3);
  w.use_streams(users);
}

TEST_CASE("ServerMux: one that chooses HTTP/1.1 gives each request its connection") {
  TlsMuxWorld w(HttpChoice::kByAlpn, {"http/1.1"});
  std::deque<H2User> users(3);
  for (H2User& user : users) w.take(user);
  w.use_plain(users);
  CHECK(w.stats.connects.get() == 3);
  CHECK(w.slot->pool().idle() == 3);
}

TEST_CASE("ServerMux: HTTP/2 was expected and HTTP/1.1 is chosen: who waited gets its own") {
  TlsMuxWorld w(HttpChoice::kByAlpn, {"h2", "http/1.1"});
  std::deque<H2User> first(1);
  w.take(first[0]);
  w.use_streams(first);
  w.slot->close_idle(CloseReason::kDown);
  w.server_options.alpn = {"http/1.1"};  // The server was replaced.
  std::unique_ptr<TlsServerContext> old = std::move(w.server);
  std::deque<H2User> users(4);
  for (H2User& user : users) w.take(user);
  CHECK(w.stats.connects.get() == 2);
  w.use_plain(users);
  CHECK(w.stats.connects.get() == 5);
  CHECK(users[0].moved == 0);
  CHECK(users[3].moved == 1);
}

TEST_CASE("ServerMux: one that must speak HTTP/2 and does not is a failure to connect") {
  TlsMuxWorld w(HttpChoice::kHttp2, {});
  std::deque<H2User> users(2);
  for (H2User& user : users) w.take(user);
  REQUIRE(w.run([&] { return users[1].failed != 0; }));
  CHECK(users[0].failed == EPROTONOSUPPORT);
  CHECK(users[1].failed == EPROTONOSUPPORT);
  CHECK(w.slot->tls_failure() == "the server does not choose HTTP/2");
  CHECK(w.stats.tls_failures.get() == 1);
}

TEST_CASE("ServerMux: HTTP/1.1 is spoken where nothing else was asked for") {
  TlsMuxWorld w(HttpChoice::kHttp1, {"http/1.1"});
  std::deque<H2User> users(2);
  for (H2User& user : users) w.take(user);
  w.use_plain(users);
  CHECK(w.slot->pool().idle() == 2);
}

}  // namespace ringway
