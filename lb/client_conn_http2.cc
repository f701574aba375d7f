// lb/client_conn_http2.cc - how a client connection becomes one of HTTP/2, and what its Http2Client
// needs of it.
#include "core/base/check.h"
#include "lb/client_conn.h"
#include "lb/http2_client.h"
#include "lb/worker.h"

namespace ringway {

bool ClientConn::settle_version(std::string_view bytes) {
  // Where nothing else is spoken, what is no preface is answered as HTTP/2 answers it.
  if (!listener_.config().speaks(config::HttpVersion::kHttp1)) {
    version_settled_ = true;
    return begin_http2();
  }
  const bool maybe = listener_.config().speaks(config::HttpVersion::kHttp2) &&
                     bytes.starts_with(h2::kPreface.substr(0, 1)) &&
                     h2::kPreface.starts_with(bytes.substr(0, h2::kPreface.size()));
  if (maybe && bytes.size() < h2::kPreface.size()) return false;
  if (bytes.empty()) return false;
  version_settled_ = true;
  return !maybe || begin_http2();
}

bool ClientConn::begin_http2() {
  const config::Listener& listener = listener_.config();
  http2_ = worker_.http2().take(
      worker_, *this,
      {.max_streams = listener.h2.max_streams,
       .stream_window = static_cast<uint32_t>(listener.h2.stream_window),
       .connection_window = static_cast<uint32_t>(listener.h2.connection_window),
       .header_table = static_cast<uint32_t>(listener.h2.header_table),
       .resets = {.count = listener.h2.max_resets.count,
                  .period_ms = listener.h2.max_resets.period_ms},
       .control = {.count = listener.h2.max_control.count,
                   .period_ms = listener.h2.max_control.period_ms},
       .head = {.header_bytes = listener.limits.header_bytes,
                .fields = listener.limits.headers,
                .uri_bytes = listener.limits.uri_bytes},
       .websocket = true});
  if (http2_ == nullptr) {
    listener_.stats().refused_memory.add();
    close();
    return false;
  }
  listener_.stats().http2_connections.add();
  http2_->begin();
  return true;
}

bool ClientConn::send_frames(std::span<const iovec> pieces) {
  size_t total = 0;
  for (const iovec& piece : pieces) total += piece.iov_len;
  listener_.stats().bytes_sent.add(total);
  if (!stream_.open() || !stream_.write(pieces)) return false;
  stalled_ = stream_.queued() > 0;
  return true;
}

void ClientConn::http2_failed(h2::ErrorCode code, h2::Flood flood, std::string_view cause) {
  listener_.stats().http2_errors.add();
  if (flood != h2::Flood::kNone)
    listener_.stats().http2_floods[static_cast<size_t>(flood) - 1].add();
  log_http2_end(code, flood, cause);
}

void ClientConn::http2_silent(std::string_view cause) {
  listener_.stats().http2_ping_timeouts.add();
  log_http2_end(h2::ErrorCode::kNoError, h2::Flood::kNone, cause);
}

void ClientConn::log_http2_end(h2::ErrorCode code, h2::Flood flood, std::string_view cause) {
  char ip[46];
  const bool flooded = flood != h2::Flood::kNone;
  const std::string_view pieces[] = {
      "HTTP/2 connection ended: client ",
      peer_.write_ip(ip),
      ", listener ",
      listener_.config().name,
      ", ",
      h2::name_of(code),
      ": ",
      cause,
      flooded ? ", flood of " : "",
      flooded ? h2::kFloodNames[static_cast<size_t>(flood) - 1] : std::string_view()};
  worker_.log_event(pieces);
}

// As "Connection: close" does it for HTTP/1: of a listener that a reload has removed no client is
// kept.
void ClientConn::after_flush() {
  if (listener_.retired && !http2_->draining()) http2_->drain();
  update_receiving();
}

void ClientConn::end_http2() {
  http2_->connection_gone();
  http2_ = nullptr;
  begin_linger();
}

// A connection without streams is idle; what comes of PING and the like does not prolong that.
void ClientConn::rearm_http2() {
  const config::Timeouts& timeouts = listener_.config().timeouts;
  if (http2_->inside_head()) {
    if (wait_ == Wait::kFirstHead || wait_ == Wait::kHead) return;
    return wait_for(Wait::kHead, timeouts.request_headers);
  }
  if (!http2_->idle()) return wait_for(Wait::kNothing, 0);
  if (http2_->draining()) {
    if (wait_ != Wait::kGoaway) wait_for(Wait::kGoaway, kGoawayMs);
    return;
  }
  if (requests_ == 0) return;  // The time for the first one runs.
  if (wait_ == Wait::kKeepAlive && idle_from_ == requests_) return;
  idle_from_ = requests_;
  wait_for(Wait::kKeepAlive, timeouts.keep_alive);
}

}  // namespace ringway
