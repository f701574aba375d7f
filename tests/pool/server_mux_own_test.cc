// tests/pool/server_mux_own_test.cc - HTTP/2 connections that are one client's own: what they begin
// with, who joins them, who gets them afterwards.
#include <doctest/doctest.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <string>

#include "tests/pool/mux_world.h"

namespace ringway {
namespace {

constexpr std::string_view kHeader = "PROXY TCP4 10.0.0.1 10.0.0.2 1000 80\r\n";

SlotSpec spec_in(ReuseMode mode) {
  return spec_with({.mode = mode, .idle_floor = 8});
}

PickRules alone(SessionStore& store) {
  return {.session = &store, .own = true};
}

// As lb does it: a connection of the client's own first, and what it gets becomes its own before
// anything is sent.
struct OwnUser final {
  OwnUser(MuxWorld& world, SessionStore& of) : w(world), store(of) {
    user.on_given = [this] {
      w.slot().reserve(*user.conn, store, target(), PrivateReason::kNever);
    };
  }
  OwnUser(const OwnUser&) = delete;
  OwnUser& operator=(const OwnUser&) = delete;
  ~OwnUser() = default;
  void take(const ConnKey* key = nullptr) {
    const ServerSlot::Taken own = w.slot().take_private(user, store, target(), key);
    if (own.conn == nullptr) w.take(user, key, alone(store));
    if (own.stream != nullptr) user.on_server_stream(*own.stream);
    w.slot().pool().check();
  }
  [[nodiscard]] TargetRef target() const {
    return {.kind = TargetRef::Kind::kServer, .object = &w.slot().pool()};
  }
  MuxWorld& w;
  SessionStore& store;
  H2User user;
};

bool all_complete(const std::deque<OwnUser>& users) {
  return std::all_of(users.begin(), users.end(), [](const OwnUser& u) { return u.user.complete; });
}

}  // namespace

TEST_CASE("ServerMux: each client multiplexes on its own, idle or not, and nobody else does") {
  for (const ReuseMode mode : {ReuseMode::kNever, ReuseMode::kSafe, ReuseMode::kAlways}) {
    CAPTURE(static_cast<int>(mode));
    MuxWorld w(spec_in(mode));
    SessionStore stores[] = {SessionStore(w.slots.entries), SessionStore(w.slots.entries)};
    for (int round = 0; round < 3; ++round) {
      std::deque<OwnUser> users;
      for (size_t i = 0; i < 6; ++i) {
        users.emplace_back(w, stores[i % 2]);
        users.back().take();
      }
      REQUIRE(w.until([&] { return w.waiting() == 6; }));
      for (size_t i = 2; i < users.size(); ++i) CHECK(users[i].user.conn == users[i % 2].user.conn);
      CHECK(w.h2.size() == 2);
      CHECK(w.pool().count(Place::kSessionBusy) == 2);
      for (size_t i = 0; i < 2; ++i) CHECK(users[i].user.conn->session() == &stores[i]);
      for (const auto& end : w.h2) end->answer_all();
      REQUIRE(w.until([&] { return all_complete(users); }));
      CHECK(w.pool().count(Place::kSessionIdle) == 2);
      CHECK(w.pool().idle() == 0);
      w.slot().pool().check();
    }
    CHECK(w.h2[0]->most == 3);
    CHECK(w.slots.stats.connects.get() == 2);
    H2User other;
    w.take(other);
    REQUIRE(w.until([&] { return w.h2.size() == 3 && w.h2[2]->waiting() == 1; }));
    w.h2[2]->answer_all();
    REQUIRE(w.until([&] { return other.complete; }));
    for (SessionStore& store : stores) store.close_all();
    CHECK(w.pool().count(Place::kSessionIdle) == 0);
  }
}

TEST_CASE("ServerMux: own: SETTINGS that allow fewer -> the rest open others, of the same client") {
  MuxWorld w(spec_in(ReuseMode::kNever));
  w.max_streams = 2;
  SessionStore store(w.slots.entries);
  std::deque<OwnUser> users;
  for (size_t i = 0; i < 5; ++i) {
    users.emplace_back(w, store);
    users.back().take();
    CHECK(users.back().user.conn == users.front().user.conn);
  }
  REQUIRE(w.until([&] { return w.waiting() == 5; }));
  CHECK(w.h2.size() == 3);
  CHECK(w.pool().count(Place::kSessionBusy) == 3);
  for (const auto& end : w.h2) {
    CHECK(end->most <= 2);
    end->answer_all();
  }
  REQUIRE(w.until([&] { return all_complete(users); }));
  store.close_all();
}

TEST_CASE("ServerMux: own: GOAWAY and the client's end close it, whoever is on it") {
  MuxWorld w(spec_in(ReuseMode::kNever));
  SessionStore store(w.slots.entries);
  std::deque<OwnUser> users;
  for (size_t i = 0; i < 2; ++i) {
    users.emplace_back(w, store);
    users.back().take();
  }
  REQUIRE(w.until([&] { return w.waiting() == 2; }));
  w.h2[0]->send_goaway(3);
  OwnUser late(w, store);
  REQUIRE(w.until([&] { return users[0].user.conn->capacity() == 0; }));
  late.take();
  CHECK(late.user.conn != users[0].user.conn);
  w.h2[0]->answer_all();
  REQUIRE(w.until([&] { return all_complete(users); }));
  CHECK(w.slots.stats.pool.closed[static_cast<size_t>(CloseReason::kServerClose)].get() == 1);
  REQUIRE(w.until([&] { return w.waiting() == 1; }));
  late.user.stream->abort(h2::ErrorCode::kCancel);
  late.user.stream = nullptr;
  CHECK(w.pool().count(Place::kSessionIdle) == 1);
  store.close_all();
  CHECK(w.slots.stats.pool.closed[static_cast<size_t>(CloseReason::kSessionEnd)].get() == 1);
}

TEST_CASE(
    "ServerMux: a PROXY header goes out before the preface, once, also for those that joined") {
  MuxWorld w(spec_in(ReuseMode::kNever));
  w.max_streams = 1;
  std::deque<std::string> received;
  const auto wrapped = w.slots.make_handler;
  w.slots.make_handler = [&](SimConnection& connection) -> std::unique_ptr<SimHandler> {
    // Keeps the header from the session behind it.
    struct Strip final : SimHandler {
      Strip(std::unique_ptr<SimHandler> to, std::string& text) : next(std::move(to)), all(text) {}
      void on_open(SimConnection& c) override { next->on_open(c); }
      void on_bytes(SimConnection& c, std::string_view bytes) override {
        all.append(bytes);
        if (passed) return next->on_bytes(c, bytes);
        if (all.size() < kHeader.size()) return;
        passed = true;
        const std::string rest = all.substr(kHeader.size());
        if (!rest.empty()) next->on_bytes(c, rest);
      }
      void on_done(SimConnection& c) override { next->on_done(c); }
      std::unique_ptr<SimHandler> next;
      std::string& all;
      bool passed = false;
    };
    received.emplace_back();
    return std::make_unique<Strip>(wrapped(connection), received.back());
  };
  const ConnKey key{.bytes = "named", .hash = 5, .preface = kHeader};
  SessionStore store(w.slots.entries);
  std::deque<OwnUser> users;
  for (size_t i = 0; i < 3; ++i) {
    users.emplace_back(w, store);
    users.back().take(&key);
    CHECK(users.back().user.conn == users.front().user.conn);
  }
  REQUIRE(w.until([&] { return w.waiting() == 3; }));
  CHECK(received.size() == 3);
  for (const std::string& all : received) {
    CHECK(all.starts_with(std::string(kHeader) + std::string(h2::kPreface)));
    CHECK(all.find("PROXY", 1) == std::string::npos);
  }
  for (const auto& end : w.h2) end->answer_all();
  REQUIRE(w.until([&] { return all_complete(users); }));
  store.close_all();
}

}  // namespace ringway
