// tests/pool/server_mux_test.cc - requests on HTTP/2 connections to a server: how many, windows,
// what idle connections do.
#include "pool/server_mux.h"

#include <doctest/doctest.h>

#include <deque>
#include <string>

#include "tests/pool/mux_world.h"

namespace ringway {
namespace {

const std::string kBody(300'000, 'b');

// The way to the id that the next stream gets, to test the end of them.
using NextId = uint32_t h2::Session::*;
using SessionOf = h2::Session ServerMux::*;
using MuxOf = ServerMux* ServerConn::*;
NextId next_id_of(h2::Session&);
SessionOf session_of(ServerMux&);
MuxOf mux_of(ServerConn&);
template <NextId kMember>
struct ReachNextId {
  friend NextId next_id_of(h2::Session&) { return kMember; }
};
template <SessionOf kMember>
struct ReachSession {
  friend SessionOf session_of(ServerMux&) { return kMember; }
};
template <MuxOf kMember>
struct ReachMux {
  friend MuxOf mux_of(ServerConn&) { return kMember; }
};
template struct ReachNextId<&h2::Session::next_id_>;
template struct ReachSession<&ServerMux::session_>;
template struct ReachMux<&ServerConn::mux_>;

void set_next_id(ServerConn& conn, uint32_t id) {
  ServerMux& mux = *(conn.*mux_of(conn));
  h2::Session& session = mux.*session_of(mux);
  session.*next_id_of(session) = id;
}

}  // namespace

TEST_CASE("ServerMux: one connection carries many requests, one after the other and at once") {
  MuxWorld w(spec_with(kAlways));
  w.serve_one();
  CHECK(w.pool().idle() == 1);
  std::deque<H2User> users(20);
  for (H2User& user : users) w.take(user);
  REQUIRE(w.until([&] { return w.waiting() == 20; }));
  CHECK(w.pool().count(Place::kAvailable) == 1);
  for (const H2User& user : users) CHECK(user.reused);
  w.h2[0]->answer_all();
  REQUIRE(w.until([&] { return users.back().complete; }));
  for (const H2User& user : users) {
    CHECK(user.status == 200);
    CHECK(user.body == "ok");
  }
  CHECK(w.slots.stats.connects.get() == 1);
  CHECK(w.slots.stats.requests.get() == 21);
  CHECK(w.pool().count(Place::kIdleSafe) == 1);
  CHECK(w.h2[0]->frames(h2::FrameType::kHeaders) == 21);
  CHECK(w.h2[0]->frames(h2::FrameType::kRstStream) == 0);
}

TEST_CASE("ServerMux: a server that takes one, two or 100 at once never sees one more") {
  for (const uint32_t most : {1U, 2U, 100U}) {
    CAPTURE(most);
    MuxWorld w(spec_with(kAlways));
    w.max_streams = most;
    std::deque<H2User> users(std::min(130U, 60 * most));
    for (H2User& user : users) w.take(user);
    size_t complete = 0;
    const auto count = [&] {
      complete = 0;
      for (const H2User& user : users) complete += user.complete ? 1 : 0;
      return complete;
    };
    for (int round = 0; round < 200 && count() < users.size(); ++round) {
      w.slots.pass(5);
      for (const auto& end : w.h2) end->answer_all();
    }
    CHECK(complete == users.size());
    for (const auto& end : w.h2) CHECK(end->most <= most);
    for (const H2User& user : users) CHECK_FALSE(user.lost);
    CHECK(w.h2.size() >= users.size() / most);
  }
}

TEST_CASE("ServerMux: our own bound is below the server's") {
  MuxWorld w(streams_spec(3));
  w.serve_one();
  std::deque<H2User> users(5);
  for (H2User& user : users) w.take(user);
  REQUIRE(w.until([&] { return w.waiting() == 5; }));
  CHECK(w.h2.size() == 2);
  CHECK(w.h2[0]->most == 3);
  for (const auto& end : w.h2) end->answer_all();
  REQUIRE(w.until([&] { return users.back().complete; }));
}

TEST_CASE("ServerMux: before SETTINGS one request goes out, or as many as the server took before") {
  MuxWorld w(spec_with(kAlways));
  w.max_streams = 10;
  w.holds = true;
  std::deque<H2User> users(4);
  for (H2User& user : users) w.take(user);
  REQUIRE(w.until([&] { return w.waiting() == 1; }));
  w.slots.pass(50);
  CHECK(w.waiting() == 1);
  w.h2[0]->release();
  REQUIRE(w.until([&] { return w.waiting() == 4; }));
  CHECK(w.h2.size() == 1);
  w.h2[0]->answer_all();
  REQUIRE(w.until([&] { return users.back().complete; }));
  // Its connection is gone; the next one is known to take ten.
  w.slot().close_idle(CloseReason::kDown);
  std::deque<H2User> more(12);
  for (H2User& user : more) w.take(user);
  REQUIRE(w.until([&] { return w.waiting() == 12; }));
  w.slots.pass(50);
  CHECK(w.h2[1]->most + w.h2[2]->most == 12);
  CHECK(std::max(w.h2[1]->most, w.h2[2]->most) == 10);
  for (const auto& end : w.h2) end->release();
  for (const auto& end : w.h2) end->answer_all();
  REQUIRE(w.until([&] { return more.back().complete && more.front().complete; }));
}

TEST_CASE("ServerMux: a stream that asks is told when SETTINGS have come, once") {
  MuxWorld w(spec_with(kAlways));
  w.holds = true;
  H2User user;
  user.sends = false;
  w.take(user);
  REQUIRE(w.until([&] { return user.stream != nullptr && w.h2.size() == 1; }));
  w.slots.pass(50);
  CHECK_FALSE(user.stream->settings_received());
  user.stream->await_settings();
  w.slots.pass(50);
  CHECK(user.settings == 0);
  w.h2[0]->release();
  REQUIRE(w.until([&] { return user.settings == 1; }));
  CHECK(user.stream->settings_received());
  CHECK_FALSE(user.stream->takes_websocket());
  user.send();
  REQUIRE(w.until([&] { return w.waiting() == 1; }));
  w.h2[0]->answer_all();
  REQUIRE(w.until([&] { return user.complete; }));
  CHECK(user.settings == 1);
}

TEST_CASE("ServerMux: SETTINGS below what is in use stop new requests until enough are over") {
  MuxWorld w(spec_with(kAlways));
  w.serve_one();
  std::deque<H2User> users(6);
  for (H2User& user : users) w.take(user);
  REQUIRE(w.until([&] { return w.waiting() == 6; }));
  w.h2[0]->set_max_streams(2);
  REQUIRE(w.until([&] { return w.pool().count(Place::kAvailable) == 0; }));
  for (int i = 0; i < 4; ++i) {
    w.h2[0]->answer(*w.h2[0]->requests[static_cast<size_t>(i) + 1]);
    REQUIRE(w.until([&] { return users[static_cast<size_t>(i)].complete; }));
    CHECK(w.pool().count(Place::kAvailable) == 0);
  }
  w.h2[0]->answer(*w.h2[0]->requests[5]);
  REQUIRE(w.until([&] { return users[4].complete; }));
  CHECK(w.pool().count(Place::kAvailable) == 1);
  w.h2[0]->set_max_streams(50);
  REQUIRE(w.until([&] { return users[5].conn->capacity() == 49; }));
  w.h2[0]->answer_all();
  REQUIRE(w.until([&] { return users[5].complete; }));
}

TEST_CASE("ServerMux: a stream that was taken before the server took fewer is lost unseen") {
  MuxWorld w(spec_with(kAlways));
  w.serve_one();
  H2User first;
  w.take(first);
  H2User late;
  late.sends = false;
  w.take(late);
  REQUIRE(late.stream != nullptr);
  w.h2[0]->set_max_streams(1);
  REQUIRE(w.until([&] { return w.pool().count(Place::kAvailable) == 0; }));
  late.send();
  late.stream->end({});  // Goes nowhere.
  REQUIRE(w.until([&] { return late.lost; }));
  CHECK(late.unseen);
  CHECK(w.h2[0]->most == 1);
  w.h2[0]->answer_all();
  REQUIRE(w.until([&] { return first.complete; }));
}

TEST_CASE("ServerMux: a connection is closed after so many requests, and none is more") {
  PoolLimits limits = kAlways;
  limits.requests_max = 3;
  MuxWorld w(spec_with(limits));
  std::deque<H2User> users(7);
  for (H2User& user : users) w.take(user);
  REQUIRE(w.until([&] { return w.waiting() == 7; }));
  for (const auto& end : w.h2) end->answer_all();
  REQUIRE(w.until([&] { return w.slots.closed(CloseReason::kRequestsLimit) == 2; }));
  CHECK(w.h2.size() == 3);
  for (const auto& end : w.h2) CHECK(end->requests.size() <= 3);
  REQUIRE(w.until([&] { return users.back().complete; }));
}

TEST_CASE("ServerMux: ids end, and the connection with them") {
  MuxWorld w(spec_with(kAlways));
  w.serve_one();
  H2User one;
  w.take(one);
  REQUIRE(one.conn != nullptr);
  set_next_id(*one.conn, 0x7fff'fffd);
  H2User two;
  w.take(two);
  REQUIRE(two.conn == one.conn);
  H2User three;
  w.take(three);
  CHECK(three.conn == one.conn);
  H2User four;
  w.take(four);
  CHECK(four.conn != one.conn);
  REQUIRE(w.until([&] { return w.waiting() == 4; }));
  for (const auto& end : w.h2) end->answer_all();
  REQUIRE(w.until([&] { return four.complete && three.complete; }));
  CHECK(w.slots.closed(CloseReason::kServerClose) == 1);
  CHECK(w.pool().idle() == 1);
}

TEST_CASE("ServerMux: one whose response is not read stops nobody else") {
  MuxWorld w(spec_with(kAlways));
  w.serve_one();
  std::deque<H2User> stalled(20);
  for (H2User& user : stalled) {
    user.reads = false;
    user.finishes = false;
    w.take(user);
  }
  REQUIRE(w.until([&] { return w.waiting() == 20; }));
  H2End& end = *w.h2[0];
  std::vector<std::string_view> rest(end.requests.size(), kBody);
  for (size_t i = 1; i <= 20; ++i) end.begin_answer(*end.requests[i]);
  const auto send_more = [&] {
    for (size_t i = 1; i <= 20; ++i) {
      if (end.requests[i]->open() && !end.requests[i]->sent_end()) {
        rest[i].remove_prefix(end.session.send_data(*end.requests[i], rest[i], true));
      }
    }
  };
  send_more();
  H2User other;
  w.take(other);
  REQUIRE(w.until([&] { return end.requests.size() == 22; }));
  end.answer(*end.requests[21], kBody.substr(0, 60'000));
  REQUIRE(w.until([&] { return other.complete; }));
  for (H2User& user : stalled) {
    CHECK(user.body.size() < kBody.size());
    CHECK_FALSE(user.complete);
  }
  // Read, the rest comes.
  for (H2User& user : stalled) {
    user.reads = true;
    user.stream->consumed(user.body.size());
  }
  for (int round = 0; round < 40; ++round) {
    w.slots.pass(10);
    send_more();
  }
  for (H2User& user : stalled) {
    CHECK(user.complete);
    CHECK(user.body == kBody);
    user.finish();
  }
}

TEST_CASE("ServerMux: request bodies wait for windows, each for its own, and all arrive") {
  MuxWorld w(spec_with(kAlways));
  w.serve_one();
  H2End& end = *w.h2[0];
  end.reads = false;
  std::deque<H2User> users(3);
  for (H2User& user : users) {
    user.upload = true;
    w.take(user);
  }
  std::array<size_t, 3> given{};
  const auto give = [&] {
    for (size_t i = 0; i < users.size(); ++i) {
      while (given[i] < kBody.size() && !users[i].stream->above_high_water()) {
        const std::string_view part = std::string_view(kBody).substr(given[i], 10'000);
        given[i] += part.size();
        users[i].stream->write(part, given[i] == kBody.size());
      }
    }
  };
  for (int round = 0; round < 10; ++round) {
    give();
    w.slots.pass(5);
  }
  size_t arrived = 0;
  for (size_t i = 1; i <= 3; ++i) arrived += end.requests[i]->body.size();
  for (H2User& user : users) {
    CHECK(user.stream->queued() >= ServerStream::kHighWaterBytes);
    CHECK(user.stream->queued() < ServerStream::kHighWaterBytes + 10'000);
  }
  CHECK(arrived > 0);
  end.reads = true;
  for (size_t i = 1; i <= 3; ++i) {
    end.session.consumed(*end.requests[i], end.requests[i]->body.size());
  }
  for (int round = 0; round < 100; ++round) {
    w.slots.pass(5);
    give();
  }
  for (size_t i = 1; i <= 3; ++i) {
    CHECK(end.requests[i]->body == kBody);
    CHECK(end.requests[i]->ended);
    CHECK(users[i - 1].drained > 0);
  }
  end.answer_all();
  REQUIRE(w.until([&] { return users[2].complete; }));
}

TEST_CASE("ServerMux: what the connection's window allows is shared") {
  MuxWorld w(spec_with(kAlways));
  w.connection_window = 65'535;
  w.serve_one();
  H2End& end = *w.h2[0];
  end.reads = false;
  std::deque<H2User> users(2);
  for (H2User& user : users) {
    user.upload = true;
    w.take(user);
    REQUIRE(user.reused);
  }
  users[0].stream->write(std::string_view(kBody).substr(0, 60'000), false);
  REQUIRE(w.until([&] { return w.waiting() == 2 && end.requests[1]->body.size() == 60'000; }));
  for (H2User& user : users) user.stream->write(std::string_view(kBody).substr(0, 30'000), false);
  REQUIRE(w.until([&] { return end.requests[1]->body.size() == 65'535; }));
  end.session.consumed(*end.requests[1], 33'000);
  w.slots.pass(50);
  CHECK(end.requests[1]->body.size() + end.requests[2]->body.size() == 65'535 + 33'000);
  CHECK(end.requests[2]->body.size() > 15'000);
}

TEST_CASE("ServerMux: trailers go and come") {
  MuxWorld w(spec_with(kAlways));
  H2User user;
  user.upload = true;
  w.take(user);
  REQUIRE(w.until([&] { return w.waiting() == 1; }));
  user.stream->write("abc", false);
  user.stream->end("x-sum: 1\r\n");
  H2End& end = *w.h2[0];
  REQUIRE(w.until([&] { return end.requests[0]->ended; }));
  CHECK(end.requests[0]->body == "abc");
  end.begin_answer(*end.requests[0]);
  end.session.send_end(*end.requests[0], "x-more: 2\r\n");
  REQUIRE(w.until([&] { return user.complete; }));
  CHECK(user.trailers == "x-more: 2\r\n");
  CHECK_FALSE(end.requests[0]->reset);
}

TEST_CASE("ServerMux: control frames while idle are answered and do not make it younger") {
  PoolLimits limits = kAlways;
  limits.idle_ms = 2'000;
  MuxWorld w(spec_with(limits));
  w.serve_one();
  for (int i = 0; i < 3; ++i) {
    w.slots.pass(500);
    w.h2[0]->session.ping();
    w.h2[0]->set_max_streams(50);
  }
  w.slots.pass(300);
  CHECK(w.pool().idle() == 1);
  CHECK(w.h2[0]->ping_acks == 3);
  w.slots.pass(400);
  CHECK(w.pool().idle() == 0);
  CHECK(w.slots.closed(CloseReason::kIdleTimeout) == 1);
}

TEST_CASE("ServerMux: a deadline is told, and goes with the stream") {
  MuxWorld w(spec_with(kAlways));
  H2User user;
  w.take(user);
  REQUIRE(w.until([&] { return w.waiting() == 1; }));
  user.stream->set_deadline(300);
  w.slots.pass(400);
  CHECK(user.timed_out);
  user.stream->abort(h2::ErrorCode::kCancel);
  user.stream = nullptr;
  REQUIRE(w.until([&] { return w.h2[0]->requests[0]->reset; }));
  CHECK(w.h2[0]->requests[0]->code == h2::ErrorCode::kCancel);
  H2User second;
  w.take(second);
  second.stream->abort(h2::ErrorCode::kCancel);
  second.stream = nullptr;
  CHECK(w.pool().count(Place::kIdleUnproven) == 1);  // Requests given up prove nothing.
  CHECK(w.slots.closed(CloseReason::kError) == 0);
}

TEST_CASE("ServerMux: warm connections are opened ahead, and are used by many") {
  PoolLimits limits = kAlways;
  limits.idle_ms = 0;
  MuxWorld w(spec_with(limits, 1));
  REQUIRE(w.until([&] { return w.pool().idle() == 1; }));
  std::deque<H2User> users(5);
  w.slots.pass(20);
  for (H2User& user : users) w.take(user);
  REQUIRE(w.until([&] { return w.waiting() == 5; }));
  CHECK(w.h2.size() == 1);
  w.h2[0]->answer_all();
  REQUIRE(w.until([&] { return users.back().complete; }));
}

TEST_CASE("ServerMux: a session's own connection carries its requests only, one at a time") {
  MuxWorld w(spec_with(kAlways));
  SessionStore store(w.slots.entries);
  const TargetRef target{.object = &w.slot().pool()};
  H2User user;
  w.take(user);
  REQUIRE(w.until([&] { return w.waiting() == 1; }));
  w.slot().reserve(*user.conn, store, target, PrivateReason::kNever);
  H2User other;
  w.take(other);
  CHECK(other.conn != user.conn);
  REQUIRE(w.until([&] { return w.waiting() == 2; }));
  for (const auto& end : w.h2) end->answer_all();
  REQUIRE(w.until([&] { return user.complete && other.complete; }));
  CHECK(user.conn->place() == Place::kSessionIdle);
  H2User again;
  const ServerSlot::Taken taken = w.slot().take_private(again, store, target, nullptr);
  REQUIRE(taken.stream != nullptr);
  CHECK(taken.conn == user.conn);
  again.on_server_stream(*taken.stream);
  REQUIRE(w.until([&] { return w.waiting() == 1; }));
  w.h2[0]->answer_all();
  REQUIRE(w.until([&] { return again.complete; }));
  CHECK(w.pool().count(Place::kSessionIdle) == 1);
  store.close_all();
}

}  // namespace ringway
