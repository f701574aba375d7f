// lb/shard.h - one pinned thread: an Io, a Worker, a mailbox, the main loop.
//
// Affinity:  made, started and joined by the control thread; run() is the shard's thread. The other
//            members say who may call them.
// Ownership: the Io and the Worker live and die on the shard's own thread (a ring belongs to the
//            thread that made it).
// Bounds:    the mailbox; a full one is reported to the sender.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/engines.h"
#include "core/mailbox.h"
#include "lb/worker.h"

namespace ringway {

// What control posts to shards, and shards to each other.
enum class Mail : uint32_t {
  kApply = 1,   // a: ShardOrder*, the shard's to free
  kHealth = 2,  // verdicts changed
  kAdopt = 3,   // small: listener id; a, b, c: descriptor and PeerAddress, packed
  kDrain = 4,
  kStop = 5,
  kServer = 6,    // small: ShardMail::Kind; a: its object
  kControls = 7,  // an administrator changed a server; acknowledged by controlled()
  kReport = 8,    // a: PoolOrder*, control's; to be filled
  kTls = 9        // a: std::shared_ptr<const TlsMaterials>*, the shard's to free
};

// One configuration for one shard.
struct ShardOrder {
  std::shared_ptr<const Snapshot> snapshot;
  std::vector<ListenFd> fds;
  LogRing* access_log = nullptr;  // null: off
};

class ShardSet;

class Shard final : public WakeOwner {
 public:
  Shard(ShardSet& set, uint32_t index);
  ~Shard();

  // Control: starts the thread, pinned to `cpu` (-1: not pinned), and waits until its engine runs.
  // Returns "" or why it could not.
  [[nodiscard]] std::string start(const EngineOptions& engine, const WorkerOptions& options,
                                  int cpu);
  // Control: ends the thread. REQUIRES: all shards are stopped(), so that none posts to this one.
  void join();

  // Any thread. False: the mailbox is full.
  [[nodiscard]] bool post(const Message& message);

  // Any thread. How many configurations this shard has taken over.
  [[nodiscard]] uint64_t applied() const { return applied_.load(std::memory_order_acquire); }
  // Any thread. How many Mail::kControls this shard has acted upon.
  [[nodiscard]] uint64_t controlled() const { return controlled_.load(std::memory_order_acquire); }
  // Any thread. It drains and no client is left.
  [[nodiscard]] bool quiet() const { return quiet_.load(std::memory_order_acquire); }
  [[nodiscard]] bool stopped() const { return stopped_.load(std::memory_order_acquire); }
  // Control: the CPU it is pinned to, or -1.
  [[nodiscard]] int cpu() const { return cpu_; }
  // Control, while the shard runs: "io_uring" or "epoll", why not io_uring, and its counters.
  [[nodiscard]] const char* engine_name() const { return engine_name_; }
  [[nodiscard]] const std::string& engine_reason() const { return engine_reason_; }
  [[nodiscard]] const EngineCounters* engine_counters() const { return engine_counters_; }
  // Control, while the shard runs: its TLS counters.
  [[nodiscard]] const TlsShard* tls() const { return tls_; }

  void on_wake() override;
  void on_pause() override { worker_->flush_output(); }

 private:
  void run(EngineOptions engine, WorkerOptions options, int cpu);
  void loop(Io& io);
  void take(const Message& message);

  ShardSet& set_;
  uint32_t index_;
  Mailbox mailbox_;
  std::thread thread_;
  int cpu_ = -1;
  std::unique_ptr<Worker> worker_;  // the shard's thread only
  Io* io_ = nullptr;                // set before start() returns; wake() only for others
  const char* engine_name_ = "";
  std::string engine_reason_;
  const EngineCounters* engine_counters_ = nullptr;
  const TlsShard* tls_ = nullptr;
  std::atomic<int> started_{0};  // 1: runs, -1: failed
  std::atomic<uint64_t> applied_{0};
  std::atomic<uint64_t> controlled_{0};
  std::atomic<bool> quiet_{false};
  std::atomic<bool> stopped_{false};
  std::atomic<bool> io_gone_{false};
  bool stopping_ = false;
};

// All shards of the process, and how they hand connections to each other.
class ShardSet final : public Peers, public BudgetPeers {
 public:
  explicit ShardSet(uint32_t count);
  ~ShardSet();

  // Who is woken when a shard has acted on a message that control waits for. Before any shard is
  // started; outlives the shards' threads.
  void set_control(Io& io) { control_ = &io; }
  // Shards.
  void wake_control() {
    if (control_ != nullptr) control_->wake();
  }

  bool hand_over(uint32_t to, uint32_t listener_id, int fd, const PeerAddress& peer) override;

  bool tell(uint32_t to, const ShardMail& mail) override;
  // For the control thread, which may wait for room in a mailbox.
  void ask_return(Budget& budget, uint32_t shard) override;
  void notify(Budget& budget, uint32_t shard) override;

  [[nodiscard]] uint32_t count() const { return static_cast<uint32_t>(shards_.size()); }
  [[nodiscard]] Shard& at(uint32_t index) { return *shards_[index]; }
  [[nodiscard]] std::span<ShardLoad> loads() { return loads_; }

 private:
  Io* control_ = nullptr;
  std::vector<ShardLoad> loads_;
  std::vector<std::unique_ptr<Shard>> shards_;
};

}  // namespace ringway
