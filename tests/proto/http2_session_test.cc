// tests/proto/http2_session_test.cc - one connection, frame by frame. What RFC 9113 says of each
// frame stands in tests/e2e/test_http2_frames.py; here is what can only be seen from inside.
#include "proto/http2_session.h"

#include <doctest/doctest.h>

#include <string>

#include "tests/support/h2_answers.h"

namespace ringway::h2 {
namespace {

std::string frame(FrameType type, uint8_t flags, uint32_t stream, std::string_view payload = {}) {
  char head[kFrameHeaderBytes];
  write_frame_header({.length = static_cast<uint32_t>(payload.size()),
                      .type = static_cast<uint8_t>(type),
                      .flags = flags,
                      .stream = stream},
                     head);
  return std::string(head, sizeof head) + std::string(payload);
}

std::string number(uint32_t value) {
  char text[4];
  write32(text, value);
  return {text, sizeof text};
}

// GET or POST of "/" at "a", by the static table and one literal.
std::string request(uint32_t stream, bool post, bool end) {
  const std::string block = std::string(post ? "\x83" : "\x82") + "\x87\x84\x01\x01" + "a";
  const uint8_t flags = flag::kEndHeaders | (end ? flag::kEndStream : 0);
  return frame(FrameType::kHeaders, flags, stream, block);
}

std::string hello() {
  return std::string(kPreface) + frame(FrameType::kSettings, 0, 0);
}

// How often a frame of `type` was sent.
size_t sent(const Answers& of, FrameType type) {
  size_t count = 0;
  for (size_t at = 0; at + kFrameHeaderBytes <= of.sent.size();) {
    const FrameHeader header = read_frame_header(of.sent.data() + at);
    count += header.type == static_cast<uint8_t>(type) ? 1 : 0;
    at += kFrameHeaderBytes + header.length;
  }
  return count;
}

// The payload of the last frame of `type`.
std::string last(const Answers& of, FrameType type) {
  std::string payload;
  for (size_t at = 0; at + kFrameHeaderBytes <= of.sent.size();) {
    const FrameHeader header = read_frame_header(of.sent.data() + at);
    if (header.type == static_cast<uint8_t>(type)) {
      payload = of.sent.substr(at + kFrameHeaderBytes, header.length);
    }
    at += kFrameHeaderBytes + header.length;
  }
  return payload;
}

}  // namespace

TEST_CASE("FloodGate: so many at once, then as they come back") {
  FloodGate gate;
  const FloodLimit limit{.count = 10, .period_ms = 1000};
  for (int i = 0; i < 10; ++i) CHECK(gate.pass(limit, 5000));
  CHECK_FALSE(gate.pass(limit, 5000));
  CHECK_FALSE(gate.pass(limit, 5099));
  CHECK(gate.pass(limit, 5100));
  CHECK_FALSE(gate.pass(limit, 5100));
  for (int i = 0; i < 10; ++i) CHECK(gate.pass(limit, 60'000));
  CHECK_FALSE(gate.pass(limit, 60'000));
  const FloodLimit off{.count = 0};
  for (int i = 0; i < 1000; ++i) CHECK(gate.pass(off, 60'000));
}

TEST_CASE("Session: a request and its answer, and nothing is left") {
  Answers server;
  server.feed(hello() + request(1, false, true));
  CHECK(server.said == "request 1 whole GET / HTTP/1.1\r\nhost: a\r\n\r\nend 1 0\n");
  CHECK(sent(server, FrameType::kHeaders) == 1);
  CHECK(last(server, FrameType::kData) == "hi");
  CHECK(server.session.streams() == 0);
}

TEST_CASE("Session: a body longer than the windows gets through, and the stream's grows") {
  Answers server({.stream_window = 256 * 1024}, false);
  server.feed(hello() + request(1, true, false));
  const std::string piece(16'384, 'x');
  int64_t window = 65'535;  // until our SETTINGS are acknowledged they hold no less
  size_t seen = sent(server, FrameType::kWindowUpdate);
  for (int i = 0; i < 64; ++i) {
    server.feed(frame(FrameType::kData, 0, 1, piece));
    window -= static_cast<int64_t>(piece.size());
    if (sent(server, FrameType::kWindowUpdate) == seen) continue;
    seen = sent(server, FrameType::kWindowUpdate);
    window += read32(last(server, FrameType::kWindowUpdate).data());
  }
  CHECK(server.streams[0]->body.size() == 64 * piece.size());
  CHECK(window > 100'000);
  CHECK_FALSE(server.session.dead());
}

TEST_CASE("Session: padding alone uses up no window") {
  Answers server({.control = {.count = 0}}, false);
  server.feed(hello() + request(1, true, false));
  const std::string padding = '\xff' + std::string(255, '\0');
  for (int i = 0; i < 1000; ++i) {
    server.feed(frame(FrameType::kData, flag::kPadded, 1, padding));
  }
  CHECK(server.said.find("reset") == std::string::npos);
  CHECK_FALSE(server.session.dead());
  CHECK(sent(server, FrameType::kWindowUpdate) >= 2);
}

TEST_CASE("Session: as many bytes as a stream's window allows wait, not one more") {
  class Keeps final : public SessionOwner {
   public:
    Keeps() : scratch(8192, 32), session(Role::kServer, *this, scratch, {}) { session.begin(); }
    ~Keeps() { session.reset(stream, ErrorCode::kCancel); }
    void on_request(uint32_t /*id*/, const HeadBuilder& /*head*/, bool /*end*/) override {
      session.open(stream, UINT64_MAX);
    }
    void on_bad_request(uint32_t, BlockError, bool) override {}
    void on_response(Stream&, const HeadBuilder&, bool) override {}
    void on_data(Stream&, std::string_view bytes) override { kept += bytes.size(); }
    void on_end(Stream&, std::string_view) override {}
    void on_reset(Stream&, ErrorCode code, bool) override { lost = code; }
    void on_window(Stream*) override {}
    void on_goaway(uint32_t, ErrorCode) override {}
    void on_capacity() override {}
    void on_ping_ack() override {}
    void on_drained() override {}
    void on_fatal(ErrorCode, Flood, std::string_view) override {}
    void put(std::string_view, std::string_view) override {}
    SessionScratch scratch;
    Session session;
    TestStream stream;
    size_t kept = 0;
    ErrorCode lost = ErrorCode::kNoError;
  };
  Keeps server;
  std::string bytes = hello() + request(1, true, false);
  const std::string piece(16'384, 'x');
  for (int i = 0; i < 4; ++i) bytes += frame(FrameType::kData, 0, 1, piece);
  CHECK(server.session.feed(bytes, 1) == bytes.size());
  CHECK(server.kept == 64 * 1024);
  CHECK(server.lost == ErrorCode::kNoError);
  const std::string more = frame(FrameType::kData, 0, 1, "x");
  CHECK(server.session.feed(more, 1) == more.size());
  CHECK(server.lost == ErrorCode::kFlowControlError);
  CHECK(server.kept == 64 * 1024);
}

TEST_CASE("Session: the end in two steps loses no request that is on its way") {
  Answers server({}, false);
  server.feed(hello() + request(1, false, true));
  server.session.drain();
  CHECK(last(server, FrameType::kGoaway).substr(0, 4) == number(0x7fff'ffff));
  server.feed(request(3, false, true));
  CHECK(server.said.find("request 3") != std::string::npos);
  // The answer to a PING of before says nothing about what was sent since.
  server.feed(frame(FrameType::kPing, flag::kAck, 0, "ringping"));
  CHECK(last(server, FrameType::kGoaway).substr(0, 4) == number(0x7fff'ffff));
  server.feed(frame(FrameType::kPing, flag::kAck, 0, "ringway!"));
  CHECK(last(server, FrameType::kGoaway).substr(0, 4) == number(3));
  server.feed(request(5, false, true));
  CHECK(server.said.find("request 5") == std::string::npos);
  CHECK(server.said.find("drained") == std::string::npos);
  for (const auto& stream : server.streams) server.session.send_end(*stream, {});
  CHECK(server.said.find("drained") != std::string::npos);
}

TEST_CASE("Session: resets, the client's and those that it causes, are counted together") {
  Answers server({.resets = {.count = 10}}, false);
  server.feed(hello());
  uint32_t id = 1;
  for (int i = 0; i < 5; ++i, id += 2) {
    server.feed(request(id, true, false) + frame(FrameType::kRstStream, 0, id, number(8)));
  }
  for (int i = 0; i < 5; ++i, id += 2) {
    server.feed(request(id, true, false) + frame(FrameType::kWindowUpdate, 0, id, number(0)));
  }
  CHECK_FALSE(server.session.dead());
  server.feed(request(id, true, false) + frame(FrameType::kRstStream, 0, id, number(8)));
  CHECK(server.session.dead());
  CHECK(server.said.find("fatal ENHANCE_YOUR_CALM 1 ") != std::string::npos);
}

// Goal: CVE-2019-9511: whoever opens a window byte by byte, and so makes us send frames of a byte,
// is counted; whoever is sent small frames since there is no more to send is not.
TEST_CASE("Session: updates of windows -> explained by frames of some size, or that hold all") {
  const FloodLimit few{.count = 10};
  const auto settings = frame(FrameType::kSettings, 0, 0, std::string("\0\4", 2) + number(0));
  // Answers DATA of `size` bytes with an update, `times`; there is more to send, or not.
  const auto dribble = [&](uint32_t size, bool more, int times) {
    Answers server({.control = few}, false);
    server.feed(std::string(kPreface) + settings + request(1, false, true));
    TestStream& stream = *server.streams[0];
    const std::string body(more ? 100'000 : size, 'x');
    for (int i = 0; i < times && !server.session.dead(); ++i) {
      server.feed(frame(FrameType::kWindowUpdate, 0, 1, number(size)));
      if (!server.session.dead()) CHECK(server.session.send_data(stream, body, false) == size);
    }
    return server.said.find("WINDOW_UPDATE") != std::string::npos;
  };
  CHECK(dribble(1, true, 20));
  CHECK(dribble(8, true, 60));
  CHECK_FALSE(dribble(1, false, 200));
  CHECK_FALSE(dribble(1024, true, 60));
  CHECK_FALSE(dribble(1000, true, 60));
  CHECK_FALSE(dribble(100, true, 200));
}

TEST_CASE("Session: floods -> each ends the connection by its own name") {
  struct Row {
    Flood kind;
    std::string frames;
  };
  const Row rows[] = {
      {Flood::kPing, frame(FrameType::kPing, 0, 0, "12345678")},
      {Flood::kSettings, frame(FrameType::kSettings, 0, 0)},
      {Flood::kPriority, frame(FrameType::kPriority, 0, 9, number(0) + "x")},
      {Flood::kPriority, frame(FrameType::kPriorityUpdate, 0, 0, number(1) + "u=1")},
      {Flood::kWindowUpdate, frame(FrameType::kWindowUpdate, 0, 0, number(1))},
      {Flood::kEmptyData, frame(FrameType::kData, 0, 1)},
      {Flood::kLateReset, frame(FrameType::kRstStream, 0, 3, number(8))},
      {Flood::kGoaway, frame(FrameType::kGoaway, 0, 0, number(0) + number(0))},
      {Flood::kUnknownFrame, frame(static_cast<FrameType>(0xfa), 0, 0)},
  };
  for (const Row& row : rows) {
    Answers server({.max_streams = 2, .resets = {.count = 10}, .control = {.count = 10}}, false);
    server.feed(hello() + request(1, true, false) + request(3, true, false) +
                frame(FrameType::kRstStream, 0, 3, number(8)));
    for (int i = 0; i < 10; ++i) server.feed(row.frames);
    CHECK_FALSE(server.session.dead());
    server.feed(row.frames);
    const std::string fatal =
        "fatal ENHANCE_YOUR_CALM " + std::to_string(static_cast<int>(row.kind)) + ' ';
    CHECK(server.said.find(fatal) != std::string::npos);
  }
}

TEST_CASE("Session: requests above max_streams -> refused, counted, and a flood of their own") {
  Answers server({.max_streams = 2, .resets = {.count = 10}}, false);
  server.feed(hello());
  for (uint32_t id = 1; id < 25; id += 2) server.feed(request(id, true, false));
  CHECK(server.session.take_refused() == 10);
  CHECK(server.session.take_refused() == 0);
  CHECK_FALSE(server.session.dead());
  server.feed(request(25, true, false));
  CHECK(server.said.find("fatal ENHANCE_YOUR_CALM 2 ") != std::string::npos);
}

TEST_CASE("Session: a client's side starts no more streams than the server takes") {
  class Client final : public SessionOwner {
   public:
    Client() : scratch(8192, 32), session(Role::kClient, *this, scratch, {}) { session.begin(); }
    ~Client() {
      for (TestStream& stream : streams) session.reset(stream, ErrorCode::kCancel);
    }
    void on_request(uint32_t, const HeadBuilder&, bool) override {}
    void on_bad_request(uint32_t, BlockError, bool) override {}
    void on_response(Stream& stream, const HeadBuilder& head, bool) override {
      said += std::to_string(stream.id()) + ' ' + std::to_string(head.built().status) + '\n';
    }
    void on_data(Stream&, std::string_view) override {}
    void on_end(Stream&, std::string_view) override {}
    void on_reset(Stream&, ErrorCode, bool) override {}
    void on_window(Stream*) override {}
    void on_goaway(uint32_t last, ErrorCode) override { said += "goaway " + std::to_string(last); }
    void on_capacity() override {}
    void on_ping_ack() override {}
    void on_drained() override {}
    void on_fatal(ErrorCode, Flood, std::string_view) override {}
    void put(std::string_view, std::string_view) override {}
    void feed(const std::string& bytes) { CHECK(session.feed(bytes, 1) == bytes.size()); }
    SessionScratch scratch;
    Session session;
    std::array<TestStream, 3> streams;
    std::string said;
  };
  Client client;
  client.feed(frame(FrameType::kSettings, 0, 0, std::string("\0\3", 2) + number(2)));
  CHECK(client.session.capacity() == 2);
  const std::string_view head = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
  REQUIRE(client.session.start(client.streams[0], head, "http", false, true));
  REQUIRE(client.session.start(client.streams[1], head, "http", false, true));
  CHECK(client.streams[1].id() == 3);
  CHECK(client.session.capacity() == 0);
  client.feed(frame(FrameType::kHeaders, flag::kEndHeaders | flag::kEndStream, 1, "\x88"));
  CHECK(client.said == "1 200\n");
  CHECK(client.session.capacity() == 1);
  client.feed(frame(FrameType::kGoaway, 0, 0, number(3) + number(0)));
  CHECK(client.said == "1 200\ngoaway 3");
  CHECK(client.session.capacity() == 0);
}

}  // namespace ringway::h2
