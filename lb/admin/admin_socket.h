// lb/admin/admin_socket.h - the unix socket of the admin API, and its HTTP server.
//
// Affinity:  control thread. Ownership: owns the socket, its file and the server; finish() and run
//            turns until quiet() before it dies.
// Bounds:    kConnectionsMax clients, bodies of kBodyBytesMax.
// Why:       whoever may open the file may operate the process: the file's mode is the access rule,
//            and it holds from the first moment the file exists.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "lb/admin/http_server.h"
#include "lb/config/config.h"

namespace ringway {

class AdminSocket {
 public:
  static constexpr size_t kConnectionsMax = 32;
  static constexpr uint64_t kBodyBytesMax = 16 * 1024;

  // Binds the socket; nobody is accepted before start(). A file that no process listens on is
  // replaced. Returns null with `error`, which names the path and why.
  [[nodiscard]] static std::unique_ptr<AdminSocket> open(const config::Admin& admin,
                                                         std::string& error);
  // Removes the file, unless another process has replaced it meanwhile.
  ~AdminSocket();
  AdminSocket(const AdminSocket&) = delete;
  AdminSocket& operator=(const AdminSocket&) = delete;

  void start(Io& io, Timers& timers, HttpHandler& handler);
  // The file is still ours: nobody has removed or replaced it.
  [[nodiscard]] bool present() const;
  // Changes the file's mode. Returns 0, or a positive errno.
  [[nodiscard]] int set_mode(uint32_t mode);
  // Removes the file and accepts no further clients; those that wait for an answer get it.
  void finish();
  // The same without waiting for anybody.
  void stop();

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] bool quiet() const { return !server_ || server_->live() == 0; }
  // REQUIRES: start() was called.
  [[nodiscard]] const HttpServer& server() const { return *server_; }

 private:
  AdminSocket(std::string path, uint32_t mode, int fd);
  void close();

  std::string path_;
  uint32_t mode_;
  int fd_;
  dev_t device_ = 0;  // of the file that we made
  ino_t inode_ = 0;
  std::optional<HttpServer> server_;
};

}  // namespace ringway
