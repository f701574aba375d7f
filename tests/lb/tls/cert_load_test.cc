// tests/lb/tls/cert_load_test.cc
#include "lb/tls/cert_load.h"

#include <doctest/doctest.h>
#include <time.h>
#include <unistd.h>

#include <string>

#include "tests/lb/tls/fake_files.h"

using namespace ringway;
using namespace ringway::test;

namespace {

using Kind = CertSource::Kind;
using Part = CertProblem::Part;

CertSource pair_source(const std::string& stem) {
  return {.name = "pair", .kind = Kind::kPair, .cert = stem + ".pem", .key = stem + ".key"};
}

CertSource directory_source(const std::string& path) {
  CertSource source;
  source.name = "directory";
  source.kind = Kind::kDirectory;
  source.directory = path;
  return source;
}

CertSpec spec_of(std::vector<CertSource> sources) {
  CertSpec spec{.sources = std::move(sources), .profiles = {{.name = "public", .sources = {}}}};
  for (uint32_t i = 0; i < spec.sources.size(); ++i) spec.profiles[0].sources.push_back(i);
  return spec;
}

CertLoad load_all(CertFiles& files, CertSpec spec,
                  const std::vector<CertSourceState>* before = nullptr) {
  CertLoad load(files, std::move(spec), before, time(nullptr));
  CHECK(load.step(1'000'000));
  return load;
}

const char* first_name(const TlsNames& names) {
  return names.certificates().front()->names.front().c_str();
}

}  // namespace

TEST_CASE("CertLoad: pair, combined file and directory -> one table in the order of the profile") {
  FakeCertFiles files;
  files.put_pair("/tls/a", make_certificate({.names = {"a.test"}}));
  const MadeCertificate both = make_certificate({.names = {"b.test"}});
  files.put("/tls/b.pem", both.cert_pem + both.key_pem);
  files.put_pair("/dir/2", make_certificate({.names = {"d2.test"}}));
  const MadeCertificate crt = make_certificate({.names = {"d1.test"}});
  files.put("/dir/1.crt", crt.cert_pem);
  files.put("/dir/1.key", crt.key_pem);
  const MadeCertificate combined = make_certificate({.names = {"d3.test"}});
  files.put("/dir/3.pem", combined.key_pem + combined.cert_pem);
  files.put("/dir/.3.pem.swp", "x");
  files.put("/dir/.hidden.pem", "x");
  files.put("/dir/README", "x");

  CertSource b{.name = "b", .kind = Kind::kCombined, .cert = "/tls/b.pem"};
  CertSpec spec = spec_of({pair_source("/tls/a"), b, directory_source("/dir")});
  spec.profiles[0].sources = {2, 0, 1};
  spec.profiles.push_back({.name = "other", .sources = {1}});
  const CertLoad load = load_all(files, spec);
  CHECK(load.problems().empty());
  CHECK(load.usable());
  CHECK(load.num_certificates() == 5);
  const auto names = load.names_of(0);
  CHECK(std::string(first_name(*names)) == "d1.test");
  for (const char* name : {"a.test", "b.test", "d1.test", "d2.test", "d3.test"}) {
    CHECK_FALSE(names->find(name).empty());
  }
  CHECK(load.names_of(1)->find("a.test").empty());
  CHECK_FALSE(load.names_of(1)->find("b.test").empty());
  CHECK(names->find("d3.test").of(TlsKeyType::kEcdsaP256)->key_file == "/dir/3.pem");
}

TEST_CASE("CertLoad: a key that may not be read -> the path, the reason and who tried") {
  FakeCertFiles files;
  files.put_pair("/tls/a", make_certificate({}));
  files.deny("/tls/a.key", EACCES);
  const CertLoad load = load_all(files, spec_of({pair_source("/tls/a")}));
  REQUIRE(load.problems().size() == 1);
  const CertProblem& problem = load.problems()[0];
  CHECK(problem.text ==
        "cannot read /tls/a.key: Permission denied (as uid " + std::to_string(geteuid()) + ")");
  CHECK(problem.part == Part::kKey);
  CHECK_FALSE(problem.warning);
  CHECK_FALSE(load.usable());
}

TEST_CASE("CertLoad: files that hold the wrong thing -> an error of the key that names them") {
  FakeCertFiles files;
  const MadeCertificate made = make_certificate({});
  files.put_pair("/tls/a", made);
  files.put("/tls/a.key", make_certificate({}).key_pem);
  CertLoad load = load_all(files, spec_of({pair_source("/tls/a")}));
  REQUIRE(load.problems().size() == 1);
  CHECK(load.problems()[0].part == Part::kKey);
  CHECK(load.problems()[0].text ==
        "/tls/a.key: the private key does not match the first certificate (line 1)");

  files.put("/tls/a.key", "");
  load = load_all(files, spec_of({pair_source("/tls/a")}));
  REQUIRE(load.problems().size() == 1);
  CHECK(load.problems()[0].text == "/tls/a.key: the file is empty");

  files.put("/tls/a.pem", "no PEM");
  files.put("/tls/a.key", made.key_pem);
  load = load_all(files, spec_of({pair_source("/tls/a")}));
  REQUIRE(load.problems().size() == 1);
  CHECK(load.problems()[0].part == Part::kCert);
  CHECK(load.problems()[0].text == "/tls/a.pem: there is no certificate in it");

  files.put_pair("/tls/a", made);
  files.put("/tls/a.pem.ocsp", "nonsense");
  load = load_all(files, spec_of({pair_source("/tls/a")}));
  REQUIRE(load.problems().size() == 1);
  CHECK(load.problems()[0].text ==
        "/tls/a.pem.ocsp: the OCSP response is of no use: not an OCSP response");
  files.put("/tls/a.pem.ocsp", make_ocsp(made));
  load = load_all(files, spec_of({pair_source("/tls/a")}));
  CHECK(load.usable());
  CHECK(load.names_of(0)->certificates()[0]->ocsp == make_ocsp(made));
}

// One tenant's mistake must not stop all others from being served.
TEST_CASE("CertLoad: a bad pair in a directory -> left out with a warning; all bad -> an error") {
  FakeCertFiles files;
  files.put_pair("/dir/good", make_certificate({.names = {"good.test"}}));
  files.put_pair("/dir/bad", make_certificate({.names = {"bad.test"}}));
  files.put("/dir/bad.key", make_certificate({}).key_pem);
  files.put("/dir/alone.crt", make_certificate({}).cert_pem);
  files.put("/dir/lost.key", "x");
  CertLoad load = load_all(files, spec_of({directory_source("/dir")}));
  CHECK(load.usable());
  REQUIRE(load.problems().size() == 3);
  for (const CertProblem& problem : load.problems()) {
    CHECK(problem.warning);
    CHECK(problem.part == Part::kDirectory);
  }
  CHECK(load.problems()[0].text == "/dir/alone.crt: there is no alone.key beside it");
  CHECK(load.problems()[1].text == "/dir/lost.key: there is no certificate beside it");
  CHECK(load.names_of(0)->find("bad.test").empty());

  files.put("/dir/good.key", "x");
  load = load_all(files, spec_of({directory_source("/dir")}));
  CHECK_FALSE(load.usable());
  CHECK(load.problems().back().text == "there is no usable certificate for profile \"public\"");
  load = load_all(files, spec_of({directory_source("/none")}));
  CHECK_FALSE(load.usable());
  REQUIRE(load.problems().size() == 1);
  CHECK(load.problems()[0].text ==
        "cannot read /none: No such file or directory (as uid " + std::to_string(geteuid()) + ")");
}

TEST_CASE("CertLoad: expired, and about to expire -> loaded with a warning") {
  FakeCertFiles files;
  files.put_pair("/tls/a", make_certificate({.names = {"a.test"}, .not_after_s = -1}));
  files.put_pair("/tls/b", make_certificate({.not_after_s = kCertExpirySoonS - 100}));
  files.put_pair("/tls/c", make_certificate({.not_after_s = kCertExpirySoonS + 100}));
  const CertLoad load = load_all(
      files, spec_of({pair_source("/tls/a"), pair_source("/tls/b"), pair_source("/tls/c")}));
  CHECK(load.usable());
  REQUIRE(load.problems().size() == 2);
  CHECK(load.problems()[0].text.starts_with("certificate /tls/a.pem (a.test) has expired on 2"));
  CHECK(load.problems()[1].text.starts_with("certificate /tls/b.pem (test) expires on 2"));
  CHECK(load.problems()[1].expiry);
}

TEST_CASE("CertLoad: loaded again -> only what has changed is read") {
  FakeCertFiles files;
  for (int i = 0; i < 20; ++i) {
    files.put_pair("/dir/" + std::to_string(i), make_certificate({}));
  }
  CertLoad first = load_all(files, spec_of({directory_source("/dir")}));
  CHECK(files.reads == 40);
  const std::vector<CertSourceState> before = first.take_sources();
  files.put_pair("/dir/7", make_certificate({.names = {"new.test"}}));
  const CertLoad second = load_all(files, spec_of({directory_source("/dir")}), &before);
  CHECK(files.reads == 42);
  CHECK(second.num_reused() == 19);
  CHECK(second.num_certificates() == 20);
  CHECK_FALSE(second.names_of(0)->find("new.test").empty());
}

TEST_CASE("CertLoad: loaded again with a pair gone bad -> the old one is taken over") {
  FakeCertFiles files;
  files.put_pair("/dir/a", make_certificate({.names = {"a.test"}}));
  CertLoad first = load_all(files, spec_of({directory_source("/dir")}));
  const std::vector<CertSourceState> before = first.take_sources();
  files.put("/dir/a.key", "half");
  const CertLoad second = load_all(files, spec_of({directory_source("/dir")}), &before);
  CHECK(second.problems().size() == 1);
  CHECK(second.usable());
  CHECK_FALSE(second.names_of(0)->find("a.test").empty());
}

TEST_CASE("CertLoad: step(3) over 10 pairs -> three at a time, four steps") {
  FakeCertFiles files;
  for (int i = 0; i < 10; ++i) files.put_pair("/dir/" + std::to_string(i), make_certificate({}));
  CertLoad load(files, spec_of({directory_source("/dir")}), nullptr, 0);
  for (int i = 1; i <= 3; ++i) {
    CHECK_FALSE(load.step(3));
    CHECK(files.reads == 6 * i);
  }
  CHECK(load.step(3));
  CHECK(load.num_certificates() == 10);
  CHECK(load_all(files, {}).usable());
}
