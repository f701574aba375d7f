// tests/pool/slot_world.h - a ServerSlot before a simulated server, for its tests.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

#include "pool/server_mux.h"
#include "pool/server_slot.h"
#include "tests/support/sim_actors.h"
#include "tests/support/sim_io.h"
#include "tests/support/sim_net.h"

namespace ringway {

inline constexpr PickRules kLater{};
inline constexpr FinishNotes kGood{.clean = true, .server_keeps = true, .hint_max = UINT64_MAX};

struct User final : ServerUser {
  void on_server_connected(int error) override {
    connected = error == 0;
    failed = error;
    if (then) then();
  }
  void on_server_bytes(std::span<const std::byte> bytes) override { received += bytes.size(); }
  void on_server_end(int error) override {
    ended = true;
    end_error = error;
  }
  void on_server_drained() override { drained = true; }
  void on_server_timeout() override { timed_out = true; }

  std::function<void()> then;
  bool connected = false;
  int failed = 0;
  size_t received = 0;
  bool ended = false;
  int end_error = 0;
  bool drained = false;
  bool timed_out = false;
};

struct Room final : SlotEvents {
  void on_room() override { ++calls; }
  int calls = 0;
};

// Units move inside of one shard only; nobody has to be told.
struct OneShard final : BudgetPeers {
  void ask_return(Budget&, uint32_t) override { ++asked; }
  void notify(Budget&, uint32_t) override { ++notified; }
  int asked = 0;
  int notified = 0;
};

struct SlotWorld final : SimLoop {
  // The server's end of each connection, in the order of accepting.
  struct Handler final : SimHandler {
    explicit Handler(SlotWorld& world) : world(world) {}
    void on_open(SimConnection& connection) override { world.ends.push_back(&connection); }
    void on_end(SimConnection& connection, int error) override {
      world.end_errors.push_back(error);
      SimHandler::on_end(connection, error);
    }
    void on_done(SimConnection& connection) override {
      std::replace(world.ends.begin(), world.ends.end(), &connection,
                   static_cast<SimConnection*>(nullptr));
    }
    SlotWorld& world;
  };

  explicit SlotWorld(SlotSpec spec = {}, int64_t limit = Budget::kOff, uint32_t shards = 1,
                     const SlotPeers& others = {})
      : net({.seed = 1, .faults = false}),
        io(net),
        peers(net),
        timers(net.now_us() / 1000),
        server(net, peers, any_port(),
               [this](SimConnection& connection) { return make_handler(connection); }),
        budget(shards, limit),
        share(budget, 0, one) {
    net.set_loop(io, this);
    muxes.prepare(16 * 1024, 64);
    spec.address = server.address();
    slot = std::make_unique<ServerSlot>(
        context, spec, stats, SlotShares{.connections = &share, .idle = nullptr}, &room, others);
    turn_due();
  }
  ~SlotWorld() {
    slot->retire(CloseReason::kReplaced);
    server.stop();
    server.close_all();
    CHECK(net.run_until([&] { return slot->empty() && server.live() == 0; }, 100'000));
    CHECK(share.used() == 0);
    slot.reset();
    muxes.reclaim();  // What died since the last turn.
    CHECK(muxes.empty());
    net.set_loop(io, nullptr);
  }
  static ServerAddress any_port() {
    ServerAddress address;
    REQUIRE(parse_address("10.0.0.1:0", address));
    return address;
  }
  void turn() override {
    io.run_once(0);
    timers.expire(net.now_us() / 1000);
    muxes.flush();
    muxes.reclaim();
    slot->pool().check();
    turn_due();
  }
  void turn_due() {
    if (muxes.pending()) {
      deadline = net.now_us();
      return;
    }
    const int64_t next = timers.next_in_ms(net.now_us() / 1000);
    deadline = next < 0 ? kNever : net.now_us() + std::max<int64_t>(next, 1) * 1000;
  }
  [[nodiscard]] int64_t deadline_us() const override { return deadline; }

  template <typename Done>
  bool until(Done done) {
    turn_due();  // The test may have set timers.
    return net.run_until(done, 100'000);
  }
  void pass(int64_t ms) {
    turn_due();
    net.run_for(ms * 1000, 1'000'000);
  }
  [[nodiscard]] int64_t now_ms() const { return net.now_us() / 1000; }
  // One in use by `user`, connected; fresh or not.
  ServerConn* take(User& user) {
    const ServerSlot::Taken taken = slot->take(user, nullptr, kLater);
    REQUIRE(taken.conn != nullptr);
    if (!taken.connected) REQUIRE(until([&] { return user.connected; }));
    return taken.conn;
  }
  // One that is idle.
  void park_one(const FinishNotes& notes = kGood) {
    User user;
    const uint32_t before = slot->pool().idle();
    slot->give_back(*take(user), notes);
    REQUIRE(slot->pool().idle() == before + 1);
  }
  [[nodiscard]] uint64_t closed(CloseReason reason) const {
    return stats.pool.closed[static_cast<size_t>(reason)].get();
  }

  SimNet net;
  SimIo io;
  SimIo peers;
  Timers timers;
  ChunkPool chunks{64};
  StreamEnv stream{io, chunks};
  Slab<ServerConn> conns{64};
  Slab<KeyGroup> groups{64};
  Slab<SessionEntry> entries{64};
  Prng prng{1};
  ConnKeyBuffer key_buffer;
  PoolMemory memory{.groups = groups, .secret = {}, .prng = prng, .key_buffer = key_buffer};
  ServerMuxes muxes{64, 1024};
  PoolContext context{
      .stream = stream, .timers = timers, .conns = conns, .memory = memory, .muxes = &muxes};
  ServerStats stats;
  Room room;
  OneShard one;
  // What the server does with a connection.
  SimServer::MakeHandler make_handler = [this](SimConnection&) -> std::unique_ptr<SimHandler> {
    return std::make_unique<Handler>(*this);
  };
  std::vector<SimConnection*> ends;  // null: closed
  std::vector<int> end_errors;
  SimServer server;
  Budget budget;
  BudgetShare share;
  std::unique_ptr<ServerSlot> slot;
  int64_t deadline = kNever;
};

inline SlotSpec spec_with(const PoolLimits& limits, uint32_t warm = 0) {
  SlotSpec spec;
  spec.pool = limits;
  spec.warm = warm;
  return spec;
}
inline const PoolLimits kAlways{.mode = ReuseMode::kAlways, .idle_floor = 4};

}  // namespace ringway
