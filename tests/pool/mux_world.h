// tests/pool/mux_world.h - a ServerSlot before a simulated server that speaks HTTP/2.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "proto/http2_session.h"
#include "tests/pool/slot_world.h"

namespace ringway {

// A request and what becomes of it.
struct H2User final : ServerUser, StreamUser {
  H2User() = default;
  H2User(const H2User&) = delete;
  H2User& operator=(const H2User&) = delete;
  ~H2User() {
    if (stream != nullptr) stream->abort(h2::ErrorCode::kCancel);
  }
  void on_server_connected(int error) override {
    connected = error == 0;
    failed = error;
    if (then) then();
  }
  void on_server_bytes(std::span<const std::byte> /*bytes*/) override {}
  void on_server_end(int error) override { failed = error; }
  void on_server_drained() override {}
  void on_server_timeout() override {}
  void on_server_stream(ServerStream& given) override {
    CHECK(stream == nullptr);
    stream = &given;
    conn = &given.conn();
    reused = given.reused();
    if (on_given) on_given();
    if (sends) send();
  }
  void on_server_moved(ServerConn& to) override {
    conn = &to;
    ++moved;
  }
  StreamUser* stream_user() override { return this; }

  void on_stream_head(const h2::HeadBuilder& head, bool /*end*/) override {
    status = head.built().status;
  }
  void on_stream_data(std::string_view bytes) override {
    body.append(bytes);
    if (reads) stream->consumed(bytes.size());
  }
  void on_stream_end(std::string_view trailer_lines) override {
    complete = true;
    trailers = trailer_lines;
    if (finishes) finish();
  }
  void on_stream_settings() override { ++settings; }
  void on_stream_drained() override { ++drained; }
  void on_stream_timeout() override { timed_out = true; }
  void on_stream_lost(bool was_unseen, h2::ErrorCode with, std::string_view why) override {
    CHECK_FALSE(lost);
    lost = true;
    unseen = was_unseen;
    code = with;
    cause = why;
    stream = nullptr;
    if (then) then();
  }

  void send() {
    const std::string head = (upload ? "POST " : "GET ") + path + " HTTP/1.1\r\nHost: a\r\n" +
                             (upload ? "Transfer-Encoding: chunked\r\n" : "") + "\r\n";
    CHECK(stream->send_head(head, "http", false, !upload));
  }
  void finish() {
    stream->finish();
    stream = nullptr;
  }

  std::string path = "/";
  std::function<void()> then;
  std::function<void()> on_given;  // it has a stream
  bool ended = false;              // its body has an end
  bool upload = false;             // its body has no end yet
  bool sends = true;               // its head, as soon as it has a stream
  bool reads = true;               // the response
  bool finishes = true;            // when the response is complete
  ServerStream* stream = nullptr;
  ServerConn* conn = nullptr;
  bool connected = false;
  bool reused = false;
  int failed = 0;
  int moved = 0;
  uint16_t status = 0;
  std::string body;
  std::string trailers;
  bool complete = false;
  int drained = 0;
  int settings = 0;
  bool timed_out = false;
  bool lost = false;
  bool unseen = false;
  h2::ErrorCode code = h2::ErrorCode::kNoError;
  std::string cause;
};

// The server's end of one connection: keeps requests until the test answers them.
struct H2End final : h2::SessionOwner {
  struct Request final : h2::Stream {
    std::string head;
    std::string body;
    bool ended = false;
    bool reset = false;
    h2::ErrorCode code = h2::ErrorCode::kNoError;
  };

  using Output = std::function<void(std::string_view)>;

  H2End(Output out, uint32_t max_streams, uint32_t connection_window = 1024 * 1024)
      : output(std::move(out)),
        session(h2::Role::kServer, *this, scratch,
                {.max_streams = max_streams, .connection_window = connection_window}) {}
  ~H2End() {
    for (const auto& request : requests) session.forget(*request);
  }

  void on_bytes(std::string_view bytes) {
    in.append(bytes);
    in.erase(0, session.feed(in, 1));
  }
  void on_done() {
    connection = nullptr;
    for (const auto& request : requests) session.forget(*request);
  }

  // SessionOwner.
  void on_request(uint32_t /*id*/, const h2::HeadBuilder& head, bool /*end*/) override {
    requests.push_back(std::make_unique<Request>());
    requests.back()->head = head.text();
    session.open(*requests.back(), UINT64_MAX);
    most = std::max(most, session.streams());
  }
  void on_bad_request(uint32_t /*id*/, h2::BlockError error, bool /*end*/) override {
    CHECK(static_cast<int>(error) == 0);
  }
  void on_response(h2::Stream&, const h2::HeadBuilder&, bool) override { CHECK(false); }
  void on_data(h2::Stream& stream, std::string_view bytes) override {
    static_cast<Request&>(stream).body.append(bytes);
    if (reads) session.consumed(stream, bytes.size());
  }
  void on_end(h2::Stream& stream, std::string_view /*trailers*/) override {
    static_cast<Request&>(stream).ended = true;
  }
  void on_reset(h2::Stream& stream, h2::ErrorCode code, bool ours) override {
    CHECK_FALSE(ours);
    static_cast<Request&>(stream).reset = true;
    static_cast<Request&>(stream).code = code;
  }
  void on_window(h2::Stream*) override {}
  void on_goaway(uint32_t, h2::ErrorCode code) override { goaway = code; }
  void on_capacity() override {}
  void on_ping_ack() override { ++ping_acks; }
  void on_drained() override {}
  void on_fatal(h2::ErrorCode code, h2::Flood, std::string_view cause) override {
    if (!expects_errors) FAIL_CHECK(cause, " ", static_cast<int>(code));
  }
  void put(std::string_view head, std::string_view payload) override {
    held.append(head);
    held.append(payload);
    if (!holds) release();
  }

  // What was held back goes out, and what is put from now on.
  void release() {
    holds = false;
    output(std::exchange(held, {}));
  }
  void frame(h2::FrameType type, uint8_t flags, uint32_t stream, std::string_view payload) {
    char head[h2::kFrameHeaderBytes];
    h2::write_frame_header({.length = static_cast<uint32_t>(payload.size()),
                            .type = static_cast<uint8_t>(type),
                            .flags = flags,
                            .stream = stream},
                           head);
    put({head, sizeof head}, payload);
  }
  void set_max_streams(uint32_t count) {
    char payload[6];
    h2::write16(payload, static_cast<uint16_t>(h2::Setting::kMaxConcurrentStreams));
    h2::write32(payload + 2, count);
    frame(h2::FrameType::kSettings, 0, 0, {payload, sizeof payload});
  }
  void send_goaway(uint32_t last) {
    char payload[8];
    h2::write32(payload, last);
    h2::write32(payload + 4, 0);
    frame(h2::FrameType::kGoaway, 0, 0, {payload, sizeof payload});
  }
  void begin_answer(Request& request) {
    CHECK(session.send_head(request, "HTTP/1.1 200 OK\r\n\r\n", false));
  }
  void answer(Request& request, std::string_view body = "ok") {
    begin_answer(request);
    CHECK(session.send_data(request, body, true) == body.size());
  }
  // Frames of this type that came.
  [[nodiscard]] size_t frames(h2::FrameType type) const {
    size_t count = 0;
    std::string_view rest = connection->received();
    rest.remove_prefix(h2::kPreface.size());
    while (!rest.empty()) {
      const h2::FrameHeader header = h2::read_frame_header(rest.data());
      if (header.type == static_cast<uint8_t>(type)) ++count;
      rest.remove_prefix(h2::kFrameHeaderBytes + header.length);
    }
    return count;
  }
  [[nodiscard]] size_t waiting() const {
    size_t count = 0;
    for (const auto& request : requests) {
      if (request->open() && !request->sent_end()) ++count;
    }
    return count;
  }
  void answer_all() {
    for (const auto& request : requests) {
      if (request->open() && !request->sent_end()) answer(*request);
    }
  }

  Output output;
  SimConnection* connection = nullptr;  // null: closed, or not the simulation's
  h2::SessionScratch scratch{16 * 1024, 64};
  h2::Session session;
  std::vector<std::unique_ptr<Request>> requests;
  std::string in;
  std::string held;
  size_t most = 0;  // streams at once
  bool holds = false;
  bool reads = true;
  bool expects_errors = false;
  int ping_acks = 0;
  h2::ErrorCode goaway = h2::ErrorCode::kNoError;
};

// Gives a connection's events to its end, which outlives the connection.
struct H2Handler final : SimHandler {
  explicit H2Handler(H2End& e) : end(e) {}
  void on_open(SimConnection& /*connection*/) override { end.session.begin(); }
  void on_bytes(SimConnection& /*connection*/, std::string_view bytes) override {
    end.on_bytes(bytes);
  }
  void on_done(SimConnection& /*connection*/) override { end.on_done(); }
  H2End& end;
};

// Its server speaks HTTP/2 with prior knowledge.
struct MuxWorld final {
  explicit MuxWorld(SlotSpec spec = {}, int64_t limit = Budget::kOff)
      : slots(make(std::move(spec)), limit) {
    slots.make_handler = [this](SimConnection& connection) -> std::unique_ptr<SimHandler> {
      const auto send = [this, at = h2.size()](std::string_view bytes) {
        if (h2[at]->connection != nullptr) h2[at]->connection->send(bytes);
      };
      h2.push_back(std::make_unique<H2End>(send, max_streams, connection_window));
      h2.back()->connection = &connection;
      h2.back()->holds = holds;
      return std::make_unique<H2Handler>(*h2.back());
    };
  }
  static SlotSpec make(SlotSpec spec) {
    spec.http = HttpChoice::kHttp2;
    return spec;
  }

  ServerSlot& slot() { return *slots.slot; }
  void take(H2User& user, const ConnKey* key = nullptr, const PickRules& rules = kLater) {
    const ServerSlot::Taken taken = slot().take(user, key, rules);
    user.conn = taken.conn;
    user.failed = taken.error;
    if (taken.stream != nullptr) user.on_server_stream(*taken.stream);
    slot().pool().check();
  }
  template <typename Done>
  bool until(Done done) {
    return slots.until(done);
  }
  // One request, from beginning to end.
  void serve_one() {
    H2User user;
    take(user);
    REQUIRE(until([&] { return !h2.empty() && h2.back()->waiting() == 1; }));
    h2.back()->answer_all();
    REQUIRE(until([&] { return user.complete; }));
    CHECK(user.body == "ok");
  }
  [[nodiscard]] size_t waiting() const {
    size_t count = 0;
    for (const auto& end : h2) count += end->waiting();
    return count;
  }
  [[nodiscard]] const ServerPool& pool() { return slot().pool(); }

  uint32_t max_streams = 100;  // what new connections announce
  uint32_t connection_window = 1024 * 1024;
  bool holds = false;                      // their SETTINGS
  std::vector<std::unique_ptr<H2End>> h2;  // in the order of accepting
  SlotWorld slots;
};

inline SlotSpec streams_spec(uint32_t max_streams) {
  SlotSpec spec = spec_with(kAlways);
  spec.max_streams = max_streams;
  return spec;
}

}  // namespace ringway
