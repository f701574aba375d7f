// proto/client_hello.h - what a TLS client says before anything is encrypted: the server name it
// asks for and the protocols it offers.
//
// Affinity:  pure functions, any thread. Ownership: views point into the caller's scratch.
// Bounds:    the caller's limit; a call costs O(bytes so far).
// Why:       reading keeps no state: the caller gives all bytes so far, so that how they were cut,
//            into segments or records, cannot matter. Nothing is decrypted and nothing changed.
// Source:    RFC 8446 4.1.2, 5.1; RFC 6066 3 (server_name); RFC 7301 3.1 (ALPN).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace ringway::tls {

enum class HelloStatus : uint8_t {
  kNeedMore,
  kDone,
  kNotTls,  // the first bytes are no handshake record
  kMalformed,
  kTooLong  // it does not end within the limit
};

struct ClientHello {
  HelloStatus status = HelloStatus::kNeedMore;
  std::string_view server_name;  // printable ASCII as it was sent; empty: the client names none
  std::string_view alpn;         // see AlpnReader; empty: the client offers none
};

// Reads the ClientHello that `bytes`, all that the connection has brought so far, begin with. Once
// the result is not kNeedMore, further bytes do not change it. The message is put together
// in `scratch`. REQUIRES: scratch.size() >= bytes_max.
[[nodiscard]] ClientHello parse_client_hello(std::string_view bytes, size_t bytes_max,
                                             std::span<char> scratch);

// Walks the protocol names of ClientHello::alpn, in the client's order.
class AlpnReader {
 public:
  explicit AlpnReader(std::string_view alpn) : rest_(alpn) {}
  // The next one. False at the end.
  bool next(std::string_view& protocol);

 private:
  std::string_view rest_;
};

}  // namespace ringway::tls
