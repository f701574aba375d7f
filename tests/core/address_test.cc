// tests/core/address_test.cc
#include "core/address.h"

#include <doctest/doctest.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <string>

using namespace ringway;

namespace {

// The PeerAddress of "ip:port" or "[ip]:port".
PeerAddress peer(std::string_view text) {
  ServerAddress address;
  REQUIRE(parse_address(text, address));
  return PeerAddress::from(*address.get());
}

std::string ip_text(const PeerAddress& address) {
  std::array<char, 46> buffer;
  return std::string(address.write_ip(buffer));
}

}  // namespace

TEST_CASE("parse_address: valid text -> same text again") {
  for (const char* text :
       {"127.0.0.1:80", "0.0.0.0:0", "255.255.255.255:65535", "[::1]:80", "[::]:443",
        "[2001:db8::1:2]:8080", "[fe80::1]:1", "unix:/run/ringway/a.sock", "unix:relative"}) {
    CAPTURE(text);
    ServerAddress address;
    REQUIRE(parse_address(text, address));
    CHECK(address.text() == text);
    ServerAddress again;
    REQUIRE(parse_address(address.text(), again));
    CHECK(address == again);
  }
  ServerAddress mixed;
  REQUIRE(parse_address("[2001:DB8:0:0:0:0:0:1]:1", mixed));
  CHECK(mixed.text() == "[2001:db8::1]:1");
  CHECK(ServerAddress{}.text() == "none");
}

TEST_CASE("parse_address: anything else -> refused") {
  using namespace std::string_view_literals;
  ServerAddress address;
  for (const std::string_view bad : {""sv,
                                     ":"sv,
                                     ":80"sv,
                                     "127.0.0.1"sv,
                                     "127.0.0.1:"sv,
                                     "127.0.0.1:65536"sv,
                                     "127.0.0.1:-1"sv,
                                     "127.0.0.1:+1"sv,
                                     "127.0.0.1: 1"sv,
                                     "127.0.0.1:1 "sv,
                                     "127.1:80"sv,
                                     "1.2.3.4.5:80"sv,
                                     "1.2.3.256:80"sv,
                                     "01.2.3.4:80"sv,
                                     "name:80"sv,
                                     "::1:80"sv,
                                     "[::1]"sv,
                                     "[::1]:"sv,
                                     "[::1:80"sv,
                                     "::1]:80"sv,
                                     "[]:80"sv,
                                     "[1.2.3.4]:80"sv,
                                     "[::1%lo]:80"sv,
                                     "[:::1]:80"sv,
                                     "unix:"sv,
                                     "1.2.3.4\0:80"sv,
                                     "unix:/a\0b"sv}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_address(bad, address));
  }
  CHECK_FALSE(parse_address("unix:" + std::string(sizeof(sockaddr_un{}.sun_path), 'x'), address));
  CHECK(parse_address("unix:" + std::string(sizeof(sockaddr_un{}.sun_path) - 1, 'x'), address));
}

TEST_CASE("ServerAddress: other port, ip or family -> not equal") {
  ServerAddress a;
  ServerAddress b;
  REQUIRE(parse_address("127.0.0.1:80", a));
  for (const char* other : {"127.0.0.1:81", "127.0.0.2:80", "[::1]:80", "unix:/x"}) {
    CAPTURE(other);
    REQUIRE(parse_address(other, b));
    CHECK_FALSE(a == b);
  }
}

TEST_CASE("PeerAddress: IPv4, IPv6, IPv4-mapped and unix") {
  const PeerAddress v4 = peer("10.1.2.3:4567");
  CHECK(v4.family == PeerAddress::Family::kIPv4);
  CHECK(v4.port == 4567);
  CHECK(v4.ip_bytes().size() == 4);
  CHECK(ip_text(v4) == "10.1.2.3");

  const PeerAddress v6 = peer("[2001:db8::7]:9");
  CHECK(v6.family == PeerAddress::Family::kIPv6);
  CHECK(v6.ip_bytes().size() == 16);
  CHECK(ip_text(v6) == "2001:db8::7");

  CHECK(peer("[::ffff:10.1.2.3]:4567") == v4);

  const PeerAddress none = peer("unix:/x");
  CHECK(none.family == PeerAddress::Family::kNone);
  CHECK(none.ip_bytes().empty());
  CHECK(ip_text(none) == "unix");

  const std::string longest = "2001:1111:2222:3333:4444:5555:6666:7777";
  CHECK(ip_text(peer("[" + longest + "]:1")) == longest);
}

TEST_CASE("Network: parse -> accepted or refused") {
  Network network;
  for (const char* good : {"10.0.0.0/8", "0.0.0.0/0", "10.1.2.3", "10.1.2.3/32", "fd00::/8", "::/0",
                           "::1", "::1/128", "10.128.0.0/9", "::ffff:10.0.0.0/104"}) {
    CAPTURE(good);
    CHECK(Network::parse(good, network));
  }
  using namespace std::string_view_literals;
  for (const std::string_view bad :
       {""sv, "/"sv, "/8"sv, "10.0.0.0/"sv, "10.0.0.0/33"sv, "10.0.0.0/-1"sv, "10.0.0.0/8x"sv,
        "10.0.0.0/256"sv, "10.0.0.1/8"sv, "10.192.0.0/9"sv, "fd00::1/8"sv, "::/129"sv, "10/8"sv,
        "[::1]/128"sv, "10.0.0.0 /8"sv, "10.0.0.0\0/8"sv, "name"sv}) {
    CAPTURE(bad);
    CHECK_FALSE(Network::parse(bad, network));
  }
}

TEST_CASE("Network: contains, by prefix and family") {
  struct Case {
    const char* network;
    const char* address;
    bool inside;
  };
  for (const Case& c : {
           Case{"10.0.0.0/8", "10.255.1.2:1", true},
           Case{"10.0.0.0/8", "11.0.0.0:1", false},
           Case{"10.0.0.0/8", "9.255.255.255:1", false},
           Case{"0.0.0.0/0", "1.2.3.4:1", true},
           Case{"0.0.0.0/0", "[::1]:1", false},
           Case{"::/0", "[2001:db8::]:1", true},
           Case{"::/0", "1.2.3.4:1", false},
           Case{"192.168.4.0/22", "192.168.7.255:1", true},
           Case{"192.168.4.0/22", "192.168.8.0:1", false},
           Case{"192.168.4.0/22", "192.168.3.255:1", false},
           Case{"10.1.2.3", "10.1.2.3:9", true},
           Case{"10.1.2.3", "10.1.2.2:9", false},
           Case{"10.1.2.2/31", "10.1.2.3:9", true},
           Case{"fd00::/8", "[fdff::1]:1", true},
           Case{"fd00::/8", "[fe00::1]:1", false},
           Case{"2001:db8::/33", "[2001:db8:7fff::]:1", true},
           Case{"2001:db8::/33", "[2001:db8:8000::]:1", false},
           Case{"::1", "[::1]:1", true},
           Case{"::1", "[::2]:1", false},
           Case{"10.0.0.0/8", "[::ffff:10.9.9.9]:1", true},
           Case{"::ffff:10.0.0.0/104", "10.9.9.9:1", true},
           Case{"::ffff:10.0.0.0/104", "11.9.9.9:1", false},
           Case{"::/0", "unix:/x", false},
           Case{"0.0.0.0/0", "unix:/x", false},
       }) {
    CAPTURE(c.network);
    CAPTURE(c.address);
    Network network;
    REQUIRE(Network::parse(c.network, network));
    CHECK(network.contains(peer(c.address)) == c.inside);
  }
}

TEST_CASE("open_listener: unix path left behind -> replaced; served or not a socket -> refused") {
  char directory[] = "/tmp/ringway-address-XXXXXX";
  REQUIRE(mkdtemp(directory) != nullptr);
  const std::string path = std::string(directory) + "/sock";
  ServerAddress address;
  REQUIRE(parse_address("unix:" + path, address));

  const int first = open_listener(address);
  REQUIRE(first >= 0);
  CHECK(open_listener(address) == -EADDRINUSE);  // Somebody listens there.
  close(first);
  CHECK(access(path.c_str(), F_OK) == 0);
  const int second = open_listener(address);  // Stale by now.
  CHECK(second >= 0);
  close(second);
  unlink(path.c_str());

  const int file = open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  REQUIRE(file >= 0);
  close(file);
  CHECK(open_listener(address) == -EADDRINUSE);
  CHECK(access(path.c_str(), F_OK) == 0);  // A file of somebody else's is left alone.
  unlink(path.c_str());
  rmdir(directory);
}

// Goal: a restart right after a crash. Method: a child listens and ends, but its socket lives on.
TEST_CASE("open_listener: unix path whose listener has ended but not its socket -> replaced") {
  char directory[] = "/tmp/ringway-address-XXXXXX";
  REQUIRE(mkdtemp(directory) != nullptr);
  const std::string path = std::string(directory) + "/sock";
  ServerAddress address;
  REQUIRE(parse_address("unix:" + path, address));
  const int kept = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(bind(kept, address.get(), address.length) == 0);
  const pid_t child = fork();
  if (child == 0) _exit(listen(kept, 8));
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(status == 0);
  const int next = open_listener(address);
  CHECK(next >= 0);
  CHECK(open_listener(address) == -EADDRINUSE);
  close(next);
  close(kept);
  unlink(path.c_str());
  rmdir(directory);
}

TEST_CASE("open_listener: unix mode -> exactly that, whatever the umask") {
  char directory[] = "/tmp/ringway-address-XXXXXX";
  REQUIRE(mkdtemp(directory) != nullptr);
  const std::string path = std::string(directory) + "/sock";
  ServerAddress address;
  REQUIRE(parse_address("unix:" + path, address));
  for (const mode_t mask : {mode_t{0}, mode_t{0077}}) {
    for (const int mode : {0600, 0660, 0666}) {
      const mode_t before = umask(mask);
      const int fd = open_listener(address, {.unix_mode = mode});
      umask(before);
      REQUIRE(fd >= 0);
      struct stat file {};
      CHECK(stat(path.c_str(), &file) == 0);
      CHECK((file.st_mode & 07777U) == static_cast<mode_t>(mode));
      close(fd);
    }
  }
  unlink(path.c_str());
  rmdir(directory);
}

TEST_CASE("open_listener: same port -> refused alone, shared with reuse_port; v4 beside v6") {
  ServerAddress any;
  REQUIRE(parse_address("127.0.0.1:0", any));
  const int first = open_listener(any, {.reuse_port = true});
  REQUIRE(first >= 0);
  ServerAddress bound;
  bound.length = sizeof bound.storage;
  REQUIRE(getsockname(first, reinterpret_cast<sockaddr*>(&bound.storage), &bound.length) == 0);
  const int second = open_listener(bound, {.reuse_port = true});
  CHECK(second >= 0);
  CHECK(open_listener(bound) == -EADDRINUSE);
  close(first);
  close(second);
}
