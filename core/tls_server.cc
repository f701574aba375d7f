// core/tls_server.cc
#include "core/tls_server.h"

#include <openssl/bytestring.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "core/base/check.h"
#include "core/stream.h"
#include "core/tls_context.h"
#include "core/tls_ech.h"
#include "core/tls_hello.h"
#include "core/tls_session.h"
#include "core/tls_shard.h"
#include "core/tls_verify.h"

namespace ringway {

struct TlsServerContext::Material {
  std::vector<bssl::UniquePtr<CRYPTO_BUFFER>> chain;
  std::vector<CRYPTO_BUFFER*> pointers;
  bssl::UniquePtr<EVP_PKEY> key;
};

// What BoringSSL calls.
struct TlsServerContext::Callbacks {
  static TlsServerContext& context_of(const SSL* ssl) {
    return *static_cast<TlsServerContext*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
  }
  // BoringSSL works for one session at a time.
  static TlsSession& session_of(const TlsServerContext& context) {
    return *context.shard_->current_;
  }

  // A whole ClientHello is there; nothing was computed for it yet.
  static ssl_select_cert_result_t on_hello(const SSL_CLIENT_HELLO* hello) {
    TlsServerContext& context = context_of(hello->ssl);
    TlsSession& session = session_of(context);
    TlsShard& shard = session.shard_;
    if (!session.admitted_) {
      const int64_t now_us = session.stream_.env().io.now_us();
      if (!shard.gate_.enter(now_us)) {
        session.gated_ = true;
        shard.counters_.waited.add();
        shard.gate_.wait(session, now_us);
        return ssl_select_cert_retry;
      }
      session.admitted_ = true;
      shard.handshake_wait_.record(0);
    }
    session.hello_seen_ = true;
    const uint8_t* extension = nullptr;
    size_t length = 0;
    // Of two hellos (RFC 8446 4.1.2) only the first one has it.
    session.early_offered_ |= SSL_early_callback_ctx_extension_get(hello, TLSEXT_TYPE_early_data,
                                                                   &extension, &length) == 1;
    if (!context.bind_resumption(hello->ssl, session.server_name())) return ssl_select_cert_error;
    return context.choose(*hello, session) ? ssl_select_cert_success : ssl_select_cert_error;
  }

  static int on_server_name(SSL* ssl, int* alert, void* /*argument*/) {
    const TlsSession& session = session_of(context_of(ssl));
    if (session.failure_.cause != TlsCause::kUnrecognizedName) return SSL_TLSEXT_ERR_OK;
    *alert = SSL_AD_UNRECOGNIZED_NAME;
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  }

  // RFC 7301 3.2: the server's order rules, and nothing in common is fatal.
  static int on_alpn(SSL* ssl, const uint8_t** out, uint8_t* out_length, const uint8_t* in,
                     unsigned in_length, void* /*argument*/) {
    const std::vector<std::string>& names = context_of(ssl).options_.alpn;
    for (const std::string& name : names) {
      CBS offered{};
      CBS_init(&offered, in, in_length);
      CBS one{};
      while (CBS_len(&offered) > 0 && CBS_get_u8_length_prefixed(&offered, &one) == 1) {
        if (CBS_mem_equal(&one, reinterpret_cast<const uint8_t*>(name.data()), name.size()) == 0) {
          continue;
        }
        *out = CBS_data(&one);
        *out_length = static_cast<uint8_t>(CBS_len(&one));
        return SSL_TLSEXT_ERR_OK;
      }
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  }

  static ssl_verify_result_t on_verify(SSL* ssl, uint8_t* alert) {
    const TlsServerContext& context = context_of(ssl);
    TlsSession& session = session_of(context);
    session.verdict_ = verify_chain(ssl, *context.options_.client_trust, TlsPeerRole::kClient, "");
    if (session.verdict_ == TlsVerdict::kOk) return ssl_verify_ok;
    if (context.options_.client_auth == TlsClientAuth::kOptional) return ssl_verify_ok;
    *alert = alert_of(session.verdict_);
    return ssl_verify_invalid;
  }

  static bool use_key(const TlsTicketKey& key, const uint8_t* iv, EVP_CIPHER_CTX* cipher,
                      HMAC_CTX* mac, bool encrypt) {
    const EVP_CIPHER* method = key.bits == 128 ? EVP_aes_128_cbc() : EVP_aes_256_cbc();
    const size_t mac_bytes = key.bits / 8;
    return EVP_CipherInit_ex(cipher, method, nullptr, key.cipher_key.data(), iv, encrypt ? 1 : 0) ==
               1 &&
           HMAC_Init_ex(mac, key.mac_key.data(), mac_bytes, EVP_sha256(), nullptr) == 1;
  }

  // 2: good, and to be replaced by one of the current key.
  static int on_ticket(SSL* ssl, uint8_t* name, uint8_t* iv, EVP_CIPHER_CTX* cipher, HMAC_CTX* mac,
                       int encrypt) {
    const TlsServerContext& context = context_of(ssl);
    if (encrypt == 1) {
      const TlsTicketKey& key = context.keys_->current();
      RAND_bytes(iv, EVP_MAX_IV_LENGTH);
      std::copy(key.name.begin(), key.name.end(), name);
      return use_key(key, iv, cipher, mac, true) ? 1 : -1;
    }
    const TlsTicketKey* key =
        context.keys_->find(std::span<const uint8_t, 16>(name, SSL_TICKET_KEY_NAME_LEN));
    if (key == nullptr) {
      session_of(context).shard_.counters_.tickets_unknown.add();
      return 0;
    }
    if (!use_key(*key, iv, cipher, mac, false)) return -1;
    return key == &context.keys_->current() ? 1 : 2;
  }
};

TlsServerResult TlsServerContext::make(TlsShard& shard, const TlsServerOptions& options,
                                       std::shared_ptr<const TlsNames> names,
                                       std::shared_ptr<const TlsTicketKeys> keys) {
  RW_CHECK(names != nullptr);
  RW_CHECK(options.client_auth == TlsClientAuth::kOff || options.client_trust != nullptr);
  RW_CHECK(options.client_auth == TlsClientAuth::kOff || !options.early_data);
  TlsServerResult result;
  result.context.reset(new TlsServerContext(shard));
  result.context->options_ = options;
  result.context->names_ = std::move(names);
  result.context->keys_ = std::move(keys);
  result.error = result.context->configure();
  if (!result.error.empty()) result.context.reset();
  return result;
}

TlsServerContext::TlsServerContext(TlsShard& shard) : shard_(&shard) {}

TlsServerContext::~TlsServerContext() {
  RW_CHECK(handshakes_ == 0);
  SSL_CTX_free(context_);
}

std::string TlsServerContext::configure() {
  context_ = make_tls_context(this);
  std::string error = apply_policy(context_, options_.policy);
  if (!error.empty()) return error;
  suites_ = ecdsa_suites_of(context_);
  std::string alpn;
  if (!encode_alpn(options_.alpn, alpn)) return "a protocol (ALPN) that cannot be used";
  SSL_CTX_set_select_certificate_cb(context_, Callbacks::on_hello);
  SSL_CTX_set_tlsext_servername_callback(context_, Callbacks::on_server_name);
  if (!alpn.empty()) SSL_CTX_set_alpn_select_cb(context_, Callbacks::on_alpn, nullptr);
  SSL_CTX_set_timeout(context_, options_.session_lifetime_s);
  SSL_CTX_set_session_psk_dhe_timeout(context_, options_.session_lifetime_s);
  if (options_.tickets == 0 || keys_ == nullptr) {
    SSL_CTX_set_options(context_, SSL_OP_NO_TICKET);
  } else {
    SSL_CTX_set_num_tickets(context_, options_.tickets);
    SSL_CTX_set_tlsext_ticket_key_cb(context_, Callbacks::on_ticket);
  }
  if (options_.ech != nullptr) options_.ech->apply(context_);
  if (options_.early_data) SSL_CTX_set_early_data_enabled(context_, 1);
  if (options_.client_auth == TlsClientAuth::kOff) return "";
  int mode = SSL_VERIFY_PEER;
  if (options_.client_auth == TlsClientAuth::kRequired) mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
  SSL_CTX_set_custom_verify(context_, mode, Callbacks::on_verify);
  options_.client_trust->announce(context_);
  return "";
}

// BoringSSL resumes a session, of any version, only under the context that it began under. So it is
// resumed only where a full handshake would ask the same of the client and go to the same name
// (RFC 6066 3): another one may have another certificate, and routes behind it that trust in it.
bool TlsServerContext::bind_resumption(ssl_st* ssl, std::string_view name) const {
  if (name.ends_with('.')) name.remove_suffix(1);
  std::string all;
  all.reserve(options_.session_context.size() + name.size() + 2);
  all += static_cast<char>('0' + static_cast<int>(options_.client_auth));
  for (const char c : name) all += (c >= 'A' && c <= 'Z') ? static_cast<char>(c | 0x20) : c;
  all += '\0';  // No name has one.
  all += options_.session_context;
  std::array<uint8_t, SHA256_DIGEST_LENGTH> id{};
  SHA256(reinterpret_cast<const uint8_t*>(all.data()), all.size(), id.data());
  return SSL_set_session_id_context(ssl, id.data(), id.size()) == 1;
}

void TlsServerContext::set_names(std::shared_ptr<const TlsNames> names) {
  RW_CHECK(names != nullptr);
  // What stays in use is the same object in both tables, since the old one is still alive.
  const auto stays = [&names](const TlsCertificate* certificate) {
    const auto all = names->certificates();
    return std::any_of(all.begin(), all.end(),
                       [certificate](const auto& one) { return one.get() == certificate; });
  };
  std::erase_if(materials_, [&stays](const auto& entry) { return !stays(entry.first); });
  names_ = std::move(names);
}

void TlsServerContext::set_ticket_keys(std::shared_ptr<const TlsTicketKeys> keys) {
  RW_CHECK(keys != nullptr && keys_ != nullptr);
  keys_ = std::move(keys);
}

void TlsServerContext::set_ech(std::shared_ptr<const TlsEchKeys> keys) {
  RW_CHECK(keys != nullptr && options_.ech != nullptr);
  options_.ech = std::move(keys);
  options_.ech->apply(context_);
}

void TlsServerContext::set_client_trust(std::shared_ptr<const TlsTrust> trust) {
  RW_CHECK(trust != nullptr && options_.client_auth != TlsClientAuth::kOff);
  options_.client_trust = std::move(trust);
  options_.client_trust->announce(context_);
}

TlsSession* TlsServerContext::start(TlsShard& shard, Stream& stream) {
  RW_CHECK(&shard == shard_);
  SSL* ssl = SSL_new(context_);
  if (ssl == nullptr) return nullptr;
  TlsSession* session = shard.sessions_.take(shard, stream, ssl, TlsSession::Role::kServer);
  if (session == nullptr) {
    SSL_free(ssl);
    return nullptr;
  }
  BIO_up_ref(shard.bio_);
  SSL_set_bio(ssl, shard.bio_, shard.bio_);
  SSL_set_accept_state(ssl);
  SSL_set_shed_handshake_config(ssl, 1);
  session->handshake_->server = this;
  session->fin_ends_ = options_.fin_ends;
  ++handshakes_;
  session->update_receiving();
  return session;
}

void TlsServerContext::session_done() {
  RW_CHECK(handshakes_ > 0);
  --handshakes_;
}

bool TlsServerContext::reverify(TlsSession& session) const {
  if (options_.client_auth == TlsClientAuth::kOff) return true;
  session.verdict_ = verify_chain(session.ssl_, *options_.client_trust, TlsPeerRole::kClient, "");
  if (session.verdict_ == TlsVerdict::kOk) return true;
  if (options_.client_auth == TlsClientAuth::kOptional) return true;
  SSL_send_fatal_alert(session.ssl_, session.verdict_ == TlsVerdict::kNone
                                         ? SSL_AD_CERTIFICATE_REQUIRED
                                         : alert_of(session.verdict_));
  return false;
}

const TlsServerContext::Material* TlsServerContext::material_of(const TlsCertificate& certificate) {
  std::unique_ptr<Material>& found = materials_[&certificate];
  if (found == nullptr) {
    found = std::make_unique<Material>();
    found->key = make_key(certificate);
    found->chain = make_chain(certificate);
    found->pointers.reserve(found->chain.size());
    for (const auto& one : found->chain) found->pointers.push_back(one.get());
  }
  return found->key == nullptr ? nullptr : found.get();
}

bool TlsServerContext::choose(const SSL_CLIENT_HELLO& hello, TlsSession& session) {
  const std::string_view name = session.server_name();
  TlsChoice choice = name.empty() ? TlsChoice() : names_->find(name);
  if (choice.empty()) {
    if (options_.strict_sni) {
      session.failure_ = {TlsCause::kUnrecognizedName};
      return true;  // on_server_name() has the right alert.
    }
    choice = names_->fallback();
  }
  const HelloFacts facts =
      read_hello(hello, {.tls13 = options_.policy.version_max >= kTls13, .ecdsa_suites = suites_});
  const TlsCertificate* certificate = choose_certificate(choice, facts);
  const Material* material = certificate == nullptr ? nullptr : material_of(*certificate);
  if (material == nullptr ||
      SSL_set_chain_and_key(hello.ssl, material->pointers.data(), material->pointers.size(),
                            material->key.get(), nullptr) != 1) {
    session.failure_ = {TlsCause::kNoCertificate};
    return false;
  }
  // One that is out of date would do harm: clients that insist on a response refuse it.
  const int64_t until_s = certificate->ocsp_next_update_s;
  const bool fresh = until_s == 0 || until_s > TlsShard::wall_seconds();
  if (options_.ocsp && facts.wants_ocsp && !certificate->ocsp.empty() && fresh) {
    SSL_set_ocsp_response(hello.ssl, reinterpret_cast<const uint8_t*>(certificate->ocsp.data()),
                          certificate->ocsp.size());
  }
  return true;
}

}  // namespace ringway
