// lb/client_identity.cc
#include "lb/client_identity.h"

#include "core/base/check.h"
#include "core/tls_session.h"

namespace ringway {

ClientIdentity::ClientIdentity(const TlsSession& tls) {
  RW_CHECK(tls.verdict() != TlsVerdict::kNone);
  if (tls.verdict() != TlsVerdict::kOk) {
    verify_.append("FAILED:").append(name_of(tls.verdict()));
  } else if (tls.peer(peer_)) {
    verify_ = "SUCCESS";
  } else {
    verify_ = "FAILED:bad_chain";  // It was verified, and yet cannot be read.
  }
}

std::span<const std::string> own_names_for(const config::Config& config,
                                           const config::Listener& listener, bool trusted) {
  if (trusted && !listener.certificate_headers.enabled) return {};
  return config.own_names;
}

void tell_identity(const config::ClientCertificateHeaders& headers, const ClientIdentity* identity,
                   http1::OwnFields& out) {
  const auto add = [&out](const std::string& name, std::string_view value) {
    if (!name.empty() && !value.empty()) out.add(name, value);
  };
  if (identity == nullptr) return add(headers.verify, "NONE");
  const TlsPeer& peer = identity->peer();
  add(headers.verify, identity->verify());
  add(headers.subject, peer.subject);
  add(headers.issuer, peer.issuer);
  add(headers.serial, peer.serial);
  add(headers.fingerprint, peer.fingerprint);
}

}  // namespace ringway
