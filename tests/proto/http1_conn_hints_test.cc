// tests/proto/http1_conn_hints_test.cc - Keep-Alive limits, and logins that bind a connection.
#include "proto/http1_conn_hints.h"

#include <doctest/doctest.h>

#include <string>

#include "tests/proto/http1_parse.h"

namespace ringway::http1 {
namespace {

KeepAliveHint hint_of(const std::string& fields) {
  const Parsed parsed = parse_cut("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + fields + "\r\n", {},
                                  {.response = true});
  REQUIRE(parsed.done());
  Head head = parsed.head;
  head.base = parsed.bytes.data();
  head.fields = parsed.fields;
  return keep_alive_hint(head);
}

bool binds(const std::string& start, const std::string& fields, bool response) {
  const Parsed parsed = parse_cut(start + fields + "\r\n", {}, {.response = response});
  REQUIRE(parsed.done());
  Head head = parsed.head;
  head.base = parsed.bytes.data();
  head.fields = parsed.fields;
  return binds_connection(head);
}
bool response_binds(const std::string& fields) {
  return binds("HTTP/1.1 401 No\r\nContent-Length: 0\r\n", fields, true);
}
bool request_binds(const std::string& fields) {
  return binds("GET / HTTP/1.1\r\nHost: a\r\n", fields, false);
}

}  // namespace

TEST_CASE("Keep-Alive: the server's limits, in any order and spelling (RFC 2068 19.7.1.1)") {
  struct Row {
    const char* value;
    int64_t timeout_ms;
    uint64_t requests_max;
  };
  constexpr uint64_t kNone = UINT64_MAX;
  const Row rows[] = {
      {"timeout=5, max=100", 5'000, 100},
      {"max=100, timeout=5", 5'000, 100},
      {"max=100,timeout=5", 5'000, 100},
      {"Timeout=5, MAX=100", 5'000, 100},
      {"timeout=5", 5'000, kNone},
      {"max=0", 0, 0},
      {"max=1", 0, 1},
      {"timeout=0", 1'000, kNone},  // "At once" is not "no limit".
      {"timeout=99999999", 86'400'000, kNone},
      {"timeout=18446744073709551616, max=3", 0, 3},  // Too large for a number: not said.
      {"timeout=-1", 0, kNone},
      {"timeout=", 0, kNone},
      {"timeout", 0, kNone},
      {"=5", 0, kNone},
      {"xtimeout=5", 0, kNone},
      {"x=1, timeout=5, y=2", 5'000, kNone},
      {", ,timeout=5,,", 5'000, kNone},
      {"max=18446744073709551615", 0, kNone},
      {"timeout=5; max=3", 5'000, kNone},
  };
  for (const Row& row : rows) {
    CAPTURE(std::string(row.value));
    const KeepAliveHint hint = hint_of(std::string("Keep-Alive: ") + row.value + "\r\n");
    CHECK(hint.timeout_ms == row.timeout_ms);
    CHECK(hint.requests_max == row.requests_max);
  }
  CHECK(hint_of("").timeout_ms == 0);
  CHECK(hint_of("").requests_max == kNone);
  CHECK(hint_of("Keep-Alive:\r\n").timeout_ms == 0);
  CHECK(hint_of("X-Keep-Alive: timeout=5\r\n").timeout_ms == 0);
}

// haproxy f1dccedcf, GH#511, GH#581: a variant that was missed served user A as user B.
TEST_CASE("Login: NTLM and Negotiate in any form bind the connection (RFC 4559 6)") {
  for (const char* scheme : {"NTLM", "ntlm", "NtLm", "NTLM TlRMTVNTUAAC", "Negotiate",
                             "negotiate abc==", "NEGOTIATE", "Nego2", "nego2 xyz", "NTLMv9"}) {
    CAPTURE(std::string(scheme));
    const std::string value = std::string(": ") + scheme + "\r\n";
    CHECK(response_binds("WWW-Authenticate" + value));
    CHECK(response_binds("Proxy-Authenticate" + value));
    CHECK(response_binds("www-authenticate" + value));
    CHECK(request_binds("Authorization" + value));
    CHECK(request_binds("Proxy-Authorization" + value));
    CHECK(request_binds("proxy-AUTHORIZATION" + value));
  }
}

TEST_CASE("Login: one among several challenges counts, in one field or in several") {
  CHECK(response_binds("WWW-Authenticate: Basic realm=\"x\"\r\nWWW-Authenticate: NTLM\r\n"));
  CHECK(response_binds("WWW-Authenticate: NTLM\r\nWWW-Authenticate: Basic realm=\"x\"\r\n"));
  CHECK(response_binds("WWW-Authenticate: Basic realm=\"x\", Negotiate\r\n"));
  CHECK(response_binds("WWW-Authenticate: Basic realm=\"x\",NTLM\r\n"));
  CHECK(response_binds("WWW-Authenticate: ,, \t NTLM\r\n"));
  CHECK(response_binds("WWW-Authenticate: Digest a=1, b=2, Negotiate abc==\r\n"));
}

TEST_CASE("Login: schemes that log in each request leave the connection shared") {
  for (const char* value : {"Basic abc", "Bearer ntlm", "Digest realm=NTLM", "NT", "LM", "Neg",
                            "XNTLM", "X-Negotiate", "", ","}) {
    CAPTURE(std::string(value));
    const std::string field = std::string(": ") + value + "\r\n";
    CHECK_FALSE(response_binds("WWW-Authenticate" + field));
    CHECK_FALSE(response_binds("Proxy-Authenticate" + field));
    CHECK_FALSE(request_binds("Authorization" + field));
    CHECK_FALSE(request_binds("Proxy-Authorization" + field));
  }
  // Another field may say what it likes.
  CHECK_FALSE(response_binds("X-Authenticate: NTLM\r\n"));
  CHECK_FALSE(request_binds("Proxy-Authorizatiox: NTLM\r\n"));
  CHECK_FALSE(request_binds("Proxy-Authorization-2: NTLM\r\n"));
  CHECK_FALSE(request_binds("X-Real-Authorization: Negotiate\r\n"));
}

}  // namespace ringway::http1
