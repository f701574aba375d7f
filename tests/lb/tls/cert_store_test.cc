// tests/lb/tls/cert_store_test.cc - the clock is a number here; nothing waits.
#include "lb/tls/cert_store.h"

#include <doctest/doctest.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "tests/lb/tls/fake_files.h"

using namespace ringway;
using namespace ringway::test;

namespace {

struct World final : CertStoreEvents {
  explicit World(CertFiles& with) : files(with), store(with, *this) {}

  void on_certificates(uint32_t profile, const std::shared_ptr<const TlsNames>& names) override {
    CHECK(names == store.names(profile));
    ++tables;
  }
  void on_certificate_line(LogLevel level, const std::string& line) override {
    if (level == LogLevel::kError) ++errors;
    lines.push_back(line);
  }
  void start(const CertSource& source) {
    CertSpec spec{.sources = {source}, .profiles = {{.name = "public", .sources = {0}}}};
    CertLoad load(files, std::move(spec), nullptr, time(nullptr));
    REQUIRE(load.step(1'000'000));
    REQUIRE(load.usable());
    store.adopt(std::move(load), now_ms);
  }
  // Lets `ms` pass, with a poll every 20 ms.
  void run(int64_t ms) {
    for (const int64_t end = now_ms + ms; now_ms < end;) {
      now_ms += 20;
      store.poll(now_ms, time(nullptr));
    }
  }
  [[nodiscard]] bool serves(const char* name) const { return !store.names(0)->find(name).empty(); }
  [[nodiscard]] bool said(const std::string& text) const {
    for (const std::string& line : lines) {
      if (line.find(text) != std::string::npos) return true;
    }
    return false;
  }

  CertFiles& files;
  CertStore store;
  int64_t now_ms = 1'000'000;
  int tables = 0;
  int errors = 0;
  std::vector<std::string> lines;
};

CertSource pair_source(const std::string& stem) {
  return {.name = "main", .cert = stem + ".pem", .key = stem + ".key"};
}

CertSource directory_source(const std::string& path) {
  CertSource source;
  source.name = "tenants";
  source.kind = CertSource::Kind::kDirectory;
  source.directory = path;
  return source;
}

MadeCertificate named(const char* name) {
  return make_certificate({.names = {name}});
}

// What "served within 2 s" leaves for a poll that comes late.
constexpr int64_t kInForceMs = kCertRoundMs + kCertPublishMs + 40;

}  // namespace

TEST_CASE("CertStore: nothing changes -> nothing is read, no table is made") {
  FakeCertFiles files;
  files.put_pair("/dir/a", named("a.test"));
  World world(files);
  world.start(directory_source("/dir"));
  const int reads = files.reads;
  world.run(10'000);
  CHECK(files.reads == reads);
  CHECK(files.lists <= 2);
  CHECK(world.tables == 0);
  CHECK(world.lines.empty());
}

TEST_CASE("CertStore: a pair replaced by rename -> in force within 2 s, no failure") {
  FakeCertFiles files;
  files.put_pair("/tls/a", named("old.test"));
  World world(files);
  world.start(pair_source("/tls/a"));
  world.run(730);
  files.put_pair("/tls/a", named("new.test"));
  world.run(kInForceMs);
  CHECK(world.serves("new.test"));
  CHECK_FALSE(world.serves("old.test"));
  CHECK(world.tables == 1);
  CHECK(world.store.reloads() == 1);
  CHECK(world.store.reload_failures() == 0);
  CHECK(world.said("certificate /tls/a.pem was replaced"));
}

TEST_CASE("CertStore: the certificate a moment before its key -> no failure is counted") {
  FakeCertFiles files;
  files.put_pair("/tls/a", named("old.test"));
  World world(files);
  world.start(pair_source("/tls/a"));
  const MadeCertificate next = named("new.test");
  world.run(980);
  files.put("/tls/a.pem", next.cert_pem);
  world.run(100);  // the round sees it and finds that the key does not match
  CHECK(world.serves("old.test"));
  files.put("/tls/a.key", next.key_pem);
  world.run(kInForceMs);
  CHECK(world.serves("new.test"));
  CHECK(world.store.reload_failures() == 0);
  CHECK(world.errors == 0);
}

TEST_CASE("CertStore: a key that does not match -> the old pair stays, one line, one failure") {
  FakeCertFiles files;
  files.put_pair("/tls/a", named("a.test"));
  World world(files);
  world.start(pair_source("/tls/a"));
  files.put("/tls/a.key", named("x").key_pem);
  world.run(10'000);
  CHECK(world.serves("a.test"));
  CHECK(world.store.reload_failures() == 1);
  CHECK(world.errors == 1);
  CHECK(
      world.said("/tls/a.key: the private key does not match the first certificate (line 1); "
                 "the certificate in use stays"));
  CHECK(world.tables == 0);
  // Another bad one is another failure; the right one ends it.
  files.put("/tls/a.key", named("y").key_pem);
  world.run(3'000);
  CHECK(world.store.reload_failures() == 2);
  files.put_pair("/tls/a", named("good.test"));
  world.run(kInForceMs);
  CHECK(world.serves("good.test"));
  CHECK(world.store.reload_failures() == 2);
}

TEST_CASE(
    "CertStore: a file that is written slowly in place -> nothing is said until it is whole") {
  FakeCertFiles files;
  files.put_pair("/tls/a", named("old.test"));
  World world(files);
  world.start(pair_source("/tls/a"));
  const MadeCertificate next = named("new.test");
  const std::string whole = next.cert_pem + next.key_pem;
  files.put("/tls/a.key", next.key_pem);
  for (size_t size = 0; size < next.cert_pem.size(); size += 100) {
    files.overwrite("/tls/a.pem", next.cert_pem.substr(0, size));
    world.run(200);
    CHECK(world.serves("old.test"));
  }
  CHECK(world.store.reload_failures() == 0);
  files.overwrite("/tls/a.pem", next.cert_pem);
  world.run(kInForceMs);
  CHECK(world.serves("new.test"));
  CHECK(world.store.reload_failures() == 0);
}

TEST_CASE(
    "CertStore: a file left half written -> the old one stays, and it is said with the line") {
  FakeCertFiles files;
  const MadeCertificate made = named("a.test");
  files.put_pair("/tls/a", made);
  World world(files);
  world.start(pair_source("/tls/a"));
  files.overwrite("/tls/a.pem", made.cert_pem.substr(0, made.cert_pem.size() / 2));
  world.run(3'000);
  CHECK(world.serves("a.test"));
  CHECK(world.store.reload_failures() == 1);
  CHECK(world.said("/tls/a.pem: not PEM (line 1)"));
}

TEST_CASE("CertStore: permission denied -> the old one stays, with the reason") {
  FakeCertFiles files;
  files.put_pair("/tls/a", named("a.test"));
  World world(files);
  world.start(pair_source("/tls/a"));
  files.deny("/tls/a.key", EACCES);
  world.run(3'000);
  CHECK(world.serves("a.test"));
  CHECK(world.store.reload_failures() == 1);
  CHECK(world.said("cannot read /tls/a.key: Permission denied (as uid "));
  files.deny("/tls/a.key", 0);
  world.run(3'000);
  CHECK(world.store.reload_failures() == 1);
  CHECK(world.tables == 0);
}

// Two writes within a tick of the file system's clock: times cannot tell them apart.
TEST_CASE("CertStore: a second change with the same stamp -> found by reading once more") {
  FakeCertFiles files;
  files.put_pair("/tls/a", named("one.test"));
  World world(files);
  world.start(pair_source("/tls/a"));
  const MadeCertificate three = named("3.test");
  const MadeCertificate two = make_certificate({.names = {"2.test"}, .with_key = three.key.get()});
  files.put_pair("/tls/a", two);
  for (int i = 0; i < 100 && !world.serves("2.test"); ++i) world.run(20);
  CHECK(world.serves("2.test"));
  files.overwrite_unseen("/tls/a.pem", three.cert_pem);
  files.overwrite_unseen("/tls/a.key", three.key_pem);
  world.run(kInForceMs);
  CHECK(world.serves("3.test"));
}

TEST_CASE("CertStore: a directory gains and loses pairs -> served, and no longer, within 2 s") {
  FakeCertFiles files;
  files.put_pair("/dir/m", named("m.test"));
  World world(files);
  world.start(directory_source("/dir"));
  files.put_pair("/dir/a", named("a.test"));
  files.put_pair("/dir/z", named("z.test"));
  world.run(kInForceMs);
  CHECK(world.serves("a.test"));
  CHECK(world.serves("z.test"));
  CHECK(world.store.names(0)->certificates().front()->names.front() == "a.test");
  CHECK(world.store.expiries().size() == 3);
  CHECK(world.store.expiries()[0].name == "a.test");
  CHECK(world.store.expiries()[0].source == "tenants");
  CHECK(world.store.expiries()[0].file == "/dir/a.pem");
  files.remove("/dir/a.pem");
  files.remove("/dir/a.key");
  world.run(2'000);
  CHECK_FALSE(world.serves("a.test"));
  CHECK(world.serves("m.test"));
  CHECK(world.said("certificate /dir/a.pem was removed"));
  CHECK(world.store.reload_failures() == 0);
  CHECK(world.store.expiries().size() == 2);
  files.put_pair("/dir/a", named("again.test"));
  world.run(kInForceMs);
  CHECK(world.serves("again.test"));
  CHECK(world.store.sources()[0].pairs.size() == 3);
}

TEST_CASE("CertStore: removed and put back at once -> served all the time") {
  FakeCertFiles files;
  files.put_pair("/dir/a", named("a.test"));
  files.put_pair("/dir/b", named("b.test"));
  World world(files);
  world.start(directory_source("/dir"));
  const MadeCertificate next = named("a.test");
  world.run(900);
  files.remove("/dir/a.pem");
  world.run(200);  // seen, but not believed yet
  CHECK(world.serves("a.test"));
  files.put_pair("/dir/a", next);
  world.run(2'000);
  CHECK(world.serves("a.test"));
  CHECK_FALSE(world.said("removed"));
  CHECK(world.store.names(0)->find("a.test").of(TlsKeyType::kEcdsaP256)->chain[0] ==
        next.cert_der());
}

TEST_CASE("CertStore: the last certificate of a profile is removed -> it stays, and that is said") {
  FakeCertFiles files;
  files.put_pair("/dir/a", named("a.test"));
  World world(files);
  world.start(directory_source("/dir"));
  files.remove("/dir/a.pem");
  files.remove("/dir/a.key");
  world.run(5'000);
  CHECK(world.serves("a.test"));
  CHECK(world.said("profile \"public\" has no certificate left; the last ones stay in use"));
  CHECK(world.store.expiries().size() == 1);
  const size_t lines = world.lines.size();
  world.run(5'000);
  CHECK(world.lines.size() == lines);
  files.put_pair("/dir/b", named("b.test"));
  world.run(kInForceMs);
  CHECK(world.serves("b.test"));
  CHECK_FALSE(world.serves("a.test"));
}

TEST_CASE(
    "CertStore: a certificate whose key never comes -> one line once the directory is quiet") {
  FakeCertFiles files;
  files.put_pair("/dir/a", named("a.test"));
  World world(files);
  world.start(directory_source("/dir"));
  const MadeCertificate late = named("b.test");
  files.put("/dir/b.crt", late.cert_pem);
  world.run(900);
  CHECK(world.lines.empty());
  world.run(5'000);
  CHECK(world.said("/dir/b.crt: there is no b.key beside it; it is left out"));
  CHECK(world.lines.size() == 1);
  CHECK(world.store.reload_failures() == 1);
  files.put("/dir/b.key", late.key_pem);
  world.run(kInForceMs);
  CHECK(world.serves("b.test"));
}

TEST_CASE("CertStore: a key comes beside a combined file -> it is used") {
  FakeCertFiles files;
  const MadeCertificate made = named("a.test");
  files.put("/dir/a.pem", made.cert_pem + made.key_pem);
  World world(files);
  world.start(directory_source("/dir"));
  files.put_pair("/dir/a", named("b.test"));
  world.run(kInForceMs);
  CHECK(world.serves("b.test"));
  CHECK(world.store.names(0)->certificates()[0]->key_file == "/dir/a.key");
}

TEST_CASE("CertStore: watch = false -> files are not looked at") {
  FakeCertFiles files;
  files.put_pair("/tls/a", named("a.test"));
  World world(files);
  CertSource source = pair_source("/tls/a");
  source.watch = false;
  world.start(source);
  files.put_pair("/tls/a", named("b.test"));
  world.run(5'000);
  CHECK(world.serves("a.test"));
  CHECK_FALSE(world.serves("b.test"));
}

TEST_CASE("CertStore: 500 pairs change at once -> no poll reads more than its share, all served") {
  FakeCertFiles files;
  const MadeCertificate old = named("old.test");
  for (int i = 0; i < 500; ++i) files.put_pair("/dir/" + std::to_string(i), old);
  World world(files);
  world.start(directory_source("/dir"));
  const MadeCertificate next = named("new.test");
  for (int i = 0; i < 500; ++i) files.put_pair("/dir/" + std::to_string(i), next);
  int most = 0;
  for (int i = 0; i < 100; ++i) {
    const int before = files.reads;
    world.run(20);
    most = std::max(most, files.reads - before);
  }
  CHECK(most <= 2 * static_cast<int>(kCertLoadsPerPoll));
  CHECK(most > 0);
  CHECK(world.serves("new.test"));
  CHECK_FALSE(world.serves("old.test"));
}

TEST_CASE("CertStore: a certificate that comes in expired -> a warning beside the line") {
  FakeCertFiles files;
  files.put_pair("/tls/a", named("a.test"));
  World world(files);
  world.start(pair_source("/tls/a"));
  files.put_pair("/tls/a", make_certificate({.names = {"a.test"}, .not_after_s = -60}));
  world.run(kInForceMs);
  CHECK(world.said("certificate /tls/a.pem (a.test) has expired on "));
}

TEST_CASE("cert_round_ms: few certificates -> a second; very many -> as the rate allows") {
  static_assert(cert_round_ms(0) == 1000);
  static_assert(cert_round_ms(12'500) == 1000);
  static_assert(cert_round_ms(50'000) == 4000);
}

// The same on a real file system, where inodes and times are the kernel's.
TEST_CASE("CertStore: rename(2) over both files of a pair on disk -> in force") {
  char folder[] = "/tmp/ringway-certs-XXXXXX";
  REQUIRE(mkdtemp(folder) != nullptr);
  const std::string path = folder;
  const auto write = [&path](const std::string& name, const std::string& text) {
    std::ofstream(path + "/" + name) << text;
  };
  const MadeCertificate first = named("old.test");
  write("a.pem", first.cert_pem);
  write("a.key", first.key_pem);
  DiskCertFiles files;
  {
    World world(files);
    world.start(directory_source(path));
    const MadeCertificate second = named("new.test");
    write(".a.pem.new", second.cert_pem);
    write(".a.key.new", second.key_pem);
    CHECK(rename((path + "/.a.pem.new").c_str(), (path + "/a.pem").c_str()) == 0);
    CHECK(rename((path + "/.a.key.new").c_str(), (path + "/a.key").c_str()) == 0);
    world.run(kInForceMs);
    CHECK(world.serves("new.test"));
    CHECK_FALSE(world.serves("old.test"));
    CHECK(world.store.reload_failures() == 0);
    SecretBytes bytes;
    CHECK(files.read(path, bytes) == EISDIR);
    CHECK(files.read(path + "/none", bytes) == ENOENT);
    CHECK(files.read("/dev/null", bytes) == EINVAL);
    write("big", std::string(kCertFileBytesMax + 1, 'x'));
    CHECK(files.read(path + "/big", bytes) == EFBIG);
    CHECK_FALSE(files.stamp(path + "/none").exists());
  }
  for (const char* name : {"/a.pem", "/a.key", "/big"}) unlink((path + name).c_str());
  CHECK(rmdir(folder) == 0);
}
