// lb/tls/client_facts.cc
#include "lb/tls/client_facts.h"

#include <array>

#include "core/tls_session.h"

namespace ringway {

void log_client_tls(const TlsSession* tls, AccessRecord& record) {
  if (tls == nullptr) return;
  if (!tls->server_name().empty()) record.sni = tls->server_name();
  record.tls_version = tls->version();
  // Before that nothing else is settled.
  if (record.tls_version.empty()) return;
  record.tls_cipher = tls->cipher();
  record.tls_alpn = tls->alpn();
  record.tls_resumed = tls->resumed();
  record.tls_ech = tls->ech();
  if (tls->verdict() != TlsVerdict::kNone) record.tls_certificate = name_of(tls->verdict());
}

void log_client_origin(const ClientOrigin* origin, AccessRecord& record) {
  if (origin == nullptr) return;
  record.sni = origin->find(proxy::Tlv::kAuthority);
  record.unique_id = origin->find(proxy::Tlv::kUniqueId);
  record.proxy_tlvs = origin->carried_tlvs();
}

void keep_tls_tlvs(const TlsSession& tls, ClientOrigin& origin) {
  const auto keep = [&origin](proxy::Tlv type, std::string_view value) {
    origin.forget(type);
    if (!value.empty()) (void)origin.add(type, value);
  };
  origin.tls_kept = true;
  keep(proxy::Tlv::kAlpn, tls.alpn());
  keep(proxy::Tlv::kAuthority, tls.server_name());
  const bool certificate = tls.verdict() != TlsVerdict::kNone;
  const bool verified = tls.verdict() == TlsVerdict::kOk;
  TlsPeer peer;
  // Of one that is no good nothing is told but that.
  const bool known = verified && tls.peer(peer);
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init): write_ssl() fills what is used
  std::array<char, TlvRoom::kBytes> room;
  keep(proxy::Tlv::kSsl,
       proxy::write_ssl({.certificate = certificate && !tls.resumed(),
                         .certificate_in_session = certificate,
                         .verified = verified,
                         .version = tls.version(),
                         .common_name = known ? std::string_view(peer.common_name) : "",
                         .cipher = tls.cipher()},
                        room));
}

}  // namespace ringway
