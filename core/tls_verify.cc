// core/tls_verify.cc
#include "core/tls_verify.h"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/pem.h>
#include <openssl/pool.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

#include <array>
#include <fstream>
#include <iterator>

#include "core/base/check.h"
#include "core/tls_shard.h"

namespace ringway {
namespace {

TlsVerdict verdict_of(int error) {
  switch (error) {
    case X509_V_OK: return TlsVerdict::kOk;
    case X509_V_ERR_CERT_HAS_EXPIRED: return TlsVerdict::kExpired;
    case X509_V_ERR_CERT_NOT_YET_VALID: return TlsVerdict::kNotYetValid;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH: return TlsVerdict::kWrongName;
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT: return TlsVerdict::kSelfSigned;
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_UNTRUSTED: return TlsVerdict::kUnknownCa;
    case X509_V_ERR_CERT_REVOKED: return TlsVerdict::kRevoked;
    case X509_V_ERR_UNABLE_TO_GET_CRL:
    case X509_V_ERR_UNABLE_TO_GET_CRL_ISSUER: return TlsVerdict::kNoCrl;
    case X509_V_ERR_CRL_NOT_YET_VALID:
    case X509_V_ERR_CRL_HAS_EXPIRED: return TlsVerdict::kCrlExpired;
    case X509_V_ERR_INVALID_PURPOSE: return TlsVerdict::kWrongPurpose;
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
    case X509_V_ERR_CRL_SIGNATURE_FAILURE: return TlsVerdict::kBadSignature;
    default: return TlsVerdict::kBadChain;
  }
}

std::string text_of(X509_NAME* name) {
  bssl::UniquePtr<BIO> out(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(out.get(), name, 0, XN_FLAG_RFC2253);
  const uint8_t* bytes = nullptr;
  size_t length = 0;
  BIO_mem_contents(out.get(), &bytes, &length);
  return {reinterpret_cast<const char*>(bytes), length};
}

std::string common_name_of(X509_NAME* name) {
  int at = -1;
  for (int i = X509_NAME_get_index_by_NID(name, NID_commonName, -1); i >= 0;
       i = X509_NAME_get_index_by_NID(name, NID_commonName, i)) {
    at = i;
  }
  if (at < 0) return "";
  uint8_t* text = nullptr;
  const int length =
      ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
  if (length < 0) return "";
  std::string found(reinterpret_cast<const char*>(text), static_cast<size_t>(length));
  OPENSSL_free(text);
  return found;
}

std::string hexadecimal(const uint8_t* bytes, size_t length) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (size_t i = 0; i < length; ++i) {
    text += kDigits[bytes[i] >> 4];
    text += kDigits[bytes[i] & 15];
  }
  return text;
}

bssl::UniquePtr<BIO> reader_of(std::string_view text) {
  return bssl::UniquePtr<BIO>(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// The end of PEM text shows as this error; anything else is a block that cannot be read.
bool at_end_of_pem() {
  const uint32_t error = ERR_peek_last_error();
  ERR_clear_error();
  return ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
}

}  // namespace

struct TlsVerifier {
  static std::string fill(TlsTrust& trust, std::string_view ca_pem, std::string_view crl_pem) {
    trust.store_ = X509_STORE_new();
    ERR_clear_error();
    bssl::UniquePtr<BIO> authorities = reader_of(ca_pem);
    size_t count = 0;
    for (;; ++count) {
      bssl::UniquePtr<X509> one(PEM_read_bio_X509(authorities.get(), nullptr, nullptr, nullptr));
      if (one == nullptr) break;
      X509_STORE_add_cert(trust.store_, one.get());
    }
    if (!at_end_of_pem()) return "a certificate that cannot be read";
    if (count == 0) return "no certificate in it";
    bssl::UniquePtr<BIO> revoked = reader_of(crl_pem);
    while (!crl_pem.empty()) {
      bssl::UniquePtr<X509_CRL> list(
          PEM_read_bio_X509_CRL(revoked.get(), nullptr, nullptr, nullptr));
      if (list == nullptr) break;
      X509_STORE_add_crl(trust.store_, list.get());
      trust.with_crl_ = true;
    }
    if (crl_pem.empty()) return "";
    if (!at_end_of_pem()) return "a list of revoked certificates that cannot be read";
    return trust.with_crl_ ? "" : "no list of revoked certificates in it";
  }

  static void prepare(X509_STORE_CTX& context, const TlsTrust& trust, TlsPeerRole role,
                      const std::string& name) {
    X509_STORE_CTX_set_default(&context,
                               role == TlsPeerRole::kServer ? "ssl_server" : "ssl_client");
    X509_VERIFY_PARAM* param = X509_STORE_CTX_get0_param(&context);
    X509_VERIFY_PARAM_set_time(param, TlsShard::wall_seconds());
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    if (trust.with_crl_) {
      X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    }
    if (name.empty()) return;
    if (is_ip_address(name)) {
      X509_VERIFY_PARAM_set1_ip_asc(param, name.c_str());
    } else {
      X509_VERIFY_PARAM_set1_host(param, name.data(), name.size());
    }
  }

  static TlsVerdict verify(const STACK_OF(CRYPTO_BUFFER) * chain, const TlsTrust& trust,
                           TlsPeerRole role, const std::string& name) {
    bssl::UniquePtr<X509> leaf;
    bssl::UniquePtr<STACK_OF(X509)> others(sk_X509_new_null());
    for (size_t i = 0; i < sk_CRYPTO_BUFFER_num(chain); ++i) {
      bssl::UniquePtr<X509> one(X509_parse_from_buffer(sk_CRYPTO_BUFFER_value(chain, i)));
      if (one == nullptr) return TlsVerdict::kBadChain;
      if (i == 0) {
        leaf = std::move(one);
      } else {
        sk_X509_push(others.get(), one.release());
      }
    }
    bssl::UniquePtr<X509_STORE_CTX> context(X509_STORE_CTX_new());
    if (X509_STORE_CTX_init(context.get(), trust.store_, leaf.get(), others.get()) != 1) {
      return TlsVerdict::kBadChain;
    }
    prepare(*context, trust, role, name);
    if (X509_verify_cert(context.get()) == 1) return TlsVerdict::kOk;
    const int error = X509_STORE_CTX_get_error(context.get());
    const TlsVerdict verdict = error == X509_V_OK ? TlsVerdict::kBadChain : verdict_of(error);
    // One that may not sign certificates is not taken for its own issuer, but that is what it is.
    if (verdict == TlsVerdict::kUnknownCa &&
        X509_NAME_cmp(X509_get_subject_name(leaf.get()), X509_get_issuer_name(leaf.get())) == 0) {
      return TlsVerdict::kSelfSigned;
    }
    return verdict;
  }
};

bool is_ip_address(const std::string& name) {
  std::array<unsigned char, 16> address{};
  return inet_pton(AF_INET, name.c_str(), address.data()) == 1 ||
         inet_pton(AF_INET6, name.c_str(), address.data()) == 1;
}

TlsTrust::~TlsTrust() {
  X509_STORE_free(store_);
}

TlsTrustResult TlsTrust::make(std::string_view ca_pem, std::string_view crl_pem) {
  TlsTrustResult result;
  result.trust.reset(new TlsTrust);
  result.error = TlsVerifier::fill(*result.trust, ca_pem, crl_pem);
  if (!result.error.empty()) result.trust.reset();
  return result;
}

void TlsTrust::announce(ssl_ctx_st* context) const {
  bssl::UniquePtr<STACK_OF(CRYPTO_BUFFER)> names(sk_CRYPTO_BUFFER_new_null());
  STACK_OF(X509_OBJECT)* objects = X509_STORE_get0_objects(store_);
  for (size_t i = 0; i < sk_X509_OBJECT_num(objects); ++i) {
    X509_OBJECT* object = sk_X509_OBJECT_value(objects, i);
    if (X509_OBJECT_get_type(object) != X509_LU_X509) continue;
    uint8_t* der = nullptr;
    const int length = i2d_X509_NAME(X509_get_subject_name(X509_OBJECT_get0_X509(object)), &der);
    if (length < 0) continue;
    sk_CRYPTO_BUFFER_push(names.get(),
                          CRYPTO_BUFFER_new(der, static_cast<size_t>(length), nullptr));
    OPENSSL_free(der);
  }
  SSL_CTX_set0_client_CAs(context, names.release());
}

std::string read_system_trust() {
  const auto read = [](const char* path) {
    std::ifstream file(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  };
  // NOLINTNEXTLINE(concurrency-mt-unsafe): nothing here ever changes the environment.
  const char* const named = getenv("SSL_CERT_FILE");
  if (named != nullptr && *named != '\0') return read(named);
  for (const char* path : {"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
                           "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"}) {
    std::string text = read(path);
    if (!text.empty()) return text;
  }
  return "";
}

TlsVerdict verify_chain(const ssl_st* ssl, const TlsTrust& trust, TlsPeerRole role,
                        const std::string& name) {
  const STACK_OF(CRYPTO_BUFFER)* chain = SSL_get0_peer_certificates(ssl);
  if (chain == nullptr || sk_CRYPTO_BUFFER_num(chain) == 0) return TlsVerdict::kNone;
  const TlsVerdict verdict = TlsVerifier::verify(chain, trust, role, name);
  ERR_clear_error();
  return verdict;
}

uint8_t alert_of(TlsVerdict verdict) {
  switch (verdict) {
    case TlsVerdict::kExpired:
    case TlsVerdict::kNotYetValid:
    case TlsVerdict::kCrlExpired: return SSL_AD_CERTIFICATE_EXPIRED;
    case TlsVerdict::kRevoked: return SSL_AD_CERTIFICATE_REVOKED;
    case TlsVerdict::kSelfSigned:
    case TlsVerdict::kUnknownCa: return SSL_AD_UNKNOWN_CA;
    case TlsVerdict::kWrongPurpose: return SSL_AD_UNSUPPORTED_CERTIFICATE;
    case TlsVerdict::kWrongName:
    case TlsVerdict::kBadChain: return SSL_AD_BAD_CERTIFICATE;
    case TlsVerdict::kBadSignature: return SSL_AD_DECRYPT_ERROR;
    case TlsVerdict::kNone:
    case TlsVerdict::kOk:
    case TlsVerdict::kNoCrl:
    case TlsVerdict::kCount: return SSL_AD_CERTIFICATE_UNKNOWN;
  }
  return SSL_AD_CERTIFICATE_UNKNOWN;
}

bool describe_certificate(const crypto_buffer_st* certificate, TlsPeer& out) {
  bssl::UniquePtr<X509> x509(
      X509_parse_from_buffer(const_cast<crypto_buffer_st*>(certificate)));  // It counts references.
  if (x509 == nullptr) return false;
  out.subject = text_of(X509_get_subject_name(x509.get()));
  out.common_name = common_name_of(X509_get_subject_name(x509.get()));
  out.issuer = text_of(X509_get_issuer_name(x509.get()));
  bssl::UniquePtr<BIGNUM> serial(ASN1_INTEGER_to_BN(X509_get0_serialNumber(x509.get()), nullptr));
  char* digits = serial == nullptr ? nullptr : BN_bn2hex(serial.get());
  out.serial = digits == nullptr ? "" : digits;
  OPENSSL_free(digits);
  for (char& digit : out.serial) {
    if (digit >= 'a' && digit <= 'f') digit = static_cast<char>(digit - 'a' + 'A');
  }
  std::array<uint8_t, SHA256_DIGEST_LENGTH> hash{};
  SHA256(CRYPTO_BUFFER_data(certificate), CRYPTO_BUFFER_len(certificate), hash.data());
  out.fingerprint = hexadecimal(hash.data(), hash.size());
  return true;
}

}  // namespace ringway
