// proto/proxy_header.h - the PROXY protocol, versions 1 and 2: reading and writing the header that
// stands before everything else on a connection.
//
// Affinity:  pure functions, any thread. Ownership: views point into the caller's bytes.
// Bounds:    version 1 has kV1BytesMax bytes, version 2 what the caller allows.
// Why:       reading keeps no state: the caller gives all bytes so far, so an idle client needs no
//            parser, and how the bytes were cut cannot matter.
// Source:    proxy-protocol.txt of haproxy ("The PROXY protocol, Versions 1 & 2").
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace ringway::proxy {

inline constexpr size_t kV1BytesMax = 107;     // with its CRLF
inline constexpr size_t kV2FixedBytes = 16;    // before the addresses
inline constexpr size_t kV2BytesMax = 65'551;  // that its length field can say
inline constexpr size_t kUniqueIdBytesMax = 128;

enum class Family : uint8_t { kUnspecified, kIPv4, kIPv6, kUnix };

// One end of the connection.
struct Endpoint {
  std::array<uint8_t, 16> ip{};  // network order; IPv4 in the first 4 bytes
  uint16_t port = 0;             // host order
  std::string_view path{};  // kUnix: up to its first NUL, an abstract one without trailing NULs
};

// Types of TLVs (version 2).
enum class Tlv : uint8_t {
  kAlpn = 0x01,
  kAuthority = 0x02,
  kCrc32c = 0x03,
  kNoop = 0x04,
  kUniqueId = 0x05,
  kSsl = 0x20,
  kSslVersion = 0x21,
  kSslCn = 0x22,
  kSslCipher = 0x23,
  kSslSignature = 0x24,
  kSslKey = 0x25,
  kNetns = 0x30,
  kCustomFirst = 0xe0,  // up to kCustomLast: what those who use them have agreed upon
  kAws = 0xea,          // one of those, as Amazon uses it: kAwsEndpoint and what follows from it
  kCustomLast = 0xef
};

[[nodiscard]] constexpr bool is_custom(Tlv type) {
  return type >= Tlv::kCustomFirst && type <= Tlv::kCustomLast;
}

// The first byte of a kAws value: the rest is the identifier of a VPC endpoint, text.
inline constexpr char kAwsEndpoint = 0x01;

struct Header {
  uint8_t version = 0;  // 1 or 2
  // The peer speaks for itself, or cannot say for whom: the connection's own addresses hold.
  bool local = false;
  bool datagram = false;                 // what is proxied came by datagrams
  Family family = Family::kUnspecified;  // kUnspecified: the connection's own addresses hold
  Endpoint source{};
  Endpoint destination{};
  std::string_view tlvs;  // well-formed; empty if `local`
  bool checksum = false;  // there was a CRC32C, and it is right
  size_t length = 0;      // of the whole header
};

enum class Error : uint8_t {
  kNone,
  kMalformed,    // it begins like a header and is none
  kTooLong,      // more than kV1BytesMax, or than the caller allows
  kUnsupported,  // a version, command or family that does not exist
  kChecksum      // CRC32C is wrong
};

enum class Status : uint8_t {
  kNeedMore,  // it may become a header
  kAbsent,    // no header: the first bytes are not those of either version
  kDone,
  kError
};

struct Parsed {
  Status status = Status::kNeedMore;
  Error error = Error::kNone;
  bool begun = false;  // kNeedMore: the whole signature is there, so that it is a header for sure
  Header header{};     // kDone
};

// Reads the header that `bytes`, all that the connection has brought so far, begin with. Both
// versions are told apart by their signature alone. Once the result is not kNeedMore, further bytes
// do not change it. `v2_bytes_max` bounds the whole header of version 2.
[[nodiscard]] Parsed parse(std::string_view bytes, size_t v2_bytes_max);

// Walks the TLVs of a header, or the inner ones of a kSsl value behind its 5 fixed bytes.
class TlvReader {
 public:
  explicit TlvReader(std::string_view tlvs) : rest_(tlvs) {}
  // The next one. False at the end, or where the bytes are malformed.
  bool next(Tlv& type, std::string_view& value);
  [[nodiscard]] bool malformed() const { return malformed_; }

 private:
  std::string_view rest_;
  bool malformed_ = false;
};

// Whether there is a TLV of that type; `value` is the first one's then.
[[nodiscard]] bool has_tlv(std::string_view tlvs, Tlv type, std::string_view& value);
// The value of the first TLV of that type; empty if there is none.
[[nodiscard]] std::string_view find_tlv(std::string_view tlvs, Tlv type);

// What a header is to say. Empty text: leave that TLV out.
struct Plan {
  bool local = false;
  Family family = Family::kUnspecified;  // kUnix is not written: as kUnspecified
  Endpoint source{};
  Endpoint destination{};
  // Version 2 only.
  std::string_view alpn{};
  std::string_view authority{};
  std::string_view unique_id{};  // REQUIRES: kUniqueIdBytesMax at most
  std::string_view ssl{};        // a value as write_ssl() makes it
  std::string_view netns{};
  std::string_view custom{};  // whole TLVs, as they stand in a header
  bool checksum = false;
};

// Write the header into `out` and return the part used; empty if it does not fit. Version 1 says
// UNKNOWN for what has no IP addresses.
[[nodiscard]] std::string_view write_v1(const Plan& plan, std::span<char> out);
[[nodiscard]] std::string_view write_v2(const Plan& plan, std::span<char> out);

// What is known of the client's TLS. Empty text: unknown.
struct Ssl {
  bool certificate = false;             // the client gave one on this connection
  bool certificate_in_session = false;  // or earlier in this TLS session
  bool verified = false;                // it gave one, and it was accepted
  std::string_view version{};           // "TLSv1.3"
  std::string_view common_name{};
  std::string_view cipher{};
  std::string_view signature{};
  std::string_view key{};
};
// Reads the value of a kSsl TLV; the text points into it. False: it is malformed, or says that the
// client spoke no TLS; `out` means nothing then.
[[nodiscard]] bool read_ssl(std::string_view value, Ssl& out);
// Writes the value of a kSsl TLV into `out` and returns the part used; empty if it does not fit.
[[nodiscard]] std::string_view write_ssl(const Ssl& ssl, std::span<char> out);

// CRC32C (RFC 3720, appendix B.4) of `bytes`, going on from `crc`, which is 0 at the beginning.
[[nodiscard]] uint32_t crc32c(std::string_view bytes, uint32_t crc = 0);

}  // namespace ringway::proxy
