// tests/proto/proxy_header_test.cc - the PROXY protocol, both versions: read at every cut, written.
#include "proto/proxy_header.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace ringway::proxy;

namespace {

constexpr size_t kMax = 4096;

std::string text_of(const char* bytes, size_t length) {
  return {bytes, length};
}
#define BYTES(literal) text_of(literal, sizeof(literal) - 1)

const std::string kSignature = BYTES("\r\n\r\n\0\r\nQUIT\n");

std::string number(size_t value) {
  return {static_cast<char>(value >> 8), static_cast<char>(value)};
}
std::string tlv(uint8_t type, const std::string& value) {
  return std::string(1, static_cast<char>(type)) + number(value.size()) + value;
}
// A header of version 2 from its parts.
std::string v2(uint8_t command, uint8_t family, const std::string& block) {
  return kSignature + static_cast<char>(command) + static_cast<char>(family) +
         number(block.size()) + block;
}
const std::string kIPv4Block = BYTES("\x0a\x01\x02\x03\xc0\xa8\x00\x09\x30\x39\x01\xbb");

// The same at once and with any number of bytes at first: what is decided stays decided. The result
// of the whole.
Parsed parse_cut(const std::string& bytes, size_t max = kMax) {
  const Parsed whole = parse(bytes, max);
  bool decided = false;
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    // A copy of its own: a read beyond its end would be seen.
    const std::vector<char> part(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(cut));
    const Parsed some = parse({part.data(), part.size()}, max);
    INFO("cut at " << cut);
    if (some.status == Status::kNeedMore) {
      CHECK_FALSE(decided);
      continue;
    }
    decided = true;
    CHECK(some.status == whole.status);
    CHECK(some.error == whole.error);
    CHECK(some.header.length == whole.header.length);
    CHECK(some.header.family == whole.header.family);
    CHECK(some.header.source.ip == whole.header.source.ip);
    CHECK(some.header.destination.port == whole.header.destination.port);
    CHECK(some.header.tlvs == whole.header.tlvs);
  }
  return whole;
}

std::array<uint8_t, 16> ip(std::initializer_list<int> bytes) {
  std::array<uint8_t, 16> out{};
  size_t at = 0;
  for (const int byte : bytes) out[at++] = static_cast<uint8_t>(byte);
  return out;
}

}  // namespace

TEST_CASE("proxy v1: TCP4 and TCP6 -> both ends, and what follows is left alone") {
  const std::string line = "PROXY TCP4 10.1.2.3 192.168.0.9 12345 443\r\n";
  const Parsed four = parse_cut(line + "GET / HTTP/1.1\r\n");
  REQUIRE(four.status == Status::kDone);
  CHECK(four.header.version == 1);
  CHECK(four.header.length == line.size());
  CHECK(four.header.family == Family::kIPv4);
  CHECK(four.header.source.ip == ip({10, 1, 2, 3}));
  CHECK(four.header.source.port == 12345);
  CHECK(four.header.destination.ip == ip({192, 168, 0, 9}));
  CHECK(four.header.destination.port == 443);

  const Parsed six = parse_cut("PROXY TCP6 2001:db8::1 ::1 0 65535\r\n");
  REQUIRE(six.status == Status::kDone);
  CHECK(six.header.family == Family::kIPv6);
  CHECK(six.header.source.ip == ip({0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}));
  CHECK(six.header.source.port == 0);
  CHECK(six.header.destination.port == 65535);
}

TEST_CASE("proxy v1: UNKNOWN -> the connection's own addresses, whatever follows in the line") {
  for (const std::string& line : {std::string("PROXY UNKNOWN\r\n"),
                                  "PROXY UNKNOWN ffff:f...f:ffff x 65535 65535\r\n" + std::string(),
                                  "PROXY UNKNOWN " + std::string(107 - 16, 'x') + "\r\n"}) {
    const Parsed parsed = parse_cut(line);
    REQUIRE(parsed.status == Status::kDone);
    CHECK(parsed.header.family == Family::kUnspecified);
    CHECK(parsed.header.length == line.size());
  }
}

TEST_CASE("proxy v1: what the specification does not allow -> an error, never a guess") {
  for (const char* rest :
       {"TCP4 10.1.2.3 192.168.0.9 12345\r\n", "TCP4 10.1.2.3 192.168.0.9 12345 443 \r\n",
        "TCP4 10.1.2.3  192.168.0.9 12345 443\r\n", "TCP4 10.1.2.3 192.168.0.9 12345 443 1\r\n",
        "TCP4 10.1.2.256 192.168.0.9 1 2\r\n", "TCP4 10.1.2.03 192.168.0.9 1 2\r\n",
        "TCP4 10.1.2 192.168.0.9 1 2\r\n", "TCP4 ::1 ::1 1 2\r\n", "TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
        "TCP6 fe80::1%1 ::1 1 2\r\n", "TCP4 10.1.2.3 192.168.0.9 65536 443\r\n",
        "TCP4 10.1.2.3 192.168.0.9 01 443\r\n", "TCP4 10.1.2.3 192.168.0.9 1 +2\r\n",
        "TCP4 10.1.2.3 192.168.0.9 1 -2\r\n", "TCP4 10.1.2.3 192.168.0.9  2\r\n", "TCP4\r\n",
        "TCP4 \r\n", "TCP4 10.1.2.3 192.168.0.9 1 2\r\r\n", "TCP4 10.1.2.3 192.168.0.9 1 2\rx"}) {
    CAPTURE(rest);
    const Parsed parsed = parse_cut("PROXY " + std::string(rest));
    CHECK(parsed.status == Status::kError);
    CHECK(parsed.error == Error::kMalformed);
  }
  for (const char* rest : {"UDP4 1.1.1.1 1.1.1.1 1 1\r\n", "tcp4 1.1.1.1 1.1.1.1 1 1\r\n"}) {
    CHECK(parse_cut("PROXY " + std::string(rest)).error == Error::kUnsupported);
  }
  CHECK(parse_cut("PROXY " + std::string(101, 'x')).error == Error::kTooLong);
  CHECK(parse_cut("PROXY " + std::string(100, 'x') + "\r\n").error == Error::kTooLong);
  CHECK(parse_cut("PROXY " + std::string(100, 'x')).status == Status::kNeedMore);
}

TEST_CASE("proxy: anything but a signature -> absent at its first wrong byte") {
  CHECK(parse("", kMax).status == Status::kNeedMore);
  CHECK_FALSE(parse("PROXY", kMax).begun);
  CHECK(parse("PROXY ", kMax).begun);
  for (const std::string& bytes :
       {BYTES("GET / HTTP/1.1\r\n\r\n"), BYTES("PROXy "), BYTES("PROXY\t"),
        BYTES("POST / HTTP/1.1"), BYTES("\r\n\r\n\r\n"), BYTES("\r\n\r\n\0\r\nQUIT\r"),
        BYTES("\x16\x03\x01")}) {
    CHECK(parse_cut(bytes).status == Status::kAbsent);
  }
}

TEST_CASE("proxy v2: addresses of every family") {
  const Parsed four = parse_cut(v2(0x21, 0x11, kIPv4Block) + "rest");
  REQUIRE(four.status == Status::kDone);
  CHECK(four.header.version == 2);
  CHECK(four.header.length == 28);
  CHECK_FALSE(four.header.local);
  CHECK_FALSE(four.header.datagram);
  CHECK(four.header.source.ip == ip({10, 1, 2, 3}));
  CHECK(four.header.source.port == 12345);
  CHECK(four.header.destination.ip == ip({192, 168, 0, 9}));
  CHECK(four.header.destination.port == 443);
  CHECK(parse_cut(v2(0x21, 0x12, kIPv4Block)).header.datagram);

  const std::string block =
      std::string(15, '\0') + '\1' + std::string(15, '\0') + '\2' + number(1) + number(2);
  const Parsed six = parse_cut(v2(0x21, 0x21, block));
  REQUIRE(six.status == Status::kDone);
  CHECK(six.header.family == Family::kIPv6);
  CHECK(six.header.destination.ip[15] == 2);
  CHECK(six.header.destination.port == 2);

  std::string paths(216, '\0');
  paths.replace(0, 6, "/run/a");
  paths.replace(109, 3, "abc");  // behind a NUL: abstract
  const std::string sockets = v2(0x21, 0x31, paths + tlv(4, "pad"));
  const Parsed unix = parse_cut(sockets);
  CHECK(unix.header.family == Family::kUnix);
  // parse_cut() gave the whole from `sockets`, so the views are good.
  const Parsed again = parse(sockets, kMax);
  CHECK(again.header.source.path == "/run/a");
  CHECK(again.header.destination.path == BYTES("\0abc"));
  CHECK(again.header.tlvs.size() == 6);

  const Parsed unknown = parse_cut(v2(0x21, 0x00, ""));
  REQUIRE(unknown.status == Status::kDone);
  CHECK(unknown.header.family == Family::kUnspecified);
}

TEST_CASE("proxy v2: LOCAL -> the block is ignored, whatever its family and bytes are") {
  for (const std::string& bytes :
       {v2(0x20, 0x00, ""), v2(0x20, 0x11, kIPv4Block), v2(0x20, 0x11, "ab"),
        v2(0x20, 0xff, "junk of any kind"), v2(0x20, 0x00, BYTES("\x05\xff\xffz"))}) {
    const Parsed parsed = parse_cut(bytes + "x");
    REQUIRE(parsed.status == Status::kDone);
    CHECK(parsed.header.local);
    CHECK(parsed.header.family == Family::kUnspecified);
    CHECK(parsed.header.length == bytes.size());
  }
}

TEST_CASE("proxy v2: what does not exist, or does not fit -> an error as early as it shows") {
  CHECK(parse_cut(v2(0x11, 0x11, kIPv4Block)).error == Error::kUnsupported);
  CHECK(parse_cut(v2(0x31, 0x11, kIPv4Block)).error == Error::kUnsupported);
  CHECK(parse_cut(v2(0x22, 0x11, kIPv4Block)).error == Error::kUnsupported);
  for (const uint8_t family : {0x01, 0x10, 0x13, 0x41, 0xf1, 0x30}) {
    CHECK(parse_cut(v2(0x21, family, kIPv4Block)).error == Error::kUnsupported);
  }
  CHECK(parse_cut(v2(0x21, 0x11, kIPv4Block.substr(1))).error == Error::kMalformed);
  CHECK(parse_cut(v2(0x21, 0x21, kIPv4Block)).error == Error::kMalformed);
  CHECK(parse_cut(v2(0x21, 0x31, std::string(215, 'x'))).error == Error::kMalformed);
  // Too long is known from the length field alone.
  const std::string fixed = kSignature + BYTES("\x21\x11\x10\x00");
  CHECK(parse_cut(fixed, 4096).error == Error::kTooLong);
  CHECK(parse_cut(fixed, 4112).status == Status::kNeedMore);
}

TEST_CASE("proxy v2: TLVs -> found by type; broken ones are an error") {
  const std::string good =
      v2(0x21, 0x11,
         kIPv4Block + tlv(1, "h2") + tlv(2, "a.example") + tlv(0xee, "custom") + tlv(4, ""));
  const Parsed parsed = parse_cut(good);
  REQUIRE(parsed.status == Status::kDone);
  const std::string_view tlvs = parse(good, kMax).header.tlvs;
  CHECK(find_tlv(tlvs, Tlv::kAlpn) == "h2");
  CHECK(find_tlv(tlvs, Tlv::kAuthority) == "a.example");
  CHECK(find_tlv(tlvs, Tlv::kUniqueId).empty());
  CHECK_FALSE(parsed.header.checksum);
  for (const std::string& bad :
       {BYTES("\x01"), BYTES("\x01\x00"), BYTES("\x01\x00\x02z"), tlv(3, "abc"), tlv(3, "abcde"),
        tlv(5, std::string(129, 'u')), tlv(1, "h2") + "x"}) {
    CHECK(parse_cut(v2(0x21, 0x11, kIPv4Block + bad)).error == Error::kMalformed);
  }
}

TEST_CASE("proxy v2: CRC32C -> right, wrong by any bit of the header, or there twice") {
  CHECK(crc32c("123456789") == 0xe306'9283U);
  CHECK(crc32c("6789", crc32c("12345")) == 0xe306'9283U);
  // Behind another TLV and before one: it covers all of the header.
  std::string header =
      v2(0x21, 0x11, kIPv4Block + tlv(2, "name") + tlv(3, std::string(4, '\0')) + tlv(4, "end"));
  const uint32_t crc = crc32c(header);
  const size_t at = header.size() - 6 - 4;
  header.replace(at, 4, number(crc >> 16) + number(crc & 0xffff));
  const Parsed right = parse_cut(header + "more");
  REQUIRE(right.status == Status::kDone);
  CHECK(right.header.checksum);
  const size_t addresses = 16;
  for (size_t byte = addresses; byte < header.size(); ++byte) {
    if (byte >= 28 && byte < 31) continue;  // Type and length of a TLV: may be malformed instead.
    if (byte >= 35 && byte < 38) continue;
    if (byte >= 42 && byte < 45) continue;
    for (int bit = 0; bit < 8; ++bit) {
      std::string wrong = header;
      wrong[byte] = static_cast<char>(wrong[byte] ^ (1 << bit));
      CHECK(parse(wrong, kMax).error == Error::kChecksum);
    }
  }
  std::string local = v2(0x20, 0x00, tlv(3, "abcd"));
  CHECK(parse_cut(local).error == Error::kChecksum);
  CHECK(parse_cut(v2(0x21, 0x11, kIPv4Block + tlv(3, "abcd") + tlv(3, "abcd"))).error ==
        Error::kMalformed);
}

TEST_CASE("proxy: written headers -> read back as they were meant") {
  std::array<char, 1024> out;
  Plan plan{.family = Family::kIPv4,
            .source = {.ip = ip({10, 1, 2, 3}), .port = 12345},
            .destination = {.ip = ip({192, 168, 0, 9}), .port = 443}};
  CHECK(write_v1(plan, out) == "PROXY TCP4 10.1.2.3 192.168.0.9 12345 443\r\n");
  CHECK(write_v2(plan, out) == v2(0x21, 0x11, kIPv4Block));
  std::array<char, 256> inner;
  plan.ssl = write_ssl({.certificate = true,
                        .verified = true,
                        .version = "TLSv1.3",
                        .common_name = "client",
                        .cipher = "X",
                        .signature = "S",
                        .key = "K"},
                       inner);
  REQUIRE(plan.ssl.size() == 5 + 10 + 9 + 4 + 4 + 4);
  CHECK(plan.ssl.substr(0, 5) == BYTES("\x03\0\0\0\0"));
  CHECK(find_tlv(plan.ssl.substr(5), Tlv::kSslCn) == "client");
  plan.alpn = "h2";
  plan.authority = "a.example";
  plan.unique_id = "id";
  plan.checksum = true;
  const Parsed parsed = parse_cut(std::string(write_v2(plan, out)) + "x");
  REQUIRE(parsed.status == Status::kDone);
  CHECK(parsed.header.checksum);
  const std::string_view written = write_v2(plan, out);
  const std::string_view tlvs = parse(written, kMax).header.tlvs;
  CHECK(find_tlv(tlvs, Tlv::kAlpn) == "h2");
  CHECK(find_tlv(tlvs, Tlv::kAuthority) == "a.example");
  CHECK(find_tlv(tlvs, Tlv::kUniqueId) == "id");
  CHECK(find_tlv(tlvs, Tlv::kSsl) == plan.ssl);

  plan.local = true;
  CHECK(write_v1(plan, out) == "PROXY UNKNOWN\r\n");
  CHECK(write_v2({.local = true}, out) == v2(0x20, 0x00, ""));
  CHECK(write_v2({}, out) == v2(0x21, 0x00, ""));
  Plan six{.family = Family::kIPv6};
  six.source.ip.fill(0xff);
  six.destination.ip.fill(0xff);
  six.source.port = six.destination.port = 65535;
  CHECK(write_v1(six, out).size() == 104);  // No longer one exists but UNKNOWN with text.
  CHECK(parse_cut(std::string(write_v1(six, out))).header.source.ip == six.source.ip);
}

TEST_CASE("proxy v2: NETNS and custom TLVs -> written behind the others, under the checksum") {
  std::array<char, 256> out;
  const std::string custom = tlv(0xe0, "abc") + tlv(0xea, "\x01vpce-1") + tlv(0xef, "z");
  const Plan plan{.alpn = "h2", .netns = "blue", .custom = custom, .checksum = true};
  const Parsed parsed = parse_cut(std::string(write_v2(plan, out)));
  REQUIRE(parsed.status == Status::kDone);
  CHECK(parsed.header.checksum);
  const std::string_view written = write_v2(plan, out);
  const std::string_view tlvs = parse(written, kMax).header.tlvs;
  CHECK(tlvs.substr(0, tlvs.size() - 7) == tlv(1, "h2") + tlv(0x30, "blue") + custom);
  std::string_view value;
  CHECK(has_tlv(tlvs, Tlv::kAws, value));
  CHECK(value == "\x01vpce-1");
  CHECK_FALSE(has_tlv(tlvs, Tlv::kAuthority, value));
  CHECK(is_custom(Tlv{0xe0}));
  CHECK(is_custom(Tlv{0xef}));
  CHECK_FALSE(is_custom(Tlv{0xdf}));
  CHECK_FALSE(is_custom(Tlv{0xf0}));
}

TEST_CASE("proxy v2: the SSL TLV -> what it says of the client, or nothing") {
  std::array<char, 256> out;
  Ssl read;
  for (const unsigned flags : {0U, 1U, 2U, 3U, 6U, 7U}) {
    CAPTURE(flags);
    const Ssl said{.certificate = (flags & 1U) != 0,
                   .certificate_in_session = (flags & 3U) != 0,
                   .verified = (flags & 3U) != 0 && (flags & 4U) != 0,
                   .version = "TLSv1.3",
                   .common_name = "client",
                   .cipher = "X",
                   .signature = "S",
                   .key = "K"};
    REQUIRE(read_ssl(write_ssl(said, out), read));
    CHECK(read.certificate == said.certificate);
    CHECK(read.certificate_in_session == said.certificate_in_session);
    CHECK(read.verified == said.verified);
    CHECK(read.version == "TLSv1.3");
    CHECK(read.common_name == "client");
    CHECK(read.cipher == "X");
    CHECK(read.signature == "S");
    CHECK(read.key == "K");
  }
  // Any of the four bytes says that the certificate was not verified.
  for (size_t i = 1; i < 5; ++i) {
    std::string value = BYTES("\x03\0\0\0\0");
    value[i] = 1;
    REQUIRE(read_ssl(value, read));
    CHECK_FALSE(read.verified);
  }
  // Verify is 0 although there was no certificate: nothing was verified.
  REQUIRE(read_ssl(BYTES("\x01\0\0\0\0"), read));
  CHECK_FALSE(read.verified);
  CHECK(read.version.empty());
  CHECK_FALSE(read_ssl(BYTES("\0\0\0\0\0"), read));  // No TLS at all.
  CHECK_FALSE(read_ssl(BYTES("\x01\0\0\0"), read));
  CHECK_FALSE(read_ssl(BYTES("\x01\0\0\0\0\x21\0\x02x"), read));
}

TEST_CASE("proxy: no room -> nothing is written") {
  std::array<char, 1024> out;
  Plan plan{.family = Family::kIPv6, .authority = "a.example", .checksum = true};
  const size_t length = write_v2(plan, out).size();
  for (size_t room = 0; room < length; ++room) {
    CHECK(write_v2(plan, std::span(out).first(room)).empty());
  }
  CHECK(write_v2(plan, std::span(out).first(length)).size() == length);
  CHECK(write_v1(plan, std::span(out).first(10)).empty());
}
