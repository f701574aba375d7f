// lb/tls/trust_watch.cc
#include "lb/tls/trust_watch.h"

#include <utility>

#include "core/tls_verify.h"
#include "lb/tls/cert_check.h"

namespace ringway {
namespace {

std::string names_of(const config::FilePath& ca, const config::FilePath& crl) {
  return crl.empty() ? ca.path : ca.path + " and " + crl.path;
}

}  // namespace

void TrustWatch::start(const config::Config& config, const TlsMaterials& materials) {
  entries_.clear();
  // They may have changed since they were read, so each is read once more by the next poll().
  for (uint32_t i = 0; i < config.tls_profiles.size(); ++i) {
    const config::TlsClientAuth& auth = config.tls_profiles[i].client_auth;
    if (auth.mode == config::ClientAuthMode::kOff) continue;
    entries_.push_back({.of_clients = true,
                        .index = i,
                        .ca = auth.ca,
                        .crl = auth.crl,
                        .text = materials.profiles[i].client_trust,
                        .again = true});
  }
  for (uint32_t i = 0; i < config.upstreams.size(); ++i) {
    const config::UpstreamTls tls = config.upstreams[i].tls_of_checks();
    // The system's authorities come with the system's updates, and a reload.
    if (!tls.enabled || !tls.verify || tls.ca.empty()) continue;
    entries_.push_back(
        {.index = i, .ca = tls.ca, .crl = {}, .text = materials.upstreams[i].trust, .again = true});
  }
}

void TrustWatch::poll() {
  for (Entry& entry : entries_) look_at(entry);
}

void TrustWatch::look_at(Entry& entry) {
  const std::array<FileStamp, 2> stamps = {
      files_.stamp(entry.ca.path), entry.crl.empty() ? FileStamp() : files_.stamp(entry.crl.path)};
  const bool moved = stamps != entry.stamps;
  if (!moved && !entry.again) return;
  entry.stamps = stamps;
  // What is written right behind a change may bear the same time.
  entry.again = moved;
  TlsTrustText text;
  const std::string wrong = read(entry, text);
  if (wrong.empty()) return take(entry, std::move(text));
  if (moved || entry.reported) return;
  entry.reported = true;
  ++failures_;
  events_.on_trust_line(LogLevel::kError, "tls: " + wrong + "; what is in use stays");
}

void TrustWatch::take(Entry& entry, TlsTrustText text) {
  entry.reported = false;
  if (text == *entry.text) return;
  entry.text = std::make_shared<const TlsTrustText>(std::move(text));
  ++reloads_;
  events_.on_trust_line(LogLevel::kInfo, "tls: read again: " + names_of(entry.ca, entry.crl));
  if (entry.of_clients) {
    events_.on_client_trust(entry.index, entry.text);
  } else {
    events_.on_server_trust(entry.index, entry.text);
  }
}

std::string TrustWatch::read(const Entry& entry, TlsTrustText& out) {
  for (const config::Diagnostic& found : check_trust_files(entry.ca, entry.crl, files_)) {
    return found.message;
  }
  std::string error = read_trust_text(entry.ca, entry.crl, files_, out);
  if (!error.empty()) return error;
  // As the shards will.
  const TlsTrustResult made = TlsTrust::make(out.ca, out.crl);
  return made.trust != nullptr ? "" : names_of(entry.ca, entry.crl) + ": " + made.error;
}

}  // namespace ringway
