// core/tls_names.h - which certificates answer for a server name (SNI): an immutable table.
//
// Affinity:  built on the control thread, then read by any thread without locks. Ownership: shares
//            the certificates. Bounds: 2^31 names; about 40 bytes and the text for each name.
// Why:       a handshake looks once and allocates nothing; a changed certificate makes a new table
//            that replaces the old one whole.
// Source:    RFC 6066 3 (server_name), RFC 9525 6.3 (wildcards).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tls_certificate.h"

namespace ringway {

// At most one certificate for each type of key; null where there is none.
struct TlsChoice {
  std::array<const TlsCertificate*, kTlsKeyTypes> by_type{};
  [[nodiscard]] const TlsCertificate* of(TlsKeyType type) const {
    return by_type[static_cast<size_t>(type)];
  }
  [[nodiscard]] bool empty() const;
};

class TlsNames {
 public:
  // Certificates in the order of the configuration; none may be null. Of two with one name and one
  // type of key, the one that is valid longer answers, else the earlier.
  explicit TlsNames(std::vector<std::shared_ptr<const TlsCertificate>> certificates);

  // Who answers for `name`, as it came from a client: any case, with or without a final dot. An
  // exact name goes before a wildcard; "*.a.b" stands for exactly one label. Empty if nobody does.
  // Allocates nothing. The pointers are valid as long as this table.
  [[nodiscard]] TlsChoice find(std::string_view name) const;

  // Who answers clients that name nobody: the first certificate, and for other types of key those
  // that share its first name. Empty only if there is no certificate.
  [[nodiscard]] const TlsChoice& fallback() const { return fallback_; }

  // All of them, in order; also those that no name leads to.
  [[nodiscard]] std::span<const std::shared_ptr<const TlsCertificate>> certificates() const {
    return certificates_;
  }
  [[nodiscard]] size_t num_names() const { return entries_.size(); }
  // Of the table itself, without the certificates.
  [[nodiscard]] size_t memory_bytes() const;

 private:
  struct Entry {
    uint32_t text_at = 0;  // into texts_
    uint8_t text_len = 0;
    std::array<uint32_t, kTlsKeyTypes> certificate{};  // index + 1; 0: none
  };

  void add(std::string_view name, uint32_t certificate);
  [[nodiscard]] const Entry* find_entry(std::string_view name) const;
  [[nodiscard]] TlsChoice choice_of(const Entry& entry) const;
  [[nodiscard]] std::string_view text_of(const Entry& entry) const;
  [[nodiscard]] size_t slot_of(std::string_view name) const;

  std::vector<std::shared_ptr<const TlsCertificate>> certificates_;
  std::vector<Entry> entries_;
  std::string texts_;  // the names, one behind the other
  std::vector<uint32_t>
      slots_;  // a power of two, at most half full: index of an entry + 1; 0: free
  TlsChoice fallback_;
};

}  // namespace ringway
