// proto/http2_frame.h - HTTP/2 frames: headers read and written, numbers and names of the protocol.
//
// Affinity:  pure functions, any thread.
// Source:    RFC 9113 4, 6, 7; RFC 9218 7.1 (PRIORITY_UPDATE); RFC 8441 (extended CONNECT).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace ringway::h2 {

inline constexpr size_t kFrameHeaderBytes = 9;
// What a peer may send in one frame; we never announce more.
inline constexpr uint32_t kFrameBytesMax = 16'384;
inline constexpr uint32_t kWindowMax = 0x7fff'ffff;
inline constexpr uint32_t kWindowInitial = 65'535;
// What a client sends first.
inline constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

enum class FrameType : uint8_t {
  kData = 0,
  kHeaders = 1,
  kPriority = 2,
  kRstStream = 3,
  kSettings = 4,
  kPushPromise = 5,
  kPing = 6,
  kGoaway = 7,
  kWindowUpdate = 8,
  kContinuation = 9,
  kPriorityUpdate = 16
};

namespace flag {
inline constexpr uint8_t kAck = 0x1;        // SETTINGS, PING
inline constexpr uint8_t kEndStream = 0x1;  // DATA, HEADERS
inline constexpr uint8_t kEndHeaders = 0x4;
inline constexpr uint8_t kPadded = 0x8;
inline constexpr uint8_t kPriority = 0x20;
}  // namespace flag

enum class ErrorCode : uint32_t {
  kNoError = 0,
  kProtocolError = 1,
  kInternalError = 2,
  kFlowControlError = 3,
  kSettingsTimeout = 4,
  kStreamClosed = 5,
  kFrameSizeError = 6,
  kRefusedStream = 7,
  kCancel = 8,
  kCompressionError = 9,
  kConnectError = 10,
  kEnhanceYourCalm = 11,
  kInadequateSecurity = 12,
  kHttp11Required = 13
};
// "PROTOCOL_ERROR"; "UNKNOWN" for a number without a name. Static text.
[[nodiscard]] std::string_view name_of(ErrorCode code);

enum class Setting : uint16_t {
  kHeaderTableSize = 1,
  kEnablePush = 2,
  kMaxConcurrentStreams = 3,
  kInitialWindowSize = 4,
  kMaxFrameSize = 5,
  kMaxHeaderListSize = 6,
  kEnableConnectProtocol = 8,
  kNoRfc7540Priorities = 9
};

struct FrameHeader {
  uint32_t length = 0;  // of the payload
  uint8_t type = 0;     // a FrameType, or unknown
  uint8_t flags = 0;
  uint32_t stream = 0;  // without the reserved bit

  [[nodiscard]] bool has(uint8_t bit) const { return (flags & bit) != 0; }
};

// Big endian numbers. REQUIRES: so many bytes are there.
[[nodiscard]] uint16_t read16(const char* at);
[[nodiscard]] uint32_t read32(const char* at);
void write16(char* to, uint16_t number);
void write32(char* to, uint32_t number);

// REQUIRES: kFrameHeaderBytes at `at`.
[[nodiscard]] FrameHeader read_frame_header(const char* at);
void write_frame_header(const FrameHeader& header, char* to);

}  // namespace ringway::h2
