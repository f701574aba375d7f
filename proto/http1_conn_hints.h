// proto/http1_conn_hints.h - what fields say about the connection that carries them.
//
// Affinity: pure functions.
#pragma once

#include <cstdint>
#include <string_view>

#include "proto/http1_head.h"

namespace ringway::http1 {

// "Keep-Alive: timeout=5, max=100" (RFC 2068 19.7.1.1, still common): the server's own limits.
struct KeepAliveHint {
  int64_t timeout_ms = 0;              // 0: none said
  uint64_t requests_max = UINT64_MAX;  // further requests; UINT64_MAX: none said
};
[[nodiscard]] KeepAliveHint keep_alive_hint(const Head& response);

// NTLM and Negotiate log in the connection, not the request (RFC 4559 6): one whose request
// offers, or whose response asks for, such a login must not be shared. Prefixes count, whatever
// follows: "Nego2" and the like have caught others out.
[[nodiscard]] bool binds_connection(const Head& head);

}  // namespace ringway::http1
