// lb/tls/cert_load.cc
#include "lb/tls/cert_load.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "core/base/check.h"
#include "core/base/utc.h"
#include "lb/config/files.h"

namespace ringway {
namespace {

std::string cannot_read(const std::string& path, int error) {
  return "cannot read " + path + ": " + config::read_error_text(error);
}

// Both paths as one key; no path holds a NUL.
std::string key_of(const CertPair& pair) {
  return pair.cert + '\0' + pair.key;
}

std::string joined(const std::string& directory, const std::string& name) {
  return directory.ends_with('/') ? directory + name : directory + "/" + name;
}

// Whether a file changed so recently that a change right after it may bear the same time.
bool is_fresh(const std::array<FileStamp, 3>& stamps, int64_t now_s) {
  return std::any_of(stamps.begin(), stamps.end(), [now_s](const FileStamp& stamp) {
    return stamp.changed_ns > (now_s - 3) * 1'000'000'000;
  });
}

std::string with_suffix(const std::string& name, size_t suffix_len, const char* suffix) {
  return name.substr(0, name.size() - suffix_len) + suffix;
}

}  // namespace

std::array<FileStamp, 3> stamps_of(CertFiles& files, const CertPair& pair) {
  return {files.stamp(pair.cert), pair.key.empty() ? FileStamp{} : files.stamp(pair.key),
          files.stamp(pair.ocsp())};
}

tl::expected<std::shared_ptr<const TlsCertificate>, CertPairError> load_pair(CertFiles& files,
                                                                             const CertPair& pair) {
  using Failed = tl::unexpected<CertPairError>;
  SecretBytes cert;
  SecretBytes key;
  SecretBytes ocsp;
  int error = files.read(pair.cert, cert);
  if (error != 0) return Failed({.text = cannot_read(pair.cert, error)});
  if (!pair.key.empty()) {
    error = files.read(pair.key, key);
    if (error != 0) return Failed({.in_key = true, .text = cannot_read(pair.key, error)});
    if (key.empty()) return Failed({.in_key = true, .text = pair.key + ": the file is empty"});
  }
  if (files.stamp(pair.ocsp()).exists()) {
    error = files.read(pair.ocsp(), ocsp);
    if (error != 0) return Failed({.text = cannot_read(pair.ocsp(), error)});
  }
  auto loaded =
      load_certificate({.cert_pem = cert.view(), .key_pem = key.view(), .ocsp = ocsp.view()});
  if (!loaded) {
    const TlsLoadError& why = loaded.error();
    const bool in_ocsp = why.cause == TlsLoadCause::kBadOcsp;
    const std::string path = in_ocsp ? pair.ocsp() : why.in_key ? pair.key : pair.cert;
    return Failed({.in_key = why.in_key, .text = path + ": " + why.text()});
  }
  loaded->cert_file = pair.cert;
  loaded->key_file = pair.key.empty() ? pair.cert : pair.key;
  return std::make_shared<const TlsCertificate>(std::move(*loaded));
}

int list_pairs(CertFiles& files, const std::string& directory, std::vector<CertPair>& pairs,
               std::vector<std::string>& problems) {
  std::vector<std::string> names;
  const int error = files.list(directory, names);
  if (error != 0) return error;
  std::sort(names.begin(), names.end());
  const std::unordered_set<std::string> all(names.begin(), names.end());
  for (const std::string& name : names) {
    if (name.starts_with('.')) continue;  // what editors and copying programs leave behind
    const bool pem = name.ends_with(".pem");
    const bool crt = name.ends_with(".crt");
    const std::string path = joined(directory, name);
    if (pem || crt) {
      const std::string key = with_suffix(name, 4, ".key");
      const bool apart = all.contains(key);
      if (apart || pem) pairs.push_back({.cert = path, .key = apart ? joined(directory, key) : ""});
      if (!apart && crt)
        problems.push_back(
            std::string(path).append(": there is no ").append(key).append(" beside it"));
    } else if (name.ends_with(".key") && !all.contains(with_suffix(name, 4, ".pem")) &&
               !all.contains(with_suffix(name, 4, ".crt"))) {
      problems.push_back(path + ": there is no certificate beside it");
    }
  }
  return 0;
}

std::string expiry_warning(const TlsCertificate& certificate, int64_t now_s) {
  const int64_t left_s = certificate.not_after_s - now_s;
  if (left_s > kCertExpirySoonS) return {};
  const std::string name = certificate.names.empty() ? "" : " (" + certificate.names.front() + ")";
  const UtcText when(std::clamp<int64_t>(certificate.not_after_s, 0, 253'402'300'799) * 1'000'000);
  return "certificate " + certificate.cert_file + name +
         (left_s < 0 ? " has expired on " : " expires on ") +
         std::string(when.view().substr(0, 10));
}

CertLoad::CertLoad(CertFiles& files, CertSpec spec, const std::vector<CertSourceState>* before,
                   int64_t now_s)
    : files_(&files), spec_(std::move(spec)), now_s_(now_s) {
  for (const CertSource& source : spec_.sources) sources_.push_back({.spec = source});
  if (before != nullptr) {
    for (const CertSourceState& source : *before) {
      for (const CertPair& pair : source.pairs) {
        if (pair.certificate != nullptr) before_.emplace(key_of(pair), pair);
      }
    }
  }
  if (!sources_.empty()) begin_source();
}

// Finds the pairs of the source that comes next.
void CertLoad::begin_source() {
  CertSourceState& source = sources_[source_];
  pair_ = 0;
  const auto number = static_cast<uint32_t>(source_);
  switch (source.spec.kind) {
    case CertSource::Kind::kPair:
      source.pairs.push_back({.cert = source.spec.cert, .key = source.spec.key});
      return;
    case CertSource::Kind::kCombined: source.pairs.push_back({.cert = source.spec.cert}); return;
    case CertSource::Kind::kDirectory: break;
  }
  source.directory = files_->stamp(source.spec.directory);
  source.relist = true;
  std::vector<std::string> odd;
  const int error = list_pairs(*files_, source.spec.directory, source.pairs, odd);
  using Part = CertProblem::Part;
  if (error != 0) {
    problem({.source = number,
             .part = Part::kDirectory,
             .text = cannot_read(source.spec.directory, error)});
  }
  for (const std::string& text : odd) {
    problem({.source = number, .part = Part::kDirectory, .warning = true, .text = text});
  }
  source.odd = std::move(odd);
}

bool CertLoad::step(uint32_t pairs_max) {
  for (uint32_t i = 0; !done();) {
    CertSourceState& source = sources_[source_];
    if (pair_ == source.pairs.size()) {
      std::erase_if(source.pairs, [](const CertPair& pair) {
        return pair.certificate == nullptr && !pair.stamps[0].exists();
      });
      ++source_;
      if (done()) {
        check_profiles();
        before_.clear();
      } else {
        begin_source();
      }
      continue;
    }
    if (i++ == pairs_max) return false;
    load_next(source, source.pairs[pair_++]);
  }
  return true;
}

void CertLoad::load_next(CertSourceState& source, CertPair& pair) {
  pair.stamps = stamps_of(*files_, pair);
  pair.recheck = is_fresh(pair.stamps, now_s_);
  const auto known = before_.find(key_of(pair));
  const bool unchanged =
      known != before_.end() && known->second.stamps == pair.stamps && !known->second.reported;
  using Loaded = tl::expected<std::shared_ptr<const TlsCertificate>, CertPairError>;
  const Loaded loaded = unchanged ? Loaded(known->second.certificate) : load_pair(*files_, pair);
  const auto number = static_cast<uint32_t>(source_);
  using Part = CertProblem::Part;
  const bool inside = source.spec.kind == CertSource::Kind::kDirectory;
  if (!loaded) {
    const Part part = inside ? Part::kDirectory : loaded.error().in_key ? Part::kKey : Part::kCert;
    problem({.source = number, .part = part, .warning = inside, .text = loaded.error().text});
    pair.reported = true;
    // What was good before goes on serving; the file is looked at again when it changes.
    if (inside && known != before_.end()) pair.certificate = known->second.certificate;
    return;
  }
  pair.certificate = *loaded;
  ++(unchanged ? reused_ : loaded_);
  std::string warning = expiry_warning(*pair.certificate, now_s_);
  if (warning.empty()) return;
  problem({.source = number,
           .part = inside ? Part::kDirectory : Part::kCert,
           .warning = true,
           .expiry = true,
           .text = std::move(warning)});
}

void CertLoad::check_profiles() {
  for (const CertProfile& profile : spec_.profiles) {
    if (!certificates_of(sources_, profile).empty()) continue;
    bool said = false;
    for (const uint32_t source : profile.sources) {
      said = said || std::any_of(problems_.begin(), problems_.end(), [&](const CertProblem& p) {
               return p.source == source && !p.warning;
             });
    }
    if (said || profile.sources.empty()) continue;
    problem({.source = profile.sources.front(),
             .part = CertProblem::Part::kDirectory,
             .text = "there is no usable certificate for profile \"" + profile.name + "\""});
  }
}

bool CertLoad::usable() const {
  return done() && std::all_of(problems_.begin(), problems_.end(),
                               [](const CertProblem& problem) { return problem.warning; });
}

std::shared_ptr<const TlsNames> CertLoad::names_of(uint32_t profile) const {
  RW_CHECK(done());
  return std::make_shared<const TlsNames>(certificates_of(sources_, spec_.profiles[profile]));
}

std::vector<std::shared_ptr<const TlsCertificate>> certificates_of(
    const std::vector<CertSourceState>& sources, const CertProfile& profile) {
  std::vector<std::shared_ptr<const TlsCertificate>> certificates;
  for (const uint32_t source : profile.sources) {
    for (const CertPair& pair : sources[source].pairs) {
      if (pair.certificate != nullptr) certificates.push_back(pair.certificate);
    }
  }
  return certificates;
}

}  // namespace ringway
