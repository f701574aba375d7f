// core/local_end.cc
#include "core/local_end.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace ringway {

bool parse_source(std::string_view text, ServerAddress& out) {
  if (text.starts_with("unix:")) return false;
  const bool bare_v6 = !text.starts_with('[') && text.find(':') != text.rfind(':');
  std::string whole = bare_v6 ? "[" : "";
  whole.append(text).append(bare_v6 ? "]:0" : ":0");
  return parse_address(whole, out);
}

int bind_local(int fd, const LocalEnd& local, LocalPart& failed) {
  failed = LocalPart::kNone;
  // The interface first: a link-local address means something on it only.
  if (!local.interface.empty() &&
      setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, local.interface.data(),
                 static_cast<socklen_t>(local.interface.size())) != 0) {
    failed = LocalPart::kInterface;
    return errno;
  }
  if (local.mark != 0 && setsockopt(fd, SOL_SOCKET, SO_MARK, &local.mark, sizeof local.mark) != 0) {
    failed = LocalPart::kMark;
    return errno;
  }
  if (local.source.length == 0) return 0;
  // The port is chosen by connect(2), which knows the destination: else every connection would take
  // one of the address's few ports for itself, whatever it goes to. Without it that is what
  // happens.
  const int one = 1;
  setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
  if (bind(fd, local.source.get(), local.source.length) == 0) return 0;
  failed = LocalPart::kSource;
  return errno;
}

int try_local(int family, const LocalEnd& local, LocalPart& failed) {
  failed = LocalPart::kNone;
  const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  const int error = bind_local(fd, local, failed);
  close(fd);
  return error;
}

std::string_view local_failure_text(LocalPart failed, int error) {
  switch (failed) {
    case LocalPart::kNone: return {};
    case LocalPart::kInterface:
      if (error == ENODEV) return "socket.interface: no such interface";
      if (error == EPERM) return "socket.interface: not permitted, needs CAP_NET_RAW";
      return "socket.interface: cannot be bound";
    case LocalPart::kMark:
      if (error == EPERM) return "socket.mark: not permitted, needs CAP_NET_ADMIN";
      return "socket.mark: cannot be set";
    case LocalPart::kSource:
      if (error == EADDRNOTAVAIL) return "source: not an address of this machine";
      return "source: cannot be bound";
  }
  return {};
}

}  // namespace ringway
