// pool/conn_key.h - what makes two connections to a server interchangeable: everything that was
// baked into them when they were made.
//
// Affinity:  pure functions. A ConnKey borrows the bytes of the ConnKeyBuffer that built it.
// Bounds:    ConnKeyBuffer::kBytes; what does not fit makes a single-use key, so that its
//            connection is never shared.
// Why:       connections are shared by exact equality of these bytes, never by their hash alone:
//            clients choose some of them (docs/invariants.md).
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <string_view>

#include "core/base/hash.h"

namespace ringway {

// The fields; what a server fixes and what a request brings alike. Empty or zero: absent, which is
// another value than any that is present.
struct ConnKeyParts {
  const sockaddr* destination = nullptr;
  socklen_t destination_length = 0;
  const sockaddr* source = nullptr;  // the address bound before connecting
  socklen_t source_length = 0;
  bool source_port = false;              // the port was bound too, not only the address
  std::string_view interface {};         // bound to
  std::string_view network_namespace{};  // by name
  uint32_t mark = 0;                     // SO_MARK
  bool has_mark = false;
  uint8_t tos = 0;
  bool has_tos = false;
  std::string_view alpn{};          // what is offered, and what is spoken without TLS
  uint32_t tls_profile = 0;         // 0: no TLS
  std::string_view sni{};           // case and a final dot do not count; only with TLS
  std::string_view proxy_header{};  // as it is sent
  std::string_view pool_name{};     // the configured key, rendered
  bool single_use = false;          // some part of it never comes again
};

// A key to look up. The bytes are somebody else's.
struct ConnKey {
  std::string_view bytes;
  uint64_t hash = 0;
  // Never shared between clients, and never parked for others.
  bool single_use = false;
  // The part of it that is sent in a TLS handshake (SNI); empty: the server's own.
  std::string_view sni{};
  // The part of it that goes out first on such a connection (a PROXY header); empty: nothing. Where
  // TLS is spoken that happens before the handshake, and before the preface of HTTP/2; else it is
  // the user's to send.
  std::string_view preface{};
  // The part of it that says that only HTTP/1.1 is offered in a TLS handshake.
  bool only_http1 = false;
};

// NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init): bytes_ is written before it is read
class ConnKeyBuffer {
 public:
  static constexpr size_t kBytes = 2048;

  // Renders `parts`. The result is valid until the next build() or extend().
  [[nodiscard]] ConnKey build(const ConnKeyParts& parts, HashKey secret);

  // What a request adds to a server's own part of the key.
  struct Added {
    std::string_view sni{};
    std::string_view proxy_header{};
    std::string_view pool_name{};
    bool only_http1 = false;
  };
  // The same key as build() with `added` added to the parts that made `fixed`, which must have had
  // none of these and, for `sni`, have had TLS. `only_http1` is ALPN's part, behind all others. The
  // server's own part never changes: it is copied.
  [[nodiscard]] ConnKey extend(std::string_view fixed, const Added& added, HashKey secret);

 private:
  [[nodiscard]] ConnKey finish(bool single_use, HashKey secret) const;
  void put(std::string_view bytes);
  void put_field(uint32_t field, std::string_view bytes);
  void put_number(uint32_t field, uint64_t number);
  void put_address(uint32_t field, const sockaddr* address, socklen_t length, bool with_port);
  void put_name(uint32_t field, std::string_view name);

  std::array<char, kBytes> bytes_;
  size_t length_ = 0;
  bool overflow_ = false;
};

}  // namespace ringway
