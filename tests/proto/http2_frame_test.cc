// tests/proto/http2_frame_test.cc - frame headers, numbers and names of HTTP/2.
#include "proto/http2_frame.h"

#include <doctest/doctest.h>

#include <string>

using namespace std::literals;

namespace ringway::h2 {
namespace {

TEST_CASE("Frame header: the bytes of RFC 9113 4.1, both ways") {
  const std::string bytes = "\x01\x02\x83\x01\x2d\x7f\xfe\x80\x01"s;
  const FrameHeader header = read_frame_header(bytes.data());
  CHECK(header.length == 0x010283);
  CHECK(header.type == static_cast<uint8_t>(FrameType::kHeaders));
  CHECK(header.flags == 0x2d);
  CHECK(header.has(flag::kEndStream));
  CHECK(header.has(flag::kEndHeaders));
  CHECK(header.has(flag::kPadded));
  CHECK(header.has(flag::kPriority));
  CHECK(header.stream == 0x7ffe8001);
  char out[kFrameHeaderBytes];
  write_frame_header(header, out);
  CHECK(std::string(out, sizeof out) == bytes);
}

TEST_CASE("Frame header: the reserved bit is ignored when read, and never written") {
  const std::string bytes = "\xff\xff\xff\xff\xff\xff\xff\xff\xff"s;
  const FrameHeader header = read_frame_header(bytes.data());
  CHECK(header.length == 0xffffff);
  CHECK(header.type == 0xff);
  CHECK(header.stream == 0x7fffffff);
  char out[kFrameHeaderBytes];
  write_frame_header({.length = 0, .type = 0, .flags = 0, .stream = 0x80000003}, out);
  CHECK(std::string(out, sizeof out) == "\0\0\0\0\0\0\0\0\3"s);
}

TEST_CASE("Numbers: big endian, each byte in its place") {
  char out[4];
  write16(out, 0x80fe);
  CHECK(std::string(out, 2) == "\x80\xfe"s);
  CHECK(read16(out) == 0x80fe);
  write32(out, 0x80fe01ff);
  CHECK(std::string(out, 4) == "\x80\xfe\x01\xff"s);
  CHECK(read32(out) == 0x80fe01ff);
}

TEST_CASE("name_of: names of RFC 9113 7, and UNKNOWN for others") {
  CHECK(name_of(ErrorCode::kNoError) == "NO_ERROR"sv);
  CHECK(name_of(ErrorCode::kEnhanceYourCalm) == "ENHANCE_YOUR_CALM"sv);
  CHECK(name_of(ErrorCode::kHttp11Required) == "HTTP_1_1_REQUIRED"sv);
  CHECK(name_of(static_cast<ErrorCode>(14)) == "UNKNOWN"sv);
  CHECK(name_of(static_cast<ErrorCode>(0xffffffff)) == "UNKNOWN"sv);
}

}  // namespace
}  // namespace ringway::h2
