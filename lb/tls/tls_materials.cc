// lb/tls/tls_materials.cc
#include "lb/tls/tls_materials.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "core/tls_verify.h"
#include "lb/config/files.h"
#include "lb/tls/cert_load.h"

namespace ringway {
namespace {

// A file of ticket keys holds one or more: the first is current.
constexpr size_t kLongKey = 80;
constexpr size_t kShortKey = 48;

bool read_text(CertFiles& files, const config::FilePath& file, std::string& out,
               std::string& error) {
  if (file.empty()) return true;
  SecretBytes bytes;
  const int failure = files.read(file.path, bytes);
  if (failure != 0) {
    error = "cannot read " + file.path + ": " + config::read_error_text(failure);
    return false;
  }
  out = bytes.view();
  return true;
}

// The keys that this process made for the profile of this name before.
std::shared_ptr<const TlsTicketKeys> own_keys_of(const config::TlsProfile& profile,
                                                 const TlsBefore& before) {
  if (before.config == nullptr || before.materials == nullptr) return nullptr;
  for (size_t i = 0; i < before.config->tls_profiles.size(); ++i) {
    const config::TlsProfile& old = before.config->tls_profiles[i];
    if (old.name != profile.name || !old.tickets.keys.empty()) continue;
    return before.materials->profiles[i].keys;
  }
  return nullptr;
}

bool read_profile(const config::TlsProfile& profile, CertFiles& files, TlsProfileMaterial& out,
                  std::string& error) {
  if (profile.tickets.enabled && !profile.tickets.keys.empty()) {
    out.keys = read_ticket_keys(profile.tickets.keys.path, files, error);
    if (out.keys == nullptr) return false;
  }
  if (!profile.ech.empty()) {
    out.ech = read_ech_keys(profile.ech.path, files, error);
    if (out.ech == nullptr) return false;
  }
  if (profile.client_auth.mode == config::ClientAuthMode::kOff) return true;
  auto trust = std::make_shared<TlsTrustText>();
  error = read_trust_text(profile.client_auth.ca, profile.client_auth.crl, files, *trust);
  if (!error.empty()) return false;
  out.client_trust = std::move(trust);
  return true;
}

bool read_upstream(const config::UpstreamTls& tls, CertFiles& files,
                   std::shared_ptr<const TlsTrustText>& system, TlsUpstreamMaterial& out,
                   std::string& error) {
  if (!tls.enabled) return true;
  if (tls.verify && tls.ca.empty()) {
    if (system == nullptr) {
      system = std::make_shared<TlsTrustText>(TlsTrustText{.ca = read_system_trust(), .crl = {}});
    }
    if (system->ca.empty()) {
      error =
          "the system has no certificate authorities (ca-certificates is not installed, or "
          "SSL_CERT_FILE in the environment names no file of them)";
      return false;
    }
    out.trust = system;
  } else if (tls.verify) {
    auto trust = std::make_shared<TlsTrustText>();
    error = read_trust_text(tls.ca, {}, files, *trust);
    if (!error.empty()) return false;
    out.trust = std::move(trust);
  }
  if (tls.cert.empty()) return true;
  auto loaded = load_pair(files, {.cert = tls.cert.path, .key = tls.key.path});
  if (!loaded) {
    error = loaded.error().text;
    return false;
  }
  out.certificate = *loaded;
  return true;
}

}  // namespace

std::string read_trust_text(const config::FilePath& ca, const config::FilePath& crl,
                            CertFiles& files, TlsTrustText& out) {
  std::string error;
  if (read_text(files, ca, out.ca, error)) (void)read_text(files, crl, out.crl, error);
  return error;
}

std::shared_ptr<const TlsEchKeys> read_ech_keys(const std::string& path, CertFiles& files,
                                                std::string& error) {
  SecretBytes bytes;
  const int failure = files.read(path, bytes);
  if (failure != 0) {
    error = "cannot read " + path + ": " + config::read_error_text(failure);
    return nullptr;
  }
  TlsEchResult made = TlsEchKeys::load(bytes.view());
  if (made.keys == nullptr) error = path + ": " + made.error;
  return std::move(made.keys);
}

std::shared_ptr<const TlsTicketKeys> read_ticket_keys(const std::string& path, CertFiles& files,
                                                      std::string& error) {
  SecretBytes bytes;
  const int failure = files.read(path, bytes);
  if (failure != 0) {
    error = "cannot read " + path + ": " + config::read_error_text(failure);
    return nullptr;
  }
  const std::string_view text = bytes.view();
  const size_t each = text.size() % kLongKey == 0 ? kLongKey : kShortKey;
  std::vector<std::string_view> keys;
  for (size_t at = 0; at + each <= text.size(); at += each) keys.push_back(text.substr(at, each));
  std::shared_ptr<const TlsTicketKeys> made;
  if (!keys.empty() && text.size() % each == 0) made = TlsTicketKeys::of_files(keys);
  if (made == nullptr) {
    error = path + ": 1 to " + std::to_string(TlsTicketKeys::kKeysMax) +
            " ticket keys of 80 bytes each, or of 48, all with different first 16 bytes, are "
            "wanted; it has " +
            std::to_string(text.size()) + " bytes";
  }
  return made;
}

bool read_tls_materials(const config::Config& config, CertFiles& files,
                        const std::vector<std::shared_ptr<const TlsNames>>& names,
                        const TlsBefore& before, TlsMaterials& out, std::string& error) {
  for (size_t i = 0; i < config.tls_profiles.size(); ++i) {
    const config::TlsProfile& profile = config.tls_profiles[i];
    TlsProfileMaterial material;
    material.names = names[i];
    if (!read_profile(profile, files, material, error)) return false;
    if (profile.tickets.enabled && material.keys == nullptr) {
      material.keys = own_keys_of(profile, before);
      if (material.keys == nullptr) material.keys = TlsTicketKeys::random();
    }
    out.profiles.push_back(std::move(material));
  }
  std::shared_ptr<const TlsTrustText> system;
  for (const config::Upstream& upstream : config.upstreams) {
    TlsUpstreamMaterial material;
    if (!read_upstream(upstream.tls_of_checks(), files, system, material, error)) {
      error.insert(0, "upstream \"" + upstream.name + "\": ");
      return false;
    }
    out.upstreams.push_back(std::move(material));
  }
  return true;
}

}  // namespace ringway
