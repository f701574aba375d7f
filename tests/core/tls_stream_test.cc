// tests/core/tls_stream_test.cc - TLS under everything that a stream can meet.
#include <doctest/doctest.h>

#include <algorithm>

#include "tests/support/raw_tls.h"
#include "tests/support/tls_world.h"

namespace ringway {
namespace {

TlsPolicy only(uint16_t version) {
  TlsPolicy policy = tls_intermediate();
  policy.version_min = policy.version_max = version;
  return policy;
}

// Text that shows where bytes are missing, twice or in another order.
std::string numbered(size_t size) {
  std::string text;
  for (size_t i = 0; text.size() < size; ++i) text += std::to_string(i) + ",";
  text.resize(size);
  return text;
}

// Sends all of `text` as a producer should: stops above the high-water mark.
struct Producer {
  Producer(TlsEnd& end, std::string text) : end(end), text(std::move(text)) {
    end.on_room = [this] {
      if (this->end.stream.queued() <= Stream::kLowWaterBytes) go_on();
    };
  }
  void go_on() {
    while (at < text.size() && !end.stream.above_high_water()) {
      const size_t part = std::min<size_t>(text.size() - at, 40'000);
      const std::string_view view(text);
      // Two pieces, as a head and its body are.
      const size_t head = part / 100;
      const iovec pieces[] = {{text.data() + at, head}, {text.data() + at + head, part - head}};
      if (!end.stream.write(pieces)) return;
      at += part;
      most = std::max(most, end.stream.queued());
    }
    if (ends && at == text.size()) end.stream.shutdown_send();
  }
  TlsEnd& end;
  std::string text;
  size_t at = 0;
  size_t most = 0;
  bool ends = false;  // with a close_notify
};

TEST_CASE("Tls: 4 MiB both ways at once -> all bytes in order, what waits is bounded") {
  for (const uint16_t version : {kTls12, kTls13}) {
    SimTlsWorld world;
    world.client_options.policy = only(version);
    TlsEnd& client = world.connect();
    TlsEnd& server = world.peer_of_last();
    Producer up(client, numbered(4 << 20));
    Producer down(server, numbered(4 << 20));
    up.go_on();
    down.go_on();
    REQUIRE(world.run([&] {
      return server.text.size() == up.text.size() && client.text.size() == down.text.size();
    }));
    CHECK((server.text == up.text));
    CHECK((client.text == down.text));
    CHECK(up.most < Stream::kHighWaterBytes + 50'000);
    CHECK(server.writables > 0);
  }
}

TEST_CASE("Tls: the reader pauses -> nothing is delivered, the writer waits, all arrives later") {
  SimTlsWorld world;
  TlsEnd& client = world.connect();
  TlsEnd& server = world.peer_of_last();
  server.on_bytes = [&] { server.stream.set_receiving(false); };
  Producer up(client, numbered(3 << 20));
  up.go_on();
  REQUIRE(world.run([&] { return !server.text.empty(); }));
  size_t rounds = 0;
  while (server.text.size() < up.text.size()) {
    REQUIRE(++rounds < 10'000);
    const size_t before = server.text.size();
    world.net.run_for(200'000, 10'000);
    if (rounds == 1) CHECK(up.at < up.text.size());
    CHECK(server.text.size() == before);
    server.stream.set_receiving(true);
    REQUIRE(world.run([&] { return server.text.size() > before; }));
  }
  CHECK((server.text == up.text));
}

// The client's last flight and its request share a segment.
TEST_CASE("Tls: bytes right behind the handshake, nobody wants them yet -> kept, delivered later") {
  for (const uint16_t version : {kTls12, kTls13}) {
    SimTlsWorld world;
    world.client_options.policy = only(version);
    world.server_wants = false;
    TlsEnd& client = world.dial();
    client.then = [&] { REQUIRE(client.send(numbered(50'000))); };
    world.settle();
    TlsEnd& server = world.peer_of_last();
    world.net.run_for(1'000'000, 10'000);
    CHECK(server.receives == 0);
    client.stream.shutdown_send();
    world.net.run_for(1'000'000, 10'000);
    CHECK(server.ends == 0);
    server.stream.set_receiving(true);
    CHECK(server.receives == 0);  // Never from inside a call of the owner's.
    REQUIRE(world.run([&] { return server.ends == 1; }));
    CHECK(server.end == 0);
    CHECK((server.text == numbered(50'000)));
  }
}

TEST_CASE("Tls: one byte per segment, both ways -> handshake and bytes as ever") {
  for (const uint16_t version : {kTls12, kTls13}) {
    SimTlsWorld world;
    world.client_options.policy = only(version);
    world.net.faults().set(Fault::kTinyWindow, 1);
    world.net.faults().set(Fault::kShortReceive, 1);
    world.net.faults().set(Fault::kShortSend, 1);
    TlsEnd& client = world.connect();
    TlsEnd& server = world.peer_of_last();
    REQUIRE(client.send(numbered(3000)));
    REQUIRE(server.send(numbered(3000)));
    REQUIRE(world.run([&] { return server.text.size() == 3000 && client.text.size() == 3000; }));
    CHECK((server.text == numbered(3000)));
    CHECK((client.text == numbered(3000)));
  }
}

TEST_CASE("Tls: a preface -> in clear before the hello and in one segment with it, then TLS") {
  const std::string preface = "PROXY TCP4 192.0.2.1 198.51.100.1 1000 443\r\n";
  for (const bool cut : {false, true}) {
    for (const uint16_t version : {kTls12, kTls13}) {
      SimTlsWorld world;
      world.client_options.policy = only(version);
      for (const Fault fault : {Fault::kTinyWindow, Fault::kShortReceive, Fault::kShortSend}) {
        if (cut) world.net.faults().set(fault, 1);
      }
      int receives = 0;
      world.expect_preface(preface, receives);
      TlsTicket none;
      for (int i = 0; i < 2; ++i) {
        TlsEnd& client =
            world.connect({.server_name = "example.test",
                           .ticket = i == 0 ? &none : &world.dialled.front()->tickets.front(),
                           .preface = preface});
        CHECK(client.resumed == (i == 1));
        TlsEnd& server = world.peer_of_last();
        REQUIRE(client.send(numbered(3000)));
        REQUIRE(server.send("hello"));
        REQUIRE(world.run([&] { return server.text.size() == 3000 && client.text == "hello"; }));
        CHECK((server.text == numbered(3000)));
        // A resumed session of TLS 1.2 brings no new one.
        REQUIRE(world.run([&] { return i == 1 || !client.tickets.empty(); }));
      }
      if (!cut) CHECK(receives == 2);
    }
  }
}

// A raw client whose bytes arrive in two parts, cut at every place.
TEST_CASE("Tls: a handshake cut at every byte -> the same outcome") {
  for (const uint16_t version : {kTls12, kTls13}) {
    size_t length = 2;
    for (size_t cut = 1; cut < length; ++cut) {
      SimTlsWorld world;
      world.server_options.policy = only(version);
      world.plain_client = true;
      TlsEnd& end = world.dial();
      REQUIRE(world.run([&] { return end.connected == 0; }));
      end.stream.set_receiving(true);
      RawTls raw(end);
      SSL_do_handshake(raw.ssl.get());
      const std::string hello = raw.take();
      length = hello.size();
      REQUIRE(end.send(std::string_view(hello).substr(0, cut)));
      world.net.run_for(20'000, 1000);
      REQUIRE(end.send(std::string_view(hello).substr(cut)));
      REQUIRE(world.run([&] { return raw.done && world.peer_of_last().secured == 1; }));
      raw.write("hello");
      REQUIRE(world.run([&] { return world.peer_of_last().text == "hello"; }));
    }
  }
}

TEST_CASE("Tls: closed at any moment of a handshake -> both sides end, nothing is left") {
  for (const uint16_t version : {kTls12, kTls13}) {
    for (int us = 0; us < 12'000; us += 150) {
      for (const bool by_client : {true, false}) {
        SimTlsWorld world(static_cast<uint64_t>(us) + 1);
        world.client_options.policy = only(version);
        TlsEnd& client = world.dial();
        world.net.run_for(us, 10'000);
        if (by_client || world.accepted.empty()) {
          us % 300 == 0 ? client.stream.close() : client.stream.abort();
        } else {
          TlsEnd& server = world.peer_of_last();
          us % 300 == 0 ? server.stream.close() : server.stream.abort();
        }
        world.close_all();
        CHECK(world.server_shard.sessions() == 0);
        CHECK(world.client_shard.sessions() == 0);
        CHECK(world.server_context().handshakes() == 0);
        CHECK(world.client_context().handshakes() == 0);
        CHECK(world.chunks.in_use() == 0);
      }
    }
  }
}

TEST_CASE("Tls: owners close inside every event -> no event follows but on_closed") {
  for (int where = 0; where < 4; ++where) {
    SimTlsWorld world;
    int after = 0;
    world.on_accept = [&](TlsEnd& end) {
      TlsEnd* server = &end;
      const auto cut = [&, server] {
        server->stream.close();
        after = server->receives;
      };
      if (where == 0) end.then = cut;
      if (where == 1) end.on_bytes = cut;
      if (where == 2) end.on_end = cut;
    };
    TlsEnd& client = world.dial();
    if (where == 3) client.then = [&] { client.stream.close(); };
    if (where != 3) {
      client.then = [&] {
        REQUIRE(client.send(numbered(40'000)));
        client.stream.shutdown_send();
      };
    }
    REQUIRE(world.run([&] {
      return !world.accepted.empty() && world.peer_of_last().closed + client.closed > 0;
    }));
    world.net.run_for(1'000'000, 10'000);
    if (where < 2) CHECK(world.peer_of_last().receives == after);
    if (where < 2) CHECK(world.peer_of_last().ends == 0);
  }
}

TEST_CASE("Tls: FIN without close_notify -> kTlsTruncated, unless the profile says otherwise") {
  for (const bool fin_ends : {false, true}) {
    SimTlsWorld world;
    world.server_options.fin_ends = fin_ends;
    world.plain_client = true;
    TlsEnd& end = world.dial();
    REQUIRE(world.run([&] { return end.connected == 0; }));
    end.stream.set_receiving(true);
    RawTls raw(end);
    raw.pump();
    REQUIRE(world.run([&] { return raw.done && world.peer_of_last().secured == 1; }));
    raw.write("half an ans");
    end.stream.shutdown_send();
    TlsEnd& server = world.peer_of_last();
    REQUIRE(world.run([&] { return server.ends == 1; }));
    CHECK(server.text == "half an ans");
    CHECK(server.end == (fin_ends ? 0 : kTlsTruncated));
    CHECK(server.cause == (fin_ends ? "" : "tls_truncated"));
  }
}

TEST_CASE("Tls: a reset -> its errno; FIN or reset inside a handshake -> tls_closed_in_handshake") {
  SimTlsWorld world;
  world.connect().stream.abort();
  REQUIRE(world.run([&] { return world.peer_of_last().ends == 1; }));
  CHECK(world.peer_of_last().end == ECONNRESET);
  CHECK(world.peer_of_last().cause.empty());
  world.plain_client = true;
  TlsEnd& end = world.dial();
  REQUIRE(world.run([&] { return end.connected == 0; }));
  end.stream.shutdown_send();
  REQUIRE(world.run([&] { return world.accepted.size() == 2 && world.peer_of_last().ends == 1; }));
  CHECK(world.peer_of_last().end == kTlsTruncated);
  CHECK(world.peer_of_last().cause == "tls_closed_in_handshake");
}

TEST_CASE("Tls: close_notify, with FIN or without one, then a reset -> an end, then on_reset") {
  SimTlsWorld world;
  TlsEnd& end = world.connect();
  TlsEnd& server = world.peer_of_last();
  end.stream.shutdown_send();
  REQUIRE(world.run([&] { return server.ends == 1; }));
  CHECK(server.end == 0);
  world.net.run_for(1'000'000, 10'000);
  CHECK(server.resets == 0);
  end.stream.abort();
  REQUIRE(world.run([&] { return server.resets == 1; }));
  CHECK(server.reset == EPIPE);

  world.plain_client = true;
  TlsEnd& plain = world.dial();
  REQUIRE(world.run([&] { return plain.connected == 0; }));
  plain.stream.set_receiving(true);
  RawTls raw(plain);
  raw.pump();
  REQUIRE(world.run([&] { return raw.done && world.peer_of_last().secured == 1; }));
  TlsEnd& other = world.peer_of_last();
  SSL_shutdown(raw.ssl.get());
  // What comes behind it is nothing, and must not stand in the reset's way.
  REQUIRE(plain.send(raw.take() + numbered(40'000)));
  REQUIRE(world.run([&] { return other.ends == 1; }));
  CHECK(other.end == 0);
  world.net.run_for(1'000'000, 10'000);
  CHECK(other.text.empty());
  plain.stream.abort();
  REQUIRE(world.run([&] { return other.resets == 1; }));
  CHECK(other.reset == ECONNRESET);
  CHECK(other.ends == 1);
}

TEST_CASE("Tls: the peer changes keys, and asks for ours -> bytes go on both ways") {
  SimTlsWorld world;
  world.plain_client = true;
  TlsEnd& end = world.dial();
  REQUIRE(world.run([&] { return end.connected == 0; }));
  end.stream.set_receiving(true);
  RawTls raw(end);
  raw.pump();
  REQUIRE(world.run([&] { return raw.done && world.peer_of_last().secured == 1; }));
  TlsEnd& server = world.peer_of_last();
  for (int i = 0; i < 3; ++i) {
    REQUIRE(SSL_key_update(raw.ssl.get(), SSL_KEY_UPDATE_REQUESTED) == 1);
    server.text.clear();
    raw.text.clear();
    raw.write("after the change");
    REQUIRE(world.run([&] { return server.text == "after the change"; }));
    REQUIRE(server.send("here too"));
    REQUIRE(world.run([&] { return raw.text == "here too"; }));
  }
}

TEST_CASE("Tls: bytes behind a close_notify, nobody is reading -> the end comes all the same") {
  SimTlsWorld world;
  world.server_wants = false;
  world.plain_client = true;
  TlsEnd& end = world.dial();
  REQUIRE(world.run([&] { return end.connected == 0; }));
  end.stream.set_receiving(true);
  RawTls raw(end);
  raw.hold_back = true;  // The last flight of the handshake goes with the rest.
  raw.pump();
  REQUIRE(world.run([&] { return raw.done; }));
  REQUIRE(SSL_write(raw.ssl.get(), "last words", 10) == 10);
  SSL_shutdown(raw.ssl.get());
  REQUIRE(end.send(raw.take() + numbered(40'000)));
  TlsEnd& server = world.peer_of_last();
  REQUIRE(world.run([&] { return server.secured == 1; }));
  world.net.run_for(1'000'000, 10'000);
  CHECK(server.ends == 0);
  server.stream.set_receiving(true);
  REQUIRE(world.run([&] { return server.ends == 1; }));
  CHECK(server.text == "last words");
  CHECK(server.end == 0);
  world.net.run_for(1'000'000, 10'000);
  CHECK(server.ends == 1);
}

// The shard of the tests has 100 records to a key.
TEST_CASE("Tls: many records -> the sending key changes in time, and nobody notices") {
  SimTlsWorld world;
  world.plain_client = true;
  TlsEnd& end = world.dial();
  REQUIRE(world.run([&] { return end.connected == 0; }));
  end.stream.set_receiving(true);
  RawTls raw(end);
  raw.pump();
  REQUIRE(world.run([&] { return raw.done && world.peer_of_last().secured == 1; }));
  std::string sent;
  uint64_t most = 0;
  for (int i = 0; i < 350; ++i) {
    sent += std::to_string(i);
    REQUIRE(world.peer_of_last().send(std::to_string(i)));
    REQUIRE(world.run([&] { return raw.text.size() == sent.size(); }));
    most = std::max(most, SSL_get_read_sequence(raw.ssl.get()));
  }
  CHECK(raw.text == sent);
  CHECK(most > 90);
  CHECK(most <= 102);
}

TEST_CASE("Tls: a damaged record -> tls_bad_record and an alert; what came before is delivered") {
  SimTlsWorld world;
  world.plain_client = true;
  TlsEnd& end = world.dial();
  REQUIRE(world.run([&] { return end.connected == 0; }));
  end.stream.set_receiving(true);
  RawTls raw(end);
  raw.pump();
  REQUIRE(world.run([&] { return raw.done && world.peer_of_last().secured == 1; }));
  REQUIRE(SSL_write(raw.ssl.get(), "good", 4) == 4);
  std::string bytes = raw.take();
  REQUIRE(SSL_write(raw.ssl.get(), "evil", 4) == 4);
  std::string damaged = raw.take();
  damaged.back() = static_cast<char>(damaged.back() ^ 1);
  REQUIRE(end.send(bytes + damaged));
  TlsEnd& server = world.peer_of_last();
  REQUIRE(world.run([&] { return server.ends == 1; }));
  CHECK(server.text == "good");
  CHECK(server.end == kTlsFailed);
  CHECK(server.cause == "tls_bad_record");
  CHECK_FALSE(server.send("x"));
  REQUIRE(world.run([&] { return raw.last_error == SSL_ERROR_SSL; }));
}

TEST_CASE("Tls: a client that asks for OCSP -> a response that is in date is stapled, if wanted") {
  for (const bool wanted : {true, false}) {
    for (const int64_t next_update_s : {86'400, -60}) {
      SimTlsWorld world;
      world.server_options.ocsp = wanted;
      const std::string response =
          test::make_ocsp(world.keys.server, test::OcspStatus::kGood, next_update_s);
      auto certificate = load_certificate({.cert_pem = world.keys.server.cert_pem,
                                           .key_pem = world.keys.server.key_pem,
                                           .ocsp = response});
      REQUIRE(certificate.has_value());
      REQUIRE(certificate->ocsp == response);
      world.names = to_names({std::make_shared<const TlsCertificate>(std::move(*certificate))});
      world.plain_client = true;
      TlsEnd& end = world.dial();
      REQUIRE(world.run([&] { return end.connected == 0; }));
      end.stream.set_receiving(true);
      RawTls raw(end);
      raw.pump();
      REQUIRE(world.run([&] { return raw.done; }));
      const uint8_t* stapled = nullptr;
      size_t length = 0;
      SSL_get0_ocsp_response(raw.ssl.get(), &stapled, &length);
      CHECK(std::string(reinterpret_cast<const char*>(stapled), length) ==
            (wanted && next_update_s > 0 ? response : ""));
    }
  }
}

// RFC 8446 5.1: the length in a record's header is visible on the wire.
std::vector<size_t> records_of(const std::string& bytes) {
  std::vector<size_t> lengths;
  for (size_t at = 0; at + 5 <= bytes.size();) {
    const size_t length =
        static_cast<uint8_t>(bytes[at + 3]) * 256U + static_cast<uint8_t>(bytes[at + 4]);
    lengths.push_back(length);
    at += 5 + length;
  }
  return lengths;
}

TEST_CASE("Tls: records -> small at first, large when warm, small again after a second's silence") {
  SimTlsWorld world;
  world.server_options.tickets = 0;
  world.plain_client = true;
  TlsEnd& end = world.dial();
  REQUIRE(world.run([&] { return end.connected == 0; }));
  end.stream.set_receiving(true);
  RawTls raw(end);
  raw.pump();
  REQUIRE(world.run([&] { return raw.done && world.peer_of_last().secured == 1; }));
  world.net.run_for(10'000, 1000);
  end.on_bytes = nullptr;
  TlsEnd& server = world.peer_of_last();
  const auto lengths = [&](size_t size) {
    end.text.clear();
    const std::string text = numbered(size);
    const iovec pieces[] = {{const_cast<char*>(text.data()), 200},
                            {const_cast<char*>(text.data()) + 200, size - 200}};
    REQUIRE(server.stream.write(pieces));
    REQUIRE(world.run([&] {
      const auto all = records_of(end.text);
      size_t plain = 0;
      for (const size_t one : all) plain += one - 17;
      return plain >= size;
    }));
    return records_of(end.text);
  };
  const auto first = lengths(40'000);
  CHECK(first.size() == 32'768 / 1300 + 2);
  CHECK(first.front() == 1300 + 17);
  CHECK(first.at(24) == 1300 + 17);
  CHECK(first.back() == 40'000 - 32'768 + 17);
  const auto warm = lengths(40'000);
  CHECK(warm == std::vector<size_t>{16384 + 17, 16384 + 17, 40'000 - 2 * 16384 + 17});
  world.net.run_for(1'100'000, 1000);
  CHECK(lengths(2'000) == std::vector<size_t>{1300 + 17, 700 + 17});
}

// 300 runs, each with some of the faults of tests/support/sim_faults.h.
TEST_CASE("Tls: faults -> whatever arrives is a prefix, and everything ends") {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    CAPTURE(seed);
    SimTlsWorld world(seed, {.per_turn = 1}, true);
    world.client_options.policy = only(seed % 2 == 0 ? kTls12 : kTls13);
    const std::string text = numbered(30'000);
    std::vector<std::unique_ptr<Producer>> producers;
    for (int i = 0; i < 3; ++i) {
      world.dialled.emplace_back(std::make_unique<TlsEnd>(world.client_env));
      TlsEnd& end = *world.dialled.back();
      if (end.stream.connect(world.address) != 0) {
        world.dialled.pop_back();
        continue;
      }
      REQUIRE(end.stream.start_tls_client(world.client_context(), {.server_name = "example.test"}));
      producers.emplace_back(std::make_unique<Producer>(end, text));
      producers.back()->ends = true;
      end.then = [producer = producers.back().get()] { producer->go_on(); };
    }
    world.on_accept = [&](TlsEnd& end) {
      end.on_bytes = [server = &end] {
        if (server->text.size() % 3 == 0) server->stream.set_receiving(false);
      };
    };
    for (int i = 0; i < 200; ++i) {
      world.net.run_for(50'000, 2'000);
      for (auto& end : world.accepted) {
        if (end->stream.open()) end->stream.set_receiving(true);
      }
    }
    for (auto& end : world.accepted) {
      CHECK(text.compare(0, end->text.size(), end->text) == 0);
      if (end->ends > 0 && end->end == 0) CHECK((end->text == text));
    }
    world.net.stop_faults();
    world.close_all();
    CHECK(world.chunks.in_use() == 0);
    CHECK(world.server_shard.handshakes_waiting() == 0);
  }
}

}  // namespace
}  // namespace ringway
