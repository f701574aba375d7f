// tests/lb/tls/tls_control_test.cc - ticket keys and keys of ECH over reloads and changes on disk.
#include "lb/tls/tls_control.h"

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/lb/tls/fake_files.h"
#include "tests/support/make_ech.h"

using namespace ringway;
using namespace ringway::test;

namespace {

constexpr int64_t kMinute = 60'000;

config::TlsProfile profile(const std::string& name, int64_t rotate = kMinute) {
  config::TlsProfile made;
  made.name = name;
  made.certificates = {0};
  made.tickets.rotate = rotate;
  return made;
}

struct World final : TlsHost {
  World() { files.put_pair("/a", make_certificate({.names = {"a.test"}})); }

  [[nodiscard]] static std::unique_ptr<config::Config> config_of(
      std::vector<config::TlsProfile> profiles) {
    auto made = std::make_unique<config::Config>();
    made->tls_certificates.resize(1);
    made->tls_certificates[0].name = "main";
    made->tls_certificates[0].cert.path = "/a.pem";
    made->tls_certificates[0].key.path = "/a.key";
    made->tls_profiles = std::move(profiles);
    return made;
  }
  [[nodiscard]] bool prepare(const config::Config& next) {
    error.clear();
    control.begin(next);
    CHECK(control.load(UINT32_MAX));
    if (control.prepare(next, error)) return true;
    control.abandon();
    return false;
  }
  // The name of the certificate that the first profile shows to who asks for this name.
  [[nodiscard]] bool has(const std::string& name) const {
    return !now->profiles[0].names->find(name).empty();
  }
  void commit(std::unique_ptr<config::Config> next) {
    now = control.commit(*next);
    config = std::move(next);
  }
  void reload(std::vector<config::TlsProfile> profiles) {
    auto next = config_of(std::move(profiles));
    REQUIRE_MESSAGE(prepare(*next), error);
    commit(std::move(next));
  }
  void run(int64_t ms) {
    for (const int64_t end = now_ms + ms; now_ms < end;) {
      now_ms += 50;
      timers.expire(now_ms);
    }
  }
  // What the profile's tickets are sealed with: the name of the key.
  [[nodiscard]] std::string key_of(const std::string& name) const {
    for (size_t i = 0; i < config->tls_profiles.size(); ++i) {
      if (config->tls_profiles[i].name != name) continue;
      const TlsTicketKey& key = now->profiles[i].keys->current();
      return {key.name.begin(), key.name.end()};
    }
    return "no such profile";
  }
  [[nodiscard]] int said(const std::string& text) const {
    int count = 0;
    for (const std::string& line : lines) count += line.find(text) != std::string::npos ? 1 : 0;
    return count;
  }

  void publish_tls(const std::shared_ptr<const TlsMaterials>& materials) override {
    ++published;
    now = materials;
  }
  void tls_line(LogLevel /*level*/, const std::string& line) override { lines.push_back(line); }
  int64_t tls_now_ms() override { return now_ms; }

  int64_t now_ms = 1'000'000;
  FakeCertFiles files;
  Timers timers{now_ms};
  std::unique_ptr<config::Config> config;
  std::shared_ptr<const TlsMaterials> now;  // what the shards have
  std::string error;
  std::vector<std::string> lines;
  int published = 0;
  TlsControl control{timers, files, *this};
};

// A file with one key of this name.
std::string key_file(char name) {
  return std::string(16, name) + std::string(64, 'k');
}

config::TlsProfile with_file(const std::string& path) {
  config::TlsProfile made = profile("public");
  made.tickets.keys.path = path;
  return made;
}

config::TlsProfile with_ech(const std::string& path) {
  config::TlsProfile made = profile("public");
  made.ech.path = path;
  return made;
}

}  // namespace

TEST_CASE("TlsControl: reloads more often than `rotate` -> keys are rotated as without them") {
  World world;
  world.reload({profile("public"), profile("other", 3 * kMinute)});
  std::string before = world.key_of("public");
  const std::string other = world.key_of("other");
  int changes = 0;
  for (int i = 0; i < 16; ++i) {  // 160 s.
    world.run(10'000);
    // Profiles may move: their names tell which is which.
    if (i % 2 == 0) {
      world.reload({profile("other", 3 * kMinute), profile("public")});
    } else {
      world.reload({profile("public"), profile("other", 3 * kMinute)});
    }
    const std::string key = world.key_of("public");
    if (std::exchange(before, key) != key) ++changes;
  }
  CHECK(changes == 2);
  CHECK(world.said("ticket keys rotated: profile public") == 2);
  CHECK(world.key_of("other") == other);
  world.run(25'000);
  CHECK(world.key_of("other") != other);
}

TEST_CASE("TlsControl: another `rotate` -> counts from when the key was made") {
  World world;
  world.reload({profile("public", 10 * kMinute)});
  const std::string first = world.key_of("public");
  world.run(2 * kMinute);
  world.reload({profile("public", 3 * kMinute)});
  world.run(kMinute - 5'000);
  CHECK(world.key_of("public") == first);
  world.run(10'000);
  const std::string second = world.key_of("public");
  CHECK(second != first);
  world.reload({profile("public", 20 * kMinute)});
  world.run(10 * kMinute);
  CHECK(world.key_of("public") == second);
  world.reload({profile("public", kMinute)});
  world.run(2'000);
  CHECK(world.key_of("public") != second);
}

TEST_CASE("TlsControl: keys that a reload makes -> a clock of their own") {
  World world;
  config::TlsProfile off = profile("public");
  off.tickets.enabled = false;
  world.files.put("/keys", key_file('a'));
  for (const config::TlsProfile& before : {off, with_file("/keys")}) {
    world.reload({before});
    world.run(5 * kMinute);
    world.reload({profile("public"), profile("new")});
    const std::string key = world.key_of("public");
    const std::string fresh = world.key_of("new");
    world.run(kMinute - 5'000);
    CHECK(world.key_of("public") == key);
    CHECK(world.key_of("new") == fresh);
    world.run(10'000);
    CHECK(world.key_of("public") != key);
    CHECK(world.key_of("new") != fresh);
  }
}

TEST_CASE("TlsControl: a reload that fails -> keys go on as they were") {
  World world;
  world.reload({profile("public")});
  const std::string key = world.key_of("public");
  world.run(kMinute / 2);
  auto bad = World::config_of({with_file("/nothing")});
  CHECK_FALSE(world.prepare(*bad));
  CHECK(world.error.find("/nothing") != std::string::npos);
  world.run(kMinute / 2 - 5'000);
  CHECK(world.key_of("public") == key);
  world.run(10'000);
  CHECK(world.key_of("public") != key);
}

TEST_CASE(
    "TlsControl: a file of ticket keys changes while it is read, or before it counts -> seen") {
  for (const bool while_read : {true, false}) {
    CAPTURE(while_read);
    World world;
    char last = 'a';
    world.files.put("/keys", key_file(last));
    const auto change = [&](const std::string& path) {
      if (path == "/keys") world.files.put("/keys", key_file(++last));
    };
    if (while_read) world.files.after_read = change;
    auto next = World::config_of({with_file("/keys")});
    REQUIRE(world.prepare(*next));
    world.files.after_read = nullptr;
    if (!while_read) change("/keys");
    world.commit(std::move(next));
    CHECK(world.key_of("public") != std::string(16, last));
    world.run(1'500);
    CHECK(world.key_of("public") == std::string(16, last));
  }
}

TEST_CASE("TlsControl: a file of ticket keys -> read again once per change, never rotated") {
  World world;
  world.files.put("/keys", key_file('a'));
  world.reload({with_file("/keys")});
  world.run(5 * kMinute);
  CHECK(world.published == 0);
  world.files.put("/keys", key_file('b') + key_file('a'));
  world.run(1'500);
  CHECK(world.key_of("public") == std::string(16, 'b'));
  CHECK(world.now->profiles[0].keys->size() == 2);
  CHECK(world.published == 1);
  world.files.put("/keys", "short");
  world.run(5'000);
  CHECK(world.key_of("public") == std::string(16, 'b'));
  CHECK(world.said("ticket keys stay as they are: /keys") == 1);
  world.files.remove("/keys");
  world.run(5'000);
  CHECK(world.key_of("public") == std::string(16, 'b'));
  world.files.put("/keys", key_file('c'));
  world.run(1'500);
  CHECK(world.key_of("public") == std::string(16, 'c'));
  CHECK(world.published == 2);
}

TEST_CASE("TlsControl: keys of ECH that change, also while they are read -> read again") {
  for (const bool while_read : {true, false}) {
    CAPTURE(while_read);
    World world;
    std::string pem;
    uint8_t keys = 0;  // in the file
    const auto change = [&](const std::string& path) {
      if (path != "/ech") return;
      pem += MadeEch(++keys).pem();
      world.files.put("/ech", pem);
    };
    change("/ech");
    if (while_read) world.files.after_read = change;
    auto next = World::config_of({with_ech("/ech")});
    REQUIRE(world.prepare(*next));
    world.files.after_read = nullptr;
    if (!while_read) change("/ech");
    world.commit(std::move(next));
    CHECK(world.now->profiles[0].ech->size() < keys);
    world.run(1'500);
    CHECK(world.now->profiles[0].ech->size() == keys);
    world.files.put("/ech", "nothing");
    world.run(5'000);
    CHECK(world.now->profiles[0].ech->size() == keys);
    CHECK(world.said("keys of ECH stay as they are: /ech") == 1);
    world.files.put("/ech", MadeEch(1).pem());
    world.run(1'500);
    CHECK(world.now->profiles[0].ech->size() == 1);
  }
}

// Pairs in a directory that is watched.
std::unique_ptr<config::Config> config_of_directory() {
  auto made = World::config_of({profile("public")});
  made->tls_certificates[0] = {};
  made->tls_certificates[0].name = "main";
  made->tls_certificates[0].directory.path = "/dir";
  return made;
}

TEST_CASE(
    "TlsControl: a configuration is loaded in parts -> what serves stays until all is there") {
  World world;
  for (int i = 0; i < 10; ++i) {
    const std::string name = "t" + std::to_string(i);
    world.files.put_pair("/dir/" + name, make_certificate({.names = {name + ".test"}}));
  }
  auto first = config_of_directory();
  REQUIRE(world.prepare(*first));
  world.commit(std::move(first));
  world.run(5'000);  // Nothing is looked at twice any more.
  const std::shared_ptr<const TlsMaterials> serving = world.now;
  for (int i = 0; i < 10; ++i) {
    const std::string name = std::to_string(i);
    world.files.put_pair("/dir/t" + name, make_certificate({.names = {"new" + name + ".test"}}));
  }
  auto next = config_of_directory();
  world.control.begin(*next);
  const int before = world.files.reads;
  for (int part = 1; part <= 3; ++part) {
    CHECK_FALSE(world.control.load(3));
    CHECK(world.files.reads == before + 6 * part);  // A certificate and its key each.
    world.run(5'000);  // A round of watching and more: it rests, or old and new were mixed.
    CHECK(world.files.reads == before + 6 * part);
  }
  // What was read changes again, the last one before it is read.
  world.files.put_pair("/dir/t0", make_certificate({.names = {"newer0.test"}}));
  world.files.put_pair("/dir/t9", make_certificate({.names = {"newer9.test"}}));
  CHECK(world.now == serving);
  REQUIRE(world.control.load(3));
  REQUIRE(world.control.prepare(*next, world.error));
  CHECK(world.published == 0);
  CHECK(world.has("t0.test"));
  CHECK_FALSE(world.has("new0.test"));
  world.commit(std::move(next));
  for (int i = 0; i < 9; ++i) CHECK(world.has("new" + std::to_string(i) + ".test"));
  CHECK(world.has("newer9.test"));
  CHECK_FALSE(world.has("newer0.test"));
  world.run(3'000);
  CHECK(world.has("newer0.test"));
  CHECK_FALSE(world.has("new0.test"));
  CHECK(world.published >= 1);
}

TEST_CASE("TlsControl: a load is abandoned, or fails -> what serves is watched on") {
  for (const bool fails : {false, true}) {
    CAPTURE(fails);
    World world;
    world.reload({profile("public")});
    world.run(5'000);
    auto next = World::config_of({profile("public")});
    if (fails) next->tls_certificates[0].key.path = "/nothing";
    if (fails) {
      CHECK_FALSE(world.prepare(*next));
    } else {
      world.control.begin(*next);
      world.control.abandon();
    }
    next.reset();
    world.files.put_pair("/a", make_certificate({.names = {"b.test"}}));
    world.run(3'000);
    CHECK(world.has("b.test"));
    CHECK_FALSE(world.has("a.test"));
  }
}
