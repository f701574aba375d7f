// lb/tls/cert_check.cc
#include "lb/tls/cert_check.h"

#include <openssl/err.h>
#include <openssl/x509.h>

#include <string>
#include <utility>

#include "lb/config/files.h"
#include "lb/tls/tls_materials.h"

namespace ringway {
namespace {

using config::Diagnostic;
using config::FilePath;

Diagnostic error_at(const FilePath& file, std::string message) {
  Diagnostic diagnostic;
  diagnostic.code = "E0322";
  diagnostic.message = std::move(message);
  diagnostic.position = file.place.position;
  diagnostic.length = file.place.length;
  diagnostic.source_line = file.place.source_line;
  return diagnostic;
}

// Collects what is wrong with single files.
class FileChecker {
 public:
  explicit FileChecker(CertFiles& files) : files_(files) {}

  // PEM with at least one certificate, all of them good.
  void check_authorities(const FilePath& file) {
    check_blocks(file, "CERTIFICATE", "certificate", [](const uint8_t** at, int32_t size) {
      return bssl::UniquePtr<X509>(d2i_X509(nullptr, at, size)) != nullptr;
    });
  }

  void check_revocations(const FilePath& file) {
    check_blocks(file, "X509 CRL", "revocation list", [](const uint8_t** at, int32_t size) {
      return bssl::UniquePtr<X509_CRL>(d2i_X509_CRL(nullptr, at, size)) != nullptr;
    });
  }

  void check_readable(const FilePath& file) {
    SecretBytes bytes;
    if (!file.empty()) (void)read(file, bytes);
  }

  void check_ech(const FilePath& file) {
    std::string error;
    if (file.empty() || read_ech_keys(file.path, files_, error) != nullptr) return;
    found_.push_back(error_at(file, std::move(error)));
  }

  void check_pair(const FilePath& cert, const FilePath& key) {
    if (cert.empty() || key.empty()) return;
    const auto loaded = load_pair(files_, {.cert = cert.path, .key = key.path});
    if (loaded) return;
    found_.push_back(error_at(loaded.error().in_key ? key : cert, loaded.error().text));
  }

  std::vector<Diagnostic> take() { return std::move(found_); }

 private:
  bool read(const FilePath& file, SecretBytes& bytes) {
    const int error = files_.read(file.path, bytes);
    if (error == 0) return true;
    found_.push_back(
        error_at(file, "cannot read " + file.path + ": " + config::read_error_text(error)));
    return false;
  }

  template <class Parse>
  void check_blocks(const FilePath& file, std::string_view label, const char* what, Parse parse) {
    SecretBytes text;
    if (file.empty() || !read(file, text)) return;
    PemReader reader(text.view());
    uint32_t good = 0;
    for (PemBlock block; reader.next(block);) {
      if (block.label != label) continue;
      const uint8_t* at = block.bytes.data();
      const bool whole = parse(&at, static_cast<int32_t>(block.bytes.size())) &&
                         at == block.bytes.data() + block.bytes.size();
      ERR_clear_error();
      if (whole) {
        ++good;
        continue;
      }
      found_.push_back(
          error_at(file, file.path + ": no " + what + " at line " + std::to_string(block.line)));
      return;
    }
    if (reader.error() != PemError::kNone) {
      found_.push_back(
          error_at(file, file.path + ": not PEM at line " + std::to_string(reader.line())));
    } else if (good == 0) {
      found_.push_back(error_at(file, file.path + ": there is no " + what + " in it"));
    }
  }

  CertFiles& files_;
  std::vector<Diagnostic> found_;
};

}  // namespace

CertSpec cert_spec_of(const config::Config& config) {
  CertSpec spec;
  for (const config::TlsCertificates& named : config.tls_certificates) {
    CertSource source;
    source.name = named.name;
    source.watch = named.watch;
    if (!named.directory.empty()) {
      source.kind = CertSource::Kind::kDirectory;
      source.directory = named.directory.path;
    } else if (!named.pem.empty()) {
      source.kind = CertSource::Kind::kCombined;
      source.cert = named.pem.path;
    } else {
      source.cert = named.cert.path;
      source.key = named.key.path;
    }
    spec.sources.push_back(std::move(source));
  }
  for (const config::TlsProfile& profile : config.tls_profiles) {
    spec.profiles.push_back({.name = profile.name, .sources = profile.certificates});
  }
  return spec;
}

Diagnostic diagnose(const config::Config& config, const CertProblem& problem) {
  const config::TlsCertificates& named = config.tls_certificates[problem.source];
  const FilePath* file = &named.cert;
  if (!named.pem.empty()) file = &named.pem;
  if (!named.directory.empty()) file = &named.directory;
  if (problem.part == CertProblem::Part::kKey && !named.key.empty()) file = &named.key;
  Diagnostic diagnostic = error_at(*file, problem.text);
  if (!problem.warning) return diagnostic;
  diagnostic.severity = config::Severity::kWarning;
  diagnostic.code = problem.expiry ? "W0409" : "W0411";
  return diagnostic;
}

std::vector<Diagnostic> check_other_tls_files(const config::Config& config, CertFiles& files) {
  FileChecker checker(files);
  for (const config::TlsProfile& profile : config.tls_profiles) {
    checker.check_authorities(profile.client_auth.ca);
    checker.check_revocations(profile.client_auth.crl);
    checker.check_readable(profile.tickets.keys);
    checker.check_ech(profile.ech);
  }
  for (const config::Upstream& upstream : config.upstreams) {
    const config::UpstreamTls tls = upstream.tls_of_checks();
    if (!tls.enabled) continue;
    checker.check_authorities(tls.ca);
    checker.check_pair(tls.cert, tls.key);
  }
  return checker.take();
}

std::vector<Diagnostic> check_trust_files(const FilePath& ca, const FilePath& crl,
                                          CertFiles& files) {
  FileChecker checker(files);
  checker.check_authorities(ca);
  checker.check_revocations(crl);
  return checker.take();
}

void check_tls_files(config::LoadResult& result, CertFiles& files, int64_t now_s) {
  if (result.config == nullptr) return;
  CertLoad load(files, cert_spec_of(*result.config), nullptr, now_s);
  (void)load.step(UINT32_MAX);
  for (const CertProblem& problem : load.problems()) {
    result.diagnostics.push_back(diagnose(*result.config, problem));
  }
  for (Diagnostic& other : check_other_tls_files(*result.config, files)) {
    result.diagnostics.push_back(std::move(other));
  }
  if (result.errors() > 0) result.config = nullptr;
}

}  // namespace ringway
