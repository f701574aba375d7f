// lb/proxy_gate.h - the PROXY protocol on both sides of the balancer: whose header is believed,
// what it changes, and which header a server is sent.
//
// Affinity:  pure functions over one client's bytes; a ClientOrigin belongs to one shard.
// Ownership: a ClientOrigin is a slab object of the Worker, owned by its client connection or
//            session. Most connections have none.
// Bounds:    TlvRoom::kBytes; TLVs that do not fit are neither passed on nor logged.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "core/address.h"
#include "core/base/slab.h"
#include "lb/config/config.h"
#include "proto/proxy_header.h"

namespace ringway {

// Why a client was closed over its PROXY header.
enum class ProxyError : uint8_t {
  kUntrusted,  // it may not send one, or must and is not among those that may
  kMissing,    // required, and the first bytes are something else
  kMalformed,
  kTooLong,
  kUnsupported,  // a version, command or family that does not exist
  kChecksum,
  kTruncated,  // the client ended inside of it
  kTimeout
};
// As metrics name them.
inline constexpr std::array<std::string_view, 8> kProxyErrorNames{
    "untrusted",   "missing",  "malformed", "too_long",
    "unsupported", "checksum", "truncated", "timeout"};

// As access logs name them.
inline constexpr std::array<std::string_view, kProxyErrorNames.size()> kProxyErrorCauses{
    "PROXY header: untrusted", "PROXY header: missing",     "PROXY header: malformed",
    "PROXY header: too long",  "PROXY header: unsupported", "PROXY header: wrong checksum",
    "PROXY header: truncated", "PROXY header: timeout"};

// TLVs as they stand in a header, one behind the other: what the client's PROXY header said, then
// what is said instead of it, or besides.
// NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init): bytes up to length
struct TlvRoom {
  static constexpr size_t kBytes = 1024;
  static constexpr size_t kCarriedBytes = 640;  // of the header's
  std::array<char, kBytes> bytes;
  size_t length = 0;
};

// What is known of a client's connection beside the client's address.
class ClientOrigin {
 public:
  // write_proxy_header() needs no more.
  static constexpr size_t kHeaderBytes = 64 + TlvRoom::kBytes;

  // Takes room from `rooms` with the first TLV and gives it back in the end.
  ClientOrigin(const PeerAddress& to, Slab<TlvRoom>& rooms) : destination(to), rooms_(rooms) {}
  ~ClientOrigin();
  ClientOrigin(const ClientOrigin&) = delete;
  ClientOrigin& operator=(const ClientOrigin&) = delete;

  // Keeps the TLVs of the client's header that say something about the client, the first of each
  // type: ALPN, AUTHORITY, UNIQUE_ID and SSL, then NETNS and custom ones. Those that find no room
  // are left out. REQUIRES: no other TLV was added yet.
  void keep_tlvs(std::string_view tlvs);
  // Says something of our own in place of all of its type. False: no room.
  bool set(proxy::Tlv type, std::string_view value);
  // Drops those of a type that are our own.
  void forget(proxy::Tlv type);
  // Adds one of our own, which holds instead of the header's of its type. False: no room.
  bool add(proxy::Tlv type, std::string_view value);
  // The value of a TLV; empty: unknown.
  [[nodiscard]] std::string_view find(proxy::Tlv type) const;
  // What the client's header said, whatever was added: TLVs.
  [[nodiscard]] std::string_view carried_tlvs() const { return part(0, carried_bytes_); }
  [[nodiscard]] std::string_view custom_tlvs() const { return part(custom_at_, carried_bytes_); }

  bool carried = false;     // the addresses are those of a PROXY header, which others may send, too
  bool tls_kept = false;    // what our own TLS with the client said holds instead of the header's
  PeerAddress destination;  // where the client connected to; kNone: unknown, or no IP address

 private:
  [[nodiscard]] std::string_view part(size_t from, size_t to) const {
    return room_ == nullptr ? std::string_view()
                            : std::string_view(&room_->bytes[0] + from, to - from);
  }
  void keep_first(std::string_view tlvs, bool (*wanted)(proxy::Tlv));
  bool append(proxy::Tlv type, std::string_view value, size_t end_max);

  Slab<TlvRoom>& rooms_;
  TlvRoom* room_ = nullptr;
  size_t custom_at_ = 0;      // where custom ones of the header begin
  size_t carried_bytes_ = 0;  // of the header's; our own are behind them
};

// What has happened to the client's side since the last look.
enum class ProxyInput : uint8_t {
  kBytes,  // or nothing yet
  kEnd,    // no more bytes will come
  kLate    // the time for the header is over
};

struct ProxyVerdict {
  enum class Kind : uint8_t {
    kWait,    // for more bytes; after kEnd: nothing was sent at all
    kNone,    // there is no header: what came belongs to the client's protocol
    kHeader,  // `header` is to be applied, and its bytes taken away
    kRefused  // close, for the reason `error`
  };
  Kind kind = Kind::kWait;
  ProxyError error = ProxyError::kMissing;
  proxy::Header header{};
};

// Looks at all `bytes` that a client at `peer` has sent so far. The result's views point into
// `bytes`. A reload may have switched headers off while a client was asked for one: then kNone.
[[nodiscard]] ProxyVerdict judge_proxy_header(const config::ProxyProtocol& config,
                                              const PeerAddress& peer, std::string_view bytes,
                                              ProxyInput input);

// The client's address after `header`, which came from `real`: the carried one, or `real` if the
// header carries none. A client with a unix address becomes one without address.
[[nodiscard]] PeerAddress carried_client(const proxy::Header& header, const PeerAddress& real);
// Where that client had connected to, by the header; `real` likewise.
[[nodiscard]] PeerAddress carried_destination(const proxy::Header& header, const PeerAddress& real);

// The header for a server: `version` is not kOff. Returns the part of `out` that was used.
[[nodiscard]] std::string_view write_proxy_header(config::ProxySend version,
                                                  const config::ProxyTlvs& tlvs,
                                                  const PeerAddress& client,
                                                  const ClientOrigin& origin,
                                                  std::span<char, ClientOrigin::kHeaderBytes> out);
// No other client connection can have the same header, so nobody else could ever use a connection
// that begins with it: it carries an identifier, or the addresses of the client's own socket.
[[nodiscard]] bool is_own_header(config::ProxySend version, const config::ProxyTlvs& tlvs,
                                 const PeerAddress& client, const ClientOrigin& origin);
// The header of a connection that is nobody's but the balancer's own.
[[nodiscard]] std::string_view write_own_proxy_header(config::ProxySend version,
                                                      std::span<char> out);

}  // namespace ringway
