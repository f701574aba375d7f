// tests/lb/config_source_test.cc - `source` and `socket` of upstreams: what fits, what a reload
// does.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "lb/config/load.h"
#include "lb/snapshot.h"

using namespace ringway;
using namespace ringway::config;

namespace {

LoadResult load(const std::string& servers, const std::string& more = "",
                const std::string& protocol = "http") {
  return load_text("version = 1\n[listeners.web]\nbind = '127.0.0.1:80'\nprotocol = '" + protocol +
                       "'\n[[routes]]\nname = 'all'\nupstream = 'app'\n[upstreams.app]\n" +
                       "protocol = '" + protocol + "'\nservers = [" + servers + "]\n" + more + "\n",
                   "text");
}

std::unique_ptr<const Config> good(LoadResult result) {
  INFO(render(result, false));
  REQUIRE(result.errors() == 0);
  return std::move(result.config);
}

// The code, what the caret is under, and the message.
struct Seen {
  std::string code;
  std::string under;
  std::string message;
  size_t notes = 0;
};

Seen only_error(const LoadResult& result) {
  INFO(render(result, false));
  REQUIRE(result.errors() == 1);
  const Diagnostic& d = *std::find_if(result.diagnostics.begin(), result.diagnostics.end(),
                                      [](const Diagnostic& each) { return each.code[0] == 'E'; });
  return {d.code, d.source_line.substr(d.position.column - 1, d.length), d.message, d.notes.size()};
}

}  // namespace

TEST_CASE("config: source -> a server's own, else its upstream's; port 0") {
  for (const char* protocol : {"http", "tcp"}) {
    const auto config =
        good(load("{ address = '10.0.0.1:1', source = '10.0.0.5' }, { address = '10.0.0.2:1' }",
                  "source = '10.0.0.6'\nsocket = { mark = 7, interface = 'eth1' }\n", protocol));
    const std::vector<Server>& servers = config->upstreams[0].servers;
    CHECK(servers[0].local.source.text() == "10.0.0.5:0");
    CHECK(servers[1].local.source.text() == "10.0.0.6:0");
    for (const Server& server : servers) {
      CHECK(server.local.mark == 7);
      CHECK(server.local.interface == "eth1");
    }
  }
  const auto config = good(load("{ address = '[::1]:1', source = '[2001:db8::5]' }"));
  CHECK(config->upstreams[0].servers[0].local.source.text() == "[2001:db8::5]:0");
  CHECK(good(load("{ address = '10.0.0.1:1' }"))->upstreams[0].servers[0].local.empty());
  CHECK(good(load("{ address = '10.0.0.1:1' }", "socket.mark = 'off'\n"))
            ->upstreams[0]
            .servers[0]
            .local.empty());
}

TEST_CASE("config: source with a port, or no IP address -> E0306 under the value") {
  const Seen port = only_error(load("{ address = '10.0.0.1:1', source = '10.0.0.5:80' }"));
  CHECK(port.code == "E0306");
  CHECK(port.under == "'10.0.0.5:80'");
  CHECK(port.message == "a source has no port: the kernel chooses one per connection");
  for (const char* text : {"eth0", "", "unix:/run/a", "10.0.0.0/8", "a.example"}) {
    CAPTURE(text);
    const std::string value = "'" + std::string(text) + "'";
    const Seen seen = only_error(load("{ address = '10.0.0.1:1' }", "source = " + value + "\n"));
    CHECK(seen.code == "E0306");
    CHECK(seen.under == value);
  }
}

TEST_CASE("config: source of another family than the server -> E0227 under it") {
  const Seen own = only_error(load("{ address = '[::1]:1', source = '10.0.0.5' }"));
  CHECK(own.code == "E0227");
  CHECK(own.under == "'10.0.0.5'");
  CHECK(own.message.find("has an IPv6 address") != std::string::npos);
  CHECK(own.notes == 1);
  const Seen shared = only_error(load(
      "{ address = '10.0.0.1:1' }, { name = 'b', address = '[::1]:1' }", "source = '10.0.0.5'\n"));
  CHECK(shared.code == "E0227");
  CHECK(shared.under == "'10.0.0.5'");
  CHECK(shared.message.find("server \"b\"") != std::string::npos);
  const Seen path = only_error(load("{ address = 'unix:/run/a', source = '::1' }"));
  CHECK(path.code == "E0227");
  CHECK(path.message.find("is a unix socket") != std::string::npos);
  const Seen marked = only_error(load("{ address = 'unix:/run/a' }", "socket = { mark = 7 }\n"));
  CHECK(marked.code == "E0227");
  CHECK(marked.under == "socket");
  // Inherited: where it meets its server.
  const Seen inherited = only_error(load("{ address = '[::1]:1' }",
                                         "extends = 'base'\n[upstreams.base]\nsource = "
                                         "'10.0.0.5'\nservers = [{ address = '10.0.0.1:1' }]\n"));
  CHECK(inherited.code == "E0227");
  CHECK(inherited.under == "'[::1]:1'");
}

TEST_CASE("config: socket -> bad names and marks are refused") {
  for (const char* name : {"", "a b", "a/b", "sixteen-letters-", ".", ".."}) {
    CAPTURE(name);
    const Seen seen = only_error(load("{ address = '10.0.0.1:1' }",
                                      "socket = { interface = '" + std::string(name) + "' }\n"));
    CHECK(seen.code == "E0303");
  }
  CHECK(only_error(load("{ address = '10.0.0.1:1' }", "socket = { mark = 0 }\n")).code == "E0304");
  CHECK(only_error(load("{ address = '10.0.0.1:1' }", "socket = { mark = 4294967296 }\n")).code ==
        "E0304");
  CHECK(only_error(load("{ address = '10.0.0.1:1' }", "socket = { namespace = 'red' }\n")).code ==
        "E0104");
}

TEST_CASE("Snapshot: a server with another source or socket is another server, as by its address") {
  const std::string plain = "{ name = 'a', address = '10.0.0.1:1' }";
  const std::string bound = "{ name = 'a', address = '10.0.0.1:1', source = '10.0.0.5' }";
  const std::string socket = "socket = { mark = 7 }\n";
  const auto first = Snapshot::build(good(load(plain)), nullptr, 1);
  const auto same = Snapshot::build(good(load(plain)), first.get(), 1);
  CHECK(same->servers[0][0] == first->servers[0][0]);
  const auto moved = Snapshot::build(good(load(bound)), first.get(), 1);
  CHECK(moved->servers[0][0] != first->servers[0][0]);
  // Where the source is said makes no difference.
  const auto said = Snapshot::build(good(load(plain, "source = '10.0.0.5'\n")), moved.get(), 1);
  CHECK(said->servers[0][0] == moved->servers[0][0]);
  const auto marked = Snapshot::build(good(load(plain, socket)), first.get(), 1);
  CHECK(marked->servers[0][0] != first->servers[0][0]);
}
