// tests/fuzz/h2_server_frames_fuzz.cc - any bytes as what an HTTP/2 server sends to a client of
// ours that has four requests under way.
//
// Whatever comes, the session says and sends the same however the bytes were cut, says nothing any
// more once it has ended the connection, and tells of each response in the order of RFC 9113 8.1:
// interim heads, a head, body, one end; or its loss, once.
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/base/check.h"
#include "proto/http2_session.h"

namespace ringway::h2 {
namespace {

constexpr SessionLimits kLimits{.max_streams = 8,
                                .stream_window = 64 * 1024,
                                .connection_window = 1024 * 1024,
                                .resets = {.count = 0},
                                .control = {.count = 50},
                                .head = {.header_bytes = 8192, .fields = 32}};

class Request final : public Stream {
 public:
  bool head = false;
  bool over = false;  // ended or lost
};

class Client final : public SessionOwner {
 public:
  Client() : scratch_(16 * 1024, 64), session(Role::kClient, *this, scratch_, kLimits) {
    session.begin();
    start(requests_[0], "GET", true);
    start(requests_[1], "POST", false);
    start(requests_[2], "HEAD", true);
    start(requests_[3], "GET", true);
    Session::expect_body(requests_[3], 5);
    (void)session.send_data(requests_[1], "begun", false);
  }
  ~Client() {
    for (Request& request : requests_) session.forget(request);
  }

  void feed(std::string_view bytes) {
    held_.append(bytes);
    held_.erase(0, session.feed(held_, 1));
  }

  void on_request(uint32_t /*id*/, const HeadBuilder& /*head*/, bool /*end*/) override {
    RW_CHECK(false);
  }
  void on_bad_request(uint32_t /*id*/, BlockError /*error*/, bool /*end*/) override {
    RW_CHECK(false);
  }
  void on_response(Stream& stream, const HeadBuilder& head, bool end) override {
    Request& request = take(stream);
    RW_CHECK(!request.head);
    const uint16_t status = head.built().status;
    RW_CHECK(status >= 100 && status < 600 && status != 101 && (status >= 200 || !end));
    request.head = status >= 200;
    note("response", stream) += std::to_string(status) + ' ' + std::string(head.text());
  }
  void on_data(Stream& stream, std::string_view bytes) override {
    RW_CHECK(take(stream).head && !bytes.empty());
    // However it was cut, it is the same body.
    bodies_[stream.id()] += bytes;
    session.consumed(stream, bytes.size());
  }
  void on_end(Stream& stream, std::string_view trailers) override {
    Request& request = take(stream);
    RW_CHECK(request.head);
    request.over = true;
    note("end", stream) += bodies_[stream.id()] + '|' + std::string(trailers) + '\n';
    if (&request == &requests_[1] && request.open()) session.send_end(request, "x-late: 1\r\n");
  }
  void on_reset(Stream& stream, ErrorCode code, bool ours) override {
    Request& request = static_cast<Request&>(stream);
    // The rest of a request may be refused behind the end of its response.
    RW_CHECK(!request.open());
    request.over = true;
    note("reset", stream) += std::string(name_of(code)) + (ours ? " ours\n" : "\n");
  }
  void on_window(Stream* /*stream*/) override {
    if (requests_[1].open() && !requests_[1].sent_end() && session.sendable(requests_[1]) > 0) {
      (void)session.send_data(requests_[1], "more", false);
    }
  }
  void on_goaway(uint32_t last, ErrorCode code) override {
    RW_CHECK(last <= last_goaway_);
    RW_CHECK(session.capacity() == 0);
    last_goaway_ = last;
    said += "goaway " + std::to_string(last) + ' ' + std::string(name_of(code)) + '\n';
    for (Request& request : requests_) {
      if (request.id() > last && request.open()) session.forget(request);
    }
  }
  void on_capacity() override { said += "capacity " + std::to_string(session.capacity()) + '\n'; }
  void on_ping_ack() override { said += "ping\n"; }
  void on_drained() override { RW_CHECK(false); }
  void on_fatal(ErrorCode code, Flood flood, std::string_view cause) override {
    said += "fatal " + std::string(name_of(code)) + ' ' + std::to_string(static_cast<int>(flood)) +
            ' ' + std::string(cause) + '\n';
  }
  void put(std::string_view head, std::string_view payload) override {
    sent += head;
    sent += payload;
  }

  std::string said;  // the events
  std::string sent;  // the frames

 private:
  void start(Request& request, const std::string& method, bool end) {
    const std::string head = method + " / HTTP/1.1\r\nHost: a\r\n\r\n";
    RW_CHECK(session.capacity() > 0 && session.start(request, head, "http", false, end));
  }
  Request& take(Stream& stream) {
    Request& request = static_cast<Request&>(stream);
    RW_CHECK(request.open() && !request.over && !session.dead());
    return request;
  }
  std::string& note(std::string_view what, const Stream& stream) {
    return said.append(what).append(" ").append(std::to_string(stream.id())).append(" ");
  }

  SessionScratch scratch_;
  std::array<Request, 4> requests_;
  std::array<std::string, 8> bodies_;  // by id
  uint32_t last_goaway_ = UINT32_MAX;
  std::string held_;

 public:
  Session session;
};

void check(std::string_view bytes) {
  Client whole;
  whole.feed(bytes);
  const bool dead = whole.session.dead();
  RW_CHECK(dead == (whole.said.find("fatal ") != std::string::npos));
  Client cut;
  size_t step = 1;
  for (size_t at = 0; at < bytes.size(); at += step) {
    step = 1 + (static_cast<uint8_t>(bytes[at]) * 7U + at) % 13;
    cut.feed(bytes.substr(at, step));
  }
  RW_CHECK(cut.said == whole.said);
  RW_CHECK(cut.sent == whole.sent);
  if (!dead) return;
  const std::string said = whole.said;
  const std::string sent = whole.sent;
  whole.feed(bytes);
  RW_CHECK(whole.said == said && whole.sent == sent);
}

}  // namespace
}  // namespace ringway::h2

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  ringway::h2::check(bytes);
  // Most of what is drawn does not begin as a connection does.
  std::string begun(9, '\0');
  begun[3] = 4;  // SETTINGS
  ringway::h2::check(begun + bytes);
  return 0;
}
