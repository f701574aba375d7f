// tests/core/ring_receive_test.cc - receiving by completions, with buffers that run out.
#include "core/ring_receive.h"

#include <doctest/doctest.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "core/base/prng.h"
#include "core/engine_report.h"
#include "core/engines.h"
#include "tests/core/every_engine.h"
#include "tests/core/loopback.h"

using namespace ringway;

namespace {

// `bytes` bytes that differ from those of every other `seed`, and in every place.
std::string pattern(uint64_t seed, size_t bytes) {
  Prng prng(seed);
  std::string text(bytes, '\0');
  for (char& byte : text) byte = static_cast<char>(prng.next());
  return text;
}

void make_non_blocking(int fd) {
  REQUIRE(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
}

// Writes what the kernel takes of `text` from `at` on. Returns the new position.
size_t write_some(int fd, const std::string& text, size_t at, size_t limit) {
  const ssize_t n = write(fd, text.data() + at, std::min(limit, text.size() - at));
  return n > 0 ? at + static_cast<size_t>(n) : at;
}

size_t write_some(Peer& peer, const std::string& text, size_t at, size_t limit) {
  return at + peer.try_write(std::string_view(text).substr(at, limit));
}

void make_small(AnyPair& pair) {
  const int small = 16 * 1024;
  setsockopt(static_cast<RealPeer&>(*pair.peer).fd(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  setsockopt(pair.side.socket.fd(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
}

bool all_with_kernel(const RingEngine& ring) {
  return ring.receive_ring()->with_kernel() == ring.receive_ring()->shape().count;
}

}  // namespace

// Pitfall 8: a receive that found no buffer has ended; who does not arm it again waits for ever.
TEST_CASE("ReceiveRing: 64 senders on 2 buffers of 128 bytes -> all bytes of all arrive") {
  const auto ring = make_multishot(256, 0, {2, 128, true});
  if (ring == nullptr) return;
  constexpr size_t kBytes = 20'000;
  std::vector<std::unique_ptr<Pair>> pairs;
  std::vector<std::string> texts;
  std::vector<size_t> at(64, 0);
  for (size_t i = 0; i < 64; ++i) {
    pairs.push_back(std::make_unique<Pair>(*ring));
    make_non_blocking(pairs[i]->client);
    ring->set_receiving(pairs[i]->side.socket, true);
    texts.push_back(pattern(i, kBytes));
  }
  CHECK(run_until(*ring, [&] {
    bool complete = true;
    for (size_t i = 0; i < pairs.size(); ++i) {
      at[i] = write_some(pairs[i]->client, texts[i], at[i], kBytes);
      complete = complete && pairs[i]->side.text.size() == kBytes;
    }
    return complete;
  }));
  for (size_t i = 0; i < pairs.size(); ++i) CHECK(pairs[i]->side.text == texts[i]);
  CHECK(ring->counters().receive_starved.get() > 0);
  CHECK(all_with_kernel(*ring));
}

TEST_CASE("ReceiveRing: sockets close while starved -> the others go on, nothing is lost") {
  const auto ring = make_multishot(256, 0, {1, 8, true});
  if (ring == nullptr) return;
  std::vector<std::unique_ptr<Pair>> pairs;
  for (int i = 0; i < 20; ++i) {
    pairs.push_back(std::make_unique<Pair>(*ring));
    ring->set_receiving(pairs.back()->side.socket, true);
  }
  const std::string text = pattern(1, 500);
  for (const auto& pair : pairs) REQUIRE(write(pair->client, text.data(), 500) == 500);
  REQUIRE(run_until(*ring, [&] { return ring->counters().receive_starved.get() >= 10; }));
  for (size_t i = 0; i < pairs.size(); i += 2) ring->close(pairs[i]->side.socket);
  CHECK(run_until(*ring, [&] {
    bool complete = true;
    for (size_t i = 0; i < pairs.size(); ++i) {
      const Recorder& side = pairs[i]->side;
      complete = complete && (i % 2 == 0 ? side.closed == 1 : side.text.size() == 500);
    }
    return complete;
  }));
  for (size_t i = 1; i < pairs.size(); i += 2) CHECK(pairs[i]->side.text == text);
  CHECK(all_with_kernel(*ring));
}

// The slots of closed sockets are used again while the queue of starved ones still names them.
TEST_CASE("ReceiveRing: starved sockets close and new ones take their slots -> each gets its own") {
  const auto ring = make_multishot(256, 0, {1, 8, true});
  if (ring == nullptr) return;
  for (uint64_t round = 0; round < 10; ++round) {
    std::vector<std::unique_ptr<Pair>> pairs;
    for (uint64_t i = 0; i < 8; ++i) {
      pairs.push_back(std::make_unique<Pair>(*ring));
      ring->set_receiving(pairs[i]->side.socket, true);
      const std::string text = pattern(round * 8 + i, 100);
      REQUIRE(write(pairs[i]->client, text.data(), 100) == 100);
    }
    // Odd rounds die in the middle.
    if (round % 2 == 1) {
      ring->run_once(1);
      continue;
    }
    CHECK(run_until(*ring, [&] {
      bool complete = true;
      for (const auto& pair : pairs) complete = complete && pair->side.text.size() == 100;
      return complete;
    }));
    for (uint64_t i = 0; i < 8; ++i) CHECK(pairs[i]->side.text == pattern(round * 8 + i, 100));
  }
  CHECK(all_with_kernel(*ring));
}

// An idle socket must not fail only because the buffers are gone for a moment.
TEST_CASE("ReceiveRing: idle sockets on one buffer -> not starved without bytes of their own") {
  const auto ring = make_multishot(256, 0, {1, 64, false});
  if (ring == nullptr) return;
  std::vector<std::unique_ptr<Pair>> pairs;
  for (int i = 0; i < 50; ++i) {
    pairs.push_back(std::make_unique<Pair>(*ring));
    ring->set_receiving(pairs.back()->side.socket, true);
    ring->run_once(0);
  }
  CHECK(ring->counters().receive_starved.get() == 0);
  REQUIRE(write(pairs.front()->client, "x", 1) == 1);
  CHECK(run_until(*ring, [&] { return pairs.front()->side.text == "x"; }));
}

// The case of a relay: the other side's handler resumes this one while its completions are being
// delivered. Whether the kernel lets the other in between them (it may after 32 receives of one
// socket) or behind them all depends on its version; the order must not.
TEST_CASE("ReceiveRing: resumed by another's handler in the batch -> what is held goes first") {
  const auto ring = make_multishot(256, 0, {64, 16, false});
  if (ring == nullptr) return;
  Pair relay(*ring);
  Pair other(*ring);
  ring->set_receiving(relay.side.socket, true);
  ring->set_receiving(other.side.socket, true);
  ring->run_once(0);
  ring->set_receiving(relay.side.socket, false);
  other.side.then = [&] { ring->set_receiving(relay.side.socket, true); };
  const std::string text = pattern(5, 900);
  REQUIRE(write(relay.client, text.data(), 900) == 900);
  REQUIRE(write(other.client, "go", 2) == 2);
  CHECK(run_until(*ring, [&] { return relay.side.text.size() == 900; }));
  CHECK(relay.side.text == text);
  CHECK(ring->counters().receive_held.get() > 0);
}

TEST_CASE("Io: a pause under a fast sender -> it is stopped, and every byte comes in order") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    AnyPair pair(io);
    // Small socket buffers, so that a stopped sender shows within 3 MiB.
    if (!io.simulated()) make_small(pair);
    const std::string text = pattern(3, 3 << 20);
    size_t at = 0;
    io->set_receiving(pair.side.socket, true);
    while (pair.side.text.empty()) {
      at = write_some(*pair.peer, text, at, text.size());
      io->run_once(1);
    }
    io->set_receiving(pair.side.socket, false);
    const size_t before = pair.side.text.size();
    for (size_t last = text.size(); at != last;) {
      last = at;
      for (int i = 0; i < 50; ++i) {
        at = write_some(*pair.peer, text, at, text.size());
        io->run_once(0);
      }
    }
    CHECK(pair.side.text.size() == before);
    CHECK(at < text.size());
    // Less was put aside than one round of all receive buffers.
    CHECK(io->counters().receive_held.get() <= 2 << 20);
    io->set_receiving(pair.side.socket, true);
    CHECK(run_until(*io, [&] {
      at = write_some(*pair.peer, text, at, text.size());
      return pair.side.text.size() == text.size();
    }));
    CHECK(pair.side.text == text);
  }
}

TEST_CASE("Io: bytes and FIN behind a pause -> the bytes, then the end, once") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    AnyPair pair(io);
    const std::string text = pattern(4, 3000);
    io->set_receiving(pair.side.socket, true);
    io->run_once(0);
    io->set_receiving(pair.side.socket, false);
    pair.peer->write(text);
    pair.peer->close();
    for (int i = 0; i < 10; ++i) io->run_once(1);
    CHECK(pair.side.text.empty());
    CHECK(pair.side.ends == 0);
    io->set_receiving(pair.side.socket, true);
    CHECK(run_until(*io, [&] { return pair.side.ends == 1; }));
    CHECK(pair.side.text == text);
    CHECK(pair.side.end_error == 0);
    for (int i = 0; i < 3; ++i) io->run_once(0);
    CHECK(pair.side.ends == 1);
  }
}

TEST_CASE("Io: close with bytes held behind a pause -> closed, the memory is free again") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    AnyPair pair(io);
    io->set_receiving(pair.side.socket, true);
    io->run_once(0);
    io->set_receiving(pair.side.socket, false);
    pair.peer->write("never read");
    for (int i = 0; i < 5; ++i) io->run_once(1);
    io->close(pair.side.socket);
    CHECK(run_until(*io, [&] { return pair.side.closed == 1; }));
    CHECK(pair.side.text.empty());  // The pools check in their destructors that all came back.
  }
}

// Method: eight streams, writes of random sizes, pauses at random from outside and from inside the
// handler. Whatever the mode, a stream is a stream.
TEST_CASE("Io: random writes and pauses -> each stream arrives whole and in order") {
  constexpr size_t kBytes = 100'000;
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    Prng prng(42);
    std::vector<std::unique_ptr<AnyPair>> pairs;
    std::vector<std::string> texts;
    std::vector<size_t> at(8, 0);
    for (size_t i = 0; i < 8; ++i) {
      pairs.push_back(std::make_unique<AnyPair>(io));
      texts.push_back(pattern(100 + i, kBytes));
      Socket& socket = pairs[i]->side.socket;
      pairs[i]->side.then = [&] {
        if (prng.chance(1.0 / 4)) io->set_receiving(socket, false);
        if (prng.chance(1.0 / 8)) io->set_receiving(socket, true);
      };
    }
    CHECK(run_until(*io, [&] {
      bool complete = true;
      for (size_t i = 0; i < 8; ++i) {
        if (prng.chance(1.0 / 2))
          at[i] = write_some(*pairs[i]->peer, texts[i], at[i], 1 + prng.below(20'000));
        io->set_receiving(pairs[i]->side.socket, prng.chance(3.0 / 4));
        complete = complete && pairs[i]->side.text.size() == kBytes;
      }
      return complete;
    }));
    for (size_t i = 0; i < 8; ++i) CHECK(pairs[i]->side.text == texts[i]);
  }
}

TEST_CASE("Io: a connection made by connect() -> receives what was sent before it was armed") {
  for (const AnyEngine& io : every_engine()) {
    CAPTURE(io->name());
    const int listener = listen_any(io);
    const ServerAddress there = bound(io, listener);
    Recorder side;
    REQUIRE(io->connect(side.socket, there) == 0);
    const auto peer = accept_one(io, listener);
    peer->write("banner");
    peer->close();
    io->set_receiving(side.socket, true);
    CHECK(run_until(*io, [&] { return side.ends == 1; }));
    CHECK(side.connected == 0);
    CHECK(side.text == "banner");
    io->discard(listener);
    io->close(side.socket);
    CHECK(run_until(*io, [&] { return side.closed == 1; }));
  }
}

TEST_CASE("make_engine: multishot -> used, and told apart from what cannot be had") {
  const EngineResult twin =
      make_engine({.kind = EngineKind::kEpoll, .receive = ReceiveMode::kMultishot});
  REQUIRE(twin.io != nullptr);
  CHECK(twin.reason.find("epoll has no multishot") != std::string::npos);
  const EngineResult poll =
      make_engine({.kind = EngineKind::kEpoll, .receive = ReceiveMode::kPoll});
  CHECK(poll.reason.empty());
  if (make_multishot(64, 0, ReceiveRing::kPlain) == nullptr) return;
  const EngineResult ring =
      make_engine({.kind = EngineKind::kIoUring, .receive = ReceiveMode::kMultishot});
  REQUIRE(ring.io != nullptr);
  CHECK(ring.reason.empty());
  CHECK(engine_report().find("self-test of multishot receives: passed") != std::string::npos);
}

TEST_CASE("make_engine: the kernel refuses buffer rings -> io_uring by poll, and says why") {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    // Only IORING_REGISTER_PBUF_RING (22) is refused; the other registrations work.
    const sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_register, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IORING_REGISTER_PBUF_RING, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    const sock_fprog program{6, const_cast<sock_filter*>(rules)};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) _exit(0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) _exit(0);
    const EngineResult made =
        make_engine({.kind = EngineKind::kAuto, .receive = ReceiveMode::kMultishot});
    if (made.io == nullptr) _exit(1);
    if (std::string(made.io->name()) == "epoll") _exit(0);  // no io_uring at all here
    if (made.reason.find("receiving by poll") == std::string::npos) _exit(2);
    if (engine_report().find("recv(2) when readable") == std::string::npos) _exit(3);
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}
