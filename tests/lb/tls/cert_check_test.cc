// tests/lb/tls/cert_check_test.cc
#include "lb/tls/cert_check.h"

#include <doctest/doctest.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "tests/lb/tls/fake_files.h"

using namespace ringway;
using namespace ringway::test;

namespace {

const std::string kRest =
    "version = 1\n[listeners.web]\nbind = '127.0.0.1:80'\ntls = 'public'\n"
    "[[routes]]\nname = 'all'\nupstream = 'app'\n"
    "[upstreams.app]\nservers = [{ address = '127.0.0.1:81' }]\n"
    "[tls.profiles.public]\ncertificates = ['c']\n";  // lines 1 to 11

config::LoadResult check(FakeCertFiles& files, const std::string& text) {
  config::LoadResult result = config::load_text(kRest + text, "test");
  REQUIRE(result.config != nullptr);
  check_tls_files(result, files, time(nullptr));
  return result;
}

}  // namespace

TEST_CASE("check_tls_files: all files are good -> nothing to say") {
  FakeCertFiles files;
  const MadeCertificate ca = make_certificate({.ca = true});
  files.put_pair("/c", make_certificate({.names = {"a.test"}}));
  files.put_pair("/me", make_certificate({.issuer = &ca, .client = true}));
  files.put("/ca.pem", ca.cert_pem + ca.cert_pem);
  files.put("/ca.crl", make_crl(ca, {}));
  files.put("/tickets", std::string(80, 'k'));
  const config::LoadResult result = check(
      files,
      "client_auth = { mode = 'required', ca = '/ca.pem', crl = '/ca.crl' }\n"
      "tickets = { keys = '/tickets' }\n"
      "[tls.certificates]\nc = { cert = '/c.pem', key = '/c.key' }\n"
      "[upstreams.app.tls]\nca = '/ca.pem'\ncertificate = { cert = '/me.pem', key = '/me.key' }\n");
  INFO(config::render(result, false));
  CHECK(result.diagnostics.empty());
  CHECK(result.config != nullptr);
}

TEST_CASE("check_tls_files: a key of another certificate -> E0322 under the path of the key") {
  FakeCertFiles files;
  files.put_pair("/c", make_certificate({}));
  files.put("/c.key", make_certificate({}).key_pem);
  const config::LoadResult result =
      check(files, "[tls.certificates]\nc = { cert = '/c.pem', key = '/c.key' }\n");
  CHECK(result.config == nullptr);
  REQUIRE(result.errors() == 1);
  CHECK(config::render(result, false)
            .starts_with("error[E0322]: /c.key: the private key does not match the first "
                         "certificate (line 1)\n"
                         "  --> test:13:30\n"
                         "   |\n"
                         "13 | c = { cert = '/c.pem', key = '/c.key' }\n"
                         "   |                              ^^^^^^^^\n"));
  CHECK(result.diagnostics[0].position.line == 13);
  CHECK(result.diagnostics[0].position.column == 30);
  CHECK(result.diagnostics[0].length == 8);
}

TEST_CASE("check_tls_files: every file that may be named, unreadable -> an error at each") {
  FakeCertFiles files;
  const std::string text =
      "client_auth = { mode = 'required', ca = '/1', crl = '/2' }\n"
      "tickets = { keys = '/3' }\n"
      "[tls.certificates]\nc = { pem = '/4' }\n"
      "[upstreams.app.tls]\nca = '/5'\ncertificate = { cert = '/6', key = '/7' }\n";
  const config::LoadResult result = check(files, text);
  CHECK(result.errors() == 6);  // of a pair only the first file is looked at
  for (int i = 1; i <= 6; ++i) {
    const std::string path = "/" + std::to_string(i);
    CHECK(std::any_of(
        result.diagnostics.begin(), result.diagnostics.end(), [&](const config::Diagnostic& d) {
          return d.code == "E0322" &&
                 d.message == "cannot read " + path + ": No such file or directory (as uid " +
                                  std::to_string(geteuid()) + ")" &&
                 d.source_line.substr(d.position.column - 1, d.length) == "'" + path + "'";
        }));
  }
}

TEST_CASE("check_tls_files: files that hold something else -> what is missing in them") {
  FakeCertFiles files;
  const MadeCertificate made = make_certificate({});
  files.put_pair("/c", made);
  files.put("/ca.pem", made.key_pem);
  files.put("/ca.crl", made.cert_pem);
  files.put("/ca2.pem",
            made.cert_pem + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
  const config::LoadResult result =
      check(files,
            "client_auth = { mode = 'required', ca = '/ca.pem', crl = '/ca.crl' }\n"
            "[tls.certificates]\nc = { cert = '/c.pem', key = '/c.key' }\n"
            "[upstreams.app.tls]\nca = '/ca2.pem'\n");
  REQUIRE(result.errors() == 3);
  CHECK(result.diagnostics[0].message == "/ca.pem: there is no certificate in it");
  CHECK(result.diagnostics[1].message == "/ca.crl: there is no revocation list in it");
  CHECK(result.diagnostics[2].message.starts_with("/ca2.pem: no certificate at line "));
  files.put("/ca2.pem", made.cert_pem.substr(0, 60));
  CHECK(check(files,
              "[tls.certificates]\nc = { cert = '/c.pem', key = '/c.key' }\n"
              "[upstreams.app.tls]\nca = '/ca2.pem'\n")
            .diagnostics[0]
            .message == "/ca2.pem: not PEM at line 1");
}

TEST_CASE("check_tls_files: keys of ECH, missing or no good -> E0322 at the path") {
  for (const bool there : {false, true}) {
    FakeCertFiles files;
    files.put_pair("/c", make_certificate({.names = {"a.test"}}));
    if (there) files.put("/ech", make_certificate({}).key_pem);
    const config::LoadResult result =
        check(files, "ech = '/ech'\n[tls.certificates]\nc = { cert = '/c.pem', key = '/c.key' }\n");
    CHECK(result.config == nullptr);
    REQUIRE(result.errors() == 1);
    CHECK(result.diagnostics[0].code == "E0322");
    CHECK(result.diagnostics[0].position.line == 12);
    CHECK(result.diagnostics[0].message.find(there ? "/ech: line 1: a key without its ECHCONFIG"
                                                   : "cannot read /ech: ") == 0);
  }
}

TEST_CASE("check_tls_files: expired, and a broken one in a directory -> warnings, still valid") {
  FakeCertFiles files;
  files.put_pair("/d/a", make_certificate({.names = {"a.test"}, .not_after_s = -10}));
  files.put("/d/b.pem", "nonsense");
  const config::LoadResult result = check(files, "[tls.certificates]\nc = { directory = '/d' }\n");
  REQUIRE(result.config != nullptr);
  REQUIRE(result.warnings() == 2);
  CHECK(result.diagnostics[0].code == "W0409");
  CHECK(result.diagnostics[1].code == "W0411");
  CHECK(result.diagnostics[1].message == "/d/b.pem: there is no certificate in it");
  CHECK(result.diagnostics[1].position.line == 13);
}
