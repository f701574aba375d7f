// bench/load/tls_client.h - the client's side of TLS 1.3 over non-blocking sockets.
//
// Affinity:  one thread. Ownership: a TlsClient outlives its sessions.
// Why:       whole handshakes are measured too, full and resumed, which wrk cannot choose.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <span>
#include <string_view>

struct ssl_ctx_st;
struct ssl_session_st;
struct ssl_st;

namespace ringway::bench {

class TlsClient {
 public:
  // `resume`: each session resumes one that a server has given before, if there is any.
  explicit TlsClient(bool resume);
  ~TlsClient();
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  // For a socket that is connected or connecting; close() frees it. Certificates are not verified.
  [[nodiscard]] ssl_st* open(int fd);
  // Sends a close_notify. The socket stays open.
  void close(ssl_st* tls);
  [[nodiscard]] static bool resumed(const ssl_st* tls);

  // As send(2) and recv(2), and make the handshake on the way. -1 with EAGAIN: the socket takes or
  // has no more; with EINPROGRESS, of send(): the peer has to say something first.
  [[nodiscard]] static ssize_t send(ssl_st* tls, std::string_view bytes);
  [[nodiscard]] static ssize_t receive(ssl_st* tls, std::span<char> room);

 private:
  static int on_session(ssl_st* tls, ssl_session_st* session);

  ssl_ctx_st* context_;
  ssl_session_st* session_ = nullptr;  // the newest
  bool resume_;
};

}  // namespace ringway::bench
