// tests/sim/tls_sides.cc
#include "tests/sim/tls_sides.h"

#include <doctest/doctest.h>
#include <openssl/sha.h>

#include <algorithm>

#include "tests/support/make_certificate.h"

namespace ringway {

namespace {

using test::KeyKind;
using test::MadeCertificate;

// Certificates of the whole program, made when first needed. The balancer verifies no Ed25519, so
// whom it verifies has RSA; see tests/support/sim_tls.h.
struct Pki {
  static constexpr uint64_t kFronts = 4;
  static constexpr size_t kBads = 5;

  static MadeCertificate leaf(const std::string& name, std::vector<std::string> names,
                              const MadeCertificate* issuer, bool client = false,
                              int64_t until_s = 86400) {
    return test::make_certificate({.common_name = name,
                                   .names = std::move(names),
                                   .key = KeyKind::kRsa2048,
                                   .rsa_number = 1,
                                   .issuer = issuer,
                                   .client = client,
                                   .not_before_s = -7200,
                                   .not_after_s = until_s});
  }
  static MadeCertificate authority(const std::string& name, int number) {
    return test::make_certificate(
        {.common_name = name, .key = KeyKind::kRsa2048, .rsa_number = number, .ca = true});
  }
  static MadeCertificate plain(const std::string& name) {
    return test::make_certificate(
        {.common_name = name, .names = {name + ".sim"}, .key = KeyKind::kEd25519});
  }

  MadeCertificate ca = authority("sim authority", 0);
  MadeCertificate stranger = authority("another authority", 1);
  std::vector<std::string> names = {"app.sim", "a.sim", "b.sim"};
  // By SimTlsSides::Bad.
  MadeCertificate servers[kBads] = {
      leaf("server", names, &ca), leaf("server", names, &ca, false, -60),
      leaf("server", {"else.sim"}, &ca), leaf("server", names, nullptr),
      leaf("server", names, &stranger)};
  MadeCertificate good = leaf("good client", {}, &ca, true);
  MadeCertificate revoked = leaf("bad client", {}, &ca, true);
  MadeCertificate strange = leaf("some client", {}, &stranger, true);
  std::string crl;
  MadeCertificate pass = plain("pass");
  MadeCertificate raw = plain("raw");
  std::vector<MadeCertificate> fronts;
  std::vector<std::shared_ptr<const TlsNames>> tables;
  std::string fingerprint;  // of `good`

  Pki() {
    const MadeCertificate* const out[] = {&revoked};
    crl = test::make_crl(ca, out);
    for (uint64_t i = 0; i < kFronts; ++i) {
      fronts.push_back(plain("web"));
      auto loaded = load_certificate({fronts.back().cert_pem, fronts.back().key_pem});
      REQUIRE(loaded.has_value());
      std::vector<std::shared_ptr<const TlsCertificate>> all = {
          std::make_shared<const TlsCertificate>(std::move(*loaded))};
      tables.push_back(std::make_shared<const TlsNames>(std::move(all)));
    }
    const std::string der = good.cert_der();
    uint8_t hash[SHA256_DIGEST_LENGTH];
    SHA256(reinterpret_cast<const uint8_t*>(der.data()), der.size(), hash);
    for (const uint8_t byte : hash) {
      fingerprint += "0123456789abcdef"[byte >> 4];
      fingerprint += "0123456789abcdef"[byte & 15];
    }
  }

  [[nodiscard]] const MadeCertificate* of(SimTlsSides::Shown shown) const {
    switch (shown) {
      case SimTlsSides::Shown::kNothing: return nullptr;
      case SimTlsSides::Shown::kGood: return &good;
      case SimTlsSides::Shown::kRevoked: return &revoked;
      case SimTlsSides::Shown::kStrange: return &strange;
    }
    return nullptr;
  }

  static const Pki& get() {
    static const Pki pki;
    return pki;
  }
};

// `asks`: for certificates of clients.
std::shared_ptr<const TlsMaterials> make_materials(uint64_t number, bool asks,
                                                   std::shared_ptr<const TlsTicketKeys> keys) {
  const Pki& pki = Pki::get();
  const auto trust = std::make_shared<const TlsTrustText>(TlsTrustText{pki.ca.cert_pem, ""});
  const auto clients = std::make_shared<const TlsTrustText>(TlsTrustText{pki.ca.cert_pem, pki.crl});
  auto materials = std::make_shared<TlsMaterials>();
  for (int i = 0; i < 2; ++i) {
    materials->profiles.push_back({.names = pki.tables.at(number % Pki::kFronts),
                                   .keys = keys,
                                   .client_trust = asks ? clients : nullptr});
  }
  for (int i = 0; i < 3; ++i) materials->upstreams.push_back({.trust = trust});
  return materials;
}

constexpr const char* kReasons[] = {"", "expired", "wrong_name", "self_signed", "unknown_ca"};

}  // namespace

SimTlsSides::SimTlsSides(uint64_t seed, const SimNet& net, Prng& prng)
    : net_(net), clients_(seed % 4 == 2), servers_(seed % 4 != 0 && seed / 4 % 3 == 1) {
  swaps_.push_back({0, 0});
  if (!clients_ && !servers_) return;
  if (clients_) {
    preread_ = seed / 4 % 4 == 3;
    auth_ = preread_ ? Auth::kOff : static_cast<Auth>(seed / 4 % 4);
  }
  materials_ = make_materials(0, auth_ != Auth::kOff, TlsTicketKeys::random());
  if (!servers_) return;
  request_names_ = prng.below(2) == 0;
  all_http2_ = prng.below(2) == 0;
  const uint64_t luck = prng.below(6);
  if (luck < 3) return;
  bad_ = static_cast<Bad>(1 + prng.below(4));
  if (luck < 5) bad_server_ = static_cast<int>(prng.below(3));
}

// ---- configuration

std::string SimTlsSides::profiles() const {
  if (!clients_) return "";
  const char* const modes[] = {"off", "optional", "required"};
  std::string out =
      "[tls.certificates]\nc = { pem = \"/c.pem\" }\n[tls.profiles.web]\ncertificates = \"c\"\n";
  // Early data is for HTTP, so sessions of one listener are of no use to the other.
  if (auth_ == Auth::kOff) {
    out += "early_data = \"safe_methods\"\n";
  } else {
    out += "client_auth = { ca = \"/ca.pem\", crl = \"/ca.crl\", mode = \"" +
           std::string(modes[static_cast<size_t>(auth_)]) + "\" }\n";
  }
  return out +
         (preread_ || auth_ != Auth::kOff ? "" : "[tls.profiles.raw]\ncertificates = \"c\"\n");
}

std::string SimTlsSides::on_listener(bool tcp) const {
  if (!clients_) return "";
  std::string out;
  if (preread_) out += "preread = { sni = true, timeout = \"1s\" }\n";
  if (!tcp || !preread_) out += tcp && auth_ == Auth::kOff ? "tls = \"raw\"\n" : "tls = \"web\"\n";
  if (!tcp && auth_ != Auth::kOff) out += "client_certificate_headers = {}\n";
  return out;
}

std::string SimTlsSides::routes() const {
  if (!preread_) return "";
  return "[[routes]]\nname = \"pass\"\nlisteners = [\"web\", \"l4\"]\nupstream = \"pass\"\n"
         "match = { sni = [\"pass.sim\", \"*.deep.sim\"] }\n";
}

std::string SimTlsSides::http_versions() const {
  return !servers_ || all_http2_ ? "http_versions = [\"h2\"]\n"
                                 : "http_versions = [\"h2\", \"http/1.1\"]\n";
}

std::string SimTlsSides::to_servers(bool tcp) const {
  if (!servers_ || (tcp && preread_)) return "";
  const std::string name = tcp || !request_names_ ? "app.sim" : "{request.host}";
  return "tls = { ca = \"/ca.pem\", sni = \"" + name + "\" }\n";
}

// ---- certificates that change

uint64_t SimTlsSides::swap(Prng& prng) {
  const auto& keys = materials_->profiles[0].keys;
  swaps_.push_back({});
  materials_ = make_materials(++number_, auth_ != Auth::kOff,
                              prng.below(2) == 0 ? TlsTicketKeys::random() : keys->rotated(1));
  return number_;
}

void SimTlsSides::taken(uint32_t shard, uint32_t shards, uint64_t number) {
  by_shard_.resize(shards);
  by_shard_[shard] = std::max(by_shard_[shard], number);
  const uint64_t all = *std::min_element(by_shard_.begin(), by_shard_.end());
  for (uint64_t i = 1; i <= number; ++i) {
    if (swaps_[i].first_us < 0) swaps_[i].first_us = net_.now_us();
    if (swaps_[i].last_us < 0 && all >= i) swaps_[i].last_us = net_.now_us();
  }
}

// ---- actors

SimTlsSides::Way SimTlsSides::draw_way(Prng& prng) const {
  Way way{.tls = clients_};
  if (!preread_) {
    way.http2 = prng.below(2) == 0;
    way.tcp = !way.http2 && prng.below(4) == 0;
    way.name = "web.sim";
    if (clients_ && auth_ != Auth::kOff) way.shown = static_cast<Shown>(prng.below(4));
    return way;
  }
  switch (prng.below(8)) {
    case 0:
      way = {.tls = true, .tcp = true, .through = true, .group = Group::kRaw, .name = "other.sim"};
      break;
    case 1: way = {.tls = true, .tcp = true, .through = true, .group = Group::kRaw}; break;
    case 2:
      way = {
          .tls = true, .tcp = true, .through = true, .group = Group::kPass, .name = "a.deep.sim"};
      break;
    case 3: way = {.tls = true, .through = true, .group = Group::kPass, .name = "pass.sim"}; break;
    case 4:
      way = {.tls = true, .tcp = prng.below(2) == 0, .name = "pass.sim", .hello = Hello::kSilent};
      if (prng.below(2) == 0) way.hello = Hello::kCut;
      break;
    default:
      way.http2 = prng.below(2) == 0;
      if (prng.below(4) != 0) way.name = "web.sim";
      break;
  }
  return way;
}

SimTlsStore& SimTlsSides::store_of(const Way& way) {
  for (const Kind& kind : kinds_) {
    if (kind.http2 == way.http2 && kind.through == way.through && kind.shown == way.shown) {
      return *kind.store;
    }
  }
  kinds_.push_back({way.http2, way.through, way.shown,
                    std::make_unique<SimTlsStore>(net_, way.http2 ? "h2" : "http/1.1",
                                                  Pki::get().of(way.shown))});
  return *kinds_.back().store;
}

std::unique_ptr<SimCodec> SimTlsSides::client(const Way& way, uint64_t client, Prng& prng) {
  if (!way.tls) return nullptr;
  // A session belongs to one server; behind layer 4 nobody knows which one it will be.
  SimTlsAsk ask{.client = client,
                .name = way.name,
                .resume = !way.through,
                .early = prng.below(2) == 0,
                .record = preread_ && prng.below(3) == 0 ? 1 + prng.below(200) : 0};
  if (way.hello != Hello::kWhole) ask.hello_max = 1 + prng.below(150);
  return std::make_unique<SimTlsClient>(store_of(way), ask);
}

std::unique_ptr<SimTlsServer> SimTlsSides::server(Group group, uint32_t index) {
  if (group == Group::kApp && !servers_) return nullptr;
  for (const Server& one : stores_) {
    if (one.group == group && one.index == index) return std::make_unique<SimTlsServer>(*one.store);
  }
  const Pki& pki = Pki::get();
  const bool is_bad = group == Group::kApp && (bad_server_ < 0 || bad_server_ == int(index));
  const Bad bad = is_bad ? bad_ : Bad::kNone;
  const MadeCertificate& certificate = group == Group::kApp ? pki.servers[static_cast<size_t>(bad)]
                                       : group == Group::kRaw ? pki.raw
                                                              : pki.pass;
  const bool http2 = group == Group::kApp && (all_http2_ || index % 2 == 0);
  const uint32_t number = static_cast<uint32_t>(group) * 100 + index;
  stores_.push_back(
      {group, index, bad, std::make_unique<SimTlsServerStore>(certificate, http2, number)});
  return std::make_unique<SimTlsServer>(*stores_.back().store);
}

std::string SimTlsSides::host_of(uint64_t id) const {
  if (!servers_) return "sim";
  return id % 2 == 0 ? "a.sim" : "b.sim";
}

std::string SimTlsSides::made_up(const Way& way) const {
  if (auth_ == Auth::kOff || way.tcp) return "";
  return "X-SSL-Client-Verify: SUCCESS\r\nX_SSL_Client_Verify: made-up\r\n"
         "x-ssl-client-fingerprint: made-up\r\nX-Ssl-Client-Subject: made-up\r\n";
}

// ---- oracles

std::string SimTlsSides::judge(const Way& way, uint64_t id, std::string_view head,
                               const SimTlsServer* tls, bool http2) const {
  if (tls != nullptr) {
    if ((tls->alpn() == "h2") != http2) return "a server speaks what ALPN has not chosen";
    const bool by_request = request_names_ && !way.tcp;
    const std::string name = way.through ? way.name : by_request ? host_of(id) : "app.sim";
    if (tls->name() != name) return "request for " + name + " on a connection to " + tls->name();
  }
  if (auth_ == Auth::kOff || way.tcp) return "";
  std::string lower(head);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(tolower(c)); });
  const auto has = [&](const std::string& text) { return lower.find(text) != std::string::npos; };
  const char* const verdicts[] = {"none", "success", "failed:revoked", "failed:unknown_ca"};
  const std::string verdict = verdicts[static_cast<size_t>(way.shown)];
  if (has("made-up")) return "what a client made up about its certificate came through";
  if (!has("x-ssl-client-verify: " + verdict + "\r\n")) return "the client's verdict is missing";
  const size_t first = lower.find("x-ssl-client-verify:");
  if (lower.find("x-ssl-client-verify:", first + 1) != std::string::npos) return "two verdicts";
  const bool named = has("x-ssl-client-fingerprint: " + Pki::get().fingerprint + "\r\n");
  if (named != (way.shown == Shown::kGood)) return "the client's fingerprint";
  return "";
}

bool SimTlsSides::explains(std::string_view body) const {
  const std::string reason = kReasons[static_cast<size_t>(bad_)];
  return bad() && body == "502 Bad Gateway: tls_verify:" + reason + "\n";
}

bool SimTlsSides::refuses(const Way& way) const {
  if (way.hello != Hello::kWhole) return true;
  return auth_ == Auth::kRequired && way.shown != Shown::kGood;
}

// A full handshake shows the certificate of a moment between its connection's begin and its end:
// who was accepted before a reload is served by the contexts of before.
std::string SimTlsSides::check_front(const SimTlsMeeting& meeting) const {
  uint64_t least = 0;
  uint64_t most = 0;
  for (uint64_t i = 0; i < swaps_.size(); ++i) {
    if (swaps_[i].last_us >= 0 && swaps_[i].last_us < meeting.begun_us) least = i;
    if (swaps_[i].first_us >= 0 && swaps_[i].first_us <= meeting.done_us) most = i;
  }
  for (uint64_t i = least; i <= most; ++i) {
    if (meeting.certificate == Pki::get().fronts[i % Pki::kFronts].cert_der()) return "";
  }
  return "a certificate that was not in force was shown";
}

std::string SimTlsSides::check_meeting(const SimTlsMeeting& meeting, const Way& way) const {
  if (!meeting.failure.empty()) {
    const char* const reasons[] = {"TLSV1_ALERT_CERTIFICATE_REQUIRED", "",
                                   "SSLV3_ALERT_CERTIFICATE_REVOKED", "TLSV1_ALERT_UNKNOWN_CA"};
    const std::string expected = refuses(way) ? reasons[static_cast<size_t>(way.shown)] : "";
    if (meeting.failure != expected) return meeting.failure;
  }
  if (meeting.done_us < 0) return "";
  if (meeting.alpn != (way.http2 ? "h2" : way.tcp && !way.through ? "" : "http/1.1")) {
    return "ALPN chose \"" + meeting.alpn + "\"";
  }
  if (meeting.resumed) return "";
  if (!way.through) return check_front(meeting);
  const Pki& pki = Pki::get();
  const MadeCertificate& expected = way.group == Group::kPass ? pki.pass : pki.raw;
  return meeting.certificate == expected.cert_der() ? "" : "it was led to the wrong server";
}

std::string SimTlsSides::check(const std::vector<Way>& ways, bool calm) const {
  for (const Kind& kind : kinds_) {
    for (const SimTlsMeeting& meeting : kind.store->meetings) {
      const std::string wrong = check_meeting(meeting, ways[meeting.client]);
      if (!wrong.empty()) return "TLS of client " + std::to_string(meeting.client) + ": " + wrong;
      const Way& way = ways[meeting.client];
      if (calm && way.hello == Hello::kWhole && meeting.done_us < 0) return "no handshake";
      if (calm && refuses(way) && way.hello == Hello::kWhole && meeting.failure.empty()) {
        return "a client was not refused";
      }
    }
  }
  for (const Server& one : stores_) {
    if (!one.store->wrong.empty()) return "TLS to a server: " + one.store->wrong;
    if (one.bad != Bad::kNone && one.store->handshakes > 0) return "a bad server was trusted";
    if (one.bad == Bad::kNone && !one.store->failure.empty()) {
      return "TLS to a server: " + one.store->failure;
    }
  }
  return "";
}

namespace {

constexpr uint64_t SimTlsSides::Count::*kCounts[] = {
    &SimTlsSides::Count::handshakes, &SimTlsSides::Count::resumed,
    &SimTlsSides::Count::early,      &SimTlsSides::Count::early_rejected,
    &SimTlsSides::Count::http2,      &SimTlsSides::Count::through,
    &SimTlsSides::Count::refused,    &SimTlsSides::Count::swapped,
    &SimTlsSides::Count::to_servers, &SimTlsSides::Count::to_servers_resumed,
    &SimTlsSides::Count::bad_servers};

}  // namespace

SimTlsSides::Count& SimTlsSides::Count::operator+=(const Count& other) {
  for (const auto count : kCounts) this->*count += other.*count;
  return *this;
}

bool SimTlsSides::Count::all_met() const {
  return std::all_of(std::begin(kCounts), std::end(kCounts),
                     [&](auto count) { return this->*count > 0; });
}

SimTlsSides::Count SimTlsSides::count() const {
  Count count;
  for (const Kind& kind : kinds_) {
    count.early += kind.store->early_accepted;
    count.early_rejected += kind.store->early_rejected;
    for (const SimTlsMeeting& meeting : kind.store->meetings) {
      if (!meeting.failure.empty()) ++count.refused;
      if (meeting.done_us < 0) continue;
      ++(kind.through ? count.through : count.handshakes);
      if (meeting.resumed) ++count.resumed;
      if (kind.http2) ++count.http2;
      const bool first = meeting.certificate == Pki::get().fronts[0].cert_der();
      if (!kind.through && !meeting.resumed && !first) ++count.swapped;
    }
  }
  for (const Server& one : stores_) {
    if (one.group != Group::kApp) continue;
    count.to_servers += one.store->handshakes;
    count.to_servers_resumed += one.store->resumed;
    if (one.bad != Bad::kNone && !one.store->failure.empty()) ++count.bad_servers;
  }
  return count;
}

}  // namespace ringway
