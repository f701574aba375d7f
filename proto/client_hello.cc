// proto/client_hello.cc
#include "proto/client_hello.h"

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

ClientHello nothing(HelloStatus status) {
  return {.status = status, .server_name = {}, .alpn = {}};
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
    return nothing(HelloStatus::kMalformed);
  }
  if (fields.empty()) return hello;  // Before TLS 1.3 there may be no extensions at all.
  Fields extensions(fields.take_vector(2));
  if (fields.broken() || !fields.empty()) return nothing(HelloStatus::kMalformed);
  bool seen_name = false;
  bool seen_alpn = false;
  while (!extensions.empty()) {
    const size_t type = extensions.take_number(2);
    const std::string_view data = extensions.take_vector(2);
    if (extensions.broken()) return nothing(HelloStatus::kMalformed);
    if (type == kServerName) {
      if (seen_name || !read_server_name(data, hello)) return nothing(HelloStatus::kMalformed);
      seen_name = true;
    } else if (type == kAlpn) {
      if (seen_alpn || !read_alpn(data, hello)) return nothing(HelloStatus::kMalformed);
      seen_alpn = true;
    }
  }
  return hello;
}

// The head of the record at `at`. kDone: it is whole, and `length` that of what follows.
HelloStatus read_record_head(std::string_view bytes, size_t at, size_t& length) {
  const std::string_view head = bytes.substr(at, kRecordHead);
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(head[i]); };
  const bool handshake = byte(0) == kHandshake && (head.size() < 2 || byte(1) == 3);
  if (!handshake) return at == 0 ? HelloStatus::kNotTls : HelloStatus::kMalformed;
  if (head.size() < kRecordHead) return HelloStatus::kNeedMore;
  length = static_cast<size_t>(byte(3)) << 8 | byte(4);
  // Empty handshake records do not exist (RFC 8446 5.1).
  return length == 0 || length > kFragmentMax ? HelloStatus::kMalformed : HelloStatus::kDone;
}

// What came of the message so far. kDone: all of it, and `length` is its.
HelloStatus judge_message(std::string_view message, size_t bytes_max, size_t& length) {
  if (!message.empty() && message[0] != kClientHello) return HelloStatus::kMalformed;
  if (message.size() < kMessageHead) return HelloStatus::kNeedMore;
  length = kMessageHead + Fields(message.substr(1)).take_number(3);
  if (length > bytes_max) return HelloStatus::kTooLong;
  return message.size() >= length ? HelloStatus::kDone : HelloStatus::kNeedMore;
}

}  // namespace

ClientHello parse_client_hello(std::string_view bytes, size_t bytes_max, std::span<char> scratch) {
  RW_CHECK(scratch.size() >= bytes_max);
  const std::string_view window = bytes.substr(0, bytes_max);
  size_t got = 0;  // of the message, in `scratch`
  for (size_t at = 0, length = 0; at < window.size(); at += kRecordHead + length) {
    const HelloStatus head = read_record_head(window, at, length);
    if (head == HelloStatus::kNeedMore) break;
    if (head != HelloStatus::kDone) return nothing(head);
    const std::string_view fragment = window.substr(at + kRecordHead, length);
    std::copy(fragment.begin(), fragment.end(), scratch.data() + got);
    got += fragment.size();
    const std::string_view message(scratch.data(), got);
    size_t whole = 0;
    const HelloStatus status = judge_message(message, bytes_max, whole);
    if (status == HelloStatus::kNeedMore) continue;
    if (status != HelloStatus::kDone) return nothing(status);
    return parse_message(message.substr(kMessageHead, whole - kMessageHead));
  }
  return nothing(bytes.size() >= bytes_max ? HelloStatus::kTooLong : HelloStatus::kNeedMore);
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
