// lb/listen_book.cc
#include "lb/listen_book.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

namespace ringway {
namespace {

void close_all(const std::vector<int>& fds) {
  for (const int fd : fds) ::close(fd);
}

}  // namespace

std::vector<int> ListenBook::open(const ServerAddress& address, int backlog, std::string& actual,
                                  int& error) {
  ServerAddress bind_to = address;
  const bool is_unix = address.storage.ss_family == AF_UNIX;
  // A unix path has one socket; its shard hands the connections round. SO_REUSEPORT would join the
  // group of another process that has the port already: a bind without it finds that out.
  int first = open_listener(bind_to, {.backlog = backlog});
  if (first < 0) {
    error = -first;
    return {};
  }
  bind_to.length = sizeof bind_to.storage;
  getsockname(first, reinterpret_cast<sockaddr*>(&bind_to.storage), &bind_to.length);
  actual = is_unix ? address.text() : bind_to.text();
  if (is_unix || shards_ == 1) return {first};
  ::close(first);
  std::vector<int> fds;
  for (uint32_t i = 0; i < shards_; ++i) {
    const int fd = open_listener(bind_to, {.backlog = backlog, .reuse_port = true});
    if (fd < 0) {
      error = -fd;
      close_all(fds);
      return {};
    }
    fds.push_back(fd);
  }
  return fds;
}

std::vector<std::vector<ListenFd>> ListenBook::prepare(const config::Config& config,
                                                       std::string& error) {
  std::vector<std::vector<ListenFd>> orders(shards_);
  std::vector<int> opened;
  next_.clear();
  for (uint32_t index = 0; index < config.listeners.size(); ++index) {
    const config::Listener& listener = config.listeners[index];
    for (const config::Listener::Bind& bind : listener.bind) {
      const auto known = known_.find(bind.text);
      if (known != known_.end()) {
        next_.insert(*known).first->second.fresh = false;
        for (auto& order : orders) {
          order.push_back({.id = known->second.id, .listener = index});
        }
        continue;
      }
      Bound bound{.id = next_id_++, .address = {}};
      int failure = 0;
      const std::vector<int> fds = open(bind.address, listener.backlog, bound.address, failure);
      if (fds.empty()) {
        error = "listener \"" + listener.name + "\" cannot bind " + bind.text + ": " +
                strerrordesc_np(failure) + " (" + bind.position.file + ":" +
                std::to_string(bind.position.line) + ":" + std::to_string(bind.position.column) +
                ")";
        close_all(opened);
        return {};
      }
      opened.insert(opened.end(), fds.begin(), fds.end());
      for (uint32_t shard = 0; shard < shards_; ++shard) {
        const int fd = shard < fds.size() ? fds[shard] : -1;
        orders[shard].push_back({.id = bound.id, .listener = index, .fd = fd});
      }
      next_.emplace(bind.text, std::move(bound));
    }
  }
  return orders;
}

}  // namespace ringway
