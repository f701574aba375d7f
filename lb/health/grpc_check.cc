// lb/health/grpc_check.cc
#include "lb/health/grpc_check.h"

#include <array>
#include <charconv>
#include <cstdint>
#include <optional>

#include "core/base/check.h"
#include "lb/health/h2_request.h"

namespace ringway {
namespace {

constexpr size_t kPrefixBytes = 5;  // whether it is compressed, and its length
constexpr size_t kMessageTextMax = 200;
constexpr std::array<std::string_view, 17> kStatusNames{
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};
constexpr std::array<std::string_view, 4> kServingNames{"UNKNOWN", "SERVING", "NOT_SERVING",
                                                        "SERVICE_UNKNOWN"};
constexpr uint64_t kServing = 1;

// A varint in front of `bytes`, which loses it; nothing: it is cut or too long.
std::optional<uint64_t> take_varint(std::string_view& bytes) {
  uint64_t number = 0;
  for (uint32_t shift = 0; shift < 64 && !bytes.empty(); shift += 7) {
    const auto byte = static_cast<uint8_t>(bytes.front());
    bytes.remove_prefix(1);
    number |= uint64_t{byte & 0x7fU} << shift;
    if (byte < 0x80) return number;
  }
  return std::nullopt;
}

// One field's value behind its tag.
std::optional<uint64_t> take_value(std::string_view& bytes, uint64_t wire_type) {
  size_t skip = 0;
  switch (wire_type) {
    case 0: return take_varint(bytes);
    case 1: skip = 8; break;
    case 2: {
      const std::optional<uint64_t> length = take_varint(bytes);
      if (!length || *length > bytes.size()) return std::nullopt;
      skip = *length;
      break;
    }
    case 5: skip = 4; break;
    default: return std::nullopt;
  }
  if (skip > bytes.size()) return std::nullopt;
  bytes.remove_prefix(skip);
  return 0;
}

// HealthCheckResponse.status, whose default is 0; nothing: no protobuf message.
std::optional<uint64_t> serving_status(std::string_view message) {
  uint64_t status = 0;
  while (!message.empty()) {
    const std::optional<uint64_t> tag = take_varint(message);
    if (!tag || *tag >> 3 == 0) return std::nullopt;
    const std::optional<uint64_t> value = take_value(message, *tag & 7);
    if (!value) return std::nullopt;
    if (*tag == (1 << 3)) status = *value;  // Field 1, a varint; the last one counts.
  }
  return status;
}

// `text` as a log line may have it: what a peer says goes there.
std::string printable(std::string_view text) {
  std::string clean(text.substr(0, kMessageTextMax));
  for (char& c : clean) {
    if (c < 0x20 || c > 0x7e) c = '?';
  }
  return clean;
}

std::string status_reason(std::string_view value, std::string_view message) {
  uint32_t code = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), code);
  std::string reason = "grpc-status " + printable(value);
  if (error == std::errc() && end == value.data() + value.size() && code < kStatusNames.size()) {
    reason.append(" (").append(kStatusNames[code]).append(")");
  }
  if (!message.empty()) reason += ": " + printable(message);
  return reason;
}

GrpcVerdict message_verdict(std::string_view body) {
  if (body.empty()) return {.reason = "no message in the answer"};
  if (body.size() < kPrefixBytes) return {.reason = "malformed message"};
  if (body[0] != 0) return {.reason = "compressed message, which was not asked for"};
  if (h2::read32(body.data() + 1) != body.size() - kPrefixBytes) {
    return {.reason = "malformed message"};
  }
  const std::optional<uint64_t> status = serving_status(body.substr(kPrefixBytes));
  if (!status) return {.reason = "malformed message"};
  if (*status >= kServingNames.size()) {
    return {.reason = "serving status " + std::to_string(*status)};
  }
  return {.up = *status == kServing, .reason = std::string(kServingNames[*status])};
}

}  // namespace

std::string grpc_check_message(std::string_view service) {
  RW_CHECK(service.size() <= 255);
  std::string message;
  if (!service.empty()) {  // Field 1, a string; proto3 leaves out what is empty.
    message += '\x0a';
    if (service.size() >= 0x80) message += static_cast<char>(0x80 | (service.size() & 0x7f));
    message += static_cast<char>(service.size() >= 0x80 ? service.size() >> 7 : service.size());
    message += service;
  }
  std::string framed(kPrefixBytes, '\0');
  h2::write32(framed.data() + 1, static_cast<uint32_t>(message.size()));
  return framed + message;
}

GrpcVerdict grpc_verdict(std::string_view head, std::string_view body, std::string_view trailers) {
  const std::string_view type = field_of(head, "content-type").value_or("");
  if (!type.starts_with("application/grpc")) {
    return {.reason = "not gRPC: content-type \"" + printable(type) + "\""};
  }
  // An answer without a message may have all of it in its head ("Trailers-Only").
  const bool only = trailers.empty();
  const std::string_view lines = only ? head : trailers;
  const std::optional<std::string_view> status = field_of(lines, "grpc-status");
  if (!status) return {.reason = only ? "no trailers" : "no grpc-status in the trailers"};
  if (*status != "0") {
    return {.reason = status_reason(*status, field_of(lines, "grpc-message").value_or(""))};
  }
  return message_verdict(body);
}

}  // namespace ringway
