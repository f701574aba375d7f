// tests/core/tls_engine_test.cc - TLS on every real engine, and that a record allocates nothing.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <new>

#include "tests/core/real_tls_world.h"

namespace {

// BoringSSL allocates by malloc(3), so what comes by here is ours. One thread.
size_t allocations = 0;

}  // namespace

// Not inlined: GCC would take what new returns for memory that free(3) must not see.
[[gnu::noinline]] void* operator new(size_t size) {
  ++allocations;
  void* memory = std::malloc(size);
  if (memory == nullptr) std::abort();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t /*size*/) noexcept {
  std::free(memory);
}

namespace ringway {
namespace {

TEST_CASE("Tls: every engine -> handshakes, 1 MiB both ways, close_notify") {
  for (auto& engine : engines()) {
    CAPTURE(engine->name());
    RealTlsWorld world(*engine);
    const std::string text(1 << 20, 'x');
    TlsEnd& client = world.connect();
    TlsEnd& server = world.peer_of_last();
    CHECK(server.version == "TLSv1.3");
    size_t echoed = 0;
    server.on_bytes = [&] {
      REQUIRE(server.send(std::string_view(server.text).substr(echoed)));
      echoed = server.text.size();
    };
    size_t at = 0;
    client.on_room = [&] {
      while (at < text.size() && !client.stream.above_high_water()) {
        REQUIRE(client.send(std::string_view(text).substr(at, 50'000)));
        at = std::min(at + 50'000, text.size());
      }
    };
    client.on_room();
    REQUIRE(world.run([&] { return client.text.size() == text.size(); }));
    CHECK((client.text == text));
    client.stream.close();
    REQUIRE(world.run([&] { return server.ends == 1; }));
    CHECK(server.end == 0);
  }
}

TEST_CASE("Tls: a preface on every engine -> in clear before the hello, then TLS") {
  const std::string preface = "PROXY TCP4 192.0.2.1 198.51.100.1 1000 443\r\n";
  for (auto& engine : engines()) {
    CAPTURE(engine->name());
    RealTlsWorld world(*engine);
    int receives = 0;
    world.expect_preface(preface, receives);
    TlsEnd& client = world.connect({.server_name = "example.test", .preface = preface});
    REQUIRE(client.send("ping"));
    REQUIRE(world.run([&] { return world.peer_of_last().text == "ping"; }));
  }
}

TEST_CASE("Tls: records in the steady state -> we allocate nothing") {
  for (auto& engine : engines()) {
    CAPTURE(engine->name());
    RealTlsWorld world(*engine);
    TlsEnd& client = world.connect();
    TlsEnd& server = world.peer_of_last();
    const std::string text(20'000, 'x');
    const auto echo = [&](int times) {
      for (int i = 0; i < times; ++i) {
        client.text.clear();
        server.text.clear();
        REQUIRE(client.send(text));
        while (server.text.size() < text.size()) world.io.run_once(1);
        REQUIRE(server.send(text));
        while (client.text.size() < text.size()) world.io.run_once(1);
      }
    };
    echo(50);  // Queues and lists grow to their sizes.
    const size_t before = allocations;
    echo(50);
    CHECK(allocations == before);
  }
}

TEST_CASE(
    "Tls: 40 handshakes at once, one per turn -> in order, counted; requests go on meanwhile") {
  EpollEngine io(0);
  RealTlsWorld world(io, {.per_turn = 1});
  TlsEnd& old_client = world.connect();
  TlsEnd& old_server = world.peer_of_last();
  std::vector<TlsEnd*> secured;
  world.on_accept = [&](TlsEnd& end) {
    end.then = [&secured, one = &end] { secured.push_back(one); };
  };
  size_t most = 0;
  size_t echoed = 0;
  old_server.on_bytes = [&] {
    most = std::max(most, world.server_shard.handshakes_waiting());
    REQUIRE(old_server.send("pong"));
  };
  old_client.on_bytes = [&] {
    ++echoed;
    REQUIRE(old_client.send("ping"));
  };
  for (int i = 0; i < 40; ++i) world.dial();
  REQUIRE(old_client.send("ping"));
  REQUIRE(world.run([&] { return secured.size() == 40; }));
  CHECK(most > 10);
  CHECK(echoed > 0);
  const auto& counters = world.server_shard.counters();
  CHECK(counters.waited.get() > 10);
  LatencySnapshot waits;
  waits.add(world.server_shard.handshake_wait());
  CHECK(waits.count() == 41);
  CHECK(world.server_shard.next_in_ms(world.io.now_us()) == -1);
}

}  // namespace
}  // namespace ringway
