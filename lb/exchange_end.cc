// lb/exchange_end.cc - answers of our own, and how an exchange ends.
#include "core/base/check.h"
#include "lb/client_conn.h"
#include "lb/exchange.h"
#include "lb/http2_client.h"
#include "lb/tls/client_facts.h"
#include "lb/worker.h"
#include "proto/grpc.h"

namespace ringway {

Exchange::Step Exchange::answer(uint16_t status, EndedBy by, std::string_view cause,
                                std::string_view extra) {
  if (stream_ != nullptr && is_grpc()) return answer_grpc(status, by, cause);
  char body[192];
  http1::Out text(std::span<char>(body, sizeof body));
  text.put_number(status);
  text.put(" ");
  text.put(http1::reason_phrase(status));
  text.put(": ");
  text.put(cause);
  text.put("\n");
  return respond({.status = status, .body = text.written(), .extra = extra}, by, cause);
}

bool Exchange::is_grpc() const {
  const http1::Field* type = request().find("content-type");
  return type != nullptr && grpc::is_content_type(request().value(*type));
}

// A gRPC client takes its error from Grpc-Status; what HTTP calls it would be guessed from.
Exchange::Step Exchange::answer_grpc(uint16_t status, EndedBy by, std::string_view cause) {
  constexpr size_t kMessageMax = 200;  // three times that, if all of it has to be encoded
  char lines[1024];
  http1::Out out(std::span<char>(lines, sizeof lines));
  grpc::put_trailers_only(status, cause.substr(0, kMessageMax), out);
  RW_CHECK(!out.full());
  return respond({.status = 200, .extra = out.written()}, by, cause);
}

Exchange::Step Exchange::respond(const http1::OwnResponse& response, EndedBy by,
                                 std::string_view cause) {
  RW_CHECK(!response_started_);
  RW_CHECK(conn_ == nullptr && server_stream_ == nullptr);
  // The rest of the request's body is not waited for, so nothing can follow it.
  keep_alive_ = keep_alive_ && request_done_ && !worker_.draining();
  http1::OwnResponse full = response;
  full.keep_alive = keep_alive_;
  full.head_only = request().method == http1::Method::kHead;
  full.client_version_minor = request().version_minor;
  status_ = full.status;
  cause_ = cause;
  ended_by_ = by;
  if (stream_ != nullptr) {
    respond_by_stream(full);
    return Step::kWait;
  }
  // The render buffer may hold `extra`; our answers are written beside it.
  http1::Out out(worker_.answer_buffer(full.body.size() + full.extra.size() + 1024));
  RW_CHECK(http1::write_own_response(full, out));
  response_started_ = true;
  bytes_out_ += out.written().size();
  const iovec piece{.iov_base = const_cast<char*>(out.written().data()),
                    .iov_len = out.written().size()};
  if (client_.write({&piece, 1})) finish_when_flushed();
  return Step::kWait;
}

Exchange::Step Exchange::redirect() {
  const config::Route::Redirect& to = route_->redirect;
  const http1::Head& head = request();
  http1::Out location(worker_.render_buffer());
  location.put("Location: ");
  location.put(to.scheme.empty() ? std::string_view("http") : std::string_view(to.scheme));
  location.put("://");
  // A port of the request's host belongs to this listener, hardly to another scheme.
  std::string_view host = to.host.empty() ? head.view(head.authority) : std::string_view(to.host);
  if (to.host.empty() && !to.scheme.empty()) {
    const size_t colon = host.rfind(':');
    if (colon != std::string_view::npos && host.find(']', colon) == std::string_view::npos) {
      host = host.substr(0, colon);
    }
  }
  location.put(host);
  if (to.path.empty()) {
    location.put(head.view(head.path));
    if (head.has_query) {
      location.put("?");
      location.put(head.view(head.query));
    }
  } else {
    location.put(to.path);
  }
  location.put("\r\n");
  if (location.full()) return answer(500, EndedBy::kProxy, "the redirect does not fit");
  return respond({.status = to.status, .extra = location.written()}, EndedBy::kNobody, {});
}

void Exchange::give_back_server(const FinishNotes& notes) {
  forget_response();
  if (conn_ != nullptr) {
    server_->stats().responses[response_started_ ? status_ / 100 : 0].add();
    server_->slot.give_back(*conn_, notes);
  } else if (server_stream_ != nullptr) {
    server_->stats().responses[response_started_ ? status_ / 100 : 0].add();
    server_stream_->finish();
  }
  forget_server();
}

void Exchange::let_go_of_server() {
  forget_response();
  if (conn_ != nullptr && state_ == State::kConnecting) {
    server_->stats().responses[0].add();
    server_->slot.cancel(*conn_, *this);  // Others may wait for it too.
  } else if (conn_ != nullptr) {
    server_->stats().responses[response_started_ ? status_ / 100 : 0].add();
    tunnel_cut_ ? server_->slot.discard_with_reset(*conn_) : server_->slot.discard(*conn_);
  } else if (server_stream_ != nullptr) {
    server_->stats().responses[response_started_ ? status_ / 100 : 0].add();
    server_stream_->abort(h2::ErrorCode::kCancel);
  }
  forget_server();
}

void Exchange::forget_response() {
  if (response_parser_ != nullptr) worker_.give_back_parser(response_parser_);
  response_parser_ = nullptr;
  response_in_.clear(worker_.chunks());
}

void Exchange::forget_server() {
  conn_ = nullptr;
  server_stream_ = nullptr;
  held_ = 0;
  if (server_ == nullptr) return;
  if (last_server_ != nullptr) --last_server_->pins;
  last_server_ = server_;
  ++last_server_->pins;
  upstream_->release(*server_);
  server_ = nullptr;
}

// The answer is complete. It is over once the client's kernel has all of it.
void Exchange::finish_when_flushed() {
  if (client_queued() == 0) return done();
  state_ = State::kFlush;
}

void Exchange::done() {
  release_all();
  if (stream_ != nullptr) return stream_->on_exchange_done();
  client_.on_exchange_done(keep_alive_, !request_done_);
}

void Exchange::on_client_gone() {
  if (state_ == State::kDone) return;
  if (ended_by_ == EndedBy::kNobody) {
    ended_by_ = EndedBy::kClient;
    cause_ = stream_ != nullptr ? "the client closed the stream" : "the client closed";
  }
  if (ended_by_ == EndedBy::kClient) client_.listener().stats().client_aborts.add();
  if (!response_started_) status_ = 499;
  tunnel_cut_ = state_ == State::kTunnel;  // As on layer 4, whoever has cut it.
  release_all();
}

// Gives everything back, counts and logs. The object itself is freed at the end of the turn.
void Exchange::release_all() {
  RW_CHECK(state_ != State::kDone);
  if (state_ == State::kQueued) upstream_->leave_queue(*this);
  retry_over(ended_by_ == EndedBy::kClient ? RetryOutcome::kAbandoned : RetryOutcome::kFailed);
  let_go_of_server();
  state_ = State::kDone;
  ListenerStats& stats = client_.listener().stats();
  stats.active_requests.sub();
  stats.responses[response_started_ ? status_ / 100 : 0].add();
  stats.duration.record(static_cast<uint64_t>(worker_.now_us() - start_us_));
  log();
  if (last_server_ != nullptr) --last_server_->pins;
  last_server_ = nullptr;
  if (upstream_ != nullptr) {
    upstream_->stats().active.sub();
    --upstream_->users;
    upstream_ = nullptr;
  }
  worker_.give_back_parser(parser_);
  parser_ = nullptr;
  head_.clear(worker_.chunks());
  kept_body_.clear(worker_.chunks());
  worker_.release_snapshot(use_);
  worker_.bury(*this);
}

void Exchange::log() {
  if (!worker_.logs_access()) return;
  const http1::Head& head = request();
  AccessRecord record;
  record.timestamp_us = worker_.wall_us() - (worker_.now_us() - start_us_);
  record.client = client_.peer();
  record.listener = client_.listener().config().name;
  if (route_ != nullptr) record.route = route_->name;
  if (upstream_ != nullptr) record.upstream = upstream_->name();
  if (last_server_ != nullptr) record.server = last_server_->object->name;
  record.method = head.view(head.method_text);
  record.target = head.view(head.target);
  record.host = head.view(head.authority);
  record.version = head.version_minor == 0 ? "HTTP/1.0" : "HTTP/1.1";
  if (stream_ != nullptr) record.version = "HTTP/2.0";
  log_client_origin(client_.known_origin(), record);
  log_client_tls(client_.tls(), record);
  record.status = status_;
  record.bytes_received = bytes_in_;
  record.bytes_sent = bytes_out_;
  record.total_us = worker_.now_us() - start_us_;
  if (connected_us_ != 0 && !was_reused_) record.connect_us = connected_us_ - start_us_;
  if (first_byte_us_ != 0) record.first_byte_us = first_byte_us_ - connected_us_;
  if (queued_us_ != 0) record.queue_us = queue_wait_us_;
  record.attempts = attempts_;
  record.reused = was_reused_;
  record.early_data = early_;
  switch (ended_by_) {
    case EndedBy::kNobody: record.ended_by = AccessRecord::EndedBy::kNone; break;
    case EndedBy::kClient: record.ended_by = AccessRecord::EndedBy::kClient; break;
    case EndedBy::kServer: record.ended_by = AccessRecord::EndedBy::kServer; break;
    case EndedBy::kProxy: record.ended_by = AccessRecord::EndedBy::kProxy; break;
  }
  record.cause = cause_;
  if (const http1::Field* f = head.find(http1::FieldId::kUserAgent)) {
    record.user_agent = head.value(*f);
  }
  if (const http1::Field* f = head.find(http1::FieldId::kReferer)) record.referer = head.value(*f);
  worker_.log_access(record);
}

}  // namespace ringway
