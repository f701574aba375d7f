// tests/core/stream_test.cc - plain streams over loopback, on every engine.
#include "core/stream.h"

#include <errno.h>

#include "tests/core/loopback.h"

namespace ringway {
namespace {

struct Owner final : SocketOwner {
  explicit Owner(StreamEnv& env) : stream(*this, env) {}
  void on_connected(Socket& /*socket*/, int /*error*/) override {}
  void on_receive(Socket& /*socket*/, std::span<const std::byte> bytes) override {
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  void on_receive_end(Socket& /*socket*/, int error) override { end_error = error; }
  void on_writable(Socket& /*socket*/) override { broken = !stream.flush(); }
  void on_closed(Socket& /*socket*/) override { ++closed; }

  Stream stream;
  std::string text;
  int end_error = -1;
  int closed = 0;
  bool broken = false;
};

// A stream and the plain descriptor of its peer.
struct World {
  World(Io& io, size_t chunks_max) : chunks(chunks_max), env{io, chunks}, owner(env) {
    const int listener = listen_any();
    peer = dial(bound(listener));
    const int fd = accept_next(listener, SOCK_NONBLOCK | SOCK_CLOEXEC);
    ::close(listener);
    owner.stream.adopt(fd);
  }
  ~World() {
    end_peer();
    owner.stream.abort();
    run_until(env.io, [&] { return !owner.stream.attached(); });
  }
  void end_peer() {
    if (peer >= 0) ::close(peer);
    peer = -1;
  }
  bool write(std::string_view text) {
    const iovec piece{.iov_base = const_cast<char*>(text.data()), .iov_len = text.size()};
    return owner.stream.write({&piece, 1});
  }
  // What the peer has received by now, and whether its stream has ended.
  std::string read_peer(bool& ended) {
    std::string all;
    char room[65'536];
    ssize_t got = 0;
    while ((got = recv(peer, room, sizeof room, MSG_DONTWAIT)) > 0) {
      all.append(room, static_cast<size_t>(got));
    }
    ended = got == 0;
    return all;
  }

  ChunkPool chunks;
  StreamEnv env;
  Owner owner;
  int peer = -1;
};

std::string much() {
  std::string text(8 << 20, '\0');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * 31 % 251);
  return text;
}

}  // namespace

TEST_CASE("Stream: what the kernel does not take waits, goes out in order, and FIN behind it") {
  for (const auto& io : engines()) {
    CAPTURE(io->name());
    World w(*io, 1024);
    const std::string text = much();
    REQUIRE(w.write(text));
    CHECK(w.owner.stream.queued() > 0);
    CHECK(w.owner.stream.above_high_water());
    w.owner.stream.shutdown_send();
    std::string got;
    bool ended = false;
    REQUIRE(run_until(*io, [&] {
      got += w.read_peer(ended);
      return ended;
    }));
    CHECK(got == text);
    CHECK(w.owner.stream.queued() == 0);
    CHECK_FALSE(w.owner.broken);
    CHECK(w.chunks.in_use() == 0);
    // The other half is still open.
    w.owner.stream.set_receiving(true);
    REQUIRE(::send(w.peer, "back", 4, MSG_NOSIGNAL) == 4);
    REQUIRE(run_until(*io, [&] { return w.owner.text == "back"; }));
    w.end_peer();
    REQUIRE(run_until(*io, [&] { return w.owner.end_error == 0; }));
  }
}

TEST_CASE("Stream: without chunks for what waits it is broken by ENOBUFS") {
  for (const auto& io : engines()) {
    CAPTURE(io->name());
    World w(*io, 1);
    CHECK_FALSE(w.write(much()));
    CHECK(w.owner.stream.error() == ENOBUFS);
    w.owner.stream.close();
    REQUIRE(run_until(*io, [&] { return w.owner.closed == 1; }));
    CHECK(w.chunks.in_use() == 0);
  }
}

TEST_CASE("Stream: a peer that is gone breaks it while sending, and its queue goes with it") {
  for (const auto& io : engines()) {
    CAPTURE(io->name());
    World w(*io, 1024);
    REQUIRE(w.write(much()));
    w.end_peer();  // With bytes unread, so by RST.
    REQUIRE(run_until(*io, [&] { return w.owner.broken; }));
    CHECK(w.owner.stream.error() != 0);
    w.owner.stream.close();
    CHECK_FALSE(w.owner.stream.open());
    REQUIRE(run_until(*io, [&] { return w.owner.closed == 1; }));
    CHECK(w.chunks.in_use() == 0);
  }
}

TEST_CASE("Stream: abort() resets, close() ends with FIN") {
  for (const auto& io : engines()) {
    CAPTURE(io->name());
    for (const bool reset : {true, false}) {
      World w(*io, 16);
      REQUIRE(w.write("x"));
      reset ? w.owner.stream.abort() : w.owner.stream.close();
      REQUIRE(run_until(*io, [&] { return w.owner.closed == 1; }));
      char byte = 0;
      const ssize_t first = recv(w.peer, &byte, 1, 0);
      const ssize_t second = first == 1 ? recv(w.peer, &byte, 1, 0) : first;
      CHECK((reset ? second == -1 && errno == ECONNRESET : second == 0));
    }
  }
}

}  // namespace ringway
