// proto/client_hello.cc
#include "proto/client_hello.h"

#include <string.h>

#include <algorithm>

#include "core/base/check.h"

namespace ringway::tls {
namespace {

constexpr uint8_t kHandshake = 22;  // a record's type
constexpr uint8_t kClientHello = 1;
constexpr size_t kRecordHead = 5;
constexpr size_t kMessageHead = 4;
constexpr size_t kFragmentMax = 1U << 14U;  // RFC 8446 5.1
constexpr size_t kNameBytesMax = 255;

enum Extension : uint16_t { kServerName = 0, kAlpn = 16 };

// Takes fields off the front of a message. What is not there makes it broken, once and for all.
class Fields {
 public:
  explicit Fields(std::string_view bytes) : rest_(bytes) {}

  std::string_view take(size_t count) {
    broken_ = broken_ || count > rest_.size();
    if (broken_) return {};
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }
  size_t take_number(size_t bytes) {
    size_t number = 0;
    for (const char c : take(bytes)) number = number << 8 | static_cast<uint8_t>(c);
    return number;
  }
  // A vector with its length in front.
  std::string_view take_vector(size_t length_bytes) { return take(take_number(length_bytes)); }

  [[nodiscard]] bool empty() const { return rest_.empty(); }
  [[nodiscard]] bool broken() const { return broken_; }

 private:
  std::string_view rest_;
  bool broken_ = false;
};

// Each reads one extension's data and returns whether it is well-formed.
bool read_server_name(std::string_view data, ClientHello& hello) {
  Fields fields(data);
  Fields list(fields.take_vector(2));
  if (fields.broken() || !fields.empty() || list.empty()) return false;
  while (!list.empty()) {
    const size_t type = list.take_number(1);
    const std::string_view name = list.take_vector(2);
    if (list.broken()) return false;
    if (type != 0) continue;  // There is only host_name so far.
    const bool printable =
        std::all_of(name.begin(), name.end(), [](char c) { return c > 0x20 && c < 0x7f; });
    if (name.empty() || name.size() > kNameBytesMax || !printable) return false;
    if (!hello.server_name.empty()) return false;  // One per type (RFC 6066 3).
    hello.server_name = name;
  }
  return true;
}

bool read_alpn(std::string_view data, ClientHello& hello) {
  Fields fields(data);
  const std::string_view list = fields.take_vector(2);
  if (fields.broken() || !fields.empty() || list.empty()) return false;
  Fields names(list);
  while (!names.empty()) {
    if (names.take_vector(1).empty()) return false;  // Empty or broken.
  }
  hello.alpn = list;
  return true;
}

ClientHello malformed() {
  return {.status = HelloStatus::kMalformed, .server_name = {}, .alpn = {}};
}

ClientHello parse_message(std::string_view body) {
  ClientHello hello{.status = HelloStatus::kDone, .server_name = {}, .alpn = {}};
  Fields fields(body);
  fields.take(2 + 32);  // legacy_version, random
  const std::string_view session = fields.take_vector(1);
  const std::string_view ciphers = fields.take_vector(2);
  const std::string_view compression = fields.take_vector(1);
  if (fields.broken() || session.size() > 32 || ciphers.empty() || ciphers.size() % 2 != 0 ||
      compression.empty()) {
    return malformed();
  }
  if (fields.empty()) return hello;  // Before TLS 1.3 there may be no extensions at all.
  Fields extensions(fields.take_vector(2));
  if (fields.broken() || !fields.empty()) return malformed();
  bool seen_name = false;
  bool seen_alpn = false;
  while (!extensions.empty()) {
    const size_t type = extensions.take_number(2);
    const std::string_view data = extensions.take_vector(2);
    if (extensions.broken()) return malformed();
    if (type == kServerName) {
      if (seen_name || !read_server_name(data, hello)) return malformed();
      seen_name = true;
    } else if (type == kAlpn) {
      if (seen_alpn || !read_alpn(data, hello)) return malformed();
      seen_alpn = true;
    }
  }
  return hello;
}

}  // namespace

ClientHello parse_client_hello(std::string_view bytes, size_t bytes_max, std::span<char> scratch) {
  RW_CHECK(scratch.size() >= bytes_max);
  const auto byte = [&](size_t at) { return static_cast<uint8_t>(bytes[at]); };
  const std::string_view window = bytes.substr(0, bytes_max);
  ClientHello hello;
  // Of the message so far: how much came, and how much it has once that is known.
  size_t got = 0;
  size_t wanted = kMessageHead;
  size_t at = 0;
  while (at < window.size()) {
    const std::string_view head = window.substr(at, kRecordHead);
    const bool handshake = byte(at) == kHandshake && (head.size() < 2 || byte(at + 1) == 3);
    if (!handshake && at == 0) hello.status = HelloStatus::kNotTls;
    if (!handshake && at != 0) hello.status = HelloStatus::kMalformed;
    if (!handshake) return hello;
    if (head.size() < kRecordHead) break;
    const size_t length = static_cast<size_t>(byte(at + 3)) << 8 | byte(at + 4);
    // Empty handshake records do not exist (RFC 8446 5.1).
    if (length == 0 || length > kFragmentMax) return malformed();
    const std::string_view fragment = window.substr(at + kRecordHead, length);
    if (got == 0 && fragment.size() >= wanted && fragment[0] == kClientHello) {
      // All in one record is what nearly all clients send: looked at where it stands.
      const size_t whole = kMessageHead + Fields(fragment.substr(1)).take_number(3);
      if (fragment.size() >= whole) {
        return parse_message(fragment.substr(kMessageHead, whole - kMessageHead));
      }
    }
    memcpy(scratch.data() + got, fragment.data(), fragment.size());
    got += fragment.size();
    if (got > 0 && scratch[0] != kClientHello) return malformed();
    if (got >= kMessageHead) {
      wanted = kMessageHead + Fields({scratch.data() + 1, 3}).take_number(3);
      if (wanted > bytes_max)
        return {.status = HelloStatus::kTooLong, .server_name = {}, .alpn = {}};
      if (got >= wanted) {
        return parse_message({scratch.data() + kMessageHead, wanted - kMessageHead});
      }
    }
    at += kRecordHead + length;
  }
  if (bytes.size() >= bytes_max) hello.status = HelloStatus::kTooLong;
  return hello;
}

bool AlpnReader::next(std::string_view& protocol) {
  if (rest_.empty()) return false;
  const auto length = static_cast<uint8_t>(rest_[0]);
  RW_CHECK(length < rest_.size());
  protocol = rest_.substr(1, length);
  rest_.remove_prefix(1 + length);
  return true;
}

}  // namespace ringway::tls
