// tests/pool/server_mux_random_test.cc - HTTP/2 to a server: anything in any order, by seed.
#include <doctest/doctest.h>

#include <algorithm>
#include <deque>
#include <string>
#include <vector>

#include "core/base/prng.h"
#include "tests/pool/mux_world.h"

namespace ringway {
namespace {

struct Chaos {
  Chaos(uint64_t seed, const SlotSpec& spec, int64_t limit, uint32_t max_streams)
      : prng(seed), w(spec, limit) {
    w.max_streams = max_streams;
    w.holds = prng.below(2) == 0;
  }

  // One that waits for a connection, has a stream, or nullptr.
  H2User* pick(bool with_stream) {
    std::vector<H2User*> found;
    for (H2User& user : users) {
      const bool waits = user.conn != nullptr && user.failed == 0 && !user.complete && !user.lost &&
                         !left(user) && user.stream == nullptr;
      if (with_stream ? user.stream != nullptr : waits) found.push_back(&user);
    }
    return found.empty() ? nullptr : found[prng.below(found.size())];
  }
  [[nodiscard]] bool left(const H2User& user) const {
    return std::find(gone.begin(), gone.end(), &user) != gone.end();
  }
  H2End* end() {
    std::vector<H2End*> found;
    for (const auto& one : w.h2) {
      if (one->connection != nullptr) found.push_back(one.get());
    }
    return found.empty() ? nullptr : found[prng.below(found.size())];
  }
  H2End::Request* request(H2End& of) {
    std::vector<H2End::Request*> found;
    for (const auto& one : of.requests) {
      if (one->open() && !one->sent_end()) found.push_back(one.get());
    }
    return found.empty() ? nullptr : found[prng.below(found.size())];
  }

  void client_step() {
    switch (prng.below(8)) {
      case 0:
        if (H2User* user = pick(false)) {
          gone.push_back(user);
          w.slot().cancel(*user->conn, *user);
        }
        return;
      case 1:
        if (H2User* user = pick(true)) {
          gone.push_back(user);
          user->stream->abort(h2::ErrorCode::kCancel);
          user->stream = nullptr;
        }
        return;
      case 2:
        if (H2User* user = pick(true); user != nullptr && user->upload && !user->ended) {
          user->ended = prng.below(3) == 0;
          user->stream->write(std::string(prng.below(50'000), 'x'), user->ended);
        }
        return;
      case 3: w.slot().close_idle(CloseReason::kDown); return;
      default:
        users.emplace_back();
        users.back().upload = prng.below(4) == 0;
        users.back().finishes = prng.below(4) != 0;
        w.take(users.back());
        return;
    }
  }
  void server_step() {
    H2End* to = end();
    if (to == nullptr) return;
    H2End::Request* one = request(*to);
    switch (prng.below(16)) {
      case 0: to->connection->close(); return;
      case 1: to->connection->abort(); return;
      case 2:
        if (!to->requests.empty())
          to->send_goaway(to->requests[prng.below(to->requests.size())]->id());
        return;
      case 3: to->set_max_streams(static_cast<uint32_t>(prng.below(w.max_streams + 1))); return;
      case 4:
        if (one != nullptr) to->session.reset(*one, h2::ErrorCode::kInternalError);
        return;
      case 5: to->session.ping(); return;
      case 6:
      case 7: to->release(); return;
      default:
        if (one != nullptr) to->answer(*one);
        return;
    }
  }
  void run() {
    for (int step = 0; step < 400; ++step) {
      prng.below(2) == 0 ? client_step() : server_step();
      w.slot().pool().check();
      if (prng.below(3) == 0) w.slots.pass(static_cast<int64_t>(prng.below(12)));
    }
    w.holds = false;
    for (int round = 0; round < 60; ++round) {
      for (const auto& one : w.h2) {
        if (one->connection == nullptr) continue;
        if (one->holds) one->release();
        one->answer_all();
      }
      for (H2User& user : users) {
        if (user.complete && user.stream != nullptr) user.finish();
      }
      w.slots.pass(20);
    }
    for (const H2User& user : users) {
      CHECK(user.stream == nullptr);
      // Told once, how it ended; but not who left.
      const int told = (user.complete ? 1 : 0) + (user.lost ? 1 : 0) + (user.failed != 0 ? 1 : 0);
      CHECK(told == (left(user) ? user.complete ? 1 : 0 : 1));
      CHECK(user.code != h2::ErrorCode::kRefusedStream);  // So the server saw none too many.
    }
    CHECK(w.pool().count(Place::kBusy) + w.pool().count(Place::kAvailable) == 0);
    CHECK(w.pool().count(Place::kConnecting) == 0);
  }

  Prng prng;
  MuxWorld w;
  std::deque<H2User> users;
  std::vector<const H2User*> gone;
};

}  // namespace

TEST_CASE("ServerMux: anything in any order: each request is told once, and nothing is left") {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    CAPTURE(seed);
    PoolLimits limits = kAlways;
    if (seed % 5 == 0) limits.requests_max = 7;
    if (seed % 7 == 0) limits.age_ms = 500;
    SlotSpec spec = spec_with(limits);
    if (seed % 3 == 0) spec.idle_ping_ms = 40;
    Chaos chaos(seed, spec, seed % 2 == 0 ? 3 : Budget::kOff, static_cast<uint32_t>(1 + seed % 6));
    chaos.run();
  }
}

}  // namespace ringway
