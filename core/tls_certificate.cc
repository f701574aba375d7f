// core/tls_certificate.cc
#include "core/tls_certificate.h"

#include <arpa/inet.h>
#include <openssl/bytestring.h>
#include <openssl/ec.h>
#include <openssl/ec_key.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <utility>

#include "core/tls_ocsp.h"

namespace ringway {
namespace {

template <class T>
using Loaded = tl::expected<T, TlsLoadError>;

tl::unexpected<TlsLoadError> failed(TlsLoadError error) {
  ERR_clear_error();  // the thread's queue is no place to leave anything for others
  return tl::unexpected<TlsLoadError>(std::move(error));
}

const char* text_of(PemError error) {
  switch (error) {
    case PemError::kNone: return "";
    case PemError::kNoEnd: return "the block that begins here has no matching END line";
    case PemError::kStrayEnd: return "an END line without its BEGIN line";
    case PemError::kBadBase64: return "this is not base64";
    case PemError::kBadBoundary: return "a broken BEGIN or END line";
  }
  return "";
}

// What a text holds of interest.
struct Parts {
  std::vector<PemBlock> certificates;
  std::vector<PemBlock> keys;
};

bool is_key(std::string_view label) {
  return label == "PRIVATE KEY" || label == "EC PRIVATE KEY" || label == "RSA PRIVATE KEY" ||
         label == "ENCRYPTED PRIVATE KEY";
}

Loaded<Parts> take_apart(std::string_view pem, bool in_key) {
  Parts parts;
  PemReader reader(pem);
  for (PemBlock block; reader.next(block); block = PemBlock()) {
    if (block.label == "CERTIFICATE" || block.label == "X509 CERTIFICATE") {
      parts.certificates.push_back(std::move(block));
    } else if (is_key(block.label)) {
      parts.keys.push_back(std::move(block));
    }
  }
  if (reader.error() != PemError::kNone) {
    return failed({.cause = TlsLoadCause::kBadPem,
                   .in_key = in_key,
                   .line = reader.line(),
                   .detail = text_of(reader.error())});
  }
  return parts;
}

bssl::UniquePtr<EVP_PKEY> parse_key(const PemBlock& block) {
  CBS der{};
  CBS_init(&der, block.bytes.data(), block.bytes.size());
  if (block.label == "PRIVATE KEY") {
    bssl::UniquePtr<EVP_PKEY> key(EVP_parse_private_key(&der));
    return CBS_len(&der) == 0 ? std::move(key) : nullptr;
  }
  bssl::UniquePtr<EVP_PKEY> key(EVP_PKEY_new());
  if (block.label == "RSA PRIVATE KEY") {
    bssl::UniquePtr<RSA> rsa(RSA_parse_private_key(&der));
    const bool good =
        rsa != nullptr && CBS_len(&der) == 0 && EVP_PKEY_set1_RSA(key.get(), rsa.get());
    return good ? std::move(key) : nullptr;
  }
  bssl::UniquePtr<EC_KEY> ec(EC_KEY_parse_private_key(&der, nullptr));
  const bool good =
      ec != nullptr && CBS_len(&der) == 0 && EVP_PKEY_set1_EC_KEY(key.get(), ec.get());
  return good ? std::move(key) : nullptr;
}

Loaded<bssl::UniquePtr<EVP_PKEY>> read_key(const std::vector<PemBlock>& keys, bool in_key) {
  if (keys.empty()) return failed({.cause = TlsLoadCause::kNoKey, .in_key = in_key});
  const PemBlock& block = keys.front();
  TlsLoadError error{.in_key = in_key, .line = block.line};
  if (keys.size() > 1) {
    error.cause = TlsLoadCause::kSeveralKeys;
    error.line = keys[1].line;
    return failed(error);
  }
  if (block.encrypted || block.label == "ENCRYPTED PRIVATE KEY") {
    error.cause = TlsLoadCause::kEncryptedKey;
    return failed(error);
  }
  bssl::UniquePtr<EVP_PKEY> key = parse_key(block);
  if (key != nullptr) return key;
  const uint32_t reason = ERR_peek_last_error();
  const bool unsupported =
      ERR_GET_LIB(reason) == ERR_LIB_EVP && ERR_GET_REASON(reason) == EVP_R_UNSUPPORTED_ALGORITHM;
  const bool curve =
      ERR_GET_LIB(reason) == ERR_LIB_EC && ERR_GET_REASON(reason) == EC_R_UNKNOWN_GROUP;
  error.cause = unsupported || curve ? TlsLoadCause::kUnsupportedKey : TlsLoadCause::kBadKey;
  return failed(error);
}

// Says which of our types `key` is. False, and its name in `other`, if it is none.
bool classify(const EVP_PKEY& key, TlsCertificate& to, std::string& other) {
  to.key_bits = static_cast<uint32_t>(EVP_PKEY_bits(&key));
  switch (EVP_PKEY_id(&key)) {
    case EVP_PKEY_RSA:
      to.key_type = TlsKeyType::kRsa;
      other = "RSA of " + std::to_string(to.key_bits) + " bits; at least " +
              std::to_string(kRsaBitsMin) + " are needed";
      return to.key_bits >= kRsaBitsMin;
    case EVP_PKEY_ED25519: to.key_type = TlsKeyType::kEd25519; return true;
    case EVP_PKEY_EC: break;
    default: other = "neither RSA, ECDSA nor Ed25519"; return false;
  }
  const EC_KEY* ec = EVP_PKEY_get0_EC_KEY(&key);
  switch (EC_GROUP_get_curve_name(EC_KEY_get0_group(ec))) {
    case NID_X9_62_prime256v1: to.key_type = TlsKeyType::kEcdsaP256; return true;
    case NID_secp384r1: to.key_type = TlsKeyType::kEcdsaP384; return true;
    default: other = "ECDSA on another curve than P-256 and P-384"; return false;
  }
}

SecretBytes to_pkcs8(const EVP_PKEY& key) {
  bssl::ScopedCBB cbb;
  uint8_t* bytes = nullptr;
  size_t size = 0;
  if (!CBB_init(cbb.get(), 256) || !EVP_marshal_private_key(cbb.get(), &key) ||
      !CBB_finish(cbb.get(), &bytes, &size)) {
    return {};
  }
  SecretBytes secret(std::string_view(reinterpret_cast<const char*>(bytes), size));
  OPENSSL_free(bytes);  // BoringSSL clears all that it frees
  return secret;
}

bssl::UniquePtr<X509> parse_certificate(const PemBlock& block) {
  const uint8_t* at = block.bytes.data();
  bssl::UniquePtr<X509> x509(d2i_X509(nullptr, &at, static_cast<int32_t>(block.bytes.size())));
  if (at != block.bytes.data() + block.bytes.size()) x509 = nullptr;  // trailing bytes
  return x509;
}

std::string_view view_of(const ASN1_STRING* string) {
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(string)),
          static_cast<size_t>(ASN1_STRING_length(string))};
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  if (result.ends_with('.')) result.pop_back();
  return result;
}

// Whether `name` can be a host name that a client asks for; others are of no use in a table.
bool is_host(std::string_view name) {
  if (name.empty() || name.size() > 253) return false;
  return std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

std::string address_text(std::string_view bytes) {
  char text[INET6_ADDRSTRLEN];
  const int family = bytes.size() == 4 ? AF_INET : AF_INET6;
  if (bytes.size() != 4 && bytes.size() != 16) return {};
  return inet_ntop(family, bytes.data(), text, sizeof text) == nullptr ? "" : text;
}

std::string common_name(X509& x509) {
  const X509_NAME* subject = X509_get_subject_name(&x509);
  const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (at < 0) return {};
  uint8_t* utf8 = nullptr;
  const int size =
      ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
  if (size < 0) return {};
  std::string name = lower({reinterpret_cast<const char*>(utf8), static_cast<size_t>(size)});
  OPENSSL_free(utf8);
  return is_host(name) ? name : "";
}

// RFC 9525 6.3 looks at the subjectAltName only; the common name is for certificates of old.
std::vector<std::string> names_of(X509& x509) {
  std::vector<std::string> names;
  const bssl::UniquePtr<GENERAL_NAMES> all(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(&x509, NID_subject_alt_name, nullptr, nullptr)));
  if (all == nullptr) {
    std::string name = common_name(x509);
    if (!name.empty()) names.push_back(std::move(name));
    return names;
  }
  for (size_t i = 0; i < sk_GENERAL_NAME_num(all.get()); ++i) {
    const GENERAL_NAME* general = sk_GENERAL_NAME_value(all.get(), i);
    std::string name;
    if (general->type == GEN_DNS) name = lower(view_of(general->d.dNSName));
    if (general->type == GEN_IPADD) name = address_text(view_of(general->d.iPAddress));
    if (is_host(name) && std::find(names.begin(), names.end(), name) == names.end()) {
      names.push_back(std::move(name));
    }
  }
  return names;
}

bool read_times(const X509& x509, TlsCertificate& to) {
  const ASN1_TIME* first = X509_get0_notBefore(&x509);
  const ASN1_TIME* last = X509_get0_notAfter(&x509);
  to.not_before_s = parse_asn1_time(view_of(first), first->type == V_ASN1_GENERALIZEDTIME);
  to.not_after_s = parse_asn1_time(view_of(last), last->type == V_ASN1_GENERALIZEDTIME);
  return to.not_before_s != INT64_MIN && to.not_after_s != INT64_MIN;
}

bool matches(X509& x509, const EVP_PKEY& key) {
  const bssl::UniquePtr<EVP_PKEY> its(X509_get_pubkey(&x509));
  const bool same = its != nullptr && EVP_PKEY_cmp(its.get(), &key) == 1;
  ERR_clear_error();
  return same;
}

// Where in the file the certificate of `key` stands, for a message; "" if nowhere.
std::string find_owner(const std::vector<PemBlock>& blocks, const EVP_PKEY& key) {
  for (size_t i = 1; i < blocks.size(); ++i) {
    const bssl::UniquePtr<X509> x509 = parse_certificate(blocks[i]);
    if (x509 != nullptr && matches(*x509, key)) {
      return "it belongs to the one at line " + std::to_string(blocks[i].line) +
             ", which has to come first";
    }
  }
  return {};
}

// Fills in what the certificates say.
Loaded<bssl::UniquePtr<X509>> read_chain(const std::vector<PemBlock>& blocks, TlsCertificate& to) {
  if (blocks.empty()) return failed({.cause = TlsLoadCause::kNoCertificate});
  if (blocks.size() > kChainMax) {
    return failed({.cause = TlsLoadCause::kTooManyCertificates,
                   .line = blocks[kChainMax].line,
                   .detail = "at most " + std::to_string(kChainMax)});
  }
  bssl::UniquePtr<X509> leaf;
  for (const PemBlock& block : blocks) {
    bssl::UniquePtr<X509> x509 = block.encrypted ? nullptr : parse_certificate(block);
    if (x509 == nullptr || (leaf == nullptr && !read_times(*x509, to))) {
      return failed({.cause = TlsLoadCause::kBadCertificate, .line = block.line});
    }
    to.chain.emplace_back(block.bytes.view());
    if (leaf == nullptr) leaf = std::move(x509);
  }
  to.names = names_of(*leaf);
  return leaf;
}

const char* text_of(TlsLoadCause cause) {
  switch (cause) {
    case TlsLoadCause::kNoCertificate: return "there is no certificate in it";
    case TlsLoadCause::kBadPem: return "not PEM";
    case TlsLoadCause::kBadCertificate: return "not an X.509 certificate";
    case TlsLoadCause::kNoKey: return "there is no private key in it";
    case TlsLoadCause::kSeveralKeys: return "there is more than one private key in it";
    case TlsLoadCause::kBadKey: return "not a private key";
    case TlsLoadCause::kEncryptedKey: return "the private key is encrypted with a pass phrase";
    case TlsLoadCause::kUnsupportedKey: return "the type of the private key is not supported";
    case TlsLoadCause::kKeyDoesNotMatch:
      return "the private key does not match the first certificate";
    case TlsLoadCause::kTooManyCertificates: return "there are too many certificates in it";
    case TlsLoadCause::kBadOcsp: return "the OCSP response is of no use";
  }
  return "";
}

}  // namespace

const char* name_of(TlsKeyType type) {
  switch (type) {
    case TlsKeyType::kRsa: return "RSA";
    case TlsKeyType::kEcdsaP256: return "ECDSA P-256";
    case TlsKeyType::kEcdsaP384: return "ECDSA P-384";
    case TlsKeyType::kEd25519: return "Ed25519";
  }
  return "";
}

std::string TlsLoadError::text() const {
  std::string result = text_of(cause);
  if (line != 0) result += " (line " + std::to_string(line) + ")";
  if (!detail.empty()) result += ": " + detail;
  return result;
}

tl::expected<TlsCertificate, TlsLoadError> load_certificate(const TlsCertificateText& text) {
  Loaded<Parts> parts = take_apart(text.cert_pem, false);
  if (!parts) return failed(parts.error());
  const bool apart = !text.key_pem.empty();
  if (apart) {
    Loaded<Parts> others = take_apart(text.key_pem, true);
    if (!others) return failed(others.error());
    parts->keys = std::move(others->keys);
  }
  TlsCertificate loaded;
  const Loaded<bssl::UniquePtr<X509>> leaf = read_chain(parts->certificates, loaded);
  if (!leaf) return failed(leaf.error());
  const Loaded<bssl::UniquePtr<EVP_PKEY>> key = read_key(parts->keys, apart);
  if (!key) return failed(key.error());
  TlsLoadError error{.in_key = apart, .line = parts->keys.front().line};
  if (!classify(**key, loaded, error.detail)) {
    error.cause = TlsLoadCause::kUnsupportedKey;
    return failed(error);
  }
  if (!matches(**leaf, **key)) {
    error.cause = TlsLoadCause::kKeyDoesNotMatch;
    error.detail = find_owner(parts->certificates, **key);
    return failed(error);
  }
  if (!text.ocsp.empty()) {
    const OcspFacts facts = check_ocsp(text.ocsp, view_of(X509_get0_serialNumber(leaf->get())));
    if (facts.problem != nullptr) {
      return failed({.cause = TlsLoadCause::kBadOcsp, .detail = facts.problem});
    }
    loaded.ocsp = text.ocsp;
    loaded.ocsp_next_update_s = facts.next_update_s;
  }
  loaded.key = to_pkcs8(**key);
  if (loaded.key.empty()) return failed({.cause = TlsLoadCause::kBadKey, .in_key = apart});
  return loaded;
}

}  // namespace ringway
