// core/tls_context.cc
#include "core/tls_context.h"

#include <openssl/bytestring.h>
#include <openssl/evp.h>
#include <openssl/pool.h>
#include <sys/time.h>

#include "core/base/check.h"
#include "core/tls_shard.h"

namespace ringway {
namespace {

void current_time(const SSL* /*ssl*/, timeval* out) {
  out->tv_sec = TlsShard::wall_seconds();
  out->tv_usec = 0;
}

}  // namespace

SSL_CTX* make_tls_context(void* owner) {
  SSL_CTX* context = SSL_CTX_new(TLS_with_buffers_method());
  RW_CHECK(context != nullptr);
  SSL_CTX_set_app_data(context, owner);
  SSL_CTX_set_current_time_cb(context, current_time);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  return context;
}

std::string apply_policy(SSL_CTX* context, const TlsPolicy& policy) {
  const TlsPolicy usual = tls_intermediate();
  if (SSL_CTX_set_min_proto_version(context, policy.version_min) != 1 ||
      SSL_CTX_set_max_proto_version(context, policy.version_max) != 1 ||
      policy.version_min > policy.version_max) {
    return "TLS versions that cannot be used";
  }
  const std::string& ciphers = policy.ciphers.empty() ? usual.ciphers : policy.ciphers;
  if (SSL_CTX_set_strict_cipher_list(context, ciphers.c_str()) != 1) {
    return "TLS ciphers that are not known: " + ciphers;
  }
  const std::string& groups = policy.groups.empty() ? usual.groups : policy.groups;
  if (SSL_CTX_set1_curves_list(context, groups.c_str()) != 1) {
    return "TLS groups that are not known: " + groups;
  }
  SSL_CTX_set_options(context, SSL_OP_CIPHER_SERVER_PREFERENCE);
  return "";
}

bool encode_alpn(const std::vector<std::string>& names, std::string& out) {
  for (const std::string& name : names) {
    if (name.empty() || name.size() > 255) return false;
    out += static_cast<char>(name.size());
    out += name;
  }
  return out.size() <= 65535;
}

bssl::UniquePtr<EVP_PKEY> make_key(const TlsCertificate& certificate) {
  CBS der{};
  CBS_init(&der, reinterpret_cast<const uint8_t*>(certificate.key.data()), certificate.key.size());
  return bssl::UniquePtr<EVP_PKEY>(EVP_parse_private_key(&der));
}

std::vector<bssl::UniquePtr<CRYPTO_BUFFER>> make_chain(const TlsCertificate& certificate) {
  std::vector<bssl::UniquePtr<CRYPTO_BUFFER>> chain;
  for (const std::string& der : certificate.chain) {
    chain.emplace_back(
        CRYPTO_BUFFER_new(reinterpret_cast<const uint8_t*>(der.data()), der.size(), nullptr));
    RW_CHECK(chain.back() != nullptr);
  }
  return chain;
}

}  // namespace ringway
