// tests/core/tls_certificate_test.cc
#include "core/tls_certificate.h"

#include <doctest/doctest.h>
#include <openssl/base64.h>
#include <time.h>

#include <algorithm>
#include <string>

#include "core/tls_ocsp.h"
#include "tests/support/make_certificate.h"

using namespace ringway;
using namespace ringway::test;

namespace {

TlsLoadError error_of(const TlsCertificateText& text) {
  const auto loaded = load_certificate(text);
  REQUIRE_FALSE(loaded.has_value());
  return loaded.error();
}

bool cause_is(const TlsCertificateText& text, TlsLoadCause cause) {
  return error_of(text).cause == cause;
}

std::string to_pem(const std::string& label, const std::string& der) {
  std::string base64(der.size() * 2 + 8, ' ');
  base64.resize(EVP_EncodeBlock(reinterpret_cast<uint8_t*>(base64.data()),
                                reinterpret_cast<const uint8_t*>(der.data()), der.size()));
  return "-----BEGIN " + label + "-----\n" + base64 + "\n-----END " + label + "-----\n";
}

}  // namespace

TEST_CASE("load_certificate: every supported type of key -> type, bits, names, times, PKCS#8") {
  struct Case {
    KeyKind kind;
    TlsKeyType type;
    uint32_t bits;
    const char* name;
  };
  const Case cases[] = {{KeyKind::kEcdsaP256, TlsKeyType::kEcdsaP256, 256, "ECDSA P-256"},
                        {KeyKind::kEcdsaP384, TlsKeyType::kEcdsaP384, 384, "ECDSA P-384"},
                        {KeyKind::kRsa2048, TlsKeyType::kRsa, 2048, "RSA"},
                        {KeyKind::kEd25519, TlsKeyType::kEd25519, 253, "Ed25519"}};
  for (const Case& c : cases) {
    CAPTURE(c.name);
    const int64_t before = time(nullptr);
    const MadeCertificate made = make_certificate({.names = {"a.test"}, .key = c.kind});
    const auto loaded = load_certificate({.cert_pem = made.cert_pem, .key_pem = made.key_pem});
    REQUIRE(loaded.has_value());
    CHECK(loaded->key_type == c.type);
    CHECK(loaded->key_bits == c.bits);
    CHECK(std::string(name_of(loaded->key_type)) == c.name);
    CHECK(loaded->names == std::vector<std::string>{"a.test"});
    CHECK(loaded->chain == std::vector<std::string>{made.cert_der()});
    CHECK(loaded->key.view() == made.key_der());
    CHECK(loaded->not_before_s >= before - 3600);
    CHECK(loaded->not_before_s <= time(nullptr) - 3600);
    CHECK(loaded->not_after_s - loaded->not_before_s >= 30 * 86400 + 3600);
    CHECK(loaded->not_after_s - loaded->not_before_s <= 30 * 86400 + 3601);
  }
}

TEST_CASE("load_certificate: one text with key and chain in any order -> the chain as it stands") {
  const MadeCertificate root = make_certificate({.common_name = "root", .ca = true});
  const MadeCertificate made = make_certificate({.names = {"a.test"}, .issuer = &root});
  const std::string key_first = made.key_pem + made.cert_pem + root.cert_pem;
  const std::string key_last = made.cert_pem + root.cert_pem + made.key_pem;
  for (const std::string& text : {key_first, key_last}) {
    const auto loaded = load_certificate({.cert_pem = text});
    REQUIRE(loaded.has_value());
    CHECK(loaded->chain == std::vector<std::string>{made.cert_der(), root.cert_der()});
    CHECK(loaded->names == std::vector<std::string>{"a.test"});
  }
}

TEST_CASE("load_certificate: keys as `openssl ecparam` and `openssl genrsa` wrote them -> read") {
  for (const KeyKind kind : {KeyKind::kEcdsaP256, KeyKind::kRsa2048}) {
    const MadeCertificate made = make_certificate({.key = kind});
    const std::string key =
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" +
        made.traditional_key_pem();
    const auto loaded = load_certificate({.cert_pem = made.cert_pem, .key_pem = key});
    REQUIRE(loaded.has_value());
    CHECK(loaded->key.view() == made.key_der());
  }
}

// RFC 9525 6.3: with a subjectAltName the common name does not count.
TEST_CASE("load_certificate: names -> lower case, each once, the common name only without a SAN") {
  const MadeCertificate many =
      make_certificate({.common_name = "cn.test",
                        .names = {"WWW.Example.Test", "*.Example.test", "www.example.test",
                                  "10.1.2.3", "2001:db8::1"}});
  auto loaded = load_certificate({.cert_pem = many.cert_pem, .key_pem = many.key_pem});
  REQUIRE(loaded.has_value());
  CHECK(loaded->names ==
        std::vector<std::string>{"www.example.test", "*.example.test", "10.1.2.3", "2001:db8::1"});

  const MadeCertificate old = make_certificate({.common_name = "Old.Test"});
  loaded = load_certificate({.cert_pem = old.cert_pem, .key_pem = old.key_pem});
  REQUIRE(loaded.has_value());
  CHECK(loaded->names == std::vector<std::string>{"old.test"});

  const MadeCertificate person = make_certificate({.common_name = "Jane Doe"});
  loaded = load_certificate({.cert_pem = person.cert_pem, .key_pem = person.key_pem});
  REQUIRE(loaded.has_value());
  CHECK(loaded->names.empty());
}

TEST_CASE("load_certificate: a key of another certificate -> kKeyDoesNotMatch") {
  const MadeCertificate one = make_certificate({});
  const MadeCertificate two = make_certificate({});
  const MadeCertificate rsa = make_certificate({.key = KeyKind::kRsa2048});
  const MadeCertificate rsa_2 = make_certificate({.key = KeyKind::kRsa2048, .rsa_number = 1});
  for (const MadeCertificate* key : {&two, &rsa}) {
    const TlsLoadError error = error_of({.cert_pem = one.cert_pem, .key_pem = key->key_pem});
    CHECK(error.cause == TlsLoadCause::kKeyDoesNotMatch);
    CHECK(error.in_key);
    CHECK(error.text() == "the private key does not match the first certificate (line 1)");
  }
  CHECK(cause_is({.cert_pem = rsa.cert_pem, .key_pem = rsa_2.key_pem},
                 TlsLoadCause::kKeyDoesNotMatch));
  // The intermediate before the server's own, the usual mistake.
  const std::string wrong_order = one.cert_pem + two.cert_pem;
  const TlsLoadError error = error_of({.cert_pem = wrong_order, .key_pem = two.key_pem});
  const auto line = std::count(one.cert_pem.begin(), one.cert_pem.end(), '\n') + 1;
  CHECK(error.detail ==
        "it belongs to the one at line " + std::to_string(line) + ", which has to come first");
}

TEST_CASE("load_certificate: what is no certificate with a usable key -> its cause") {
  const MadeCertificate made = make_certificate({});
  const std::string both = made.cert_pem + made.key_pem;
  CHECK(cause_is({.cert_pem = ""}, TlsLoadCause::kNoCertificate));
  CHECK(cause_is({.cert_pem = made.key_pem}, TlsLoadCause::kNoCertificate));
  CHECK(cause_is({.cert_pem = made.cert_der(), .key_pem = made.key_pem},
                 TlsLoadCause::kNoCertificate));
  CHECK(cause_is({.cert_pem = made.cert_pem}, TlsLoadCause::kNoKey));
  CHECK(cause_is({.cert_pem = made.cert_pem, .key_pem = made.cert_pem}, TlsLoadCause::kNoKey));
  CHECK(cause_is({.cert_pem = both + made.key_pem}, TlsLoadCause::kSeveralKeys));
  CHECK(cause_is({.cert_pem = made.cert_pem, .key_pem = made.encrypted_key_pem()},
                 TlsLoadCause::kEncryptedKey));
  CHECK(cause_is({.cert_pem = both.substr(0, 100)}, TlsLoadCause::kBadPem));

  const std::string no_key =
      "-----BEGIN PRIVATE KEY-----\nMAUCAQAwAA==\n-----END PRIVATE KEY-----\n";
  CHECK(cause_is({.cert_pem = made.cert_pem, .key_pem = no_key}, TlsLoadCause::kBadKey));
  const std::string no_certificate =
      "-----BEGIN CERTIFICATE-----\nMAUCAQAwAA==\n-----END CERTIFICATE-----\n";
  const TlsLoadError error = error_of({.cert_pem = both + no_certificate});
  CHECK(error.cause == TlsLoadCause::kBadCertificate);
  CHECK(error.line == std::count(both.begin(), both.end(), '\n') + 1);

  std::string many = made.key_pem;
  for (size_t i = 0; i <= kChainMax; ++i) many += made.cert_pem;
  CHECK(cause_is({.cert_pem = many}, TlsLoadCause::kTooManyCertificates));
}

TEST_CASE("load_certificate: bytes behind the end of a certificate or key -> refused") {
  const MadeCertificate made = make_certificate({});
  const std::string cert = to_pem("CERTIFICATE", made.cert_der());
  const std::string key = to_pem("PRIVATE KEY", made.key_der());
  CHECK(load_certificate({.cert_pem = cert, .key_pem = key}).has_value());
  const std::string more_cert = to_pem("CERTIFICATE", made.cert_der() + 'x');
  const std::string more_key = to_pem("PRIVATE KEY", made.key_der() + 'x');
  CHECK(cause_is({.cert_pem = more_cert, .key_pem = key}, TlsLoadCause::kBadCertificate));
  CHECK(cause_is({.cert_pem = cert, .key_pem = more_key}, TlsLoadCause::kBadKey));
}

TEST_CASE("load_certificate: a broken key file -> the line in it, and that it is the key's") {
  const MadeCertificate made = make_certificate({});
  std::string key = made.key_pem;
  key[key.find('\n') + 5] = '!';
  const TlsLoadError error = error_of({.cert_pem = made.cert_pem, .key_pem = key});
  CHECK(error.cause == TlsLoadCause::kBadPem);
  CHECK(error.in_key);
  CHECK(error.text() == "not PEM (line 2): this is not base64");
}

TEST_CASE("load_certificate: RSA of 1024 bits and P-521 -> kUnsupportedKey, saying why") {
  const MadeCertificate small = make_certificate({.key = KeyKind::kRsa1024});
  const TlsLoadError error = error_of({.cert_pem = small.cert_pem, .key_pem = small.key_pem});
  CHECK(error.cause == TlsLoadCause::kUnsupportedKey);
  CHECK(error.detail == "RSA of 1024 bits; at least 2048 are needed");
  const MadeCertificate odd = make_certificate({.key = KeyKind::kEcdsaP521});
  CHECK(
      cause_is({.cert_pem = odd.cert_pem, .key_pem = odd.key_pem}, TlsLoadCause::kUnsupportedKey));
}

TEST_CASE("load_certificate: expired long ago -> loaded, with its time") {
  const MadeCertificate made =
      make_certificate({.not_before_s = -900 * 86400, .not_after_s = -86400});
  const auto loaded = load_certificate({.cert_pem = made.cert_pem, .key_pem = made.key_pem});
  REQUIRE(loaded.has_value());
  CHECK(loaded->not_after_s < time(nullptr));
}

TEST_CASE("load_certificate: OCSP responses -> kept if about this certificate, else kBadOcsp") {
  const MadeCertificate made = make_certificate({});
  const MadeCertificate other = make_certificate({});
  const std::string text = made.cert_pem + made.key_pem;
  const std::string good = make_ocsp(made);
  const auto loaded = load_certificate({.cert_pem = text, .ocsp = good});
  REQUIRE(loaded.has_value());
  CHECK(loaded->ocsp == good);
  CHECK(loaded->ocsp_next_update_s >= time(nullptr) + 86400 - 60);
  CHECK(loaded->ocsp_next_update_s <= time(nullptr) + 86400);

  CHECK(error_of({.cert_pem = text, .ocsp = make_ocsp(other)}).detail ==
        "the OCSP response is about another certificate");
  CHECK(error_of({.cert_pem = text, .ocsp = make_ocsp(made, OcspStatus::kRevoked)}).detail ==
        "the OCSP response says that it is revoked");
  CHECK(error_of({.cert_pem = text, .ocsp = make_ocsp(made, OcspStatus::kTryLater)}).detail ==
        "the responder did not answer (its status is an error)");
  for (size_t size = 1; size < good.size(); ++size) {
    CHECK(cause_is({.cert_pem = text, .ocsp = good.substr(0, size)}, TlsLoadCause::kBadOcsp));
  }
}

// RFC 5280 4.1.2.5. The seconds were computed with `date -u -d ... +%s`.
TEST_CASE("parse_asn1_time: both forms -> Unix seconds; anything else -> INT64_MIN") {
  CHECK(parse_asn1_time("700101000000Z", false) == 0);
  CHECK(parse_asn1_time("20240229123456Z", true) == 1'709'210'096);
  CHECK(parse_asn1_time("491231235959Z", false) == 2'524'607'999);
  CHECK(parse_asn1_time("500101000000Z", false) == -631'152'000);
  CHECK(parse_asn1_time("99991231235959Z", true) == 253'402'300'799);
  for (const char* bad : {"", "7001010000Z", "700101000000", "7001010000000", "701301000000Z",
                          "700132000000Z", "700101240000Z", "700101006000Z", "70010100000xZ"}) {
    CHECK(parse_asn1_time(bad, false) == INT64_MIN);
  }
  CHECK(parse_asn1_time("700101000000Z", true) == INT64_MIN);
}
