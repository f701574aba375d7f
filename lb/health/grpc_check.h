// lb/health/grpc_check.h - grpc.health.v1.Health/Check: its request, and what an answer says.
//
// Affinity:  pure functions, any thread.
// Source:    the protocols "gRPC over HTTP/2" and "gRPC Health Checking"; protobuf encoding.
#pragma once

#include <string>
#include <string_view>

namespace ringway {

inline constexpr std::string_view kGrpcCheckPath = "/grpc.health.v1.Health/Check";

// The length-prefixed HealthCheckRequest; an empty `service` asks for the server as a whole.
// REQUIRES: service.size() <= 255.
[[nodiscard]] std::string grpc_check_message(std::string_view service);

struct GrpcVerdict {
  bool up = false;
  std::string reason;  // "SERVING", "NOT_SERVING", "grpc-status 5 (NOT_FOUND)", "no trailers", ...
};

// A complete answer with status 200. `head` and `trailers` are lines as of h2::HeadBuilder; `body`
// is all of it, or as much as can matter.
[[nodiscard]] GrpcVerdict grpc_verdict(std::string_view head, std::string_view body,
                                       std::string_view trailers);

}  // namespace ringway
