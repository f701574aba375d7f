// lb/admin/admin_socket.cc
#include "lb/admin/admin_socket.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "core/address.h"
#include "core/base/check.h"

namespace ringway {

std::unique_ptr<AdminSocket> AdminSocket::open(const config::Admin& admin, std::string& error) {
  ServerAddress address;
  if (!parse_address("unix:" + admin.socket, address)) {
    error = "admin.socket: " + admin.socket + " is no path of a socket";
    return nullptr;
  }
  const int fd = open_listener(address, {.backlog = 64, .unix_mode = static_cast<int>(admin.mode)});
  if (fd < 0) {
    error = "admin.socket cannot bind " + admin.socket + ": " + strerrordesc_np(-fd);
    if (fd == -EADDRINUSE) error += " (another process listens there, or it is no socket)";
    return nullptr;
  }
  return std::unique_ptr<AdminSocket>(new AdminSocket(admin.socket, admin.mode, fd));
}

AdminSocket::AdminSocket(std::string path, uint32_t mode, int fd)
    : path_(std::move(path)), mode_(mode), fd_(fd) {
  struct stat file {};
  if (stat(path_.c_str(), &file) != 0) return;
  device_ = file.st_dev;
  inode_ = file.st_ino;
}

AdminSocket::~AdminSocket() {
  close();
}

bool AdminSocket::present() const {
  struct stat file {};
  return stat(path_.c_str(), &file) == 0 && file.st_dev == device_ && file.st_ino == inode_;
}

void AdminSocket::close() {
  if (fd_ < 0) return;
  if (present()) unlink(path_.c_str());
  ::close(std::exchange(fd_, -1));
}

void AdminSocket::start(Io& io, Timers& timers, HttpHandler& handler) {
  RW_CHECK(!server_ && fd_ >= 0);
  server_.emplace(io, timers, fd_, handler,
                  HttpServerLimits{.connections = kConnectionsMax, .body_bytes = kBodyBytesMax});
}

int AdminSocket::set_mode(uint32_t mode) {
  if (mode == mode_) return 0;
  if (chmod(path_.c_str(), mode) != 0) return errno;
  mode_ = mode;
  return 0;
}

void AdminSocket::finish() {
  if (server_) server_->finish();
  close();
}

void AdminSocket::stop() {
  if (server_) server_->stop();
  close();
}

}  // namespace ringway
