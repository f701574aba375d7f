// lb/health/check.cc
#include "lb/health/check.h"

#include <errno.h>
#include <string.h>

#include <algorithm>

#include "core/base/check.h"
#include "core/tls_client.h"
#include "core/tls_session.h"
#include "lb/health/grpc_check.h"
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

// The PROXY header that a check begins with, and `request`, behind it.
std::string with_header(const CheckTarget& target, std::string_view request) {
  char room[proxy::kV1BytesMax];
  return std::string(write_own_proxy_header(target.health.send_proxy, room)).append(request);
}

// Whether there is a request; else a connection, or a handshake, is all that is wanted.
bool asks(const config::Health& health) {
  switch (health.type) {
    case config::HealthType::kOff:
    case config::HealthType::kTcp:
    case config::HealthType::kTls: return false;
    case config::HealthType::kHttp:
    case config::HealthType::kGrpc: return true;
  }
  return false;
}

std::string request_head(const CheckTarget& target, std::string_view method, std::string_view path,
                         std::string_view more) {
  return std::string(method).append(" ").append(path).append(" HTTP/1.1\r\nHost: ") +
         std::string(host_of(target)).append("\r\nUser-Agent: ringway-health\r\n").append(more) +
         "\r\n";
}

// What comes in front of a request. Before TLS the header has gone out already.
std::string clear_preface(const CheckTarget& target) {
  return target.tls.enabled ? std::string() : with_header(target, {});
}

}  // namespace

Watched::Watched(StreamEnv& env, Timers& timers, HealthEvents& events, WatchedOwner& owner,
                 CheckTarget target)
    : env_(env),
      timers_(timers),
      events_(events),
      owner_(owner),
      target_(std::move(target)),
      timer_(*this) {
  if (target_.health.type == config::HealthType::kHttp && target_.http != CheckHttp::kHttp2) {
    parser_ = std::make_unique<http1::HeadParser>(kCheckHead.fields);
  }
}

Watched::~Watched() {
  RW_CHECK(!attached());
}

void Watched::schedule(int64_t delay_ms) {
  timers_.set(timer_, now_ms() + std::max<int64_t>(delay_ms, 1));
}

void Watched::on_timer(Timer& /*timer*/) {
  if (checking_) {
    return conclude(Result::kFailed, std::string(stage()) + ": timeout after " +
                                         std::to_string(target_.health.timeout) + " ms");
  }
  if (owner_.may_start(*this)) start();
}

std::string_view Watched::stage() const {
  if (connected_) return "response";
  const TlsSession* tls = stream_->tls();
  return tls != nullptr && tls->in_handshake() ? "TLS handshake" : "connect";
}

void Watched::start() {
  RW_CHECK(!stopped_);  // What waits leaves the queue before it is stopped.
  RW_CHECK(!checking_ && !attached());
  started_ms_ = now_ms();
  checking_ = true;
  decided_ = connected_ = head_done_ = false;
  const int error = connect();
  if (error == 0) return timers_.set(timer_, started_ms_ + target_.health.timeout);
  checking_ = false;
  // With a source that this machine does not have no request gets there either.
  const LocalPart local = stream_->local_failure();
  if (local != LocalPart::kNone) {
    count(Result::kFailed, std::string(local_failure_text(local, error)));
  } else {
    count(is_our_fault(error) ? Result::kSkipped : Result::kFailed,
          std::string("connect: ") + strerrordesc_np(error));
  }
  schedule(next_delay_ms());
  owner_.on_check_over();
}

int Watched::connect() {
  stream_.emplace(*this, env_);
  const int error = stream_->connect(target_.address, target_.local);
  if (error != 0 || target_.tls.context == nullptr) return error;
  const std::string header = with_header(target_, {});
  tls_context_ = target_.tls.context;
  // Without room for it on_connected() finds out.
  (void)stream_->start_tls_client(
      *tls_context_,
      {.server_name = target_.tls.name, .verify_name = target_.tls.verify_name, .preface = header});
  return 0;
}

void Watched::on_connected(Socket& /*socket*/, int error) {
  if (decided_) return;
  if (error == 0 && target_.tls.enabled && stream_->tls() == nullptr) {
    if (tls_context_ != nullptr) return fail("TLS", ENOBUFS);
    return conclude(Result::kFailed, "TLS: its settings cannot be used");
  }
  if (error != 0) return fail("connect", error);
  connected_ = true;
  request_ = clear_preface(target_);
  if (!asks(target_.health)) return send_request();
  received_.clear();
  body_text_.clear();
  if (!choose_version()) return;
  if (h2_ == nullptr) {
    request_ +=
        request_head(target_, target_.health.method, target_.health.path, "Connection: close\r\n");
    expect_response();
  }
  stream_->set_receiving(true);
  send_request();
}

bool Watched::choose_version() {
  const TlsSession* tls = stream_->tls();
  const bool chosen = tls != nullptr && tls->alpn() == "h2";
  switch (target_.http) {
    case CheckHttp::kHttp1: return true;
    case CheckHttp::kByAlpn: return !chosen || start_h2();
    case CheckHttp::kHttp2: break;
  }
  if (tls == nullptr || chosen) return start_h2();
  conclude(Result::kFailed, "TLS: the server does not choose HTTP/2 (ALPN)");
  return false;
}

bool Watched::start_h2() {
  const config::Health& health = target_.health;
  h2_ = std::make_unique<H2Request>(owner_.scratch(), kCheckHead);
  const std::string_view scheme = target_.tls.enabled ? "https" : "http";
  bool fits = false;
  if (health.type == config::HealthType::kGrpc) {
    fits = h2_->start(request_head(target_, "POST", kGrpcCheckPath,
                                   "Content-Type: application/grpc\r\nTE: trailers\r\n"),
                      scheme, false, grpc_check_message(health.service));
  } else {
    fits = h2_->start(request_head(target_, health.method, health.path, {}), scheme,
                      health.method == "HEAD", {});
  }
  if (!fits) {
    conclude(Result::kFailed, "request: too large");
    return false;
  }
  request_ += h2_->output();
  h2_->output().clear();
  return true;
}

void Watched::send_request() {
  if (request_.empty()) return sent();
  const iovec piece{.iov_base = request_.data(), .iov_len = request_.size()};
  // A server that resets at once may have said why; but nothing says that it is well.
  if (!stream_->write({&piece, 1})) return fail("request", stream_->error());
  if (stream_->queued() == 0) sent();
}

void Watched::on_writable(Socket& /*socket*/) {
  if (decided_) return;
  if (!stream_->flush()) return fail("request", stream_->error());
  if (stream_->queued() == 0) sent();
}

// Where nothing is asked that was all.
void Watched::sent() {
  if (h2_ != nullptr) return send_h2();
  if (asks(target_.health)) return;
  conclude(Result::kPassed, target_.tls.enabled ? "connected, with TLS" : "connected");
}

void Watched::expect_response() {
  const bool is_head = target_.health.method == "HEAD";
  parser_->start_response(kCheckHead,
                          {.request_method = is_head ? http1::Method::kHead : http1::Method::kGet});
}

void Watched::on_receive(Socket& /*socket*/, std::span<const std::byte> bytes) {
  if (decided_) return;
  if (h2_ != nullptr) {
    h2_->feed(bytes, now_ms());
    judge_h2();
    return send_h2();
  }
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

// SETTINGS to acknowledge, windows to open; and GOAWAY at the end, if there is room for it.
void Watched::send_h2() {
  if (!attached() || stream_->queued() > 0 || h2_->output().empty()) return;
  request_.swap(h2_->output());
  h2_->output().clear();
  const iovec piece{.iov_base = request_.data(), .iov_len = request_.size()};
  if (!stream_->write({&piece, 1}) && !decided_) fail("request", stream_->error());
}

void Watched::judge_h2() {
  if (h2_->status() != 0 && !head_done_) {
    head_done_ = true;
    if (target_.health.type == config::HealthType::kHttp && !expects(h2_->status())) return;
  }
  if (target_.health.type == config::HealthType::kGrpc) return judge_grpc();
  const std::string piece = h2_->take_body();
  if (!piece.empty()) take_body(piece);
  if (decided_) return;
  if (h2_->complete()) return lack_of_body_text();
  if (!h2_->failure().empty()) conclude(Result::kFailed, h2_->failure());
}

void Watched::judge_grpc() {
  body_text_ += h2_->take_body();
  const uint16_t status = h2_->status();
  if (status != 0 && status != 200) {
    return conclude(Result::kFailed,
                    "status " + std::to_string(status) + " instead of a gRPC answer");
  }
  if (h2_->complete()) {
    const GrpcVerdict verdict = grpc_verdict(h2_->head(), body_text_, h2_->trailers());
    return conclude(verdict.up ? Result::kPassed : Result::kFailed, verdict.reason);
  }
  if (!h2_->failure().empty()) return conclude(Result::kFailed, h2_->failure());
  if (body_text_.size() > kBodyBytes) conclude(Result::kFailed, "malformed message");
}

// Whether the body is to be looked at; else the status has decided.
bool Watched::expects(uint16_t number) {
  const config::Health& health = target_.health;
  const bool expected =
      std::any_of(health.expect_status.begin(), health.expect_status.end(),
                  [&](const auto& range) { return number >= range.first && number <= range.last; });
  const std::string status = "status " + std::to_string(number);
  if (!expected) {
    conclude(Result::kFailed, status + ", expected " + ranges_text(health.expect_status));
    return false;
  }
  if (!health.expect_body.empty()) return true;
  conclude(Result::kPassed, status);
  return false;
}

bool Watched::judge_head(const http1::Head& head) {
  head_done_ = true;
  if (!expects(head.status)) return false;
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
  if (h2_ != nullptr) {
    return conclude(Result::kFailed,
                    head_done_ ? "closed inside the response" : "closed before a response");
  }
  if (!head_done_) {
    return conclude(Result::kFailed, received_.empty() ? "closed before a response"
                                                       : "closed inside the response head");
  }
  if (body_.finish_at_close()) return lack_of_body_text();
  conclude(Result::kFailed, std::string("malformed response: ") + text_of(body_.error()));
}

void Watched::fail(std::string_view stage, int error) {
  const TlsSession* tls = stream_->tls();
  const TlsFailure failure = tls == nullptr ? TlsFailure() : tls->failure();
  if (failure.cause != TlsCause::kNone && failure.cause != TlsCause::kNoMemory) {
    return conclude(Result::kFailed, std::string(failure.text()));
  }
  conclude(is_our_fault(error) ? Result::kSkipped : Result::kFailed,
           std::string(stage) + ": " + strerrordesc_np(error));
}

void Watched::conclude(Result result, const std::string& reason) {
  RW_CHECK(checking_);
  if (decided_) return;
  decided_ = true;
  timers_.cancel(timer_);
  if (h2_ != nullptr && connected_ && stream_->error() == 0) {
    h2_->finish();
    send_h2();
  }
  stream_->close();
  count(result, reason);
}

void Watched::on_closed(Socket& /*socket*/) {
  checking_ = false;
  h2_.reset();
  tls_context_.reset();
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
  if (attached()) stream_->close();
}

}  // namespace ringway
