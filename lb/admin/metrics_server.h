// lb/admin/metrics_server.h - serves GET /metrics and GET /healthz over HTTP/1.1.
//
// Affinity:  the control thread's Io and Timers; all calls on that thread.
// Ownership: owns its connections, not the listening descriptor. stop() it and run turns until
//            live() is 0 before it dies.
// Bounds:    kConnectionsMax connections (more are closed at once), one request head of
//            kHeadBytesMax each, and one response each, made only after the one before was sent.
//            A connection has kHeadMs for a request head, kSendMs for taking a response, and may be
//            idle for kIdleMs.
// Why:       a slow or stuck scraper must cost nothing but its own slot.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "core/io.h"
#include "core/timers.h"
#include "lb/admin/http_server.h"

namespace ringway {

class MetricsSource {
 public:
  // All metrics in Prometheus' text format. Called once per GET /metrics.
  virtual std::string metrics() = 0;

 protected:
  ~MetricsSource() = default;
};

class MetricsServer final : private HttpHandler {
 public:
  static constexpr size_t kConnectionsMax = 64;
  static constexpr uint32_t kHeadBytesMax = 8 * 1024;
  static constexpr int64_t kHeadMs = 10'000;
  static constexpr int64_t kSendMs = 30'000;
  static constexpr int64_t kIdleMs = 120'000;  // longer than usual scrape intervals
  static constexpr int64_t kDrainMs = 2'000;

  // Starts accepting on `listen_fd`, which stays the caller's and open until stop(). All references
  // must outlive the server.
  MetricsServer(Io& io, Timers& timers, int listen_fd, MetricsSource& source);

  // Stops accepting and closes every connection. Idempotent.
  void stop() { server_.stop(); }

  // Connections that have not been closed yet.
  [[nodiscard]] size_t live() const { return server_.live(); }
  // Connections closed because kConnectionsMax were open.
  [[nodiscard]] uint64_t refused() const { return server_.refused(); }

 private:
  void on_request(HttpServer& server, HttpTicket ticket, const HttpRequest& request) override;

  MetricsSource& source_;
  HttpServer server_;
};

}  // namespace ringway
