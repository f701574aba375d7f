// proto/http1_target.h - request target and Host: grammar, absolute-form, agreement of the two.
//
// Affinity:  pure functions, any thread. Internal to proto.
// Why:       nothing is normalised: rules see, and servers get, the bytes that the client sent.
// Source:    RFC 9112 3.2, RFC 9110 4.2 and 7.2, RFC 3986 3.2.
#pragma once

#include <cstdint>
#include <string_view>

#include "proto/http1_fields.h"

namespace ringway::http1 {

// Splits head.target into path, query and, for absolute-form, authority. An absolute-form without a
// path gets the "/" of its "//" as path, so that every path is a part of the head.
// REQUIRES: head.base, method and target are set.
[[nodiscard]] Fault parse_target(Head& head);

// True for `uri-host [":" port]` with a host: a name without comma, or an IPv6 address in brackets.
// No user information; the port, which may be empty, is at most 65535.
[[nodiscard]] bool valid_authority(std::string_view authority);

// The same host and port, an absent or empty port being `port_of_scheme`.
// REQUIRES: both are valid_authority().
[[nodiscard]] bool same_authority(std::string_view a, std::string_view b, uint32_t port_of_scheme);

// Decides head.authority. `host` is the only Host field, or nullptr if there is none.
[[nodiscard]] Fault check_host(Head& head, const Field* host);

// True if an OPTIONS request in absolute-form names neither path nor query: it is forwarded with
// the target "*" (RFC 9112 3.2.4).
[[nodiscard]] bool means_asterisk(const Head& head);

}  // namespace ringway::http1
