// core/tls_session_write.cc - the sending half of a TLS session, and its facts.
#include <openssl/bytestring.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/base/check.h"
#include "core/stream.h"
#include "core/tls_session.h"
#include "core/tls_shard.h"
#include "core/tls_verify.h"

namespace ringway {

// As large as what follows may be.
size_t TlsSession::record_size() {
  const int64_t now_us = stream_.env_.io.now_us();
  if (now_us - last_write_us_ > kIdleUs) warm_bytes_ = 0;
  last_write_us_ = now_us;
  return warm_bytes_ < kWarmBytes ? kSmallRecord : kLargeRecord;
}

bool TlsSession::write(std::span<const iovec> pieces) {
  if (state_ != State::kOpen || close_sent_) {
    stream_.error_ = ENOTCONN;
    return false;
  }
  shard_.enter(*this);
  if (!seal_all(pieces, record_size())) {
    if (stream_.error_ == 0) stream_.error_ = kTlsFailed;
    return false;
  }
  send_scratch();
  if (stream_.error_ != 0) return false;
  upper_writes_ = upper_writes_ || stream_.queued() > 0;
  return true;
}

// Whole records are encrypted from where they lie; only what is smaller, and not the last, is
// copied together first.
bool TlsSession::seal_all(std::span<const iovec> pieces, size_t record) {
  std::byte* const staging = shard_.staging_.get();
  size_t staged = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const auto* at = static_cast<const std::byte*>(pieces[i].iov_base);
    size_t left = pieces[i].iov_len;
    while (left > 0) {
      const bool last = i + 1 == pieces.size();
      if (staged == 0 && (last || left >= record)) {
        const size_t whole = last ? left : left - left % record;
        if (!seal(at, whole)) return false;
        at += whole;
        left -= whole;
        continue;
      }
      const size_t part = std::min(left, record - staged);
      std::memcpy(staging + staged, at, part);
      staged += part;
      at += part;
      left -= part;
      if (staged < record) continue;
      if (!seal(staging, staged)) return false;
      staged = 0;
    }
  }
  return staged == 0 || seal(staging, staged);
}

bool TlsSession::seal(const void* bytes, size_t length) {
  const auto* at = static_cast<const std::byte*>(bytes);
  while (length > 0) {
    // The BIO takes everything, so a record is never left half written.
    const bool warm = warm_bytes_ >= kWarmBytes;
    const size_t part = std::min<size_t>(length, warm ? 1 << 20 : kWarmBytes - warm_bytes_);
    const uint32_t record = warm ? kLargeRecord : kSmallRecord;
    SSL_set_max_send_fragment(ssl_, record);
    records_ += static_cast<uint32_t>(part / record + 1);
    if (records_ > shard_.records_per_key_ && !early_) {
      records_ = 0;
      // It goes out before what follows. TLS 1.2 knows no such thing: an error without effect.
      SSL_key_update(ssl_, SSL_KEY_UPDATE_NOT_REQUESTED);
    }
    if (!warm) warm_bytes_ += static_cast<uint32_t>(part);
    const int sealed = SSL_write(ssl_, at, static_cast<int>(part));
    if (sealed != static_cast<int>(part)) return false;
    at += part;
    length -= part;
  }
  return true;
}

void TlsSession::send_scratch() {
  if (shard_.writer_ != this) return;
  const size_t size = std::exchange(shard_.scratch_size_, 0);
  if (size > 0) send_now({shard_.scratch_.get(), size});
}

// An error stays in the stream: the next write or event shows it.
void TlsSession::send_now(std::span<const std::byte> bytes) {
  if (left_ || !stream_.open() || stream_.fin_wanted_) return;
  const iovec piece{const_cast<std::byte*>(bytes.data()), bytes.size()};
  [[maybe_unused]] const bool sent = stream_.send({&piece, 1});
}

void TlsSession::send_close_notify() {
  // BoringSSL has none before the client's last flight.
  if (state_ != State::kOpen || early_ || close_sent_ || stream_.error_ != 0) return;
  close_sent_ = true;
  shard_.enter(*this);
  SSL_shutdown(ssl_);
  send_scratch();
}

std::string_view TlsSession::version() const {
  return secured() ? SSL_get_version(ssl_) : "";
}

std::string_view TlsSession::cipher() const {
  const SSL_CIPHER* cipher = SSL_get_current_cipher(ssl_);
  return cipher == nullptr ? "" : SSL_CIPHER_standard_name(cipher);
}

std::string_view TlsSession::alpn() const {
  const uint8_t* name = nullptr;
  unsigned length = 0;
  SSL_get0_alpn_selected(ssl_, &name, &length);
  return {reinterpret_cast<const char*>(name), length};
}

std::string_view TlsSession::server_name() const {
  const char* name = SSL_get_servername(ssl_, TLSEXT_NAMETYPE_host_name);
  return name == nullptr ? "" : name;
}

bool TlsSession::version_unknown() const {
  if (role_ == Role::kServer) return !hello_seen_;
  return SSL_get_pending_cipher(ssl_) == nullptr;
}

bool TlsSession::resumed() const {
  return secured() && SSL_session_reused(ssl_) == 1;
}

bool TlsSession::ech() const {
  return SSL_ech_accepted(ssl_) == 1;
}

bool TlsSession::peer(TlsPeer& out) const {
  const STACK_OF(CRYPTO_BUFFER)* chain = SSL_get0_peer_certificates(ssl_);
  if (chain == nullptr || sk_CRYPTO_BUFFER_num(chain) == 0) return false;
  return describe_certificate(sk_CRYPTO_BUFFER_value(chain, 0), out);
}

}  // namespace ringway
