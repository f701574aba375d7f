// lb/tls/cert_check.h - the files that the TLS part of a configuration names, read and judged.
//
// Affinity: control thread, or a tool; blocks on the file system.
#pragma once

#include <cstdint>

#include "lb/config/load.h"
#include "lb/tls/cert_load.h"

namespace ringway {

// What CertLoad is to load for `config`: sources and profiles have the indices of
// config.tls_certificates and config.tls_profiles.
[[nodiscard]] CertSpec cert_spec_of(const config::Config& config);

// A finding of CertLoad as a diagnostic, at the key of the configuration that led to the file.
[[nodiscard]] config::Diagnostic diagnose(const config::Config& config, const CertProblem& problem);

// What is wrong with the other files: authorities, revocation lists, ticket keys, and certificates
// shown to servers. Few and small, so they are read at once.
[[nodiscard]] std::vector<config::Diagnostic> check_other_tls_files(const config::Config& config,
                                                                    CertFiles& files);

// What is wrong with files of authorities and of revocation lists; an empty path is none.
[[nodiscard]] std::vector<config::Diagnostic> check_trust_files(const config::FilePath& ca,
                                                                const config::FilePath& crl,
                                                                CertFiles& files);

// Reads all files that the configuration in `result` names for TLS and adds what is wrong to its
// diagnostics, behind the others. After an error there is no configuration any more. Loads every
// certificate in one go: for `ringway check`, and before there is traffic. `now_s`: Unix seconds.
void check_tls_files(config::LoadResult& result, CertFiles& files, int64_t now_s);

}  // namespace ringway
