// core/address.h - socket addresses: where to listen or connect, and who a client is.
//
// Affinity: values, any thread. Nothing here blocks: names are not resolved.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <compare>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace ringway {

// An address to bind or to connect to: IPv4, IPv6 or a unix path.
struct ServerAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;

  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  // The text parse_address() takes. For logs and metrics.
  [[nodiscard]] std::string text() const;
  bool operator==(const ServerAddress& other) const;
};

// Parses "1.2.3.4:80", "[::1]:80" or "unix:/path". Returns false if `text` is none of these.
[[nodiscard]] bool parse_address(std::string_view text, ServerAddress& out);

// A client's address in 20 bytes. Unix clients have none.
struct PeerAddress {
  enum class Family : uint8_t { kNone, kIPv4, kIPv6 };

  std::array<uint8_t, 16> ip{};  // network order; IPv4 in the first 4 bytes
  uint16_t port = 0;             // host order
  Family family = Family::kNone;

  // IPv4-mapped IPv6 addresses become IPv4.
  [[nodiscard]] static PeerAddress from(const sockaddr& address);
  [[nodiscard]] std::span<const uint8_t> ip_bytes() const {
    return std::span(ip).first(family == Family::kIPv4 ? 4 : family == Family::kIPv6 ? 16 : 0);
  }
  // The address that the connected socket `fd` has on this side; kNone: it has none.
  [[nodiscard]] static PeerAddress local_of(int fd);
  // Writes the IP without port ("1.2.3.4", "::1", "unix") into `out` and returns the part used.
  [[nodiscard]] std::string_view write_ip(std::span<char, 46> out) const;
  auto operator<=>(const PeerAddress&) const = default;
};

// An IP network such as 10.0.0.0/8 or fd00::/8.
struct Network {
  PeerAddress base;
  uint8_t prefix_bits = 0;

  // Parses "10.0.0.0/8", "fd00::/8" or a single address. Host bits that are set are an error.
  // A network of IPv4-mapped addresses (::ffff:10.0.0.0/104) becomes the IPv4 one.
  [[nodiscard]] static bool parse(std::string_view text, Network& out);
  [[nodiscard]] bool contains(const PeerAddress& address) const;
  bool operator==(const Network&) const = default;
};

struct ListenOptions {
  int backlog = 4096;
  bool reuse_port = false;  // one socket per shard in the same group
  int unix_mode = -1;       // of a unix path: exactly this, from the first moment; -1: by umask(2)
};

// Makes a non-blocking listening socket with SO_REUSEADDR and, on TCP, TCP_NODELAY, which accepted
// sockets inherit. A unix path that nobody listens on is replaced. Returns it, or a negative errno.
[[nodiscard]] int open_listener(const ServerAddress& address, const ListenOptions& options = {});

}  // namespace ringway
