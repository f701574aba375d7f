// tests/lb/control_test.cc - a whole process's worth of threads: start, serve, reload, drain.
#include "lb/control.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <thread>

#include "lb/config/load.h"

using namespace ringway;

namespace {

std::string configuration(const std::string& bind, const std::string& body) {
  return "version = 1\n[process]\nshards = 2\n[engine]\nkind = 'epoll'\n[listeners.web]\nbind = '" +
         bind + "'\n[[routes]]\nname = 'all'\nrespond = { status = 200, body = '" + body +
         "' }\n[logs.process]\noutput = 'file:/dev/null'\n";
}

// A file of its own in a folder of its own.
struct File {
  File() {
    REQUIRE(mkdtemp(folder) != nullptr);
    path = std::string(folder) + "/ringway.toml";
  }
  ~File() {
    unlink(path.c_str());
    rmdir(folder);
  }
  void write(const std::string& text) const { std::ofstream(path) << text; }
  [[nodiscard]] std::unique_ptr<const config::Config> load() const {
    config::LoadResult loaded = config::load_file(path);
    INFO(config::render(loaded, false));
    REQUIRE(loaded.config != nullptr);
    return std::move(loaded.config);
  }
  char folder[32] = "/tmp/ringway-control-XXXXXX";
  std::string path;
};

std::string ask(const std::string& address) {
  ServerAddress at;
  if (!parse_address(address, at)) return "bad address";
  const int fd = socket(at.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  std::string answer;
  const std::string_view request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
  if (connect(fd, at.get(), at.length) == 0 &&
      send(fd, request.data(), request.size(), MSG_NOSIGNAL) > 0) {
    char part[512];
    for (ssize_t got = 0; (got = recv(fd, part, sizeof part, 0)) > 0;) {
      answer.append(part, static_cast<size_t>(got));
    }
  }
  close(fd);
  return answer;
}

}  // namespace

TEST_CASE("Control: start, serve, reload, refuse an invalid file, drain") {
  File file;
  file.write(configuration("127.0.0.1:0", "first"));
  Control control(file.path, file.load());
  REQUIRE(control.start() == kExitOk);
  const std::string at = control.book().bound().at("127.0.0.1:0").address;
  std::string first;
  std::string second;
  std::string third;
  const auto reload_until = [&](const std::string& body) {
    control.signals().reload = true;
    control.wake();
    std::string got;
    for (int i = 0; i < 1'000 && !got.ends_with(body); ++i) {
      got = ask(at);
      if (!got.ends_with(body)) usleep(5'000);
    }
    return got;
  };
  std::thread client([&] {
    first = ask(at);
    file.write(configuration("127.0.0.1:0", "second"));
    second = reload_until("second");
    file.write("version = 1\n[listeners.web]\nbind = 1\n");
    third = reload_until("second");
    control.signals().stop = 1;
    control.wake();
  });
  CHECK(control.run() == kExitOk);
  client.join();
  CHECK(first.ends_with("first"));
  CHECK(second.ends_with("second"));
  CHECK(third.ends_with("second"));
}

TEST_CASE("Control: an address in use -> exit code 1, and nothing is left running") {
  ServerAddress any;
  REQUIRE(parse_address("127.0.0.1:0", any));
  const int taken = open_listener(any);
  REQUIRE(taken >= 0);
  any.length = sizeof any.storage;
  REQUIRE(getsockname(taken, reinterpret_cast<sockaddr*>(&any.storage), &any.length) == 0);
  File file;
  file.write(configuration(any.text(), "never"));
  Control control(file.path, file.load());
  CHECK(control.start() == kExitInvalid);
  close(taken);
}
