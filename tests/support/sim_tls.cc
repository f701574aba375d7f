// tests/support/sim_tls.cc
#include "tests/support/sim_tls.h"

#include <openssl/err.h>
#include <sys/time.h>

#include <algorithm>

#include "core/tls_shard.h"

namespace ringway {

SimTlsStore::SimTlsStore() : context(SSL_CTX_new(TLS_method())) {
  SSL_CTX_set_app_data(context.get(), this);
  SSL_CTX_set_custom_verify(context.get(), SSL_VERIFY_PEER,
                            [](SSL*, uint8_t*) { return ssl_verify_ok; });
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(context.get(), [](SSL* ssl, SSL_SESSION* session) {
    static_cast<SimTlsStore*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)))->session.reset(session);
    return 1;
  });
  SSL_CTX_set_current_time_cb(context.get(), [](const SSL*, timeval* out) {
    out->tv_sec = TlsShard::wall_seconds();
    out->tv_usec = 0;
  });
  SSL_CTX_set_mode(context.get(),
                   SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
}

SimTlsClient::SimTlsClient(SimTlsStore& store, bool early)
    : store_(store), ssl_(SSL_new(store.context.get())) {
  in_ = BIO_new(BIO_s_mem());
  out_ = BIO_new(BIO_s_mem());
  BIO_set_mem_eof_return(in_, -1);
  SSL_set_bio(ssl_.get(), in_, out_);
  SSL_set_connect_state(ssl_.get());
  SSL_set_tlsext_host_name(ssl_.get(), "sim.test");
  SSL_set_early_data_enabled(ssl_.get(), early ? 1 : 0);
}

std::string SimTlsClient::take() {
  const uint8_t* bytes = nullptr;
  size_t length = 0;
  BIO_mem_contents(out_, &bytes, &length);
  std::string taken(reinterpret_cast<const char*>(bytes), length);
  [[maybe_unused]] const int reset = BIO_reset(out_);
  return taken;
}

std::string SimTlsClient::begin() {
  if (store_.session != nullptr) SSL_set_session(ssl_.get(), store_.session.get());
  std::string plain;
  drive(plain);
  return take();
}

std::string SimTlsClient::seal(std::string_view bytes) {
  pending_ += bytes;
  std::string plain;
  drive(plain);
  return take();
}

std::string SimTlsClient::open(std::string_view wire, std::string& plain) {
  BIO_write(in_, wire.data(), static_cast<int>(wire.size()));
  drive(plain);
  return take();
}

std::string SimTlsClient::end() {
  if (done_ && !failed_) SSL_shutdown(ssl_.get());
  return take();
}

bool SimTlsClient::starts_over(int result) {
  const int error = SSL_get_error(ssl_.get(), result);
  if (error == SSL_ERROR_EARLY_DATA_REJECTED) {
    SSL_reset_early_data_reject(ssl_.get());
    ++store_.early_rejected;
    pending_.insert(0, early_);
    early_.clear();
    may_talk_ = false;
    return true;
  }
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_ZERO_RETURN) return false;
  failed_ = true;
  if (store_.failure.empty()) {
    const char* reason = ERR_reason_error_string(ERR_peek_error());
    store_.failure = reason == nullptr ? "unknown" : reason;
  }
  ERR_clear_error();
  return false;
}

void SimTlsClient::note_done() {
  if (done_ || SSL_in_init(ssl_.get()) == 1) return;
  done_ = true;
  ++store_.handshakes;
  if (SSL_session_reused(ssl_.get()) == 1) ++store_.resumed;
  if (SSL_early_data_accepted(ssl_.get()) == 1) ++store_.early_accepted;
}

bool SimTlsClient::shake_hands() {
  while (!may_talk_ && !failed_) {
    const int result = SSL_do_handshake(ssl_.get());
    if (result == 1) {
      may_talk_ = true;
    } else if (!starts_over(result)) {
      return false;
    }
  }
  return may_talk_;
}

bool SimTlsClient::write() {
  while (!pending_.empty() && !failed_) {
    const size_t part = std::min<size_t>(pending_.size(), 8192);
    const int written = SSL_write(ssl_.get(), pending_.data(), static_cast<int>(part));
    if (written <= 0) return !starts_over(written);
    const auto count = static_cast<size_t>(written);
    if (SSL_in_early_data(ssl_.get()) == 1) early_.append(pending_, 0, count);
    pending_.erase(0, count);
  }
  return true;
}

void SimTlsClient::drive(std::string& plain) {
  for (bool again = true; again && !failed_;) {
    again = false;
    if (!shake_hands()) return;
    if (!write()) {
      again = true;
      continue;
    }
    char bytes[8192];
    for (;;) {
      const int got = SSL_read(ssl_.get(), bytes, sizeof bytes);
      if (got <= 0) {
        again = starts_over(got);
        break;
      }
      plain.append(bytes, static_cast<size_t>(got));
    }
    // What the limit of early data held back.
    const bool done_before = done_;
    note_done();
    again = again || (!done_before && done_ && !pending_.empty());
  }
}

}  // namespace ringway
