// lb/tls/tls_materials.h - what the shards need of the TLS part of a configuration, as bytes.
//
// Affinity:  built by the control thread, then immutable and read by all shards. Ownership: shared.
// Why:       shards must not read files, and must not share BoringSSL objects, which lock and count
//            references: each makes its own from these bytes (lb/tls/shard_tls.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/tls_certificate.h"
#include "core/tls_ech.h"
#include "core/tls_names.h"
#include "core/tls_tickets.h"
#include "lb/config/config.h"
#include "lb/tls/cert_files.h"

namespace ringway {

// Authorities and revocation lists, PEM.
struct TlsTrustText {
  std::string ca;
  std::string crl;
  bool operator==(const TlsTrustText&) const = default;
};

struct TlsProfileMaterial {
  std::shared_ptr<const TlsNames> names;
  std::shared_ptr<const TlsTicketKeys> keys;           // null: no resumption
  std::shared_ptr<const TlsTrustText> client_trust{};  // null: client certificates are off
  std::shared_ptr<const TlsEchKeys> ech{};             // null: none
};

struct TlsUpstreamMaterial {
  // Null: nothing is verified, or no TLS. Of config::Upstream::tls_of_checks().
  std::shared_ptr<const TlsTrustText> trust{};
  std::shared_ptr<const TlsCertificate> certificate{};  // shown to servers, or null
};

struct TlsMaterials {
  std::vector<TlsProfileMaterial> profiles;    // as Config::tls_profiles
  std::vector<TlsUpstreamMaterial> upstreams;  // as Config::upstreams
};

// What was in force before; null: nothing.
struct TlsBefore {
  const config::Config* config = nullptr;
  const TlsMaterials* materials = nullptr;
};

// Reads what `config` names besides its certificates, whose tables are `names`, by profile. Keys of
// tickets that no file has are random: those of a profile of the same name before, if there was
// one. False with `error`: a file cannot be read.
[[nodiscard]] bool read_tls_materials(const config::Config& config, CertFiles& files,
                                      const std::vector<std::shared_ptr<const TlsNames>>& names,
                                      const TlsBefore& before, TlsMaterials& out,
                                      std::string& error);

// Authorities, and revocation lists if `crl` is not empty. Returns what is wrong, or "".
[[nodiscard]] std::string read_trust_text(const config::FilePath& ca, const config::FilePath& crl,
                                          CertFiles& files, TlsTrustText& out);

// The keys of ECH out of a file; null with `error`.
[[nodiscard]] std::shared_ptr<const TlsEchKeys> read_ech_keys(const std::string& path,
                                                              CertFiles& files, std::string& error);

// The keys of a profile's tickets out of its file.
[[nodiscard]] std::shared_ptr<const TlsTicketKeys> read_ticket_keys(const std::string& path,
                                                                    CertFiles& files,
                                                                    std::string& error);

}  // namespace ringway
