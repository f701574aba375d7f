// lb/tls/cert_load.h - loads the certificates of a whole configuration, a few at a time.
//
// Affinity:  control thread, or a tool; blocks on the file system.
// Bounds:    one certificate costs some 100 us; step() says how many.
// Why:       50,000 pairs take seconds, in which the control thread has health checks to make. What
//            has not changed on disk is taken over from what is in use, so a reload is quick.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/tls_certificate.h"
#include "core/tls_names.h"
#include "lb/tls/cert_files.h"
#include "lb/tls/cert_spec.h"

namespace ringway {

inline constexpr int64_t kCertExpirySoonS = 7 * 86'400;

// One certificate on disk and what became of it.
struct CertPair {
  std::string cert;   // paths
  std::string key{};  // empty: in `cert`
  // Of certificate, key and OCSP response when they were read, or seen not to be usable.
  std::array<FileStamp, 3> stamps{};
  std::shared_ptr<const TlsCertificate> certificate{};  // null: none was ever good
  bool reported = false;  // what is on disk is no good, and that was said
  // For CertStore:
  bool recheck = false;  // read it once more: it changed just before it was read
  bool suspect = false;  // it was no good, with `failed`; said only if it stays so
  std::array<FileStamp, 3> failed{};
  int64_t hurry_ms = 0;  // look at it by then, before its turn; 0: no hurry
  [[nodiscard]] std::string ocsp() const { return cert + ".ocsp"; }
};

struct CertSourceState {
  CertSource spec;
  std::vector<CertPair> pairs{};   // by path
  FileStamp directory{};           // when it was listed
  bool relist = false;             // list it once more: it changed just before
  std::vector<std::string> odd{};  // what list_pairs() found odd, and was said
  bool changed = false;            // the profiles that use it need new tables
};

struct CertProblem {
  enum class Part : uint8_t { kCert, kKey, kDirectory };
  uint32_t source = 0;
  Part part = Part::kCert;  // the key of the configuration that led there
  bool warning = false;
  bool expiry = false;  // a warning about a certificate that is in use all the same
  std::string text;     // "cannot read /x/key.pem: Permission denied (as uid 998)"
};

// What load_pair() found wrong.
struct CertPairError {
  bool in_key = false;
  std::string text;  // with the path
};

// Looks at the files of `pair`.
[[nodiscard]] std::array<FileStamp, 3> stamps_of(CertFiles& files, const CertPair& pair);

// Reads certificate, key and, if there is one, OCSP response. Changes nothing.
[[nodiscard]] tl::expected<std::shared_ptr<const TlsCertificate>, CertPairError> load_pair(
    CertFiles& files, const CertPair& pair);

// The pairs that `directory` holds now, by path; files without a partner in `problems`. Returns 0
// or an errno.
[[nodiscard]] int list_pairs(CertFiles& files, const std::string& directory,
                             std::vector<CertPair>& pairs, std::vector<std::string>& problems);

// "certificate /x/a.pem (a.example) has expired on 2026-11-01", or "" if it has more than
// kCertExpirySoonS left.
[[nodiscard]] std::string expiry_warning(const TlsCertificate& certificate, int64_t now_s);

class CertLoad {
 public:
  // `before`: the sources in use, whose certificates are taken over where nothing has changed; may
  // be null; read by the constructor only. `now_s`: Unix seconds, for warnings.
  CertLoad(CertFiles& files, CertSpec spec, const std::vector<CertSourceState>* before,
           int64_t now_s);

  // Loads up to `pairs_max` certificates. True when all is loaded.
  bool step(uint32_t pairs_max);
  [[nodiscard]] bool done() const { return source_ == sources_.size(); }

  // What is wrong, by source. A certificate that the configuration names has to be good; one in a
  // directory that is not is left out with a warning, for one tenant must not stop all. Before
  // done(): of what was loaded so far.
  [[nodiscard]] const std::vector<CertProblem>& problems() const { return problems_; }
  // Whether it may be used: done, no errors, and a certificate for each profile.
  [[nodiscard]] bool usable() const;
  [[nodiscard]] uint32_t num_certificates() const { return loaded_ + reused_; }
  [[nodiscard]] uint32_t num_reused() const { return reused_; }

  // The table of each profile. REQUIRES: done().
  [[nodiscard]] std::shared_ptr<const TlsNames> names_of(uint32_t profile) const;

  // For CertStore.
  [[nodiscard]] const CertSpec& spec() const { return spec_; }
  [[nodiscard]] std::vector<CertSourceState> take_sources() { return std::move(sources_); }

 private:
  void begin_source();
  void load_next(CertSourceState& source, CertPair& pair);
  void check_profiles();
  void problem(CertProblem problem) { problems_.push_back(std::move(problem)); }

  CertFiles* files_;
  CertSpec spec_;
  int64_t now_s_;
  std::unordered_map<std::string, CertPair> before_;  // by both paths
  std::vector<CertSourceState> sources_;
  std::vector<CertProblem> problems_;
  size_t source_ = 0;  // where step() goes on
  size_t pair_ = 0;
  uint32_t loaded_ = 0;
  uint32_t reused_ = 0;
};

// The certificates of `sources` that `profile` uses, in order.
[[nodiscard]] std::vector<std::shared_ptr<const TlsCertificate>> certificates_of(
    const std::vector<CertSourceState>& sources, const CertProfile& profile);

}  // namespace ringway
