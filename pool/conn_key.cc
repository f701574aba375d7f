// pool/conn_key.cc
#include "pool/conn_key.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

#include <algorithm>
#include <cstddef>

namespace ringway {
namespace {

// Every field goes in with its number and its length, so no two lists of fields read the same.
enum Field : uint8_t {
  kDestination = 1,
  kSource,
  kInterface,
  kNamespace,
  kMark,
  kTos,
  kAlpn,
  kTlsProfile,
  kSni,
  kProxyHeader,
  kPoolName
};

std::string_view bytes_of(const void* from, size_t length) {
  return {static_cast<const char*>(from), length};
}

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

// The path of a unix address: an abstract one as long as it says, another one up to its NUL.
std::string_view unix_path(const sockaddr* address, socklen_t length) {
  constexpr size_t kOffset = offsetof(sockaddr_un, sun_path);
  const std::string_view whole = bytes_of(address, length);
  const std::string_view path = whole.size() > kOffset ? whole.substr(kOffset) : std::string_view();
  if (path.empty() || path[0] == '\0') return path;
  return path.substr(0, path.find('\0'));
}

}  // namespace

void ConnKeyBuffer::put(std::string_view bytes) {
  if (bytes.size() > bytes_.size() - length_) {
    overflow_ = true;
    return;
  }
  std::copy(bytes.begin(), bytes.end(), bytes_.data() + length_);
  length_ += bytes.size();
}

void ConnKeyBuffer::put_field(uint32_t field, std::string_view bytes) {
  const auto length = static_cast<uint32_t>(bytes.size());
  const char head[] = {static_cast<char>(field), static_cast<char>(length),
                       static_cast<char>(length >> 8), static_cast<char>(length >> 16)};
  put(std::string_view(head, sizeof head));
  put(bytes);
}

void ConnKeyBuffer::put_number(uint32_t field, uint64_t number) {
  put_field(field, bytes_of(&number, sizeof number));
}

void ConnKeyBuffer::put_address(uint32_t field, const sockaddr* address, socklen_t length,
                                bool with_port) {
  char text[1 + sizeof(in6_addr) + sizeof(uint32_t) + sizeof(in_port_t)] = {};
  switch (address->sa_family) {
    case AF_INET: {
      sockaddr_in v4{};
      memcpy(&v4, address, std::min<size_t>(length, sizeof v4));
      text[0] = 4;
      memcpy(text + 1, &v4.sin_addr, sizeof v4.sin_addr);
      if (with_port) memcpy(text + 5, &v4.sin_port, sizeof v4.sin_port);
      return put_field(field, bytes_of(text, 7));
    }
    case AF_INET6: {
      sockaddr_in6 v6{};
      memcpy(&v6, address, std::min<size_t>(length, sizeof v6));
      text[0] = 6;
      memcpy(text + 1, &v6.sin6_addr, sizeof v6.sin6_addr);
      memcpy(text + 17, &v6.sin6_scope_id, sizeof v6.sin6_scope_id);
      if (with_port) memcpy(text + 21, &v6.sin6_port, sizeof v6.sin6_port);
      return put_field(field, bytes_of(text, sizeof text));
    }
    case AF_UNIX: return put_field(field, unix_path(address, length));
    default: return put_field(field, bytes_of(address, length));  // Whatever it is: all of it.
  }
}

void ConnKeyBuffer::put_name(uint32_t field, std::string_view name) {
  if (name.ends_with('.')) name.remove_suffix(1);
  put_field(field, name);
  if (overflow_) return;
  char* const end = bytes_.data() + length_;
  std::transform(end - name.size(), end, end - name.size(), lower);
}

ConnKey ConnKeyBuffer::build(const ConnKeyParts& parts, HashKey secret) {
  length_ = 0;
  overflow_ = false;
  if (parts.destination != nullptr) {
    put_address(kDestination, parts.destination, parts.destination_length, true);
  }
  if (parts.source != nullptr) {
    put_address(kSource, parts.source, parts.source_length, parts.source_port);
  }
  if (!parts.interface.empty()) put_field(kInterface, parts.interface);
  if (!parts.network_namespace.empty()) put_field(kNamespace, parts.network_namespace);
  if (parts.has_mark) put_number(kMark, parts.mark);
  if (parts.has_tos) put_number(kTos, parts.tos);
  if (!parts.alpn.empty()) put_field(kAlpn, parts.alpn);
  if (parts.tls_profile != 0) {
    put_number(kTlsProfile, parts.tls_profile);
    // Without TLS a name was baked into nothing (haproxy 58555b865).
    if (!parts.sni.empty()) put_name(kSni, parts.sni);
  }
  if (!parts.proxy_header.empty()) put_field(kProxyHeader, parts.proxy_header);
  if (!parts.pool_name.empty()) put_field(kPoolName, parts.pool_name);
  return finish(parts.single_use, secret);
}

ConnKey ConnKeyBuffer::extend(std::string_view fixed, const Added& added, HashKey secret) {
  length_ = 0;
  overflow_ = false;
  put(fixed);
  if (!added.sni.empty()) put_name(kSni, added.sni);
  if (!added.proxy_header.empty()) put_field(kProxyHeader, added.proxy_header);
  if (!added.pool_name.empty()) put_field(kPoolName, added.pool_name);
  if (added.only_http1) put_field(kAlpn, "http/1.1");
  ConnKey key = finish(false, secret);
  key.sni = added.sni;
  key.preface = added.proxy_header;
  key.only_http1 = added.only_http1;
  return key;
}

ConnKey ConnKeyBuffer::finish(bool single_use, HashKey secret) const {
  const std::string_view bytes(bytes_.data(), length_);
  return {.bytes = bytes, .hash = hash_bytes(bytes, secret), .single_use = single_use || overflow_};
}

}  // namespace ringway
