// core/tls_session.h - one TLS connection: stands between a Socket and the owner of its Stream.
//
// Affinity:  one shard. Ownership: a slab object of the TlsShard from Stream::start_tls_*() until
//            on_closed(). Used through Stream; its facts may be read by anybody who has one.
// Bounds:    holds no buffer while idle; of a record that is not complete BoringSSL keeps what
// came,
//            up to 16 KiB. Bytes that nobody wanted yet: at most one turn's, in chunks of the
//            stream's pool.
// Why:       the owner sees plain bytes and the same calls and events as without TLS.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/chunks.h"
#include "core/io.h"
#include "core/tls_facts.h"
#include "core/tls_gate.h"

struct ssl_st;

namespace ringway {

class Stream;
class TlsClientContext;
class TlsServerContext;
class TlsShard;

class TlsSession final : public SocketOwner, public TlsWaiter {
 public:
  enum class Role : uint8_t { kServer, kClient };

  // Takes ownership of `ssl`. For Stream; everybody else reads facts only.
  TlsSession(TlsShard& shard, Stream& stream, ssl_st* ssl, Role role);
  ~TlsSession();

  // Facts. Text is valid as long as the session, and empty for what is not known (yet).
  [[nodiscard]] bool secured() const { return state_ == State::kOpen; }
  // The connection is up, and what TLS must settle is not.
  [[nodiscard]] bool in_handshake() const { return state_ == State::kHandshake; }
  [[nodiscard]] std::string_view version() const;  // "TLSv1.3"
  [[nodiscard]] std::string_view cipher() const;   // "TLS_AES_128_GCM_SHA256"
  [[nodiscard]] std::string_view alpn() const;
  // The name the client asked for (SNI), as it sent it.
  [[nodiscard]] std::string_view server_name() const;
  [[nodiscard]] bool resumed() const;
  // The client's name came encrypted (ECH): server_name() is the one inside.
  [[nodiscard]] bool ech() const;
  // The client's last flight is not here yet: what on_receive() brings is early data (RFC
  // 8446 2.3), which anybody who has seen it may have sent again. Until on_confirmed().
  [[nodiscard]] bool early() const { return early_; }
  [[nodiscard]] const TlsFailure& failure() const { return failure_; }
  // What was found about the peer's certificate. For a client of an optional certificate anything
  // but kOk means that nothing below can be trusted.
  [[nodiscard]] TlsVerdict verdict() const { return verdict_; }
  // The peer's certificate. False if there is none. Allocates.
  [[nodiscard]] bool peer(TlsPeer& out) const;
  // Nothing that is TLS came from the peer yet.
  [[nodiscard]] bool version_unknown() const;

  // Events of the socket.
  void on_connected(Socket& socket, int error) override;
  void on_receive(Socket& socket, std::span<const std::byte> bytes) override;
  void on_receive_end(Socket& socket, int error) override;
  void on_reset(Socket& socket, int error) override;
  void on_writable(Socket& socket) override;
  void on_closed(Socket& socket) override;

 private:
  friend class Stream;
  friend class TlsClientContext;
  friend class TlsServerContext;
  friend class TlsShard;

  enum class State : uint8_t { kConnecting, kHandshake, kOpen, kFailed };
  // While the handshake lasts.
  struct Handshake {
    TlsServerContext* server = nullptr;
    TlsClientContext* client = nullptr;
    std::string verify_name;
    std::string preface;  // to be sent in clear, first
  };

  // Small records until kWarmBytes were sent, so that the peer can use what a lost or late packet
  // does not hold up; again after kIdleUs without a write, when the congestion window has shrunk.
  static constexpr uint32_t kSmallRecord = 1300;
  static constexpr uint32_t kLargeRecord = 16 * 1024;
  static constexpr uint32_t kWarmBytes = 32 * 1024;
  static constexpr int64_t kIdleUs = 1'000'000;

  // For Stream.
  [[nodiscard]] bool write(std::span<const iovec> pieces);
  void set_receiving(bool on);
  void send_close_notify();
  // The stream is being closed or aborted: no more events but on_closed().
  void leave();
  [[nodiscard]] bool something_waits() const { return waits_for_owner() || pending_end_ >= 0; }

  // For TlsShard.
  void on_admitted();
  void continue_input();
  [[nodiscard]] Stream& stream() { return stream_; }
  // Sends what the shard's scratch has for this session.
  void send_scratch();
  void send_now(std::span<const std::byte> bytes);

  [[nodiscard]] bool alive() const;
  [[nodiscard]] bool can_take() const;
  [[nodiscard]] bool waits_for_owner() const { return unread_ || !held_.empty(); }
  size_t feed(std::span<const std::byte> bytes);
  void hold(std::span<const std::byte> bytes);
  void handshake();
  void finish_handshake();
  void complete_handshake();
  [[nodiscard]] bool early_data_ended(std::byte* room);
  [[nodiscard]] bool hand_over_early(std::span<const std::byte> early);
  [[nodiscard]] bool reverify();
  void read_plain();
  void deliver_tickets();
  // Tells the owner that nothing more comes, now or once it wants to hear it.
  void end_input(int error);
  void fail(TlsFailure failure, int error);
  void count_failure();
  void update_receiving();
  void end_handshake();
  [[nodiscard]] bool seal(const void* bytes, size_t length);
  [[nodiscard]] bool seal_all(std::span<const iovec> pieces, size_t record);
  size_t record_size();

  TlsShard& shard_;
  Stream& stream_;
  SocketOwner* upper_;
  ssl_st* ssl_;
  std::unique_ptr<Handshake> handshake_;
  OutQueue held_;     // received, not yet read by BoringSSL
  TlsTicket ticket_;  // on its way to the owner
  int64_t last_write_us_ = 0;
  uint32_t records_ = 0;     // sent with the present key, about
  uint32_t warm_bytes_ = 0;  // sent since it was idle, up to kWarmBytes
  int pending_end_ = -1;     // to be told once the owner wants to hear it
  TlsFailure failure_;
  TlsVerdict verdict_ = TlsVerdict::kNone;
  State state_ = State::kHandshake;
  Role role_;
  bool admitted_ = false;      // through the gate
  bool gated_ = false;         // stands in its queue
  bool upper_wants_;           // bytes
  bool raw_on_;                // the socket's receiving
  bool upper_writes_ = false;  // the owner waits for on_writable()
  bool ended_ = false;         // the owner knows that nothing more comes
  bool left_ = false;          // the stream is closing
  bool fin_ends_ = false;      // a FIN without close_notify is an end like any other
  bool close_sent_ = false;
  bool hello_seen_ = false;  // the client's, whole
  bool early_ = false;
  bool unread_ = false;         // BoringSSL has plain bytes that the owner did not want
  bool early_offered_ = false;  // the client's hello came with early data
};

}  // namespace ringway
