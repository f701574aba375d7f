// core/tls_ocsp.h - looks into an OCSP response before it is stapled to handshakes.
//
// Affinity: pure, any thread. Source: RFC 6960 4.2.1.
#pragma once

#include <cstdint>
#include <string_view>

namespace ringway {

// Reads the text of an ASN.1 time: UTCTime "YYMMDDHHMMSSZ" or, if `generalized`, GeneralizedTime
// "YYYYMMDDHHMMSSZ" (RFC 5280 4.1.2.5). Returns Unix seconds, or INT64_MIN if it is neither.
[[nodiscard]] int64_t parse_asn1_time(std::string_view text, bool generalized);

struct OcspFacts {
  const char* problem = nullptr;  // why it cannot be stapled; null: it can
  int64_t next_update_s = 0;      // Unix seconds; 0: the response does not say
};

// Whether `der` is a successful basic response about the certificate with `serial`, the bytes of
// its INTEGER. The signature is left to the clients, who check it anyway.
[[nodiscard]] OcspFacts check_ocsp(std::string_view der, std::string_view serial);

}  // namespace ringway
