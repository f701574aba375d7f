// bench/floor.cc - the floor: the least program on Ringway's core that moves the bytes of a row.
//
// floor --mode l4 --port PORT --origin PORT
// floor --mode l7 --port PORT --origin PORT --request BYTES --answer BYTES --close 0|1
//
// l4 connects to the origin for each client and relays both ways with half-close. l7 sends each
// request as it is over the server connection that was kept last (a new one if none is idle), and
// the answer back as it is; with --close 1 a client is closed behind its answer. It parses nothing:
// messages end after as many bytes as it was told. What does not fit resets both connections, so
// that the load counts an error. No timeouts, limits or statistics. Both sides on 127.0.0.1.
//
// Affinity:  one thread, which runs the engine as Ringway's shards do by default.
// Bounds:    behind a slow peer wait at most Stream::kHighWaterBytes and one read; kChunksMax
//            chunks and kClientsMax clients in all, beyond which connections are closed.
// Why:       what a balancer costs above this is its own, the rest is the kernel's and core's.
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "bench/load/sockets.h"
#include "core/address.h"
#include "core/base/check.h"
#include "core/base/slab.h"
#include "core/chunks.h"
#include "core/engines.h"
#include "core/stream.h"

namespace ringway::bench {
namespace {

// As a shard of Ringway without such settings: lb/config/config.h, lb/worker.h, lb/shard.cc.
constexpr EngineOptions kEngine{.spin_us = 10};
constexpr size_t kChunksMax = 65'536;
constexpr int kSleepMsMax = 1000;
constexpr size_t kClientsMax = 100'000;

struct Options {
  bool l7 = false;
  uint16_t port = 0;
  uint16_t origin = 0;
  size_t request_bytes = 0;  // l7: of a request, and of an answer
  size_t answer_bytes = 0;
  bool close = false;  // l7: clients, behind their answer
};

ServerAddress loopback_address(uint16_t port) {
  ServerAddress address;
  RW_CHECK(parse_address("127.0.0.1:" + std::to_string(port), address));
  return address;
}

// One connection, and the one that its bytes go to.
class End : public SocketOwner {
 public:
  explicit End(StreamEnv& env) : stream(*this, env) {}

  Stream stream;
  End* peer = nullptr;

 protected:
  ~End() = default;

  // Receiving pauses while too much waits at the peer. False: the peer is broken.
  bool forward(std::span<const std::byte> bytes) {
    const iovec piece{.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};
    if (!peer->stream.write({&piece, 1})) return false;
    if (peer->stream.above_high_water()) stream.set_receiving(false);
    return true;
  }
  // Sends what waits here; the peer goes on receiving once that is little. False: this is broken.
  bool drain() {
    if (!stream.flush()) return false;
    if (peer != nullptr && stream.queued() <= Stream::kLowWaterBytes) {
      peer->stream.set_receiving(true);
    }
    return true;
  }
  // Resets both. Only on_closed() follows.
  void cut() {
    if (peer != nullptr) peer->stream.abort();
    stream.abort();
  }
};

struct Session;

// Layer 4. An end has its peer for life; nobody receives before both are connected.
class Half final : public End {
 public:
  Half(StreamEnv& env, Session& session) : End(env), session_(session) {}

  void on_connected(Socket& /*socket*/, int error) override {
    if (error != 0) return cut();
    stream.set_receiving(true);
    peer->stream.set_receiving(true);
  }
  void on_receive(Socket& /*socket*/, std::span<const std::byte> bytes) override {
    if (!forward(bytes)) cut();
  }
  void on_receive_end(Socket& /*socket*/, int error) override {
    if (error != 0) return cut();
    ended_ = true;
    peer->stream.shutdown_send();
    finish();
  }
  void on_writable(Socket& /*socket*/) override {
    if (!drain()) return cut();
    finish();
  }
  void on_closed(Socket& socket) override;

 private:
  // Once both have ended and all was sent.
  void finish() {
    auto& other = static_cast<Half&>(*peer);
    if (!ended_ || !other.ended_ || stream.queued() > 0 || other.stream.queued() > 0) return;
    stream.close();
    other.stream.close();
  }

  Session& session_;
  bool ended_ = false;
};

struct Session {
  Session(StreamEnv& env, Slab<Session>& slab)
      : client(env, *this), server(env, *this), sessions(slab) {
    client.peer = &server;
    server.peer = &client;
  }
  Half client;
  Half server;
  Slab<Session>& sessions;
};

void Half::on_closed(Socket& /*socket*/) {
  if (!peer->stream.attached()) session_.sessions.give_back(&session_);  // Last access.
}

class L4 final : public AcceptOwner {
 public:
  L4(StreamEnv& env, const Options& options)
      : env_(env), origin_(loopback_address(options.origin)) {}

  void on_accepted(int fd, const PeerAddress& /*peer*/) override {
    Session* session = sessions_.take(env_, sessions_);
    if (session == nullptr) return env_.io.discard(fd);
    session->client.stream.adopt(fd);
    if (session->server.stream.connect(origin_) != 0) session->client.stream.abort();
  }

 private:
  StreamEnv& env_;
  ServerAddress origin_;
  Slab<Session> sessions_{kClientsMax};
};

// Layer 7. Ends are peers while a request is under way.
class L7 final : public AcceptOwner {
 public:
  L7(StreamEnv& env, const Options& options)
      : env_(env), options_(options), origin_(loopback_address(options.origin)) {}

  void on_accepted(int fd, const PeerAddress& /*peer*/) override {
    Client* client = clients_.take(*this);
    if (client == nullptr) return env_.io.discard(fd);
    client->stream.adopt(fd);
    client->stream.set_receiving(true);
  }

 private:
  class Client final : public End {
   public:
    explicit Client(L7& owner) : End(owner.env_), owner_(owner) {}

    [[nodiscard]] bool asked() const { return received_ == owner_.options_.request_bytes; }
    // The answer is complete, and the server not the peer any more.
    void on_answered() {
      received_ = 0;
      // No further request while the answer waits: a queue takes one of them at a time.
      stream.set_receiving(stream.queued() == 0);
      close_if_last();
    }

    void on_connected(Socket& /*socket*/, int /*error*/) override {}
    void on_receive(Socket& /*socket*/, std::span<const std::byte> bytes) override {
      if (peer == nullptr && !owner_.take_server(*this)) return cut();
      received_ += bytes.size();
      if (received_ > owner_.options_.request_bytes) return cut();
      if (asked()) stream.expect_nothing();
      if (!forward(bytes)) cut();
    }
    void on_receive_end(Socket& /*socket*/, int error) override {
      if (error != 0 || peer != nullptr) return cut();
      stream.close();
    }
    void on_writable(Socket& /*socket*/) override {
      if (!drain()) return cut();
      if (peer != nullptr || stream.queued() > 0) return;
      stream.set_receiving(true);
      close_if_last();
    }
    void on_closed(Socket& /*socket*/) override {
      if (peer != nullptr) peer->peer = nullptr;
      owner_.clients_.give_back(this);  // Last access.
    }

   private:
    void close_if_last() {
      if (owner_.options_.close && stream.queued() == 0) stream.close();
    }

    L7& owner_;
    size_t received_ = 0;  // of the request under way
  };

  class Server final : public End {
   public:
    explicit Server(L7& owner) : End(owner.env_), owner_(owner) {}

    void on_connected(Socket& /*socket*/, int error) override {
      if (error != 0 || !drain()) cut();
    }
    void on_receive(Socket& /*socket*/, std::span<const std::byte> bytes) override {
      if (peer == nullptr) return leave();
      auto& client = static_cast<Client&>(*peer);
      received_ += bytes.size();
      const bool wanted = client.asked() && stream.queued() == 0;
      if (!wanted || received_ > owner_.options_.answer_bytes || !forward(bytes)) return cut();
      if (received_ < owner_.options_.answer_bytes) return;
      received_ = 0;
      client.peer = peer = nullptr;
      stream.set_receiving(true);  // It may have been paused by the last bytes.
      owner_.idle_.push_back(this);
      client.on_answered();
    }
    void on_receive_end(Socket& /*socket*/, int /*error*/) override {
      if (peer != nullptr) return cut();
      leave();
    }
    void on_writable(Socket& /*socket*/) override {
      if (!drain()) cut();
    }
    void on_closed(Socket& /*socket*/) override {
      if (peer != nullptr) peer->peer = nullptr;
      owner_.servers_.give_back(this);  // Last access.
    }

   private:
    // Idle, and of no use any more.
    void leave() {
      std::erase(owner_.idle_, this);
      stream.close();
    }

    L7& owner_;
    size_t received_ = 0;  // of the answer under way
  };

  // Makes an idle or a new server connection the client's peer. False: there is none.
  bool take_server(Client& client) {
    Server* server = nullptr;
    if (!idle_.empty()) {
      server = idle_.back();
      idle_.pop_back();
    } else {
      server = servers_.take(*this);
      if (server == nullptr) return false;
      if (server->stream.connect(origin_) != 0) {
        servers_.give_back(server);
        return false;
      }
      server->stream.set_receiving(true);
    }
    client.peer = server;
    server->peer = &client;
    return true;
  }

  StreamEnv& env_;
  Options options_;
  ServerAddress origin_;
  Slab<Client> clients_{kClientsMax};
  Slab<Server> servers_{kClientsMax};
  std::vector<Server*> idle_;  // the newest last
};

Options options_of(int argc, char** argv) {
  Options options;
  bool known_mode = false;
  for (const auto& [name, value] : arguments(argc, argv)) {
    const std::string_view text = value;
    if (name == "mode") {
      known_mode = text == "l4" || text == "l7";
      options.l7 = text == "l7";
    } else if (name == "port") {
      options.port = static_cast<uint16_t>(number(text, 65535));
    } else if (name == "origin") {
      options.origin = static_cast<uint16_t>(number(text, 65535));
    } else if (name == "request") {
      options.request_bytes = number(text, SIZE_MAX);
    } else if (name == "answer") {
      options.answer_bytes = number(text, SIZE_MAX);
    } else if (name == "close") {
      options.close = number(text, 1) != 0;
    } else {
      fail("floor: unknown argument");
    }
  }
  if (!known_mode || options.port == 0 || options.origin == 0) {
    fail("floor: --mode l4|l7, --port and --origin are needed");
  }
  const bool both = options.request_bytes > 0 && options.answer_bytes > 0;
  const bool none = options.request_bytes == 0 && options.answer_bytes == 0 && !options.close;
  if (options.l7 ? !both : !none) fail("floor: --request and --answer belong to --mode l7");
  return options;
}

template <typename Mode>
[[noreturn]] void serve(StreamEnv& env, const Options& options) {
  const int fd = open_listener(loopback_address(options.port));
  if (fd < 0) {
    errno = -fd;
    fail("floor: listen");
  }
  const auto mode = std::make_unique<Mode>(env, options);
  env.io.listen(fd, *mode);
  for (;;) env.io.run_once(kSleepMsMax);
}

[[noreturn]] void run(const Options& options) {
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) fail("getrlimit");
  files.rlim_cur = files.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &files) != 0) fail("setrlimit");
  const EngineResult engine = make_engine(kEngine);
  ChunkPool chunks(kChunksMax);
  StreamEnv env{*engine.io, chunks};
  if (options.l7) serve<L7>(env, options);
  serve<L4>(env, options);
}

}  // namespace
}  // namespace ringway::bench

// Ends by a signal.
int main(int argc, char** argv) {
  ringway::bench::run(ringway::bench::options_of(argc, argv));
}
