// lb/access_log.cc
#include "lb/access_log.h"

#include <time.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <cstring>

#include "core/base/check.h"
#include "proto/proxy_header.h"

namespace ringway {
namespace {

// A bounded line. Writers check left() or know that there is room; put() asserts it.
class LogLine {
 public:
  explicit LogLine(std::span<char> room)
      : begin_(room.data()), at_(begin_), end_(begin_ + room.size()) {}

  [[nodiscard]] size_t left() const { return static_cast<size_t>(end_ - at_); }
  [[nodiscard]] std::string_view written() const {
    return {begin_, static_cast<size_t>(at_ - begin_)};
  }
  void put(std::string_view text) {
    RW_CHECK(text.size() <= left());
    memcpy(at_, text.data(), text.size());
    at_ += text.size();
  }
  void put(char c) { put(std::string_view(&c, 1)); }
  void put_number(uint64_t number) {
    const auto [end, error] = std::to_chars(at_, end_, number);
    RW_CHECK(error == std::errc{});
    at_ = end;
  }

 private:
  char* begin_;
  char* at_;
  char* end_;
};

constexpr size_t kDigitsMax = 20;  // of a uint64_t

// The most that write_ip() gives is 45 bytes.
void put_ip(LogLine& line, const PeerAddress& address) {
  if (address.family == PeerAddress::Family::kIPv4) {  // inet_ntop(3) is 10 times slower.
    for (size_t i = 0; i < 4; ++i) {
      if (i != 0) line.put('.');
      line.put_number(address.ip[i]);
    }
    return;
  }
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init): write_ip() fills it
  std::array<char, 46> buffer;
  line.put(address.write_ip(buffer));
}

constexpr size_t kTlvBytesShown = 640;  // of one TLV that is no text

constexpr char kHex[] = "0123456789abcdef";

// ---- JSON ----

// Bytes that stand for themselves in a JSON string: printable ASCII but the quote and backslash.
constexpr std::array<bool, 256> kJsonPlain = [] {
  std::array<bool, 256> plain{};
  for (size_t c = 0x20; c < 0x7f; ++c) plain[c] = c != '"' && c != '\\';
  return plain;
}();

// The length of the UTF-8 sequence that `text` begins with, or 0 if it is none (RFC 3629 4).
size_t utf8_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(0);
  const size_t length = first >= 0xc2 && first < 0xe0   ? 2
                        : first >= 0xe0 && first < 0xf0 ? 3
                        : first >= 0xf0 && first < 0xf5 ? 4
                                                        : 0;
  if (length == 0 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  // Overlong forms, surrogates and what is beyond U+10FFFF.
  if (first == 0xe0 && byte(1) < 0xa0) return 0;
  if (first == 0xed && byte(1) > 0x9f) return 0;
  if (first == 0xf0 && byte(1) < 0x90) return 0;
  if (first == 0xf4 && byte(1) > 0x8f) return 0;
  return length;
}

// How the first byte of `text`, which is not plain, is written: a view of `buffer` or of `text`.
// `used` is how many bytes of `text` that covers.
std::string_view json_unit(std::string_view text, std::span<char, 6> buffer, size_t& used) {
  used = 1;
  const auto c = static_cast<uint8_t>(text[0]);
  switch (c) {
    case '"': return "\\\"";
    case '\\': return "\\\\";
    case '\n': return "\\n";
    case '\r': return "\\r";
    case '\t': return "\\t";
    default: break;
  }
  const size_t length = c >= 0x80 ? utf8_length(text) : 0;
  if (length != 0) {
    used = length;
    return text.substr(0, length);
  }
  memcpy(buffer.data(), "\\u00", 4);
  buffer[4] = kHex[c >> 4];
  buffer[5] = kHex[c & 15];
  return {buffer.data(), 6};
}

// Writes `text` escaped for JSON, at most `room` bytes. False: it was cut, between characters.
bool put_json_text(LogLine& line, std::string_view text, size_t room) {
  while (!text.empty()) {
    size_t plain = 0;
    while (plain < text.size() && kJsonPlain[static_cast<uint8_t>(text[plain])]) ++plain;
    const size_t fits = std::min(plain, room);
    line.put(text.substr(0, fits));
    if (fits < plain) return false;
    room -= fits;
    text.remove_prefix(plain);
    if (text.empty()) return true;
    char buffer[6];
    size_t used = 0;
    const std::string_view unit = json_unit(text, buffer, used);
    if (unit.size() > room) return false;
    line.put(unit);
    room -= unit.size();
    text.remove_prefix(used);
  }
  return true;
}

// A JSON object that keeps room for its end. Once a field did not fit, later ones are left out.
class JsonLine {
 public:
  explicit JsonLine(std::span<char> room) : line_(room) {}

  LogLine& line() { return line_; }
  void text(std::string_view key, std::string_view value) {
    if (value.empty() || !begin(key, 2)) return;
    line_.put('"');
    truncated_ = !put_json_text(line_, value, line_.left() - kEnd.size() - 1);
    line_.put('"');
  }
  void number(std::string_view key, uint64_t value) {
    if (begin(key, kDigitsMax)) line_.put_number(value);
  }
  // A duration that may not exist.
  void micros(std::string_view key, int64_t value) {
    if (value >= 0) number(key, static_cast<uint64_t>(value));
  }
  void boolean(std::string_view key, bool value) {
    if (begin(key, 5)) line_.put(value ? "true" : "false");
  }
  std::string_view finish() {
    line_.put(truncated_ ? kEnd : "}");
    return line_.written();
  }

 private:
  static constexpr std::string_view kEnd = ",\"truncated\":true}";

  bool begin(std::string_view key, size_t value_size) {
    truncated_ = truncated_ || line_.left() < key.size() + 4 + value_size + kEnd.size();
    if (truncated_) return false;
    line_.put(",\"");
    line_.put(key);
    line_.put("\":");
    return true;
  }

  LogLine line_;
  bool truncated_ = false;
};

std::string_view name_of(AccessRecord::EndedBy ended_by) {
  switch (ended_by) {
    case AccessRecord::EndedBy::kNone: return "";
    case AccessRecord::EndedBy::kClient: return "client";
    case AccessRecord::EndedBy::kProxy: return "proxy";
    case AccessRecord::EndedBy::kServer: return "server";
  }
  return "";
}

// What a balancer in front said of the client's TLS with it.
void put_proxy_tls(JsonLine& json, std::string_view value) {
  proxy::Ssl ssl;
  if (!proxy::read_ssl(value, ssl)) return;
  json.text("proxy_tls_version", ssl.version);
  json.text("proxy_tls_cipher", ssl.cipher);
  if (!ssl.certificate_in_session) return;
  json.text("proxy_tls_certificate", ssl.verified ? "ok" : "failed");
  // Whoever reads only the name must not believe one that nobody has verified.
  if (ssl.verified) json.text("proxy_tls_cn", ssl.common_name);
}

// Printable text as it is, and other bytes in hexadecimal.
void put_custom_tlv(JsonLine& json, proxy::Tlv type, std::string_view value) {
  const auto plain = [](char c) { return c >= 0x20 && c < 0x7f; };
  const auto number = static_cast<uint8_t>(type);
  const char key[] = {
      'p', 'r', 'o', 'x', 'y', '_', 't', 'l', 'v', '_', kHex[number >> 4], kHex[number & 15]};
  if (std::all_of(value.begin(), value.end(), plain)) return json.text({key, sizeof key}, value);
  if (type == proxy::Tlv::kAws && value[0] == proxy::kAwsEndpoint &&
      std::all_of(value.begin() + 1, value.end(), plain)) {
    return json.text("proxy_aws_vpce", value.substr(1));
  }
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init): filled up to `length`
  std::array<char, 2 + 2 * kTlvBytesShown> text;
  size_t length = 0;
  text[length++] = '0';
  text[length++] = 'x';
  for (const char c : value.substr(0, kTlvBytesShown)) {
    text[length++] = kHex[static_cast<uint8_t>(c) >> 4];
    text[length++] = kHex[static_cast<uint8_t>(c) & 15];
  }
  json.text({key, sizeof key}, {text.data(), length});
}

void put_proxy_tlvs(JsonLine& json, const AccessRecord& record) {
  proxy::TlvReader reader(record.proxy_tlvs);
  proxy::Tlv type{};
  std::string_view value;
  while (reader.next(type, value)) {
    if (type == proxy::Tlv::kAlpn) json.text("proxy_alpn", value);
    if (type == proxy::Tlv::kAuthority && value != record.sni) json.text("proxy_sni", value);
    if (type == proxy::Tlv::kSsl) put_proxy_tls(json, value);
    if (type == proxy::Tlv::kNetns) json.text("proxy_netns", value);
    if (proxy::is_custom(type) && !value.empty()) put_custom_tlv(json, type, value);
  }
}

// ---- Common Log Format ----

// Writes `text` in the manner of Apache's ap_escape_logitem(), at most `room` bytes, "-" if empty.
void put_clf_text(LogLine& line, std::string_view text, size_t room) {
  if (text.empty() && room > 0) line.put('-');
  while (!text.empty()) {
    size_t plain = 0;
    while (plain < text.size() && kJsonPlain[static_cast<uint8_t>(text[plain])]) ++plain;
    const size_t fits = std::min(plain, room);
    line.put(text.substr(0, fits));
    if (fits < plain) return;
    room -= fits;
    text.remove_prefix(plain);
    if (text.empty()) return;
    const auto c = static_cast<uint8_t>(text[0]);
    constexpr std::string_view kNamed = "\"\\\b\n\r\t\v";
    constexpr std::string_view kNames = "\"\\bnrtv";
    const size_t named = kNamed.find(static_cast<char>(c));
    const char escape[4] = {'\\', named != kNamed.npos ? kNames[named] : 'x', kHex[c >> 4],
                            kHex[c & 15]};
    const std::string_view unit(escape, named != kNamed.npos ? 2 : 4);
    if (unit.size() > room) return;
    line.put(unit);
    room -= unit.size();
    text.remove_prefix(1);
  }
}

// "client - - [date] "METHOD target VERSION" status bytes", leaving `reserve` bytes.
void put_common(LogLine& line, const AccessRecord& record, std::string_view date, size_t reserve) {
  constexpr size_t kVersionMax = 16;
  put_ip(line, record.client);
  line.put(" - - ");
  line.put(date);
  line.put(" \"");
  if (record.method.empty()) {
    line.put('-');
  } else {
    // After the target: " VERSION", quote, " status", " bytes".
    reserve += 1 + kVersionMax + 1 + 6 + 1 + kDigitsMax;
    put_clf_text(line, record.method, std::min<size_t>(line.left() - reserve - 1, 32));
    line.put(' ');
    put_clf_text(line, record.target, line.left() - reserve);
    if (!record.version.empty()) {
      line.put(' ');
      put_clf_text(line, record.version, kVersionMax);
    }
  }
  line.put("\" ");
  if (record.status != 0) {
    line.put_number(record.status);
  } else {
    line.put('-');
  }
  line.put(' ');
  if (record.bytes_sent != 0) {
    line.put_number(record.bytes_sent);
  } else {
    line.put('-');
  }
}

}  // namespace

void AccessLogFormatter::refresh_date(int64_t second) {
  if (second == second_) return;
  second_ = second;
  static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                            "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const time_t time = second;
  tm utc{};
  gmtime_r(&time, &utc);
  char text[64];
  const int year = (utc.tm_year + 1900) % 10'000;
  snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.", year, utc.tm_mon + 1, utc.tm_mday,
           utc.tm_hour, utc.tm_min, utc.tm_sec);
  memcpy(iso_, text, sizeof iso_);
  snprintf(text, sizeof text, "[%02d/%s/%04d:%02d:%02d:%02d +0000]", utc.tm_mday,
           kMonths[utc.tm_mon], year, utc.tm_hour, utc.tm_min, utc.tm_sec);
  memcpy(clf_, text, sizeof clf_);
}

std::string_view AccessLogFormatter::json(const AccessRecord& record, std::span<char> room) {
  RW_CHECK(room.size() >= kRoomMin);
  const int64_t time_us = std::max<int64_t>(record.timestamp_us, 0);
  refresh_date(time_us / 1'000'000);
  JsonLine json(room);
  LogLine& line = json.line();
  line.put("{\"time\":\"");
  line.put({iso_, sizeof iso_});
  char micros[6];
  auto rest = static_cast<uint32_t>(time_us % 1'000'000);
  for (size_t i = sizeof micros; i-- > 0; rest /= 10)
    micros[i] = static_cast<char>('0' + rest % 10);
  line.put({micros, sizeof micros});
  line.put("Z\",\"client\":\"");
  put_ip(line, record.client);
  line.put('"');
  if (record.client.family != PeerAddress::Family::kNone) {
    json.number("client_port", record.client.port);
  }
  json.text("protocol", record.protocol == AccessRecord::Protocol::kHttp ? "http" : "tcp");
  json.text("listener", record.listener);
  json.text("route", record.route);
  json.text("upstream", record.upstream);
  json.text("server", record.server);
  if (record.status != 0) json.number("status", record.status);
  json.number("bytes_received", record.bytes_received);
  json.number("bytes_sent", record.bytes_sent);
  json.micros("total_us", record.total_us);
  json.micros("connect_us", record.connect_us);
  json.micros("queue_us", record.queue_us);
  json.micros("first_byte_us", record.first_byte_us);
  json.number("attempts", record.attempts);
  json.boolean("reused", record.reused);
  json.text("ended_by", name_of(record.ended_by));
  json.text("cause", record.cause);
  json.text("tls_version", record.tls_version);
  json.text("tls_cipher", record.tls_cipher);
  json.text("tls_alpn", record.tls_alpn);
  if (!record.tls_version.empty()) json.boolean("tls_resumed", record.tls_resumed);
  if (record.tls_ech) json.boolean("tls_ech", true);
  if (record.early_data) json.boolean("early_data", true);
  json.text("tls_certificate", record.tls_certificate);
  json.text("sni", record.sni);
  json.text("unique_id", record.unique_id);
  put_proxy_tlvs(json, record);
  json.text("method", record.method);
  json.text("version", record.version);
  json.text("host", record.host);
  json.text("target", record.target);
  json.text("user_agent", record.user_agent);
  json.text("referer", record.referer);
  return json.finish();
}

std::string_view AccessLogFormatter::common(const AccessRecord& record, std::span<char> room) {
  RW_CHECK(room.size() >= kRoomMin);
  refresh_date(std::max<int64_t>(record.timestamp_us, 0) / 1'000'000);
  LogLine line(room);
  put_common(line, record, {clf_, sizeof clf_}, 0);
  return line.written();
}

std::string_view AccessLogFormatter::combined(const AccessRecord& record, std::span<char> room) {
  RW_CHECK(room.size() >= kRoomMin);
  refresh_date(std::max<int64_t>(record.timestamp_us, 0) / 1'000'000);
  LogLine line(room);
  constexpr size_t kQuotes = 8;  // ` "-" "-"`
  put_common(line, record, {clf_, sizeof clf_}, kQuotes);
  line.put(" \"");
  put_clf_text(line, record.referer, line.left() - (kQuotes - 3));
  line.put("\" \"");
  put_clf_text(line, record.user_agent, line.left() - 1);
  line.put('"');
  return line.written();
}

}  // namespace ringway
