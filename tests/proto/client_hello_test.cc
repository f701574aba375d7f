// tests/proto/client_hello_test.cc - TLS ClientHellos in any number of records and segments.
#include "proto/client_hello.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace ringway::tls;

namespace {

constexpr size_t kMax = 32 * 1024;

std::string number(size_t value, size_t bytes) {
  std::string out;
  for (size_t i = bytes; i-- > 0;) out += static_cast<char>(value >> 8 * i);
  return out;
}
std::string vector(const std::string& content, size_t length_bytes) {
  return number(content.size(), length_bytes) + content;
}
std::string extension(size_t type, const std::string& content) {
  return number(type, 2) + vector(content, 2);
}
std::string server_name(const std::string& name) {
  return extension(0, vector(std::string(1, '\0') + vector(name, 2), 2));
}
std::string alpn(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += vector(name, 1);
  return extension(16, vector(list, 2));
}

// A handshake message.
std::string message(const std::string& extensions, bool has_extensions = true) {
  const std::string body = "\x03\x03" + std::string(32, 'r') + vector(std::string(32, 's'), 1) +
                           vector("\x13\x01\x13\x02", 2) + vector(std::string(1, '\0'), 1) +
                           (has_extensions ? vector(extensions, 2) : "");
  return "\x01" + vector(body, 3);
}

// Records of `bytes` bytes each.
std::string records(const std::string& text, size_t bytes = 1 << 14) {
  std::string out;
  for (size_t at = 0; at < text.size(); at += bytes) {
    out += "\x16\x03\x01" + vector(text.substr(at, bytes), 2);
  }
  return out;
}

struct Read {
  HelloStatus status = HelloStatus::kNeedMore;
  std::string server_name;
  std::vector<std::string> alpn;
  bool operator==(const Read&) const = default;
};

Read read(std::string_view bytes, size_t max) {
  // Copies of their own: a read beyond the end would be seen.
  const std::vector<char> copy(bytes.begin(), bytes.end());
  std::vector<char> scratch(max);
  const ClientHello hello = parse_client_hello({copy.data(), copy.size()}, max, scratch);
  Read out{.status = hello.status, .server_name = std::string(hello.server_name), .alpn = {}};
  AlpnReader reader(hello.alpn);
  std::string_view protocol;
  while (reader.next(protocol)) out.alpn.emplace_back(protocol);
  return out;
}

// The same at once and at every cut: what is decided stays decided.
Read read_cut(const std::string& bytes, size_t max = kMax) {
  const Read whole = read(bytes, max);
  bool decided = false;
  for (size_t cut = 0; cut <= bytes.size(); cut += bytes.size() > 2000 ? 97 : 1) {
    const Read some = read(std::string_view(bytes).substr(0, cut), max);
    INFO("cut at " << cut);
    if (some.status == HelloStatus::kNeedMore) {
      CHECK_FALSE(decided);
      continue;
    }
    decided = true;
    CHECK(some == whole);
  }
  return whole;
}

}  // namespace

TEST_CASE("ClientHello: name and protocols -> found, in one record and in records of any size") {
  const std::string text = message(extension(0x0a0a, "") + server_name("db.Example.com") +
                                   extension(43, "abc") + alpn({"h2", "http/1.1"}));
  const Read expected{HelloStatus::kDone, "db.Example.com", {"h2", "http/1.1"}};
  for (const size_t bytes : {1, 2, 3, 4, 5, 7, 50, 100, 16384}) {
    CAPTURE(bytes);
    CHECK(read_cut(records(text, bytes) + "what follows") == expected);
  }
}

TEST_CASE("ClientHello: no name, no protocols, no extensions -> done and empty") {
  const Read none{HelloStatus::kDone, "", {}};
  CHECK(read_cut(records(message(""))) == none);
  CHECK(read_cut(records(message("", false))) == none);
  CHECK(read_cut(records(message(extension(43, "abc")))) == none);
  CHECK(read_cut(records(message(alpn({"h2"})))) == Read{HelloStatus::kDone, "", {"h2"}});
}

TEST_CASE("ClientHello: larger than a record -> read whole, up to the limit") {
  const std::string padding = extension(21, std::string(20'000, '\0'));
  const std::string text = message(padding + server_name("a.example"));
  const std::string bytes = records(text);
  CHECK(read_cut(bytes) == Read{HelloStatus::kDone, "a.example", {}});
  CHECK(read_cut(bytes, bytes.size()) == Read{HelloStatus::kDone, "a.example", {}});
  CHECK(read_cut(bytes, bytes.size() - 1).status == HelloStatus::kTooLong);
  // That it cannot fit shows in its first bytes.
  CHECK(read(bytes.substr(0, 9), 16'000).status == HelloStatus::kTooLong);
  // Nor does it fit if the records' own bytes do not.
  CHECK(read_cut(records(message(server_name("a.example")), 1), 200).status ==
        HelloStatus::kTooLong);
}

TEST_CASE("ClientHello: anything else -> not TLS, at its first byte that shows") {
  for (const char* bytes : {"GET / HTTP/1.1\r\n", "SSH-2.0-x", "\x80\x2e\x01\x03\x01",
                            "\x17\x03\x03", "\x15\x03\x01\x02", "\x16\x02\x01", "PROXY "}) {
    CHECK(read_cut(bytes).status == HelloStatus::kNotTls);
  }
  CHECK(read("", kMax).status == HelloStatus::kNeedMore);
  CHECK(read("\x16", kMax).status == HelloStatus::kNeedMore);
}

TEST_CASE("ClientHello: broken ones -> malformed") {
  const std::string good = message(server_name("a.example"));
  const auto malformed = [](const std::string& bytes) {
    return read_cut(bytes).status == HelloStatus::kMalformed;
  };
  CHECK(malformed("\x16\x03\x01" + number(0, 2) + "x"));                 // an empty record
  CHECK(malformed("\x16\x03\x01" + number(16385, 2) + "x"));             // too large a record
  CHECK(malformed(records("\x02" + good.substr(1))));                    // a ServerHello
  CHECK(malformed(records(good.substr(0, 9)) + "\x17\x03\x03" + "aa"));  // another record inside
  CHECK(malformed(records(good.substr(0, 9)) + "\x16\x01\x03"));
  CHECK(malformed(records(message(extension(0, "")))));
  CHECK(malformed(records(message(extension(0, number(0, 2))))));
  CHECK(malformed(records(message(server_name("")))));
  CHECK(malformed(records(message(server_name(std::string(256, 'a'))))));
  CHECK(malformed(records(message(server_name("a b")))));
  CHECK(malformed(records(message(server_name(std::string("a\0b", 3))))));
  CHECK(malformed(records(message(server_name("a\xc3\xa4")))));
  CHECK(malformed(records(message(server_name("a") + server_name("b")))));
  CHECK(malformed(records(message(alpn({"h2"}) + alpn({"h2"})))));
  CHECK(malformed(records(message(alpn({})))));
  CHECK(malformed(records(message(alpn({""})))));
  CHECK(malformed(records(message(extension(16, vector("\x05h2", 2))))));
  CHECK(malformed(records(message(extension(0, "abcde")))));
  // Two names in one list.
  const std::string one = std::string(1, '\0') + vector("a", 2);
  CHECK(malformed(records(message(extension(0, vector(one + one, 2))))));
  // Each inner length one too large or too small.
  const std::string text = message(alpn({"h2"}) + server_name("a.example"));
  for (const size_t at : {size_t{38}, size_t{72}, size_t{77}, size_t{80}}) {
    for (const int step : {-1, 1}) {
      std::string wrong = text;
      wrong[at] = static_cast<char>(wrong[at] + step);
      INFO("length at " << at);
      CHECK(malformed(records(wrong)));
    }
  }
  CHECK(malformed(records("\x01" + vector("short", 3))));
}

TEST_CASE("ClientHello: a name of an unknown type -> passed over") {
  const std::string other = std::string(1, '\7') + vector("x", 2);
  const std::string host = std::string(1, '\0') + vector("a.example", 2);
  CHECK(read_cut(records(message(extension(0, vector(other + host, 2))))).server_name ==
        "a.example");
  CHECK(read_cut(records(message(extension(0, vector(other, 2))))) ==
        Read{HelloStatus::kDone, "", {}});
}
