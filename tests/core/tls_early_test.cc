// tests/core/tls_early_test.cc - early data (0-RTT): what is told as such, and when it is over.
#include <doctest/doctest.h>

#include "tests/support/raw_tls.h"
#include "tests/support/tls_world.h"

namespace ringway {
namespace {

// A server that takes early data, and a session that allows it.
struct EarlyWorld : SimTlsWorld {
  EarlyWorld() {
    server_options.early_data = true;
    plain_client = true;
    TlsEnd& end = dial_plain();
    RawTls raw(end);
    raw.pump();
    REQUIRE(run([&] { return raw.done && peer_of_last().secured == 1; }));
    CHECK(peer_of_last().confirmed == 0);  // A full handshake has no early part.
    REQUIRE(peer_of_last().send("x"));     // Tickets travel with it.
    REQUIRE(run([&] { return raw.text == "x" && raw.session != nullptr; }));
    session = std::move(raw.session);
    close_all();
  }
  TlsEnd& dial_plain() {
    TlsEnd& end = dial();
    REQUIRE(run([&] { return end.connected == 0; }));
    end.stream.set_receiving(true);
    return end;
  }

  bssl::UniquePtr<SSL_SESSION> session;
};

TEST_CASE("Tls early data: accepted -> read and answered at once, confirmed by the last flight") {
  EarlyWorld world;
  CHECK(SSL_SESSION_early_data_capable(world.session.get()) == 1);
  TlsEnd& end = world.dial_plain();
  RawTls raw(end);
  raw.begin_early(world.session.get(), "early");
  raw.hold_back = true;
  REQUIRE(end.send(raw.take()));
  REQUIRE(world.run([&] { return world.peer_of_last().text == "early"; }));
  TlsEnd& server = world.peer_of_last();
  CHECK(server.secured == 1);
  CHECK(server.early_bytes == 5);
  CHECK(server.stream.tls()->early());
  CHECK(server.version == "TLSv1.3");
  CHECK(server.resumed);
  CHECK(server.server_name == "example.test");
  CHECK(world.server_shard.counters().early_accepted.get() == 1);
  CHECK(world.server_shard.counters().server_resumed.get() == 0);  // It is not complete.
  REQUIRE(server.send("answer"));
  REQUIRE(world.run([&] { return raw.text == "answer"; }));
  CHECK(SSL_early_data_accepted(raw.ssl.get()) == 1);
  world.net.run_for(1'000'000, 10'000);
  CHECK(server.confirmed == 0);
  raw.flush();
  REQUIRE(world.run([&] { return server.confirmed == 1; }));
  CHECK(world.server_shard.counters().server_resumed.get() == 1);
  raw.write(" and later");
  REQUIRE(world.run([&] { return server.text == "early and later"; }));
  CHECK(server.early_bytes == 5);
  CHECK(server.secured == 1);
  CHECK(server.confirmed == 1);
  REQUIRE(server.send(" more"));
  REQUIRE(world.run([&] { return raw.text == "answer more"; }));
  server.stream.shutdown_send();
  REQUIRE(world.run([&] { return raw.last_error == SSL_ERROR_ZERO_RETURN; }));
  CHECK(world.server_shard.counters().early_rejected.get() == 0);
}

// The length of the first record.
size_t record_length(std::string_view flight) {
  return 5 + static_cast<uint8_t>(flight[3]) * 256U + static_cast<uint8_t>(flight[4]);
}

// Early data, the last flight and what follows it come in one piece.
TEST_CASE("Tls early data: its end inside one receive -> told apart, also where the owner pauses") {
  for (const bool pauses : {false, true}) {
    for (const bool wants : {true, false}) {
      CAPTURE(pauses);
      CAPTURE(wants);
      EarlyWorld world;
      world.server_wants = wants;
      TlsEnd& end = world.dial_plain();
      RawTls raw(end);
      raw.begin_early(world.session.get(), "early");
      raw.hold_back = true;
      const std::string flight = raw.take();
      const size_t hello = record_length(flight);
      REQUIRE(end.send(flight.substr(0, hello)));
      REQUIRE(world.run([&] { return SSL_in_init(raw.ssl.get()) == 0; }));
      TlsEnd& server = world.peer_of_last();
      CHECK(server.secured == 1);
      CHECK(server.stream.tls()->early());
      if (pauses) server.on_bytes = [&] { server.stream.set_receiving(false); };
      REQUIRE(SSL_write(raw.ssl.get(), "one", 3) == 3);
      REQUIRE(SSL_write(raw.ssl.get(), "two", 3) == 3);
      REQUIRE(end.send(flight.substr(hello) + raw.take()));
      end.stream.shutdown_send();
      std::string first;
      for (int rounds = 0; server.ends == 0; ++rounds) {
        REQUIRE(rounds < 10);
        server.stream.set_receiving(true);
        REQUIRE(world.run([&] { return server.ends == 1 || !server.stream.receiving(); }));
        if (rounds == 0) first = server.text;
      }
      CHECK(first == (pauses ? "early" : "earlyonetwo"));
      CHECK(server.text == "earlyonetwo");
      CHECK(server.early_bytes == 5);
      CHECK(server.confirmed == 1);
      CHECK(server.end == kTlsTruncated);  // There was no close_notify.
    }
  }
}

TEST_CASE("Tls early data: off, or a ticket of another time -> rejected, counted, sent again") {
  for (const bool off : {true, false}) {
    CAPTURE(off);
    EarlyWorld world;
    world.server = nullptr;
    world.server_options.early_data = !off;
    // Beyond the minute of BoringSSL, which is what bounds a replay.
    if (!off) TlsShard::set_wall_seconds(TlsShard::wall_seconds() + 62);
    TlsEnd& end = world.dial_plain();
    RawTls raw(end);
    raw.begin_early(world.session.get(), "early");
    REQUIRE(end.send(raw.take()));
    REQUIRE(world.run([&] { return raw.last_error == SSL_ERROR_EARLY_DATA_REJECTED; }));
    CHECK(world.peer_of_last().secured == 0);
    SSL_reset_early_data_reject(raw.ssl.get());
    raw.done = false;
    raw.pump();
    TlsEnd& server = world.peer_of_last();
    REQUIRE(world.run([&] { return raw.done && server.secured == 1; }));
    raw.write("again");
    REQUIRE(world.run([&] { return server.text == "again"; }));
    CHECK(server.early_bytes == 0);
    CHECK(server.confirmed == 0);
    CHECK(server.resumed);
    CHECK(world.server_shard.counters().early_rejected.get() == 1);
    CHECK(world.server_shard.counters().early_accepted.get() == 0);
  }
}

// docs/decisions.md: nothing stops this within the minute; so whoever reads early data must expect
// it, and sees that no handshake follows.
TEST_CASE("Tls early data: a replay -> read again, never confirmed, ends as a failed handshake") {
  EarlyWorld world;
  TlsEnd& end = world.dial_plain();
  RawTls raw(end);
  raw.begin_early(world.session.get(), "early");
  const std::string flight = raw.take();
  REQUIRE(end.send(flight));
  REQUIRE(world.run([&] { return world.peer_of_last().text == "early"; }));
  TlsEnd& thief = world.dial_plain();
  REQUIRE(thief.send(flight));
  REQUIRE(world.run([&] { return world.peer_of_last().text == "early"; }));
  TlsEnd& server = world.peer_of_last();
  CHECK(server.early_bytes == 5);
  REQUIRE(server.send("for whoever has the key"));
  world.net.run_for(5'000'000, 10'000);
  CHECK(server.confirmed == 0);
  CHECK(server.stream.tls()->early());
  thief.stream.shutdown_send();
  REQUIRE(world.run([&] { return server.ends == 1; }));
  CHECK(server.end == kTlsTruncated);
  CHECK(server.cause == "tls_closed_in_handshake");
  CHECK(thief.text.find("whoever") == std::string::npos);
}

TEST_CASE("Tls early data: closed at any moment -> nothing is left") {
  for (int us = 0; us < 8'000; us += 250) {
    for (const bool by_client : {true, false}) {
      EarlyWorld world;
      TlsEnd& end = world.dial_plain();
      RawTls raw(end);
      raw.begin_early(world.session.get(), std::string(9'000, 'e'));
      REQUIRE(end.send(raw.take()));
      world.net.run_for(us, 10'000);
      if (by_client || world.accepted.empty()) {
        end.stream.abort();
      } else {
        world.peer_of_last().stream.close();
      }
      end.on_bytes = nullptr;
      world.close_all();
      CHECK(world.server_shard.sessions() == 0);
      CHECK(world.server->handshakes() == 0);
    }
  }
}

}  // namespace
}  // namespace ringway
