// lb/client_conn.h - an HTTP client connection: reads heads, makes exchanges, writes answers.
//
// Affinity:  one shard. Ownership: a slab object of the Worker; frees itself once its socket is
//            closed. It owns its exchange.
// Bounds:    one exchange at a time; pipelined bytes up to kPipelineBytes, then reading pauses; a
//            partial head up to the listener's limit.
//            Of HTTP/2 (by ALPN, or by its preface in clear text) an Http2Client takes care, which
//            stands between this and its exchanges.
// Why:       small, since most clients are idle most of the time: no buffer, parser or exchange
// then.
#pragma once

#include <boost/intrusive/list.hpp>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "core/stream.h"
#include "core/timers.h"
#include "lb/client_identity.h"
#include "lb/listener.h"
#include "lb/proxy_gate.h"
#include "pool/session_store.h"
#include "proto/http1_head.h"
#include "proto/http2_session.h"

namespace ringway {

class Exchange;
class Http2Client;

struct ClientTag;
using ClientHook =
    boost::intrusive::list_base_hook<boost::intrusive::tag<ClientTag>,
                                     boost::intrusive::link_mode<boost::intrusive::safe_link>>;

class ClientConn final : public SocketOwner, public TimerOwner, public ClientHook {
 public:
  ClientConn(Worker& worker, ShardListener& listener, const PeerAddress& peer);
  ~ClientConn();

  // Takes `fd` and begins to read.
  void start(int fd);
  // The same where a PROXY header, if any, and the beginning of a TLS handshake, `bytes`, were read
  // already. Takes `origin`, which may be null.
  void go_on(int fd, ClientOrigin* origin, std::string_view bytes);
  // Ends the connection; an exchange under way is told that the client is gone.
  void close();
  // The shard drains: closes now if idle.
  void drain();

  // For the exchange.
  // Sends or queues; false when the client is gone (then close() has been called).
  bool write(std::span<const iovec> pieces);
  [[nodiscard]] size_t queued() const { return stream_.queued(); }
  [[nodiscard]] bool above_high_water() const { return stream_.above_high_water(); }
  // Offers bytes that wait, since the exchange can take some now.
  void resume_input();
  // The exchange is over, all of its answer sent. `keep_alive` false: close, lingering if the
  // client may still be sending.
  void on_exchange_done(bool keep_alive, bool linger);
  // A tunnel's server ended its side.
  void shutdown_send() { stream_.shutdown_send(); }
  // Cuts the connection so that the client notices a truncated answer.
  void abort();

  [[nodiscard]] ShardListener& listener() { return listener_; }
  [[nodiscard]] const PeerAddress& peer() const { return peer_; }
  [[nodiscard]] bool from_trusted_proxy() const { return trusted_; }
  // What is known of the client's connection; nullptr: nothing was asked for yet.
  [[nodiscard]] const ClientOrigin* known_origin() const { return origin_; }
  // The same, made if need be; nullptr: out of memory.
  [[nodiscard]] ClientOrigin* origin();
  [[nodiscard]] bool ended() const { return input_ended_; }
  // Requests so far, the current one included.
  [[nodiscard]] uint32_t requests() const { return requests_; }
  // The server connections that are this client's alone.
  SessionStore& private_conns() { return private_conns_; }

  // For Http2Client.
  // As write(), but false leaves it open: the caller closes it at the end of the turn.
  [[nodiscard]] bool send_frames(std::span<const iovec> pieces);
  void count_request() { ++requests_; }
  // Counts and logs a request that never became an exchange. `status` 0: it gets no answer.
  void note_refusal(uint16_t status, std::string_view cause, uint32_t offset);
  // What comes now is early data: its handshake is not over (RFC 8446 2.3).
  [[nodiscard]] bool in_early_data() const;
  // The peer broke the protocol, and the connection ends.
  void http2_failed(h2::ErrorCode code, h2::Flood flood, std::string_view cause);
  // It said nothing for too long, and the connection ends.
  void http2_silent(std::string_view cause);
  // All is said: closes, lingering.
  void end_http2();
  // The frames of the turn are out: what is waited for may have changed.
  void after_flush();

  // Speaks TLS. What there is to know about it, or null.
  [[nodiscard]] const TlsSession* tls() const { return stream_.tls(); }
  // What became of its certificate, and whom that names; null: it gave none.
  [[nodiscard]] TlsVerdict certificate() const;
  [[nodiscard]] const ClientIdentity* identity();

  void on_connected(Socket& socket, int error) override;
  void on_secured(Socket& socket) override;
  void on_confirmed(Socket& socket) override;
  void on_receive(Socket& socket, std::span<const std::byte> bytes) override;
  void on_receive_end(Socket& socket, int error) override;
  void on_reset(Socket& socket, int error) override;
  void on_writable(Socket& socket) override;
  void on_closed(Socket& socket) override;
  void on_timer(Timer& timer) override;

 private:
  static constexpr size_t kPipelineBytes = 64 * 1024;
  static constexpr int64_t kLingerMs = 2'000;
  static constexpr int64_t kGoawayMs = 1'000;

  // What the one deadline of a client connection currently means.
  enum class Wait : uint8_t {
    kNothing,
    kProxyHeader,
    kHandshake,
    kFirstHead,
    kHead,
    kKeepAlive,
    kBody,
    kFlush,
    kLinger,
    kGoaway  // the client's answer to the first one
  };

  void wait_for(Wait what, int64_t ms);
  void set_peer(const PeerAddress& peer);
  void begin(std::string_view bytes);
  // Looks for the PROXY header in `bytes`. True: that is settled, `used` grows by its length, and
  // what follows is HTTP. False: it is not, or the client was closed.
  bool read_proxy_header(std::string_view bytes, ProxyInput input, size_t& used);
  void refuse_proxy_header(ProxyError error);
  // Takes heads and bodies from `bytes`; returns how many were used.
  size_t consume(std::string_view bytes);
  // True if a whole head was taken; `used` grows by its length.
  bool read_head(std::string_view bytes, size_t& used);
  void handshake_failed(std::string_view cause);
  void handshake_done();
  // Bytes in clear text that may be HTTP/2's preface. True: it is settled what they are, and the
  // client is still there.
  [[nodiscard]] bool settle_version(std::string_view bytes);
  // False: the client was closed.
  bool begin_http2();
  void rearm_http2();
  void log_http2_end(h2::ErrorCode code, h2::Flood flood, std::string_view cause);
  void refuse_head();
  void refuse(uint16_t status, std::string_view cause, uint32_t offset);
  void begin_linger();
  void rearm();
  void close_when_flushed();
  void let_go();
  void update_receiving();
  void drop_parser();

  Worker& worker_;
  ShardListener& listener_;
  Exchange* exchange_ = nullptr;
  Http2Client* http2_ = nullptr;
  http1::HeadParser* parser_ = nullptr;  // while a head is being read
  ClientOrigin* origin_ = nullptr;
  Stream stream_;
  Timer timer_;
  InBuffer in_;  // bytes that could not be used yet
  PeerAddress peer_;
  SessionStore private_conns_;
  std::unique_ptr<ClientIdentity> identity_;  // once somebody has asked for it
  Wait wait_ = Wait::kNothing;
  bool trusted_ = false;
  bool awaits_proxy_ = false;  // whether there is a PROXY header is not settled
  bool consuming_ = false;     // inside consume(): what ends an exchange must not start another
  bool input_ended_ = false;   // FIN or error seen
  bool lingering_ = false;
  bool stalled_ = false;          // queued bytes wait for the client
  bool version_settled_ = false;  // HTTP/1 or HTTP/2
  uint32_t requests_ = 0;
  uint32_t early_left_ = 0;  // so many of the next bytes came as early data
  uint32_t idle_from_ = 0;   // HTTP/2: of requests_ when the time of idleness began to run
};

}  // namespace ringway
