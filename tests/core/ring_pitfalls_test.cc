// tests/core/ring_pitfalls_test.cc - traps of io_uring that our code avoids by not going there.
//
// Method: the trap itself on a raw ring, as the kernel at hand has it, and then the same situation
// with the engine. Where a kernel lacks the operation, the first part is left out.
#include <dirent.h>
#include <doctest/doctest.h>
#include <errno.h>
#include <liburing.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "core/engines.h"
#include "core/stream.h"
#include "tests/core/loopback.h"

using namespace ringway;

namespace {

// A ring of our own, and whether this kernel has one.
struct RawRing {
  explicit RawRing(unsigned entries, unsigned flags = 0)
      : up(io_uring_queue_init(entries, &ring, flags) == 0) {}
  ~RawRing() {
    if (up) io_uring_queue_exit(&ring);
  }
  // The next completion within 10 s: result and flags.
  std::pair<int32_t, uint32_t> next() {
    __kernel_timespec limit{.tv_sec = 10, .tv_nsec = 0};
    io_uring_cqe* cqe = nullptr;
    REQUIRE(io_uring_wait_cqe_timeout(&ring, &cqe, &limit) == 0);
    const std::pair<int32_t, uint32_t> seen{cqe->res, cqe->flags};
    last_user = cqe->user_data;
    io_uring_cqe_seen(&ring, cqe);
    return seen;
  }
  io_uring ring{};
  uint64_t last_user = 0;
  bool up;
};

// Two connected sockets whose buffers hold little; both block.
struct NarrowPair {
  NarrowPair() {
    const int listener = listen_any();
    const int small = 16 * 1024;
    setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    sender = dial(bound(listener));
    setsockopt(sender, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    receiver = accept_next(listener);
    ::close(listener);
  }
  ~NarrowPair() {
    if (sender >= 0) ::close(sender);
    ::close(receiver);
  }
  int sender = -1;
  int receiver = -1;
};

// How often the letter changes from one byte to the next.
size_t changes(const std::string& text) {
  size_t count = 0;
  for (size_t i = 1; i < text.size(); ++i) count += text[i] != text[i - 1] ? 1 : 0;
  return count;
}

// Threads of this process that the kernel made to do submissions that would block.
size_t ring_workers() {
  size_t count = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream file(task.path() / "comm");
    std::string name;
    std::getline(file, name);
    if (name.starts_with("iou-wrk")) ++count;
  }
  return count;
}

std::string core_sources() {
  std::ostringstream text;
  for (const auto& file : std::filesystem::directory_iterator(RW_SOURCE_DIR "/core")) {
    const std::string extension = file.path().extension();
    if (extension == ".cc" || extension == ".h") text << std::ifstream(file.path()).rdbuf();
  }
  return text.str();
}

}  // namespace

// Pitfall 3: each of two sends waits for room by itself, and whoever is woken goes on.
TEST_CASE("pitfall 3: two ring sends on one socket may mix their bytes; Stream keeps the order") {
  constexpr size_t kBytes = 1 << 20;
  const std::string a(kBytes, 'a');
  const std::string b(kBytes, 'b');
  {
    RawRing raw(8);
    if (!raw.up) return;
    NarrowPair pair;
    for (const std::string* text : {&a, &b}) {
      io_uring_sqe* entry = io_uring_get_sqe(&raw.ring);
      io_uring_prep_send(entry, pair.sender, text->data(), text->size(), MSG_WAITALL);
    }
    REQUIRE(io_uring_submit(&raw.ring) == 2);
    std::string got;
    char buffer[4096];
    while (got.size() < 2 * kBytes) {
      const ssize_t n = recv(pair.receiver, buffer, sizeof buffer, MSG_DONTWAIT);
      if (n > 0) got.append(buffer, static_cast<size_t>(n));
      io_uring_get_events(&raw.ring);
    }
    CHECK(raw.next().first == static_cast<int32_t>(kBytes));
    CHECK(raw.next().first == static_cast<int32_t>(kBytes));
    // Nothing is lost, but one after the other would be a single change. What the kernel does here
    // is its own business: told, not demanded.
    MESSAGE("two ring sends changed over ", changes(got), " times");
  }
  for (const auto& io : engines()) {
    CAPTURE(io->name());
    struct Owner final : SocketOwner {
      Owner(Io& io, ChunkPool& pool) : env{io, pool}, stream(*this, env) {}
      void on_connected(Socket&, int) override {}
      void on_receive(Socket&, std::span<const std::byte>) override {}
      void on_receive_end(Socket&, int) override {}
      void on_writable(Socket&) override { intact = stream.flush() && intact; }
      void on_closed(Socket&) override {}
      StreamEnv env;
      Stream stream;
      bool intact = true;
    };
    ChunkPool pool(256);
    Owner owner(*io, pool);
    NarrowPair pair;
    owner.stream.adopt(pair.sender);
    for (const std::string* text : {&a, &b}) {
      const iovec piece{const_cast<char*>(text->data()), text->size()};
      REQUIRE(owner.stream.write({&piece, 1}));
    }
    std::string got;
    char buffer[65536];
    CHECK(run_until(*io, [&] {
      const ssize_t n = recv(pair.receiver, buffer, sizeof buffer, MSG_DONTWAIT);
      if (n > 0) got.append(buffer, static_cast<size_t>(n));
      return got.size() == 2 * kBytes;
    }));
    CHECK(owner.intact);
    CHECK(changes(got) == 1);
    owner.stream.close();
    CHECK(run_until(*io, [&] { return !owner.stream.attached(); }));
    pair.sender = -1;  // The engine has closed it.
  }
}

// Pitfall 12: a ring belongs to the thread that first used it.
TEST_CASE("pitfall 12: another thread's submission is refused; engines are made where they run") {
  RawRing raw(8, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
  if (!raw.up) return;
  int refused = 0;
  std::thread([&] {
    io_uring_prep_nop(io_uring_get_sqe(&raw.ring));
    refused = io_uring_submit(&raw.ring);
  }).join();
  CHECK(refused == -EEXIST);
  std::string heard;
  std::thread([&] {
    const auto io = make_engine(EngineKind::kAuto).io;
    Pair pair(*io);
    io->set_receiving(pair.side.socket, true);
    if (write(pair.client, "own", 3) != 3) return;
    run_until(*io, [&] { return pair.side.text == "own"; });
    heard = pair.side.text;
  }).join();
  CHECK(heard == "own");
}

// Pitfall 18: the first completion of a zero-copy send says how much was taken, not that the kernel
// is done with the bytes; that is the second one. Io::send() copies: the bytes are the caller's
// again when it returns, however long they wait for the peer's window.
TEST_CASE("pitfall 18: bytes changed after the send -> zero-copy sends those, Io::send() the old") {
  constexpr size_t kBytes = 256 * 1024;
  std::string text(kBytes, 'o');
  {
    RawRing raw(8);
    if (!raw.up) return;
    NarrowPair pair;
    io_uring_sqe* entry = io_uring_get_sqe(&raw.ring);
    io_uring_prep_send_zc(entry, pair.sender, text.data(), text.size(), MSG_DONTWAIT, 0);
    REQUIRE(io_uring_submit(&raw.ring) == 1);
    const auto [taken, flags] = raw.next();
    if (taken > 0 && (flags & IORING_CQE_F_MORE) != 0) {
      std::fill(text.begin(), text.end(), 'n');
      std::string got(static_cast<size_t>(taken), '\0');
      REQUIRE(recv(pair.receiver, got.data(), got.size(), MSG_WAITALL) == taken);
      MESSAGE("of ", taken, " bytes of a zero-copy send ", std::count(got.begin(), got.end(), 'n'),
              " were changed afterwards");
      const auto [done, done_flags] = raw.next();
      CHECK((done_flags & IORING_CQE_F_NOTIF) != 0);
      CHECK((done_flags & IORING_CQE_F_MORE) == 0);
    }
  }
  for (const auto& io : engines()) {
    CAPTURE(io->name());
    text.assign(kBytes, 'o');
    NarrowPair pair;
    Recorder side;
    io->adopt(side.socket, pair.sender);
    const iovec piece{text.data(), text.size()};
    const ssize_t taken = io->send(side.socket, {&piece, 1});
    REQUIRE(taken > 0);
    std::fill(text.begin(), text.end(), 'n');
    std::string got(static_cast<size_t>(taken), '\0');
    REQUIRE(recv(pair.receiver, got.data(), got.size(), MSG_WAITALL) == taken);
    CHECK(got == std::string(static_cast<size_t>(taken), 'o'));
    io->close(side.socket);
    CHECK(run_until(*io, [&] { return side.closed == 1; }));
    pair.sender = -1;
  }
}

// Pitfall 22: a chain ends where a submission ends, so what was behind a failed link runs.
TEST_CASE("pitfall 22: a full queue cuts a chain of links in two; single operations lose nothing") {
  {
    RawRing raw(4);
    if (!raw.up) return;
    // The first of six fails, so all others should be cancelled. There is room for four.
    char byte = 0;
    for (uint64_t i = 0; i < 6; ++i) {
      io_uring_sqe* entry = io_uring_get_sqe(&raw.ring);
      if (entry == nullptr) {
        REQUIRE(io_uring_submit(&raw.ring) == 4);
        entry = io_uring_get_sqe(&raw.ring);
      }
      if (i == 0) {
        io_uring_prep_read(entry, -1, &byte, 1, 0);
      } else {
        io_uring_prep_nop(entry);
      }
      entry->user_data = i;
      if (i < 5) entry->flags |= IOSQE_IO_LINK;
    }
    REQUIRE(io_uring_submit(&raw.ring) == 2);
    int32_t results[6];
    for (int i = 0; i < 6; ++i) {
      const int32_t result = raw.next().first;
      REQUIRE(raw.last_user < 6);
      results[raw.last_user] = result;
    }
    CHECK(results[0] == -EBADF);
    for (int i = 1; i < 4; ++i) CHECK(results[i] == -ECANCELED);
    for (int i = 4; i < 6; ++i) CHECK(results[i] == 0);
  }
  // The same number of entries, and in one turn 200 operations that nothing links.
  RingEngine ring(0);
  ring.start(4, 8);
  REQUIRE(ring.probe().usable());
  std::vector<std::unique_ptr<Pair>> pairs;
  for (int i = 0; i < 100; ++i) {
    pairs.push_back(std::make_unique<Pair>(ring));
    ring.want_writable(pairs.back()->side.socket);
    ring.set_receiving(pairs.back()->side.socket, true);
  }
  CHECK(ring.counters().sq_full.get() > 0);
  for (size_t i = 0; i < 100; i += 2) ring.close(pairs[i]->side.socket);
  for (size_t i = 1; i < 100; i += 2) REQUIRE(write(pairs[i]->client, "m", 1) == 1);
  CHECK(run_until(ring, [&] {
    for (size_t i = 0; i < 100; ++i) {
      if (i % 2 == 0 && pairs[i]->side.closed == 0) return false;
      if (i % 2 == 1 && (pairs[i]->side.text != "m" || pairs[i]->side.writable == 0)) return false;
    }
    return true;
  }));
  for (int i = 0; i < 10; ++i) ring.run_once(0);
  for (size_t i = 0; i < 100; ++i) {
    CHECK(pairs[i]->side.closed == (i % 2 == 0 ? 1 : 0));
    CHECK(pairs[i]->side.writable <= 1);
  }
}

// Pitfall 23: what is read of a completion after the queue has moved on is another one's. Here each
// handler submits more than the queue holds, so that completions of the next ones are written while
// those of this batch are still being delivered.
TEST_CASE("pitfall 23: handlers that submit inside a batch -> each gets its own bytes") {
  for (const bool multishot : {false, true}) {
    CAPTURE(multishot);
    const auto ring = multishot ? make_multishot(4, 8, ReceiveRing::Shape{16, 64, false})
                                : std::make_unique<RingEngine>(0);
    if (ring == nullptr) return;  // The kernel has no multishot receives.
    if (!multishot) ring->start(4, 8);
    REQUIRE(ring->probe().usable());
    constexpr size_t kPairs = 50;
    std::vector<std::unique_ptr<Pair>> pairs;
    for (size_t i = 0; i < kPairs; ++i) {
      pairs.push_back(std::make_unique<Pair>(*ring));
      pairs[i]->side.then = [&pairs, &ring, i] {
        for (size_t j = 0; j < 6; ++j) {
          ring->want_writable(pairs[(i + j * 7) % kPairs]->side.socket);
        }
      };
      ring->set_receiving(pairs[i]->side.socket, true);
    }
    std::vector<std::string> expected(kPairs);
    for (int round = 0; round < 20; ++round) {
      for (size_t i = 0; i < kPairs; ++i) {
        const std::string text = std::to_string(i) + ":" + std::to_string(round) + ";";
        REQUIRE(write(pairs[i]->client, text.data(), text.size()) > 0);
        expected[i] += text;
      }
      for (size_t i = 0; i < kPairs; ++i) {
        REQUIRE(run_until(*ring, [&] { return pairs[i]->side.text.size() >= expected[i].size(); }));
        CHECK(pairs[i]->side.text == expected[i]);
      }
    }
    CHECK(ring->counters().sq_full.get() > 0);
  }
}

// Goal: the table of pitfalls names tests that exist: a name of docs/references.md is the beginning
// of one, up to "...", in the file that stands before it.
TEST_CASE("pitfalls: each of the 24 has a test, or a reason") {
  std::ifstream table(RW_SOURCE_DIR "/docs/references.md");
  std::set<int> rows;
  for (std::string line; std::getline(table, line);) {
    const int number = line.starts_with("| ") ? atoi(line.c_str() + 2) : 0;
    if (number == 0) continue;
    CAPTURE(line);
    rows.insert(number);
    std::string source;
    size_t named = 0;
    for (size_t at = 0; at < line.size(); ++at) {
      if (line[at] != '`' && line[at] != '"') continue;
      const size_t end = line.find(line[at], at + 1);
      REQUIRE(end != std::string::npos);
      const std::string word = line.substr(at + 1, end - at - 1);
      if (line[at] == '`' && word.ends_with("_test")) {
        std::ostringstream text;
        text << std::ifstream(RW_SOURCE_DIR "/tests/core/" + word + ".cc").rdbuf();
        source = text.str();
        CHECK(!source.empty());
      } else if (line[at] == '"') {
        CAPTURE(word);
        ++named;
        const std::string beginning = word.substr(0, word.find(" ..."));
        CHECK(source.find("\"" + beginning) != std::string::npos);
      }
      at = end;
    }
    const bool reasoned = line.find("not tested: ") != std::string::npos;
    CHECK((named > 0 || reasoned));
  }
  CHECK(rows.size() == 24);
  CHECK(*rows.rbegin() == 24);
}

// Pitfall 10: an operation that the kernel hands to a worker thread costs 20 times as much.
TEST_CASE("pitfall 10: the whole life of 50 connections -> the kernel starts no worker thread") {
  const size_t before = ring_workers();
  for (const auto& io : engines()) {
    CAPTURE(io->name());
    const int listener = listen_any();
    Acceptor acceptor;
    io->listen(listener, acceptor);
    for (int i = 0; i < 50; ++i) {
      Pair pair(*io);
      io->set_receiving(pair.side.socket, true);
      REQUIRE(write(pair.client, "m", 1) == 1);
      REQUIRE(run_until(*io, [&] { return pair.side.text == "m"; }));
      io->want_writable(pair.side.socket);
      io->run_once(0);
      io->shutdown_send(pair.side.socket);
      i % 2 == 0 ? io->close(pair.side.socket) : io->abort(pair.side.socket);
    }
    io->unlisten(listener);
    ::close(listener);
    io->run_once(0);
    CHECK(ring_workers() == before);
  }
}

// Pitfalls 10, 11, 16 to 18, 22: what is not there cannot bite. Whoever adds one reads the notes.
TEST_CASE("pitfalls: core/ prepares five operations, links none, and keeps clear of the rest") {
  const std::string text = core_sources();
  constexpr std::string_view kPrepare = "io_uring_prep_";
  std::set<std::string> found;
  for (size_t at = 0; (at = text.find(kPrepare, at)) != std::string::npos;) {
    at += kPrepare.size();
    const size_t end = text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_", at);
    found.insert(text.substr(at, end - at));
  }
  const std::set<std::string> wanted = {"cancel64", "msg_ring", "poll_add", "poll_multishot",
                                        "recv_multishot"};
  CHECK(found == wanted);
  for (const char* other : {"IOSQE_IO_LINK", "IOSQE_IO_HARDLINK", "IOSQE_ASYNC", "SETUP_SQPOLL",
                            "NO_SQARRAY", "io_uring_enable_rings"}) {
    CAPTURE(other);
    CHECK(text.find(other) == std::string::npos);
  }
}

// A completion or an edge is seen in a turn only; before a request that cannot be repeated goes
// out, the socket itself is asked.
TEST_CASE("Io: something_waits -> sees bytes and ends that no turn has delivered yet") {
  for (const EngineKind kind : {EngineKind::kAuto, EngineKind::kEpoll}) {
    const auto io = make_engine(kind).io;
    CAPTURE(io->name());
    Pair pair(*io);
    io->set_receiving(pair.side.socket, true);
    io->run_once(0);
    CHECK_FALSE(io->something_waits(pair.side.socket));
    REQUIRE(::shutdown(pair.client, SHUT_WR) == 0);
    CHECK(io->something_waits(pair.side.socket));
    Pair talks(*io);
    CHECK_FALSE(io->something_waits(talks.side.socket));
    REQUIRE(write(talks.client, "m", 1) == 1);
    CHECK(io->something_waits(talks.side.socket));
    io->set_receiving(talks.side.socket, true);
    REQUIRE(run_until(*io, [&] { return talks.side.text == "m"; }));
    CHECK_FALSE(io->something_waits(talks.side.socket));
  }
}

// Pitfall 21: with 16 KiB of room a response of 16 KiB and its head takes two reads and two sends.
TEST_CASE("pitfall 21: 17 KiB that are there at once -> one call") {
  for (const EngineKind kind : {EngineKind::kAuto, EngineKind::kEpoll}) {
    const auto io = make_engine(kind).io;
    CAPTURE(io->name());
    Pair pair(*io);
    const std::string text(17 * 1024, 'r');
    REQUIRE(write(pair.client, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    int calls = 0;
    pair.side.then = [&] { ++calls; };
    io->set_receiving(pair.side.socket, true);
    CHECK(run_until(*io, [&] { return pair.side.text.size() == text.size(); }));
    CHECK(calls == 1);
  }
  CHECK(ReceiveRing::kPlain.buffer_bytes > 17 * 1024);  // By completions.
}
