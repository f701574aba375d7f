// tests/lb/admin_socket_test.cc - the file of the admin API: its mode, its owner, its end.
#include "lb/admin/admin_socket.h"

#include <doctest/doctest.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <string>

#include "core/address.h"

using namespace ringway;

namespace {

struct Folder {
  Folder() { REQUIRE(mkdtemp(path) != nullptr); }
  ~Folder() {
    unlink(socket().c_str());
    rmdir(path);
  }
  [[nodiscard]] std::string socket() const { return std::string(path) + "/admin"; }
  [[nodiscard]] std::unique_ptr<AdminSocket> open(std::string& error, uint32_t mode = 0600) const {
    config::Admin admin;
    admin.socket = socket();
    admin.mode = mode;
    return AdminSocket::open(admin, error);
  }
  char path[32] = "/tmp/ringway-admin-XXXXXX";
};

uint32_t mode_of(const std::string& path) {
  struct stat file {};
  return stat(path.c_str(), &file) == 0 ? file.st_mode & 07777 : UINT32_MAX;
}

bool takes_clients(const std::string& path) {
  ServerAddress address;
  REQUIRE(parse_address("unix:" + path, address));
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool good = connect(fd, address.get(), address.length) == 0;
  close(fd);
  return good;
}

}  // namespace

// Goal: the mode is the access rule, so it is the configured one whatever the umask.
TEST_CASE(
    "AdminSocket: open -> a socket with exactly that mode; changed on demand, gone at the end") {
  const Folder folder;
  std::string error;
  const mode_t before = umask(0);
  for (const mode_t mask : {mode_t{0}, mode_t{077}}) {
    umask(mask);
    const auto admin = folder.open(error, 0660);
    REQUIRE(admin != nullptr);
    CHECK(admin->path() == folder.socket());
    CHECK(mode_of(folder.socket()) == 0660);
    CHECK(admin->present());
    CHECK(admin->quiet());
    CHECK(admin->set_mode(0600) == 0);
    CHECK(mode_of(folder.socket()) == 0600);
    CHECK(takes_clients(folder.socket()));
  }
  umask(before);
  CHECK(mode_of(folder.socket()) == UINT32_MAX);
}

TEST_CASE(
    "AdminSocket: another one has the path -> refused with the path and why; a dead one goes") {
  const Folder folder;
  std::string error;
  auto first = folder.open(error);
  REQUIRE(first != nullptr);
  CHECK(folder.open(error) == nullptr);
  CHECK(error.find("admin.socket cannot bind " + folder.socket()) == 0);
  CHECK(error.find("another process listens there") != std::string::npos);
  CHECK(first->present());
  // What a killed process leaves: a file that nobody listens on.
  first.reset();
  ServerAddress address;
  REQUIRE(parse_address("unix:" + folder.socket(), address));
  const int dead = open_listener(address);
  REQUIRE(dead >= 0);
  close(dead);
  CHECK(mode_of(folder.socket()) != UINT32_MAX);
  const auto second = folder.open(error);
  REQUIRE(second != nullptr);
  CHECK(takes_clients(folder.socket()));
}

TEST_CASE(
    "AdminSocket: a path that is none, or a file that is no socket -> refused, file untouched") {
  config::Admin admin;
  admin.socket = std::string(200, 'x');
  std::string error;
  CHECK(AdminSocket::open(admin, error) == nullptr);
  CHECK(error.find("is no path of a socket") != std::string::npos);
  const Folder folder;
  std::ofstream(folder.socket()) << "precious";
  CHECK(folder.open(error) == nullptr);
  CHECK(error.find("it is no socket") != std::string::npos);
  std::string text;
  std::ifstream(folder.socket()) >> text;
  CHECK(text == "precious");
}

// Goal: a successor that took over the path in between keeps its file.
TEST_CASE("AdminSocket: the file was removed or replaced -> noticed, and the other one's stays") {
  const Folder folder;
  std::string error;
  auto first = folder.open(error);
  REQUIRE(first != nullptr);
  REQUIRE(unlink(folder.socket().c_str()) == 0);
  CHECK_FALSE(first->present());
  CHECK(first->set_mode(0666) == ENOENT);
  const auto second = folder.open(error);
  REQUIRE(second != nullptr);
  CHECK_FALSE(first->present());
  first.reset();
  CHECK(second->present());
  CHECK(takes_clients(folder.socket()));
}
