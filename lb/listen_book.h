// lb/listen_book.h - the listening sockets of the process: who binds what, kept over reloads.
//
// Affinity:  control thread. Ownership: descriptors are the shards' once handed out in an order;
//            those of a failed or unused order are closed here.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lb/config/config.h"
#include "lb/listener.h"

namespace ringway {

class ListenBook {
 public:
  explicit ListenBook(uint32_t shards) : shards_(shards) {}

  // One order per shard, all of them or none. On failure `error` names listener, address, position
  // and errno, and nothing has changed. Call commit() once the orders are given out.
  [[nodiscard]] std::vector<std::vector<ListenFd>> prepare(const config::Config& config,
                                                           std::string& error);
  // The orders of the last prepare() are in force; addresses that they do not name are forgotten.
  void commit() { known_ = std::move(next_); }

  struct Bound {
    uint32_t id = 0;
    std::string address;  // with the real port, where the configuration says 0
    bool fresh = true;    // the configuration before this one did not name it
  };
  // What each bind text of the configuration in force is bound to.
  [[nodiscard]] const std::map<std::string, Bound>& bound() const { return known_; }

 private:
  // Opens the sockets of one address. Empty and `error` set on failure.
  std::vector<int> open(const ServerAddress& address, int backlog, std::string& actual, int& error);

  uint32_t shards_;
  uint32_t next_id_ = 1;
  std::map<std::string, Bound> known_;
  std::map<std::string, Bound> next_;
};

}  // namespace ringway
