// tests/lb/config_changes_test.cc - what a reload says that it has changed.
#include <doctest/doctest.h>

#include <string>

#include "lb/config/changes.h"
#include "lb/config/load.h"

using namespace ringway;

namespace {

const std::string kBase =
    "version = 1\n[listeners.web]\nbind = '127.0.0.1:1'\n[listeners.other]\nbind = '127.0.0.1:2'\n"
    "[[routes]]\nname = 'a'\nmatch = { path = '/a' }\nupstream = 'app'\n"
    "[[routes]]\nname = 'b'\nlisteners = ['web']\nupstream = 'api'\n"
    "[upstreams.app]\nservers = [{ name = 's0', address = '127.0.0.1:3' }]\n"
    "[upstreams.api]\nservers = [{ name = 's0', address = '127.0.0.1:4' }]\n";

std::unique_ptr<const config::Config> load(const std::string& text) {
  config::LoadResult loaded = config::load_text(text, "test");
  INFO(config::render(loaded, false));
  REQUIRE(loaded.config != nullptr);
  return std::move(loaded.config);
}

std::string between(const std::string& before, const std::string& after) {
  return config::changes(*load(before), *load(after));
}

std::string with(const std::string& old, const std::string& now) {
  std::string text = kBase;
  const size_t at = text.find(old);
  REQUIRE(at != std::string::npos);
  return text.replace(at, old.size(), now);
}

const std::string kExtraListener = "[listeners.extra]\nbind = '127.0.0.1:5'\n";

}  // namespace

TEST_CASE("changes: the same, or only moved within the file -> nothing") {
  CHECK(between(kBase, kBase).empty());
  CHECK(between(kBase, with("[listeners.web]", "\n\n# a comment\n[listeners.web]")).empty());
  const std::string app = "[upstreams.app]\nservers = [{ name = 's0', address = '127.0.0.1:3' }]\n";
  CHECK(between(kBase, with(app, "") + app).empty());  // Other indices, the same names.
}

TEST_CASE("changes: objects that come and go -> their names, and no other") {
  CHECK(between(kBase, kBase + kExtraListener) == "added listener extra");
  CHECK(between(kBase + kExtraListener, kBase) == "removed listener extra");
  CHECK(between(kBase, kBase + "[upstreams.new]\nservers = [{ address = '127.0.0.1:6' }]\n"
                               "[upstreams.newer]\nservers = [{ address = '127.0.0.1:7' }]\n") ==
        "added upstreams new, newer");
  CHECK(between(kBase, with("name = 'a'", "name = 'c'")) == "added route c; removed route a");
}

TEST_CASE("changes: a key of an object -> that object") {
  CHECK(between(kBase, with("127.0.0.1:2", "127.0.0.1:9")) == "changed listener other");
  CHECK(between(kBase, with("'/a'", "'/c'")) == "changed route a");
  CHECK(between(kBase, with("upstream = 'app'", "upstream = 'api'")) == "changed route a");
  CHECK(between(kBase, with("['web']", "['web', 'other']")) == "changed route b");
  CHECK(between(kBase, with("127.0.0.1:4' }", "127.0.0.1:4', weight = 7 }")) ==
        "changed upstream api");
  CHECK(between(kBase, kBase + "retry = { attempts = 5 }\n") == "changed upstream api");
  // Values are compared: listeners hold server-side timeouts too, though they use none.
  CHECK(between(kBase, kBase + "[defaults.timeouts]\nconnect = '1s'\n") ==
        "changed listeners web, other; changed upstreams app, api");
}

TEST_CASE("changes: order of routes, tables without a name, several at once") {
  const std::string a = "[[routes]]\nname = 'a'\nmatch = { path = '/a' }\nupstream = 'app'\n";
  CHECK(between(kBase, with(a, "") + a) == "changed the order of the routes");
  CHECK(between(kBase, kBase + "[process]\ndrain_timeout = '1s'\n[metrics]\nprometheus = "
                               "'127.0.0.1:8'\n") == "changed [process]; changed [metrics]");
  CHECK(between(kBase, with("'/a'", "'/c'") + kExtraListener) ==
        "added listener extra; changed route a");
}

TEST_CASE("changes: more than 20 of a kind -> the rest is counted") {
  std::string many = kBase;
  for (int i = 0; i < 23; ++i) {
    const std::string n = std::to_string(i);
    many += "[upstreams.u" + n + "]\nservers = [{ address = '127.0.0.1:" + n + "0' }]\n";
  }
  many.replace(many.find("127.0.0.1:00"), 12, "127.0.0.1:99");
  const std::string text = between(kBase, many);
  CHECK(text.starts_with("added upstreams u0, u1, "));
  CHECK(text.ends_with(", u19 and 3 more"));
}
