// tests/fuzz/h2_frames_fuzz.cc - any bytes as what an HTTP/2 client sends.
//
// Whatever comes, the session says and sends the same however the bytes were cut, and says nothing
// any more once it has ended the connection.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "tests/support/h2_answers.h"

namespace ringway::h2 {
namespace {

constexpr SessionLimits kLimits{.max_streams = 8,
                                .stream_window = 64 * 1024,
                                .connection_window = 128 * 1024,
                                .resets = {.count = 20},
                                .control = {.count = 50},
                                .head = {.header_bytes = 8192, .fields = 32, .uri_bytes = 1024},
                                .websocket = true};

void check(std::string_view bytes) {
  Answers whole(kLimits);
  whole.feed(bytes);
  const bool dead = whole.session.dead();
  RW_CHECK(dead == (whole.said.find("fatal ") != std::string::npos));
  Answers cut(kLimits);
  size_t step = 1;
  for (size_t at = 0; at < bytes.size(); at += step) {
    step = 1 + (static_cast<uint8_t>(bytes[at]) * 7U + at) % 13;
    cut.feed(bytes.substr(at, step));
  }
  RW_CHECK(cut.said == whole.said);
  RW_CHECK(cut.sent == whole.sent);
}

}  // namespace
}  // namespace ringway::h2

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  ringway::h2::check(bytes);
  // Most of what is drawn does not begin as a connection does.
  std::string begun(ringway::h2::kPreface);
  begun.append({0, 0, 0, 4, 0, 0, 0, 0, 0});
  ringway::h2::check(begun + bytes);
  return 0;
}
