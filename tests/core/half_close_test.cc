// tests/core/half_close_test.cc - behind the peer's FIN: what still comes is a reset, or nothing.
#include <doctest/doctest.h>
#include <errno.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/core/every_engine.h"
#include "tests/core/loopback.h"

using namespace ringway;

namespace {

// Longer than an engine may leave a socket unwatched.
constexpr int64_t kWatchedUs = 15'000;

void run_for(const AnyEngine& io, int64_t us) {
  const int64_t end_us = io->now_us() + us;
  CHECK(run_until(*io, [&] { return io->now_us() >= end_us; }));
}

// Of a connection that has lived so long that it is watched until cancelled.
void talk(const AnyEngine& io, AnyPair& pair) {
  for (size_t i = 1; i <= 4; ++i) {
    pair.peer->write("m");
    REQUIRE(run_until(*io, [&] { return pair.side.text.size() == i; }));
  }
}

void half_close(const AnyEngine& io, AnyPair& pair) {
  pair.peer->finish();
  REQUIRE(run_until(*io, [&] { return pair.side.ends == 1; }));
  CHECK(pair.side.end_error == 0);
}

}  // namespace

// Goal: whatever of short and long lives, of wanting bytes, and of the time between both.
TEST_CASE("Io: FIN, then a reset while nothing is sent -> on_reset, once") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    for (int i = 0; i < 16; ++i) {
      CAPTURE(i);
      AnyPair pair(io);
      io->set_receiving(pair.side.socket, true);
      if (i % 2 == 0) talk(io, pair);
      half_close(io, pair);
      if (i % 4 < 2) io->set_receiving(pair.side.socket, false);
      if (i % 8 < 4) run_for(io, kWatchedUs);
      CHECK(pair.side.resets == 0);
      const int64_t start_us = io->now_us();
      pair.peer->cut();
      REQUIRE(run_until(*io, [&] { return pair.side.resets == 1; }));
      CHECK(io->now_us() - start_us < 5'000'000);  // By an event, not by some time-out.
      CHECK(pair.side.reset_error == EPIPE);
      if (i >= 8) run_for(io, kWatchedUs);
      CHECK(pair.side.resets == 1);
      CHECK(pair.side.ends == 1);
      io->close(pair.side.socket);
      CHECK(run_until(*io, [&] { return pair.side.closed == 1; }));
    }
  }
}

TEST_CASE("Io: FIN and a reset before the engine looks -> the end or the reset, nothing twice") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    for (int i = 0; i < 20; ++i) {
      AnyPair pair(io);
      if (i % 2 == 0) io->run_once(0);
      if (i % 4 == 0) io->set_receiving(pair.side.socket, true);
      pair.peer->finish();
      pair.peer->cut();
      io->set_receiving(pair.side.socket, true);
      REQUIRE(run_until(*io, [&] { return pair.side.ends == 1; }));
      if (pair.side.end_error == 0) {
        REQUIRE(run_until(*io, [&] { return pair.side.resets == 1; }));
      }
      run_for(io, kWatchedUs);
      CHECK(pair.side.ends == 1);
      CHECK(pair.side.resets == (pair.side.end_error == 0 ? 1 : 0));
    }
  }
}

// Goal: POLLHUP alone is no reset: the kernel also says so when both have sent their FIN.
TEST_CASE("Io: FIN both ways, the peer closes -> no reset") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    for (int i = 0; i < 4; ++i) {
      AnyPair pair(io);
      io->set_receiving(pair.side.socket, true);
      if (i % 2 == 0) talk(io, pair);
      half_close(io, pair);
      if (i < 2) run_for(io, kWatchedUs);
      io->shutdown_send(pair.side.socket);
      CHECK(pair.peer->read_byte() == 0);
      run_for(io, kWatchedUs);
      pair.peer->close();
      run_for(io, kWatchedUs);
      CHECK(pair.side.resets == 0);
      CHECK(pair.side.ends == 1);
    }
  }
}

// Goal: who has said all and waits for it to be taken hears that it never will be.
TEST_CASE("Io: FIN, our bytes and FIN, the peer closes without reading them -> on_reset") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    AnyPair pair(io);
    io->set_receiving(pair.side.socket, true);
    half_close(io, pair);
    run_for(io, kWatchedUs);
    const std::string block(1 << 20, 'b');
    const iovec piece{const_cast<char*>(block.data()), block.size()};
    while (io->send(pair.side.socket, {&piece, 1}) > 0) continue;
    io->shutdown_send(pair.side.socket);
    run_for(io, kWatchedUs);
    CHECK(pair.side.resets == 0);
    pair.peer->close();
    CHECK(run_until(*io, [&] { return pair.side.resets == 1; }));
    CHECK(pair.side.reset_error == ECONNRESET);
  }
}

// The simulated net cannot do it: there a reset arrives in a turn, and so does its event.
TEST_CASE("Io: a send meets the reset first -> its error, and no on_reset") {
  for (const auto& io : engines()) {
    CAPTURE(io->name());
    Pair pair(*io);
    io->set_receiving(pair.side.socket, true);
    REQUIRE(shutdown(pair.client, SHUT_WR) == 0);
    REQUIRE(run_until(*io, [&] { return pair.side.ends == 1; }));
    const linger at_once{1, 0};
    setsockopt(pair.client, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    ::close(pair.client);
    pair.client = -1;
    const iovec piece{const_cast<char*>("late"), 4};
    CHECK(io->send(pair.side.socket, {&piece, 1}) == -EPIPE);
    const int64_t end_us = io->now_us() + kWatchedUs;
    CHECK(run_until(*io, [&] { return io->now_us() >= end_us; }));
    CHECK(pair.side.resets == 0);
  }
}

// Goal: the watch is one more operation in flight: closing and leaving wait for its last event.
TEST_CASE("Io: close, abort or detach while watched for a reset -> the last event comes, once") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    std::vector<std::unique_ptr<AnyPair>> pairs;
    for (int i = 0; i < 30; ++i) {
      pairs.push_back(std::make_unique<AnyPair>(io));
      io->set_receiving(pairs.back()->side.socket, true);
      pairs.back()->peer->finish();
    }
    for (const auto& pair : pairs) {
      REQUIRE(run_until(*io, [&] { return pair->side.ends == 1; }));
    }
    run_for(io, kWatchedUs);
    for (size_t i = 0; i < pairs.size(); ++i) {
      Socket& socket = pairs[i]->side.socket;
      if (i % 5 == 0) pairs[i]->peer->cut();  // Its event may come behind the close.
      i % 3 == 0 ? io->close(socket) : i % 3 == 1 ? io->abort(socket) : io->detach(socket);
    }
    for (size_t i = 0; i < pairs.size(); ++i) {
      const Recorder& side = pairs[i]->side;
      CHECK(run_until(*io, [&] { return side.closed + side.detached == 1; }));
      CHECK(side.detached == (i % 3 == 2 ? 1 : 0));
      CHECK(side.resets == 0);
      if (i % 5 != 0 && i % 3 == 0) CHECK(pairs[i]->peer->read_byte() == 0);
      if (i % 5 != 0 && i % 3 == 1) CHECK(pairs[i]->peer->read_byte() == -ECONNRESET);
      if (side.fd >= 0) io->discard(side.fd);
    }
    // Their slots are used again, and nothing of before comes to them.
    AnyPair last(io);
    io->set_receiving(last.side.socket, true);
    run_for(io, kWatchedUs);
    last.peer->write("still");
    CHECK(run_until(*io, [&] { return last.side.text == "still"; }));
    CHECK(last.side.ends == 0);
    CHECK(last.side.resets == 0);
  }
}

TEST_CASE("Io: on_reset closes its own and other sockets -> each closes once") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    std::vector<std::unique_ptr<AnyPair>> pairs;
    for (int i = 0; i < 20; ++i) {
      pairs.push_back(std::make_unique<AnyPair>(io));
      io->set_receiving(pairs.back()->side.socket, true);
      half_close(io, *pairs.back());
    }
    run_for(io, kWatchedUs);
    int calls = 0;
    for (const auto& pair : pairs) {
      pair->side.then_reset = [&] {
        ++calls;
        for (const auto& other : pairs) io->close(other->side.socket);
      };
      pair->peer->cut();
    }
    for (const auto& pair : pairs) {
      CHECK(run_until(*io, [&] { return pair->side.closed == 1; }));
    }
    CHECK(calls == 1);
  }
}

// Goal: requests whose client half-closes cost as much as before: asked of a kernel.
TEST_CASE("Io: FIN, an answer and close within 10 ms -> nothing is asked for and taken back") {
  RingEngine ring(0);
  ring.start(256);
  if (!ring.probe().usable()) return;
  int quick = 0;
  for (int i = 0; i < 100; ++i) {
    Pair pair(ring);
    ring.set_receiving(pair.side.socket, true);
    REQUIRE(write(pair.client, "ask", 3) == 3);
    REQUIRE(shutdown(pair.client, SHUT_WR) == 0);
    REQUIRE(run_until(ring, [&] { return pair.side.ends == 1; }));
    const int64_t start_us = ring.now_us();
    const uint64_t arms = ring.counters().arms.get();
    const uint64_t cancels = ring.counters().cancels.get();
    ring.run_once(0);
    ring.run_once(0);
    ring.close(pair.side.socket);
    REQUIRE(run_until(ring, [&] { return pair.side.closed == 1; }));
    if (ring.now_us() - start_us >= 10'000) continue;  // It was watched: that was too slow.
    ++quick;
    CHECK(ring.counters().arms.get() == arms);
    CHECK(ring.counters().cancels.get() == cancels);
  }
  CHECK(quick > 0);
}
