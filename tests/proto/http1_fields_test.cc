// tests/proto/http1_fields_test.cc - names by number, and the byte scanner below everything.
#include "proto/http1_fields.h"

#include <doctest/doctest.h>

#include <random>
#include <string>

#include "proto/http1_bytes.h"

namespace ringway::http1 {
namespace {

struct NameRow {
  const char* name;
  FieldId id;
};

constexpr NameRow kNames[] = {
    {"host", FieldId::kHost},
    {"connection", FieldId::kConnection},
    {"content-length", FieldId::kContentLength},
    {"transfer-encoding", FieldId::kTransferEncoding},
    {"upgrade", FieldId::kUpgrade},
    {"expect", FieldId::kExpect},
    {"te", FieldId::kTe},
    {"trailer", FieldId::kTrailer},
    {"keep-alive", FieldId::kKeepAlive},
    {"proxy-connection", FieldId::kProxyConnection},
    {"http2-settings", FieldId::kHttp2Settings},
    {"forwarded", FieldId::kForwarded},
    {"x-forwarded-for", FieldId::kXForwardedFor},
    {"x-forwarded-proto", FieldId::kXForwardedProto},
    {"x-forwarded-host", FieldId::kXForwardedHost},
    {"via", FieldId::kVia},
    {"cookie", FieldId::kCookie},
    {"user-agent", FieldId::kUserAgent},
    {"referer", FieldId::kReferer},
    {"date", FieldId::kDate},
    {"server", FieldId::kServer},
    {"www-authenticate", FieldId::kWwwAuthenticate},
    {"proxy-authenticate", FieldId::kProxyAuthenticate},
    {"authorization", FieldId::kAuthorization},
};

TEST_CASE("field_id_of: every known name, in any case -> its number") {
  static_assert(std::size(kNames) == static_cast<size_t>(FieldId::kAuthorization));
  for (const NameRow& row : kNames) {
    std::string name = row.name;
    INFO(name);
    CHECK(field_id_of(name) == row.id);
    for (char& c : name) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 0x20) : c;
    CHECK(field_id_of(name) == row.id);
    name[0] = static_cast<char>(name[0] | 0x20);
    CHECK(field_id_of(name) == row.id);
  }
}

// A name that differs in one byte only must never be taken for the known one (CVE-2021-40346 began
// with a wrong name length).
TEST_CASE("field_id_of: near misses -> kOther") {
  for (const NameRow& row : kNames) {
    const std::string name = row.name;
    for (size_t at = 0; at < name.size(); ++at) {
      for (int c = 0; c < 256; ++c) {
        std::string other = name;
        other[at] = static_cast<char>(c);
        if (!is_token(other) || equal_nocase(other, name)) continue;
        CHECK(field_id_of(other) == FieldId::kOther);
      }
    }
    CHECK(field_id_of(name + "x") != row.id);
    CHECK(field_id_of(name.substr(1)) != row.id);
    CHECK(field_id_of(name.substr(0, name.size() - 1)) != row.id);
  }
}

TEST_CASE("is_framing_field: what is hop-by-hop or frames, and nothing else") {
  for (const NameRow& row : kNames) {
    INFO(std::string(row.name));
    const std::string_view name = row.name;
    const bool expected = name == "connection" || name == "keep-alive" || name == "te" ||
                          name == "transfer-encoding" || name == "upgrade" ||
                          name == "proxy-connection" || name == "http2-settings" ||
                          name == "content-length";
    CHECK(is_framing_field(row.id) == expected);
    CHECK(is_hop_by_hop(row.id) == (expected && name != "content-length"));
  }
}

TEST_CASE("find_control: any byte at any place -> found exactly when it is a control byte") {
  for (size_t size = 0; size < 40; ++size) {
    for (size_t at = 0; at < size; ++at) {
      for (int c = 0; c < 256; ++c) {
        std::string text(size, 'a');
        text[at] = static_cast<char>(c);
        const char* const end = text.data() + size;
        const bool control = c < 0x20 || c == 0x7f;
        if (find_control(text.data(), end) == (control ? text.data() + at : end)) continue;
        CHECK_MESSAGE(false, "size ", size, " at ", at, " byte ", c);
      }
    }
  }
}

TEST_CASE("find_control: random bytes -> the first control byte, as found one by one") {
  std::minstd_rand random(7);
  for (int round = 0; round < 20000; ++round) {
    std::string text(random() % 70, '\0');
    for (char& c : text) c = static_cast<char>(random() % 16 == 0 ? random() : random() % 96 + 31);
    size_t expected = 0;
    while (expected < text.size() && !is_control(text[expected])) ++expected;
    REQUIRE(find_control(text.data(), text.data() + text.size()) == text.data() + expected);
  }
}

TEST_CASE("ListReader: elements are trimmed and may be empty") {
  ListReader list(" a ,, b\t,");
  std::string_view element;
  for (const char* expected : {"a", "", "b", ""}) {
    REQUIRE(list.next(element));
    CHECK(element == expected);
  }
  CHECK_FALSE(list.next(element));
}

}  // namespace
}  // namespace ringway::http1
