// lb/health/check.cc
#include "lb/health/check.h"

#include <errno.h>
#include <string.h>

#include <algorithm>

#include "core/base/check.h"
#include "lb/proxy_gate.h"

namespace ringway {
namespace {

// Errors that say something about us and nothing about the server.
bool is_our_fault(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM ||
         error == EADDRNOTAVAIL;
}

std::string ranges_text(const std::vector<config::StatusRange>& ranges) {
  std::string text;
  for (const config::StatusRange& range : ranges) {
    if (!text.empty()) text += ", ";
    text += std::to_string(range.first);
    if (range.last != range.first) text += "-" + std::to_string(range.last);
  }
  return text;
}

const char* text_of(http1::BodyError error) {
  switch (error) {
    case http1::BodyError::kNone: return "";
    case http1::BodyError::kBadChunk: return "bad chunk";
    case http1::BodyError::kBadTrailer: return "bad trailer";
    case http1::BodyError::kTooLarge: return "body too large";
    case http1::BodyError::kTruncated: return "closed inside the body";
  }
  return "";
}

// A path is no Host (RFC 9110 7.2): servers on unix sockets are asked for localhost.
std::string_view host_of(const CheckTarget& target) {
  if (!target.health.host.empty()) return target.health.host;
  if (target.address.get()->sa_family == AF_UNIX) return "localhost";
  return target.address_text;
}

// All that a check sends.
std::string request_of(const CheckTarget& target) {
  char room[proxy::kV1BytesMax];
  std::string request(write_own_proxy_header(target.health.send_proxy, room));
  if (target.health.type == config::HealthType::kTcp) return request;
  return request + target.health.method + " " + target.health.path +
         " HTTP/1.1\r\nHost: " + std::string(host_of(target)) +
         "\r\nUser-Agent: ringway-health\r\nConnection: close\r\n\r\n";
}

}  // namespace

Watched::Watched(Io& io, Timers& timers, HealthEvents& events, WatchedOwner& owner,
                 CheckTarget target)
    : io_(io),
      timers_(timers),
      events_(events),
      owner_(owner),
      target_(std::move(target)),
      socket_(*this),
      timer_(*this) {
  if (target_.health.type == config::HealthType::kHttp) {
    parser_ = std::make_unique<http1::HeadParser>(kFields);
  }
}

Watched::~Watched() {
  RW_CHECK(!socket_.open());
}

void Watched::schedule(int64_t delay_ms) {
  timers_.set(timer_, now_ms() + std::max<int64_t>(delay_ms, 1));
}

void Watched::on_timer(Timer& /*timer*/) {
  if (checking_) {
    return conclude(Result::kFailed, std::string(connected_ ? "response" : "connect") +
                                         ": timeout after " +
                                         std::to_string(target_.health.timeout) + " ms");
  }
  if (owner_.may_start(*this)) start();
}

void Watched::start() {
  RW_CHECK(!stopped_);  // What waits leaves the queue before it is stopped.
  RW_CHECK(!checking_ && !socket_.open());
  started_ms_ = now_ms();
  checking_ = true;
  decided_ = connected_ = head_done_ = false;
  const int error = io_.connect(socket_, target_.address.get(), target_.address.length);
  if (error == 0) return timers_.set(timer_, started_ms_ + target_.health.timeout);
  checking_ = false;
  count(is_our_fault(error) ? Result::kSkipped : Result::kFailed,
        std::string("connect: ") + strerrordesc_np(error));
  schedule(next_delay_ms());
  owner_.on_check_over();
}

void Watched::on_connected(Socket& /*socket*/, int error) {
  if (decided_) return;
  if (error != 0) return fail("connect", error);
  connected_ = true;
  request_ = request_of(target_);
  request_sent_ = 0;
  if (target_.health.type == config::HealthType::kTcp) return send_request();
  received_.clear();
  body_text_.clear();
  expect_response();
  io_.set_receiving(socket_, true);
  send_request();
}

void Watched::send_request() {
  if (request_.empty()) return conclude(Result::kPassed, "connected");  // That was the check.
  const iovec piece{.iov_base = request_.data() + request_sent_,
                    .iov_len = request_.size() - request_sent_};
  const ssize_t sent = io_.send(socket_, {&piece, 1});
  // A server that resets at once may have said why; but nothing says that it is well.
  if (sent < 0) return fail("request", static_cast<int>(-sent));
  request_sent_ += static_cast<size_t>(sent);
  if (request_sent_ < request_.size()) return io_.want_writable(socket_);
  if (target_.health.type == config::HealthType::kTcp) conclude(Result::kPassed, "connected");
}

void Watched::on_writable(Socket& /*socket*/) {
  if (!decided_) send_request();
}

void Watched::expect_response() {
  const bool is_head = target_.health.method == "HEAD";
  parser_->start_response({.header_bytes = kHeadBytes, .fields = kFields, .uri_bytes = 0},
                          {.request_method = is_head ? http1::Method::kHead : http1::Method::kGet});
}

void Watched::on_receive(Socket& /*socket*/, std::span<const std::byte> bytes) {
  if (decided_) return;
  received_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (!head_done_ && !read_head()) return;
  read_body();
}

bool Watched::read_head() {
  for (;;) {
    switch (parser_->parse(received_)) {
      case http1::HeadParser::Status::kNeedMore: return false;
      case http1::HeadParser::Status::kError:
        conclude(Result::kFailed,
                 std::string("malformed response: ") + http1::phrase_of(parser_->error()));
        return false;
      case http1::HeadParser::Status::kDone: break;
    }
    if (parser_->head().status >= 200) return judge_head(parser_->head());
    received_.erase(0, parser_->head().head_len);  // An interim response: the real one follows.
    expect_response();
  }
}

bool Watched::judge_head(const http1::Head& head) {
  head_done_ = true;
  const config::Health& health = target_.health;
  const bool expected = std::any_of(
      health.expect_status.begin(), health.expect_status.end(),
      [&](const auto& range) { return head.status >= range.first && head.status <= range.last; });
  const std::string status = "status " + std::to_string(head.status);
  if (!expected) {
    conclude(Result::kFailed, status + ", expected " + ranges_text(health.expect_status));
    return false;
  }
  if (health.expect_body.empty()) {
    conclude(Result::kPassed, status);
    return false;
  }
  body_.start(head.body, head.content_length, {});
  received_.erase(0, head.head_len);
  return true;
}

void Watched::read_body() {
  std::string_view rest = received_;
  while (!decided_) {
    const http1::BodyReader::Step step = body_.next(rest);
    rest.remove_prefix(step.consumed);
    switch (step.kind) {
      case http1::BodyReader::Kind::kNeedMore: return received_.clear();
      case http1::BodyReader::Kind::kPiece: take_body(step.piece); break;
      case http1::BodyReader::Kind::kEnd: return lack_of_body_text();
      case http1::BodyReader::Kind::kError:
        return conclude(Result::kFailed,
                        std::string("malformed response: ") + text_of(body_.error()));
    }
  }
}

// Judges after each piece, so that the verdict does not depend on how the bytes were cut.
void Watched::take_body(std::string_view piece) {
  const std::string& wanted = target_.health.expect_body;
  const size_t before = body_text_.size();
  body_text_.append(piece.substr(0, kBodyBytes - before));
  const size_t from = before < wanted.size() ? 0 : before - wanted.size() + 1;
  if (body_text_.find(wanted, from) != std::string::npos) {
    return conclude(Result::kPassed, "body matches");
  }
  if (body_text_.size() == kBodyBytes) lack_of_body_text();
}

void Watched::lack_of_body_text() {
  conclude(Result::kFailed, "body does not contain \"" + target_.health.expect_body + "\"");
}

void Watched::on_receive_end(Socket& /*socket*/, int error) {
  if (decided_) return;
  if (error != 0) return fail("response", error);
  if (!head_done_) {
    return conclude(Result::kFailed, received_.empty() ? "closed before a response"
                                                       : "closed inside the response head");
  }
  if (body_.finish_at_close()) return lack_of_body_text();
  conclude(Result::kFailed, std::string("malformed response: ") + text_of(body_.error()));
}

void Watched::fail(std::string_view stage, int error) {
  conclude(is_our_fault(error) ? Result::kSkipped : Result::kFailed,
           std::string(stage) + ": " + strerrordesc_np(error));
}

void Watched::conclude(Result result, const std::string& reason) {
  RW_CHECK(checking_);
  if (decided_) return;
  decided_ = true;
  timers_.cancel(timer_);
  io_.close(socket_);
  count(result, reason);
}

void Watched::on_closed(Socket& /*socket*/) {
  checking_ = false;
  if (!stopped_) schedule(next_delay_ms());
  owner_.on_check_over();
}

void Watched::count(Result result, const std::string& reason) {
  RW_CHECK(!stopped_);
  ServerHealth& state = *target_.state;
  skipped_ = result == Result::kSkipped;
  if (skipped_) return state.checks_skipped.add();
  const bool passed = result == Result::kPassed;
  (passed ? state.checks_passed : state.checks_failed).add();
  if (passed == state.up()) {
    opposite_ = 0;
    return;
  }
  ++opposite_;
  if (opposite_ < (passed ? target_.health.rise : target_.health.fall)) return;
  opposite_ = 0;
  state.set_up(passed);
  state.transitions.add();
  events_.on_verdict(target_, passed, reason);
}

int64_t Watched::next_delay_ms() const {
  const config::Health& health = target_.health;
  const bool soon = opposite_ > 0 || skipped_;
  const int64_t interval = soon                  ? health.fast_interval
                           : target_.state->up() ? health.interval
                                                 : health.down_interval;
  return interval - (now_ms() - started_ms_);
}

void Watched::stop() {
  stopped_ = decided_ = true;
  timers_.cancel(timer_);
  if (socket_.open()) io_.close(socket_);
}

}  // namespace ringway
