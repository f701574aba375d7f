// tests/support/sim_tls.cc
#include "tests/support/sim_tls.h"

#include <openssl/err.h>
#include <sys/time.h>

#include <algorithm>

#include "core/base/check.h"
#include "core/tls_shard.h"
#include "proto/proxy_header.h"

namespace ringway {

namespace {

bssl::UniquePtr<SSL_CTX> make_context(const test::MadeCertificate* certificate) {
  bssl::UniquePtr<SSL_CTX> context(SSL_CTX_new(TLS_method()));
  // As the balancer: the simulation's time counts.
  SSL_CTX_set_current_time_cb(context.get(), [](const SSL*, timeval* out) {
    out->tv_sec = TlsShard::wall_seconds();
    out->tv_usec = 0;
  });
  SSL_CTX_set_mode(context.get(),
                   SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  if (certificate == nullptr) return context;
  RW_CHECK(SSL_CTX_use_certificate(context.get(), certificate->x509.get()) == 1);
  RW_CHECK(SSL_CTX_use_PrivateKey(context.get(), certificate->key.get()) == 1);
  return context;
}

std::string alpn_of(const SSL* ssl) {
  const uint8_t* bytes = nullptr;
  unsigned length = 0;
  SSL_get0_alpn_selected(ssl, &bytes, &length);
  return {reinterpret_cast<const char*>(bytes), length};
}

// A handshake message in one record -> in records of `bytes` bytes; what follows stays.
std::string in_records(const std::string& wire, size_t bytes) {
  RW_CHECK(wire.size() > 5);
  const auto at = [&](size_t i) { return static_cast<size_t>(static_cast<uint8_t>(wire[i])); };
  const size_t end = 5 + at(3) * 256 + at(4);
  std::string out;
  for (size_t from = 5; from < end; from += bytes) {
    const size_t part = std::min(bytes, end - from);
    out.append(wire, 0, 3);
    out += static_cast<char>(part >> 8);
    out += static_cast<char>(part);
    out.append(wire, from, part);
  }
  return out.append(wire, end);
}

}  // namespace

// ---- both ends

SimTlsCodec::SimTlsCodec(SSL_CTX* context) : ssl_(SSL_new(context)) {
  in_ = BIO_new(BIO_s_mem());
  out_ = BIO_new(BIO_s_mem());
  BIO_set_mem_eof_return(in_, -1);
  SSL_set_bio(ssl_.get(), in_, out_);
}

std::string SimTlsCodec::take() {
  const uint8_t* bytes = nullptr;
  size_t length = 0;
  BIO_mem_contents(out_, &bytes, &length);
  std::string taken(reinterpret_cast<const char*>(bytes), length);
  [[maybe_unused]] const int reset = BIO_reset(out_);
  return taken;
}

std::string SimTlsCodec::end() {
  if (done_ && !failed_) SSL_shutdown(ssl_.get());
  return take();
}

std::string SimTlsCodec::reason() {
  const char* text = ERR_reason_error_string(ERR_peek_error());
  std::string reason = text == nullptr ? "unknown" : text;
  ERR_clear_error();
  return reason;
}

// ---- client

SimTlsStore::SimTlsStore(const SimNet& its_net, const std::string& alpn,
                         const test::MadeCertificate* certificate)
    : net(its_net), context(make_context(certificate)) {
  SSL_CTX_set_custom_verify(context.get(), SSL_VERIFY_PEER,
                            [](SSL*, uint8_t*) { return ssl_verify_ok; });
  constexpr uint16_t kPrefs[] = {SSL_SIGN_ED25519, SSL_SIGN_RSA_PSS_RSAE_SHA256};
  SSL_CTX_set_verify_algorithm_prefs(context.get(), kPrefs, std::size(kPrefs));
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_set_app_data(context.get(), this);
  SSL_CTX_sess_set_new_cb(context.get(), [](SSL* ssl, SSL_SESSION* session) {
    auto* store = static_cast<SimTlsStore*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
    const char* name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    store->sessions[name == nullptr ? "" : name].reset(session);
    return 1;
  });
  if (alpn.empty()) return;
  const std::string list = static_cast<char>(alpn.size()) + alpn;
  SSL_CTX_set_alpn_protos(context.get(), reinterpret_cast<const uint8_t*>(list.data()),
                          static_cast<unsigned>(list.size()));
}

SimTlsClient::SimTlsClient(SimTlsStore& store, const SimTlsAsk& ask)
    : SimTlsCodec(store.context.get()), store_(store), ask_(ask), meeting_(store.meetings.size()) {
  store.meetings.push_back({.client = ask.client});
  SSL_set_connect_state(ssl_.get());
  if (!ask_.name.empty()) SSL_set_tlsext_host_name(ssl_.get(), ask_.name.c_str());
  SSL_set_early_data_enabled(ssl_.get(), ask_.early ? 1 : 0);
}

std::string SimTlsClient::begin() {
  const auto session = store_.sessions.find(ask_.name);
  if (ask_.resume && session != store_.sessions.end()) {
    SSL_set_session(ssl_.get(), session->second.get());
  }
  std::string plain;
  drive(plain);
  std::string hello = take();
  if (ask_.record > 0) hello = in_records(hello, ask_.record);
  if (ask_.hello_max == 0) return hello;
  failed_ = true;  // It says no more.
  return hello.substr(0, ask_.hello_max);
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
  meeting().failure = reason();
  return false;
}

void SimTlsClient::note_done() {
  if (done_ || SSL_in_init(ssl_.get()) == 1) return;
  done_ = true;
  meeting().done_us = store_.net.now_us();
  meeting().resumed = SSL_session_reused(ssl_.get()) == 1;
  meeting().alpn = alpn_of(ssl_.get());
  const STACK_OF(CRYPTO_BUFFER)* chain = SSL_get0_peer_certificates(ssl_.get());
  if (chain != nullptr && sk_CRYPTO_BUFFER_num(chain) > 0) {
    const CRYPTO_BUFFER* first = sk_CRYPTO_BUFFER_value(chain, 0);
    meeting().certificate.assign(reinterpret_cast<const char*>(CRYPTO_BUFFER_data(first)),
                                 CRYPTO_BUFFER_len(first));
  }
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

// ---- server

// Tickets say in clear whose they are, for which name, and how many there were before: so it is
// seen whether a client offers one elsewhere or again.
struct SimTlsServer::Tickets {
  static constexpr size_t kNameMax = 32;
  static constexpr size_t kHead = 16 + 1 + kNameMax;

  static SimTlsServer& of(SSL* ssl) { return *static_cast<SimTlsServer*>(SSL_get_app_data(ssl)); }

  static void put(uint8_t* out, uint64_t number) {
    for (int i = 0; i < 8; ++i) out[i] = static_cast<uint8_t>(number >> 8 * i);
  }
  static uint64_t get(const uint8_t* in) {
    uint64_t number = 0;
    for (int i = 0; i < 8; ++i) number |= static_cast<uint64_t>(in[i]) << 8 * i;
    return number;
  }

  static size_t overhead(SSL* /*ssl*/) { return kHead; }

  static int seal(SSL* ssl, uint8_t* out, size_t* out_len, size_t max_out_len, const uint8_t* in,
                  size_t in_len) {
    SimTlsServer& server = of(ssl);
    const char* asked = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    const std::string name = asked == nullptr ? "" : asked;
    RW_CHECK(name.size() <= kNameMax && max_out_len >= kHead + in_len);
    std::fill_n(out, kHead, uint8_t{0});
    put(out, server.store_.number);
    put(out + 8, server.store_.tickets++);
    out[16] = static_cast<uint8_t>(name.size());
    std::copy(name.begin(), name.end(), out + 17);
    std::copy_n(in, in_len, out + kHead);
    *out_len = kHead + in_len;
    return 1;
  }

  static ssl_ticket_aead_result_t open(SSL* ssl, uint8_t* out, size_t* out_len, size_t max_out_len,
                                       const uint8_t* in, size_t in_len) {
    SimTlsServer& server = of(ssl);
    SimTlsServerStore& store = server.store_;
    if (in_len < kHead || get(in) != store.number) {
      store.wrong = "a session of another server was offered";
      return ssl_ticket_aead_ignore_ticket;
    }
    if (++store.offers[get(in + 8)] > 1) store.wrong = "a ticket was offered twice";
    server.ticket_name_.assign(reinterpret_cast<const char*>(in) + 17, in[16]);
    RW_CHECK(in_len - kHead <= max_out_len);
    std::copy_n(in + kHead, in_len - kHead, out);
    *out_len = in_len - kHead;
    return ssl_ticket_aead_success;
  }

  static constexpr SSL_TICKET_AEAD_METHOD kMethod = {overhead, seal, open};
};

SimTlsServerStore::SimTlsServerStore(const test::MadeCertificate& certificate, bool speaks_http2,
                                     uint32_t which)
    : context(make_context(&certificate)), http2(speaks_http2), number(which) {
  SSL_CTX_set_app_data(context.get(), this);
  SSL_CTX_set_alpn_select_cb(
      context.get(),
      [](SSL* ssl, const uint8_t** out, uint8_t* out_len, const uint8_t* in, unsigned in_len,
         void*) {
        auto* store = static_cast<SimTlsServerStore*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
        const std::string_view offered(reinterpret_cast<const char*>(in), in_len);
        const size_t h2 = store->http2 ? offered.find("\2h2") : std::string_view::npos;
        const size_t found = h2 != std::string_view::npos ? h2 : offered.find("\10http/1.1");
        if (found == std::string_view::npos) return SSL_TLSEXT_ERR_NOACK;
        *out = in + found + 1;
        *out_len = in[found];
        return SSL_TLSEXT_ERR_OK;
      },
      nullptr);
}

SimTlsServer::SimTlsServer(SimTlsServerStore& store)
    : SimTlsCodec(store.context.get()), store_(store) {
  SSL_set_app_data(ssl_.get(), this);
  SSL_set_accept_state(ssl_.get());
  // Of the context, and the same for all: here, where the methods are known.
  SSL_CTX_set_ticket_aead_method(store.context.get(), &Tickets::kMethod);
}

std::string SimTlsServer::seal(std::string_view bytes) {
  pending_ += bytes;
  std::string plain;
  drive(plain);
  return take();
}

bool SimTlsServer::pass_header(std::string& plain) {
  if (begun_) return true;
  const proxy::Parsed parsed = proxy::parse(front_, 4096);
  if (parsed.status == proxy::Status::kNeedMore) return false;
  begun_ = true;
  if (parsed.status == proxy::Status::kDone) {
    plain.append(front_, 0, parsed.header.length);
    front_.erase(0, parsed.header.length);
  }
  return true;
}

std::string SimTlsServer::open(std::string_view wire, std::string& plain) {
  front_ += wire;
  if (!pass_header(plain)) return {};
  BIO_write(in_, front_.data(), static_cast<int>(front_.size()));
  front_.clear();
  drive(plain);
  return take();
}

void SimTlsServer::fail(int result) {
  const int error = SSL_get_error(ssl_.get(), result);
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_ZERO_RETURN) return;
  failed_ = true;
  const std::string text = reason();
  if (store_.failure.empty()) store_.failure = text;
}

void SimTlsServer::note_done() {
  done_ = true;
  ++store_.handshakes;
  const char* asked = SSL_get_servername(ssl_.get(), TLSEXT_NAMETYPE_host_name);
  name_ = asked == nullptr ? "" : asked;
  alpn_ = alpn_of(ssl_.get());
  if (SSL_session_reused(ssl_.get()) == 0) return;
  ++store_.resumed;
  if (ticket_name_ != name_) store_.wrong = "a session of another name was resumed";
}

void SimTlsServer::drive(std::string& plain) {
  if (failed_ || !begun_) return;
  if (!done_) {
    const int result = SSL_do_handshake(ssl_.get());
    if (result != 1) return fail(result);
    note_done();
  }
  while (!pending_.empty()) {
    const size_t part = std::min<size_t>(pending_.size(), 8192);
    const int written = SSL_write(ssl_.get(), pending_.data(), static_cast<int>(part));
    if (written <= 0) return fail(written);
    pending_.erase(0, static_cast<size_t>(written));
  }
  char bytes[8192];
  for (;;) {
    const int got = SSL_read(ssl_.get(), bytes, sizeof bytes);
    if (got <= 0) return fail(got);
    plain.append(bytes, static_cast<size_t>(got));
  }
}

}  // namespace ringway
