// lb/shard.cc
#include "lb/shard.h"

#include <string.h>

#include "core/base/check.h"
#include "core/cpus.h"

namespace ringway {
namespace {

constexpr size_t kMailboxMessages = 4096;
// The longest sleep of a shard: a bound on how late a lost wake-up could be noticed.
constexpr int kSleepMsMax = 1000;

// A PeerAddress and a descriptor in the three words of a message.
struct Packed {
  int32_t fd = -1;
  PeerAddress peer;
};
static_assert(sizeof(Packed) <= 3 * sizeof(uint64_t));
static_assert(std::is_trivially_copyable_v<Packed>);

Packed unpack(const Message& message) {
  const uint64_t words[3] = {message.a, message.b, message.c};
  Packed packed;
  memcpy(&packed, words, sizeof packed);
  return packed;
}

// The Io of the shard whose thread this is; null in other threads. They have no ring to ring with.
// NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables): one per thread
thread_local Io* t_own_io = nullptr;

// The object whose address travelled in a word of a message.
template <typename T>
T* pointer_in(uint64_t word) {
  // NOLINTNEXTLINE(performance-no-int-to-ptr): messages of every kind have the same three words
  return reinterpret_cast<T*>(static_cast<uintptr_t>(word));
}

}  // namespace

Shard::Shard(ShardSet& set, uint32_t index)
    : set_(set), index_(index), mailbox_(kMailboxMessages) {}

Shard::~Shard() {
  RW_CHECK(!thread_.joinable());
}

std::string Shard::start(const EngineOptions& engine, const WorkerOptions& options, int cpu) {
  cpu_ = cpu;
  thread_ = std::thread([this, engine, options, cpu] { run(engine, options, cpu); });
  started_.wait(0, std::memory_order_acquire);
  if (started_.load(std::memory_order_acquire) > 0) return "";
  thread_.join();
  return engine_reason_.empty() ? "the engine did not start" : engine_reason_;
}

void Shard::join() {
  if (!thread_.joinable()) return;
  io_gone_.store(true, std::memory_order_release);
  io_gone_.notify_one();
  thread_.join();
  // What nobody took any more: descriptors and certificates on their way here.
  for (Message message; mailbox_.take(message);) {
    if (static_cast<Mail>(message.kind) == Mail::kAdopt) ::close(unpack(message).fd);
    if (static_cast<Mail>(message.kind) == Mail::kTls) {
      delete pointer_in<std::shared_ptr<const TlsMaterials>>(message.a);
    }
    if (static_cast<Mail>(message.kind) != Mail::kServer) continue;
    const int fd = Worker::drop({.kind = static_cast<ShardMail::Kind>(message.small),
                                 .object = pointer_in<void>(message.a)});
    if (fd >= 0) ::close(fd);
  }
}

bool Shard::post(const Message& message) {
  if (!mailbox_.post(message)) return false;
  // Among shards the sender's engine may ring with its next enter, without a call of its own.
  if (t_own_io != nullptr) {
    t_own_io->wake_other(*io_);
  } else {
    io_->wake();
  }
  return true;
}

void Shard::run(EngineOptions engine, WorkerOptions options, int cpu) {
  char name[16];
  snprintf(name, sizeof name, "shard-%u", index_);
  pthread_setname_np(pthread_self(), name);
  if (cpu >= 0 && pin_this_thread(cpu) != 0) {
    engine_reason_ = "cannot pin to CPU " + std::to_string(cpu);
  }
  EngineResult made = make_engine(engine);
  if (!made.reason.empty()) {
    engine_reason_ += (engine_reason_.empty() ? "" : "; ") + made.reason;
  }
  if (made.io == nullptr) {
    started_.store(-1, std::memory_order_release);
    started_.notify_one();
    return;
  }
  io_ = made.io.get();
  engine_name_ = io_->name();
  engine_counters_ = &io_->counters();
  io_->set_wake_owner(*this);
  worker_ = std::make_unique<Worker>(*io_, options);
  tls_ = &worker_->tls();
  started_.store(1, std::memory_order_release);
  started_.notify_one();
  t_own_io = io_;
  loop(*io_);
  io_->run_once(0);  // Doorbells of the last turn go out.
  t_own_io = nullptr;
  worker_.reset();
  stopped_.store(true, std::memory_order_release);
  // Others may still ring the doorbell; the Io goes when nobody can any more (join).
  io_gone_.wait(false, std::memory_order_acquire);
}

void Shard::loop(Io& io) {
  int64_t next_ms = 0;
  for (;;) {
    const int timeout =
        next_ms < 0 || next_ms > kSleepMsMax ? kSleepMsMax : static_cast<int>(next_ms);
    io.run_once(timeout);
    next_ms = worker_->after_turn();
    if (worker_->draining()) quiet_.store(worker_->quiet(), std::memory_order_release);
    if (stopping_ && worker_->finished()) return;
  }
}

void Shard::on_wake() {
  Message message;
  // Bounded by the mailbox: what is posted meanwhile rings again.
  for (size_t i = 0; i < kMailboxMessages && mailbox_.take(message); ++i) take(message);
}

void Shard::take(const Message& message) {
  switch (static_cast<Mail>(message.kind)) {
    case Mail::kApply: {
      const std::unique_ptr<ShardOrder> order(pointer_in<ShardOrder>(message.a));
      worker_->apply(order->snapshot, order->fds, order->access_log);
      applied_.fetch_add(1, std::memory_order_release);
      return set_.wake_control();
    }
    case Mail::kHealth: return worker_->refresh_health();
    case Mail::kAdopt: {
      const Packed packed = unpack(message);
      return worker_->adopt(message.small, packed.fd, packed.peer);
    }
    case Mail::kServer:
      return worker_->take_mail({.kind = static_cast<ShardMail::Kind>(message.small),
                                 .object = pointer_in<void>(message.a)});
    case Mail::kDrain: return worker_->drain();
    case Mail::kStop:
      worker_->stop();
      stopping_ = true;
      return;
    case Mail::kControls:
      worker_->refresh_health();
      controlled_.fetch_add(1, std::memory_order_release);
      return set_.wake_control();
    case Mail::kTls: {
      const std::unique_ptr<std::shared_ptr<const TlsMaterials>> materials(
          pointer_in<std::shared_ptr<const TlsMaterials>>(message.a));
      return worker_->refresh_tls(**materials);
    }
    case Mail::kReport: {
      auto* order = pointer_in<PoolOrder>(message.a);
      worker_->report(*order);
      order->done.store(true, std::memory_order_release);  // It is control's again.
      return set_.wake_control();
    }
  }
}

ShardSet::ShardSet(uint32_t count) : loads_(count) {
  RW_CHECK(count > 0);
  for (uint32_t i = 0; i < count; ++i) shards_.push_back(std::make_unique<Shard>(*this, i));
}

ShardSet::~ShardSet() {
  for (auto& shard : shards_) shard->join();
}

bool ShardSet::hand_over(uint32_t to, uint32_t listener_id, int fd, const PeerAddress& peer) {
  const Packed packed{.fd = fd, .peer = peer};
  uint64_t words[3] = {};
  memcpy(words, &packed, sizeof packed);
  return shards_[to]->post({.kind = static_cast<uint32_t>(Mail::kAdopt),
                            .small = listener_id,
                            .a = words[0],
                            .b = words[1],
                            .c = words[2]});
}

bool ShardSet::tell(uint32_t to, const ShardMail& mail) {
  return shards_[to]->post({.kind = static_cast<uint32_t>(Mail::kServer),
                            .small = static_cast<uint32_t>(mail.kind),
                            .a = reinterpret_cast<uintptr_t>(mail.object)});
}

void ShardSet::ask_return(Budget& budget, uint32_t shard) {
  while (!tell(shard, {.kind = ShardMail::Kind::kAskReturn, .object = &budget})) usleep(1000);
}

void ShardSet::notify(Budget& budget, uint32_t shard) {
  while (!tell(shard, {.kind = ShardMail::Kind::kNotify, .object = &budget})) usleep(1000);
}

}  // namespace ringway
