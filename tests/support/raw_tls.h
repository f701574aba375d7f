// tests/support/raw_tls.h - a TLS client of the tests' own on a plain stream: BoringSSL with memory
// BIOs, for what our client never does.
#pragma once

#include <openssl/ssl.h>

#include <string>

#include "tests/support/tls_world.h"

namespace ringway {

class RawTls {
 public:
  // `end` is a plain client's end that is connected, or is being connected.
  explicit RawTls(TlsEnd& end) : end_(end), context_(SSL_CTX_new(TLS_method())) {
    SSL_CTX_set_custom_verify(context_.get(), SSL_VERIFY_PEER,
                              [](SSL*, uint8_t*) { return ssl_verify_ok; });
    SSL_CTX_enable_ocsp_stapling(context_.get());
    SSL_CTX_set_session_cache_mode(context_.get(), SSL_SESS_CACHE_CLIENT);
    SSL_CTX_set_app_data(context_.get(), this);
    SSL_CTX_sess_set_new_cb(context_.get(), [](SSL* of, SSL_SESSION* session) {
      auto* self = static_cast<RawTls*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(of)));
      self->session.reset(session);
      return 1;
    });
    ssl.reset(SSL_new(context_.get()));
    SSL_set_connect_state(ssl.get());
    SSL_set_tlsext_host_name(ssl.get(), "example.test");
    in_ = BIO_new(BIO_s_mem());
    out_ = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(in_, -1);
    SSL_set_bio(ssl.get(), in_, out_);
    end_.on_bytes = [this] { pump(); };
  }

  // Begins with `bytes` as early data, to be sent with take(), by a session of another one.
  void begin_early(SSL_SESSION* resumed, std::string_view bytes) {
    SSL_set_session(ssl.get(), resumed);
    SSL_set_early_data_enabled(ssl.get(), 1);
    REQUIRE(SSL_do_handshake(ssl.get()) == 1);
    REQUIRE(SSL_in_early_data(ssl.get()) == 1);
    REQUIRE(SSL_write(ssl.get(), bytes.data(), static_cast<int>(bytes.size())) ==
            static_cast<int>(bytes.size()));
    done = true;
  }
  // Goes on with the handshake or reads, and sends what comes of it.
  void pump() {
    BIO_write(in_, end_.text.data(), static_cast<int>(end_.text.size()));
    end_.text.clear();
    if (!done && SSL_do_handshake(ssl.get()) == 1) done = true;
    if (done) {
      char bytes[4096];
      int got = 0;
      while ((got = SSL_read(ssl.get(), bytes, sizeof bytes)) > 0) text.append(bytes, got);
      last_error = SSL_get_error(ssl.get(), got);
    }
    if (!done || !hold_back) flush();
  }
  void write(std::string_view bytes) {
    REQUIRE(SSL_write(ssl.get(), bytes.data(), static_cast<int>(bytes.size())) ==
            static_cast<int>(bytes.size()));
    flush();
  }
  // What would be sent next.
  std::string take() {
    const uint8_t* bytes = nullptr;
    size_t length = 0;
    BIO_mem_contents(out_, &bytes, &length);
    std::string taken(reinterpret_cast<const char*>(bytes), length);
    [[maybe_unused]] const int reset = BIO_reset(out_);
    return taken;
  }
  void flush() {
    const std::string bytes = take();
    if (!bytes.empty()) REQUIRE(end_.send(bytes));
  }

  bssl::UniquePtr<SSL> ssl;
  bssl::UniquePtr<SSL_SESSION> session;  // the newest that the server gave
  std::string text;
  bool done = false;
  bool hold_back = false;  // what is to be sent once the handshake is done: for take()
  int last_error = SSL_ERROR_NONE;

 private:
  TlsEnd& end_;
  bssl::UniquePtr<SSL_CTX> context_;
  BIO* in_ = nullptr;
  BIO* out_ = nullptr;
};

}  // namespace ringway
