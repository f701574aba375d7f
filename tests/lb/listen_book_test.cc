// tests/lb/listen_book_test.cc - which sockets are opened, kept and forgotten over reloads.
#include "lb/listen_book.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lb/config/load.h"

using namespace ringway;

namespace {

std::unique_ptr<const config::Config> load(const std::string& binds) {
  config::LoadResult loaded =
      config::load_text("version = 1\n[listeners.web]\nbind = [" + binds +
                            "]\n[[routes]]\nname = 'all'\nupstream = 'u'\n[upstreams.u]\n"
                            "servers = [{ address = '127.0.0.1:81' }]\n",
                        "test");
  INFO(config::render(loaded, false));
  REQUIRE(loaded.config != nullptr);
  return std::move(loaded.config);
}

void close_all(const std::vector<std::vector<ListenFd>>& orders) {
  for (const auto& order : orders) {
    for (const ListenFd& fd : order) {
      if (fd.fd >= 0) close(fd.fd);
    }
  }
}

}  // namespace

TEST_CASE("ListenBook: an address -> a socket for each shard, all on one port") {
  ListenBook book(3);
  std::string error;
  const auto orders = book.prepare(*load("'127.0.0.1:0'"), error);
  REQUIRE(orders.size() == 3);
  book.commit();
  const std::string bound = book.bound().at("127.0.0.1:0").address;
  for (const auto& order : orders) {
    REQUIRE(order.size() == 1);
    ServerAddress at;
    at.length = sizeof at.storage;
    REQUIRE(getsockname(order[0].fd, reinterpret_cast<sockaddr*>(&at.storage), &at.length) == 0);
    CHECK(at.text() == bound);
    CHECK(order[0].id == orders[0][0].id);
  }
  close_all(orders);
}

TEST_CASE(
    "ListenBook: a reload -> known addresses open nothing, new ones do, gone ones are forgotten") {
  ListenBook book(2);
  std::string error;
  const auto first = book.prepare(*load("'127.0.0.1:0'"), error);
  book.commit();
  const auto second = book.prepare(*load("'127.0.0.1:0', '127.0.0.2:0'"), error);
  REQUIRE(second.size() == 2);
  CHECK(second[0][0].fd == -1);
  CHECK(second[0][0].id == first[0][0].id);
  CHECK(second[0][1].fd >= 0);
  CHECK(second[0][1].id != first[0][0].id);
  CHECK(book.bound().at("127.0.0.1:0").fresh);
  book.commit();
  CHECK_FALSE(book.bound().at("127.0.0.1:0").fresh);
  CHECK(book.bound().at("127.0.0.2:0").fresh);
  const auto third = book.prepare(*load("'127.0.0.2:0'"), error);
  CHECK(third[1][0].fd == -1);
  CHECK(third[1][0].id == second[0][1].id);
  book.commit();
  CHECK(book.bound().size() == 1);
  close_all(first);
  close_all(second);
}

TEST_CASE("ListenBook: an address in use -> an error that names it, and nothing has changed") {
  ServerAddress any;
  REQUIRE(parse_address("127.0.0.1:0", any));
  const int taken = open_listener(any);
  REQUIRE(taken >= 0);
  any.length = sizeof any.storage;
  REQUIRE(getsockname(taken, reinterpret_cast<sockaddr*>(&any.storage), &any.length) == 0);
  ListenBook book(2);
  std::string error;
  const auto before = book.prepare(*load("'127.0.0.1:0'"), error);
  book.commit();
  CHECK(book.prepare(*load("'127.0.0.3:0', '" + any.text() + "'"), error).empty());
  CHECK(error.find(any.text()) != std::string::npos);
  CHECK(error.find("listener \"web\"") != std::string::npos);
  CHECK(error.find("test:3:") != std::string::npos);
  CHECK(book.bound().size() == 1);
  CHECK(book.bound().count("127.0.0.1:0") == 1);
  close(taken);
  close_all(before);
}

TEST_CASE("ListenBook: a unix path -> one socket, the first shard's") {
  char folder[] = "/tmp/ringway-book-XXXXXX";
  REQUIRE(mkdtemp(folder) != nullptr);
  const std::string path = std::string(folder) + "/s";
  ListenBook book(2);
  std::string error;
  const auto orders = book.prepare(*load("'unix:" + path + "'"), error);
  REQUIRE(orders.size() == 2);
  CHECK(orders[0][0].fd >= 0);
  CHECK(orders[1][0].fd == -1);
  close_all(orders);
  unlink(path.c_str());
  rmdir(folder);
}
