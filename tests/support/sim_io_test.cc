// tests/support/sim_io_test.cc - the simulated engine keeps core/io.h's contract.
#include "tests/support/sim_io.h"

#include <doctest/doctest.h>
#include <errno.h>

#include <string>
#include <vector>

#include "tests/support/sim_actors.h"
#include "tests/support/sim_net.h"

using namespace ringway;

namespace {

ServerAddress address(const char* text) {
  ServerAddress out;
  REQUIRE(parse_address(text, out));
  return out;
}

// Writes down every event as a letter: c connected, r receive, e end, w writable, x closed.
struct Recorder final : SocketOwner {
  explicit Recorder(Io& the_io) : io(the_io), socket(*this) {}

  void on_connected(Socket&, int error) override {
    events += 'c';
    connect_error = error;
  }
  void on_receive(Socket&, std::span<const std::byte> bytes) override {
    events += 'r';
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    seen = bytes;
    if (close_on_receive) io.close(socket);
  }
  void on_receive_end(Socket&, int error) override {
    events += 'e';
    end_error = error;
  }
  void on_writable(Socket&) override { events += 'w'; }
  void on_closed(Socket&) override { events += 'x'; }

  ssize_t send(std::string_view bytes) {
    const iovec piece{const_cast<char*>(bytes.data()), bytes.size()};
    return io.send(socket, {&piece, 1});
  }

  Io& io;
  Socket socket;
  std::string events;
  std::string text;
  std::span<const std::byte> seen;
  int connect_error = -1;
  int end_error = -1;
  bool close_on_receive = false;
};

struct Acceptor final : AcceptOwner {
  void on_accepted(int fd, const PeerAddress& peer) override {
    fds.push_back(fd);
    peers.push_back(peer);
  }
  std::vector<int> fds;
  std::vector<PeerAddress> peers;
};

// Two sockets joined by make_pair(), without faults.
struct PairFixture {
  PairFixture() {
    const auto [first, second] = net.make_pair();
    io.adopt(a.socket, first);
    io.adopt(b.socket, second);
  }
  ~PairFixture() {
    io.close(a.socket);
    io.close(b.socket);
    settle();
    CHECK(net.live_sockets() == 0);
  }
  void settle() {
    while (net.step()) {
    }
  }
  SimNet net{{.seed = 1, .faults = false}};
  SimIo io{net};
  Recorder a{io};
  Recorder b{io};
};

}  // namespace

TEST_CASE("SimIo: bytes then FIN -> received in order, the end once, both ways") {
  PairFixture f;
  CHECK(f.a.send("hello ") == 6);
  CHECK(f.a.send("world") == 5);
  f.io.shutdown_send(f.a.socket);
  CHECK(f.a.events.empty());  // Events come from turns only.
  f.settle();
  CHECK(f.b.events.empty());  // Receiving starts paused.
  f.io.set_receiving(f.a.socket, true);
  f.io.set_receiving(f.b.socket, true);
  f.settle();
  CHECK(f.b.text == "hello world");
  CHECK(f.b.events.ends_with("e"));
  CHECK(f.b.end_error == 0);
  CHECK(f.a.send("x") == -EPIPE);  // After its own FIN.
  CHECK(f.b.send("back") == 4);    // The other direction is open.
  f.io.shutdown_send(f.b.socket);
  f.settle();
  CHECK(f.a.text == "back");
  CHECK(f.a.events == "re");
  f.io.set_receiving(f.b.socket, false);
  f.io.set_receiving(f.b.socket, true);
  f.settle();
  CHECK(f.b.events == "re");  // Not a second time.
}

TEST_CASE("SimIo: on_receive returns -> its bytes are gone") {
  PairFixture f;
  CHECK(f.a.send("secret") == 6);
  f.io.set_receiving(f.b.socket, true);
  f.settle();
  REQUIRE(f.b.seen.size() == 6);
#if !defined(__SANITIZE_ADDRESS__)
  for (const std::byte kept : f.b.seen) CHECK(kept == std::byte{0xdd});
#endif
}

TEST_CASE("SimIo: window full -> send takes 0; one on_writable per want_writable after reading") {
  PairFixture f;
  const std::string block(1 << 20, 'x');
  size_t sent = 0;
  for (ssize_t n; (n = f.a.send(block)) > 0;) sent += static_cast<size_t>(n);
  CHECK(sent > 0);
  CHECK(sent <= 1 << 18);
  f.io.want_writable(f.a.socket);
  f.io.want_writable(f.a.socket);
  f.settle();
  CHECK(f.a.events.empty());
  f.io.set_receiving(f.b.socket, true);
  f.settle();
  CHECK(f.a.events == "w");
  CHECK(f.b.text.size() == sent);
  CHECK(f.a.send("more") == 4);
  f.settle();
  CHECK(f.a.events == "w");
}

TEST_CASE("SimIo: close in a handler -> no other event, on_closed last and in a later turn") {
  PairFixture f;
  f.b.close_on_receive = true;
  f.io.set_receiving(f.b.socket, true);
  f.io.want_writable(f.b.socket);
  CHECK(f.a.send("first") == 5);
  CHECK(f.net.run_until([&] { return f.b.events.ends_with("r"); }, 1000));
  CHECK(f.b.socket.open());  // The turn that closed it has ended.
  f.io.close(f.b.socket);    // Idempotent.
  f.settle();
  CHECK(f.b.events.ends_with("rx"));
  CHECK_FALSE(f.b.socket.open());
}

TEST_CASE("SimIo: close with unread bytes -> the peer is reset after what was under way") {
  PairFixture f;
  CHECK(f.a.send("unread") == 6);
  CHECK(f.b.send("answer") == 6);
  f.settle();
  f.io.close(f.b.socket);
  f.settle();
  f.io.set_receiving(f.a.socket, true);
  f.settle();
  CHECK(f.a.text == "answer");
  CHECK(f.a.events == "re");
  CHECK(f.net.records()[0].reset);
  CHECK(f.a.send("x") < 0);
}

TEST_CASE("SimIo: abort -> ECONNRESET once, then EPIPE; want_writable still answers") {
  PairFixture f;
  f.io.abort(f.b.socket);
  f.settle();
  CHECK(f.a.send("x") == -ECONNRESET);
  CHECK(f.a.send("x") == -EPIPE);
  f.io.want_writable(f.a.socket);
  f.io.set_receiving(f.a.socket, true);
  f.settle();
  CHECK(f.a.events.size() == 2);
  CHECK(f.a.events.find('w') != std::string::npos);
  CHECK(f.a.end_error == 0);  // As Linux: a send has used up the error.
}

TEST_CASE("SimIo: connect -> accepted elsewhere, refused, unreachable, unix") {
  SimNet net({.seed = 3, .faults = false});
  SimIo shard(net);
  SimIo other_shard(net);
  SimIo world(net);
  const int fd = net.make_listener(address("0.0.0.0:0"));
  const std::string port = net.address_of(fd).text().substr(7);
  const ServerAddress target = address(("10.0.0.1" + port).c_str());
  Acceptor acceptor;
  shard.listen(fd, acceptor);
  Recorder client(world);
  REQUIRE(world.connect(client.socket, target) == 0);
  CHECK(client.send("early") == 0);
  CHECK(net.run_until([&] { return acceptor.fds.size() == 1 && client.events == "c"; }, 1000));
  CHECK(client.connect_error == 0);
  CHECK(acceptor.peers[0].port >= 32768);
  CHECK(client.send("hand-off") == 8);
  Recorder served(other_shard);  // The descriptor moves to another Io of the net.
  other_shard.adopt(served.socket, acceptor.fds[0]);
  other_shard.set_receiving(served.socket, true);
  CHECK(net.run_until([&] { return served.text == "hand-off"; }, 1000));

  Recorder refused(world);
  const ServerAddress nobody = address("10.0.0.1:9");
  REQUIRE(world.connect(refused.socket, nobody) == 0);
  Recorder lost(world);
  const ServerAddress hole = address("10.9.9.9:80");
  net.set_unreachable(hole, true);
  const int64_t began_us = net.now_us();
  REQUIRE(world.connect(lost.socket, hole) == 0);
  CHECK(net.run_until([&] { return !lost.events.empty(); }, 1000));
  CHECK(refused.connect_error == ECONNREFUSED);
  CHECK(lost.connect_error == ETIMEDOUT);
  CHECK(net.now_us() - began_us >= 63'000'000);
  Recorder path(world);
  const ServerAddress missing = address("unix:/none");
  CHECK(world.connect(path.socket, missing) == ENOENT);
  CHECK_FALSE(path.socket.open());

  LocalEnd local;
  REQUIRE(parse_source("10.7.7.7", local.source));
  Recorder bound(world);
  REQUIRE(world.connect(bound.socket, target, local) == 0);
  CHECK(net.run_until([&] { return acceptor.fds.size() == 2 && bound.events == "c"; }, 1000));
  CHECK(acceptor.peers[1].ip[1] == 7);
  net.set_foreign(PeerAddress::from(*local.source.get()), true);
  Recorder foreign(world);
  CHECK(world.connect(foreign.socket, target, local) == EADDRNOTAVAIL);
  CHECK(foreign.socket.local_failure() == LocalPart::kSource);
  CHECK_FALSE(foreign.socket.open());
  world.close(bound.socket);
  shard.discard(acceptor.fds[1]);

  shard.unlisten(fd);
  net.close_listener(fd);
  for (Recorder* each : {&client, &served, &refused, &lost}) each->io.close(each->socket);
  CHECK(net.run_until([&] { return net.live_sockets() == 0; }, 1000));
  CHECK(net.live_listeners() == 0);
}

TEST_CASE("SimIo: unlisten accepts what is queued, then refuses; a closed listener resets") {
  SimNet net({.seed = 4, .faults = false, .latency_us_min = 100, .latency_us_max = 100});
  SimIo io(net);
  Acceptor acceptor;
  const int fd = net.make_listener(address("127.0.0.1:80"), 2);
  std::vector<std::unique_ptr<Recorder>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<Recorder>(io));
    const ServerAddress& to = net.address_of(fd);
    REQUIRE(io.connect(clients.back()->socket, to) == 0);
  }
  net.run_for(500'000, 1000);
  io.listen(fd, acceptor);
  io.unlisten(fd);
  CHECK(acceptor.fds.size() == 2);  // The third found the backlog full and asks again.
  for (const int accepted : acceptor.fds) io.discard(accepted);
  net.run_for(2'000'000, 1000);
  CHECK(clients[2]->connect_error == ECONNREFUSED);
  io.set_receiving(clients[0]->socket, true);
  net.run_for(1'000'000, 1000);
  CHECK(clients[0]->end_error == 0);
  net.close_listener(fd);
  const int idle = net.make_listener(address("127.0.0.1:81"));
  clients.push_back(std::make_unique<Recorder>(io));
  REQUIRE(io.connect(clients[3]->socket, net.address_of(idle)) == 0);
  net.run_for(500'000, 1000);
  CHECK(clients[3]->connect_error == 0);
  net.close_listener(idle);  // Nobody has accepted it.
  io.set_receiving(clients[3]->socket, true);
  net.run_for(1'000'000, 1000);
  CHECK(clients[3]->end_error == ECONNRESET);
  for (auto& client : clients) io.close(client->socket);
  CHECK(net.run_until([&] { return net.live_sockets() == 0; }, 1000));
}

TEST_CASE("SimIo: one address, two listeners -> both get connections") {
  SimNet net({.seed = 5, .faults = false});
  SimIo io(net);
  SimServer::MakeHandler make = [](SimConnection&) { return std::make_unique<SimHandler>(); };
  SimServer first(net, io, address("127.0.0.1:80"), make);
  SimServer second(net, io, address("127.0.0.1:80"), make);
  std::vector<std::unique_ptr<SimClient>> clients;
  for (int i = 0; i < 40; ++i) {
    clients.push_back(std::make_unique<SimClient>(net, io, SimClient::Script{}));
    clients.back()->start(first.address());
  }
  CHECK(net.run_until([&] { return first.accepted() + second.accepted() == 40; }, 10'000));
  CHECK(first.accepted() > 5);
  CHECK(second.accepted() > 5);
  first.stop();
  second.stop();
  CHECK(net.run_until([&] { return net.live_sockets() == 0; }, 10'000));
}

TEST_CASE("SimIo: wake -> one on_wake for several, run_once waits for it in virtual time") {
  struct Waker final : WakeOwner {
    void on_wake() override { ++count; }
    int count = 0;
  };
  SimNet net({.seed = 6, .faults = false});
  SimIo io(net);
  Waker waker;
  io.set_wake_owner(waker);
  io.wake();
  io.wake();
  io.run_once(-1);
  CHECK(waker.count == 1);
  const int64_t before_us = io.now_us();
  io.run_once(250);  // Nothing happens: the whole time-out passes.
  CHECK(waker.count == 1);
  CHECK(io.now_us() - before_us >= 250'000);
  io.wake();
  io.run_once(-1);
  CHECK(waker.count == 2);
}

TEST_CASE("SimIo: accept fails with EMFILE -> pause of 50 ms, then all are accepted") {
  SimNet net({.seed = 7, .faults = false});
  SimIo io(net);
  Acceptor acceptor;
  const int fd = net.make_listener(address("127.0.0.1:80"));
  io.listen(fd, acceptor);
  net.faults().set(Fault::kNoDescriptors, 1.0);
  Recorder client(io);
  REQUIRE(io.connect(client.socket, net.address_of(fd)) == 0);
  net.run_for(200'000, 1000);
  CHECK(acceptor.fds.empty());
  CHECK(io.accept_pauses() >= 3);
  CHECK(io.accept_pauses() <= 5);
  net.stop_faults();
  CHECK(net.run_until([&] { return acceptor.fds.size() == 1; }, 1000));
  io.discard(acceptor.fds[0]);
  io.unlisten(fd);
  net.close_listener(fd);
  io.close(client.socket);
  CHECK(net.run_until([&] { return net.live_sockets() == 0; }, 1000));
}

// As core/socket_receive.cc when its room for held bytes is used up.
TEST_CASE("SimIo: overflow behind a pause -> a part of the bytes, then ENOBUFS, then nothing") {
  PairFixture f;
  f.net.faults().set(Fault::kOverflow, 1.0);
  f.io.set_receiving(f.b.socket, true);
  CHECK(f.a.send("before") == 6);
  f.settle();
  CHECK(f.b.text == "before");  // Without a pause nothing is lost.
  f.io.set_receiving(f.b.socket, false);
  CHECK(f.a.send("0123456789") == 10);
  f.io.shutdown_send(f.a.socket);
  f.settle();
  f.io.set_receiving(f.b.socket, true);
  f.settle();
  CHECK(f.b.text.size() < 16);
  CHECK(std::string("before0123456789").starts_with(f.b.text));
  CHECK(f.b.events.ends_with("e"));
  CHECK(f.b.end_error == ENOBUFS);
  CHECK(f.net.records()[0].from_client.fin_received == false);
}
