// lb/admin/metrics_server.cc
#include "lb/admin/metrics_server.h"

#include <string_view>
#include <utility>

#include "lb/admin/metrics.h"

namespace ringway {

MetricsServer::MetricsServer(Io& io, Timers& timers, int listen_fd, MetricsSource& source)
    : source_(source),
      server_(io, timers, listen_fd, *this,
              {.connections = kConnectionsMax,
               .head_bytes = kHeadBytesMax,
               .body_bytes = 0,
               .head_ms = kHeadMs,
               .send_ms = kSendMs,
               .idle_ms = kIdleMs,
               .drain_ms = kDrainMs}) {}

void MetricsServer::on_request(HttpServer& server, HttpTicket ticket, const HttpRequest& request) {
  const bool metrics = request.path == "/metrics";
  if (!metrics && request.path != "/healthz") {
    return server.respond(ticket, {.status = 404, .body = "not found\n"});
  }
  if (request.method != http1::Method::kGet && request.method != http1::Method::kHead) {
    return server.respond(
        ticket, {.status = 405, .body = "method not allowed\n", .extra = "Allow: GET, HEAD\r\n"});
  }
  if (!metrics) return server.respond(ticket, {.body = "ok\n"});
  server.respond(ticket, {.body = source_.metrics(), .content_type = MetricsWriter::kContentType});
}

}  // namespace ringway
