// tests/fuzz/client_hello_fuzz.cc - any bytes as the beginning of a TLS connection: what is decided
// on a part stays decided, and how a message is cut into records does not matter.
#include <string>
#include <string_view>
#include <vector>

#include "core/base/check.h"
#include "proto/client_hello.h"

namespace ringway::tls {
namespace {

constexpr size_t kMax = 2048;

struct Read {
  HelloStatus status = HelloStatus::kNeedMore;
  std::string server_name;
  std::string alpn;
  bool operator==(const Read&) const = default;
};

Read read(std::string_view bytes, size_t max) {
  const std::vector<char> copy(bytes.begin(), bytes.end());
  std::vector<char> scratch(max);
  const ClientHello hello = parse_client_hello({copy.data(), copy.size()}, max, scratch);
  AlpnReader reader(hello.alpn);
  std::string_view protocol;
  size_t length = 0;
  while (reader.next(protocol)) length += 1 + protocol.size();
  RW_CHECK(length == hello.alpn.size());
  RW_CHECK(hello.status == HelloStatus::kDone || (length == 0 && hello.server_name.empty()));
  return {hello.status, std::string(hello.server_name), std::string(hello.alpn)};
}

void check_cuts(std::string_view in) {
  const Read whole = read(in, kMax);
  bool decided = false;
  for (size_t cut = 0; cut <= in.size(); ++cut) {
    const Read some = read(in.substr(0, cut), kMax);
    RW_CHECK(!decided || some.status != HelloStatus::kNeedMore);
    if (some.status == HelloStatus::kNeedMore) continue;
    decided = true;
    RW_CHECK(some == whole);
  }
  RW_CHECK(decided == (whole.status != HelloStatus::kNeedMore));
}

// The input as a handshake message, in records of several sizes.
void check_records(std::string_view message) {
  if (message.empty()) return;
  Read first;
  for (const size_t bytes : {size_t{16384}, size_t{1}, size_t{3}, size_t{200}}) {
    std::string stream;
    for (size_t at = 0; at < message.size(); at += bytes) {
      const std::string_view part = message.substr(at, bytes);
      stream += "\x16\x03\x01";
      stream += static_cast<char>(part.size() >> 8);
      stream += static_cast<char>(part.size());
      stream += part;
    }
    const Read read_so = read(stream, 64 * 1024);
    if (bytes == 16384) first = read_so;
    RW_CHECK(read_so == first);
  }
}

}  // namespace
}  // namespace ringway::tls

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view in(reinterpret_cast<const char*>(data), size);
  ringway::tls::check_cuts(in);
  ringway::tls::check_records(in);
  if (in.size() > 5) ringway::tls::check_records(in.substr(5));
  return 0;
}
