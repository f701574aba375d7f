// core/stream.h - one connected byte stream: send now, queue the rest, half-close, close.
//
// Affinity:  the thread of its Io. Ownership: embedded in its owner; see core/io.h for lifetime.
// Bounds:    the queue is as long as its producer lets it become: producers stop above
//            kHighWaterBytes and go on below kLowWaterBytes.
// Why:       clients, servers and layer 4 need exactly the same, plain or with TLS. With TLS bytes
//            written and received are plain ones, and queued() counts encrypted ones.
#pragma once

#include <span>

#include "core/chunks.h"
#include "core/io.h"
#include "core/tls_facts.h"

namespace ringway {

class TlsClientContext;
class TlsServerContext;
class TlsSession;
class TlsShard;
struct TlsClientParams;

// What a stream needs of its shard.
struct StreamEnv {
  Io& io;
  ChunkPool& chunks;
  TlsShard* tls = nullptr;  // null: no stream speaks TLS
};

class Stream {
 public:
  static constexpr size_t kHighWaterBytes = 64 * 1024;
  static constexpr size_t kLowWaterBytes = 16 * 1024;

  Stream(SocketOwner& owner, StreamEnv& env) : env_(env), socket_(owner) {}
  ~Stream() = default;
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  void adopt(int fd) { env_.io.adopt(socket_, fd); }
  // As Io::connect().
  [[nodiscard]] int connect(const ServerAddress& address, const LocalEnd& local = {}) {
    return env_.io.connect(socket_, address, local);
  }
  [[nodiscard]] LocalPart local_failure() const { return socket_.local_failure(); }

  // Speaks TLS from the first byte on, as the side that was connected to. The owner hears
  // on_secured(), or on_receive_end() with an error (also while not receiving); until then nothing
  // can be written. With early data (TlsServerOptions) on_secured() comes before the client's last
  // flight, and on_confirmed() after it. False: the shard has no room for it, and the stream is
  // still plain. REQUIRES: right after adopt().
  [[nodiscard]] bool start_tls_server(TlsServerContext& context);
  // Bytes that the owner got as plain ones and that belong to the TLS handshake that it has just
  // begun: behind a PROXY header, say. Its events may come inside this call.
  void feed(std::span<const std::byte> bytes) { socket_.owner().on_receive(socket_, bytes); }
  // Speaks TLS as the side that connects: on_connected(0) comes once the server is verified, or
  // on_connected(kTlsFailed). `params` is copied. False as above. REQUIRES: right after connect().
  [[nodiscard]] bool start_tls_client(TlsClientContext& context, const TlsClientParams& params);
  // What there is to know about TLS, until on_closed(); null for a plain stream.
  [[nodiscard]] const TlsSession* tls() const { return tls_; }

  // Sends `pieces`, queueing what the kernel does not take now. False: the stream is broken
  // (error() says how) and only close() or abort() make sense. REQUIRES: open, no shutdown_send()
  // before.
  [[nodiscard]] bool write(std::span<const iovec> pieces);
  // The owner's on_writable(): sends what was queued. False as above.
  [[nodiscard]] bool flush();

  // FIN, after what is queued; with TLS a close_notify before it.
  void shutdown_send();
  // Ends the stream and drops what is queued; with TLS, and nothing queued, a close_notify tells
  // the peer that the end is no accident; abort() never sends one. on_closed() follows, unless it
  // is not open.
  void close();
  void abort();
  // Takes the socket out; on_detached() follows. See Io::detach(). REQUIRES: can_detach().
  void detach();
  // TLS stays with its shard.
  [[nodiscard]] bool can_detach() const { return tls_ == nullptr; }

  void set_receiving(bool on);
  // See Io::something_waits(). REQUIRES: open.
  [[nodiscard]] bool something_waits() const;
  // As Io::expect_nothing().
  void expect_nothing() {
    if (open()) env_.io.expect_nothing(socket_);
  }
  [[nodiscard]] StreamEnv& env() { return env_; }
  [[nodiscard]] bool receiving() const { return receiving_; }
  [[nodiscard]] size_t queued() const { return out_.bytes(); }
  [[nodiscard]] bool above_high_water() const { return out_.bytes() >= kHighWaterBytes; }
  [[nodiscard]] bool open() const { return socket_.open() && !closing_; }
  [[nodiscard]] bool attached() const { return socket_.open(); }
  [[nodiscard]] int error() const { return error_; }
  [[nodiscard]] int fd() const { return socket_.fd(); }

 private:
  friend class TlsSession;

  [[nodiscard]] bool send(std::span<const iovec> pieces);
  void want_writable();

  StreamEnv& env_;
  Socket socket_;
  TlsSession* tls_ = nullptr;
  OutQueue out_;
  int error_ = 0;  // errno of a failed send, ENOBUFS for an exhausted pool, or of TLS
  bool receiving_ = false;
  bool closing_ = false;
  bool waiting_writable_ = false;
  bool fin_wanted_ = false;
};

}  // namespace ringway
