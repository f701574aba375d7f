// tests/lb/shard_test.cc - threads with a worker each: started, told, handed connections, ended.
#include "lb/shard.h"

#include <doctest/doctest.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>

#include "core/epoll_engine.h"
#include "lb/config/load.h"
#include "tests/support/no_ring.h"

using namespace ringway;

namespace {

constexpr uint32_t kListenerId = 7;
constexpr std::string_view kGet = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

struct Woken final : WakeOwner {
  void on_wake() override { ++calls; }
  int calls = 0;
};

// Shards of one listener that answers by itself, and who controls them.
struct World {
  explicit World(uint32_t count, int cpu = -1) : set(count) {
    io.set_wake_owner(woken);
    set.set_control(io);
    for (uint32_t i = 0; i < count; ++i) {
      const WorkerOptions options{.shard = i,
                                  .loads = set.loads(),
                                  .peers = count > 1 ? &set : nullptr,
                                  .clients_max = 100,
                                  .chunks_max = 64};
      REQUIRE(set.at(i).start({}, options, cpu) == "");
    }
  }
  ~World() { stop(); }

  // For what another thread does. The bound only turns a hang into a failure.
  template <typename Done>
  [[nodiscard]] static bool until(Done done) {
    for (int i = 0; i < 20'000 && !done(); ++i) usleep(1000);
    return done();
  }
  [[nodiscard]] static Message mail(Mail kind, const void* object = nullptr) {
    return {.kind = static_cast<uint32_t>(kind), .a = reinterpret_cast<uintptr_t>(object)};
  }
  void tell_all(Mail kind) {
    for (uint32_t i = 0; i < set.count(); ++i) REQUIRE(set.at(i).post(mail(kind)));
  }
  // `fd` goes to the first shard; the others serve what they are handed.
  void apply(const std::string& body, int fd) {
    config::LoadResult loaded = config::load_text(
        "version = 1\n[listeners.web]\nbind = '127.0.0.1:80'\n[[routes]]\nname = 'all'\n"
        "respond = { status = 200, body = '" +
            body + "' }\n",
        "test");
    REQUIRE(loaded.config != nullptr);
    snapshot = Snapshot::build(std::move(loaded.config), snapshot.get(), set.count());
    for (uint32_t i = 0; i < set.count(); ++i) {
      auto order = std::make_unique<ShardOrder>();
      order->snapshot = snapshot;
      order->fds = {{.id = kListenerId, .listener = 0, .fd = i == 0 ? fd : -1}};
      REQUIRE(set.at(i).post(mail(Mail::kApply, order.release())));
    }
    ++applied;
    for (uint32_t i = 0; i < set.count(); ++i) {
      REQUIRE(until([&] { return set.at(i).applied() == applied; }));
    }
  }
  void stop() {
    if (std::exchange(stopping, true)) return;
    tell_all(Mail::kStop);
    for (uint32_t i = 0; i < set.count(); ++i) CHECK(until([&] { return set.at(i).stopped(); }));
  }

  EpollEngine io{0};
  Woken woken;
  ShardSet set;
  std::shared_ptr<Snapshot> snapshot;
  uint64_t applied = 0;
  bool stopping = false;
};

// A connection whose other end can be handed to a shard.
struct Client {
  Client() {
    int pair[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    fd = pair[0];
    theirs = pair[1];
    // A shard that answers nothing fails the test instead of stopping it.
    const timeval limit{.tv_sec = 20, .tv_usec = 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    REQUIRE(fcntl(theirs, F_SETFL, O_NONBLOCK) == 0);
  }
  ~Client() { ::close(fd); }
  void send() const { REQUIRE(write(fd, kGet.data(), kGet.size()) == ssize_t{kGet.size()}); }
  // What comes until `ending`, or until the end.
  [[nodiscard]] std::string receive(std::string_view ending) const {
    std::string text;
    char part[512];
    for (ssize_t n = 0; !text.ends_with(ending) && (n = recv(fd, part, sizeof part, 0)) > 0;) {
      text.append(part, static_cast<size_t>(n));
    }
    return text;
  }
  [[nodiscard]] bool ended() const {
    char byte = 0;
    return recv(fd, &byte, 1, 0) == 0;
  }
  int fd = -1;
  int theirs = -1;
};

bool hand(World& world, uint32_t to, const Client& client) {
  world.set.loads()[to].clients.fetch_add(1);  // As a shard counts it before.
  return world.set.hand_over(to, kListenerId, client.theirs, {});
}

}  // namespace

TEST_CASE("Shard: a configuration -> taken over, control is woken, clients are served by it") {
  World world(1);
  CHECK(std::string(world.set.at(0).engine_name()) != "");
  CHECK(world.set.at(0).engine_counters() != nullptr);
  ServerAddress address;
  REQUIRE(parse_address("127.0.0.1:0", address));
  const int listener = open_listener(address);
  REQUIRE(listener >= 0);
  address.length = sizeof address.storage;
  getsockname(listener, reinterpret_cast<sockaddr*>(&address.storage), &address.length);
  world.apply("first", listener);
  REQUIRE(World::until([&] {
    world.io.run_once(0);
    return world.woken.calls > 0;
  }));
  Client client;
  ::close(client.fd);
  ::close(client.theirs);
  client.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(connect(client.fd, address.get(), address.length) == 0);
  client.send();
  CHECK(client.receive("first").ends_with("first"));
  // The connection stays over the next one, whose answers it gets.
  world.apply("second", -1);
  client.send();
  CHECK(client.receive("second").ends_with("second"));
  world.stop();
  CHECK(client.ended());
}

// Goal: the descriptor and the peer's address survive the way through three words of a message.
TEST_CASE("ShardSet: hand_over -> that shard serves it, and counts it until it ends") {
  World world(2);
  world.apply("here", -1);
  Client client;
  REQUIRE(hand(world, 1, client));
  client.send();
  CHECK(client.receive("here").ends_with("here"));
  const PerShard<ListenerStats>& stats = world.snapshot->listeners[0]->shard;
  CHECK(stats.stats[1].stats.requests.get() == 1);
  CHECK(stats.stats[0].stats.requests.get() == 0);
  CHECK(world.set.loads()[1].clients.load() == 1);
  shutdown(client.fd, SHUT_RDWR);
  CHECK(World::until([&] { return world.set.loads()[1].clients.load() == 0; }));
}

TEST_CASE(
    "Shard: mail for what is not there -> closed and uncounted, or acknowledged all the same") {
  World world(1);
  Client client;  // No listener yet.
  REQUIRE(hand(world, 0, client));
  CHECK(client.ended());
  CHECK(World::until([&] { return world.set.loads()[0].clients.load() == 0; }));
  world.tell_all(Mail::kHealth);
  world.tell_all(Mail::kControls);
  CHECK(World::until([&] { return world.set.at(0).controlled() == 1; }));
  PoolOrder order;
  REQUIRE(world.set.at(0).post(World::mail(Mail::kReport, &order)));
  CHECK(World::until([&] { return order.done.load(std::memory_order_acquire); }));
  CHECK(order.reports.empty());
}

TEST_CASE("Shard: drain -> quiet once its last client has left, and not before") {
  World world(1);
  world.apply("x", -1);
  Client client;
  REQUIRE(hand(world, 0, client));
  REQUIRE(write(client.fd, "GET", 3) == 3);  // Inside a request: it may end.
  REQUIRE(World::until(
      [&] { return world.snapshot->listeners[0]->shard.at(0).bytes_received.get() == 3; }));
  CHECK_FALSE(world.set.at(0).quiet());
  world.tell_all(Mail::kDrain);
  world.tell_all(Mail::kControls);
  REQUIRE(World::until([&] { return world.set.at(0).controlled() == 1; }));
  CHECK_FALSE(world.set.at(0).quiet());
  REQUIRE(write(client.fd, kGet.data() + 3, kGet.size() - 3) > 0);
  CHECK(client.receive("x").starts_with("HTTP/1.1 200"));
  CHECK(client.ended());
  CHECK(World::until([&] { return world.set.at(0).quiet(); }));
  CHECK_FALSE(world.set.at(0).stopped());
}

// Goal: what a neighbour sends to a shard that has just ended is not lost for ever.
TEST_CASE("Shard: join -> descriptors still in its mailbox are closed") {
  Client late;
  {
    World world(2);
    world.apply("x", -1);
    world.stop();
    REQUIRE(hand(world, 1, late));
  }
  CHECK(late.ended());
}

TEST_CASE("Shard: a CPU that is not there -> runs unpinned, and says so") {
  World world(1, 1000);
  CHECK(world.set.at(0).engine_reason().find("cannot pin to CPU 1000") == 0);
  CHECK(world.set.at(0).cpu() == 1000);
}

TEST_CASE("Shard: no engine -> start() says why, and there is nothing to join") {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (!forbid_rings(EPERM)) _exit(10);
    ShardSet set(1);
    const std::string why = set.at(0).start({.kind = EngineKind::kIoUring},
                                            {.loads = set.loads(), .chunks_max = 64}, -1);
    if (why.find("io_uring") == std::string::npos) _exit(1);
    set.at(0).join();
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}
