// tests/proto/http1_host_test.cc - Host, absolute-form, and whether the two agree (RFC 9112 3.2).
#include "tests/proto/http1_parse.h"

namespace ringway::http1 {
namespace {

struct HostRow {
  const char* method;
  const char* target;
  const char* fields;     // complete lines
  const char* authority;  // nullptr: kBadHost
  const char* path = "/";
};

constexpr HostRow kRows[] = {
    // Host alone.
    {"GET", "/", "Host: a\r\n", "a"},
    {"GET", "/", "Host: A.Example\r\n", "A.Example"},
    {"GET", "/", "Host: a:80\r\n", "a:80"},
    {"GET", "/", "Host: a:65535\r\n", "a:65535"},
    {"GET", "/", "Host: a:\r\n", "a:"},
    {"GET", "/", "Host: a_b-c.d~e\r\n", "a_b-c.d~e"},
    {"GET", "/", "Host: %41b\r\n", "%41b"},
    {"GET", "/", "Host: 192.0.2.1:8080\r\n", "192.0.2.1:8080"},
    {"GET", "/", "Host: [2001:db8::1]\r\n", "[2001:db8::1]"},
    {"GET", "/", "Host: [::1]:443\r\n", "[::1]:443"},
    {"GET", "/", "Host: [::ffff:192.0.2.1]\r\n", "[::ffff:192.0.2.1]"},
    {"GET", "/", "X: y\r\n", nullptr},
    {"GET", "/", "Host:\r\n", nullptr},
    {"GET", "/", "Host: \r\n", nullptr},
    {"GET", "/", "Host: a\r\nHost: a\r\n", nullptr},
    {"GET", "/", "Host: a\r\nhOST: b\r\n", nullptr},
    {"GET", "/", "Host: a\r\nHost:\r\n", nullptr},
    {"GET", "/", "Host: a, b\r\n", nullptr},
    {"GET", "/", "Host: a,b\r\n", nullptr},
    {"GET", "/", "Host: a b\r\n", nullptr},
    {"GET", "/", "Host: a\tb\r\n", nullptr},
    {"GET", "/", "Host: u@a\r\n", nullptr},
    {"GET", "/", "Host: u:p@a\r\n", nullptr},
    {"GET", "/", "Host: a/b\r\n", nullptr},
    {"GET", "/", "Host: a?b\r\n", nullptr},
    {"GET", "/", "Host: a#b\r\n", nullptr},
    {"GET", "/", "Host: a\\b\r\n", nullptr},
    {"GET", "/", "Host: http://a\r\n", nullptr},
    {"GET", "/", "Host: \"a\"\r\n", nullptr},
    {"GET", "/", "Host: <a>\r\n", nullptr},
    {"GET", "/", "Host: \xc3\xa4\r\n", nullptr},
    {"GET", "/", "Host: a%4\r\n", nullptr},
    {"GET", "/", "Host: a%zz\r\n", nullptr},
    {"GET", "/", "Host: :80\r\n", nullptr},
    {"GET", "/", "Host: a:65536\r\n", nullptr},
    {"GET", "/", "Host: a:123456\r\n", nullptr},
    {"GET", "/", "Host: a:8o\r\n", nullptr},
    {"GET", "/", "Host: a:-1\r\n", nullptr},
    {"GET", "/", "Host: a:80:80\r\n", nullptr},
    {"GET", "/", "Host: ::1\r\n", nullptr},
    {"GET", "/", "Host: [::1\r\n", nullptr},
    {"GET", "/", "Host: [::1]80\r\n", nullptr},
    {"GET", "/", "Host: [::1]:x\r\n", nullptr},
    {"GET", "/", "Host: [fe80::1%25eth0]\r\n", nullptr},
    {"GET", "/", "Host: [v1.a]\r\n", nullptr},
    {"GET", "/", "Host: [a]\r\n", nullptr},
    {"GET", "/", "Host: []\r\n", nullptr},
    // Absolute-form.
    {"GET", "http://a/x", "Host: a\r\n", "a", "/x"},
    {"GET", "HTTP://a/x", "Host: A\r\n", "a", "/x"},
    {"GET", "https://a/x", "Host: a\r\n", "a", "/x"},
    {"GET", "http://a:80/x", "Host: a\r\n", "a:80", "/x"},
    {"GET", "http://a/x", "Host: a:80\r\n", "a", "/x"},
    {"GET", "http://a:/x", "Host: a:80\r\n", "a:", "/x"},
    {"GET", "https://a:443/x", "Host: a\r\n", "a:443", "/x"},
    {"GET", "HTTPS://a/x", "Host: a:443\r\n", "a", "/x"},
    {"GET", "http://a:00080/", "Host: a\r\n", "a:00080"},
    {"GET", "http://[::1]/", "Host: [::1]\r\n", "[::1]"},
    {"GET", "http://a", "Host: a\r\n", "a"},
    {"GET", "http://a?b", "Host: a\r\n", "a"},
    {"OPTIONS", "http://a", "Host: a\r\n", "a"},
    {"GET", "http://a//b", "Host: a\r\n", "a", "//b"},
    {"GET", "http://a/x", "Host: b\r\n", nullptr},
    {"GET", "http://a/x", "Host: a:81\r\n", nullptr},
    {"GET", "https://a/x", "Host: a:80\r\n", nullptr},
    {"GET", "http://a:443/x", "Host: a\r\n", nullptr},
    {"GET", "http://a/x", "X: y\r\n", nullptr},
    {"GET", "http://a/x", "Host:\r\n", nullptr},
    {"GET", "http://a/x", "Host: a\r\nHost: a\r\n", nullptr},
    {"GET", "http://u@a/", "Host: a\r\n", nullptr},
    {"GET", "http://a@b/", "Host: b\r\n", nullptr},
    {"GET", "http:///x", "Host: a\r\n", nullptr},
    {"GET", "http://a,b/", "Host: a,b\r\n", nullptr},
    {"GET", "http://a:99999/", "Host: a:99999\r\n", nullptr},
};

TEST_CASE("HeadParser: Host and authority -> one host, or refused") {
  for (const HostRow& row : kRows) {
    const std::string text =
        std::string(row.method) + " " + row.target + " HTTP/1.1\r\n" + row.fields + "\r\n";
    INFO(text);
    const Parsed parsed = parse_all_ways(text);
    if (row.authority == nullptr) {
      // llhttp's own URL grammar refuses some of them earlier, which is as good.
      const bool refused =
          parsed.error == HeadError::kBadHost || parsed.error == HeadError::kBadTarget;
      CHECK(refused);
      continue;
    }
    REQUIRE(parsed.done());
    CHECK(parsed.text(parsed.head.authority) == row.authority);
    CHECK(parsed.path() == row.path);
    CHECK(parsed.head.absolute_form == (row.target[0] != '/'));
  }
}

TEST_CASE("HeadParser: HTTP/1.0 -> Host may be missing or empty, but not doubtful") {
  const Parsed none = parse_all_ways("GET / HTTP/1.0\r\n\r\n");
  REQUIRE(none.done());
  CHECK(none.head.authority.len == 0);
  CHECK(parse_all_ways("GET / HTTP/1.0\r\nHost:\r\n\r\n").done());
  const Parsed absolute = parse_all_ways("GET http://a/ HTTP/1.0\r\n\r\n");
  REQUIRE(absolute.done());
  CHECK(absolute.text(absolute.head.authority) == "a");
  CHECK(parse_all_ways("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n").error ==
        HeadError::kBadHost);
  CHECK(parse_all_ways("GET / HTTP/1.0\r\nHost: a,b\r\n\r\n").error == HeadError::kBadHost);
}

TEST_CASE("HeadParser: query and absolute-form -> query is told from path") {
  const Parsed empty = parse_all_ways("GET /a? HTTP/1.1\r\nHost: a\r\n\r\n");
  REQUIRE(empty.done());
  CHECK(empty.head.has_query);
  CHECK(empty.head.query.len == 0);
  const Parsed absolute = parse_all_ways("GET http://a?b/c HTTP/1.1\r\nHost: a\r\n\r\n");
  REQUIRE(absolute.done());
  CHECK(absolute.path() == "/");
  CHECK(absolute.text(absolute.head.query) == "b/c");
}

}  // namespace
}  // namespace ringway::http1
