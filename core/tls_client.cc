// core/tls_client.cc
#include "core/tls_client.h"

#include <arpa/inet.h>
#include <openssl/ssl.h>

#include <array>

#include "core/base/check.h"
#include "core/stream.h"
#include "core/tls_context.h"
#include "core/tls_session.h"
#include "core/tls_shard.h"
#include "core/tls_verify.h"

namespace ringway {

// What BoringSSL calls. The first is asked in handshakes only; tickets come later too, when the
// context may be gone.
struct TlsClientContext::Callbacks {
  static TlsSession& session_of(const SSL* ssl) {
    auto* shard = static_cast<TlsShard*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
    return *shard->current_;
  }

  // Also for a certificate that came with an earlier session (reverify_on_resume).
  static ssl_verify_result_t on_verify(SSL* ssl, uint8_t* alert) {
    TlsSession& session = session_of(ssl);
    const TlsClientOptions& options = session.handshake_->client->options_;
    if (!options.verify) return ssl_verify_ok;
    session.verdict_ =
        verify_chain(ssl, *options.trust, TlsPeerRole::kServer, session.handshake_->verify_name);
    if (session.verdict_ == TlsVerdict::kOk) return ssl_verify_ok;
    *alert = alert_of(session.verdict_);
    return ssl_verify_invalid;
  }

  static int on_session(SSL* ssl, SSL_SESSION* session) {
    if (SSL_SESSION_is_resumable(session) == 0) return 0;
    session_of(ssl).ticket_ = TlsTicket(session);
    return 1;  // It is ours now.
  }
};

TlsClientResult TlsClientContext::make(TlsShard& shard, const TlsClientOptions& options) {
  RW_CHECK(!options.verify || options.trust != nullptr);
  TlsClientResult result;
  result.context.reset(new TlsClientContext(shard));
  result.context->options_ = options;
  result.error = result.context->configure();
  if (!result.error.empty()) result.context.reset();
  return result;
}

TlsClientContext::TlsClientContext(TlsShard& shard) : shard_(&shard) {}

TlsClientContext::~TlsClientContext() {
  RW_CHECK(handshakes_ == 0);
  SSL_CTX_free(context_);
}

std::string TlsClientContext::configure() {
  context_ = make_tls_context(shard_);
  std::string error = apply_policy(context_, options_.policy);
  if (!error.empty()) return error;
  std::string alpn;
  if (!encode_alpn(options_.alpn, alpn) ||
      SSL_CTX_set_alpn_protos(context_, reinterpret_cast<const uint8_t*>(alpn.data()),
                              static_cast<unsigned>(alpn.size())) != 0) {
    return "a protocol (ALPN) that cannot be used";
  }
  SSL_CTX_set_custom_verify(context_, SSL_VERIFY_PEER, Callbacks::on_verify);
  SSL_CTX_set_reverify_on_resume(context_, 1);
  SSL_CTX_set_session_cache_mode(context_, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(context_, Callbacks::on_session);
  if (options_.certificate == nullptr) return "";
  const bssl::UniquePtr<EVP_PKEY> key = make_key(*options_.certificate);
  const auto chain = make_chain(*options_.certificate);
  std::vector<CRYPTO_BUFFER*> pointers;
  pointers.reserve(chain.size());
  for (const auto& one : chain) pointers.push_back(one.get());
  if (key == nullptr || SSL_CTX_set_chain_and_key(context_, pointers.data(), pointers.size(),
                                                  key.get(), nullptr) != 1) {
    return "a client certificate that cannot be used";
  }
  return "";
}

void TlsClientContext::set_trust(std::shared_ptr<const TlsTrust> trust) {
  RW_CHECK(trust != nullptr && options_.verify);
  options_.trust = std::move(trust);
}

TlsSession* TlsClientContext::start(TlsShard& shard, Stream& stream,
                                    const TlsClientParams& params) {
  RW_CHECK(&shard == shard_);
  SSL* ssl = SSL_new(context_);
  if (ssl == nullptr) return nullptr;
  constexpr uint8_t kHttp1[] = "\x08http/1.1";
  const bool offers =
      !params.only_http1 || SSL_set_alpn_protos(ssl, kHttp1, sizeof kHttp1 - 1) == 0;
  TlsSession* session =
      offers ? shard.sessions_.take(shard, stream, ssl, TlsSession::Role::kClient) : nullptr;
  if (session == nullptr) {
    SSL_free(ssl);
    return nullptr;
  }
  BIO_up_ref(shard.bio_);
  SSL_set_bio(ssl, shard.bio_, shard.bio_);
  SSL_set_connect_state(ssl);
  SSL_set_shed_handshake_config(ssl, 1);
  const std::string name(params.server_name);
  if (!name.empty() && !is_ip_address(name)) SSL_set_tlsext_host_name(ssl, name.c_str());
  if (params.ticket != nullptr && !params.ticket->empty()) {
    SSL_set_session(ssl, params.ticket->get());
  }
  session->handshake_->client = this;
  session->handshake_->verify_name = params.verify_name.empty() ? name : params.verify_name;
  RW_CHECK(params.preface.size() <= TlsClientParams::kPrefaceBytes);
  session->handshake_->preface = params.preface;
  session->fin_ends_ = options_.fin_ends;
  ++handshakes_;
  return session;
}

void TlsClientContext::session_done() {
  RW_CHECK(handshakes_ > 0);
  --handshakes_;
}

}  // namespace ringway
