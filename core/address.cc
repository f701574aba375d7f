// core/address.cc
#include "core/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

namespace ringway {
namespace {

// Fills `out` from an IP literal without brackets. Port 0.
bool parse_ip(const std::string& text, PeerAddress& out) {
  out = {};
  if (text.find('\0') != std::string::npos) return false;  // inet_pton(3) would stop there.
  if (inet_pton(AF_INET, text.c_str(), out.ip.data()) == 1) {
    out.family = PeerAddress::Family::kIPv4;
    return true;
  }
  if (inet_pton(AF_INET6, text.c_str(), out.ip.data()) == 1) {
    out.family = PeerAddress::Family::kIPv6;
    return true;
  }
  return false;
}

// Makes a network of IPv4-mapped addresses an IPv4 one, as PeerAddress::from() does with addresses.
void unmap(Network& network) {
  constexpr std::array<uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  auto& base = network.base;
  if (base.family != PeerAddress::Family::kIPv6 || network.prefix_bits < 96) return;
  if (!std::equal(kMapped.begin(), kMapped.end(), base.ip.begin())) return;
  std::copy(base.ip.begin() + 12, base.ip.end(), base.ip.begin());
  std::fill(base.ip.begin() + 4, base.ip.end(), uint8_t{0});
  base.family = PeerAddress::Family::kIPv4;
  network.prefix_bits = static_cast<uint8_t>(network.prefix_bits - 96);
}

bool parse_unix(std::string_view path, ServerAddress& out) {
  auto& address = reinterpret_cast<sockaddr_un&>(out.storage);
  if (path.empty() || path.size() >= sizeof address.sun_path) return false;
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, path.data(), path.size());
  address.sun_path[path.size()] = '\0';
  out.length = sizeof address;
  return true;
}

// Who listens at the other end of `fd`, which is connected, has ended. The kernel may keep a dead
// process's socket for a moment: an io_uring that refers to it is torn down in the background.
bool listener_ended(int fd) {
  ucred owner{};
  socklen_t size = sizeof owner;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &owner, &size) != 0) return false;
  return owner.pid > 0 && kill(owner.pid, 0) != 0 && errno == ESRCH;
}

// A socket file whose server is gone refuses connections; binding again needs it removed first.
void remove_stale_socket(const ServerAddress& address) {
  const auto& unix_address = reinterpret_cast<const sockaddr_un&>(address.storage);
  struct stat info {};
  if (lstat(unix_address.sun_path, &info) != 0 || !S_ISSOCK(info.st_mode)) return;
  // Non-blocking: one with a full queue of clients is alive, and would keep us waiting.
  const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (probe < 0) return;
  const bool connected = connect(probe, address.get(), address.length) == 0;
  if (connected ? listener_ended(probe) : errno == ECONNREFUSED) unlink(unix_address.sun_path);
  close(probe);
}

// By hand: inet_ntop(3) calls sprintf(3), which was a tenth of all that a request executed here.
std::string_view write_ipv4(std::span<const uint8_t, 4> ip, std::span<char, 46> out) {
  char* at = out.data();
  for (const uint8_t part : ip) {
    if (at != out.data()) *at++ = '.';
    at = std::to_chars(at, at + 3, part).ptr;
  }
  return {out.data(), at};
}

}  // namespace

bool parse_address(std::string_view text, ServerAddress& out) {
  out = {};
  if (text.find('\0') != std::string_view::npos) return false;
  if (text.starts_with("unix:")) return parse_unix(text.substr(5), out);
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return false;
  std::string host(text.substr(0, colon));
  uint16_t port = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data() + colon + 1, end, port);
  if (parsed.ec != std::errc{} || parsed.ptr != end) return false;
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
    auto& address = reinterpret_cast<sockaddr_in6&>(out.storage);
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(port);
    out.length = sizeof address;
    return inet_pton(AF_INET6, host.c_str(), &address.sin6_addr) == 1;
  }
  auto& address = reinterpret_cast<sockaddr_in&>(out.storage);
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  out.length = sizeof address;
  return inet_pton(AF_INET, host.c_str(), &address.sin_addr) == 1;
}

bool ServerAddress::operator==(const ServerAddress& other) const {
  return length == other.length && memcmp(&storage, &other.storage, length) == 0;
}

std::string ServerAddress::text() const {
  char ip[INET6_ADDRSTRLEN] = "";
  if (storage.ss_family == AF_UNIX) {
    return std::string("unix:") + reinterpret_cast<const sockaddr_un&>(storage).sun_path;
  }
  if (storage.ss_family == AF_INET6) {
    const auto& address = reinterpret_cast<const sockaddr_in6&>(storage);
    inet_ntop(AF_INET6, &address.sin6_addr, ip, sizeof ip);
    return "[" + std::string(ip) + "]:" + std::to_string(ntohs(address.sin6_port));
  }
  if (storage.ss_family != AF_INET) return "none";
  const auto& address = reinterpret_cast<const sockaddr_in&>(storage);
  inet_ntop(AF_INET, &address.sin_addr, ip, sizeof ip);
  return std::string(ip) + ":" + std::to_string(ntohs(address.sin_port));
}

PeerAddress PeerAddress::from(const sockaddr& address) {
  PeerAddress peer;
  if (address.sa_family == AF_INET) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(address);
    memcpy(peer.ip.data(), &in.sin_addr, 4);
    peer.port = ntohs(in.sin_port);
    peer.family = Family::kIPv4;
  } else if (address.sa_family == AF_INET6) {
    const auto& in = reinterpret_cast<const sockaddr_in6&>(address);
    const bool mapped = IN6_IS_ADDR_V4MAPPED(&in.sin6_addr) != 0;
    memcpy(peer.ip.data(), in.sin6_addr.s6_addr + (mapped ? 12 : 0), mapped ? 4 : 16);
    peer.port = ntohs(in.sin6_port);
    peer.family = mapped ? Family::kIPv4 : Family::kIPv6;
  }
  return peer;
}

PeerAddress PeerAddress::local_of(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return {};
  return from(reinterpret_cast<const sockaddr&>(address));
}

std::string_view PeerAddress::write_ip(std::span<char, 46> out) const {
  if (family == Family::kNone) return "unix";
  if (family == Family::kIPv4) return write_ipv4(std::span(ip).first<4>(), out);
  const char* text = inet_ntop(AF_INET6, ip.data(), out.data(), static_cast<socklen_t>(out.size()));
  return text != nullptr ? std::string_view(text) : std::string_view();
}

bool Network::parse(std::string_view text, Network& out) {
  const size_t slash = text.find('/');
  if (!parse_ip(std::string(text.substr(0, slash)), out.base)) return false;
  const auto bits_max = static_cast<uint8_t>(out.base.ip_bytes().size() * 8);
  out.prefix_bits = bits_max;
  if (slash != std::string_view::npos) {
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data() + slash + 1, end, out.prefix_bits);
    if (parsed.ec != std::errc{} || parsed.ptr != end || out.prefix_bits > bits_max) return false;
  }
  for (unsigned bit = out.prefix_bits; bit < bits_max; ++bit) {
    if ((out.base.ip[bit / 8] & (0x80U >> (bit % 8))) != 0) return false;
  }
  unmap(out);
  return true;
}

bool Network::contains(const PeerAddress& address) const {
  if (address.family != base.family) return false;
  const unsigned whole = prefix_bits / 8U;
  if (!std::equal(base.ip.begin(), base.ip.begin() + whole, address.ip.begin())) return false;
  const unsigned rest = prefix_bits % 8U;
  if (rest == 0) return true;
  const auto mask = static_cast<uint8_t>(0xff00U >> rest);
  return (base.ip[whole] & mask) == (address.ip[whole] & mask);
}

int open_listener(const ServerAddress& address, const ListenOptions& options) {
  const int fd = socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  const int one = 1;
  if (address.storage.ss_family == AF_UNIX) {
    remove_stale_socket(address);
    // bind(2) gives the file the mode of the socket, less the umask: never more than is wanted.
    if (options.unix_mode >= 0) fchmod(fd, static_cast<mode_t>(options.unix_mode));
  } else {
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (options.reuse_port) setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
  }
  // "0.0.0.0:80" and "[::]:80" may stand side by side.
  if (address.storage.ss_family == AF_INET6) {
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
  }
  const bool bound = bind(fd, address.get(), address.length) == 0;
  const char* path = reinterpret_cast<const sockaddr_un*>(&address.storage)->sun_path;
  const bool moded = !bound || address.storage.ss_family != AF_UNIX || options.unix_mode < 0 ||
                     chmod(path, static_cast<mode_t>(options.unix_mode)) == 0;
  if (!bound || !moded || ::listen(fd, options.backlog) != 0) {
    const int error = errno;
    ::close(fd);
    return -error;
  }
  return fd;
}

}  // namespace ringway
