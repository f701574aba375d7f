// tests/core/engine_test.cc - what core/io.h promises, on every engine, the simulated one included.
#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <errno.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/address.h"
#include "core/engine_report.h"
#include "core/engines.h"
#include "core/epoll_engine.h"
#include "core/ring_engine.h"
#include "tests/core/every_engine.h"
#include "tests/core/loopback.h"
#include "tests/support/no_ring.h"

using namespace ringway;

TEST_CASE("Io: bytes and FIN in one edge -> both arrive, once, every time") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    for (int round = 0; round < 50; ++round) {
      AnyPair pair(io);
      // Sent and closed before the engine looks: one event stands for both.
      pair.peer->write("last words");
      pair.peer->close();
      io->set_receiving(pair.side.socket, true);
      REQUIRE(run_until(*io, [&] { return pair.side.ends > 0; }));
      CHECK(pair.side.text == "last words");
      CHECK(pair.side.end_error == 0);
      io->run_once(0);
      CHECK(pair.side.ends == 1);
    }
  }
}

TEST_CASE("Io: FIN in an edge of its own, after a short read -> arrives") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    AnyPair pair(io);
    io->set_receiving(pair.side.socket, true);
    pair.peer->write("x");
    REQUIRE(run_until(*io, [&] { return pair.side.text == "x"; }));
    pair.peer->finish();
    CHECK(run_until(*io, [&] { return pair.side.ends == 1; }));
    CHECK(pair.side.end_error == 0);
  }
}

TEST_CASE("Io: a reset -> on_receive_end with ECONNRESET") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    AnyPair pair(io);
    io->set_receiving(pair.side.socket, true);
    pair.peer->cut();
    CHECK(run_until(*io, [&] { return pair.side.ends == 1; }));
    CHECK(pair.side.end_error == ECONNRESET);
  }
}

// Pitfall 1 and 2 of the kernel notes: close(2) with an armed poll sends nothing.
TEST_CASE(
    "Io: close with an armed poll -> the peer sees FIN, on_closed is last and in a later turn") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    AnyPair pair(io);
    io->set_receiving(pair.side.socket, true);
    io->run_once(0);
    io->close(pair.side.socket);
    CHECK(pair.side.closed == 0);
    CHECK(run_until(*io, [&] { return pair.side.closed == 1; }));
    CHECK(pair.peer->read_byte() == 0);
  }
}

TEST_CASE("Io: abort -> the peer sees a reset") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    AnyPair pair(io);
    io->run_once(0);
    io->abort(pair.side.socket);
    CHECK(run_until(*io, [&] { return pair.side.closed == 1; }));
    CHECK(pair.peer->read_byte() == -ECONNRESET);
  }
}

// Pitfall 20: an edge that comes while the owner takes no bytes must not be lost.
TEST_CASE("Io: bytes while receiving is off -> delivered when it is on again") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    AnyPair pair(io);
    pair.peer->write("held");
    for (int i = 0; i < 5; ++i) io->run_once(1);
    CHECK(pair.side.text.empty());
    io->set_receiving(pair.side.socket, true);
    CHECK(run_until(*io, [&] { return pair.side.text == "held"; }));
    // Off from inside the call, with more to come.
    pair.side.then = [&] { io->set_receiving(pair.side.socket, false); };
    pair.peer->write("1");
    REQUIRE(run_until(*io, [&] { return pair.side.text == "held1"; }));
    pair.peer->write("2");
    for (int i = 0; i < 5; ++i) io->run_once(1);
    CHECK(pair.side.text == "held1");
    io->set_receiving(pair.side.socket, true);
    CHECK(run_until(*io, [&] { return pair.side.text == "held12"; }));
  }
}

TEST_CASE("Io: a full send buffer -> 0 taken; on_writable once per request, when there is room") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    AnyPair pair(io);
    const std::string block(1 << 20, 'b');
    const iovec piece{const_cast<char*>(block.data()), block.size()};
    size_t sent = 0;
    for (ssize_t n; (n = io->send(pair.side.socket, {&piece, 1})) > 0;) {
      sent += static_cast<size_t>(n);
    }
    io->want_writable(pair.side.socket);
    for (int i = 0; i < 5; ++i) io->run_once(1);
    CHECK(pair.side.writable == 0);
    std::string sink(1 << 20, '\0');
    for (size_t got = 0; got < sent;) {
      const ssize_t n = pair.peer->read(sink);
      REQUIRE(n > 0);
      got += static_cast<size_t>(n);
    }
    CHECK(run_until(*io, [&] { return pair.side.writable == 1; }));
    for (int i = 0; i < 5; ++i) io->run_once(1);
    CHECK(pair.side.writable == 1);
  }
}

// Pitfall 9: a completion queue that is too small ends multishot polls; they must be armed again.
TEST_CASE("Io: 200 sockets talk at once, again and again -> none goes silent") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    std::vector<std::unique_ptr<AnyPair>> pairs;
    for (int i = 0; i < 200; ++i) {
      pairs.push_back(std::make_unique<AnyPair>(io));
      io->set_receiving(pairs.back()->side.socket, true);
    }
    for (int round = 1; round <= 5; ++round) {
      for (const auto& pair : pairs) pair->peer->write("m");
      CHECK(run_until(*io, [&] {
        for (const auto& pair : pairs) {
          if (pair->side.text.size() < static_cast<size_t>(round)) return false;
        }
        return true;
      }));
    }
  }
}

// Polls of sockets that are ready complete when they are armed, all in one call. What is more than
// a turn takes stays in the kernel's queue for the next one. (A simulated turn has no bound.)
TEST_CASE("Io: 2600 connects end in one turn -> each owner hears of it, and of its bytes") {
  for (const auto& io : engines()) {
    CAPTURE(io->name());
    const int listener = listen_any();
    REQUIRE(listen(listener, 4096) == 0);
    std::vector<std::unique_ptr<Recorder>> sides;
    for (int i = 0; i < 2600; ++i) {
      sides.push_back(std::make_unique<Recorder>());
      REQUIRE(io->connect(sides.back()->socket, bound(listener)) == 0);
      io->set_receiving(sides.back()->socket, true);
      const int peer = accept_next(listener);
      REQUIRE(write(peer, "m", 1) == 1);
      ::close(peer);
    }
    const auto all = [&](auto&& heard) {
      return std::all_of(sides.begin(), sides.end(),
                         [&](const auto& side) { return heard(*side); });
    };
    CHECK(run_until(*io, [&] { return all([](Recorder& side) { return side.connected == 0; }); }));
    CHECK(run_until(*io, [&] { return all([](Recorder& side) { return side.text == "m"; }); }));
    CHECK(run_until(*io, [&] { return all([](Recorder& side) { return side.ends == 1; }); }));
    ::close(listener);
    for (const auto& side : sides) io->close(side->socket);
    CHECK(run_until(*io, [&] { return all([](Recorder& side) { return side.closed == 1; }); }));
  }
}

// The same where it can be seen: one call completes up to 20 polls (IO_LOCAL_TW_DEFAULT_MAX in the
// kernel), and of those the queue holds 8. A simulated engine has no such queue.
TEST_CASE("Io: more completions than the queue holds -> counted, and all are delivered") {
  RingEngine ring(0);
  ring.start(4, 8);
  if (!ring.probe().usable()) return;
  std::vector<std::unique_ptr<Pair>> pairs;
  for (int i = 0; i < 100; ++i) {
    pairs.push_back(std::make_unique<Pair>(ring));
    ring.set_receiving(pairs.back()->side.socket, true);
  }
  for (int i = 0; i < 100; ++i) ring.run_once(0);  // All are watched; nothing has come.
  REQUIRE(ring.counters().cq_overflows.get() == 0);
  for (const auto& pair : pairs) REQUIRE(write(pair->client, "m", 1) == 1);
  CHECK(run_until(ring, [&] {
    for (const auto& pair : pairs) {
      if (pair->side.text != "m") return false;
    }
    return true;
  }));
  CHECK(ring.counters().cq_overflows.get() > 0);
}

// Its backlog is never empty: it is filled again from inside each of its own calls. A turn of an
// engine that reads takes four full reads of an event and four of the ready list. With multishot
// receives the kernel decides: such a sender gets all turns there (docs/changelog.md, Known gaps).
// The simulated engine has no backlog that is filled inside its calls: bytes arrive between turns.
TEST_CASE("Io: one sender without an end -> its turn ends, and the others have theirs") {
  constexpr size_t kGiveUp = 20'000;
  const auto starve = [&](Io& io, const std::string& which, size_t calls_max) {
    CAPTURE(which);
    const std::string block(256 * 1024, 'f');  // The pairs' last turns still fill.
    Pair fast(io);
    Pair slow(io);
    const auto fill = [&] {
      while (send(fast.client, block.data(), block.size(), MSG_DONTWAIT) > 0) continue;
    };
    size_t calls = 0;
    fast.side.then = [&] {
      fast.side.text.clear();
      if (++calls < kGiveUp) fill();  // A turn without a bound ends here, and too late.
    };
    io.set_receiving(fast.side.socket, true);
    io.set_receiving(slow.side.socket, true);
    for (int i = 0; i < 10; ++i) io.run_once(0);
    fill();
    for (size_t round = 1; round <= 20; ++round) {
      REQUIRE(write(slow.client, "m", 1) == 1);
      const size_t before = calls;
      size_t turns = 0;
      for (; turns < 20 && (slow.side.text.size() < round || calls == before); ++turns) {
        const size_t so_far = calls;
        io.run_once(0);
        CHECK(calls - so_far <= calls_max);
      }
      CHECK(slow.side.text.size() == round);
      CHECK(calls > before);
    }
    CHECK(calls < kGiveUp);
    fast.side.then = {};
  };
  for (const EngineKind kind : {EngineKind::kAuto, EngineKind::kEpoll}) {
    const auto io = make_engine(kind).io;
    starve(*io, std::string("by readiness, ") + io->name(), 8);
  }
}

// Pitfall 19: a handler closes sockets that later events of the same batch name.
TEST_CASE("Io: one owner closes the others inside the batch -> each closes once, no event after") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    std::vector<std::unique_ptr<AnyPair>> pairs;
    for (int i = 0; i < 20; ++i) pairs.push_back(std::make_unique<AnyPair>(io));
    int calls = 0;
    for (const auto& pair : pairs) {
      io->set_receiving(pair->side.socket, true);
      io->want_writable(pair->side.socket);
      pair->side.then = [&] {
        ++calls;
        for (const auto& other : pairs) io->close(other->side.socket);
      };
      pair->peer->write("m");
    }
    CHECK(run_until(*io, [&] {
      for (const auto& pair : pairs) {
        if (pair->side.closed == 0) return false;
      }
      return true;
    }));
    CHECK(calls == 1);
    for (const auto& pair : pairs) CHECK(pair->side.closed == 1);
  }
}

TEST_CASE("Io: connect -> connected, refused, or an error at once") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    const int listener = listen_any(io);
    const ServerAddress there = bound(io, listener);
    Recorder good;
    REQUIRE(io->connect(good.socket, there) == 0);
    CHECK(run_until(*io, [&] { return good.connected == 0; }));
    io->discard(listener);
    Recorder bad;
    REQUIRE(io->connect(bad.socket, there) == 0);
    CHECK(run_until(*io, [&] { return bad.connected == ECONNREFUSED; }));
    Recorder nowhere;
    ServerAddress path;
    REQUIRE(parse_address("unix:/nonexistent/socket", path));
    CHECK(io->connect(nowhere.socket, path) == ENOENT);
    CHECK_FALSE(nowhere.socket.open());
    io->close(good.socket);
    io->close(bad.socket);
    CHECK(run_until(*io, [&] { return good.closed == 1 && bad.closed == 1; }));
  }
}

TEST_CASE("Io: accept tells the peer; unlisten takes what was queued; the slot is used again") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    for (int round = 0; round < 3; ++round) {
      const int listener = listen_any(io);
      Acceptor acceptor;
      io->listen(listener, acceptor);
      const auto first = dial(io, bound(io, listener));
      REQUIRE(run_until(*io, [&] { return acceptor.fds.size() == 1; }));
      CHECK(acceptor.last.port == first->port());
      const auto second = dial(io, bound(io, listener));
      io->unlisten(listener);
      CHECK(acceptor.fds.size() == 2);
      io->discard(listener);
      for (int i = 0; i < 3; ++i) io->run_once(1);
      for (const int fd : acceptor.fds) io->discard(fd);
    }
  }
}

TEST_CASE("Io: wake from another thread -> a sleeping turn returns, wakes may share a call") {
  struct Waker final : WakeOwner {
    void on_wake() override { ++calls; }
    int calls = 0;
  };
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    Waker waker;
    io->set_wake_owner(waker);
    const auto wakes = [&] {
      for (int i = 0; i < 100; ++i) io->wake();
    };
    std::thread other;
    io.simulated() ? wakes() : void(other = std::thread(wakes));  // Its threads are simulated too.
    CHECK(run_until(*io, [&] { return waker.calls > 0; }));
    if (other.joinable()) other.join();
    io->wake();
    const int before = waker.calls;
    io->run_once(10'000);
    CHECK(waker.calls > before - 1);
    CHECK(waker.calls <= 101);
  }
}

// Pitfall 16: container profiles and kernel.io_uring_disabled answer EPERM; old kernels ENOSYS.
TEST_CASE("make_engine: io_uring forbidden -> auto uses epoll and says why, io_uring refuses") {
  for (const int error : {EPERM, ENOSYS}) {
    CAPTURE(error);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      if (!forbid_rings(error)) _exit(10);
      const EngineResult fallback = make_engine(EngineKind::kAuto);
      if (fallback.io == nullptr || std::string(fallback.io->name()) != "epoll") _exit(1);
      const char* hint = error == EPERM ? "kernel.io_uring_disabled" : "6.1";
      if (fallback.reason.find(hint) == std::string::npos) _exit(2);
      const EngineResult refused = make_engine(EngineKind::kIoUring);
      if (refused.io != nullptr || refused.reason.empty()) _exit(3);
      if (engine_report().find("not usable") == std::string::npos) _exit(4);
      _exit(0);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    REQUIRE(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
  }
}

TEST_CASE("ring_setup_failure: each error names its cause and the fix") {
  CHECK(ring_setup_failure(EPERM).find("seccomp") != std::string::npos);
  CHECK(ring_setup_failure(ENOMEM).find("LimitMEMLOCK") != std::string::npos);
  CHECK(ring_setup_failure(ENOSYS).find("6.1") != std::string::npos);
  CHECK(ring_setup_failure(EINVAL).find("6.1") != std::string::npos);
  CHECK(ring_setup_failure(EIO).find("io_uring_setup") == 0);
}

TEST_CASE("Spin: only where gaps are short, and a fifth of the time at most") {
  Spin spin(50);
  CHECK(spin.budget_us(0) == 0);  // Nothing known yet: an idle process sleeps.
  for (int i = 0; i < 200; ++i) spin.learn(10, 0);
  CHECK(spin.budget_us(1) == 50);
  for (int i = 0; i < 4000; ++i) spin.learn(10, 50);
  CHECK(spin.budget_us(2) == 0);           // 200 ms of this second are spent.
  CHECK(spin.budget_us(1'000'002) == 50);  // A new one.
  for (int i = 0; i < 200; ++i) spin.learn(1'000'000, 0);
  CHECK(spin.budget_us(1'000'003) == 0);
  CHECK(Spin(0).budget_us(0) == 0);
}
