// tests/pool/conn_key_test.cc - what makes two keys equal, and that nothing else does.
#include "pool/conn_key.h"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <sys/un.h>

#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/address.h"

namespace ringway {
namespace {

constexpr HashKey kSecret{.low = 3, .high = 4};

ServerAddress address_of(const std::string& text) {
  ServerAddress address;
  REQUIRE(parse_address(text, address));
  return address;
}

// The bytes alone: two buffers, so that nothing is shared by accident.
struct Built {
  explicit Built(const ConnKeyParts& parts, HashKey secret = kSecret) {
    auto buffer = std::make_unique<ConnKeyBuffer>();
    const ConnKey key = buffer->build(parts, secret);
    bytes = key.bytes;
    hash = key.hash;
    single_use = key.single_use;
  }
  std::string bytes;
  uint64_t hash = 0;
  bool single_use = false;
};

void check_differ(const ConnKeyParts& a, const ConnKeyParts& b) {
  const Built left(a);
  const Built right(b);
  CHECK(left.bytes != right.bytes);
  CHECK(left.hash != right.hash);
}

void check_equal(const ConnKeyParts& a, const ConnKeyParts& b) {
  const Built left(a);
  const Built right(b);
  CHECK(left.bytes == right.bytes);
  CHECK(left.hash == right.hash);
}

struct Unix {
  Unix(std::string_view path, bool abstract) {
    address.sun_family = AF_UNIX;
    char* at = address.sun_path;
    if (abstract) *at++ = '\0';
    memcpy(at, path.data(), path.size());
    length =
        static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + (abstract ? 1 : 0));
  }
  [[nodiscard]] ConnKeyParts parts() const {
    return {.destination = reinterpret_cast<const sockaddr*>(&address),
            .destination_length = length};
  }
  sockaddr_un address{};
  socklen_t length = 0;
};

}  // namespace

// Method: from a key with every field set, each single change gives another key, and so do two
// different changes.
TEST_CASE("ConnKey: each field flips the key; equal inputs give equal bytes") {
  const ServerAddress there = address_of("10.0.0.1:80");
  const ServerAddress there_port = address_of("10.0.0.1:81");
  const ServerAddress there_ip = address_of("10.0.0.2:80");
  const ServerAddress there_v6 = address_of("[::ffff:10.0.0.1]:80");
  const ServerAddress here = address_of("10.0.0.9:1000");
  const ServerAddress here_ip = address_of("10.0.0.8:1000");
  const ServerAddress here_port = address_of("10.0.0.9:1001");
  const ConnKeyParts all{.destination = there.get(),
                         .destination_length = there.length,
                         .source = here.get(),
                         .source_length = here.length,
                         .source_port = true,
                         .interface = "eth0",
                         .network_namespace = "blue",
                         .mark = 7,
                         .has_mark = true,
                         .tos = 7,
                         .has_tos = true,
                         .alpn = "h2",
                         .tls_profile = 1,
                         .sni = "a.example",
                         .proxy_header = "PROXY TCP4 1.1.1.1 2.2.2.2 3 4\r\n",
                         .pool_name = "a"};
  const auto to = [](ConnKeyParts& parts, const ServerAddress& address) {
    parts.destination = address.get();
    parts.destination_length = address.length;
  };
  const auto from = [](ConnKeyParts& parts, const ServerAddress& address) {
    parts.source = address.get();
    parts.source_length = address.length;
  };
  using Change = std::function<void(ConnKeyParts&)>;
  const std::vector<Change> changes = {
      [&](ConnKeyParts& parts) { to(parts, there_port); },
      [&](ConnKeyParts& parts) { to(parts, there_ip); },
      [&](ConnKeyParts& parts) { to(parts, there_v6); },
      [&](ConnKeyParts& parts) { parts.destination = nullptr; },
      [&](ConnKeyParts& parts) { from(parts, here_ip); },
      [&](ConnKeyParts& parts) { from(parts, here_port); },
      [&](ConnKeyParts& parts) { parts.source_port = false; },
      [&](ConnKeyParts& parts) { parts.source = nullptr; },
      [&](ConnKeyParts& parts) { parts.interface = "eth1"; },
      [&](ConnKeyParts& parts) { parts.interface = {}; },
      [&](ConnKeyParts& parts) { parts.network_namespace = "red"; },
      [&](ConnKeyParts& parts) { parts.network_namespace = {}; },
      [&](ConnKeyParts& parts) { parts.mark = 8; },
      [&](ConnKeyParts& parts) { parts.mark = 0; },
      [&](ConnKeyParts& parts) { parts.has_mark = false; },
      [&](ConnKeyParts& parts) { parts.tos = 8; },
      [&](ConnKeyParts& parts) { parts.has_tos = false; },
      [&](ConnKeyParts& parts) { parts.alpn = "http/1.1"; },
      [&](ConnKeyParts& parts) { parts.alpn = {}; },
      [&](ConnKeyParts& parts) { parts.tls_profile = 2; },
      [&](ConnKeyParts& parts) { parts.tls_profile = 0; },
      [&](ConnKeyParts& parts) { parts.sni = "b.example"; },
      [&](ConnKeyParts& parts) { parts.sni = {}; },
      [&](ConnKeyParts& parts) { parts.proxy_header = "PROXY TCP4 1.1.1.1 2.2.2.2 5 4\r\n"; },
      [&](ConnKeyParts& parts) { parts.proxy_header = {}; },
      [&](ConnKeyParts& parts) { parts.pool_name = "b"; },
      [&](ConnKeyParts& parts) { parts.pool_name = {}; }};
  check_equal(all, all);
  std::vector<ConnKeyParts> changed(changes.size(), all);
  for (size_t i = 0; i < changes.size(); ++i) {
    CAPTURE(i);
    changes[i](changed[i]);
    check_differ(all, changed[i]);
    check_equal(changed[i], changed[i]);
    for (size_t j = 0; j < i; ++j) {
      CAPTURE(j);
      check_differ(changed[i], changed[j]);
    }
  }
}

TEST_CASE("ConnKey: fields do not run into each other") {
  check_differ({.interface = "ab", .network_namespace = "c"},
               {.interface = "a", .network_namespace = "bc"});
  check_differ({.proxy_header = "x"}, {.pool_name = "x"});
  check_differ({.mark = 7, .has_mark = true}, {.tos = 7, .has_tos = true});
  check_differ({.interface = "a"}, {.network_namespace = "a"});
  // One field that reads like two.
  const Built two({.alpn = "h2", .pool_name = "p"});
  check_differ({.alpn = "h2", .pool_name = "p"}, {.alpn = std::string_view(two.bytes).substr(4)});
}

TEST_CASE("ConnKey: without its port a source address is one key for all of a client's ports") {
  const ServerAddress one = address_of("192.0.2.1:1000");
  const ServerAddress two = address_of("192.0.2.1:2000");
  const ServerAddress six_one = address_of("[2001:db8::1]:1000");
  const ServerAddress six_two = address_of("[2001:db8::1]:2000");
  check_equal({.source = one.get(), .source_length = one.length},
              {.source = two.get(), .source_length = two.length});
  check_equal({.source = six_one.get(), .source_length = six_one.length},
              {.source = six_two.get(), .source_length = six_two.length});
  check_differ({.source = one.get(), .source_length = one.length, .source_port = true},
               {.source = two.get(), .source_length = two.length, .source_port = true});
  check_differ({.source = six_one.get(), .source_length = six_one.length, .source_port = true},
               {.source = six_two.get(), .source_length = six_two.length, .source_port = true});
}

TEST_CASE("ConnKey: an IPv6 scope tells two link-local addresses apart") {
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_port = htons(80);
  REQUIRE(inet_pton(AF_INET6, "fe80::1", &address.sin6_addr) == 1);
  sockaddr_in6 other = address;
  other.sin6_scope_id = 2;
  const auto parts = [](const sockaddr_in6& from) {
    return ConnKeyParts{.destination = reinterpret_cast<const sockaddr*>(&from),
                        .destination_length = sizeof from};
  };
  check_differ(parts(address), parts(other));
  // What no peer sees does not count.
  other = address;
  other.sin6_flowinfo = 9;
  check_equal(parts(address), parts(other));
}

TEST_CASE("ConnKey: unix paths and abstract names") {
  check_differ(Unix("/run/a", false).parts(), Unix("/run/b", false).parts());
  check_differ(Unix("a", false).parts(), Unix("a", true).parts());
  check_differ(Unix("a", true).parts(), Unix("b", true).parts());
  // An abstract name is as long as it says: a NUL is part of it.
  check_differ(Unix(std::string_view("a\0", 2), true).parts(), Unix("a", true).parts());
  check_differ(Unix(std::string_view("a\0b", 3), true).parts(),
               Unix(std::string_view("a\0c", 3), true).parts());
  // A path ends at its NUL, whatever length was passed.
  const Unix path("/run/a", false);
  ConnKeyParts longer = path.parts();
  longer.destination_length = sizeof(sockaddr_un);
  check_equal(path.parts(), longer);
  // One that fills sun_path has no NUL.
  const std::string full(sizeof(sockaddr_un::sun_path), 'x');
  std::string other = full;
  other.back() = 'y';
  check_differ(Unix(full, false).parts(), Unix(other, false).parts());
}

// haproxy b5b40a984: families that nobody thought of were not looked at.
TEST_CASE("ConnKey: an unknown address family counts with all of its bytes") {
  sockaddr_storage one{};
  one.ss_family = AF_VSOCK;
  sockaddr_storage two = one;
  reinterpret_cast<char*>(&two)[15] = 1;
  const auto parts = [](const sockaddr_storage& from, socklen_t length) {
    return ConnKeyParts{.destination = reinterpret_cast<const sockaddr*>(&from),
                        .destination_length = length};
  };
  check_differ(parts(one, 16), parts(two, 16));
  check_equal(parts(one, 15), parts(two, 15));
  check_differ(parts(one, 15), parts(one, 16));
}

TEST_CASE("ConnKey: case and a final dot of an SNI do not count; without TLS it does not at all") {
  const auto with = [](std::string_view sni) { return ConnKeyParts{.tls_profile = 1, .sni = sni}; };
  check_equal(with("a.example"), with("A.ExAmPlE"));
  check_equal(with("a.example"), with("a.example."));
  check_equal(with("a.example"), with("A.EXAMPLE."));
  check_differ(with("a.example"), with("b.example"));
  check_differ(with("a.example"), with("a.example.."));
  check_differ(with("[a"), with("{a"));  // Letters only.
  check_equal({.sni = "a.example"}, {.sni = "b.example"});
  check_equal({.sni = "a.example"}, {});
}

TEST_CASE("ConnKey: case of other fields counts") {
  check_differ({.pool_name = "a"}, {.pool_name = "A"});
  check_differ({.interface = "a"}, {.interface = "A"});
  check_differ({.alpn = "h2"}, {.alpn = "H2"});
}

TEST_CASE("ConnKey: what does not fit makes the key single use, exact boundary") {
  constexpr size_t kHead = 4;
  const std::string fits(ConnKeyBuffer::kBytes - kHead, 'x');
  const Built full({.pool_name = fits});
  CHECK_FALSE(full.single_use);
  CHECK(full.bytes.size() == ConnKeyBuffer::kBytes);
  CHECK(Built({.pool_name = fits + "x"}).single_use);
  CHECK(Built({.alpn = "h2", .pool_name = fits}).single_use);
  CHECK(Built({.tls_profile = 1, .sni = fits}).single_use);
  CHECK(Built({.proxy_header = fits, .pool_name = "x"}).single_use);
  const std::string huge(100'000, 'x');
  CHECK(Built({.tls_profile = 1, .sni = huge, .proxy_header = huge, .pool_name = huge}).single_use);
  CHECK(Built({.single_use = true}).single_use);
  CHECK_FALSE(Built({}).single_use);
}

TEST_CASE("ConnKey: the buffer is used again without a trace of what it held") {
  ConnKeyBuffer buffer;
  const std::string huge(100'000, 'x');
  REQUIRE(buffer.build({.pool_name = huge}, kSecret).single_use);
  const ConnKey again = buffer.build({.pool_name = "x"}, kSecret);
  CHECK_FALSE(again.single_use);
  CHECK(again.bytes == Built({.pool_name = "x"}).bytes);
}

TEST_CASE("ConnKey: extended by a request's part it is the key built whole") {
  ServerAddress address;
  REQUIRE(parse_address("10.0.0.1:80", address));
  const ConnKeyParts fixed{.destination = address.get(),
                           .destination_length = address.length,
                           .alpn = "http/1.1",
                           .tls_profile = 3,
                           .sni = "a.example"};
  ConnKeyBuffer buffer;
  const std::string bytes(buffer.build(fixed, kSecret).bytes);
  for (const std::string& name :
       {std::string(), std::string("a.example\n"), std::string(9'000, 'x')}) {
    ConnKeyParts whole = fixed;
    whole.proxy_header = "PROXY UNKNOWN\r\n";
    whole.pool_name = name;
    const Built expected(whole);
    const ConnKey key =
        buffer.extend(bytes, {.proxy_header = whole.proxy_header, .pool_name = name}, kSecret);
    CHECK(key.single_use == expected.single_use);
    if (key.single_use) continue;
    CHECK(key.bytes == expected.bytes);
    CHECK(key.hash == expected.hash);
  }
}

TEST_CASE("ConnKey: offering HTTP/1.1 alone makes another key") {
  ConnKeyBuffer buffer;
  const std::string fixed(buffer.build({.tls_profile = 1}, kSecret).bytes);
  const std::string plain(buffer.extend(fixed, {.pool_name = "x"}, kSecret).bytes);
  const ConnKey key = buffer.extend(fixed, {.pool_name = "x", .only_http1 = true}, kSecret);
  CHECK(key.only_http1);
  CHECK(key.bytes != plain);
  CHECK(key.bytes.starts_with(plain));
}

TEST_CASE("ConnKey: the hash depends on the process's secret, the bytes do not") {
  const Built one({.pool_name = "x"});
  const Built two({.pool_name = "x"}, {.low = 5, .high = 6});
  CHECK(one.bytes == two.bytes);
  CHECK(one.hash != two.hash);
}

}  // namespace ringway
