// proto/grpc.h - what a gRPC client expects in the place of an error page.
//
// Affinity: none; pure functions.
// Source: gRPC over HTTP/2 (PROTOCOL-HTTP2.md), gRPC's table of HTTP statuses
// (http-grpc-status-mapping.md).
#pragma once

#include <cstdint>
#include <string_view>

namespace ringway::http1 {
class Out;
}  // namespace ringway::http1

namespace ringway::grpc {

// True for "application/grpc", alone or followed by "+..." or parameters. Not for
// "application/grpc-web", whose messages are framed in another way.
[[nodiscard]] bool is_content_type(std::string_view value);

// The code that says what HTTP `status` says. As gRPC's table has it, but for what the table leaves
// at UNKNOWN (2) or calls UNAVAILABLE (14) though we know more: 408 and 504 are
// DEADLINE_EXCEEDED (4), 413 and 431 RESOURCE_EXHAUSTED (8), 500 is INTERNAL (13).
[[nodiscard]] uint8_t code_of(uint16_t status);

// Appends the lines of a response without messages ("Trailers-Only"), each with its CRLF:
// Content-Type, Grpc-Status, and Grpc-Message with `message`, percent-encoded. What does not fit
// makes `out` full.
void put_trailers_only(uint16_t status, std::string_view message, http1::Out& out);

}  // namespace ringway::grpc
