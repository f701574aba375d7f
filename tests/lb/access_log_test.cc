// tests/lb/access_log_test.cc
#include "lb/access_log.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

using namespace ringway;
using nlohmann::json;

namespace {

PeerAddress peer(std::string_view text) {
  ServerAddress address;
  REQUIRE(parse_address(text, address));
  return PeerAddress::from(*address.get());
}

AccessRecord example() {
  AccessRecord record;
  record.timestamp_us = 1'795'785'255'001'234;  // 2026-11-27 13:14:15.001234 UTC
  record.client = peer("192.0.2.7:51234");
  record.listener = "web";
  record.route = "api";
  record.upstream = "backend";
  record.server = "10.0.0.1:8080";
  record.status = 200;
  record.bytes_received = 321;
  record.bytes_sent = 4567;
  record.total_us = 1500;
  record.connect_us = 210;
  record.queue_us = 15;
  record.first_byte_us = 900;
  record.attempts = 1;
  record.method = "GET";
  record.version = "HTTP/1.1";
  record.host = "example.com";
  record.target = "/a/b?c=d";
  record.user_agent = "curl/8.0";
  record.referer = "https://example.com/";
  return record;
}

// The line parsed again; discarded if it is not JSON.
json parsed(const AccessRecord& record, size_t room = 4096) {
  AccessLogFormatter formatter;
  std::vector<char> buffer(room);
  const std::string_view line = formatter.json(record, buffer);
  CHECK(line.find('\n') == std::string_view::npos);
  return json::parse(line, nullptr, false);
}

std::string combined(const AccessRecord& record, size_t room = 4096) {
  AccessLogFormatter formatter;
  std::vector<char> buffer(room);
  return std::string(formatter.combined(record, buffer));
}

}  // namespace

TEST_CASE("AccessLog: JSON of a client with TLS -> what was settled; in clear nothing of it") {
  AccessRecord record = example();
  CHECK_FALSE(parsed(record).contains("tls_resumed"));
  record.tls_version = "TLSv1.3";
  record.tls_cipher = "TLS_AES_128_GCM_SHA256";
  record.sni = "a.example";
  json line = parsed(record);
  CHECK(line["tls_version"] == "TLSv1.3");
  CHECK(line["tls_cipher"] == "TLS_AES_128_GCM_SHA256");
  CHECK(line["tls_resumed"] == false);
  CHECK(line["sni"] == "a.example");
  CHECK_FALSE(line.contains("tls_alpn"));
  CHECK_FALSE(line.contains("tls_certificate"));
  CHECK_FALSE(line.contains("tls_ech"));
  CHECK_FALSE(line.contains("early_data"));
  record.tls_ech = record.early_data = true;
  record.tls_alpn = "http/1.1";
  record.tls_resumed = true;
  record.tls_certificate = "ok";
  line = parsed(record);
  CHECK(line["tls_alpn"] == "http/1.1");
  CHECK(line["tls_resumed"] == true);
  CHECK(line["tls_certificate"] == "ok");
  CHECK(line["tls_ech"] == true);
  CHECK(line["early_data"] == true);
}

// A TLV of a PROXY header.
static std::string tlv(unsigned type, const std::string& value) {
  return std::string(1, static_cast<char>(type)) + static_cast<char>(value.size() >> 8) +
         static_cast<char>(value.size()) + value;
}

TEST_CASE("AccessLog: what the client's PROXY header said -> fields that begin with proxy_") {
  AccessRecord record = example();
  json line = parsed(record);
  for (const auto& [key, value] : line.items()) CHECK_FALSE(key.starts_with("proxy_"));
  record.sni = "inner.example";
  const auto ssl = [](char client, char verify) {
    return tlv(0x20, std::string({client, 0, 0, 0, verify}) + tlv(0x21, "TLSv1.3") +
                         tlv(0x22, "Ann \"A\"") + tlv(0x23, "X"));
  };
  std::string tlvs = tlv(1, "h2") + tlv(2, "outer.example") + tlv(5, "id") + ssl(7, 0) +
                     tlv(0x30, "blue") + tlv(0xe4, "some text") + tlv(0xea, "\x01vpce-08d2bf15f2");
  record.proxy_tlvs = tlvs;
  line = parsed(record);
  CHECK(line["proxy_alpn"] == "h2");
  CHECK(line["proxy_sni"] == "outer.example");
  CHECK(line["sni"] == "inner.example");
  CHECK(line["proxy_tls_version"] == "TLSv1.3");
  CHECK(line["proxy_tls_cipher"] == "X");
  CHECK(line["proxy_tls_certificate"] == "ok");
  CHECK(line["proxy_tls_cn"] == "Ann \"A\"");
  CHECK(line["proxy_netns"] == "blue");
  CHECK(line["proxy_tlv_e4"] == "some text");
  CHECK(line["proxy_aws_vpce"] == "vpce-08d2bf15f2");
  CHECK_FALSE(line.contains("proxy_tlv_ea"));
  record.sni = "outer.example";
  CHECK_FALSE(parsed(record).contains("proxy_sni"));
  // A certificate that nobody has verified is nobody's.
  tlvs = ssl(3, 1);
  record.proxy_tlvs = tlvs;
  line = parsed(record);
  CHECK(line["proxy_tls_certificate"] == "failed");
  CHECK_FALSE(line.contains("proxy_tls_cn"));
  tlvs = ssl(1, 0);
  record.proxy_tlvs = tlvs;
  line = parsed(record);
  CHECK(line["proxy_tls_version"] == "TLSv1.3");
  CHECK_FALSE(line.contains("proxy_tls_certificate"));
  CHECK_FALSE(line.contains("proxy_tls_cn"));
  tlvs = ssl(0, 0);
  record.proxy_tlvs = tlvs;
  CHECK_FALSE(parsed(record).contains("proxy_tls_version"));
}

TEST_CASE("AccessLog: custom TLVs that are no text -> hexadecimal, and the line stays JSON") {
  AccessRecord record = example();
  std::string tlvs = tlv(0xe0, std::string("\0\x01\xff", 3)) +
                     tlv(0xea,
                         "\x02"
                         "abc") +
                     tlv(0xeb, "caf\xc3\xa9") + tlv(0xee, std::string("\x01\x0a\0\0\0", 5));
  record.proxy_tlvs = tlvs;
  json line = parsed(record);
  CHECK(line["proxy_tlv_e0"] == "0x0001ff");
  CHECK(line["proxy_tlv_ea"] == "0x02616263");
  CHECK(line["proxy_tlv_eb"] == "0x636166c3a9");
  CHECK(line["proxy_tlv_ee"] == "0x010a000000");
  // The longest, and in rooms of any size.
  tlvs = tlv(0xe1, std::string(700, '\0'));
  record.proxy_tlvs = tlvs;
  CHECK(parsed(record)["proxy_tlv_e1"] == "0x" + std::string(2 * 640, '0'));
  for (size_t room = AccessLogFormatter::kRoomMin; room < 2048; ++room) {
    CHECK(parsed(record, room).is_object());
  }
}

TEST_CASE("AccessLog: JSON -> every field once, as numbers and text") {
  const json line = parsed(example());
  REQUIRE(line.is_object());
  const json want = {{"time", "2026-11-27T13:14:15.001234Z"},
                     {"client", "192.0.2.7"},
                     {"client_port", 51234},
                     {"protocol", "http"},
                     {"listener", "web"},
                     {"route", "api"},
                     {"upstream", "backend"},
                     {"server", "10.0.0.1:8080"},
                     {"status", 200},
                     {"bytes_received", 321},
                     {"bytes_sent", 4567},
                     {"total_us", 1500},
                     {"connect_us", 210},
                     {"queue_us", 15},
                     {"first_byte_us", 900},
                     {"attempts", 1},
                     {"reused", false},
                     {"method", "GET"},
                     {"version", "HTTP/1.1"},
                     {"host", "example.com"},
                     {"target", "/a/b?c=d"},
                     {"user_agent", "curl/8.0"},
                     {"referer", "https://example.com/"}};
  CHECK(line == want);
}

TEST_CASE("AccessLog: JSON of a TCP session that failed -> cause, and nothing of HTTP") {
  AccessRecord record;
  record.protocol = AccessRecord::Protocol::kTcp;
  record.client = peer("[2001:db8::7]:9");
  record.listener = "db";
  record.total_us = 3'000'000;
  record.attempts = 2;
  record.ended_by = AccessRecord::EndedBy::kProxy;
  record.cause = "connect_timeout";
  const json line = parsed(record);
  const json want = {{"time", "1970-01-01T00:00:00.000000Z"},
                     {"client", "2001:db8::7"},
                     {"client_port", 9},
                     {"protocol", "tcp"},
                     {"listener", "db"},
                     {"bytes_received", 0},
                     {"bytes_sent", 0},
                     {"total_us", 3'000'000},
                     {"attempts", 2},
                     {"reused", false},
                     {"ended_by", "proxy"},
                     {"cause", "connect_timeout"}};
  CHECK(line == want);
  record.client = {};
  const json unix_line = parsed(record);
  CHECK(unix_line["client"] == "unix");
  CHECK_FALSE(unix_line.contains("client_port"));
  for (const auto& [ended_by, name] : {std::pair{AccessRecord::EndedBy::kClient, "client"},
                                       std::pair{AccessRecord::EndedBy::kServer, "server"}}) {
    record.ended_by = ended_by;
    CHECK(parsed(record)["ended_by"] == name);
  }
}

TEST_CASE("AccessLog: JSON escaping -> text comes back, bytes that are not UTF-8 as \\u00XX") {
  AccessRecord record = example();
  const std::string hostile = "a\"b\\c\n\r\t\x01\x1f\x7f/\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80";
  record.user_agent = hostile;
  CHECK(parsed(record)["user_agent"] == hostile);

  // Not UTF-8: lone and cut-off bytes, overlong forms, a surrogate, beyond U+10FFFF.
  for (const std::string& bytes :
       {std::string("\x80"), std::string("\xff"), std::string("\xc3"), std::string("\xe2\x82"),
        std::string("\xc0\xaf"), std::string("\xe0\x80\xaf"), std::string("\xed\xa0\x80"),
        std::string("\xf4\x90\x80\x80"), std::string("\xf0\x80\x80\x80"),
        std::string("\xf5\x80\x80\x80")}) {
    record.target = bytes;
    std::string latin1;  // What \u00XX of each byte reads as.
    for (const char c : bytes) {
      const auto byte = static_cast<uint8_t>(c);
      latin1 += static_cast<char>(0xc0 | (byte >> 6));
      latin1 += static_cast<char>(0x80 | (byte & 0x3f));
    }
    CHECK(parsed(record)["target"] == latin1);
  }
  record.target = std::string_view("a\0b", 3);
  CHECK(parsed(record)["target"] == std::string("a\0b", 3));
}

// Goal: whatever the length and the bytes, the line is valid JSON and fits. Method: every room.
TEST_CASE("AccessLog: JSON does not fit -> cut from the end, still valid, marked") {
  AccessRecord record = example();
  const std::string path = "/" + std::string(300, 'p');
  const std::string agent = std::string(100, 'u') + "\xc3\xa9\x01\"" + std::string(100, 'v');
  const std::string referer(200, 'r');
  record.target = path;
  record.user_agent = agent;
  record.referer = referer;
  for (size_t room = AccessLogFormatter::kRoomMin; room < 1500; ++room) {
    CAPTURE(room);
    const json line = parsed(record, room);
    REQUIRE(line.is_object());
    const std::string target = line.value("target", "");
    const std::string user_agent = line.value("user_agent", "");
    REQUIRE(path.starts_with(target));
    REQUIRE(agent.starts_with(user_agent));
    if (line.contains("user_agent")) REQUIRE(target == path);
    if (line.contains("referer")) REQUIRE(user_agent == agent);
    REQUIRE(line.contains("truncated") == (line.value("referer", "") != referer));
    REQUIRE(line["client"] == "192.0.2.7");
  }
  CHECK_FALSE(parsed(record, 1400).contains("truncated"));
}

TEST_CASE("AccessLog: random bytes and rooms -> valid JSON, and one printable CLF line") {
  std::mt19937 random(7);
  AccessLogFormatter formatter;
  for (int round = 0; round < 3000; ++round) {
    CAPTURE(round);
    std::string texts[12];
    for (std::string& text : texts) {
      text.resize(random() % 80);
      for (char& c : text) c = static_cast<char>(random() % 3 == 0 ? random() % 256 : 'a');
    }
    AccessRecord record = example();
    record.listener = texts[0];
    record.route = texts[1];
    record.upstream = texts[2];
    record.server = texts[3];
    record.cause = texts[4];
    record.method = texts[5];
    record.version = texts[6];
    record.host = texts[7];
    record.target = texts[8];
    record.user_agent = texts[9];
    record.referer = texts[10];
    record.status = static_cast<uint16_t>(random());
    record.bytes_sent = UINT64_MAX;
    if (random() % 2 == 0) record.client = peer("[2001:1111:2222:3333:4444:5555:6666:7777]:65535");
    // Exactly as large as promised, so that ASan sees one byte too many.
    std::vector<char> room(AccessLogFormatter::kRoomMin + random() % 1500);
    REQUIRE(json::parse(formatter.json(record, room), nullptr, false).is_object());
    for (const std::string_view line :
         {formatter.combined(record, room), formatter.common(record, room)}) {
      for (const char c : line) REQUIRE((c >= 0x20 && c < 0x7f));
    }
    const std::string_view line = formatter.combined(record, room);
    REQUIRE(line.ends_with('"'));
    // Quotes inside are escaped: six delimit three fields.
    int quotes = 0;
    for (size_t i = 0; i < line.size(); ++i) {
      if (line[i] == '\\') {
        ++i;
      } else if (line[i] == '"') {
        ++quotes;
      }
    }
    REQUIRE(quotes == 6);
  }
}

TEST_CASE("AccessLog: CLF and combined -> Apache's layout") {
  AccessRecord record = example();
  const std::string start = "192.0.2.7 - - [27/Nov/2026:13:14:15 +0000] ";
  CHECK(combined(record) ==
        start + "\"GET /a/b?c=d HTTP/1.1\" 200 4567 \"https://example.com/\" \"curl/8.0\"");
  AccessLogFormatter formatter;
  std::vector<char> room(1024);
  CHECK(formatter.common(record, room) == start + "\"GET /a/b?c=d HTTP/1.1\" 200 4567");

  record.referer = "";
  record.user_agent = "a\"b\\c\n\x01\xc3\xa9\x7f";
  record.bytes_sent = 0;
  CHECK(combined(record) ==
        start + "\"GET /a/b?c=d HTTP/1.1\" 200 - \"-\" \"a\\\"b\\\\c\\n\\x01\\xc3\\xa9\\x7f\"");

  AccessRecord tcp;
  tcp.timestamp_us = record.timestamp_us;
  tcp.client = record.client;
  tcp.bytes_sent = 9;
  CHECK(combined(tcp) == start + "\"-\" - 9 \"-\" \"-\"");
}

TEST_CASE("AccessLog: combined does not fit -> user agent, then referer, then target is cut") {
  AccessRecord record = example();
  const std::string path = "/" + std::string(100, 'p');
  record.target = path;
  const std::string referer(100, 'r');
  const std::string agent(100, 'u');
  record.referer = referer;
  record.user_agent = agent;
  const std::string whole = combined(record);
  CHECK(combined(record, whole.size()) == whole);
  const std::string cut = combined(record, whole.size() - 10);
  CHECK(cut == whole.substr(0, whole.size() - 11) + "\"");
  CHECK(combined(record, 300).find(path + " HTTP/1.1\" 200 4567 \"rrr") != std::string::npos);

  const std::string long_path = "/" + std::string(8000, 'p');
  record.target = long_path;
  const std::string line = combined(record, 1024);
  CHECK(line.size() <= 1024);
  CHECK(line.find("ppp HTTP/1.1\" 200 4567 \"r") != std::string::npos);
}

TEST_CASE("AccessLogFormatter: the second changes, either way -> the date follows") {
  AccessLogFormatter formatter;
  std::vector<char> room(1024);
  AccessRecord record = example();
  for (const auto& [us, text] : {std::pair{int64_t{951'782'400'000'000}, "29/Feb/2000:00:00:00"},
                                 std::pair{int64_t{951'782'399'999'999}, "28/Feb/2000:23:59:59"},
                                 std::pair{int64_t{4'102'444'800'000'000}, "01/Jan/2100:00:00:00"},
                                 std::pair{int64_t{-5}, "01/Jan/1970:00:00:00"}}) {
    record.timestamp_us = us;
    CHECK(formatter.common(record, room).find(text) != std::string_view::npos);
  }
}
