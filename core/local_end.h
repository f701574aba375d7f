// core/local_end.h - this side of a connection that is to be made: what its socket is bound to.
//
// Affinity: values, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/address.h"

namespace ringway {

// Which part of a LocalEnd the kernel refused.
enum class LocalPart : uint8_t { kNone, kInterface, kMark, kSource };

struct LocalEnd {
  // The address to come from, of the family of the address that is connected to. Its port is 0, and
  // the kernel chooses one per destination; length 0: the kernel chooses the address, too.
  ServerAddress source;
  std::string interface {};  // SO_BINDTODEVICE; empty: as routed
  uint32_t mark = 0;         // SO_MARK; 0: none

  [[nodiscard]] bool empty() const { return source.length == 0 && interface.empty() && mark == 0; }
  bool operator==(const LocalEnd&) const = default;
};

// Parses an address without a port: "10.0.0.5", "2001:db8::5" or "[2001:db8::5]". Its port is 0.
[[nodiscard]] bool parse_source(std::string_view text, ServerAddress& out);

// Binds `fd`, a socket that is not connected, to what `local` says. Returns 0, or a positive errno;
// `failed` says of what.
[[nodiscard]] int bind_local(int fd, const LocalEnd& local, LocalPart& failed);

// What bind_local() would do on this machine, for a connection to `family`: makes a socket for it.
[[nodiscard]] int try_local(int family, const LocalEnd& local, LocalPart& failed);

// What `error` of `failed` means to an operator: "source: not an address of this machine". Static;
// empty for kNone.
[[nodiscard]] std::string_view local_failure_text(LocalPart failed, int error);

}  // namespace ringway
