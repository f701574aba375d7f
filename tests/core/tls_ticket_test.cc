// tests/core/tls_ticket_test.cc - resumption: over shards, through rotations, and when not.
#include <doctest/doctest.h>

#include <array>

#include "tests/support/tls_world.h"

namespace ringway {
namespace {

TlsPolicy only(uint16_t version) {
  TlsPolicy policy = tls_intermediate();
  policy.version_min = policy.version_max = version;
  return policy;
}

// A fresh session from a connection that is closed again.
TlsTicket get_ticket(SimTlsWorld& world, const std::string& name = "example.test") {
  TlsEnd& client = world.connect({.server_name = name});
  // In TLS 1.3 tickets travel with the server's first bytes.
  REQUIRE(world.peer_of_last().send("x"));
  REQUIRE(world.run([&] { return client.text == "x"; }));
  REQUIRE_FALSE(client.tickets.empty());
  TlsTicket ticket = std::move(client.tickets.back());
  world.close_all();
  return ticket;
}

bool resumes(SimTlsWorld& world, const TlsTicket& ticket,
             const std::string& name = "example.test") {
  TlsEnd& client = world.connect({.server_name = name, .ticket = &ticket});
  const bool resumed = client.resumed;
  CHECK(world.peer_of_last().resumed == resumed);
  CHECK(client.verdict == TlsVerdict::kOk);
  world.close_all();
  return resumed;
}

TEST_CASE("Tls: a ticket -> resumed by another shard with the same keys, TLS 1.2 and 1.3") {
  for (const uint16_t version : {kTls12, kTls13}) {
    CAPTURE(version);
    SimTlsWorld world;
    world.client_options.policy = only(version);
    const TlsTicket ticket = get_ticket(world);
    CHECK(ticket.single_use() == (version == kTls13));
    CHECK(resumes(world, ticket));
    world.server = nullptr;  // Another shard, or node: an equal context, made anew.
    CHECK(resumes(world, ticket));
    CHECK(world.server_shard.counters().server_resumed.get() == 2);
    CHECK(world.client_shard.counters().client_resumed.get() == 2);
    world.server = nullptr;
    world.keys.tickets = TlsTicketKeys::random();
    CHECK_FALSE(resumes(world, ticket));
    CHECK(world.server_shard.counters().tickets_unknown.get() > 0);
  }
}

TEST_CASE("Tls: rotated ticket keys -> an old ticket is good once, then a full handshake") {
  for (const uint16_t version : {kTls12, kTls13}) {
    CAPTURE(version);
    SimTlsWorld world;
    world.client_options.policy = only(version);
    const TlsTicket ticket = get_ticket(world);
    world.keys.tickets = world.keys.tickets->rotated(1);
    world.server_context().set_ticket_keys(world.keys.tickets);
    CHECK(resumes(world, ticket));
    world.keys.tickets = world.keys.tickets->rotated(1);
    world.server_context().set_ticket_keys(world.keys.tickets);
    CHECK_FALSE(resumes(world, ticket));
  }
}

// RFC 5077 3.3: who resumes with an old key's ticket gets one of the current key.
TEST_CASE("Tls: TLS 1.2 with a ticket of the previous key -> is given a new one") {
  SimTlsWorld world;
  world.client_options.policy = only(kTls12);
  const TlsTicket ticket = get_ticket(world);
  world.keys.tickets = world.keys.tickets->rotated(1);
  world.server_context().set_ticket_keys(world.keys.tickets);
  TlsEnd& client = world.connect({.server_name = "example.test", .ticket = &ticket});
  CHECK(client.resumed);
  REQUIRE(world.peer_of_last().send("x"));
  REQUIRE(world.run([&] { return client.text == "x"; }));
  REQUIRE_FALSE(client.tickets.empty());
  const TlsTicket renewed = std::move(client.tickets.back());
  world.close_all();
  world.keys.tickets = world.keys.tickets->rotated(1);
  world.server_context().set_ticket_keys(world.keys.tickets);
  CHECK(resumes(world, renewed));
}

TEST_CASE("Tls: tickets off, expired, or of another profile -> full handshakes") {
  for (const uint16_t version : {kTls12, kTls13}) {
    CAPTURE(version);
    SimTlsWorld world;
    world.client_options.policy = only(version);
    const TlsTicket ticket = get_ticket(world);
    world.server = nullptr;
    world.server_options.session_context = "another";
    CHECK_FALSE(resumes(world, ticket));
    world.server = nullptr;
    world.server_options.session_context = "tests";
    CHECK(resumes(world, ticket));
    TlsShard::set_wall_seconds(TlsShard::wall_seconds() + 7201);
    CHECK_FALSE(resumes(world, ticket));
    TlsShard::set_wall_seconds(TlsShard::wall_seconds() - 7201);
    world.server = nullptr;
    world.server_options.tickets = 0;
    CHECK_FALSE(resumes(world, ticket));
    TlsEnd& client = world.connect();
    REQUIRE(world.peer_of_last().send("x"));
    REQUIRE(world.run([&] { return client.text == "x"; }));
    if (version == kTls13) CHECK(client.tickets.empty());
  }
}

// RFC 6066 3, RFC 8446 4.6.1.
TEST_CASE("Tls: a ticket of one name for another -> a full handshake, also with one certificate") {
  for (const uint16_t version : {kTls12, kTls13}) {
    CAPTURE(version);
    SimTlsWorld world;
    world.client_options.policy = only(version);
    const test::MadeCertificate both = test::make_certificate(
        {.common_name = "ab", .names = {"a.test", "b.test"}, .issuer = &world.keys.authority});
    const test::MadeCertificate other = test::make_certificate(
        {.common_name = "c", .names = {"c.test"}, .issuer = &world.keys.authority});
    world.names = to_names({to_tls(both), to_tls(other)});
    for (const char* const from : {"a.test", "b.test", "c.test"}) {
      CAPTURE(from);
      const TlsTicket ticket = get_ticket(world, from);
      for (const char* const to : {"a.test", "b.test", "c.test"}) {
        CAPTURE(to);
        CHECK(resumes(world, ticket, to) == (std::string_view(from) == to));
      }
    }
    // Case and a final dot make no other name.
    CHECK(resumes(world, get_ticket(world, "a.test"), "A.Test"));
    CHECK(resumes(world, get_ticket(world, "C.TEST"), "c.test"));
  }
}

TEST_CASE("Tls: client certificates are asked for from now on -> old tickets are not resumed") {
  using enum TlsClientAuth;
  for (const uint16_t version : {kTls12, kTls13}) {
    for (const TlsClientAuth before : {kOff, kOptional, kRequired}) {
      for (const TlsClientAuth after : {kOff, kOptional, kRequired}) {
        CAPTURE(version);
        CAPTURE(static_cast<int>(before));
        CAPTURE(static_cast<int>(after));
        SimTlsWorld world;
        const test::MadeCertificate alice = test::make_certificate(
            {.common_name = "alice", .issuer = &world.keys.authority, .client = true});
        world.client_options.policy = only(version);
        world.client_options.certificate = to_tls(alice);
        const auto serve = [&](TlsClientAuth auth) {
          world.server = nullptr;
          world.server_options.client_auth = auth;
          world.server_options.client_trust =
              auth == kOff ? nullptr : to_trust(world.keys.authority);
        };
        serve(before);
        const TlsTicket ticket = get_ticket(world);
        serve(after);
        TlsEnd& client = world.connect({.server_name = "example.test", .ticket = &ticket});
        TlsEnd& server = world.peer_of_last();
        CHECK(client.resumed == (before == after));
        CHECK(server.resumed == (before == after));
        CHECK(server.has_peer == (after != kOff));
        if (after != kOff) CHECK(server.verdict == TlsVerdict::kOk);
        world.close_all();
      }
    }
  }
}

TEST_CASE("Tls: a client resumes what it would not trust any more -> refused") {
  for (const uint16_t version : {kTls12, kTls13}) {
    CAPTURE(version);
    SimTlsWorld world;
    world.client_options.policy = only(version);
    const TlsTicket ticket = get_ticket(world);
    world.client = nullptr;
    const test::MadeCertificate other = test::make_certificate({.common_name = "B", .ca = true});
    world.client_options.trust = to_trust(other);
    TlsEnd& client = world.dial({.server_name = "example.test", .ticket = &ticket});
    REQUIRE(world.run([&] { return client.decided(); }));
    CHECK(client.connected == kTlsFailed);
    CHECK(client.cause == "tls_verify:unknown_ca");
  }
}

TEST_CASE("TlsTicketKeys: files -> both lengths, in order; others are refused") {
  std::string longer;
  for (int i = 0; i < 80; ++i) longer += static_cast<char>(i);
  std::string shorter(48, 'b');
  std::array<std::string_view, 2> files = {longer, shorter};
  const auto keys = TlsTicketKeys::of_files(files);
  REQUIRE(keys != nullptr);
  CHECK(keys->size() == 2);
  CHECK(keys->current().bits == 256);
  CHECK(keys->current().name[15] == 15);
  CHECK(keys->current().mac_key[0] == 16);
  CHECK(keys->current().cipher_key[31] == 79);
  std::array<uint8_t, 16> name{};
  name.fill('b');
  REQUIRE(keys->find(name) != nullptr);
  CHECK(keys->find(name)->bits == 128);
  name.fill('c');
  CHECK(keys->find(name) == nullptr);
  CHECK(keys->rotated(5)->size() == 3);
  CHECK(keys->rotated(1)->size() == 2);
  CHECK(keys->rotated(1)->find(keys->current().name) != nullptr);
  files = {longer, longer};
  CHECK(TlsTicketKeys::of_files(files) == nullptr);
  const std::string wrong(64, 'x');
  files = {longer, wrong};
  CHECK(TlsTicketKeys::of_files(files) == nullptr);
  CHECK(TlsTicketKeys::of_files({}) == nullptr);
  // Both lengths seal and open.
  for (const std::string_view file : {std::string_view(longer), std::string_view(shorter)}) {
    SimTlsWorld world;
    world.keys.tickets = TlsTicketKeys::of_files({&file, 1});
    CHECK(resumes(world, get_ticket(world)));
  }
}

}  // namespace
}  // namespace ringway
