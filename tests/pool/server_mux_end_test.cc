// tests/pool/server_mux_end_test.cc - how HTTP/2 connections to a server end, and what is told to
// the requests on them.
#include <doctest/doctest.h>
#include <errno.h>

#include <deque>

#include "tests/pool/mux_world.h"

namespace ringway {

TEST_CASE("ServerMux: GOAWAY: what is above its number is unseen, the rest ends, then it closes") {
  MuxWorld w(spec_with(kAlways));
  w.serve_one();
  std::deque<H2User> users(3);
  for (H2User& user : users) w.take(user);
  H2User untouched;
  untouched.sends = false;
  w.take(untouched);
  REQUIRE(w.until([&] { return w.waiting() == 3; }));
  H2End& end = *w.h2[0];
  end.send_goaway(end.requests[2]->id());
  REQUIRE(w.until([&] { return users[2].lost && untouched.lost; }));
  CHECK(users[2].unseen);
  CHECK(users[2].code == h2::ErrorCode::kNoError);
  CHECK(untouched.unseen);
  CHECK(w.pool().count(Place::kDraining) == 1);
  H2User next;
  w.take(next);
  CHECK(next.conn != users[0].conn);
  REQUIRE(w.until([&] { return w.h2.size() == 2 && w.h2[1]->waiting() == 1; }));
  CHECK(end.requests.size() == 4);
  CHECK_FALSE(end.requests[3]->reset);  // The server knows.
  end.answer(*end.requests[1]);
  end.answer(*end.requests[2]);
  REQUIRE(w.until([&] { return users[0].complete && users[1].complete; }));
  REQUIRE(w.until([&] { return end.connection == nullptr; }));
  CHECK(w.slots.closed(CloseReason::kServerClose) == 1);
  w.h2[1]->answer_all();
  REQUIRE(w.until([&] { return next.complete; }));
}

TEST_CASE("ServerMux: GOAWAY while idle closes it at once") {
  MuxWorld w(spec_with(kAlways));
  w.serve_one();
  w.h2[0]->send_goaway(1);
  REQUIRE(w.until([&] { return w.h2[0]->connection == nullptr; }));
  CHECK(w.pool().idle() == 0);
  w.serve_one();
  CHECK(w.h2.size() == 2);
}

TEST_CASE("ServerMux: REFUSED_STREAM is unseen, another reset is not; the connection stays") {
  MuxWorld w(spec_with(kAlways));
  std::deque<H2User> users(3);
  w.serve_one();
  for (H2User& user : users) w.take(user);
  REQUIRE(w.until([&] { return w.waiting() == 3; }));
  H2End& end = *w.h2[0];
  end.session.reset(*end.requests[1], h2::ErrorCode::kRefusedStream);
  end.session.reset(*end.requests[2], h2::ErrorCode::kInternalError);
  REQUIRE(w.until([&] { return users[0].lost && users[1].lost; }));
  CHECK(users[0].unseen);
  CHECK_FALSE(users[1].unseen);
  CHECK(users[1].code == h2::ErrorCode::kInternalError);
  end.answer_all();
  REQUIRE(w.until([&] { return users[2].complete; }));
  CHECK(w.pool().idle() == 1);
}

TEST_CASE("ServerMux: a reset behind a complete response stops the upload only") {
  MuxWorld w(spec_with(kAlways));
  H2User user;
  user.upload = true;
  user.finishes = false;
  w.take(user);
  REQUIRE(w.until([&] { return w.waiting() == 1; }));
  w.h2[0]->reads = false;
  user.stream->write(std::string(200'000, 'x'), false);
  CHECK(user.stream->above_high_water());
  H2End& end = *w.h2[0];
  end.answer(*end.requests[0]);
  end.session.reset(*end.requests[0], h2::ErrorCode::kNoError);
  REQUIRE(w.until([&] { return user.complete && user.drained > 0; }));
  CHECK_FALSE(user.lost);
  CHECK(user.stream->queued() == 0);
  user.stream->write("more", false);
  user.stream->end({});
  user.finish();
  CHECK(w.pool().idle() == 1);
}

TEST_CASE("ServerMux: finished before the request is, the rest is cancelled") {
  MuxWorld w(spec_with(kAlways));
  H2User user;
  user.upload = true;
  w.take(user);
  REQUIRE(w.until([&] { return w.waiting() == 1; }));
  H2End& end = *w.h2[0];
  end.answer(*end.requests[0]);
  REQUIRE(w.until([&] { return user.complete; }));
  REQUIRE(w.until([&] { return end.requests[0]->reset; }));
  CHECK(w.pool().idle() == 1);
  w.serve_one();
  CHECK(w.h2.size() == 1);
}

TEST_CASE("ServerMux: at the end of the connection only what was not sent is unseen") {
  for (const bool reset : {false, true}) {
    CAPTURE(reset);
    MuxWorld w(spec_with(kAlways));
    w.serve_one();
    H2User sent;
    w.take(sent);
    REQUIRE(w.until([&] { return w.waiting() == 1; }));
    H2User untouched;
    untouched.sends = false;
    w.take(untouched);
    reset ? w.h2[0]->connection->abort() : w.h2[0]->connection->close();
    // Its frames do not leave before the end is noticed.
    REQUIRE(w.until([&] { return sent.lost && untouched.lost; }));
    CHECK_FALSE(sent.unseen);
    CHECK(untouched.unseen);
    CHECK(sent.cause ==
          (reset ? "the server reset the connection" : "the server closed the connection"));
    REQUIRE(w.until([&] { return w.slot().empty(); }));
  }
}

TEST_CASE("ServerMux: one dead when it was used again takes those of its age with it") {
  MuxWorld w(streams_spec(1));
  std::deque<H2User> users(3);
  for (H2User& user : users) w.take(user);
  REQUIRE(w.until([&] { return w.waiting() == 3; }));
  for (const auto& end : w.h2) end->answer_all();
  REQUIRE(w.until([&] { return w.pool().idle() == 3; }));
  w.slots.pass(1'000);
  H2User user;
  w.take(user);
  REQUIRE(user.reused);
  REQUIRE(w.until([&] { return w.waiting() == 1; }));
  for (const auto& end : w.h2) {
    if (end->waiting() == 1) end->connection->close();
  }
  REQUIRE(w.until([&] { return user.lost; }));
  CHECK_FALSE(user.unseen);
  CHECK(w.pool().idle() == 0);
  CHECK(w.slots.stats.stale.get() == 1);
  CHECK(w.slots.closed(CloseReason::kStale) == 3);
}

TEST_CASE("ServerMux: one that dies in the middle of answering is not stale") {
  MuxWorld w(spec_with(kAlways));
  w.serve_one();
  std::deque<H2User> users(2);
  for (H2User& user : users) w.take(user);
  REQUIRE(w.until([&] { return w.waiting() == 2; }));
  w.h2[0]->answer(*w.h2[0]->requests[1]);
  REQUIRE(w.until([&] { return users[0].complete; }));
  w.h2[0]->connection->close();
  REQUIRE(w.until([&] { return users[1].lost; }));
  CHECK(w.slots.stats.stale.get() == 0);
  CHECK(w.slots.closed(CloseReason::kError) == 1);
}

TEST_CASE("ServerMux: a server that breaks the protocol gets GOAWAY, and everything is lost") {
  MuxWorld w(spec_with(kAlways));
  w.serve_one();
  std::deque<H2User> users(2);
  for (H2User& user : users) w.take(user);
  REQUIRE(w.until([&] { return w.waiting() == 2; }));
  H2End& end = *w.h2[0];
  end.frame(h2::FrameType::kData, 0, 99, "x");  // A stream that nobody has opened.
  REQUIRE(w.until([&] { return users[0].lost && users[1].lost; }));
  CHECK_FALSE(users[0].unseen);
  CHECK(users[0].cause == "DATA on an idle stream");
  REQUIRE(w.until([&] { return end.connection == nullptr; }));
  CHECK(end.goaway == h2::ErrorCode::kProtocolError);
}

TEST_CASE("ServerMux: the same while idle, and bytes that are no frames") {
  MuxWorld w(spec_with(kAlways));
  for (const bool http1 : {false, true}) {
    w.serve_one();
    H2End& end = *w.h2.back();
    http1 ? end.put("HTTP/1.1 408 Request Timeout\r\n\r\n", {})
          : end.frame(h2::FrameType::kHeaders, h2::flag::kEndHeaders, 7, "");
    REQUIRE(w.until([&] { return end.connection == nullptr; }));
    CHECK(w.pool().idle() == 0);
  }
  CHECK(w.h2.size() == 2);
}

TEST_CASE("ServerMux: a malformed response costs its stream only") {
  MuxWorld w(spec_with(kAlways));
  w.serve_one();
  std::deque<H2User> users(2);
  for (H2User& user : users) w.take(user);
  REQUIRE(w.until([&] { return w.waiting() == 2; }));
  H2End& end = *w.h2[0];
  users[0].stream->expect_body(5);
  end.answer(*end.requests[1], "longer than that");
  REQUIRE(w.until([&] { return users[0].lost; }));
  CHECK_FALSE(users[0].unseen);
  CHECK(users[0].cause == "the response breaks a rule of HTTP/2");
  end.answer_all();
  REQUIRE(w.until([&] { return users[1].complete; }));
  CHECK(w.pool().idle() == 1);
}

TEST_CASE("ServerMux: a FIN while idle closes it before the next request") {
  MuxWorld w(spec_with(kAlways));
  w.serve_one();
  w.h2[0]->connection->close();
  REQUIRE(w.until([&] { return w.pool().idle() == 0; }));
  CHECK(w.slots.closed(CloseReason::kServerIdle) == 1);
  w.serve_one();
}

TEST_CASE("ServerMux: retired, it takes nothing new, and closes with its last response") {
  MuxWorld w(spec_with(kAlways));
  std::deque<H2User> users(2);
  w.serve_one();
  for (H2User& user : users) w.take(user);
  REQUIRE(w.until([&] { return w.waiting() == 2; }));
  w.slot().retire(CloseReason::kOutOfService);
  CHECK(w.pool().count(Place::kDraining) == 1);
  w.h2[0]->answer_all();
  REQUIRE(w.until([&] { return users[0].complete && users[1].complete; }));
  REQUIRE(w.until([&] { return w.slot().empty(); }));
  CHECK(w.slots.closed(CloseReason::kOutOfService) == 1);
}

TEST_CASE("ServerMux: one that is never idle gets too old all the same") {
  PoolLimits limits = kAlways;
  limits.age_ms = 5'000;
  MuxWorld w(spec_with(limits));
  std::deque<H2User> users(20);
  size_t next = 0;
  w.take(users[next++]);
  for (; next < users.size(); ++next) {
    w.slots.pass(500);
    w.take(users[next]);
    REQUIRE(w.until([&] { return w.waiting() == 2; }));
    for (const auto& end : w.h2) {
      if (end->waiting() == 0) continue;
      for (const auto& request : end->requests) {
        if (!request->open() || request->sent_end()) continue;
        end->answer(*request);
        break;
      }
      break;
    }
    REQUIRE(w.until([&] { return users[next - 1].complete; }));
  }
  CHECK(w.slots.closed(CloseReason::kAge) >= 1);
  for (const auto& end : w.h2) end->answer_all();
  REQUIRE(w.until([&] { return users.back().complete; }));
}

TEST_CASE("ServerMux: a user inside of a loss may give up others that are lost, too") {
  MuxWorld w(spec_with(kAlways));
  w.serve_one();
  std::deque<H2User> users(3);
  for (H2User& user : users) w.take(user);
  REQUIRE(w.until([&] { return w.waiting() == 3; }));
  users[0].then = [&] {
    CHECK(users[1].stream->lost());
    users[1].stream->abort(h2::ErrorCode::kCancel);
    users[1].stream = nullptr;
  };
  w.h2[0]->connection->abort();
  REQUIRE(w.until([&] { return users[0].lost && users[2].lost; }));
  CHECK_FALSE(users[1].lost);
}

TEST_CASE("ServerMux: no memory for a stream is an error, and the connection stays as it was") {
  MuxWorld w(streams_spec(2000));
  w.max_streams = 2000;
  w.serve_one();
  std::deque<H2User> users(1025);
  for (H2User& user : users) w.take(user);
  CHECK(users[1023].stream != nullptr);
  CHECK(users[1024].stream == nullptr);
  CHECK(users[1024].failed == ENOBUFS);
  CHECK(users[0].conn->streams() == 1024);
  REQUIRE(w.until([&] { return w.waiting() == 1024; }));
  w.h2[0]->answer_all();
  REQUIRE(w.until([&] { return users[1023].complete; }));
}

}  // namespace ringway
