// proto/http2_frame.cc
#include "proto/http2_frame.h"

namespace ringway::h2 {
namespace {

uint32_t byte_at(const char* at) {
  return static_cast<uint8_t>(*at);
}

}  // namespace

std::string_view name_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kNoError: return "NO_ERROR";
    case ErrorCode::kProtocolError: return "PROTOCOL_ERROR";
    case ErrorCode::kInternalError: return "INTERNAL_ERROR";
    case ErrorCode::kFlowControlError: return "FLOW_CONTROL_ERROR";
    case ErrorCode::kSettingsTimeout: return "SETTINGS_TIMEOUT";
    case ErrorCode::kStreamClosed: return "STREAM_CLOSED";
    case ErrorCode::kFrameSizeError: return "FRAME_SIZE_ERROR";
    case ErrorCode::kRefusedStream: return "REFUSED_STREAM";
    case ErrorCode::kCancel: return "CANCEL";
    case ErrorCode::kCompressionError: return "COMPRESSION_ERROR";
    case ErrorCode::kConnectError: return "CONNECT_ERROR";
    case ErrorCode::kEnhanceYourCalm: return "ENHANCE_YOUR_CALM";
    case ErrorCode::kInadequateSecurity: return "INADEQUATE_SECURITY";
    case ErrorCode::kHttp11Required: return "HTTP_1_1_REQUIRED";
  }
  return "UNKNOWN";
}

uint16_t read16(const char* at) {
  return static_cast<uint16_t>(byte_at(at) << 8 | byte_at(at + 1));
}

uint32_t read32(const char* at) {
  return byte_at(at) << 24 | byte_at(at + 1) << 16 | byte_at(at + 2) << 8 | byte_at(at + 3);
}

void write16(char* to, uint16_t number) {
  to[0] = static_cast<char>(number >> 8);
  to[1] = static_cast<char>(number);
}

void write32(char* to, uint32_t number) {
  write16(to, static_cast<uint16_t>(number >> 16));
  write16(to + 2, static_cast<uint16_t>(number));
}

// RFC 9113 4.1: 24 bits of length, type, flags, a reserved bit that is ignored, 31 of stream.
FrameHeader read_frame_header(const char* at) {
  return {.length = byte_at(at) << 16 | byte_at(at + 1) << 8 | byte_at(at + 2),
          .type = static_cast<uint8_t>(at[3]),
          .flags = static_cast<uint8_t>(at[4]),
          .stream = read32(at + 5) & 0x7fff'ffff};
}

void write_frame_header(const FrameHeader& header, char* to) {
  to[0] = static_cast<char>(header.length >> 16);
  write16(to + 1, static_cast<uint16_t>(header.length));
  to[3] = static_cast<char>(header.type);
  to[4] = static_cast<char>(header.flags);
  write32(to + 5, header.stream & 0x7fff'ffff);
}

}  // namespace ringway::h2
