// core/tls_facts.cc
#include "core/tls_facts.h"

#include <openssl/ssl.h>

#include <algorithm>
#include <array>

#include "core/base/check.h"

namespace ringway {
namespace {

struct AlertText {
  uint8_t number;
  std::string_view text;
};

// RFC 8446 6.2 and the registry of alerts.
constexpr auto kAlerts = std::to_array<AlertText>({
    {0, "tls_alert:close_notify"},
    {10, "tls_alert:unexpected_message"},
    {20, "tls_alert:bad_record_mac"},
    {21, "tls_alert:decryption_failed"},
    {22, "tls_alert:record_overflow"},
    {30, "tls_alert:decompression_failure"},
    {40, "tls_alert:handshake_failure"},
    {41, "tls_alert:no_certificate"},
    {42, "tls_alert:bad_certificate"},
    {43, "tls_alert:unsupported_certificate"},
    {44, "tls_alert:certificate_revoked"},
    {45, "tls_alert:certificate_expired"},
    {46, "tls_alert:certificate_unknown"},
    {47, "tls_alert:illegal_parameter"},
    {48, "tls_alert:unknown_ca"},
    {49, "tls_alert:access_denied"},
    {50, "tls_alert:decode_error"},
    {51, "tls_alert:decrypt_error"},
    {70, "tls_alert:protocol_version"},
    {71, "tls_alert:insufficient_security"},
    {80, "tls_alert:internal_error"},
    {86, "tls_alert:inappropriate_fallback"},
    {90, "tls_alert:user_canceled"},
    {100, "tls_alert:no_renegotiation"},
    {109, "tls_alert:missing_extension"},
    {110, "tls_alert:unsupported_extension"},
    {112, "tls_alert:unrecognized_name"},
    {113, "tls_alert:bad_certificate_status_response"},
    {115, "tls_alert:unknown_psk_identity"},
    {116, "tls_alert:certificate_required"},
    {120, "tls_alert:no_application_protocol"},
});

constexpr std::array<std::string_view, static_cast<size_t>(TlsVerdict::kCount)> kVerdicts = {
    "tls_verify:none",          "tls_verify:ok",
    "tls_verify:expired",       "tls_verify:not_yet_valid",
    "tls_verify:wrong_name",    "tls_verify:self_signed",
    "tls_verify:unknown_ca",    "tls_verify:revoked",
    "tls_verify:no_crl",        "tls_verify:crl_expired",
    "tls_verify:wrong_purpose", "tls_verify:bad_signature",
    "tls_verify:bad_chain"};

constexpr std::array<std::string_view, static_cast<size_t>(TlsCause::kCount)> kCauses = {
    "",
    "tls_alert",
    "tls_verify",
    "tls_no_client_certificate",
    "tls_unrecognized_name",
    "tls_no_certificate",
    "tls_no_shared_cipher",
    "tls_unsupported_version",
    "tls_no_application_protocol",
    "tls_not_tls",
    "tls_renegotiation",
    "tls_bad_record",
    "tls_closed_in_handshake",
    "tls_truncated",
    "tls_no_memory",
    "tls_protocol_error"};

}  // namespace

std::string_view name_of(TlsVerdict verdict) {
  constexpr size_t kPrefix = sizeof "tls_verify:" - 1;
  return kVerdicts.at(static_cast<size_t>(verdict)).substr(kPrefix);
}

std::string_view name_of(TlsCause cause) {
  return kCauses.at(static_cast<size_t>(cause));
}

std::string_view TlsFailure::text() const {
  if (cause == TlsCause::kVerify) return kVerdicts.at(detail);
  if (cause != TlsCause::kAlert) return name_of(cause);
  const auto* found = std::find_if(kAlerts.begin(), kAlerts.end(), [this](const AlertText& alert) {
    return alert.number == detail;
  });
  return found == kAlerts.end() ? "tls_alert:unknown" : found->text;
}

TlsTicket::~TlsTicket() {
  SSL_SESSION_free(session_);
}

bool TlsTicket::single_use() const {
  return session_ != nullptr && SSL_SESSION_should_be_single_use(session_) == 1;
}

}  // namespace ringway
