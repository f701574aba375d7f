// lb/client_identity.h - who a client has proved to be with its certificate, as servers are told.
//
// Affinity:  one shard. Ownership: part of its client's connection.
// Why:       a certificate is described once per connection, whatever the number of requests; and
//            the names of the fields are the configuration's, which a reload may change meanwhile.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "core/tls_facts.h"
#include "lb/config/config.h"
#include "proto/own_fields.h"

namespace ringway {

class TlsSession;

class ClientIdentity {
 public:
  // Of the certificate that the client gave. REQUIRES: tls.verdict() is not kNone.
  explicit ClientIdentity(const TlsSession& tls);

  // "SUCCESS", or "FAILED:" and the reason.
  [[nodiscard]] std::string_view verify() const { return verify_; }
  // Empty unless the certificate was good.
  [[nodiscard]] const TlsPeer& peer() const { return peer_; }

 private:
  std::string verify_;
  TlsPeer peer_;
};

// The names that are removed from what a client sends. `trusted`: it is one of the listener's
// trusted proxies.
[[nodiscard]] std::span<const std::string> own_names_for(const config::Config& config,
                                                         const config::Listener& listener,
                                                         bool trusted);
// Fills `out` with what servers are told about a client. `identity` null: it gave no certificate.
// REQUIRES: headers.enabled.
void tell_identity(const config::ClientCertificateHeaders& headers, const ClientIdentity* identity,
                   http1::OwnFields& out);

}  // namespace ringway
