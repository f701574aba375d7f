// lb/config/tls.cc - names between listeners, profiles and certificates, and what TLS keys need.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "lb/config/missing.h"
#include "lb/config/resolve.h"
#include "proto/own_fields.h"

namespace ringway::config {
namespace {

const Node* find_inner(const Node& node, const char* key, const char* inner) {
  const Node* found = node.find(key);
  return found != nullptr && found->kind == Node::Kind::kTable ? found->find(inner) : nullptr;
}

class TlsResolver {
 public:
  TlsResolver(Reader& reader, bool complete)
      : reader_(reader), config_(reader.draft.config), complete_(complete) {}

  void run() {
    for (size_t i = 0; i < config_.tls_profiles.size(); ++i) {
      resolve_profile(config_.tls_profiles[i], *reader_.draft.tls_profiles[i]);
    }
    for (size_t i = 0; i < config_.listeners.size(); ++i) {
      resolve_listener(config_.listeners[i], *reader_.draft.listeners[i]);
    }
    for (const Listener& listener : config_.listeners) add_own_names(listener);
    for (Upstream& upstream : config_.upstreams) {
      UpstreamTls& tls = upstream.tls;
      const bool http = upstream.protocol == Protocol::kHttp;
      if (tls.enabled && http && tls.sni.empty()) tls.sni_from_request = true;
    }
  }

 private:
  void add_own_names(const Listener& listener) {
    const ClientCertificateHeaders& headers = listener.certificate_headers;
    if (!headers.enabled) return;
    for (const std::string* name : {&headers.verify, &headers.subject, &headers.issuer,
                                    &headers.serial, &headers.fingerprint}) {
      std::string folded = http1::fold_name(*name);
      auto& known = config_.own_names;
      if (folded.empty() || std::find(known.begin(), known.end(), folded) != known.end()) continue;
      known.push_back(std::move(folded));
    }
  }

  void resolve_profile(TlsProfile& profile, const Node& node) {
    const Node* names = node.find("certificates");
    if (names == nullptr) return;
    if (names->kind == Node::Kind::kString) add_certificates(profile, *names);
    for (const Node& name : names->children) {
      if (name.kind == Node::Kind::kString) add_certificates(profile, name);
    }
    if (names->kind == Node::Kind::kArray && names->children.empty()) {
      reader_.report.error("E0304", names->span, "`certificates` needs at least one name");
    }
  }

  void add_certificates(TlsProfile& profile, const Node& name) {
    if (name.unresolved) return;
    const int64_t index = index_of(config_.tls_certificates, name.text);
    if (index >= 0) {
      const auto number = static_cast<uint32_t>(index);
      auto& mine = profile.certificates;
      if (std::find(mine.begin(), mine.end(), number) == mine.end()) mine.push_back(number);
    } else if (complete_) {
      report_missing(reader_, "E0225", name,
                     "profile \"" + profile.name + "\" names certificate \"" + name.text +
                         "\", which does not exist",
                     config_.tls_certificates,
                     std::span<const Node* const>(reader_.draft.tls_certificates));
    }
  }

  void resolve_listener(Listener& listener, const Node& node) {
    const Node* name = node.find("tls");
    if (name == nullptr || name->kind != Node::Kind::kString || name->unresolved) return;
    const int64_t index = index_of(config_.tls_profiles, name->text);
    if (index >= 0) {
      listener.tls = static_cast<uint32_t>(index);
    } else if (complete_) {
      report_missing(reader_, "E0224", *name,
                     "listener \"" + listener.name + "\" names TLS profile \"" + name->text +
                         "\", which does not exist",
                     config_.tls_profiles,
                     std::span<const Node* const>(reader_.draft.tls_profiles));
    }
  }

  Reader& reader_;
  Config& config_;
  bool complete_;
};

class TlsChecker {
 public:
  TlsChecker(Reader& reader, bool complete)
      : report_(reader.report), draft_(reader.draft), complete_(complete) {}

  void run() {
    const Config& config = draft_.config;
    for (size_t i = 0; i < config.tls_certificates.size(); ++i) {
      check_certificates(config.tls_certificates[i], *draft_.tls_certificates[i]);
    }
    for (size_t i = 0; i < config.tls_profiles.size(); ++i) {
      check_profile(config.tls_profiles[i], *draft_.tls_profiles[i]);
    }
    for (size_t i = 0; i < config.listeners.size(); ++i) {
      check_certificate_headers(*draft_.listeners[i], config.listeners[i]);
      check_listener(config.listeners[i], *draft_.listeners[i]);
      if (draft_.listeners[i]->find("tls") != nullptr) continue;
      conflict(find_inner(*draft_.listeners[i], "timeouts", "tls_handshake"),
               "`tls_handshake` has no effect on a listener without `tls`");
    }
    for (size_t i = 0; i < config.upstreams.size(); ++i) {
      check_upstream(config.upstreams[i], *draft_.upstreams[i]);
      check_health(config.upstreams[i], *draft_.upstreams[i]);
    }
    for (size_t i = 0; i < config.routes.size(); ++i) {
      check_header_match(config.routes[i], *draft_.routes[i]);
    }
    if (complete_ && !report_.failed()) check_use();
  }

 private:
  void conflict(const Node* node, std::string message, std::string label = {}) {
    if (node != nullptr) {
      report_.error("E0317", node->key_span, std::move(message), std::move(label));
    }
  }

  // Servers may take two names for one, and could not tell then which is which.
  void check_certificate_headers(const Node& node, const Listener& listener) {
    const Node* table = node.find("client_certificate_headers");
    if (table == nullptr || table->kind != Node::Kind::kTable) return;
    const ClientCertificateHeaders& headers = listener.certificate_headers;
    std::vector<std::string> seen;
    const std::pair<const char*, const std::string*> all[] = {
        {"verify", &headers.verify},
        {"subject", &headers.subject},
        {"issuer", &headers.issuer},
        {"serial", &headers.serial},
        {"fingerprint", &headers.fingerprint}};
    for (const auto& [key, name] : all) {
      if (name->empty()) continue;
      std::string folded = http1::fold_name(*name);
      if (std::find(seen.begin(), seen.end(), folded) != seen.end()) {
        const Node* at = table->find(key);
        conflict(at != nullptr ? at : table,
                 std::string("`") + key + "` has the name of another field");
      }
      seen.push_back(std::move(folded));
    }
  }

  void check_header_match(const Route& route, const Node& node) {
    for (const HeaderMatch& header : route.match.headers) {
      if (!http1::is_own_name(header.name, draft_.config.own_names)) continue;
      conflict(find_inner(node, "match", "header"),
               "`" + header.name + "` is a field that clients cannot send",
               "`client_certificate` is what a route can match");
    }
  }

  void check_certificates(const TlsCertificates& certificates, const Node& node) {
    const Node* cert = node.find("cert");
    const Node* key = node.find("key");
    const Node* pem = node.find("pem");
    const Node* directory = node.find("directory");
    const int kinds = (cert != nullptr || key != nullptr ? 1 : 0) + (pem != nullptr ? 1 : 0) +
                      (directory != nullptr ? 1 : 0);
    const std::string title = "certificate \"" + certificates.name + "\"";
    if (kinds != 1) {
      const Node* second = directory != nullptr ? directory : pem;
      report_.error(
          "E0226", kinds == 0 ? node.defined_at() : second->key_span,
          title + (kinds == 0 ? " does not say where it is" : " says in several ways where it is"),
          "`cert` and `key`, or `pem`, or `directory`");
    } else if ((cert != nullptr) != (key != nullptr)) {
      report_.error("E0226", node.defined_at(),
                    title + " has no `" + (cert == nullptr ? "cert" : "key") + "`",
                    cert == nullptr ? "" : "add `key`, or write `pem` if it is in the same file");
    }
  }

  void check_profile(const TlsProfile& profile, const Node& node) {
    const Node* max = node.find("max_version");
    const Node* min = node.find("min_version");
    if (profile.min_version > profile.max_version) {
      conflict(max != nullptr ? max : min, "`max_version` is older than `min_version`");
    }
    if (profile.min_version == TlsVersion::k13) {
      conflict(node.find("ciphers"), "`ciphers` is for TLS 1.2, which `min_version` excludes");
    }
    for (const char* list : {"ciphers", "groups"}) {
      const Node* names = node.find(list);
      if (names != nullptr && names->kind == Node::Kind::kArray && names->children.empty()) {
        report_.error("E0304", names->span, std::string("`") + list + "` needs at least one name");
      }
    }
    check_client_auth(profile, node);
    check_early_data(profile, node);
    if (!profile.ech.empty() && profile.max_version != TlsVersion::k13) {
      conflict(node.find("ech"), "`ech` is of TLS 1.3, which `max_version` excludes");
    }
  }

  void check_early_data(const TlsProfile& profile, const Node& node) {
    if (!profile.early_data) return;
    const Node* key = node.find("early_data");
    if (profile.max_version != TlsVersion::k13) {
      conflict(key, "`early_data` is of TLS 1.3, which `max_version` excludes");
    }
    if (!profile.tickets.enabled) {
      conflict(key, "`early_data` needs `tickets`, which are \"off\" here");
    }
    // A replay would come with the client's name on it.
    if (profile.client_auth.mode != ClientAuthMode::kOff) {
      conflict(key, "`early_data` and `client_auth` exclude each other",
               "a request that somebody has sent again would pass for the client's");
    }
  }

  void check_listener(const Listener& listener, const Node& node) {
    if (!listener.tls.has_value() || listener.protocol == Protocol::kHttp) return;
    const TlsProfile& profile = draft_.config.tls_profiles[*listener.tls];
    if (!profile.early_data) return;
    conflict(node.find("tls"), "TLS profile \"" + profile.name +
                                   "\" has `early_data`, which is for HTTP, but this listener has "
                                   "protocol = \"tcp\"");
  }

  void check_client_auth(const TlsProfile& profile, const Node& node) {
    const Node* auth = node.find("client_auth");
    if (auth == nullptr || auth->kind != Node::Kind::kTable) return;
    const Node* ca = auth->find("ca");
    if (profile.client_auth.mode == ClientAuthMode::kOff) {
      const Node* mode = auth->find("mode");
      // A mode that is wrong was reported.
      if (mode != nullptr && mode->text != "off") return;
      conflict(ca != nullptr ? ca : auth->find("crl"),
               "`ca` and `crl` have no effect while `mode` is \"off\"");
    } else if (ca == nullptr) {
      report_.error("E0106", auth->defined_at(),
                    "`ca` is missing in `client_auth` of profile \"" + profile.name + "\"",
                    "add ca = \"/etc/ringway/clients.pem\"");
    }
  }

  // What is opened ahead has no request, so it would be asked for no name and verified against
  // none.
  void check_warm(const Upstream& upstream, const Node& node) {
    if (!upstream.tls.enabled || !upstream.tls.sni_from_request || upstream.pool.warm == 0) return;
    const Node* pool = node.find("pool");
    const Node* warm = pool == nullptr ? nullptr : pool->find("warm");
    conflict(warm != nullptr ? warm : node.find("tls"),
             "`warm` connections have no request yet whose host could be their TLS server name",
             "give `tls.sni` a name");
  }

  void check_upstream(const Upstream& upstream, const Node& node) {
    const UpstreamTls& tls = upstream.tls;
    const Node* table = node.find("tls");
    check_warm(upstream, node);
    if (!tls.enabled || table == nullptr || table->kind != Node::Kind::kTable) return;
    const Node* verify = table->find("verify");
    if (!tls.verify && verify != nullptr) {
      report_.warning("W0408", verify->span,
                      "the servers of \"" + upstream.name +
                          "\" are not verified: whoever is on the way can read and change all");
    }
    if (!tls.verify && table->find("ca") != nullptr) {
      conflict(table->find("ca"), "`ca` has no effect with verify = false");
    }
    if (upstream.protocol == Protocol::kHttp) return;
    if (tls.sni_from_request) {
      conflict(table->find("sni"),
               "`{request.host}` is for HTTP, but this upstream has protocol = \"tcp\"");
    } else if (tls.verify && tls.sni.empty() && table->find("sni") == nullptr) {
      report_.error("E0106", table->defined_at(),
                    "`sni` is missing in [upstreams." + upstream.name + ".tls]",
                    "add the name in the servers' certificates");
    }
  }

  void check_health(const Upstream& upstream, const Node& node) {
    const Node* table = node.find("health");
    if (table == nullptr || table->kind != Node::Kind::kTable) return;
    const Health& health = upstream.health;
    const Node* tls = table->find("tls");
    if (upstream.tls.enabled) {
      return conflict(tls, "`tls` has no effect on checks beside [upstreams." + upstream.name +
                               ".tls], which holds for them, too");
    }
    // A type that is wrong was reported.
    if (health.type != HealthType::kTls) {
      const bool known = health.type != HealthType::kOff || table->find("type") == nullptr;
      return conflict(known ? tls : nullptr, "`tls` belongs to type = \"tls\"");
    }
    if (!health.tls.verify) {
      return conflict(find_inner(*table, "tls", "ca"), "`ca` has no effect with verify = false");
    }
    if (!health.host.empty() || table->find("host") != nullptr) return;
    report_.error("E0106", table->defined_at(),
                  "`host` is missing in the health checks of \"" + upstream.name +
                      "\": type = \"tls\" verifies the servers' certificates",
                  "add the name in them, or tls = { verify = false }");
  }

  void check_use() {
    const Config& config = draft_.config;
    std::vector<bool> profiles(config.tls_profiles.size());
    std::vector<bool> certificates(config.tls_certificates.size());
    for (const Listener& listener : config.listeners) {
      if (listener.tls) profiles[*listener.tls] = true;
    }
    for (const TlsProfile& profile : config.tls_profiles) {
      for (const uint32_t index : profile.certificates) certificates[index] = true;
    }
    for (size_t i = 0; i < profiles.size(); ++i) {
      if (profiles[i]) continue;
      report_.warning("W0412", draft_.tls_profiles[i]->defined_at(),
                      "no listener uses TLS profile \"" + config.tls_profiles[i].name + "\"");
    }
    for (size_t i = 0; i < certificates.size(); ++i) {
      if (certificates[i]) continue;
      report_.warning(
          "W0412", draft_.tls_certificates[i]->defined_at(),
          "no TLS profile uses certificate \"" + config.tls_certificates[i].name + "\"");
    }
  }

  Report& report_;
  Draft& draft_;
  bool complete_;
};

}  // namespace

UpstreamTls Upstream::tls_of_checks() const {
  if (tls.enabled || health.type != HealthType::kTls) return tls;
  UpstreamTls own;
  own.enabled = true;
  own.verify = health.tls.verify;
  own.ca = health.tls.ca;
  return own;
}

void resolve_tls(Reader& reader, bool complete) {
  TlsResolver(reader, complete).run();
}

void check_tls(Reader& reader, bool complete) {
  TlsChecker(reader, complete).run();
}

}  // namespace ringway::config
