// lb/router.h - which route takes a request: the first in file order that matches.
//
// Affinity:  immutable after construction; find() is const and may run on all shards at once.
// Ownership: keeps a reference to the Config, which must outlive it.
// Bounds:    find() costs O(matching candidates), not O(routes): hosts, exact paths and prefixes
// are
//            indexed, so 500 host rules or 1000 prefixes cost about what one does.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "core/tls_facts.h"
#include "lb/config/config.h"
#include "proto/client_hello.h"
#include "proto/http1_head.h"

namespace ringway {

class Router {
 public:
  // Compiles the routes of `config`. REQUIRES: the regular expressions were checked by the loader.
  explicit Router(const config::Config& config);
  ~Router();
  Router(const Router&) = delete;
  Router& operator=(const Router&) = delete;

  // The route for a request on listener number `listener`, or nullptr (404). The host is compared
  // without case and without port. `certificate`: what became of the client's.
  [[nodiscard]] const config::Route* find(uint32_t listener, const http1::Head& head,
                                          TlsVerdict certificate = TlsVerdict::kNone) const;

  // The route for a session on listener number `listener` whose client said `hello`, if it is to be
  // passed on as it comes, or nullptr. Without a server name no route with `sni` matches. An empty
  // hello: nothing was read.
  [[nodiscard]] const config::Route* find_tcp(uint32_t listener,
                                              const tls::ClientHello& hello) const;

  // Names of routes that can never match since an earlier one takes all they would take, each with
  // that earlier one. For the loader's warnings.
  struct Shadowed {
    uint32_t route;
    uint32_t by;
  };
  [[nodiscard]] static std::vector<Shadowed> find_shadowed(const config::Config& config);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ringway
