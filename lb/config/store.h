// lb/config/store.h - where the schema's values go: small functions made from member pointers.
//
// Affinity: one thread. `object` is always the struct that the key's section describes.
#pragma once

#include <string>
#include <vector>

#include "lb/config/schema.h"

namespace ringway::config {

template <class Member>
struct MemberOf;
template <class Owner_, class Value_>
struct MemberOf<Value_ Owner_::*> {
  using Owner = Owner_;
  using Value = Value_;
};

// The member that `M` points to, of the struct at `object`.
template <auto M>
typename MemberOf<decltype(M)>::Value& member(void* object) {
  return static_cast<typename MemberOf<decltype(M)>::Owner*>(object)->*M;
}

template <auto M>
void store(void* object, uint64_t value) {
  member<M>(object) = static_cast<typename MemberOf<decltype(M)>::Value>(value);
}

template <auto M>
void* into(void* object) {
  return &member<M>(object);
}

template <auto M>
void clear(void* object) {
  member<M>(object).clear();
}

// Reads an absolute path, with its place for what is found out when the file is read.
void read_path(Reader& reader, const Key& key, const Node& node, FilePath& out);

// Reads a field name that the balancer writes, lower case; "off": empty.
void read_own_name(Reader& reader, const Key& key, const Node& node, std::string& out);

// Items of the schema that need a look of their own; defined in items.cc and items_tls.cc. Each
// reports what is wrong with `node` and stores it otherwise.
namespace item {
using Text = void(Reader& reader, const Key& key, const Node& node, void* object);
Text accept;  // checked where names are resolved (resolve.cc)
Text cpus;
Text bind;
Text trusted_proxy;
Text proxy_from;
Text http_version;
Text server_http_version;
Text host;
Text sni;
Text alpn;
Text client_certificate;
Text path;
Text path_prefix;
Text path_regex;
Text method;
Text header_match;
Text header_set;
Text header_add;
Text header_remove;
Text route_name;
Text redirect_host;
Text redirect_path;
Text respond_body;
Text respond_content_type;
Text strip_prefix;
Text server_name;
Text server_address;
Text server_source;
Text upstream_source;
Text socket_interface;
Text pool_key;
Text proxy_tlv;
Text health_method;
Text health_path;
Text health_host;
Text health_service;
Text expect_status;
Text expect_body;
Text access_output;
Text process_output;
Text metrics_address;
Text admin_socket;
Text admin_mode;
Text cipher;
Text group;
Text handshake_rate;
Text upstream_ca;
Text health_ca;
Text upstream_sni;
}  // namespace item

// Objects of the schema; defined in objects.cc.
namespace object {
using Element = void(Reader& reader, const Key& key, const Node& node, const std::string& where,
                     void* parent);
Element listener;
Element route;
Element upstream;
Element server;
Element tls_profile;
Element tls_certificates;
}  // namespace object

}  // namespace ringway::config
