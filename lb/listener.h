// lb/listener.h - one listening socket of one shard, and what its clients need to know of it.
//
// Affinity:  one shard. Ownership: owned by the Worker; lives on as "retired" until its last client
//            is gone.
#pragma once

#include <memory>
#include <string>

#include "core/io.h"
#include "lb/snapshot.h"

namespace ringway {

class TlsServerContext;
class Worker;

// A listening descriptor that the control thread opened for one shard.
struct ListenFd {
  uint32_t id = 0;        // of the bind address; the same on all shards and over reloads
  uint32_t listener = 0;  // index into Config::listeners
  int fd = -1;            // -1: this shard has it already, or another shard accepts for it
};

class ShardListener final : public AcceptOwner {
 public:
  ShardListener(Worker& worker, uint32_t id, int fd) : worker_(worker), id_(id), fd_(fd) {}

  void on_accepted(int fd, const PeerAddress& peer) override;

  // Takes over the definition of listener number `index`.
  void apply(std::shared_ptr<const Snapshot> snapshot, uint32_t index, uint32_t shard);

  [[nodiscard]] const config::Listener& config() const { return *config_; }
  [[nodiscard]] uint32_t index() const { return index_; }
  [[nodiscard]] uint32_t id() const { return id_; }
  [[nodiscard]] ListenerStats& stats() { return *stats_; }
  // Of its profile; null where it has none, or it could not be made.
  [[nodiscard]] TlsServerContext* tls() const { return tls_; }

  uint32_t users = 0;  // client connections
  bool retired = false;

 private:
  friend class Worker;

  Worker& worker_;
  uint32_t id_;
  int fd_;  // -1: nothing to accept on here
  uint32_t index_ = 0;
  std::shared_ptr<const Snapshot> snapshot_;  // keeps config_ alive
  const config::Listener* config_ = nullptr;
  std::shared_ptr<ListenerObject> object_;
  ListenerStats* stats_ = nullptr;
  TlsServerContext* tls_ = nullptr;
};

}  // namespace ringway
