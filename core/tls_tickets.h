// core/tls_tickets.h - the keys that session tickets are sealed with.
//
// Affinity:  immutable once made; read by all shards. Ownership: values; erased when destroyed.
// Bounds:    kKeysMax keys.
// Why:       a ticket carries its session, so whichever shard or node has the key resumes it, and
// no
//            server keeps a session. Who steals a key reads all that was resumed with it (TLS 1.2),
//            so keys are rotated: the first seals, all of them open.
// Source:    RFC 5077 4; the file format is nginx's and haproxy's.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace ringway {

struct TlsTicketKey {
  // A ticket begins with the name: it is no secret.
  std::array<uint8_t, 16> name{};
  std::array<uint8_t, 32> cipher_key{};  // AES-CBC
  std::array<uint8_t, 32> mac_key{};     // HMAC-SHA-256
  // 128: only the first half of both keys is used. Else 256.
  uint16_t bits = 256;

  ~TlsTicketKey();
};

class TlsTicketKeys {
 public:
  static constexpr size_t kKeysMax = 16;

  // Keys of shared files: of each file 80 bytes (name 16, HMAC key 32, AES-256 key 32) or 48 bytes
  // (name 16, AES-128 key 16, HMAC key 16). The first is the current one. Null when a file has
  // another size, two have one name, or there are none or too many.
  [[nodiscard]] static std::shared_ptr<const TlsTicketKeys> of_files(
      std::span<const std::string_view> files);
  // One key that nobody else has.
  [[nodiscard]] static std::shared_ptr<const TlsTicketKeys> random();
  // A new random current key before those that were, of which `keep` stay: 1 means that a ticket is
  // good until the second rotation after it was given. REQUIRES: keep < kKeysMax.
  [[nodiscard]] std::shared_ptr<const TlsTicketKeys> rotated(size_t keep) const;

  [[nodiscard]] const TlsTicketKey& current() const { return keys_.front(); }
  // Null if no key has that name.
  [[nodiscard]] const TlsTicketKey* find(std::span<const uint8_t, 16> name) const;
  [[nodiscard]] size_t size() const { return keys_.size(); }

 private:
  std::vector<TlsTicketKey> keys_;
};

}  // namespace ringway
