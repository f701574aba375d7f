// tests/support/h2_answers.h - an owner of an h2::Session that answers every request and keeps what
// was said, for tests and fuzzing.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/check.h"
#include "proto/http2_session.h"

namespace ringway::h2 {

class TestStream final : public Stream {
 public:
  std::string body;
  std::string trailers;
  bool ended = false;
};

class Answers final : public SessionOwner {
 public:
  explicit Answers(const SessionLimits& limits = {}, bool answer = true)
      : scratch_(32 * 1024, 64), session(Role::kServer, *this, scratch_, limits), answer_(answer) {
    session.begin();
  }
  ~Answers() {
    for (const auto& stream : streams) session.reset(*stream, ErrorCode::kCancel);
  }

  // As a connection does it: what a call leaves comes again with what follows.
  void feed(std::string_view bytes, int64_t now_ms = 1) {
    held_.append(bytes);
    held_.erase(0, session.feed(held_, now_ms));
  }

  void on_request(uint32_t id, const HeadBuilder& head, bool end) override {
    said += "request " + std::to_string(id) + (end ? " whole " : " open ");
    said += head.text();
    streams.push_back(std::make_unique<TestStream>());
    session.open(*streams.back(), UINT64_MAX);
  }
  void on_bad_request(uint32_t id, BlockError error, bool /*end*/) override {
    said += "bad " + std::to_string(id) + ' ' + std::to_string(static_cast<int>(error)) + '\n';
  }
  void on_response(Stream& /*stream*/, const HeadBuilder& /*head*/, bool /*end*/) override {
    RW_CHECK(false);
  }
  void on_data(Stream& stream, std::string_view bytes) override {
    static_cast<TestStream&>(stream).body += bytes;
    session.consumed(stream, bytes.size());
  }
  void on_end(Stream& stream, std::string_view trailers) override {
    TestStream& ended = static_cast<TestStream&>(stream);
    ended.ended = true;
    ended.trailers = trailers;
    said += "end " + std::to_string(stream.id()) + ' ' + std::to_string(ended.body.size()) + '\n';
    if (!answer_) return;
    if (!session.send_head(ended, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", false)) return;
    if (session.sendable(ended) >= 2) {
      (void)session.send_data(ended, "hi", true);
    } else {
      session.reset(ended, ErrorCode::kCancel);
    }
  }
  void on_reset(Stream& stream, ErrorCode code, bool ours) override {
    said += "reset " + std::to_string(stream.id()) + ' ' + std::string(name_of(code)) +
            (ours ? " ours\n" : "\n");
  }
  void on_window(Stream* /*stream*/) override {}
  void on_goaway(uint32_t last, ErrorCode /*code*/) override {
    said += "goaway " + std::to_string(last) + '\n';
  }
  void on_capacity() override {}
  void on_ping_ack() override {}
  void on_drained() override { said += "drained\n"; }
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
  std::vector<std::unique_ptr<TestStream>> streams;

 private:
  SessionScratch scratch_;

 public:
  Session session;

 private:
  std::string held_;
  bool answer_;
};

}  // namespace ringway::h2
