// bench/load/tls_client.cc
#include "bench/load/tls_client.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <cerrno>

#include "core/base/check.h"

namespace ringway::bench {
namespace {

ssize_t result_of(ssl_st* tls, int result) {
  if (result > 0) return result;
  const int system = errno;
  const int error = SSL_get_error(tls, result);
  ERR_clear_error();
  switch (error) {
    case SSL_ERROR_WANT_WRITE: errno = EAGAIN; return -1;
    case SSL_ERROR_WANT_READ: errno = EINPROGRESS; return -1;
    case SSL_ERROR_ZERO_RETURN: return 0;
    case SSL_ERROR_SYSCALL: errno = system; return system == 0 ? 0 : -1;
    default: errno = EPROTO; return -1;
  }
}

}  // namespace

TlsClient::TlsClient(bool resume) : context_(SSL_CTX_new(TLS_client_method())), resume_(resume) {
  RW_CHECK(context_ != nullptr);
  RW_CHECK(SSL_CTX_set_min_proto_version(context_, TLS1_3_VERSION) == 1);
  SSL_CTX_set_verify(context_, SSL_VERIFY_NONE, nullptr);
  SSL_CTX_set_app_data(context_, this);
  if (!resume) return;
  SSL_CTX_set_session_cache_mode(context_, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(context_, on_session);
}

TlsClient::~TlsClient() {
  if (session_ != nullptr) SSL_SESSION_free(session_);
  SSL_CTX_free(context_);
}

int TlsClient::on_session(ssl_st* tls, ssl_session_st* session) {
  auto* client = static_cast<TlsClient*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(tls)));
  if (client->session_ != nullptr) SSL_SESSION_free(client->session_);
  client->session_ = session;
  return 1;  // It is ours now.
}

ssl_st* TlsClient::open(int fd) {
  SSL* tls = SSL_new(context_);
  RW_CHECK(tls != nullptr && SSL_set_fd(tls, fd) == 1);
  SSL_set_connect_state(tls);
  if (resume_ && session_ != nullptr) RW_CHECK(SSL_set_session(tls, session_) == 1);
  return tls;
}

void TlsClient::close(ssl_st* tls) {
  SSL_shutdown(tls);
  ERR_clear_error();
  SSL_free(tls);
}

bool TlsClient::resumed(const ssl_st* tls) {
  return SSL_session_reused(tls) == 1;
}

ssize_t TlsClient::send(ssl_st* tls, std::string_view bytes) {
  errno = 0;
  return result_of(tls, SSL_write(tls, bytes.data(), static_cast<int>(bytes.size())));
}

ssize_t TlsClient::receive(ssl_st* tls, std::span<char> room) {
  errno = 0;
  const ssize_t got = result_of(tls, SSL_read(tls, room.data(), static_cast<int>(room.size())));
  if (got < 0 && errno == EINPROGRESS) errno = EAGAIN;
  return got;
}

}  // namespace ringway::bench
