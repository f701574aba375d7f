// tests/core/pitfalls_test.cc - what goes wrong with readiness and rings, a test for each.
//
// The rest of the list is in engine_test.cc (close with an armed poll, a small completion queue, a
// slot freed inside a batch, an edge behind a pause, io_uring forbidden) and ring_receive_test.cc
// (receives without a buffer); the whole of it is in docs/invariants.md. Where a test is about the
// process (its descriptors, ports, memory or children) the simulated engine has nothing to show.
#include <arpa/inet.h>
#include <dirent.h>
#include <doctest/doctest.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "core/engines.h"
#include "tests/core/every_engine.h"
#include "tests/core/loopback.h"

using namespace ringway;

namespace {

// The descriptors of this process whose link contains `what`.
std::vector<int> open_files(const std::string& what) {
  std::vector<int> found;
  DIR* folder = opendir("/proc/self/fd");
  REQUIRE(folder != nullptr);
  while (const dirent* entry = readdir(folder)) {
    char target[256];
    const ssize_t length = readlinkat(dirfd(folder), entry->d_name, target, sizeof target);
    if (length <= 0) continue;
    if (std::string(target, static_cast<size_t>(length)).find(what) != std::string::npos) {
      found.push_back(atoi(entry->d_name));
    }
  }
  closedir(folder);
  return found;
}

// Lowers the limit of open descriptors to what is open, until the end of the scope.
struct NoMoreFiles {
  NoMoreFiles() {
    getrlimit(RLIMIT_NOFILE, &before);
    const int lowest = dup(0);
    REQUIRE(lowest >= 0);
    ::close(lowest);
    const rlimit now{static_cast<rlim_t>(lowest), before.rlim_max};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &now) == 0);
  }
  ~NoMoreFiles() { setrlimit(RLIMIT_NOFILE, &before); }
  rlimit before{};
};

}  // namespace

// Pitfall 2: a poll that survives the peer's FIN keeps the file, and sockets pile up.
TEST_CASE("Io: 300 connections that end by FIN or reset -> no descriptor is left") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    const auto files = [&] {
      return io.simulated() ? io.net->live_sockets() : open_files("socket:").size();
    };
    const size_t before = files();
    for (int i = 0; i < 300; ++i) {
      AnyPair pair(io);
      io->set_receiving(pair.side.socket, true);
      i % 2 == 0 ? pair.peer->cut() : pair.peer->close();
      REQUIRE(run_until(*io, [&] { return pair.side.ends == 1; }));
      CHECK(pair.side.end_error == (i % 2 == 0 ? ECONNRESET : 0));
    }
    CHECK(files() == before);
  }
}

// Pitfall 2 from the peer's view: our side must leave CLOSE_WAIT, or the peer waits for ever.
TEST_CASE("Io: close after the peer's FIN -> the peer reads the end") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    AnyPair pair(io);
    io->set_receiving(pair.side.socket, true);
    pair.peer->finish();
    REQUIRE(run_until(*io, [&] { return pair.side.ends == 1; }));
    io->close(pair.side.socket);
    REQUIRE(run_until(*io, [&] { return pair.side.closed == 1; }));
    CHECK(pair.peer->read_byte() == 0);
  }
}

// Pitfall 4: bytes that were only queued must not count as sent for good after a reset.
TEST_CASE("Io: send after the peer's reset -> an error, not a length") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    AnyPair pair(io);
    io->set_receiving(pair.side.socket, true);
    pair.peer->cut();
    REQUIRE(run_until(*io, [&] { return pair.side.ends == 1; }));
    const iovec piece{const_cast<char*>("late"), 4};
    CHECK(io->send(pair.side.socket, {&piece, 1}) == -EPIPE);
    io->want_writable(pair.side.socket);  // Fails at once, but must not keep the socket alive.
    io->run_once(0);
    io->close(pair.side.socket);
    CHECK(run_until(*io, [&] { return pair.side.closed == 1; }));
  }
}

// Pitfall 5: accepting again at once after EMFILE fails at once, and burns the core.
TEST_CASE("Io: out of descriptors -> a pause, not a spin; accepted when there is room again") {
  for (const auto& io : engines()) {
    CAPTURE(io->name());
    const int listener = listen_any();
    Acceptor acceptor;
    io->listen(listener, acceptor);
    io->run_once(0);
    std::vector<int> clients;
    for (int i = 0; i < 3; ++i) clients.push_back(dial(bound(listener)));
    {
      const NoMoreFiles limit;
      const int64_t start_us = io->now_us();
      REQUIRE(run_until(*io, [&] { return io->counters().accept_pauses.get() >= 2; }));
      const uint64_t turns = io->counters().turns.get();
      REQUIRE(run_until(*io, [&] { return io->counters().accept_pauses.get() >= 4; }));
      CHECK(io->counters().turns.get() > turns);
      // One attempt per 50 ms, however long that took here.
      const int64_t spent_ms = (io->now_us() - start_us) / 1000;
      CHECK(static_cast<int64_t>(io->counters().accept_pauses.get()) <= spent_ms / 50 + 2);
      CHECK(acceptor.fds.empty());
      // Nothing else to do: the turn sleeps until the pause is over, though it may wait for ever.
      const uint64_t sleeping_turns = io->counters().turns.get();
      const uint64_t pauses = io->counters().accept_pauses.get();
      while (io->counters().accept_pauses.get() == pauses) io->run_once(-1);
      CHECK(io->counters().turns.get() - sleeping_turns < 20);
    }
    CHECK(run_until(*io, [&] { return acceptor.fds.size() == 3; }));
    io->unlisten(listener);
    ::close(listener);
    for (const int fd : acceptor.fds) io->discard(fd);
    for (const int fd : clients) ::close(fd);
    io->run_once(0);
  }
}

TEST_CASE("Io: unlisten during the pause -> quiet, and the listener may be closed") {
  for (const auto& io : engines()) {
    CAPTURE(io->name());
    const int listener = listen_any();
    Acceptor acceptor;
    io->listen(listener, acceptor);
    const int client = dial(bound(listener));
    {
      const NoMoreFiles limit;
      REQUIRE(run_until(*io, [&] { return io->counters().accept_pauses.get() >= 1; }));
      io->unlisten(listener);
    }
    ::close(listener);
    for (int i = 0; i < 80; ++i) io->run_once(1);
    CHECK(acceptor.fds.empty());
    ::close(client);
  }
}

// Pitfall 6: with one shared listener a single ring gets every connection.
TEST_CASE("Io: two engines, a listener each on one port -> both accept") {
  struct Side {
    std::unique_ptr<Io> io;
    int listener = -1;
    Acceptor acceptor;
  };
  for (const EngineKind kind : {EngineKind::kAuto, EngineKind::kEpoll}) {
    Side sides[2];
    ServerAddress address;
    REQUIRE(parse_address("127.0.0.1:0", address));
    for (Side& side : sides) {
      side.io = make_engine(kind).io;
      side.listener = open_listener(address, {.reuse_port = true});
      REQUIRE(side.listener >= 0);
      address = bound(side.listener);
      side.io->listen(side.listener, side.acceptor);
    }
    std::vector<int> clients;
    for (int i = 0; i < 64; ++i) clients.push_back(dial(address));
    const auto accepted = [&] {
      sides[1].io->run_once(0);
      return sides[0].acceptor.fds.size() + sides[1].acceptor.fds.size() == 64;
    };
    CHECK(run_until(*sides[0].io, accepted));
    for (Side& side : sides) {
      CHECK(side.acceptor.fds.size() > 0);  // One side has all 64 once in 2^63 runs.
      for (const int fd : side.acceptor.fds) side.io->discard(fd);
      side.io->unlisten(side.listener);
      ::close(side.listener);
    }
    for (const int fd : clients) ::close(fd);
  }
}

// Pitfall 13: with deferred task work nothing completes unless the loop enters the kernel.
TEST_CASE("Io: turns that never wait -> events arrive all the same") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    AnyPair pair(io);
    io->set_receiving(pair.side.socket, true);
    pair.peer->write("poll");
    for (int i = 0; i < 1'000'000 && pair.side.text.size() < 4; ++i) io->run_once(0);
    CHECK(pair.side.text == "poll");
  }
}

// Pitfall 14: an armed poll keeps the listener's port busy after close(2).
TEST_CASE("Io: unlisten, close, one turn -> the port is free, 20 times") {
  for (const auto& io : engines()) {
    CAPTURE(io->name());
    ServerAddress address;
    REQUIRE(parse_address("127.0.0.1:0", address));
    for (int i = 0; i < 20; ++i) {
      int listener = -1;
      // The kernel lets go of a cancelled poll's file in a later turn.
      REQUIRE(run_until(*io, [&] { return (listener = open_listener(address)) >= 0; }));
      address = bound(listener);
      Acceptor acceptor;
      io->listen(listener, acceptor);
      io->run_once(0);
      io->unlisten(listener);
      ::close(listener);
    }
    io->run_once(0);
  }
}

// The same when the engine dies, as in a restart: a ring is torn down behind close(2).
TEST_CASE("Io: the engine dies with an armed listener -> the port is free soon") {
  for (const EngineKind kind : {EngineKind::kAuto, EngineKind::kEpoll}) {
    ServerAddress address;
    REQUIRE(parse_address("127.0.0.1:0", address));
    for (int i = 0; i < 5; ++i) {
      const std::unique_ptr<Io> io = make_engine(kind).io;
      int listener = -1;
      REQUIRE(run_until(*io, [&] { return (listener = open_listener(address)) >= 0; }));
      address = bound(listener);
      Acceptor acceptor;
      io->listen(listener, acceptor);
      io->run_once(0);
      ::close(listener);
    }
  }
}

// Pitfall 15: rings count as locked memory again; a service user often has 64 KiB of it.
TEST_CASE("make_engine: little locked memory -> an engine all the same, the reason names the fix") {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const rlimit little{16 * 1024, 16 * 1024};
    if (setrlimit(RLIMIT_MEMLOCK, &little) != 0) _exit(0);
    // Root is not limited. Without the right to become somebody else there is nothing to test.
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) _exit(0);
    const EngineResult made = make_engine(EngineKind::kAuto);
    if (made.io == nullptr) _exit(1);
    const bool is_ring = std::string(made.io->name()) == "io_uring";
    if (is_ring != made.reason.empty()) _exit(2);
    if (!is_ring && made.reason.find("using epoll") == std::string::npos) _exit(3);
    made.io->run_once(0);
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

// Pitfall 24: a child that shares the ring would accept twice and delay the teardown.
TEST_CASE("Io: a child is born and dies while the engine works -> the parent notices nothing") {
  for (const auto& io : engines()) {
    CAPTURE(io->name());
    Pair pair(*io);
    io->set_receiving(pair.side.socket, true);
    io->run_once(0);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) _exit(0);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    REQUIRE(write(pair.client, "still here", 10) == 10);
    CHECK(run_until(*io, [&] { return pair.side.text == "still here"; }));
  }
}

TEST_CASE("Io: every descriptor of an engine is closed on exec") {
  const auto all = engines();
  for (const char* what : {"io_uring", "eventpoll", "eventfd"}) {
    CAPTURE(what);
    for (const int fd : open_files(what)) {
      CAPTURE(fd);
      CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    }
  }
}

TEST_CASE("Io: a client over a unix socket -> accepted, without an address") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    const std::string path = "/tmp/ringway-pitfalls-" + std::to_string(getpid()) + ".sock";
    ServerAddress address;
    REQUIRE(parse_address("unix:" + path, address));
    const int listener = io.simulated() ? io.net->make_listener(address) : open_listener(address);
    REQUIRE(listener >= 0);
    Acceptor acceptor;
    io->listen(listener, acceptor);
    const auto client = dial(io, address);
    CHECK(run_until(*io, [&] { return acceptor.fds.size() == 1; }));
    CHECK(acceptor.last.family == PeerAddress::Family::kNone);
    io->unlisten(listener);
    io->discard(listener);
    unlink(path.c_str());
    for (const int fd : acceptor.fds) io->discard(fd);
    io->run_once(0);
  }
}

// Who came later would be accepted by the kernel as long as the engine holds the socket, and reset.
TEST_CASE("Io: unlisten -> refused from then on, before the next turn") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    const int listener = listen_any(io);
    const ServerAddress address = bound(io, listener);
    Acceptor acceptor;
    io->listen(listener, acceptor);
    io->run_once(0);
    for (const bool closed : {false, true}) {
      closed ? io->discard(listener) : io->unlisten(listener);
      CHECK(refused(io, address));
    }
    io->run_once(0);
  }
}

// Reloads change listeners for years: what they leave behind must not grow or get in the way.
TEST_CASE("Io: 2000 times listen and unlisten -> the next one still accepts") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    Acceptor acceptor;
    for (int i = 0; i < 2000; ++i) {
      const int one = listen_any(io);
      io->listen(one, acceptor);
      if (i % 7 == 0) io->run_once(0);
      io->unlisten(one);
      io->discard(one);
      if (i % 5 == 0) io->run_once(0);
    }
    const int listener = listen_any(io);
    io->listen(listener, acceptor);
    const auto client = dial(io, bound(io, listener));
    CHECK(run_until(*io, [&] { return acceptor.fds.size() == 1; }));
    io->unlisten(listener);
    for (const int fd : acceptor.fds) io->discard(fd);
    io->discard(listener);
    io->run_once(0);
  }
}
