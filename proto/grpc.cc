// proto/grpc.cc - see grpc.h.
#include "proto/grpc.h"

#include "proto/http1_write.h"

namespace ringway::grpc {
namespace {

constexpr std::string_view kType = "application/grpc";

// Everything but printable ASCII without "%" is encoded (PROTOCOL-HTTP2.md, Percent-Byte-Encoded).
void put_encoded(std::string_view text, http1::Out& out) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  for (const char& c : text) {
    if (c >= ' ' && c <= '~' && c != '%') {
      out.put({&c, 1});
      continue;
    }
    const auto byte = static_cast<uint8_t>(c);
    const char encoded[] = {'%', kDigits[byte >> 4], kDigits[byte & 15]};
    out.put({encoded, sizeof encoded});
  }
}

}  // namespace

bool is_content_type(std::string_view value) {
  if (value.size() < kType.size()) return false;
  for (size_t i = 0; i < kType.size(); ++i) {
    const char c = value[i];
    if ((c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c) != kType[i]) return false;
  }
  if (value.size() == kType.size()) return true;
  return std::string_view("+; \t").find(value[kType.size()]) != std::string_view::npos;
}

uint8_t code_of(uint16_t status) {
  switch (status) {
    case 400:
    case 500: return 13;  // INTERNAL
    case 401: return 16;  // UNAUTHENTICATED
    case 403: return 7;   // PERMISSION_DENIED
    case 404: return 12;  // UNIMPLEMENTED
    case 408:
    case 504: return 4;  // DEADLINE_EXCEEDED
    case 413:
    case 431: return 8;  // RESOURCE_EXHAUSTED
    case 429:
    case 502:
    case 503: return 14;  // UNAVAILABLE
    default: return 2;    // UNKNOWN
  }
}

void put_trailers_only(uint16_t status, std::string_view message, http1::Out& out) {
  out.put("Content-Type: application/grpc\r\nGrpc-Status: ");
  out.put_number(code_of(status));
  out.put("\r\nGrpc-Message: ");
  put_encoded(message, out);
  out.put("\r\n");
}

}  // namespace ringway::grpc
