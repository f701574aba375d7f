// lb/tls/server_name.h - the names that servers are asked for, out of what the configuration says.
//
// Affinity:  pure functions; views point into their arguments.
#pragma once

#include <string_view>

namespace ringway {

// Of "example.com:8443" and "[::1]:8443" what is before the port. A name's final dot, which says
// that it is a whole one, has no place in TLS (RFC 6066 3), nor in certificates.
[[nodiscard]] inline std::string_view name_without_port(std::string_view host) {
  if (!host.starts_with('[')) {
    const std::string_view name = host.substr(0, host.rfind(':'));
    return name.size() > 1 && name.ends_with('.') ? name.substr(0, name.size() - 1) : name;
  }
  const size_t end = host.find(']');
  return end == std::string_view::npos ? host : host.substr(1, end - 1);
}

// What the certificate of the server at `address` must be for if no name is asked for: the IP
// address, of a unix socket "localhost".
[[nodiscard]] inline std::string_view name_of_address(std::string_view address) {
  return address.starts_with("unix:") ? std::string_view("localhost") : name_without_port(address);
}

}  // namespace ringway
