// lb/exchange_server.cc - an exchange's way to a server: choosing, waiting, connecting, trying
// again.
#include <errno.h>
#include <string.h>

#include <utility>

#include "core/base/check.h"
#include "core/base/hash.h"
#include "lb/client_conn.h"
#include "lb/exchange.h"
#include "lb/tls/server_name.h"
#include "lb/worker.h"
#include "proto/websocket.h"

namespace ringway {

using http1::BodyKind;

Exchange::Step Exchange::do_pick_server() {
  RW_CHECK(upstream_ != nullptr);
  RW_CHECK(server_ == nullptr && conn_ == nullptr && server_stream_ == nullptr);
  // Who waits already goes first.
  if (!in_turn_ && upstream_->anyone_waits()) return wait_in_queue();
  if (tried_epoch_ != upstream_->epoch()) tried_count_ = 0;
  tried_epoch_ = upstream_->epoch();
  uint64_t hash = 0;
  if (upstream_->config().balance.algorithm == config::Algorithm::kHash) {
    const auto ip = client_.peer().ip_bytes();
    hash = hash_bytes(std::as_bytes(ip), HashKey{});
  }
  ShardUpstream::Picked picked = pick_bound_server();
  if (picked.server == nullptr)
    picked = upstream_->pick(hash, std::span(tried_).first(tried_count_));
  // All have failed once: with attempts left, a server may have come back.
  if (picked.server == nullptr && !picked.full && tried_count_ > 0) {
    picked = upstream_->pick(hash, {});
  }
  if (picked.server == nullptr && picked.full) return wait_in_queue();
  if (picked.server == nullptr) {
    upstream_->stats().no_server.add();
    return answer(503, EndedBy::kProxy, "no server is available");
  }
  server_ = picked.server;
  if (next_retry_ != RetryCause::kNone) {
    upstream_->stats().retries.add();
    retry_over(RetryOutcome::kFailed);
    retry_ = std::exchange(next_retry_, RetryCause::kNone);
  }
  ++attempts_;
  state_ = State::kTakeConn;
  return Step::kNext;
}

// A client that has logged in over a connection goes where that connection goes.
ShardUpstream::Picked Exchange::pick_bound_server() {
  const SessionStore& own = client_.private_conns();
  if (own.empty() || stale_picks_ > 0) return {};
  const ServerPool* pool = own.idle_pool({.kind = TargetRef::Kind::kUpstream, .object = upstream_});
  return pool == nullptr ? ShardUpstream::Picked{} : upstream_->pick_bound(*pool);
}

Exchange::Step Exchange::wait_in_queue() {
  state_ = State::kQueued;
  if (in_turn_) return Step::kWait;  // Still in the queue, in front.
  if (!upstream_->enqueue(*this)) {
    upstream_->stats().queue_full.add();
    return answer(503, EndedBy::kProxy, "every server is full, and so is the queue");
  }
  queued_us_ = worker_.now_us();
  return Step::kWait;
}

void Exchange::on_turn() {
  RW_CHECK(state_ == State::kQueued && !in_turn_);
  in_turn_ = true;
  state_ = State::kPickServer;
  run();
  in_turn_ = false;
  if (state_ == State::kQueued) return upstream_->wait_on(*this);
  queue_wait_us_ = worker_.now_us() - queued_us_;
  if (server_ != nullptr) {
    upstream_->stats().queue_wait.record(static_cast<uint64_t>(queue_wait_us_));
  }
  if (state_ == State::kSendHead) resume_client();
}

void Exchange::on_queue_timeout() {
  RW_CHECK(state_ == State::kQueued);
  upstream_->stats().queue_timeouts.add();
  answer(503, EndedBy::kProxy, "no server had room in time");
}

Exchange::Step Exchange::do_take_conn() {
  RW_CHECK(server_ != nullptr);
  RW_CHECK(conn_ == nullptr);
  const ServerSlot::Taken taken = take_connection();
  if (taken.conn == nullptr && taken.error == EAGAIN) return connection_limit_reached();
  if (taken.conn == nullptr) {
    const std::string_view local = server_->slot.local_failure();
    attempt_failed(local.empty() ? strerrorname_np(taken.error) : local, false);
    return state_ == State::kPickServer ? Step::kNext : Step::kWait;
  }
  if (taken.stream != nullptr) {
    server_stream_ = taken.stream;
    was_reused_ = taken.stream->reused();
    state_ = State::kSendHead;
    connection_ready();
    return Step::kWait;
  }
  conn_ = taken.conn;
  was_reused_ = taken.connected;
  state_ = taken.connected ? State::kSendHead : State::kConnecting;
  if (taken.connected) connection_ready();
  return Step::kWait;
}

// The server's limit of connections: it waits until one is free.
Exchange::Step Exchange::connection_limit_reached() {
  conn_ = nullptr;
  server_->wants_connection = true;
  upstream_->release(*server_);
  server_ = nullptr;
  --attempts_;
  return wait_in_queue();
}

ServerSlot::Taken Exchange::take_connection() {
  ServerSlot& slot = server_->slot;
  SessionStore& own = client_.private_conns();
  const http1::Head& head = request();
  const std::vector<config::PoolKey>& parts = upstream_->config().pool.key;
  proxy_version_ = upstream_->config().send_proxy;
  proxy_tlvs_ = upstream_->config().send_proxy_tlvs;
  const std::string_view header = proxy_header();
  if (header.empty() && proxy_version_ != config::ProxySend::kOff) return {.error = ENOBUFS};
  const config::UpstreamTls& tls = upstream_->config().tls;
  const std::string_view host = head.view(head.authority);
  const std::string_view sni =
      tls.enabled && tls.sni_from_request ? name_without_port(host) : std::string_view();
  // Where nobody else has the same header, nobody could use it once this client is gone.
  alone_ = header_is_own_ || upstream_->config().pool.reuse == ReuseMode::kNever;
  // Few servers take WebSockets over HTTP/2, and HTTP/2 knows no other upgrade.
  const bool by_stream =
      slot.takes_websocket() && http1::is_websocket(head) && !http1::websocket_key(head).empty();
  const bool chooses = slot.spec().http == HttpChoice::kByAlpn;
  const bool only_http1 = tls.enabled && (only_http1_ || (chooses && head.upgrade && !by_stream));
  ConnKey dynamic;
  const ConnKey* key = nullptr;
  if (!parts.empty() || !header.empty() || !sni.empty() || only_http1) {
    dynamic = worker_.connection_key(slot.pool(), parts,
                                     {.host = host,
                                      .sni = sni,
                                      .proxy_header = header,
                                      .client = client_.peer(),
                                      .only_http1 = only_http1});
    key = &dynamic;
  }
  if (stale_picks_ < kStalePicksMax && !own.empty()) {
    const TargetRef targets[] = {{.kind = TargetRef::Kind::kUpstream, .object = upstream_},
                                 {.kind = TargetRef::Kind::kServer, .object = &slot.pool()}};
    for (const TargetRef& target : targets) {
      const ServerSlot::Taken taken = slot.take_private(*this, own, target, key);
      if (taken.conn != nullptr) return taken;
    }
  }
  const bool can_be_kept = head.body == BodyKind::kNone || (head.body == BodyKind::kLength &&
                                                            head.content_length <= kKeptBodyBytes);
  // After two dead ones the third try takes no chances.
  const PickRules rules{.first = stream_ == nullptr && client_.requests() <= 1,
                        .repeatable = http1::is_idempotent(head.method) && can_be_kept,
                        .fresh = stale_picks_ >= kStalePicksMax,
                        // A client of HTTP/1 has nothing else in flight.
                        .session = stream_ == nullptr && !alone_ ? nullptr : &own,
                        .own = alone_};
  return slot.take(*this, key, rules);
}

std::string_view Exchange::proxy_header() {
  header_is_own_ = false;
  if (proxy_version_ == config::ProxySend::kOff) return {};
  ClientOrigin* origin = client_.origin();
  if (origin == nullptr) return {};
  header_is_own_ = is_own_header(proxy_version_, proxy_tlvs_, client_.peer(), *origin);
  return worker_.proxy_header(proxy_version_, proxy_tlvs_, client_.peer(), client_.tls(), *origin);
}

// It is up, and this request's. From here on it is known who may use it.
void Exchange::connection_ready() {
  connected_us_ = worker_.now_us();
  const bool named = proxy_version_ != config::ProxySend::kOff;
  // Before TLS, and before HTTP/2's own preface, it has gone out already.
  proxy_due_ = named && !was_reused_ && conn_ != nullptr && !server_->slot.sends_preface();
  // Over HTTP/2 nobody logs in for a connection (RFC 9113 9.2 leaves none to one request).
  const bool login = login_ && conn_ != nullptr;
  if (!login && !alone_) return;
  const PrivateReason of_its_own =
      header_is_own_ ? PrivateReason::kProxyHeader : PrivateReason::kNever;
  reserve_connection(login ? PrivateReason::kLogin : of_its_own);
}

// The connection becomes the client's own: because of a login that it carries, for the whole
// upstream, or because nothing is shared here.
void Exchange::reserve_connection(PrivateReason reason) {
  ServerSlot& slot = server_->slot;
  const bool login = reason == PrivateReason::kLogin || reason == PrivateReason::kChallenge;
  const TargetRef target =
      login ? TargetRef{.kind = TargetRef::Kind::kUpstream, .object = upstream_}
            : TargetRef{.kind = TargetRef::Kind::kServer, .object = &slot.pool()};
  ServerConn& conn = conn_ != nullptr ? *conn_ : server_stream_->conn();
  slot.reserve(conn, client_.private_conns(), target, reason);
}

// A server could not be reached: another one, or the end. Leaves state_ at kPickServer or beyond.
void Exchange::attempt_failed(std::string_view cause, bool timed_out, uint16_t status) {
  RW_CHECK(server_ != nullptr);
  if (tried_count_ < tried_.size()) tried_[tried_count_++] = server_->index;
  conn_ = nullptr;
  upstream_->release(*server_);
  server_ = nullptr;
  if (attempts_ <= upstream_->config().retry.attempts) {
    next_retry_ = RetryCause::kConnect;
    state_ = State::kPickServer;
    return;
  }
  upstream_->stats().denied_attempts.add();
  if (timed_out) upstream_->stats().timeouts.add();
  answer(status, EndedBy::kServer, cause);
}

void Exchange::connect_failed(int error) {
  if (error == ETIMEDOUT) return attempt_failed("connect: timeout", true);
  const std::string_view local = server_->slot.local_failure();
  if (!local.empty()) return attempt_failed(local, false);
  // Its certificate is no good, say: it is there, and answers wrongly.
  const std::string_view tls = server_->slot.tls_failure();
  if (tls.empty()) return attempt_failed("connect: failed", false);
  attempt_failed(tls, false, 502);
}

void Exchange::on_server_connected(int error) {
  RW_CHECK(state_ == State::kConnecting);
  if (error == EAGAIN) {  // It waited for a connection with others, and there is no room for more.
    connection_limit_reached();
  } else if (error != 0) {
    conn_ = nullptr;
    connect_failed(error);
    run();
  } else {
    state_ = State::kSendHead;
    was_reused_ = conn_->reused();  // It may have come from another shard.
    connection_ready();
  }
  if (state_ == State::kSendHead) resume_client();
}

// The try under way, if it was not the first one, has come to its end.
void Exchange::retry_over(RetryOutcome outcome) {
  if (retry_ == RetryCause::kNone) return;
  upstream_->stats().retried[static_cast<size_t>(retry_)][static_cast<size_t>(outcome)].add();
  retry_ = RetryCause::kNone;
}

// The server began to answer: from here on nothing is repeated.
void Exchange::note_answered() {
  first_byte_us_ = worker_.now_us();
  kept_body_.clear(worker_.chunks());
  retry_over(RetryOutcome::kAnswered);
}

// It met a dead reused connection and is not repeated.
void Exchange::note_denied() {
  UpstreamStats& stats = upstream_->stats();
  if (!http1::is_idempotent(request().method)) return stats.denied_method.add();
  if (!body_kept_) stats.denied_body.add();
}

// An idle connection that the server was just closing: it has not looked at the request, so one
// that may be repeated is (RFC 9110 9.2.2). False: it may not.
bool Exchange::try_again_after_stale() {
  if (first_byte_us_ != 0 || !was_reused_) return false;
  const bool repeatable = http1::is_idempotent(request().method) && body_kept_;
  if (!repeatable && request_started_) {
    note_denied();
    return false;
  }
  ++stale_picks_;
  send_broken_ = false;
  server_ended_ = false;
  --attempts_;
  next_retry_ = RetryCause::kStale;
  upstream_->stats().retries_stale.add();
  forget_response();
  server_->stats().responses[0].add();
  server_->slot.discard_stale(*conn_);
  forget_server();
  state_ = State::kPickServer;
  run();
  if (state_ == State::kSendHead) resume_client();
  return true;
}

}  // namespace ringway
