// proto/proxy_header.cc
#include "proto/proxy_header.h"

#include <arpa/inet.h>
#include <string.h>

#include <algorithm>
#include <charconv>

#include "core/base/check.h"

namespace ringway::proxy {
namespace {

constexpr std::string_view kV1Signature = "PROXY ";
constexpr std::string_view kV2Signature{"\r\n\r\n\0\r\nQUIT\n", 12};
constexpr size_t kUnixPathBytes = 108;

uint8_t byte_at(std::string_view bytes, size_t at) {
  return static_cast<uint8_t>(bytes[at]);
}

uint16_t number_at(std::string_view bytes, size_t at) {
  return static_cast<uint16_t>(byte_at(bytes, at) << 8 | byte_at(bytes, at + 1));
}

Parsed fail(Error error) {
  return {.status = Status::kError, .error = error};
}

constexpr std::array<uint32_t, 256> kCrcTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1U) != 0 ? crc >> 1 ^ 0x82f6'3b78U : crc >> 1;
    table[i] = crc;
  }
  return table;
}();

// ---- Version 1 ----

// The text up to the next blank, which is taken too. An empty one is malformed anywhere.
std::string_view take_word(std::string_view& line) {
  const size_t blank = line.find(' ');
  const std::string_view word = line.substr(0, blank);
  line.remove_prefix(blank == std::string_view::npos ? line.size() : blank + 1);
  return word;
}

bool read_ip(std::string_view text, int family, Endpoint& out) {
  char copy[INET6_ADDRSTRLEN];
  if (text.size() >= sizeof copy || text.find('\0') != std::string_view::npos) return false;
  memcpy(copy, text.data(), text.size());
  copy[text.size()] = '\0';
  return inet_pton(family, copy, out.ip.data()) == 1;
}

// A decimal number without leading zeros.
bool read_port(std::string_view text, uint16_t& out) {
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, out);
  return parsed.ec == std::errc{} && parsed.ptr == end && (text[0] != '0' || text.size() == 1);
}

Parsed parse_v1(std::string_view bytes) {
  const std::string_view window = bytes.substr(0, kV1BytesMax);
  const size_t end = window.find('\r');
  if (end == std::string_view::npos || end + 1 == window.size()) {
    if (window.size() == kV1BytesMax) return fail(Error::kTooLong);
    return {.status = Status::kNeedMore, .begun = true};
  }
  if (window[end + 1] != '\n') return fail(Error::kMalformed);
  Parsed parsed{.status = Status::kDone};
  Header& header = parsed.header;
  header.version = 1;
  header.length = end + 2;
  std::string_view line = window.substr(0, end);
  line.remove_prefix(kV1Signature.size());
  const std::string_view family = take_word(line);
  if (family == "UNKNOWN") return parsed;  // Whatever follows up to the CRLF is to be ignored.
  if (family == "TCP4") {
    header.family = Family::kIPv4;
  } else if (family == "TCP6") {
    header.family = Family::kIPv6;
  } else {
    return fail(Error::kUnsupported);
  }
  const int kind = header.family == Family::kIPv4 ? AF_INET : AF_INET6;
  if (std::count(line.begin(), line.end(), ' ') != 3) return fail(Error::kMalformed);
  const std::string_view source = take_word(line);
  const std::string_view destination = take_word(line);
  const std::string_view source_port = take_word(line);
  const bool good = read_ip(source, kind, header.source) &&
                    read_ip(destination, kind, header.destination) && !source_port.empty() &&
                    !line.empty() && read_port(source_port, header.source.port) &&
                    read_port(line, header.destination.port);
  return good ? parsed : fail(Error::kMalformed);
}

// ---- Version 2 ----

size_t address_bytes(uint8_t family) {
  switch (family >> 4) {
    case 1: return 12;
    case 2: return 36;
    case 3: return 2 * kUnixPathBytes;
    default: return 0;
  }
}

bool known_family(uint8_t family) {
  const uint8_t transport = family & 15U;
  if (family == 0) return true;
  return family >> 4 >= 1 && family >> 4 <= 3 && (transport == 1 || transport == 2);
}

std::string_view read_path(std::string_view field) {
  const bool abstract = field[0] == '\0';
  if (!abstract) return field.substr(0, field.find('\0'));
  const size_t last = field.find_last_not_of('\0');
  return field.substr(0, last == std::string_view::npos ? 0 : last + 1);
}

void read_addresses(std::string_view bytes, uint8_t family, Header& header) {
  const auto read_ends = [&](Family kind, size_t ip_bytes) {
    header.family = kind;
    memcpy(header.source.ip.data(), bytes.data(), ip_bytes);
    memcpy(header.destination.ip.data(), bytes.data() + ip_bytes, ip_bytes);
    header.source.port = number_at(bytes, 2 * ip_bytes);
    header.destination.port = number_at(bytes, 2 * ip_bytes + 2);
  };
  switch (family >> 4) {
    case 1: return read_ends(Family::kIPv4, 4);
    case 2: return read_ends(Family::kIPv6, 16);
    case 3:
      header.family = Family::kUnix;
      header.source.path = read_path(bytes.substr(0, kUnixPathBytes));
      header.destination.path = read_path(bytes.substr(kUnixPathBytes, kUnixPathBytes));
      return;
    default: return;
  }
}

// Checks the CRC32C in `tlvs`, the end of `whole`, if there is one; it covers the whole header with
// its own four bytes taken as zero. kMalformed: the TLVs are, or one is there twice.
Error check_tlvs(std::string_view whole, std::string_view tlvs, bool& checksum) {
  TlvReader reader(tlvs);
  Tlv type{};
  std::string_view value;
  std::string_view stored;
  while (reader.next(type, value)) {
    if (type == Tlv::kUniqueId && value.size() > kUniqueIdBytesMax) return Error::kMalformed;
    if (type != Tlv::kCrc32c) continue;
    if (value.size() != 4 || !stored.empty()) return Error::kMalformed;
    stored = value;
  }
  if (reader.malformed()) return Error::kMalformed;
  if (stored.empty()) return Error::kNone;
  const auto before = static_cast<size_t>(stored.data() - whole.data());
  uint32_t crc = crc32c(whole.substr(0, before));
  crc = crc32c(std::string_view("\0\0\0\0", 4), crc);
  crc = crc32c(whole.substr(before + 4), crc);
  const uint32_t wanted = static_cast<uint32_t>(number_at(stored, 0)) << 16 | number_at(stored, 2);
  if (crc != wanted) return Error::kChecksum;
  checksum = true;
  return Error::kNone;
}

Parsed parse_v2(std::string_view bytes, size_t bytes_max) {
  const Parsed more{.status = Status::kNeedMore, .begun = true};
  if (bytes.size() < 13) return more;
  const uint8_t version = byte_at(bytes, 12) >> 4;
  const uint8_t command = byte_at(bytes, 12) & 15U;
  if (version != 2 || command > 1) return fail(Error::kUnsupported);
  if (bytes.size() < 14) return more;
  const uint8_t family = byte_at(bytes, 13);
  const bool local = command == 0;
  if (!local && !known_family(family)) return fail(Error::kUnsupported);
  if (bytes.size() < kV2FixedBytes) return more;
  const size_t length = kV2FixedBytes + number_at(bytes, 14);
  const size_t addresses = address_bytes(family);
  if (length > bytes_max) return fail(Error::kTooLong);
  if (!local && length < kV2FixedBytes + addresses) return fail(Error::kMalformed);
  if (bytes.size() < length) return more;
  const std::string_view whole = bytes.substr(0, length);
  Parsed parsed{.status = Status::kDone};
  Header& header = parsed.header;
  header.version = 2;
  header.local = local;
  header.length = length;
  const std::string_view block = whole.substr(kV2FixedBytes);
  const std::string_view tlvs = block.substr(std::min(addresses, block.size()));
  const Error error = check_tlvs(whole, tlvs, header.checksum);
  // The block of LOCAL is to be discarded, whatever it holds; but a wrong checksum says that the
  // word LOCAL may be wrong as well.
  if (error != Error::kNone && (!local || error == Error::kChecksum)) return fail(error);
  if (local) return parsed;
  header.datagram = (family & 15U) == 2;
  header.tlvs = tlvs;
  read_addresses(block, family, header);
  return parsed;
}

// ---- Writing ----

class Cursor {
 public:
  explicit Cursor(std::span<char> out) : out_(out) {}

  void put(std::string_view bytes) {
    full_ = full_ || bytes.size() > out_.size() - length_;
    if (full_) return;
    std::copy(bytes.begin(), bytes.end(), out_.data() + length_);
    length_ += bytes.size();
  }
  void put_byte(uint8_t byte) {
    const char c = static_cast<char>(byte);
    put({&c, 1});
  }
  void put_number(size_t number) {
    put_byte(static_cast<uint8_t>(number >> 8));
    put_byte(static_cast<uint8_t>(number));
  }
  void put_decimal(uint16_t number) {
    char digits[5];
    const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
    put({digits, static_cast<size_t>(end - digits)});
  }
  void put_ip(const Endpoint& end, size_t ip_bytes) {
    put({reinterpret_cast<const char*>(end.ip.data()), ip_bytes});
  }
  void put_ip_text(const Endpoint& end, int family) {
    char text[INET6_ADDRSTRLEN];
    put(inet_ntop(family, end.ip.data(), text, sizeof text));
  }
  void put_tlv(Tlv type, std::string_view value) {
    full_ = full_ || value.size() > UINT16_MAX;
    put_byte(static_cast<uint8_t>(type));
    put_number(value.size());
    put(value);
  }
  // Replaces what stands at `at`. REQUIRES: it was written.
  void set_number(size_t at, size_t number) {
    if (full_) return;
    RW_CHECK(at + 2 <= length_);
    out_[at] = static_cast<char>(number >> 8);
    out_[at + 1] = static_cast<char>(number);
  }
  [[nodiscard]] size_t length() const { return length_; }
  [[nodiscard]] std::string_view written() const {
    return full_ ? std::string_view() : std::string_view(out_.data(), length_);
  }

 private:
  std::span<char> out_;
  size_t length_ = 0;
  bool full_ = false;
};

bool has_ip(const Plan& plan) {
  return !plan.local && (plan.family == Family::kIPv4 || plan.family == Family::kIPv6);
}

}  // namespace

uint32_t crc32c(std::string_view bytes, uint32_t crc) {
  crc = ~crc;
  for (const char c : bytes) crc = crc >> 8 ^ kCrcTable[(crc ^ static_cast<uint8_t>(c)) & 0xffU];
  return ~crc;
}

Parsed parse(std::string_view bytes, size_t v2_bytes_max) {
  if (bytes.starts_with(kV1Signature)) return parse_v1(bytes);
  if (bytes.starts_with(kV2Signature)) return parse_v2(bytes, v2_bytes_max);
  const bool may_be = kV1Signature.starts_with(bytes) || kV2Signature.starts_with(bytes);
  return {.status = may_be ? Status::kNeedMore : Status::kAbsent};
}

bool TlvReader::next(Tlv& type, std::string_view& value) {
  if (rest_.empty() || malformed_) return false;
  malformed_ = rest_.size() < 3 || rest_.size() - 3 < number_at(rest_, 1);
  if (malformed_) return false;
  type = static_cast<Tlv>(rest_[0]);
  value = rest_.substr(3, number_at(rest_, 1));
  rest_.remove_prefix(3 + value.size());
  return true;
}

bool has_tlv(std::string_view tlvs, Tlv type, std::string_view& value) {
  TlvReader reader(tlvs);
  for (Tlv found{}; reader.next(found, value);) {
    if (found == type) return true;
  }
  return false;
}

std::string_view find_tlv(std::string_view tlvs, Tlv type) {
  std::string_view value;
  return has_tlv(tlvs, type, value) ? value : std::string_view();
}

std::string_view write_v1(const Plan& plan, std::span<char> out) {
  Cursor cursor(out);
  cursor.put(kV1Signature);
  if (has_ip(plan)) {
    const bool v4 = plan.family == Family::kIPv4;
    const int family = v4 ? AF_INET : AF_INET6;
    cursor.put(v4 ? "TCP4 " : "TCP6 ");
    cursor.put_ip_text(plan.source, family);
    cursor.put(" ");
    cursor.put_ip_text(plan.destination, family);
    cursor.put(" ");
    cursor.put_decimal(plan.source.port);
    cursor.put(" ");
    cursor.put_decimal(plan.destination.port);
  } else {
    cursor.put("UNKNOWN");
  }
  cursor.put("\r\n");
  return cursor.written();
}

std::string_view write_v2(const Plan& plan, std::span<char> out) {
  RW_CHECK(plan.unique_id.size() <= kUniqueIdBytesMax);
  Cursor cursor(out);
  cursor.put(kV2Signature);
  cursor.put_byte(plan.local ? 0x20 : 0x21);
  const bool v4 = plan.family == Family::kIPv4;
  cursor.put_byte(!has_ip(plan) ? 0x00 : v4 ? 0x11 : 0x21);
  cursor.put_number(0);
  if (has_ip(plan)) {
    cursor.put_ip(plan.source, v4 ? 4 : 16);
    cursor.put_ip(plan.destination, v4 ? 4 : 16);
    cursor.put_number(plan.source.port);
    cursor.put_number(plan.destination.port);
  }
  if (!plan.alpn.empty()) cursor.put_tlv(Tlv::kAlpn, plan.alpn);
  if (!plan.authority.empty()) cursor.put_tlv(Tlv::kAuthority, plan.authority);
  if (!plan.unique_id.empty()) cursor.put_tlv(Tlv::kUniqueId, plan.unique_id);
  if (!plan.ssl.empty()) cursor.put_tlv(Tlv::kSsl, plan.ssl);
  if (!plan.netns.empty()) cursor.put_tlv(Tlv::kNetns, plan.netns);
  cursor.put(plan.custom);
  if (plan.checksum) cursor.put_tlv(Tlv::kCrc32c, std::string_view("\0\0\0\0", 4));
  if (cursor.written().empty() || cursor.length() > kV2BytesMax) return {};
  cursor.set_number(14, cursor.length() - kV2FixedBytes);
  if (plan.checksum) {
    const uint32_t crc = crc32c(cursor.written());
    cursor.set_number(cursor.length() - 4, crc >> 16);
    cursor.set_number(cursor.length() - 2, crc);
  }
  return cursor.written();
}

bool read_ssl(std::string_view value, Ssl& out) {
  constexpr size_t kFixedBytes = 5;
  if (value.size() < kFixedBytes) return false;
  const uint8_t client = byte_at(value, 0);
  const bool good = number_at(value, 1) == 0 && number_at(value, 3) == 0;
  out = {};
  out.certificate = (client & 0x02U) != 0;
  out.certificate_in_session = out.certificate || (client & 0x04U) != 0;
  out.verified = out.certificate_in_session && good;
  TlvReader reader(value.substr(kFixedBytes));
  Tlv type{};
  std::string_view text;
  while (reader.next(type, text)) {
    if (type == Tlv::kSslVersion) out.version = text;
    if (type == Tlv::kSslCn) out.common_name = text;
    if (type == Tlv::kSslCipher) out.cipher = text;
    if (type == Tlv::kSslSignature) out.signature = text;
    if (type == Tlv::kSslKey) out.key = text;
  }
  return (client & 0x01U) != 0 && !reader.malformed();
}

std::string_view write_ssl(const Ssl& ssl, std::span<char> out) {
  Cursor cursor(out);
  const unsigned client =
      0x01U | (ssl.certificate ? 0x02U : 0U) | (ssl.certificate_in_session ? 0x04U : 0U);
  cursor.put_byte(static_cast<uint8_t>(client));
  cursor.put_number(0);
  cursor.put_number(ssl.verified ? 0 : 1);
  if (!ssl.version.empty()) cursor.put_tlv(Tlv::kSslVersion, ssl.version);
  if (!ssl.common_name.empty()) cursor.put_tlv(Tlv::kSslCn, ssl.common_name);
  if (!ssl.cipher.empty()) cursor.put_tlv(Tlv::kSslCipher, ssl.cipher);
  if (!ssl.signature.empty()) cursor.put_tlv(Tlv::kSslSignature, ssl.signature);
  if (!ssl.key.empty()) cursor.put_tlv(Tlv::kSslKey, ssl.key);
  return cursor.written();
}

}  // namespace ringway::proxy
