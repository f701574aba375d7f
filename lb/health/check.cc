// lb/health/check.cc
#include "lb/health/check.h"

#include <errno.h>
#include <string.h>

#include <algorithm>

#include "core/base/check.h"

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
    parser_ = std::make_unique<http1::HeadParser>(128);
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
    return conclude(
        false, (head_done_ || !received_.empty() ? "response: timeout after " : "timeout after ") +
                   std::to_string(target_.health.timeout) + " ms");
  }
  if (owner_.may_start(*this)) start();
}

void Watched::start() {
  if (stopped_) return owner_.on_check_over();
  RW_CHECK(!checking_ && !socket_.open());
  started_ms_ = now_ms();
  checking_ = true;
  decided_ = head_done_ = false;
  const int error = io_.connect(socket_, target_.address.get(), target_.address.length);
  if (error == 0) return timers_.set(timer_, started_ms_ + target_.health.timeout);
  checking_ = false;
  if (!is_our_fault(error)) count(false, std::string("connect: ") + strerrordesc_np(error));
  schedule(next_delay_ms());
  owner_.on_check_over();
}

void Watched::on_connected(Socket& /*socket*/, int error) {
  if (error != 0) return conclude(false, std::string("connect: ") + strerrordesc_np(error));
  if (target_.health.type == config::HealthType::kTcp) return conclude(true, "connected");
  send_request();
}

void Watched::send_request() {
  const config::Health& health = target_.health;
  const std::string request = health.method + " " + health.path + " HTTP/1.1\r\nHost: " +
                              (health.host.empty() ? target_.address_text : health.host) +
                              "\r\nUser-Agent: ringway-health\r\nConnection: close\r\n\r\n";
  const iovec piece{.iov_base = const_cast<char*>(request.data()), .iov_len = request.size()};
  // A fresh connection takes so little at once, or something is wrong with it.
  if (io_.send(socket_, {&piece, 1}) != static_cast<ssize_t>(request.size())) {
    return conclude(false, "the request could not be sent");
  }
  received_.clear();
  body_text_.clear();
  const bool is_head = health.method == "HEAD";
  parser_->start_response({.header_bytes = kHeadBytes, .fields = 128, .uri_bytes = 0},
                          {.request_method = is_head ? http1::Method::kHead : http1::Method::kGet});
  io_.set_receiving(socket_, true);
}

void Watched::on_receive(Socket& /*socket*/, std::span<const std::byte> bytes) {
  if (decided_) return;
  received_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  head_done_ ? read_body() : read_head();
}

void Watched::read_head() {
  switch (parser_->parse(received_)) {
    case http1::HeadParser::Status::kNeedMore: return;
    case http1::HeadParser::Status::kError:
      return conclude(false,
                      std::string("malformed response: ") + http1::phrase_of(parser_->error()));
    case http1::HeadParser::Status::kDone: break;
  }
  const http1::Head& head = parser_->head();
  const uint16_t status = head.status;
  const config::Health& health = target_.health;
  if (status < 200) {  // An interim response: the real one follows.
    received_.erase(0, head.head_len);
    parser_->start_response({.header_bytes = kHeadBytes, .fields = 128, .uri_bytes = 0}, {});
    if (!received_.empty()) read_head();
    return;
  }
  head_done_ = true;
  const bool expected =
      std::any_of(health.expect_status.begin(), health.expect_status.end(),
                  [&](const auto& range) { return status >= range.first && status <= range.last; });
  if (!expected) {
    return conclude(false, "status " + std::to_string(status) + ", expected " +
                               ranges_text(health.expect_status));
  }
  if (health.expect_body.empty()) return conclude(true, "status " + std::to_string(status));
  body_.start(head.body, head.content_length, {});
  body_at_ = head.head_len;
  read_body();
}

void Watched::read_body() {
  for (;;) {
    const http1::BodyReader::Step step = body_.next(std::string_view(received_).substr(body_at_));
    body_at_ += step.consumed;
    switch (step.kind) {
      case http1::BodyReader::Kind::kNeedMore:
        received_.clear();
        body_at_ = 0;
        return judge_body(false);
      case http1::BodyReader::Kind::kPiece: body_text_.append(step.piece); break;
      case http1::BodyReader::Kind::kEnd: return judge_body(true);
      case http1::BodyReader::Kind::kError: return conclude(false, "malformed response body");
    }
  }
}

void Watched::judge_body(bool complete) {
  const std::string& wanted = target_.health.expect_body;
  if (body_text_.find(wanted) != std::string::npos) return conclude(true, "body matches");
  if (complete || body_text_.size() >= kBodyBytes) {
    conclude(false, "body does not contain \"" + wanted + "\"");
  }
}

void Watched::on_receive_end(Socket& /*socket*/, int error) {
  if (decided_) return;
  if (error != 0) return conclude(false, std::string("read: ") + strerrordesc_np(error));
  if (!head_done_) return conclude(false, "closed before a response");
  if (!body_.finish_at_close()) return conclude(false, "closed inside the response body");
  judge_body(true);
}

void Watched::on_writable(Socket& /*socket*/) {}

void Watched::conclude(bool passed, const std::string& reason) {
  RW_CHECK(checking_);
  if (decided_) return;
  decided_ = true;
  timers_.cancel(timer_);
  io_.close(socket_);
  count(passed, reason);
}

void Watched::on_closed(Socket& /*socket*/) {
  checking_ = false;
  if (!stopped_) schedule(next_delay_ms());
  owner_.on_check_over();
}

void Watched::count(bool passed, const std::string& reason) {
  if (stopped_) return;
  ServerHealth& state = *target_.state;
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
  const int64_t interval = opposite_ > 0         ? health.fast_interval
                           : target_.state->up() ? health.interval
                                                 : health.down_interval;
  return interval - (now_ms() - started_ms_);
}

void Watched::stop() {
  stopped_ = true;
  timers_.cancel(timer_);
  if (socket_.open()) io_.close(socket_);
}

}  // namespace ringway
