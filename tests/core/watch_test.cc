// tests/core/watch_test.cc - when sockets are watched: what closing costs, and that nothing that
// comes while nobody watches is lost. What is counted is asked of a kernel, so those tests take a
// ring only; the simulated engine watches always and is in all others.
#include <doctest/doctest.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "core/engines.h"
#include "tests/core/every_engine.h"
#include "tests/core/loopback.h"

using namespace ringway;

namespace {

std::unique_ptr<RingEngine> poll_ring() {
  auto ring = std::make_unique<RingEngine>(0);
  ring->start(256);
  return ring->probe().usable() ? std::move(ring) : nullptr;
}

void say(Io& io, Recorder& side, const char* text) {
  const iovec piece{const_cast<char*>(text), strlen(text)};
  REQUIRE(io.send(side.socket, {&piece, 1}) == static_cast<ssize_t>(strlen(text)));
}

}  // namespace

// Goal: the one poll of a short connection has fired when it is closed, so nothing is taken back.
TEST_CASE("Io: request, answer, close -> one arm at most, no cancel") {
  const auto io = poll_ring();
  if (io == nullptr) return;
  for (int i = 0; i < 100; ++i) {
    Pair pair(*io);
    io->set_receiving(pair.side.socket, true);
    io->run_once(0);  // Not there yet: whatever was guessed, it is watched now.
    const uint64_t arms = io->counters().arms.get();
    const uint64_t cancels = io->counters().cancels.get();
    pair.side.then = [&] { io->expect_nothing(pair.side.socket); };
    REQUIRE(write(pair.client, "ask", 3) == 3);
    const int64_t start_us = io->now_us();
    REQUIRE(run_until(*io, [&] { return pair.side.text == "ask"; }));
    io->run_once(0);  // The answer takes a few turns.
    io->run_once(0);
    say(*io, pair.side, "answer");
    io->close(pair.side.socket);
    REQUIRE(run_until(*io, [&] { return pair.side.closed == 1; }));
    char answer[8];
    CHECK(recv(pair.client, answer, sizeof answer, MSG_WAITALL) == 6);
    if (io->now_us() - start_us >= 10'000) continue;  // It was watched again: that was too slow.
    CHECK(io->counters().arms.get() == arms);
    CHECK(io->counters().cancels.get() == cancels);
  }
}

TEST_CASE("Io: request, answer, the peer's FIN, close -> two arms, no cancel") {
  const auto io = poll_ring();
  if (io == nullptr) return;
  const uint64_t cancels = io->counters().cancels.get();
  const uint64_t arms = io->counters().arms.get();
  for (int i = 0; i < 50; ++i) {
    Pair pair(*io);
    io->set_receiving(pair.side.socket, true);
    io->run_once(0);
    REQUIRE(write(pair.client, "ask", 3) == 3);
    REQUIRE(run_until(*io, [&] { return pair.side.text == "ask"; }));
    say(*io, pair.side, "answer");
    io->run_once(0);
    shutdown(pair.client, SHUT_WR);
    REQUIRE(run_until(*io, [&] { return pair.side.ends == 1; }));
  }
  CHECK(io->counters().cancels.get() == cancels);
  CHECK(io->counters().arms.get() <= arms + 100);
}

TEST_CASE("Io: a connection that lives longer -> no further arm per request") {
  const auto io = poll_ring();
  if (io == nullptr) return;
  Pair pair(*io);
  io->set_receiving(pair.side.socket, true);
  pair.side.then = [&] { io->expect_nothing(pair.side.socket); };
  for (int i = 0; i < 100; ++i) {
    pair.side.text.clear();
    REQUIRE(write(pair.client, "ask", 3) == 3);
    REQUIRE(run_until(*io, [&] { return pair.side.text == "ask"; }));
    say(*io, pair.side, "answer");
  }
  CHECK(io->counters().arms.get() <= 1 + 3 + 1);  // The self-test's, two short ones, a lasting one.
}

// Goal: what comes while the socket is not watched is found when it is, bytes and end alike.
TEST_CASE("Io: expect_nothing, then bytes and FIN come all the same -> both arrive") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    for (int i = 0; i < 20; ++i) {
      AnyPair pair(io);
      io->set_receiving(pair.side.socket, true);
      pair.side.then = [&] { io->expect_nothing(pair.side.socket); };
      pair.peer->write("1");
      REQUIRE(run_until(*io, [&] { return pair.side.text == "1"; }));
      // No answer: the time limit ends it, in a turn that may otherwise sleep for ever.
      pair.peer->write("2");
      while (pair.side.text != "12") io->run_once(-1);
      if (i % 2 == 0) {
        pair.peer->close();
      } else {
        pair.peer->finish();
      }
      while (pair.side.ends == 0) io->run_once(-1);
      CHECK(pair.side.text == "12");
      CHECK(pair.side.end_error == 0);
    }
  }
}

TEST_CASE("Io: expect_nothing, then an answer -> the next request wakes a turn without a limit") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    AnyPair pair(io);
    io->set_receiving(pair.side.socket, true);
    pair.side.then = [&] { io->expect_nothing(pair.side.socket); };
    for (int i = 0; i < 5; ++i) {
      pair.side.text.clear();
      pair.peer->write("ask");
      while (pair.side.text != "ask") io->run_once(-1);
      say(*io, pair.side, "answer");
      io->run_once(0);
    }
  }
}

TEST_CASE("Io: paused, closed or reset while not watched -> closes once, the slot is used again") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    for (int i = 0; i < 30; ++i) {
      AnyPair pair(io);
      io->set_receiving(pair.side.socket, true);
      pair.side.then = [&] { io->expect_nothing(pair.side.socket); };
      pair.peer->write("1");
      REQUIRE(run_until(*io, [&] { return pair.side.text == "1"; }));
      io->set_receiving(pair.side.socket, i % 2 == 0);
      if (i % 3 == 0) say(*io, pair.side, "a");
      if (i % 5 == 0) io->run_once(0);
      i % 7 == 0 ? io->abort(pair.side.socket) : io->close(pair.side.socket);
      REQUIRE(run_until(*io, [&] { return pair.side.closed == 1; }));
    }
    // Entries of the closed ones run out without touching whoever has their slots now.
    AnyPair last(io);
    io->set_receiving(last.side.socket, true);
    for (int i = 0; i < 15; ++i) io->run_once(1);
    last.peer->write("still");
    CHECK(run_until(*io, [&] { return last.side.text == "still"; }));
    CHECK(last.side.ends == 0);
  }
}

// Goal: both ways of meeting a new client work, whatever was learned from those before.
TEST_CASE("Io: clients that speak at once, and late ones, in runs -> each is heard") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    for (int i = 0; i < 200; ++i) {
      AnyPair pair(io);
      const bool at_once = i / 50 % 2 == 0;
      if (at_once) pair.peer->write("hello");
      io->set_receiving(pair.side.socket, true);
      io->run_once(0);
      if (!at_once) pair.peer->write("hello");
      CHECK(run_until(*io, [&] { return pair.side.text == "hello"; }));
    }
  }
}

// Goal: with epoll both directions share a registration; asking for one must not undo the other.
TEST_CASE("Io: a full send buffer before the first read -> writable, and bytes still arrive") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    for (int i = 0; i < 3; ++i) {
      AnyPair pair(io);
      const std::string block(1 << 20, 'b');
      const iovec piece{const_cast<char*>(block.data()), block.size()};
      size_t sent = 0;
      for (ssize_t n; (n = io->send(pair.side.socket, {&piece, 1})) > 0;) {
        sent += static_cast<size_t>(n);
      }
      io->want_writable(pair.side.socket);
      io->set_receiving(pair.side.socket, true);
      io->run_once(0);
      std::string sink(1 << 20, '\0');
      for (size_t got = 0; got < sent;) {
        const ssize_t n = pair.peer->read(sink);
        REQUIRE(n > 0);
        got += static_cast<size_t>(n);
      }
      CHECK(run_until(*io, [&] { return pair.side.writable == 1; }));
      pair.peer->write("m");
      CHECK(run_until(*io, [&] { return pair.side.text == "m"; }));
    }
  }
}
