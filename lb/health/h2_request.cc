// lb/health/h2_request.cc
#include "lb/health/h2_request.h"

#include <utility>

#include "core/base/check.h"

namespace ringway {
namespace {

// A check waits for one answer: windows of one usual stream are enough.
h2::SessionLimits session_limits(const http1::HeadLimits& head) {
  h2::SessionLimits limits;
  limits.stream_window = h2::kWindowInitial;
  limits.connection_window = 2 * h2::kWindowInitial;
  limits.head = head;
  return limits;
}

}  // namespace

std::optional<std::string_view> field_of(std::string_view lines, std::string_view name) {
  while (!lines.empty()) {
    const size_t end = lines.find("\r\n");
    const std::string_view line = lines.substr(0, end);
    if (line.size() > name.size() + 1 && line.starts_with(name) && line[name.size()] == ':') {
      std::string_view value = line.substr(name.size() + 1);
      while (!value.empty() && value.front() == ' ') value.remove_prefix(1);
      return value;
    }
    if (end == std::string_view::npos) break;
    lines.remove_prefix(end + 2);
  }
  return std::nullopt;
}

H2Request::H2Request(h2::SessionScratch& scratch, const http1::HeadLimits& limits)
    : limits_(limits),
      session_(h2::Role::kClient, *this, scratch, session_limits(limits)),
      parser_(limits.fields) {}

H2Request::~H2Request() {
  session_.forget(stream_);
}

bool H2Request::start(std::string_view head, std::string_view scheme, bool is_head,
                      std::string_view body) {
  is_head_ = is_head;
  session_.begin();
  RW_CHECK(session_.capacity() > 0);  // RFC 9113 lets a client send before it has SETTINGS.
  if (!session_.start(stream_, head, scheme, false, body.empty())) return false;
  if (body.empty()) return true;
  const size_t sent = session_.send_data(stream_, body, true);
  RW_CHECK(sent == body.size());
  return true;
}

void H2Request::feed(std::span<const std::byte> bytes, int64_t now_ms) {
  input_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  input_.erase(0, session_.feed(input_, now_ms));
}

void H2Request::finish() {
  session_.reset(stream_, h2::ErrorCode::kCancel);
  session_.fail(h2::ErrorCode::kNoError, h2::Flood::kNone, {});
}

std::string H2Request::take_body() {
  return std::exchange(body_, {});
}

void H2Request::fail(std::string reason) {
  if (failure_.empty() && !complete_) failure_ = std::move(reason);
}

void H2Request::on_request(uint32_t /*id*/, const h2::HeadBuilder& /*head*/, bool /*end*/) {
  RW_CHECK(false);  // A client's side gets none.
}

void H2Request::on_bad_request(uint32_t /*id*/, h2::BlockError /*error*/, bool /*end*/) {
  RW_CHECK(false);
}

void H2Request::on_response(h2::Stream& stream, const h2::HeadBuilder& head, bool end) {
  const uint16_t status = head.built().status;
  if (status < 200) return;  // Interim; the real one follows.
  parser_.start_response(limits_,
                         {.request_method = is_head_ ? http1::Method::kHead : http1::Method::kGet});
  const http1::HeadError error = parser_.take_built(head.built(), !end);
  if (error != http1::HeadError::kNone) {
    return fail(std::string("malformed response: ") + http1::phrase_of(error));
  }
  const http1::Head& parsed = parser_.head();
  if (parsed.body == http1::BodyKind::kLength) {
    h2::Session::expect_body(stream, parsed.content_length);
  }
  head_ = head.text();
  status_ = status;
}

void H2Request::on_data(h2::Stream& stream, std::string_view bytes) {
  body_ += bytes;
  session_.consumed(stream, bytes.size());
}

void H2Request::on_end(h2::Stream& /*stream*/, std::string_view trailers) {
  trailers_ = trailers;
  complete_ = failure_.empty();
}

void H2Request::on_reset(h2::Stream& /*stream*/, h2::ErrorCode code, bool ours) {
  if (ours) return fail("malformed response: it breaks a rule of HTTP/2");
  fail("the server has reset the stream (" + std::string(h2::name_of(code)) + ")");
}

// RFC 9113 6.8: what it does answer still comes.
void H2Request::on_goaway(uint32_t last, h2::ErrorCode code) {
  if (stream_.id() <= last && code == h2::ErrorCode::kNoError) return;
  fail("the server ends the connection (GOAWAY, " + std::string(h2::name_of(code)) + ")");
}

void H2Request::on_fatal(h2::ErrorCode /*code*/, h2::Flood /*flood*/, std::string_view cause) {
  fail("malformed HTTP/2: " + std::string(cause));
}

void H2Request::put(std::string_view head, std::string_view payload) {
  output_.append(head).append(payload);
}

}  // namespace ringway
