// lb/l4_session.h - layer 4: accepts clients and relays bytes to one of an upstream's servers.
//
// Affinity:  one shard. Ownership: L4Listener owns its sessions; a session lives until both of its
//            sockets are closed.
// Bounds:    a direction that cannot be written holds at most one read of 64 KiB times the reads
// per
//            turn, since the other side stops being read as soon as anything waits.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/address.h"
#include "core/io.h"

namespace ringway {

struct L4Counters {
  uint64_t accepted = 0;
  uint64_t refused = 0;  // no server could be connected to
  uint64_t bytes = 0;    // relayed, both directions
};

class L4Session;

class L4Listener final : public AcceptOwner {
 public:
  // `servers` must not be empty; they are tried round robin, each once per client.
  L4Listener(Io& io, int fd, std::vector<ServerAddress> servers);
  ~L4Listener();

  void on_accepted(int fd, const PeerAddress& peer) override;
  // Closes all sessions; run turns until live() is 0 before destroying.
  void close_all();
  [[nodiscard]] size_t live() const { return sessions_.size(); }
  [[nodiscard]] const L4Counters& counters() const { return counters_; }

 private:
  friend class L4Session;

  Io& io_;
  std::vector<ServerAddress> servers_;
  size_t next_server_ = 0;
  std::unordered_map<L4Session*, std::unique_ptr<L4Session>> sessions_;
  L4Counters counters_;
};

}  // namespace ringway
