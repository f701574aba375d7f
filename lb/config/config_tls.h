// lb/config/config_tls.h - the part of the configuration that is about TLS: plain values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lb/config/place.h"

namespace ringway::config {

enum class TlsVersion : uint8_t { k12, k13 };
enum class ClientAuthMode : uint8_t { kOff, kOptional, kRequired };

// ECDHE with AEAD ciphers only.
[[nodiscard]] std::vector<std::string> modern_ciphers();

// One of [tls.certificates]. Exactly one of `cert` with `key`, `pem` and `directory` is there.
struct TlsCertificates {
  std::string name;
  Position position;
  FilePath cert;
  FilePath key;
  FilePath pem;
  FilePath directory;
  bool watch = true;
  bool operator==(const TlsCertificates&) const = default;
};

struct TlsTickets {
  bool enabled = true;
  int64_t rotate = 43'200'000;  // ms
  FilePath keys;                // empty: keys of this process alone
  bool operator==(const TlsTickets&) const = default;
};

struct TlsClientAuth {
  ClientAuthMode mode = ClientAuthMode::kOff;
  FilePath ca;   // PEM; not empty unless kOff
  FilePath crl;  // PEM; may be empty
  bool operator==(const TlsClientAuth&) const = default;
};

struct TlsProfile {
  std::string name;
  Position position;
  TlsVersion min_version = TlsVersion::k12;
  TlsVersion max_version = TlsVersion::k13;
  // Of TLS 1.2, OpenSSL's names, in order; never empty.
  std::vector<std::string> ciphers = modern_ciphers();
  std::vector<std::string> groups{"X25519", "P-256", "P-384"};  // BoringSSL's names; never empty
  std::vector<uint32_t> certificates;                           // indices, in order; never empty
  bool strict_sni = false;
  bool ocsp = true;         // staple the responses that lie beside certificates
  bool early_data = false;  // requests in it are forwarded if their methods are safe
  FilePath ech;             // PEM; empty: none
  TlsTickets tickets;
  TlsClientAuth client_auth;
  uint64_t handshakes_per_shard = UINT64_MAX;  // a second
  bool operator==(const TlsProfile&) const = default;
};

// The fields that tell servers about a client's certificate, lower case. Empty: not said.
struct ClientCertificateHeaders {
  bool enabled = false;  // the table is there
  std::string verify = "x-ssl-client-verify";
  std::string subject = "x-ssl-client-subject";
  std::string issuer = "x-ssl-client-issuer";
  std::string serial = "x-ssl-client-serial";
  std::string fingerprint = "x-ssl-client-fingerprint";
  bool operator==(const ClientCertificateHeaders&) const = default;
};

// Checks of type "tls" to servers that requests do not speak TLS to.
struct HealthTls {
  bool verify = true;
  FilePath ca;  // PEM; empty: the system's
  bool operator==(const HealthTls&) const = default;
};

struct UpstreamTls {
  bool enabled = false;  // the table is there
  bool verify = true;
  FilePath ca;                    // PEM; empty: the system's
  bool sni_from_request = false;  // the request's host; else `sni`
  std::string sni;                // lower case; empty: none is sent
  FilePath cert;                  // of the client certificate; both or neither
  FilePath key;
  TlsVersion min_version = TlsVersion::k12;

  // Connections made under either may be used under the other.
  [[nodiscard]] bool same_as(const UpstreamTls& other) const {
    return enabled == other.enabled && verify == other.verify && ca.path == other.ca.path &&
           sni_from_request == other.sni_from_request && sni == other.sni &&
           cert.path == other.cert.path && key.path == other.key.path &&
           min_version == other.min_version;
  }
  bool operator==(const UpstreamTls&) const = default;
};

}  // namespace ringway::config
