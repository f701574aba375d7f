// tests/fuzz/proxy_header_fuzz.cc - any bytes as the beginning of a connection: what is decided on
// a part stays decided, and what is read can be written again.
#include <cstring>
#include <string_view>
#include <vector>

#include "core/base/check.h"
#include "proto/proxy_header.h"

namespace ringway::proxy {
namespace {

constexpr size_t kMax = 1024;

void check_equal(const Parsed& a, const Parsed& b) {
  RW_CHECK(a.status == b.status);
  RW_CHECK(a.error == b.error);
  RW_CHECK(a.header.length == b.header.length);
  RW_CHECK(a.header.family == b.header.family);
  RW_CHECK(a.header.source.ip == b.header.source.ip);
  RW_CHECK(a.header.source.port == b.header.source.port);
  RW_CHECK(a.header.source.path == b.header.source.path);
  RW_CHECK(a.header.destination.ip == b.header.destination.ip);
  RW_CHECK(a.header.tlvs == b.header.tlvs);
}

void check_cuts(std::string_view in, const Parsed& whole) {
  bool decided = false;
  for (size_t cut = 0; cut <= in.size() && cut <= 2 * kMax; ++cut) {
    const std::vector<char> part(in.begin(), in.begin() + static_cast<std::ptrdiff_t>(cut));
    const Parsed some = parse({part.data(), part.size()}, kMax);
    RW_CHECK(!decided || some.status != Status::kNeedMore);
    if (some.status == Status::kNeedMore) continue;
    decided = true;
    check_equal(some, whole);
  }
  RW_CHECK(decided == (whole.status != Status::kNeedMore) || in.size() > 2 * kMax);
}

// What is read of any bytes as an SSL TLV can be written again, if it is one.
void check_ssl(std::string_view value) {
  Ssl ssl;
  if (!read_ssl(value, ssl)) return;
  RW_CHECK(!ssl.verified || ssl.certificate_in_session);
  char out[2 * kMax];
  const std::string_view again = write_ssl(ssl, out);
  RW_CHECK(!again.empty());
  Ssl second;
  RW_CHECK(read_ssl(again, second));
  RW_CHECK(second.certificate == ssl.certificate && second.verified == ssl.verified);
  RW_CHECK(second.version == ssl.version && second.common_name == ssl.common_name);
  RW_CHECK(second.cipher == ssl.cipher && second.key == ssl.key);
}

void check_header(std::string_view in, const Header& header) {
  RW_CHECK(header.length <= in.size() && header.length <= kMax);
  RW_CHECK(header.version == 2 || header.length <= kV1BytesMax);
  RW_CHECK(!header.local || header.tlvs.empty());
  TlvReader reader(header.tlvs);
  Tlv type{};
  std::string_view value;
  while (reader.next(type, value)) {
    RW_CHECK(value.data() + value.size() <= in.data() + header.length);
    check_ssl(value);
    if (type != Tlv::kSsl || value.size() < 5) continue;
    TlvReader inner(value.substr(5));
    while (inner.next(type, value)) RW_CHECK(value.data() + value.size() <= in.data() + in.size());
  }
  RW_CHECK(!reader.malformed());
  std::string_view custom;  // one of them, with its head
  TlvReader again_reader(header.tlvs);
  while (custom.empty() && again_reader.next(type, value)) {
    if (is_custom(type)) custom = {value.data() - 3, value.size() + 3};
  }
  char out[2 * kMax];
  const Plan plan{.local = header.local,
                  .family = header.family,
                  .source = header.source,
                  .destination = header.destination,
                  .authority = find_tlv(header.tlvs, Tlv::kAuthority),
                  .unique_id = find_tlv(header.tlvs, Tlv::kUniqueId),
                  .netns = find_tlv(header.tlvs, Tlv::kNetns),
                  .custom = custom,
                  .checksum = true};
  const Parsed again = parse(write_v2(plan, out), sizeof out);
  RW_CHECK(again.status == Status::kDone && again.header.checksum);
  const bool ip = header.family == Family::kIPv4 || header.family == Family::kIPv6;
  RW_CHECK(again.header.family == (ip ? header.family : Family::kUnspecified));
  if (ip) RW_CHECK(again.header.source.ip == header.source.ip);
  RW_CHECK(custom.empty() || again.header.tlvs.find(custom) != std::string_view::npos);
  const Parsed line = parse(write_v1(plan, out), sizeof out);
  RW_CHECK(line.status == Status::kDone);
  if (ip) RW_CHECK(line.header.destination.ip == header.destination.ip);
}

}  // namespace
}  // namespace ringway::proxy

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ringway::proxy;
  const std::string_view in(reinterpret_cast<const char*>(data), size);
  const Parsed whole = parse(in, kMax);
  check_cuts(in, whole);
  if (whole.status == Status::kDone) check_header(in, whole.header);
  return 0;
}
