// tests/lb/config_codes_test.cc - every code is triggered, at the right place, and explained.
#include <doctest/doctest.h>

#include <algorithm>
#include <set>
#include <string>

#include "lb/config/codes.h"
#include "lb/config/load.h"

using namespace ringway::config;

namespace {

// The shortest complete configuration; `%` lines of a case are added to it.
const std::string kComplete =
    "version = 1\n"
    "[listeners.web]\n"
    "bind = '127.0.0.1:80'\n"
    "[upstreams.app]\n"
    "servers = [{ address = '127.0.0.1:81' }]\n"
    "[[routes]]\n"
    "name = 'all'\n"
    "upstream = 'app'\n";

struct Case {
  const char* code;
  const char* text;  // after "+": added to kComplete, so its first line is number 9
  uint32_t line;
  uint32_t column;
  uint32_t length;
};

const Case kCases[] = {
    {"E0003", "include = 'x.toml'\nversion = 1", 1, 11, 8},
    {"E0101", "version = 1\nversion = 1", 2, 11, 1},
    {"E0101", "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s.t.u.v.w.x.y.z.a.b.c.d.e.f.g = 1", 1, 64, 1},
    {"E0103", "version = 2", 1, 11, 1},
    {"E0104", "+[process]\nmaxcon = 1", 10, 1, 6},
    {"E0104", "+[process]\n\tmaxcon = 1", 10, 2, 6},
    {"E0104", "+[process]\n\"m\u00e4xcon\" = 1", 10, 1, 8},
    {"E0105", "+[process]\nuser = 'x'", 10, 1, 4},
    {"E0105", "+[upstreams.b]\nbalance.algorithm = 'least_time'", 10, 21, 12},
    {"E0105", "+request_headers = { set = { a = '{x}' } }", 9, 33, 5},
    {"E0105", "+[logs.access]\noutput = 'syslog+udp://x'", 10, 10, 16},
    {"E0106", "+[listeners.b]\nbacklog = 5", 9, 1, 13},
    {"E0106", "+[upstreams.app.health]\nrise = 5", 9, 1, 22},
    {"E0211", "+[[routes]]\nname = 'b'\nupstream = 'ap'", 11, 12, 4},
    {"E0212", "+listeners = ['wbe']", 9, 14, 5},
    {"E0212", "+listeners = []", 9, 13, 2},
    {"E0213", "+[upstreams.b]\nextends = 'ap'", 10, 11, 4},
    {"E0214", "+[upstreams.b]\nextends = 'b'", 10, 11, 3},
    {"E0215",
     "+[listeners.t]\nbind = '1.1.1.1:1'\nprotocol = 'tcp'\n[[routes]]\nname = 'b'\n"
     "listeners = 't'\nupstream = 'app'",
     15, 12, 5},
    {"E0215",
     "+[upstreams.t]\nprotocol = 'tcp'\nservers = [{ address = '1.1.1.1:1' }]\n[[routes]]\n"
     "name = 'b'\nupstream = 't'",
     12, 1, 10},
    {"E0216",
     "+[upstreams.t]\nprotocol = 'tcp'\nservers = [{ address = '1.1.1.1:1' }]\n"
     "[listeners.t]\nbind = '1.1.1.1:1'\nprotocol = 'tcp'\n[[routes]]\n"
     "name = 'b'\nupstream = 't'\nmatch = { path = '/' }",
     18, 11, 4},
    {"E0217", "+[[routes]]\nname = 'all'\nupstream = 'app'", 10, 8, 5},
    {"E0218", "+[upstreams.b]\nservers = [{ address = '1.1.1.1:1' }, { address = '1.1.1.1:1' }]",
     10, 39, 25},
    {"E0219", "+[listeners.b]\nbind = '127.0.0.1:80'", 10, 8, 14},
    {"E0219", "+[metrics]\nprometheus = '127.0.0.1:80'", 10, 14, 14},
    {"E0220", "+[[routes]]\nname = 'b'", 9, 1, 10},
    {"E0220", "+reject = {}", 9, 1, 6},
    {"E0221", "version = 1", 1, 1, 1},
    {"E0222", "version = 1", 1, 1, 1},
    {"E0223", "+[upstreams.b]\nservers = []", 9, 1, 13},
    {"E0224", "+[listeners.b]\nbind = '1.1.1.1:1'\ntls = 'pub'", 11, 7, 5},
    {"E0225", "+[tls.profiles.p]\ncertificates = ['mian']", 10, 17, 6},
    {"E0226", "+[tls.certificates]\nmain = {}", 10, 1, 4},
    {"E0226", "+[tls.certificates]\nmain = { cert = '/a', key = '/b', pem = '/c' }", 10, 35, 3},
    {"E0226", "+[tls.certificates]\nmain = { cert = '/a' }", 10, 1, 4},
    {"E0227", "+[upstreams.b]\nservers = [{ address = '[::1]:1', source = '1.1.1.1' }]", 10, 44, 9},
    {"E0227", "+[upstreams.b]\nservers = [{ address = 'unix:/a' }]\nsocket = { mark = 7 }", 11, 1,
     6},
    {"E0301", "+[process]\nmax_connections = 'many'", 10, 19, 6},
    {"E0301", "+listeners = 5", 9, 13, 1},
    {"E0301", "include = 5", 1, 11, 1},
    {"E0302", "+[defaults.timeouts]\nconnect = 2", 10, 11, 1},
    {"E0302", "+[defaults.timeouts]\nconnect = '2'", 10, 11, 3},
    {"E0302", "+[listeners.b.limits]\nheader_bytes = 65536", 10, 16, 5},
    {"E0303", "+[defaults.timeouts]\nconnect = '2 s'", 10, 11, 5},
    {"E0303", "+match = { method = 'get' }", 9, 20, 5},
    {"E0304", "+[process]\nmax_connections = -1", 10, 19, 2},
    {"E0304", "+[defaults.timeouts]\nconnect = '50us'", 10, 11, 6},
    {"E0305", "+[engine]\nkind = 'iouring'", 10, 8, 9},
    {"E0305", "+[[routes]]\nname = 'b'\nredirect = { host = 'b', status = 305 }", 11, 35, 3},
    {"E0306", "+[metrics]\nprometheus = ':9101'", 10, 14, 7},
    {"E0307", "+[listeners.b]\ntrusted_proxies = ['10.0.0.1/8']", 10, 20, 12},
    {"E0308", "+match = { path_regex = '(' }", 9, 24, 3},
    {"E0309", "+match = { header = { 'a b' = true } }", 9, 22, 5},
    {"E0310", "+match = { host = 'a.example:80' }", 9, 18, 14},
    {"E0311", "+match = { path = ['/a', 'b'] }", 9, 25, 3},
    {"E0312", "+match = { path = '/${env:RINGWAY_TEST_UNSET}' }", 9, 20, 25},
    {"E0312", "+match = { path = '/${x}' }", 9, 20, 4},
    {"E0313", "+match = { path = '/${file:/nonexistent/x}' }", 9, 20, 22},
    {"E0314", "+[process]\ncpus = '3-1'", 10, 8, 5},
    {"E0315", "+[upstreams.app.health]\ntype = 'http'\nexpect = { status = '20x' }", 11, 21, 5},
    {"E0317", "+[upstreams.app.balance]\nchoices = 2", 10, 1, 7},
    {"E0317", "+[upstreams.app.pool]\nidle_ping = '30s'", 10, 1, 9},
    {"E0318", "+request_headers = { remove = ['Host'] }", 9, 31, 6},
    {"E0319", "+[upstreams.'a b']\nservers = [{ address = '1.1.1.1:1' }]", 9, 12, 5},
    {"E0106", "+[tls.profiles.p]\nstrict_sni = true", 9, 1, 16},
    {"E0106", "+[tls.profiles.p]\ncertificates = 'c'\nclient_auth = { mode = 'optional' }", 11, 1,
     11},
    {"E0106", "+[upstreams.b]\nprotocol = 'tcp'\nservers = [{ address = '1.1.1.1:1' }]\ntls = {}",
     12, 1, 3},
    {"E0303", "+[tls.certificates]\nmain = { pem = 'c.pem' }", 10, 16, 7},
    {"E0303", "+[tls.profiles.p]\ncertificates = 'c'\nhandshakes_per_shard = '20'", 11, 24, 4},
    {"E0304", "+[tls.profiles.p]\ncertificates = 'c'\nhandshakes_per_shard = '0/s'", 11, 24, 5},
    {"E0304", "+[tls.profiles.p]\ncertificates = []", 10, 16, 2},
    {"E0304", "+[tls.profiles.p]\ncertificates = 'c'\nciphers = []", 11, 11, 2},
    {"E0310", "+[upstreams.app.tls]\nsni = '10.0.0.1'", 10, 7, 10},
    {"E0317", "+[upstreams.app.tls]\nverify = false\nca = '/ca.pem'", 11, 1, 2},
    {"E0317", "+[tls.profiles.p]\ncertificates = 'c'\nmin_version = '1.3'\nmax_version = '1.2'", 12,
     1, 11},
    {"E0317", "+[tls.profiles.p]\ncertificates = 'c'\nmin_version = '1.3'\nciphers = 'modern'", 12,
     1, 7},
    {"E0317", "+[tls.profiles.p]\ncertificates = 'c'\nclient_auth = { ca = '/ca' }", 11, 17, 2},
    {"E0317",
     "+[listeners.b]\nbind = '1.1.1.1:1'\nclient_certificate_headers = { serial = 'a-b', "
     "issuer = 'A_B' }",
     11, 32, 6},
    {"E0309", "+[listeners.b]\nbind = '1.1.1.1:1'\nclient_certificate_headers = { issuer = 'a b' }",
     11, 41, 5},
    {"E0318",
     "+[listeners.b]\nbind = '1.1.1.1:1'\nclient_certificate_headers = { issuer = 'host' }", 11, 41,
     6},
    {"E0303", "+match = { client_certificate = 'expird' }", 9, 32, 8},
    {"E0317", "+[listeners.b]\nbind = '1.1.1.1:1'\ntimeouts.tls_handshake = '1s'", 11, 10, 13},
    {"E0320", "+[tls.profiles.p]\ncertificates = 'c'\nciphers = ['ALL']", 11, 12, 5},
    {"E0320", "+[tls.profiles.p]\ncertificates = 'c'\nciphers = 'TLS_AES_128_GCM_SHA256'", 11, 11,
     24},
    {"E0321", "+[tls.profiles.p]\ncertificates = 'c'\ngroups = ['P-256', 'P-257']", 11, 20, 7},
    {"W0408", "+[upstreams.app.tls]\nverify = false", 10, 10, 5},
    {"W0412", "+[tls.certificates]\nmain = { pem = '/c.pem' }", 10, 1, 4},
    {"W0412", "+[tls.certificates]\nc = { pem = '/c.pem' }\n[tls.profiles.p]\ncertificates = 'c'",
     11, 1, 16},
    {"W0401", "+listeners = ['web']\n[listeners.b]\nbind = '127.0.0.1:90'", 10, 1, 13},
    {"W0402", "+[upstreams.b]\nservers = [{ address = '1.1.1.1:1' }]", 9, 1, 13},
    {"W0403", "+[upstreams.app.health]\ntype = 'tcp'\ntimeout = '3s'", 11, 1, 7},
    {"W0403", "+[upstreams.app.health]\ntype = 'tcp'\nfast_interval = '3s'", 11, 1, 13},
    {"W0404", "+[upstreams.b]\nservers = [{ address = '1.1.1.1:1', weight = 0 }]", 10, 11, 39},
    {"W0407", "+[admin]\nsocket = '/run/a.sock'\nsocket_mode = '0666'", 11, 15, 6},
    {"E0303", "+[admin]\nsocket = '/run/a.sock'\nsocket_mode = '0680'", 11, 15, 6},
    {"E0303", "+[admin]\nsocket = '/run/a.sock'\nsocket_mode = '0066'", 11, 15, 6},
    {"E0306", "+[admin]\nsocket = 'run/a.sock'", 10, 10, 12},
    {"E0306", "+[admin]\nsocket = 'unix:/run/a.sock'", 10, 10, 18},
    {"E0317", "+[admin]\nsocket_mode = '0600'", 10, 1, 11},
    {"E0219", "+[listeners.b]\nbind = 'unix:/a'\n[admin]\nsocket = '/a'", 12, 10, 4},
    {"E0305", "+[upstreams.b]\nservers = [{ address = '1.1.1.1:1', state = 'down' }]", 10, 45, 6},
    {"W0404", "+[upstreams.b]\nservers = [{ address = '1.1.1.1:1', state = 'drain' }]", 10, 11, 44},
    {"W0406", "+match = { path_prefix = '/a/' }\nrewrite = { strip_prefix = '/b' }", 10, 28, 4},
};

LoadResult load_case(const Case& one) {
  const std::string text = one.text;
  return load_text(text.starts_with('+') ? kComplete + text.substr(1) : text, "case");
}

}  // namespace

TEST_CASE("codes: one case for every code -> the code, at line, column and length") {
  std::set<std::string> seen;
  for (const Case& one : kCases) {
    const LoadResult result = load_case(one);
    INFO(one.code << " " << one.text);
    INFO(render(result, false));
    const auto found = std::find_if(
        result.diagnostics.begin(), result.diagnostics.end(), [&](const Diagnostic& d) {
          return d.code == one.code && d.position.line == one.line &&
                 d.position.column == one.column && d.length == one.length;
        });
    CHECK(found != result.diagnostics.end());
    CHECK((result.config == nullptr) == (result.errors() > 0));
    seen.insert(one.code);
  }
  // Those need files, or the router.
  for (const char* elsewhere : {"E0001", "E0107", "E0322", "W0405", "W0409", "W0410", "W0411"})
    seen.insert(elsewhere);
  for (const Code& code : all_codes()) {
    INFO("code " << std::string(code.code));
    CHECK(seen.count(code.code) == 1);
  }
  CHECK(seen.size() == all_codes().size());
}

TEST_CASE("codes: explain() -> a text for every code, nothing for others") {
  for (const Code& code : all_codes()) {
    const std::string text = explain(code.code);
    CHECK(text.starts_with(code.code));
    CHECK(text.size() > 40);
  }
  CHECK(explain("E9999").empty());
  CHECK(std::is_sorted(all_codes().begin(), all_codes().end(),
                       [](const Code& a, const Code& b) { return std::string(a.code) < b.code; }));
}

// Goal: what follows from an error that was reported is not reported again.
TEST_CASE("codes: one mistake -> one error") {
  for (const char* text : {
           "+[process]\nmaxcon = 1",
           "+[upstreams.b]\nservers = [{ adress = '1.1.1.1:1' }]",
           "+[upstreams.b]\nservers = [{ address = '${env:RINGWAY_TEST_UNSET}' }]",
           "+[upstreams.b]\nextends = 'ap'",
           "+listeners = ['wbe']",
           "+listeners = ['${env:RINGWAY_TEST_UNSET}']",
           "+[[routes]]\nname = 'b'\nupstream = '${env:RINGWAY_TEST_UNSET}'",
           "+[upstreams.b]\nextends = 'c'\n[upstreams.c]\nextends = 'app'\nretry.attempts = 0",
           "+[listeners.b]\nbind = 'localhost:80'",
       }) {
    const LoadResult result = load_case({"", text, 0, 0, 0});
    INFO(render(result, false));
    CHECK(result.errors() == 1);
  }
}
