// tests/core/local_end_test.cc - what a connection is bound to before it is made.
#include "core/local_end.h"

#include <doctest/doctest.h>
#include <errno.h>
#include <netinet/in.h>
#include <unistd.h>

#include "core/engines.h"
#include "tests/core/loopback.h"

using namespace ringway;

namespace {

LocalEnd from(std::string_view text) {
  LocalEnd local;
  REQUIRE(parse_source(text, local.source));
  return local;
}

// Of documentation: no machine has it.
constexpr std::string_view kForeign = "192.0.2.77";

}  // namespace

TEST_CASE("LocalEnd: a source is an IP address, with or without brackets, and has no port") {
  ServerAddress out;
  for (const char* text : {"10.0.0.5", "2001:db8::5", "[2001:db8::5]", "::1", "0.0.0.0"}) {
    CAPTURE(text);
    REQUIRE(parse_source(text, out));
    CHECK(out.text().ends_with(":0"));
    CHECK(out.text().find(std::string(text).starts_with('[') ? text + 1 : text) < 2);
  }
  for (const char* text :
       {"", "10.0.0.5:80", "[2001:db8::5]:80", "[10.0.0.5]", "unix:/run/a", "eth0", "10.0.0",
        "2001:db8::5]", "[2001:db8::5", "10.0.0.0/8", "fe80::1%lo"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_source(text, out));
  }
}

TEST_CASE("LocalEnd: what this machine does not have is found out, and said") {
  LocalPart failed{};
  CHECK(try_local(AF_INET, from("127.0.0.2"), failed) == 0);
  CHECK(failed == LocalPart::kNone);
  CHECK(local_failure_text(failed, 0).empty());
  CHECK(try_local(AF_INET, from(kForeign), failed) == EADDRNOTAVAIL);
  CHECK(failed == LocalPart::kSource);
  CHECK(local_failure_text(failed, EADDRNOTAVAIL) == "source: not an address of this machine");
  LocalEnd local = from(kForeign);
  local.interface = "rw-no-such-one";
  CHECK(try_local(AF_INET, local, failed) == ENODEV);
  CHECK(failed == LocalPart::kInterface);
  CHECK(local_failure_text(failed, ENODEV) == "socket.interface: no such interface");
  local = {};
  local.mark = 7;
  const int error = try_local(AF_INET, local, failed);
  if (error != 0) {  // Not everybody may.
    CHECK(error == EPERM);
    CHECK(failed == LocalPart::kMark);
    CHECK(local_failure_text(failed, error) == "socket.mark: not permitted, needs CAP_NET_ADMIN");
  }
}

TEST_CASE("Io: connect from an address -> the peer sees it, and no port is held for it") {
  for (const auto& io : engines()) {
    CAPTURE(io->name());
    const int listener = listen_any();
    Acceptor acceptor;
    io->listen(listener, acceptor);
    for (const char* source : {"127.0.0.2", "127.0.0.3"}) {
      CAPTURE(source);
      Recorder side;
      REQUIRE(io->connect(side.socket, bound(listener), from(source)) == 0);
      const size_t before = acceptor.fds.size();
      REQUIRE(
          run_until(*io, [&] { return side.connected == 0 && acceptor.fds.size() == before + 1; }));
      char text[46];
      CHECK(acceptor.last.write_ip(text) == source);
      int no_port = 0;
      socklen_t size = sizeof no_port;
      getsockopt(side.socket.fd(), IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &no_port, &size);
      CHECK(no_port == 1);
      io->close(side.socket);
      CHECK(run_until(*io, [&] { return side.closed == 1; }));
    }
    Recorder side;
    CHECK(io->connect(side.socket, bound(listener), from(kForeign)) == EADDRNOTAVAIL);
    CHECK_FALSE(side.socket.open());
    CHECK(side.socket.local_failure() == LocalPart::kSource);
    // The same one again, without.
    REQUIRE(io->connect(side.socket, bound(listener)) == 0);
    CHECK(side.socket.local_failure() == LocalPart::kNone);
    CHECK(run_until(*io, [&] { return side.connected == 0; }));
    io->close(side.socket);
    CHECK(run_until(*io, [&] { return side.closed == 1; }));
    io->unlisten(listener);
    for (const int fd : acceptor.fds) io->discard(fd);
    ::close(listener);
  }
}

TEST_CASE("Io: connect with a mark and an interface -> they are on the socket") {
  LocalEnd local{.source = {}, .interface = "lo", .mark = 0};
  LocalPart failed{};
  if (try_local(AF_INET, local, failed) == EPERM) return;  // Before Linux 5.7 not for everybody.
  local.mark = 7;
  const bool marks = try_local(AF_INET, local, failed) == 0;
  if (!marks) local.mark = 0;
  for (const auto& io : engines()) {
    CAPTURE(io->name());
    const int listener = listen_any();
    Recorder side;
    REQUIRE(io->connect(side.socket, bound(listener), local) == 0);
    CHECK(run_until(*io, [&] { return side.connected == 0; }));
    char name[16] = {};
    socklen_t size = sizeof name;
    CHECK(getsockopt(side.socket.fd(), SOL_SOCKET, SO_BINDTODEVICE, name, &size) == 0);
    CHECK(std::string_view(name) == "lo");
    uint32_t mark = 0;
    size = sizeof mark;
    CHECK(getsockopt(side.socket.fd(), SOL_SOCKET, SO_MARK, &mark, &size) == 0);
    CHECK(mark == (marks ? 7 : 0));
    io->close(side.socket);
    CHECK(run_until(*io, [&] { return side.closed == 1; }));
    ::close(listener);
  }
}
