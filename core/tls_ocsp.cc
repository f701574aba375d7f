// core/tls_ocsp.cc
#include "core/tls_ocsp.h"

#include <openssl/bytestring.h>

namespace ringway {
namespace {

// 1.3.6.1.5.5.7.48.1.1, id-pkix-ocsp-basic.
constexpr uint8_t kBasicOid[] = {0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01};
constexpr unsigned kContext0 = CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 0;
constexpr unsigned kContext1 = CBS_ASN1_CONTEXT_SPECIFIC | CBS_ASN1_CONSTRUCTED | 1;

std::string_view view_of(const CBS& cbs) {
  return {reinterpret_cast<const char*>(CBS_data(&cbs)), CBS_len(&cbs)};
}

// Two digits at `at`, or -1.
int two_digits(std::string_view text, size_t at) {
  const char high = text[at];
  const char low = text[at + 1];
  if (high < '0' || high > '9' || low < '0' || low > '9') return -1;
  return (high - '0') * 10 + (low - '0');
}

// Days from 1970-01-01, by Howard Hinnant's "chrono-compatible date algorithms".
int64_t days_from_civil(int64_t year, int64_t month, int64_t day) {
  year -= month <= 2 ? 1 : 0;
  const int64_t era = (year >= 0 ? year : year - 399) / 400;
  const int64_t year_of_era = year - era * 400;
  const int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
  const int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
  return era * 146'097 + day_of_era - 719'468;
}

// Opens the BasicOCSPResponse inside an OCSPResponse. Returns what is wrong, or null.
const char* open_basic(CBS response, CBS& basic) {
  CBS outer;
  CBS status;
  if (!CBS_get_asn1(&response, &outer, CBS_ASN1_SEQUENCE) || CBS_len(&response) != 0 ||
      !CBS_get_asn1(&outer, &status, CBS_ASN1_ENUMERATED) || CBS_len(&status) != 1) {
    return "not an OCSP response";
  }
  if (CBS_data(&status)[0] != 0) return "the responder did not answer (its status is an error)";
  CBS explicit_tag;
  CBS bytes;
  CBS oid;
  CBS octets;
  if (!CBS_get_asn1(&outer, &explicit_tag, kContext0) || CBS_len(&outer) != 0 ||
      !CBS_get_asn1(&explicit_tag, &bytes, CBS_ASN1_SEQUENCE) ||
      !CBS_get_asn1(&bytes, &oid, CBS_ASN1_OBJECT) ||
      !CBS_get_asn1(&bytes, &octets, CBS_ASN1_OCTETSTRING)) {
    return "not an OCSP response";
  }
  if (!CBS_mem_equal(&oid, kBasicOid, sizeof kBasicOid)) return "not a basic OCSP response";
  if (!CBS_get_asn1(&octets, &basic, CBS_ASN1_SEQUENCE) || CBS_len(&octets) != 0) {
    return "not a basic OCSP response";
  }
  return nullptr;
}

// Skips ResponseData up to its list of single responses.
bool open_responses(CBS basic, CBS& responses) {
  CBS tbs;
  CBS skipped;
  unsigned tag = 0;
  CBS signature;
  CBS rest = basic;
  if (!CBS_get_asn1(&rest, &tbs, CBS_ASN1_SEQUENCE) ||
      !CBS_get_asn1(&rest, &skipped, CBS_ASN1_SEQUENCE) ||
      !CBS_get_asn1(&rest, &signature, CBS_ASN1_BITSTRING)) {
    return false;
  }
  int present = 0;
  return CBS_get_optional_asn1(&tbs, &skipped, &present, kContext0) != 0 &&
         CBS_get_any_asn1(&tbs, &skipped, &tag) != 0 &&
         CBS_get_asn1(&tbs, &skipped, CBS_ASN1_GENERALIZEDTIME) != 0 &&
         CBS_get_asn1(&tbs, &responses, CBS_ASN1_SEQUENCE) != 0;
}

// One SingleResponse. False if it is malformed.
bool read_single(CBS single, std::string_view& serial, unsigned& status, int64_t& next_update_s) {
  CBS id;
  CBS skipped;
  CBS number;
  if (!CBS_get_asn1(&single, &id, CBS_ASN1_SEQUENCE) ||
      !CBS_get_asn1(&id, &skipped, CBS_ASN1_SEQUENCE) ||
      !CBS_get_asn1(&id, &skipped, CBS_ASN1_OCTETSTRING) ||
      !CBS_get_asn1(&id, &skipped, CBS_ASN1_OCTETSTRING) ||
      !CBS_get_asn1(&id, &number, CBS_ASN1_INTEGER)) {
    return false;
  }
  CBS this_update;
  if (!CBS_get_any_asn1(&single, &skipped, &status) ||
      !CBS_get_asn1(&single, &this_update, CBS_ASN1_GENERALIZEDTIME)) {
    return false;
  }
  serial = view_of(number);
  next_update_s = 0;
  int present = 0;
  CBS wrapped;
  if (!CBS_get_optional_asn1(&single, &wrapped, &present, kContext0)) return false;
  if (present == 0) return true;
  CBS time;
  if (!CBS_get_asn1(&wrapped, &time, CBS_ASN1_GENERALIZEDTIME)) return false;
  next_update_s = parse_asn1_time(view_of(time), true);
  return next_update_s != INT64_MIN;
}

}  // namespace

int64_t parse_asn1_time(std::string_view text, bool generalized) {
  const size_t year_digits = generalized ? 4 : 2;
  if (text.size() != year_digits + 11 || text.back() != 'Z') return INT64_MIN;
  int parts[7] = {};
  for (size_t i = 0; i < text.size() / 2; ++i) {
    parts[i] = two_digits(text, 2 * i);
    if (parts[i] < 0) return INT64_MIN;
  }
  const int* rest = parts + (generalized ? 2 : 1);
  // RFC 5280 4.1.2.5.1: two digits stand for 1950 to 2049.
  const int64_t year =
      generalized ? parts[0] * 100 + parts[1] : parts[0] + (parts[0] >= 50 ? 1900 : 2000);
  const bool sound = rest[0] >= 1 && rest[0] <= 12 && rest[1] >= 1 && rest[1] <= 31 &&
                     rest[2] < 24 && rest[3] < 60 && rest[4] < 60;
  if (!sound) return INT64_MIN;
  return days_from_civil(year, rest[0], rest[1]) * 86'400 + rest[2] * 3600 + rest[3] * 60 + rest[4];
}

OcspFacts check_ocsp(std::string_view der, std::string_view serial) {
  CBS response;
  CBS_init(&response, reinterpret_cast<const uint8_t*>(der.data()), der.size());
  CBS basic;
  const char* problem = open_basic(response, basic);
  if (problem != nullptr) return {.problem = problem};
  CBS responses;
  if (!open_responses(basic, responses)) return {.problem = "not a basic OCSP response"};
  while (CBS_len(&responses) > 0) {
    CBS single;
    std::string_view about;
    unsigned status = 0;
    int64_t next_update_s = 0;
    if (!CBS_get_asn1(&responses, &single, CBS_ASN1_SEQUENCE) ||
        !read_single(single, about, status, next_update_s)) {
      return {.problem = "not a basic OCSP response"};
    }
    if (about != serial) continue;
    if (status == kContext1) return {.problem = "the OCSP response says that it is revoked"};
    return {.next_update_s = next_update_s};
  }
  return {.problem = "the OCSP response is about another certificate"};
}

}  // namespace ringway
