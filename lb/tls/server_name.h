// lb/tls/server_name.h - the names that servers are asked for, out of what the configuration says.
//
// Affinity:  pure functions; views point into their arguments.
#pragma once

#include <string_view>

namespace ringway {

// Of "example.com:8443" and "[::1]:8443" what is before the port.
[[nodiscard]] inline std::string_view name_without_port(std::string_view host) {
  if (!host.starts_with('[')) return host.substr(0, host.rfind(':'));
  const size_t end = host.find(']');
  return end == std::string_view::npos ? host : host.substr(1, end - 1);
}

// What the certificate of the server at `address` must be for if no name is asked for: the IP
// address, of a unix socket "localhost".
[[nodiscard]] inline std::string_view name_of_address(std::string_view address) {
  return address.starts_with("unix:") ? std::string_view("localhost") : name_without_port(address);
}

}  // namespace ringway
