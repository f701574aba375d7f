// tests/support/make_certificate.cc
#include "tests/support/make_certificate.h"

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/bytestring.h>
#include <openssl/curve25519.h>
#include <openssl/digest.h>
#include <openssl/ec.h>
#include <openssl/ec_key.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <time.h>

#include <atomic>
#include <map>

#include "core/base/check.h"

namespace ringway::test {
namespace {

std::string text_of(BIO* bio) {
  const uint8_t* bytes = nullptr;
  size_t size = 0;
  RW_CHECK(BIO_mem_contents(bio, &bytes, &size) == 1);
  return {reinterpret_cast<const char*>(bytes), size};
}

// What `write` writes to a memory BIO.
template <class Write>
std::string written(Write write) {
  const bssl::UniquePtr<BIO> bio(BIO_new(BIO_s_mem()));
  RW_CHECK(write(bio.get()) == 1);
  return text_of(bio.get());
}

std::string finish(CBB* cbb) {
  uint8_t* bytes = nullptr;
  size_t size = 0;
  RW_CHECK(CBB_finish(cbb, &bytes, &size) == 1);
  std::string result(reinterpret_cast<const char*>(bytes), size);
  OPENSSL_free(bytes);
  return result;
}

bssl::UniquePtr<EVP_PKEY> make_ec_key(int curve) {
  bssl::UniquePtr<EC_KEY> ec(EC_KEY_new_by_curve_name(curve));
  RW_CHECK(ec != nullptr && EC_KEY_generate_key(ec.get()) == 1);
  bssl::UniquePtr<EVP_PKEY> key(EVP_PKEY_new());
  RW_CHECK(EVP_PKEY_set1_EC_KEY(key.get(), ec.get()) == 1);
  return key;
}

bssl::UniquePtr<EVP_PKEY> make_rsa_key(int bits, int number) {
  static std::map<std::pair<int, int>, bssl::UniquePtr<EVP_PKEY>> known;
  bssl::UniquePtr<EVP_PKEY>& key = known[{bits, number}];
  if (key == nullptr) {
    const bssl::UniquePtr<BIGNUM> exponent(BN_new());
    const bssl::UniquePtr<RSA> rsa(RSA_new());
    RW_CHECK(BN_set_word(exponent.get(), RSA_F4) == 1);
    RW_CHECK(RSA_generate_key_ex(rsa.get(), bits, exponent.get(), nullptr) == 1);
    key.reset(EVP_PKEY_new());
    RW_CHECK(EVP_PKEY_set1_RSA(key.get(), rsa.get()) == 1);
  }
  return bssl::UpRef(key);
}

bssl::UniquePtr<EVP_PKEY> make_key(const CertificateSpec& spec) {
  if (spec.with_key != nullptr) return bssl::UpRef(const_cast<EVP_PKEY*>(spec.with_key));
  switch (spec.key) {
    case KeyKind::kEcdsaP256: return make_ec_key(NID_X9_62_prime256v1);
    case KeyKind::kEcdsaP384: return make_ec_key(NID_secp384r1);
    case KeyKind::kEcdsaP521: return make_ec_key(NID_secp521r1);
    case KeyKind::kRsa2048: return make_rsa_key(2048, spec.rsa_number);
    case KeyKind::kRsa1024: return make_rsa_key(1024, spec.rsa_number);
    case KeyKind::kEd25519: break;
  }
  uint8_t seed[32];
  RAND_bytes(seed, sizeof seed);
  return bssl::UniquePtr<EVP_PKEY>(
      EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, seed, sizeof seed));
}

const EVP_MD* digest_for(const EVP_PKEY* key) {
  return EVP_PKEY_id(key) == EVP_PKEY_ED25519 ? nullptr : EVP_sha256();
}

void add_extension(X509* x509, const X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, const_cast<X509*>(issuer), x509, nullptr, nullptr, 0);
  const bssl::UniquePtr<X509_EXTENSION> extension(
      X509V3_EXT_nconf_nid(nullptr, &context, nid, const_cast<char*>(value.c_str())));
  RW_CHECK(extension != nullptr);
  RW_CHECK(X509_add_ext(x509, extension.get(), -1) == 1);
}

void add_extensions(X509* x509, const X509* issuer, const CertificateSpec& spec) {
  add_extension(x509, issuer, NID_basic_constraints, spec.ca ? "critical,CA:TRUE" : "CA:FALSE");
  add_extension(x509, issuer, NID_key_usage,
                spec.ca ? "critical,keyCertSign,cRLSign" : "critical,digitalSignature");
  add_extension(x509, issuer, NID_subject_key_identifier, "hash");
  if (!spec.ca) {
    add_extension(x509, issuer, NID_ext_key_usage, spec.client ? "clientAuth" : "serverAuth");
  }
  std::string names;
  for (const std::string& name : spec.names) {
    const bool address = name.find(':') != std::string::npos ||
                         name.find_first_not_of("0123456789.") == std::string::npos;
    names.append(names.empty() ? "" : ",").append(address ? "IP:" : "DNS:").append(name);
  }
  if (!names.empty()) add_extension(x509, issuer, NID_subject_alt_name, names);
}

void set_serial(X509* x509, uint32_t serial) {
  static std::atomic<uint32_t> next{1000};
  const uint32_t number = serial != 0 ? serial : next.fetch_add(1);
  RW_CHECK(ASN1_INTEGER_set(X509_get_serialNumber(x509), static_cast<int32_t>(number)) == 1);
}

void add_time(CBB* cbb, time_t when) {
  tm parts{};
  gmtime_r(&when, &parts);
  char text[32];
  strftime(text, sizeof text, "%Y%m%d%H%M%SZ", &parts);
  CBB inner;
  RW_CHECK(CBB_add_asn1(cbb, &inner, CBS_ASN1_GENERALIZEDTIME) == 1);
  RW_CHECK(CBB_add_bytes(&inner, reinterpret_cast<const uint8_t*>(text), 15) == 1);
  RW_CHECK(CBB_flush(cbb) == 1);
}

// An empty element, or one with `bytes`.
void add_element(CBB* cbb, unsigned tag, const std::string& bytes) {
  CBB inner;
  RW_CHECK(CBB_add_asn1(cbb, &inner, tag) == 1);
  RW_CHECK(CBB_add_bytes(&inner, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()) ==
           1);
  RW_CHECK(CBB_flush(cbb) == 1);
}

constexpr unsigned kContext = CBS_ASN1_CONTEXT_SPECIFIC;

// RFC 6960 4.2.1: the SingleResponse of `certificate`.
void add_single_response(CBB* responses, const MadeCertificate& certificate, OcspStatus status,
                         int64_t next_update_s) {
  CBB single;
  CBB id;
  CBB algorithm;
  RW_CHECK(CBB_add_asn1(responses, &single, CBS_ASN1_SEQUENCE) == 1);
  RW_CHECK(CBB_add_asn1(&single, &id, CBS_ASN1_SEQUENCE) == 1);
  RW_CHECK(CBB_add_asn1(&id, &algorithm, CBS_ASN1_SEQUENCE) == 1);
  add_element(&algorithm, CBS_ASN1_OBJECT, "\x2b\x0e\x03\x02\x1a");  // SHA-1
  add_element(&id, CBS_ASN1_OCTETSTRING, std::string(20, 'n'));
  add_element(&id, CBS_ASN1_OCTETSTRING, std::string(20, 'k'));
  const ASN1_INTEGER* serial = X509_get0_serialNumber(certificate.x509.get());
  add_element(&id, CBS_ASN1_INTEGER,
              {reinterpret_cast<const char*>(ASN1_STRING_get0_data(serial)),
               static_cast<size_t>(ASN1_STRING_length(serial))});
  const time_t now = time(nullptr);
  if (status == OcspStatus::kRevoked) {
    CBB info;
    RW_CHECK(CBB_add_asn1(&single, &info, kContext | CBS_ASN1_CONSTRUCTED | 1) == 1);
    add_time(&info, now);
  } else {
    add_element(&single, kContext | 0, "");
  }
  add_time(&single, now);
  CBB next;
  RW_CHECK(CBB_add_asn1(&single, &next, kContext | CBS_ASN1_CONSTRUCTED | 0) == 1);
  add_time(&next, now + next_update_s);
  RW_CHECK(CBB_flush(responses) == 1);
}

}  // namespace

MadeCertificate make_certificate(const CertificateSpec& spec) {
  MadeCertificate made;
  made.key = make_key(spec);
  made.x509.reset(X509_new());
  X509* x509 = made.x509.get();
  RW_CHECK(X509_set_version(x509, X509_VERSION_3) == 1);
  set_serial(x509, spec.serial);
  X509_gmtime_adj(X509_getm_notBefore(x509), static_cast<time_t>(spec.not_before_s));
  X509_gmtime_adj(X509_getm_notAfter(x509), static_cast<time_t>(spec.not_after_s));
  X509_NAME* subject = X509_get_subject_name(x509);
  if (!spec.common_name.empty()) {
    RW_CHECK(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8,
                                        reinterpret_cast<const uint8_t*>(spec.common_name.c_str()),
                                        -1, -1, 0) == 1);
  }
  const X509* issuer = spec.issuer == nullptr ? x509 : spec.issuer->x509.get();
  RW_CHECK(X509_set_issuer_name(x509, X509_get_subject_name(const_cast<X509*>(issuer))) == 1);
  RW_CHECK(X509_set_pubkey(x509, made.key.get()) == 1);
  add_extensions(x509, issuer, spec);
  EVP_PKEY* signer = spec.issuer == nullptr ? made.key.get() : spec.issuer->key.get();
  RW_CHECK(X509_sign(x509, signer, digest_for(signer)) > 0);
  made.cert_pem = written([&](BIO* bio) { return PEM_write_bio_X509(bio, x509); });
  made.key_pem = written([&](BIO* bio) {
    return PEM_write_bio_PKCS8PrivateKey(bio, made.key.get(), nullptr, nullptr, 0, nullptr,
                                         nullptr);
  });
  return made;
}

std::string MadeCertificate::traditional_key_pem() const {
  if (EVP_PKEY_id(key.get()) == EVP_PKEY_EC) {
    return written([&](BIO* bio) {
      return PEM_write_bio_ECPrivateKey(bio, EVP_PKEY_get0_EC_KEY(key.get()), nullptr, nullptr, 0,
                                        nullptr, nullptr);
    });
  }
  if (EVP_PKEY_id(key.get()) != EVP_PKEY_RSA) return {};
  return written([&](BIO* bio) {
    return PEM_write_bio_RSAPrivateKey(bio, EVP_PKEY_get0_RSA(key.get()), nullptr, nullptr, 0,
                                       nullptr, nullptr);
  });
}

std::string MadeCertificate::encrypted_key_pem() const {
  return written([&](BIO* bio) {
    char phrase[] = "secret";
    return PEM_write_bio_PKCS8PrivateKey(bio, key.get(), EVP_aes_256_cbc(), phrase, 6, nullptr,
                                         nullptr);
  });
}

std::string MadeCertificate::cert_der() const {
  uint8_t* bytes = nullptr;
  const int size = i2d_X509(x509.get(), &bytes);
  RW_CHECK(size > 0);
  std::string result(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
  OPENSSL_free(bytes);
  return result;
}

std::string MadeCertificate::key_der() const {
  bssl::ScopedCBB cbb;
  RW_CHECK(CBB_init(cbb.get(), 256) == 1);
  RW_CHECK(EVP_marshal_private_key(cbb.get(), key.get()) == 1);
  return finish(cbb.get());
}

std::string make_crl(const MadeCertificate& issuer, std::span<const MadeCertificate* const> revoked,
                     int64_t next_update_s) {
  const bssl::UniquePtr<X509_CRL> crl(X509_CRL_new());
  RW_CHECK(X509_CRL_set_version(crl.get(), X509_CRL_VERSION_2) == 1);
  RW_CHECK(X509_CRL_set_issuer_name(crl.get(), X509_get_subject_name(issuer.x509.get())) == 1);
  const bssl::UniquePtr<ASN1_TIME> last(X509_gmtime_adj(nullptr, -86400));
  const bssl::UniquePtr<ASN1_TIME> next(
      X509_gmtime_adj(nullptr, static_cast<time_t>(next_update_s)));
  RW_CHECK(X509_CRL_set1_lastUpdate(crl.get(), last.get()) == 1);
  RW_CHECK(X509_CRL_set1_nextUpdate(crl.get(), next.get()) == 1);
  for (const MadeCertificate* certificate : revoked) {
    bssl::UniquePtr<X509_REVOKED> entry(X509_REVOKED_new());
    RW_CHECK(X509_REVOKED_set_serialNumber(entry.get(),
                                           X509_get_serialNumber(certificate->x509.get())) == 1);
    RW_CHECK(X509_REVOKED_set_revocationDate(entry.get(), last.get()) == 1);
    RW_CHECK(X509_CRL_add0_revoked(crl.get(), entry.release()) == 1);
  }
  RW_CHECK(X509_CRL_sort(crl.get()) == 1);
  RW_CHECK(X509_CRL_sign(crl.get(), issuer.key.get(), digest_for(issuer.key.get())) > 0);
  return written([&](BIO* bio) { return PEM_write_bio_X509_CRL(bio, crl.get()); });
}

std::string make_ocsp(const MadeCertificate& certificate, OcspStatus status,
                      int64_t next_update_s) {
  bssl::ScopedCBB cbb;
  CBB response;
  RW_CHECK(CBB_init(cbb.get(), 512) == 1);
  RW_CHECK(CBB_add_asn1(cbb.get(), &response, CBS_ASN1_SEQUENCE) == 1);
  if (status == OcspStatus::kTryLater) {
    add_element(&response, CBS_ASN1_ENUMERATED, "\x03");
    return finish(cbb.get());
  }
  add_element(&response, CBS_ASN1_ENUMERATED, std::string(1, '\0'));
  CBB tagged;
  CBB bytes;
  CBB octets;
  CBB basic;
  CBB tbs;
  CBB responses;
  CBB algorithm;
  RW_CHECK(CBB_add_asn1(&response, &tagged, kContext | CBS_ASN1_CONSTRUCTED | 0) == 1);
  RW_CHECK(CBB_add_asn1(&tagged, &bytes, CBS_ASN1_SEQUENCE) == 1);
  add_element(&bytes, CBS_ASN1_OBJECT, "\x2b\x06\x01\x05\x05\x07\x30\x01\x01");
  RW_CHECK(CBB_add_asn1(&bytes, &octets, CBS_ASN1_OCTETSTRING) == 1);
  RW_CHECK(CBB_add_asn1(&octets, &basic, CBS_ASN1_SEQUENCE) == 1);
  RW_CHECK(CBB_add_asn1(&basic, &tbs, CBS_ASN1_SEQUENCE) == 1);
  CBB responder;
  RW_CHECK(CBB_add_asn1(&tbs, &responder, kContext | CBS_ASN1_CONSTRUCTED | 2) == 1);
  add_element(&responder, CBS_ASN1_OCTETSTRING, std::string(20, 'r'));
  add_time(&tbs, time(nullptr));
  RW_CHECK(CBB_add_asn1(&tbs, &responses, CBS_ASN1_SEQUENCE) == 1);
  add_single_response(&responses, certificate, status, next_update_s);
  RW_CHECK(CBB_add_asn1(&basic, &algorithm, CBS_ASN1_SEQUENCE) == 1);
  add_element(&algorithm, CBS_ASN1_OBJECT, "\x2a\x86\x48\xce\x3d\x04\x03\x02");  // ecdsa-sha256
  add_element(&basic, CBS_ASN1_BITSTRING, std::string(9, '\0'));
  return finish(cbb.get());
}

}  // namespace ringway::test
