// core/tls_failure.cc
#include "core/tls_failure.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "core/tls_session.h"

namespace ringway {

TlsFailure tls_failure(const TlsSession& session, bool handshake) {
  // The first one of the TLS layer: that of a cipher may stand before it.
  uint32_t error = ERR_get_error();
  while (error != 0 && ERR_GET_LIB(error) != ERR_LIB_SSL) error = ERR_get_error();
  if (error == 0) return {TlsCause::kProtocol};
  const int reason = ERR_GET_REASON(error);
  constexpr int kAlerts = SSL_AD_REASON_OFFSET;
  if (reason >= kAlerts && reason < kAlerts + 256) {
    return {TlsCause::kAlert, static_cast<uint8_t>(reason - kAlerts)};
  }
  switch (reason) {
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
      return {TlsCause::kVerify, static_cast<uint8_t>(session.verdict())};
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE: return {TlsCause::kNoClientCertificate};
    case SSL_R_NO_CERTIFICATE_SET: return {TlsCause::kNoCertificate};
    case SSL_R_NO_SHARED_CIPHER:
    case SSL_R_NO_SHARED_GROUP:
    case SSL_R_NO_COMMON_SIGNATURE_ALGORITHMS: return {TlsCause::kNoSharedCipher};
    case SSL_R_UNSUPPORTED_PROTOCOL: return {TlsCause::kUnsupportedVersion};
    case SSL_R_NO_APPLICATION_PROTOCOL: return {TlsCause::kNoProtocol};
    case SSL_R_NO_RENEGOTIATION: return {TlsCause::kRenegotiation};
    case SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC: return {TlsCause::kBadRecord};
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST: return {TlsCause::kNotTls};
    // The version in a record's header, or its type: what is so at the very beginning is no TLS.
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_UNEXPECTED_RECORD:
      return {handshake && session.version_unknown() ? TlsCause::kNotTls : TlsCause::kProtocol};
    default: return {TlsCause::kProtocol};
  }
}

}  // namespace ringway
