// lb/tls/cert_store.cc
#include "lb/tls/cert_store.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "core/base/check.h"

namespace ringway {
namespace {

bool same(const TlsCertificate& a, const TlsCertificate& b) {
  return a.chain == b.chain && a.key.view() == b.key.view() && a.ocsp == b.ocsp;
}

// Whether a file without which there is no certificate does not exist.
bool is_gone(const CertPair& pair, const std::array<FileStamp, 3>& stamps) {
  return !stamps[0].exists() || (!pair.key.empty() && !stamps[1].exists());
}

}  // namespace

CertStore::CertStore(CertFiles& files, CertStoreEvents& events) : files_(files), events_(events) {}

void CertStore::adopt(CertLoad load, int64_t now_ms) {
  RW_CHECK(load.usable());
  names_.clear();
  for (uint32_t i = 0; i < load.spec().profiles.size(); ++i) names_.push_back(load.names_of(i));
  for (const CertProblem& problem : load.problems()) {
    if (!problem.expiry) ++reload_failures_;
    say(LogLevel::kWarning, "tls: " + problem.text + (problem.expiry ? "" : "; it is left out"));
  }
  spec_ = load.spec();
  sources_ = load.take_sources();
  emptied_.assign(spec_.profiles.size(), 0);
  round_.clear();
  next_ = 0;
  round_began_ms_ = directories_ms_ = now_ms - kCertRoundMs;  // the first round is due
  round_ms_ = kCertRoundMs;
  hurried_ = false;
  changed_ = false;
}

void CertStore::poll(int64_t now_ms, int64_t now_s) {
  now_s_ = now_s;
  loads_ = 0;
  look_at_due(now_ms);  // the end of a round, before another one begins
  const bool hasten = now_ms - directories_ms_ >= kCertRoundMs && look_at_directories(now_ms);
  const bool ended = next_ == round_.size() && now_ms - round_began_ms_ >= round_ms_;
  if (hasten || ended) start_round(now_ms, hasten);
  if (hurried_) look_at_hurried(now_ms);
  look_at_due(now_ms);
  if (changed_ && now_ms - published_ms_ >= kCertPublishMs) publish(now_ms);
}

bool CertStore::look_at_directories(int64_t now_ms) {
  directories_ms_ = now_ms;
  bool changed = false;
  for (CertSourceState& source : sources_) {
    if (!source.spec.watch || source.spec.kind != CertSource::Kind::kDirectory) continue;
    const FileStamp stamp = files_.stamp(source.spec.directory);
    const bool moved = stamp != source.directory;
    changed = changed || moved || source.relist;
    if (moved || source.relist) list_again(source, now_ms);
    source.directory = stamp;
    source.relist = moved;  // what happened right after may bear the same time
  }
  return changed;
}

// A file whose partner is missing is given until the directory is quiet: it may be on its way.
void CertStore::say_odd(CertSourceState& source, std::vector<std::string> odd) {
  if (files_.stamp(source.spec.directory) != source.directory) return;
  for (const std::string& text : odd) {
    if (std::find(source.odd.begin(), source.odd.end(), text) != source.odd.end()) continue;
    say(LogLevel::kWarning, "tls: " + text + "; it is left out");
    ++reload_failures_;
  }
  source.odd = std::move(odd);
}

void CertStore::start_round(int64_t now_ms, bool hasten) {
  round_.clear();
  next_ = 0;
  for (uint32_t i = 0; i < sources_.size(); ++i) {
    if (!sources_[i].spec.watch) continue;
    const auto pairs = static_cast<uint32_t>(sources_[i].pairs.size());
    for (uint32_t j = 0; j < pairs; ++j) round_.push_back({.source = i, .pair = j});
  }
  round_began_ms_ = now_ms;
  round_ms_ = hasten ? kCertRoundMs : cert_round_ms(round_.size());
}

// Adds what is new. What has gone is found by look_at(), which looks twice before it believes it.
void CertStore::list_again(CertSourceState& source, int64_t now_ms) {
  std::erase_if(source.pairs, [](const CertPair& pair) {
    return pair.certificate == nullptr && !pair.suspect && is_gone(pair, pair.stamps);
  });
  std::vector<CertPair> listed;
  std::vector<std::string> odd;
  if (list_pairs(files_, source.spec.directory, listed, odd) != 0) return;
  say_odd(source, std::move(odd));
  std::unordered_map<std::string_view, CertPair*> known;
  for (CertPair& pair : source.pairs) known.emplace(pair.cert, &pair);
  std::vector<CertPair> fresh;
  for (CertPair& pair : listed) {
    const auto found = known.find(pair.cert);
    if (found == known.end()) {
      pair.hurry_ms = now_ms;
      hurried_ = true;
      fresh.push_back(std::move(pair));
    } else if (!pair.key.empty()) {
      found->second->key = pair.key;  // a key of its own came beside a combined file
    }
  }
  if (fresh.empty()) return;
  std::move(fresh.begin(), fresh.end(), std::back_inserter(source.pairs));
  std::sort(source.pairs.begin(), source.pairs.end(),
            [](const CertPair& a, const CertPair& b) { return a.cert < b.cert; });
}

void CertStore::look_at_hurried(int64_t now_ms) {
  hurried_ = false;
  for (CertSourceState& source : sources_) {
    for (CertPair& pair : source.pairs) {
      if (pair.hurry_ms == 0) continue;
      const bool now = pair.hurry_ms <= now_ms && loads_ < kCertLoadsPerPoll;
      if (now) {
        pair.hurry_ms = 0;
        look_at(source, pair, now_ms);
      }
      hurried_ = hurried_ || pair.hurry_ms != 0;
    }
  }
}

void CertStore::look_at_due(int64_t now_ms) {
  const int64_t elapsed_ms = std::clamp<int64_t>(now_ms - round_began_ms_, 0, round_ms_);
  const size_t share =
      round_.size() * static_cast<size_t>(elapsed_ms) / static_cast<size_t>(round_ms_);
  const size_t due = std::min(share + 1, round_.size());
  while (next_ < due && loads_ < kCertLoadsPerPoll) {
    const Item item = round_[next_++];
    CertSourceState& source = sources_[item.source];
    CertPair& pair = source.pairs[item.pair];
    if (pair.hurry_ms == 0) look_at(source, pair, now_ms);
  }
}

void CertStore::look_at(CertSourceState& source, CertPair& pair, int64_t now_ms) {
  const std::array<FileStamp, 3> stamps = stamps_of(files_, pair);
  const bool moved = stamps != pair.stamps;
  if (!moved && !pair.recheck && !pair.suspect) return;
  if (!moved && pair.certificate == nullptr && is_gone(pair, stamps)) return;  // still gone
  ++loads_;
  auto loaded = load_pair(files_, pair);
  if (loaded) {
    pair.stamps = stamps;
    pair.recheck = moved;
    pair.suspect = false;
    take(source, pair, std::move(*loaded));
    return;
  }
  if (!moved && pair.reported) {  // as bad as it was
    pair.recheck = false;
    pair.suspect = false;
    return;
  }
  if (!pair.suspect || pair.failed != stamps) {
    pair.suspect = true;
    pair.failed = stamps;
    pair.hurry_ms = now_ms + kCertRetryMs;
    hurried_ = true;
    return;
  }
  pair.stamps = stamps;
  pair.recheck = true;
  pair.suspect = false;
  fail(source, pair, loaded.error().text);
}

void CertStore::take(CertSourceState& source, CertPair& pair,
                     std::shared_ptr<const TlsCertificate> certificate) {
  pair.reported = false;
  if (pair.certificate != nullptr && same(*pair.certificate, *certificate)) return;
  const bool known = pair.certificate != nullptr;
  pair.certificate = std::move(certificate);
  source.changed = true;
  changed_ = true;
  ++reloads_;
  say(LogLevel::kInfo, "tls: certificate " + pair.cert + (known ? " was replaced" : " was added"));
  const std::string warning = expiry_warning(*pair.certificate, now_s_);
  if (!warning.empty()) say(LogLevel::kWarning, "tls: " + warning);
}

// `why` held at two looks in a row.
void CertStore::fail(CertSourceState& source, CertPair& pair, const std::string& why) {
  if (is_gone(pair, pair.stamps)) {
    pair.reported = false;
    if (pair.certificate == nullptr) return;
    pair.certificate = nullptr;
    source.changed = true;
    changed_ = true;
    say(LogLevel::kWarning, "tls: certificate " + pair.cert + " was removed: " + why);
    return;
  }
  pair.reported = true;
  ++reload_failures_;
  say(LogLevel::kError,
      "tls: " + why + (pair.certificate != nullptr ? "; the certificate in use stays" : ""));
}

void CertStore::publish(int64_t now_ms) {
  published_ms_ = now_ms;
  changed_ = false;
  for (uint32_t i = 0; i < spec_.profiles.size(); ++i) {
    const CertProfile& profile = spec_.profiles[i];
    const bool touched = std::any_of(profile.sources.begin(), profile.sources.end(),
                                     [this](uint32_t source) { return sources_[source].changed; });
    if (!touched) continue;
    auto certificates = certificates_of(sources_, profile);
    if (certificates.empty()) {
      if (emptied_[i] == 0) {
        say(LogLevel::kWarning, "tls: profile \"" + profile.name +
                                    "\" has no certificate left; the last ones stay in use");
      }
      emptied_[i] = 1;
      continue;
    }
    emptied_[i] = 0;
    names_[i] = std::make_shared<const TlsNames>(std::move(certificates));
    events_.on_certificates(i, names_[i]);
  }
  for (CertSourceState& source : sources_) source.changed = false;
}

std::vector<CertExpiry> CertStore::expiries() const {
  std::vector<CertExpiry> all;
  const auto add = [&all](const std::string& source, const TlsCertificate& certificate) {
    all.push_back({.source = source,
                   .file = certificate.cert_file,
                   .name = certificate.names.empty() ? std::string_view{}
                                                     : std::string_view(certificate.names[0]),
                   .not_after_s = certificate.not_after_s});
  };
  for (const CertSourceState& source : sources_) {
    for (const CertPair& pair : source.pairs) {
      if (pair.certificate != nullptr) add(source.spec.name, *pair.certificate);
    }
  }
  for (uint32_t i = 0; i < spec_.profiles.size(); ++i) {
    if (emptied_[i] == 0) continue;
    const uint32_t source = spec_.profiles[i].sources.front();
    for (const auto& certificate : names_[i]->certificates()) {
      add(sources_[source].spec.name, *certificate);
    }
  }
  return all;
}

}  // namespace ringway
