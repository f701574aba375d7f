// lb/config/schema_timeouts.h - what several sections share: timeouts, health intervals, protocols.
#pragma once

#include "lb/config/store.h"

namespace ringway::config {

inline constexpr uint64_t kSecond = 1000;
inline constexpr uint64_t kDay = 24 * 3600 * kSecond;

// Of listeners and upstreams.
inline constexpr Choice kProtocols[] = {
    {"http", static_cast<uint64_t>(Protocol::kHttp)},
    {"tcp", static_cast<uint64_t>(Protocol::kTcp)},
};
inline constexpr std::string_view kLaterProtocols[] = {"udp"};

constexpr Key timeout_key(const char* name, void (*number)(void*, uint64_t), const char* initial,
                          const char* example, const char* doc) {
  return {.name = name,
          .kind = Kind::kDuration,
          .min = 1,
          .max = 30 * kDay,
          .word = "off",
          .word_value = static_cast<uint64_t>(kOff),
          .number = number,
          .initial = initial,
          .doc = doc,
          .example = example};
}

inline constexpr Key kProxyHeader = timeout_key(
    "proxy_header", store<&Timeouts::proxy_header>, "3s", "\"7s\"",
    "The time a client has to send its PROXY header. Then it is closed, or, where the header is "
    "optional and nothing came yet, taken as one without.");
inline constexpr Key kRequestHeaders =
    timeout_key("request_headers", store<&Timeouts::request_headers>, "10s", "\"7s\"",
                "The time a client has to send a whole request head. Then 408 is answered.");
inline constexpr Key kRequestBody =
    timeout_key("request_body", store<&Timeouts::request_body>, "30s", "\"7s\"",
                "The longest pause between two parts of a request body.");
inline constexpr Key kClientIdle =
    timeout_key("client_idle", store<&Timeouts::client_idle>, "60s", "\"7s\"",
                "How long a client may accept nothing while a response is being sent to it; over "
                "HTTP/2, less than 1 KiB of what waits.");
inline constexpr Key kKeepAlive =
    timeout_key("keep_alive", store<&Timeouts::keep_alive>, "65s", "\"7s\"",
                "How long a client connection may be idle between two requests.");
inline constexpr Key kConnect =
    timeout_key("connect", store<&Timeouts::connect>, "2s", "\"7s\"",
                "The time that one attempt to connect to a server may take.");
inline constexpr Key kResponseHeaders = timeout_key(
    "response_headers", store<&Timeouts::response_headers>, "30s", "\"7s\"",
    "The time from the end of the request to the end of the response head. Then 504 is answered.");
inline constexpr Key kServerIdle =
    timeout_key("server_idle", store<&Timeouts::server_idle>, "60s", "\"7s\"",
                "The longest pause between two parts of a response body.");
inline constexpr Key kTunnelIdle =
    timeout_key("tunnel_idle", store<&Timeouts::tunnel_idle>, "1h", "\"7s\"",
                "How long a TCP session or an upgraded connection (WebSocket) may be silent.");
inline constexpr Key kHalfClosed = timeout_key(
    "half_closed", store<&Timeouts::half_closed>, "10s", "\"7s\"",
    "How long a TCP session or an upgraded connection goes on after one side has ended its half.");

inline constexpr Key kQueue = timeout_key(
    "queue", store<&Timeouts::queue>, "5s", "\"7s\"",
    "How long a request or TCP session waits while every server has as much as it may. Then 503 is "
    "answered.");

inline constexpr Key kTlsHandshake =
    timeout_key("tls_handshake", store<&Timeouts::tls_handshake>, "10s", "\"7s\"",
                "The time that a client has for its TLS handshake. Then it is closed.");

inline constexpr std::string_view kLaterTimeouts[] = {"total"};

constexpr Key interval_key(const char* name, void (*number)(void*, uint64_t), const char* initial,
                           const char* doc) {
  return {.name = name,
          .kind = Kind::kDuration,
          .min = 10,
          .max = kDay,
          .number = number,
          .initial = initial,
          .doc = doc,
          .example = "\"700ms\""};
}

inline constexpr Key kInterval = interval_key("interval", store<&Health::interval>, "2s",
                                              "The time between two checks of one server.");
inline constexpr Key kFastInterval =
    interval_key("fast_interval", store<&Health::fast_interval>, "500ms",
                 "The same while the verdict is changing: after the first result that differs.");
inline constexpr Key kDownInterval = interval_key("down_interval", store<&Health::down_interval>,
                                                  "5s", "The same while the server is down.");
inline constexpr Key kHealthTimeout =
    interval_key("timeout", store<&Health::timeout>, "1s",
                 "The time that one check may take, connecting included.");
inline constexpr Key kRise = {.name = "rise",
                              .kind = Kind::kInteger,
                              .min = 1,
                              .max = 100,
                              .number = store<&Health::rise>,
                              .initial = "2",
                              .doc = "Good results in a row that bring a server up.",
                              .example = "4"};
inline constexpr Key kFall = {.name = "fall",
                              .kind = Kind::kInteger,
                              .min = 1,
                              .max = 100,
                              .number = store<&Health::fall>,
                              .initial = "3",
                              .doc = "Bad results in a row that take a server down.",
                              .example = "5"};

}  // namespace ringway::config
