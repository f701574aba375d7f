// core/tls_shard.h - what the TLS sessions of one shard share: buffers, the gate, counters.
//
// Affinity:  one thread; counters and the histogram may be read by any.
// Ownership: owns the sessions' memory. Must outlive its contexts and streams.
// Bounds:    `sessions_max` sessions; 200 KiB of buffers, whatever the number of connections.
// Why:       an idle connection holds no buffer of ours: bytes are encrypted and decrypted in the
//            shard's, which stay in its cache. The BIO that BoringSSL talks to is one for all.
#pragma once

#include <array>
#include <boost/intrusive/list.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "core/base/slab.h"
#include "core/counters.h"
#include "core/histogram.h"
#include "core/tls_facts.h"
#include "core/tls_gate.h"

struct bio_st;
struct bio_method_st;

namespace ringway {

class TlsClientContext;
class TlsServerContext;
class TlsSession;

// Written by the shard, read by any thread.
struct TlsCounters {
  Counter server_full;  // handshakes with clients that were completed
  Counter server_resumed;
  Counter ech_accepted;    // of clients whose name came encrypted
  Counter early_accepted;  // clients whose early data was read
  Counter early_rejected;  // and those whose was not, and who sent it again
  Counter client_full;     // and with servers
  Counter client_resumed;
  // By TlsCause, where TLS ended a connection.
  std::array<Counter, static_cast<size_t>(TlsCause::kCount)> failures;
  std::array<Counter, static_cast<size_t>(TlsVerdict::kCount)> refused;  // of kVerify: why
  Counter waited;           // handshakes that had to wait at the gate
  Counter tickets_unknown;  // presented by clients, of a key that is not (or no longer) known
};

struct TlsShardOptions {
  size_t sessions_max = 1 << 20;
  TlsGateOptions gate;
  // TLS 1.3: so many records are sent with one key, then with the next (RFC 8446 5.5: 2^24.5).
  uint32_t records_per_key = 1 << 23;
};

class TlsShard {
 public:
  // `now_us`: the clock of the shard's Io.
  TlsShard(const TlsShardOptions& options, int64_t now_us);
  ~TlsShard();
  TlsShard(const TlsShard&) = delete;
  TlsShard& operator=(const TlsShard&) = delete;

  // The wall clock in Unix seconds, by which certificates and tickets are judged. Whoever owns the
  // shard keeps it up to date; until then it is 0.
  static void set_wall_seconds(int64_t seconds);
  [[nodiscard]] static int64_t wall_seconds();

  // How many handshakes with clients begin in a second; 0: as many as the turns allow.
  void set_handshake_rate(uint32_t per_second) { gate_.set_per_second(per_second); }

  // Once per turn, before Io::run_once(): begins handshakes that waited, and hands on bytes that
  // came while nobody wanted them.
  void run(int64_t now_us);
  // Milliseconds until run() has something to do: 0 is now, -1 for nothing.
  [[nodiscard]] int next_in_ms(int64_t now_us) const;

  [[nodiscard]] const TlsCounters& counters() const { return counters_; }
  // How long handshakes waited at the gate; one entry for each.
  [[nodiscard]] const LatencyHistogram& handshake_wait() const { return handshake_wait_; }
  [[nodiscard]] size_t sessions() const { return sessions_.in_use(); }
  [[nodiscard]] size_t handshakes_waiting() const { return gate_.waiting(); }

 private:
  friend class TlsSession;
  friend class TlsServerContext;
  friend class TlsClientContext;
  friend class Stream;

  // One on_receive() brings at most 64 KiB, and a record may have been begun before.
  static constexpr size_t kPlainBytes = 100 * 1024;
  static constexpr size_t kScratchBytes = 80 * 1024;
  static constexpr size_t kRecordBytes = 16 * 1024;
  static constexpr int kReadyPerTurn = 256;

  struct Bio;  // BoringSSL's end: reads from input_, writes into scratch_, both for current_
  using Ready = boost::intrusive::list<TlsWaiter, boost::intrusive::constant_time_size<false>>;

  // `session` works from now on: BoringSSL's callbacks are about it, and scratch_ is its.
  void enter(TlsSession& session);
  // Puts `bytes` as they are in front of what the session that was entered encrypts. REQUIRES:
  // nothing of it lies in the scratch.
  void add_clear(std::string_view bytes);
  // `session` wants to be looked at by run(). Idempotent.
  void make_ready(TlsSession& session);

  Slab<TlsSession> sessions_;
  uint32_t records_per_key_;
  TlsGate gate_;
  TlsCounters counters_;
  LatencyHistogram handshake_wait_;
  bio_method_st* method_ = nullptr;
  bio_st* bio_ = nullptr;
  std::unique_ptr<std::byte[]> plain_;    // decrypted
  std::unique_ptr<std::byte[]> staging_;  // small pieces on their way into one record
  std::unique_ptr<std::byte[]> scratch_;  // encrypted, of writer_
  size_t scratch_size_ = 0;
  std::span<const std::byte> input_;  // received by current_, not yet read
  TlsSession* current_ = nullptr;
  TlsSession* writer_ = nullptr;  // whose bytes scratch_ has; null: nobody's
  Ready ready_;                   // sessions that run() looks at
};

}  // namespace ringway
