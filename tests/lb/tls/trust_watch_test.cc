// tests/lb/tls/trust_watch_test.cc - files of authorities and revocation lists that change.
#include "lb/tls/trust_watch.h"

#include <doctest/doctest.h>
#include <errno.h>

#include <string>
#include <vector>

#include "tests/lb/tls/fake_files.h"

using namespace ringway;
using namespace ringway::test;

namespace {

struct World final : TrustEvents {
  World() {
    files.put("/ca.pem", first.cert_pem);
    files.put("/ca.crl", make_crl(first, {}));
    files.put("/servers.pem", first.cert_pem);
    config.tls_profiles.resize(2);
    config::TlsClientAuth& auth = config.tls_profiles[1].client_auth;
    auth.mode = config::ClientAuthMode::kRequired;
    auth.ca.path = "/ca.pem";
    auth.crl.path = "/ca.crl";
    config.upstreams.resize(3);
    config.upstreams[0].tls.enabled = true;  // With the system's authorities.
    config.upstreams[2].tls.enabled = true;
    config.upstreams[2].tls.ca.path = "/servers.pem";
    materials.profiles.resize(2);
    materials.upstreams.resize(3);
    materials.profiles[1].client_trust = text("/ca.pem", "/ca.crl");
    materials.upstreams[2].trust = text("/servers.pem", "");
    watch.start(config, materials);
    watch.poll();
    CHECK(told.empty());
  }
  std::shared_ptr<const TlsTrustText> text(const std::string& ca, const std::string& crl) {
    config::FilePath ca_path;
    config::FilePath crl_path;
    ca_path.path = ca;
    crl_path.path = crl;
    auto made = std::make_shared<TlsTrustText>();
    REQUIRE(read_trust_text(ca_path, crl_path, files, *made) == "");
    return made;
  }
  void on_client_trust(uint32_t profile, const std::shared_ptr<const TlsTrustText>& text) override {
    told.push_back("client " + std::to_string(profile));
    last = text;
  }
  void on_server_trust(uint32_t upstream,
                       const std::shared_ptr<const TlsTrustText>& text) override {
    told.push_back("server " + std::to_string(upstream));
    last = text;
  }
  void on_trust_line(LogLevel level, const std::string& line) override {
    if (level == LogLevel::kError) errors.push_back(line);
  }
  std::vector<std::string> poll() {
    told.clear();
    watch.poll();
    return told;
  }
  using Told = std::vector<std::string>;
  // With something in it.
  [[nodiscard]] std::string crl() const {
    const MadeCertificate* const list[] = {&second};
    return make_crl(first, list);
  }

  FakeCertFiles files;
  MadeCertificate first = make_certificate({.common_name = "First CA", .ca = true});
  MadeCertificate second = make_certificate({.common_name = "Second CA", .ca = true});
  config::Config config;
  TlsMaterials materials;
  TrustWatch watch{files, *this};
  Told told;
  std::vector<std::string> errors;
  std::shared_ptr<const TlsTrustText> last;
};

}  // namespace

TEST_CASE("TrustWatch: a good change -> told to whom it concerns, once") {
  World world;
  for (int i = 0; i < 3; ++i) CHECK(world.poll() == World::Told{});
  const int reads = world.files.reads;
  CHECK(world.poll() == World::Told{});
  CHECK(world.files.reads == reads);  // What does not change is not read.
  world.files.put("/ca.pem", world.first.cert_pem + world.second.cert_pem);
  CHECK(world.poll() == World::Told{"client 1"});
  CHECK(world.last->ca == world.first.cert_pem + world.second.cert_pem);
  CHECK(world.last->crl == world.materials.profiles[1].client_trust->crl);
  world.files.put("/servers.pem", world.second.cert_pem);
  CHECK(world.poll() == World::Told{"server 2"});
  CHECK(world.last->ca == world.second.cert_pem);
  const std::string revoked = world.crl();
  world.files.put("/ca.crl", revoked);
  CHECK(world.poll() == World::Told{"client 1"});
  CHECK(world.last->crl == revoked);
  CHECK(world.poll() == World::Told{});
  CHECK(world.watch.reloads() == 3);
  CHECK(world.watch.failures() == 0);
  CHECK(world.errors.empty());
}

TEST_CASE("TrustWatch: changed while it was read first, or again in the same moment -> seen") {
  World world;
  world.files.overwrite_unseen("/servers.pem", world.second.cert_pem);
  world.watch.start(world.config, world.materials);
  CHECK(world.poll() == World::Told{"server 2"});
  world.files.overwrite("/servers.pem", world.first.cert_pem);
  CHECK(world.poll() == World::Told{"server 2"});
  world.files.overwrite_unseen("/servers.pem", world.second.cert_pem);
  CHECK(world.poll() == World::Told{"server 2"});
}

TEST_CASE(
    "TrustWatch: a bad change -> looked at twice, counted once, the old stays; mended -> told") {
  const MadeCertificate ca = make_certificate({.common_name = "CA", .ca = true});
  const std::string bad[] = {"",       "no PEM",  ca.key_pem, ca.cert_pem.substr(0, 200),
                             "<gone>", "<denied>"};
  for (const std::string& text : bad) {
    CAPTURE(text);
    World world;
    const bool gone = text == "<gone>";
    const bool denied = text == "<denied>";
    if (gone) world.files.remove("/ca.pem");
    if (denied) world.files.deny("/ca.pem", EACCES);
    if (!gone && !denied) world.files.put("/ca.pem", text);
    CHECK(world.poll() == World::Told{});
    CHECK(world.watch.failures() == 0);
    for (int i = 0; i < 3; ++i) CHECK(world.poll() == World::Told{});
    CHECK(world.watch.failures() == 1);
    REQUIRE(world.errors.size() == 1);
    CHECK(world.errors[0].find("/ca.pem") != std::string::npos);
    CHECK(world.errors[0].find("what is in use stays") != std::string::npos);
    world.files.put("/ca.pem", world.first.cert_pem);  // As it was: nothing new.
    if (denied) world.files.deny("/ca.pem", 0);
    CHECK(world.poll() == World::Told{});
    world.files.put("/ca.pem", world.second.cert_pem);
    CHECK(world.poll() == World::Told{"client 1"});
    CHECK(world.watch.failures() == 1);
  }
}

TEST_CASE("TrustWatch: half written, then whole -> nobody is told of the half") {
  World world;
  world.files.put("/ca.crl", make_crl(world.first, {}).substr(0, 100));
  CHECK(world.poll() == World::Told{});
  world.files.overwrite("/ca.crl", world.crl());
  CHECK(world.poll() == World::Told{"client 1"});
  CHECK(world.watch.failures() == 0);
  CHECK(world.errors.empty());
}
