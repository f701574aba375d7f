// tests/lb/config_load_test.cc - files, includes, references, defaults and what extends what.
#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>

#include "lb/config/load.h"
#include "tests/lb/config_dump.h"

using namespace ringway;
using namespace ringway::config;

namespace {

const std::string kWeb = "[listeners.web]\nbind = '127.0.0.1:80'\n";
const std::string kApp = "[upstreams.app]\nservers = [{ address = '127.0.0.1:81' }]\n";
const std::string kAll = "[[routes]]\nname = 'all'\nupstream = 'app'\n";

std::unique_ptr<const Config> good(LoadResult result) {
  INFO(render(result, false));
  REQUIRE(result.errors() == 0);
  REQUIRE(result.config != nullptr);
  return std::move(result.config);
}

std::unique_ptr<const Config> good_text(const std::string& text) {
  return good(load_text("version = 1\n" + text, "text"));
}

bool has(const LoadResult& result, const char* code) {
  return std::any_of(result.diagnostics.begin(), result.diagnostics.end(),
                     [&](const Diagnostic& d) { return d.code == code; });
}

// A directory that is removed with all its files in the end.
class Folder {
 public:
  Folder() {
    char path[] = "/tmp/ringway_config_XXXXXX";
    REQUIRE(mkdtemp(path) != nullptr);
    path_ = path;
  }
  ~Folder() { REQUIRE(system(("rm -r " + path_).c_str()) == 0); }
  std::string write(const std::string& name, const std::string& text) {
    const size_t slash = name.find('/');
    if (slash != std::string::npos) mkdir((path_ + "/" + name.substr(0, slash)).c_str(), 0755);
    std::ofstream(path_ + "/" + name) << text;
    return path_ + "/" + name;
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace

TEST_CASE("load: the examples of the documentation -> no finding") {
  for (const char* name : {"minimal", "edge", "passthrough", "tls"}) {
    const LoadResult result =
        load_file(std::string(RW_SOURCE_DIR) + "/docs/examples/" + name + ".toml");
    INFO(render(result, false));
    CHECK(result.diagnostics.empty());
    CHECK(result.config != nullptr);
  }
}

TEST_CASE("load: nothing but the least -> the defaults of config.h") {
  const auto config = good_text(kWeb + kApp + kAll);
  Config plain;
  plain.listeners.emplace_back().name = "web";
  plain.listeners[0].bind.emplace_back();
  plain.listeners[0].bind[0].text = "127.0.0.1:80";
  REQUIRE(parse_address("127.0.0.1:80", plain.listeners[0].bind[0].address));
  plain.routes.emplace_back().name = "all";
  plain.routes[0].listeners = {0};
  plain.upstreams.emplace_back().name = "app";
  Server& server = plain.upstreams[0].servers.emplace_back();
  server.name = server.address_text = "127.0.0.1:81";
  REQUIRE(parse_address(server.address_text, server.address));
  CHECK(dump(*config) == dump(plain));
}

TEST_CASE("load: positions of objects -> where their table, key or item begins") {
  const auto config = good_text(kWeb + kApp + kAll + "[metrics]\nprometheus = '127.0.0.1:1'\n");
  CHECK(config->listeners[0].position.line == 2);
  CHECK(config->listeners[0].position.column == 1);
  CHECK(config->listeners[0].position.file == "text");
  CHECK(config->listeners[0].bind[0].position.line == 3);
  CHECK(config->listeners[0].bind[0].position.column == 8);
  CHECK(config->upstreams[0].position.line == 4);
  CHECK(config->upstreams[0].servers[0].position.line == 5);
  CHECK(config->upstreams[0].servers[0].position.column == 12);
  CHECK(config->routes[0].position.line == 6);
  CHECK(config->metrics.position.line == 10);
}

TEST_CASE("load: defaults and own timeouts -> own over upstream's over defaults") {
  const auto config =
      good_text("[defaults.timeouts]\nconnect = '1s'\nkeep_alive = 'off'\nserver_idle = '7s'\n" +
                kWeb + "timeouts = { request_body = '3s' }\n" + kApp +
                "timeouts = { response_headers = '4s' }\n" + kAll +
                "timeouts = { tunnel_idle = '5s' }\n[[routes]]\nname = 'b'\nupstream = 'app'\n"
                "match = { path = '/' }\n");
  CHECK(config->listeners[0].timeouts.keep_alive == kOff);
  CHECK(config->listeners[0].timeouts.request_body == 3000);
  CHECK(config->upstreams[0].timeouts.connect == 1000);
  CHECK(config->upstreams[0].timeouts.response_headers == 4000);
  CHECK(config->routes[0].has_timeouts);
  CHECK(config->routes[0].timeouts.tunnel_idle == 5000);
  CHECK(config->routes[0].timeouts.response_headers == 4000);
  CHECK(config->routes[0].timeouts.server_idle == 7000);
  CHECK_FALSE(config->routes[1].has_timeouts);
}

TEST_CASE("load: defaults after what uses them -> the same") {
  const std::string defaults = "[defaults.health]\nrise = 7\n[defaults.timeouts]\nconnect = '9s'\n";
  const std::string app = kApp + "health.type = 'tcp'\n";
  CHECK(dump(*good_text(defaults + kWeb + app + kAll)) ==
        dump(*good_text(kWeb + app + kAll + defaults)));
}

TEST_CASE("load: extends -> key by key, lists as a whole, three deep") {
  const auto config = good_text(kWeb + kAll + kApp +
                                "pool = { idle_timeout = '9s', reuse = 'never' }\n"
                                "health = { type = 'http', expect = { status = ['200', '401'] } }\n"
                                "balance = { algorithm = 'least_requests', choices = 2 }\n"
                                "[upstreams.b]\nextends = 'app'\npool = { idle_timeout = '8s' }\n"
                                "servers = [{ address = '127.0.0.1:82' }]\n"
                                "health = { expect = { status = '204' } }\n"
                                "[upstreams.c]\nextends = 'b'\nbalance.algorithm = 'hash'\n"
                                "[upstreams.d]\nextends = 'c'\nretry.attempts = 'off'\n"
                                "[[routes]]\nname = 'd'\nupstream = 'd'\nmatch.path = '/'\n");
  const Upstream& d = config->upstreams[3];
  CHECK(d.name == "d");
  CHECK(d.pool.reuse == ReuseMode::kNever);
  CHECK(d.pool.idle_timeout == 8000);
  REQUIRE(d.servers.size() == 1);
  CHECK(d.servers[0].address_text == "127.0.0.1:82");
  REQUIRE(d.health.expect_status.size() == 1);
  CHECK(d.health.expect_status[0].first == 204);
  CHECK(d.balance.algorithm == Algorithm::kHash);
  CHECK(d.balance.choices == 0);
  CHECK(d.retry.attempts == 0);
  CHECK(config->upstreams[2].retry.attempts == 2);
}

TEST_CASE("load: extends four deep -> E0214") {
  std::string text = "version = 1\n" + kWeb + kApp + kAll;
  std::string last = "app";
  for (const std::string name : {"b", "c", "d", "e"}) {
    text.append("[upstreams.").append(name).append("]\nextends = '").append(last).append("'\n");
    last = name;
  }
  const LoadResult result = load_text(text, "text");
  CHECK(result.errors() == 1);
  CHECK(has(result, "E0214"));
}

TEST_CASE("load: tcp -> the route takes the TCP listeners") {
  const auto config =
      good_text(kWeb + kApp + kAll +
                "[listeners.db]\nbind = '127.0.0.1:90'\nprotocol = 'tcp'\n"
                "[upstreams.db]\nprotocol = 'tcp'\nservers = [{ address = 'unix:/run/db' }]\n"
                "[[routes]]\nname = 'db'\nupstream = 'db'\n");
  CHECK(config->routes[0].listeners == std::vector<uint32_t>{0});
  CHECK(config->routes[1].listeners == std::vector<uint32_t>{1});
  CHECK(config->upstreams[1].protocol == Protocol::kTcp);
}

TEST_CASE("load: keys of HTTP on a TCP listener or upstream -> E0317") {
  const std::string head = "version = 1\n[[routes]]\nname = 'db'\nupstream = 'db'\n";
  const std::string listener = "[listeners.db]\nbind = '127.0.0.1:90'\nprotocol = 'tcp'\n";
  const std::string upstream =
      "[upstreams.db]\nprotocol = 'tcp'\nservers = [{ address = '127.0.0.1:91' }]\n";
  CHECK(load_text(head + upstream + listener, "text").diagnostics.empty());
  for (const char* line : {"forwarded = true", "limits.headers = 5", "trusted_proxies = []",
                           "timeouts.keep_alive = '1s'", "x_forwarded = false"}) {
    CHECK(has(load_text(head + upstream + listener + line + "\n", "text"), "E0317"));
  }
  for (const char* line : {"pool.reuse = 'never'", "timeouts.response_headers = '1s'",
                           "timeouts.server_idle = '1s'"}) {
    CHECK(has(load_text(head + listener + upstream + line + "\n", "text"), "E0317"));
  }
}

TEST_CASE("load: header_table -> bytes from nothing to 64 KiB, each side its own, HTTP/2 only") {
  const auto table = [](const char* listener, const char* upstream) {
    return load_text("version = 1\n" + kWeb + "h2.header_table = '" + listener + "'\n" + kApp +
                         "http_versions = 'h2'\npool.header_table = '" + upstream + "'\n" + kAll,
                     "text");
  };
  const auto config = good(table("0B", "64KiB"));
  CHECK(config->listeners[0].h2.header_table == 0);
  CHECK(config->upstreams[0].pool.header_table == 65'536);
  CHECK(good(table("100B", "0B"))->listeners[0].h2.header_table == 100);
  CHECK(has(table("65537B", "0B"), "E0304"));
  CHECK(has(table("0B", "65KiB"), "E0304"));
  const std::string plain = kWeb + kApp + "pool.header_table = '1KiB'\n" + kAll;
  CHECK(has(load_text("version = 1\n" + plain, "text"), "E0317"));
}

TEST_CASE("load: routes without an upstream -> redirect, respond, reject") {
  const auto config = good_text(
      kWeb +
      "[[routes]]\nname = 'a'\nmatch.path = '/a'\nredirect = { scheme = 'https', host = "
      "'X.example' }\n"
      "[[routes]]\nname = 'b'\nmatch.path = '/b'\nrespond = { body = '{\"a\": 1}', content_type = "
      "'application/json' }\n"
      "[[routes]]\nname = 'c'\nreject = {}\n");
  CHECK(config->routes[0].action == Action::kRedirect);
  CHECK(config->routes[0].redirect.scheme == "https");
  CHECK(config->routes[0].redirect.host == "x.example");
  CHECK(config->routes[0].redirect.status == 308);
  CHECK(config->routes[1].action == Action::kRespond);
  CHECK(config->routes[1].respond.status == 200);
  CHECK(config->routes[1].respond.body == "{\"a\": 1}");
  CHECK(config->routes[2].action == Action::kRespond);
  CHECK(config->routes[2].respond.status == 403);
  CHECK(config->routes[2].respond.body == "403 Forbidden\n");
}

TEST_CASE("load: keys without effect on the action -> E0317") {
  for (const char* line : {"rewrite.strip_prefix = '/a'", "request_headers.remove = 'x'",
                           "response_headers.remove = 'x'", "timeouts.server_idle = '1s'"}) {
    const LoadResult result = load_text(
        "version = 1\n" + kWeb + "[[routes]]\nname = 'a'\nreject = {}\n" + line + "\n", "text");
    CHECK(result.errors() == 1);
    CHECK(has(result, "E0317"));
  }
  CHECK(has(load_text("version = 1\n" + kWeb + "[[routes]]\nname = 'a'\nredirect = {}\n", "text"),
            "E0317"));
  CHECK(has(load_text("version = 1\n" + kWeb +
                          "[[routes]]\nname = 'a'\nrespond = { status = 204, body = 'x' }\n",
                      "text"),
            "E0317"));
}

TEST_CASE("load: host, method and fields -> lower case, upper case, lower case") {
  const auto config = good_text(kWeb + kApp + kAll +
                                "match = { host = ['A.example', '*.B.example', '[::1]'], method = "
                                "'PURGE', header = { X-A = '1', X-B = true } }\n"
                                "request_headers = { set = { X-C = 'd' }, remove = 'X-D' }\n");
  const Match& match = config->routes[0].match;
  CHECK(match.host == std::vector<std::string>{"a.example", "*.b.example", "[::1]"});
  CHECK(match.method == std::vector<std::string>{"PURGE"});
  REQUIRE(match.headers.size() == 2);
  CHECK(match.headers[0].name == "x-a");
  CHECK(match.headers[0].value == "1");
  CHECK_FALSE(match.headers[0].present);
  CHECK(match.headers[1].present);
  CHECK(config->routes[0].request_headers.set[0].name == "x-c");
  CHECK(config->routes[0].request_headers.remove[0] == "x-d");
}

TEST_CASE("load: words instead of numbers -> their meaning in config.h") {
  const auto config = good_text(
      kWeb + "max_connections = 'off'\nlimits.body_bytes = 'off'\n" + kApp +
      "pool = { max_idle_per_server = 'off', max_requests_per_connection = 'off', idle_timeout = "
      "'off' }\nbalance = { algorithm = 'least_requests', choices = 'all' }\n" +
      kAll +
      "[process]\nshards = 'auto'\ncpus = 'auto'\n[engine]\nbusy_poll = 'off'\n"
      "[logs.access]\noutput = 'off'\n[metrics]\nprometheus = 'off'\n");
  CHECK(config->listeners[0].max_connections == kUnlimited);
  CHECK(config->listeners[0].limits.body_bytes == kUnlimited);
  CHECK(config->upstreams[0].pool.max_idle_per_server == kUnlimited);
  CHECK(config->upstreams[0].pool.max_requests_per_connection == kUnlimited);
  CHECK(config->upstreams[0].pool.idle_timeout == kOff);
  CHECK(config->upstreams[0].balance.choices == 0);
  CHECK(config->process.shards == 0);
  CHECK(config->process.cpus.empty());
  CHECK(config->engine.spin_us == 0);
  CHECK_FALSE(config->access_log.enabled);
  CHECK_FALSE(config->metrics.enabled);
}

TEST_CASE("load: references to the environment and to files -> replaced in every string") {
  Folder folder;
  const std::string secret = folder.write("secret", "top\n");
  setenv("RINGWAY_TEST_PORT", "8081", 1);
  setenv("RINGWAY_TEST_EMPTY", "", 1);
  unsetenv("RINGWAY_TEST_UNSET");
  const auto config = good_text(
      kWeb + "[upstreams.app]\nservers = [{ address = '127.0.0.1:${env:RINGWAY_TEST_PORT}' }]\n" +
      kAll + "request_headers.set = { a = '${file:" + secret +
      "}!', b = '${env:RINGWAY_TEST_UNSET:-x}${env:RINGWAY_TEST_EMPTY:-y}', c = "
      "'${env:RINGWAY_TEST_UNSET:-}${env:RINGWAY_TEST_EMPTY}', d = '$ $$' }\n");
  CHECK(config->upstreams[0].servers[0].address_text == "127.0.0.1:8081");
  const auto& set = config->routes[0].request_headers.set;
  CHECK(set[0].value == "top!");
  CHECK(set[1].value == "xy");
  CHECK(set[2].value.empty());
  CHECK(set[3].value == "$ $$");
  const auto text = good_text(kWeb + "[[routes]]\nname = 'a'\nrespond.body = '$${env:X}'\n");
  CHECK(text->routes[0].respond.body == "${env:X}");
}

TEST_CASE("load: includes -> sorted, relative to the file, before its rest") {
  Folder folder;
  folder.write("conf.d/20-b.toml", "[[routes]]\nname = 'b'\nmatch.path = '/b'\nupstream = 'app'\n");
  folder.write("conf.d/10-a.toml",
               kApp + "[[routes]]\nname = 'a'\nmatch.path = '/a'\nupstream = 'app'\n");
  folder.write("conf.d/ignored.txt", "not TOML");
  const std::string main =
      folder.write("main.toml", "version = 1\ninclude = ['conf.d/*.toml']\n" + kWeb + kAll);
  const LoadResult result = load_file(main);
  CHECK(result.files == 3);
  INFO(render(result, false));
  REQUIRE(result.config != nullptr);
  REQUIRE(result.config->routes.size() == 3);
  CHECK(result.config->routes[0].name == "a");
  CHECK(result.config->routes[1].name == "b");
  CHECK(result.config->routes[2].name == "all");
  CHECK(result.config->upstreams[0].position.file == folder.path() + "/conf.d/10-a.toml");
}

TEST_CASE("load: one object in two files -> E0107 naming both places") {
  Folder folder;
  folder.write("a.toml", kApp + "[process]\nshards = 2\n");
  const std::string main = folder.write("main.toml", "version = 1\ninclude = 'a.toml'\n" + kWeb +
                                                         kAll + kApp + "[process]\nshards = 3\n");
  const LoadResult result = load_file(main);
  REQUIRE(result.errors() == 2);
  CHECK(result.diagnostics[0].code == "E0107");
  CHECK(result.diagnostics[0].position.file == main);
  CHECK(result.diagnostics[0].position.line == 8);
  CHECK(result.diagnostics[0].notes[0].find("a.toml:1:1") != std::string::npos);
  CHECK(result.diagnostics[1].code == "E0107");
}

TEST_CASE("load: includes that fail -> the rest is still checked, missing names are not") {
  Folder folder;
  folder.write("broken.toml", "this is not TOML\n");
  const std::string main = folder.write(
      "main.toml", "version = 1\ninclude = ['broken.toml', 'none.toml', 'none/*']\n" + kWeb +
                       "[[routes]]\nname = 'a'\nupstream = 'elsewhere'\n[process]\nshard = 1\n");
  const LoadResult result = load_file(main);
  INFO(render(result, false));
  CHECK(result.config == nullptr);
  CHECK(has(result, "E0101"));
  CHECK(has(result, "E0001"));
  CHECK(has(result, "W0405"));
  CHECK(has(result, "E0104"));
  CHECK_FALSE(has(result, "E0211"));
  CHECK(result.errors() == 3);
}

TEST_CASE("load: includes in a circle, twice or too deep -> E0003") {
  Folder folder;
  const std::string main = folder.write("main.toml", "version = 1\ninclude = 'b.toml'\n");
  folder.write("b.toml", "include = 'main.toml'\n");
  CHECK(has(load_file(main), "E0003"));
  const std::string twice =
      folder.write("twice.toml", "version = 1\ninclude = ['c.toml', 'c.toml']\n");
  folder.write("c.toml", "");
  CHECK(has(load_file(twice), "E0003"));
  for (int i = 1; i <= 6; ++i) {
    folder.write("deep" + std::to_string(i) + ".toml",
                 "include = 'deep" + std::to_string(i + 1) + ".toml'\n");
  }
  CHECK(has(load_file(folder.path() + "/deep1.toml"), "E0003"));
}

TEST_CASE("load: a file that cannot be read -> the system's reason and who tried") {
  const LoadResult missing = load_file("/nonexistent/ringway.toml");
  REQUIRE(missing.errors() == 1);
  CHECK(missing.diagnostics[0].code == "E0001");
  CHECK(missing.diagnostics[0].message.find("No such file or directory (as uid ") !=
        std::string::npos);
  CHECK(missing.diagnostics[0].position.line == 0);
  CHECK(render(missing, false).find(" --> /nonexistent/ringway.toml\n") != std::string::npos);
  const LoadResult directory = load_file("/tmp");
  REQUIRE(directory.errors() == 1);
  CHECK(directory.diagnostics[0].message.find("Is a directory") != std::string::npos);
}

TEST_CASE("load: an empty file -> what is missing, at its beginning") {
  const LoadResult result = load_text("", "text");
  CHECK(result.errors() == 3);  // version, listeners, routes
  for (const Diagnostic& d : result.diagnostics) CHECK(d.position.line == 1);
}

TEST_CASE("load: a route that an earlier one leaves nothing to -> W0410 naming that one") {
  const LoadResult result = load_text("version = 1\n" + kWeb + kApp +
                                          "[[routes]]\nname = 'a'\nmatch.path_prefix = '/a'\n"
                                          "upstream = 'app'\n[[routes]]\nname = 'b'\n"
                                          "match.path = '/a/b'\nreject = {}\n",
                                      "text");
  REQUIRE(result.diagnostics.size() == 1);
  CHECK(result.config != nullptr);
  CHECK(result.diagnostics[0].code == "W0410");
  CHECK(result.diagnostics[0].position.line == 10);
  CHECK(result.diagnostics[0].notes[0].find("text:6:1") != std::string::npos);
}

TEST_CASE("load: header edits of more than 32 KiB -> E0304") {
  std::string edits = "request_headers.set = { ";
  for (int i = 0; i < 9; ++i) {
    edits += "x" + std::to_string(i) + " = '" + std::string(4000, 'y') + "', ";
  }
  const LoadResult result =
      load_text("version = 1\n" + kWeb + kApp + kAll + edits + "z = '' }\n", "text");
  CHECK(result.errors() == 1);
  CHECK(has(result, "E0304"));
}

TEST_CASE("load: a line of 100 KB -> the position, but not the line") {
  const LoadResult result =
      load_text("version = 1\n[process]\n" + std::string(100'000, 'x') + " = 1\n", "text");
  const auto found = std::find_if(result.diagnostics.begin(), result.diagnostics.end(),
                                  [](const Diagnostic& d) { return d.code == "E0104"; });
  REQUIRE(found != result.diagnostics.end());
  CHECK(found->position.line == 3);
  CHECK(found->length == 100'000);
  CHECK(found->source_line.empty());
}

// Goal: nesting costs stack; what could nest without a bound is refused first.
TEST_CASE("load: nested without end -> E0101") {
  for (const std::string& part : {std::string("["), std::string("{a="), std::string("{a.b=")}) {
    std::string text = "a = ";
    for (int i = 0; i < 50'000; ++i) text += part;
    CHECK(has(load_text(text, "text"), "E0101"));
  }
  std::string dots = "a";
  for (int i = 0; i < 100'000; ++i) dots += ".\"b\"";
  CHECK(has(load_text(dots + " = 1\n", "text"), "E0101"));
  CHECK(has(load_text("[" + dots + "]\n", "text"), "E0101"));
  CHECK(has(load_text("x = { " + dots + " = 1 }\n", "text"), "E0101"));
}

TEST_CASE("load: letters other than ASCII outside of strings -> E0101 there") {
  const LoadResult result = load_text("version = 1\n[process]\né = 1\n", "text");
  REQUIRE(result.errors() == 1);
  CHECK(result.diagnostics[0].code == "E0101");
  CHECK(result.diagnostics[0].position.line == 3);
  CHECK(result.diagnostics[0].position.column == 1);
}

TEST_CASE("load: line ends of Windows, a byte order mark -> read all the same") {
  const LoadResult result = load_text("\xef\xbb\xbfversion = 1\r\n[process]\r\nshard = 1\r\n", "t");
  const auto found = std::find_if(result.diagnostics.begin(), result.diagnostics.end(),
                                  [](const Diagnostic& d) { return d.code == "E0104"; });
  REQUIRE(found != result.diagnostics.end());
  CHECK(found->source_line == "shard = 1");
}

TEST_CASE("load: thousands of errors -> bounded, and still an error behind many warnings") {
  std::string text = "version = 1\n[process]\n";
  for (int i = 0; i < 3000; ++i) text += "x" + std::to_string(i) + " = 1\n";
  CHECK(load_text(text, "text").errors() == 1000);
}
