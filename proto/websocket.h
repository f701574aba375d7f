// proto/websocket.h - what a balancer has to know of the WebSocket handshake.
//
// Affinity:  any thread; no state. Source: RFC 6455 4; RFC 8441 5.
#pragma once

#include <span>
#include <string_view>

#include "proto/http1_head.h"

namespace ringway::http1 {

// The request asks for a WebSocket and for nothing else.
[[nodiscard]] bool is_websocket(const Head& request);

// The value of Sec-WebSocket-Key, if it has the form of one (16 bytes in base64); else nothing.
[[nodiscard]] std::string_view websocket_key(const Head& request);

// The Sec-WebSocket-Accept that goes with a key (RFC 6455 4.2.2), written into `out`. By HTTP/2
// servers send none.
inline constexpr size_t kWebSocketAcceptBytes = 28;
[[nodiscard]] std::string_view websocket_accept(std::string_view key,
                                                std::span<char, kWebSocketAcceptBytes + 1> out);

}  // namespace ringway::http1
