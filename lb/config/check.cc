// lb/config/check.cc - checks of objects that were read: each by itself, then all together.
#include <algorithm>
#include <string>
#include <unordered_map>
#include <vector>

#include "lb/config/resolve.h"

namespace ringway::config {
namespace {

constexpr size_t kEditBytesMax = 32U << 10U;

constexpr const char* kTcpListener = "` is for HTTP, but this listener has protocol = \"tcp\"";

const char* word_of(Protocol protocol) {
  return protocol == Protocol::kHttp ? "http" : "tcp";
}

const char* family_text(int family) {
  if (family == AF_UNIX) return "is a unix socket";
  return family == AF_INET ? "has an IPv4 address" : "has an IPv6 address";
}

// The key that is `path` deep in `node`, or null.
const Node* find(const Node& node, const char* key, const char* inner = nullptr) {
  const Node* found = node.find(key);
  return found != nullptr && inner != nullptr ? found->find(inner) : found;
}

class Checker {
 public:
  Checker(Reader& reader, bool complete)
      : report_(reader.report), draft_(reader.draft), root_(reader.root), complete_(complete) {}

  void run() {
    check_version();
    for (size_t i = 0; i < draft_.listeners.size(); ++i) {
      check_listener(draft_.config.listeners[i], *draft_.listeners[i]);
    }
    for (size_t i = 0; i < draft_.upstreams.size(); ++i) {
      check_upstream(draft_.config.upstreams[i], *draft_.upstreams[i]);
    }
    for (size_t i = 0; i < draft_.routes.size(); ++i) {
      check_route(draft_.config.routes[i], *draft_.routes[i]);
    }
    check_binds();
    check_admin();
    check_route_names();
    if (complete_) check_presence();
    if (complete_ && !report_.failed()) check_use();
  }

 private:
  void conflict(const Node* node, std::string message, std::string label = {}) {
    if (node != nullptr) {
      report_.error("E0317", node->key_span, std::move(message), std::move(label));
    }
  }

  void check_version() {
    const Node* version = root_.find("version");
    if (version == nullptr || draft_.version <= 1) return;
    report_.error("E0103", version->span,
                  "version " + std::to_string(draft_.version) +
                      " of the language is newer than this"
                      " program, which reads version 1",
                  "update Ringway, or write 1");
  }

  void check_listener(const Listener& listener, const Node& node) {
    const Node* bind = node.find("bind");
    if (bind != nullptr && bind->kind == Node::Kind::kArray && bind->children.empty()) {
      report_.error("E0304", bind->span, "`bind` needs at least one address");
    }
    if (listener.limits.uri_bytes > listener.limits.header_bytes) {
      const Node* uri = find(node, "limits", "uri_bytes");
      conflict(uri != nullptr ? uri : find(node, "limits", "header_bytes"),
               "`uri_bytes` is more than `header_bytes`, which holds the target too");
    }
    check_proxy(listener, node);
    check_preread(listener, node);
    if (listener.protocol == Protocol::kHttp) return;
    for (const char* key : {"request_headers", "request_body", "client_idle", "keep_alive"}) {
      conflict(find(node, "timeouts", key), std::string("`") + key + kTcpListener);
    }
    for (const char* key : {"limits", "http_versions", "h2", "trusted_proxies", "forwarded",
                            "x_forwarded", "client_certificate_headers"}) {
      conflict(node.find(key), std::string("`") + key + kTcpListener);
    }
  }

  void check_proxy(const Listener& listener, const Node& node) {
    const ProxyProtocol& proxy = listener.proxy;
    const Node* table = node.find("proxy_protocol");
    if (proxy.accept == ProxyAccept::kOff) {
      for (const char* key : {"from", "header_bytes"}) {
        conflict(find(node, "proxy_protocol", key),
                 std::string("`") + key + "` has no effect while `accept` is \"off\"");
      }
      conflict(find(node, "timeouts", "proxy_header"),
               "`proxy_header` has no effect without `proxy_protocol`");
      return;
    }
    const Node* from = table->find("from");
    const bool broken = from != nullptr && !from->children.empty();
    if (!proxy.from.empty() || proxy.from_unix || broken) return;
    report_.error("E0106", (from != nullptr ? from : table)->defined_at(),
                  "`from` is missing: the networks whose PROXY headers are believed",
                  "such as from = [\"10.9.0.0/24\"]");
  }

  void check_preread(const Listener& listener, const Node& node) {
    if (listener.protocol == Protocol::kHttp && listener.preread.sni) {
      if (node.find("tls") != nullptr) return;
      conflict(node.find("preread"),
               "`preread` is for listeners with protocol = \"tcp\", and for HTTP with `tls`");
    } else if (listener.preread.sni) {
      conflict(node.find("tls"),
               "`preread.sni` passes TLS through, so `tls` never gets to speak it");
    } else {
      for (const char* key : {"timeout", "hello_bytes"}) {
        conflict(find(node, "preread", key),
                 std::string("`") + key + "` has no effect without sni = true");
      }
    }
  }

  void check_send_proxy(const Upstream& upstream, const Node& node) {
    if (upstream.send_proxy != ProxySend::kV2) {
      conflict(node.find("send_proxy_tlvs"),
               "`send_proxy_tlvs` belongs to send_proxy_protocol = \"v2\"");
    }
    if (upstream.send_proxy == ProxySend::kOff || upstream.pool.warm == 0) return;
    const Node* warm = find(node, "pool", "warm");
    conflict(warm != nullptr ? warm : node.find("send_proxy_protocol"),
             "`warm` connections have no client yet that `send_proxy_protocol` could name");
  }

  void check_versions(const Upstream& upstream, const Node& node) {
    if (!upstream.speaks(HttpVersion::kHttp2)) {
      for (const char* key : {"max_streams_per_connection", "header_table", "idle_ping"}) {
        conflict(find(node, "pool", key),
                 std::string("`") + key + "` is for HTTP/2: add \"h2\" to `http_versions`");
      }
      return;
    }
    const Node* at = node.find("http_versions");
    if (at == nullptr) return;  // An upstream that this one extends was told.
    if (!upstream.tls.enabled && upstream.http_versions.size() > 1) {
      conflict(at, "without `tls` nobody chooses between two versions",
               "name the one that the servers speak");
    }
  }

  void check_upstream(const Upstream& upstream, const Node& node) {
    const Node* servers = node.find("servers");
    // Broken servers and bases without servers are reported by themselves.
    const bool broken = servers != nullptr && !servers->children.empty();
    if (upstream.servers.empty() && !broken && node.find("extends") == nullptr) {
      report_.error("E0223", node.defined_at(), "upstream \"" + upstream.name + "\" has no servers",
                    "add servers = [{ address = \"10.0.0.1:8080\" }]");
    }
    check_servers(upstream, servers);
    check_local(upstream, node);
    check_balance(upstream, node);
    check_health(upstream, node);
    check_send_proxy(upstream, node);
    if (upstream.protocol == Protocol::kHttp) return check_versions(upstream, node);
    conflict(node.find("http_versions"),
             "`http_versions` is for HTTP, but this upstream has protocol = \"tcp\"");
    conflict(node.find("pool"), "`pool` is for HTTP, but this upstream has protocol = \"tcp\"");
    for (const char* key : {"response_headers", "server_idle"}) {
      conflict(find(node, "timeouts", key),
               std::string("`") + key + "` is for HTTP, but this upstream has protocol = \"tcp\"",
               "TCP sessions have `tunnel_idle`");
    }
  }

  void check_servers(const Upstream& upstream, const Node* node) {
    // Only what stands here: inherited servers were checked at their own place.
    if (node == nullptr || node->kind != Node::Kind::kArray) return;
    if (node->children.size() != upstream.servers.size()) return;  // some were not even tables
    std::unordered_map<std::string_view, size_t> names;
    bool weight = false;
    for (size_t i = 0; i < upstream.servers.size(); ++i) {
      const Server& server = upstream.servers[i];
      weight = weight || (server.weight > 0 && server.state == ServerState::kReady);
      if (server.name.empty()) continue;
      const auto [known, fresh] = names.emplace(server.name, i);
      if (fresh) continue;
      const Node& item = node->children[i];
      const Node* name = item.find("name");
      const Node& at = name != nullptr ? *name : item;
      report_
          .error("E0218", at.span,
                 "two servers of \"" + upstream.name + "\" are called \"" + server.name + "\"",
                 name != nullptr ? "" : "give it a `name`")
          .notes.push_back("the first one is at " +
                           report_.place(node->children[known->second].span));
    }
    if (!weight && !upstream.servers.empty()) {
      report_.warning("W0404", node->span,
                      "every server of \"" + upstream.name +
                          "\" has weight 0 or is not ready, so none takes work");
    }
  }

  // A connection comes from an address of the family that it goes to. Nothing is said of what is
  // all inherited: its own place has said it.
  void check_local(const Upstream& upstream, const Node& node) {
    const Node* servers = node.find("servers");
    const bool own = servers != nullptr && servers->children.size() == upstream.servers.size();
    for (size_t i = 0; i < upstream.servers.size(); ++i) {
      check_local_end(upstream.servers[i], node, own ? &servers->children[i] : nullptr);
    }
  }

  // `item` is the server's node, if it stands in the upstream's.
  void check_local_end(const Server& server, const Node& node, const Node* item) {
    if (server.address_text.empty() || server.local.empty()) return;
    const int family = server.address.storage.ss_family;
    const ServerAddress& from = server.local.source;
    const bool foreign = from.length != 0 && from.storage.ss_family != family;
    if (!foreign && family != AF_UNIX) return;
    const Node* address = item != nullptr ? item->find("address") : nullptr;
    const Node* at = foreign && item != nullptr ? item->find("source") : nullptr;
    if (at == nullptr) at = node.find(foreign ? "source" : "socket");
    if (at == nullptr) at = address;
    if (at == nullptr) return;
    const std::string who = "server \"" + server.name + "\" " + family_text(family);
    Diagnostic& error =
        foreign
            ? report_.error("E0227", at->span,
                            who + ", so connections to it cannot come from " + server.source_text)
            : report_.error("E0227", at->defined_at(),
                            who + ", so `socket` has nothing to be set on");
    if (address == nullptr || address == at) return;
    error.notes.push_back("its address is at " + report_.place(address->span));
  }

  void check_balance(const Upstream& upstream, const Node& node) {
    const Algorithm algorithm = upstream.balance.algorithm;
    if (algorithm != Algorithm::kLeastRequests) {
      conflict(find(node, "balance", "choices"),
               "`choices` belongs to algorithm = \"least_requests\"");
    }
    if (algorithm != Algorithm::kHash) {
      conflict(find(node, "balance", "key"), "`key` belongs to algorithm = \"hash\"");
    }
  }

  void check_health(const Upstream& upstream, const Node& node) {
    const Health& health = upstream.health;
    const Node* table = node.find("health");
    if (table == nullptr || table->kind != Node::Kind::kTable) return;
    if (health.type == HealthType::kOff && table->find("type") == nullptr) {
      report_.error("E0106", table->defined_at(),
                    "`type` is missing in the health checks of \"" + node.key + "\"",
                    "add type = \"http\" or type = \"tcp\"");
    }
    check_health_keys(upstream, *table);
    if (health.timeout > health.interval) {
      const Node* at = table->find("timeout");
      report_.warning("W0403", (at != nullptr ? at : table)->defined_at(),
                      "a check may take longer than the interval between two checks");
    }
    if (health.fast_interval > health.interval) {
      const Node* at = table->find("fast_interval");
      report_.warning("W0403", (at != nullptr ? at : table)->defined_at(),
                      "`fast_interval` is longer than `interval`");
    }
  }

  // Nothing that the type does not use.
  void check_health_keys(const Upstream& upstream, const Node& table) {
    const HealthType type = upstream.health.type;
    if (type == HealthType::kOff) return;
    const bool asks = type == HealthType::kHttp || type == HealthType::kGrpc;
    if (type != HealthType::kHttp) {
      for (const char* key : {"method", "path", "expect"}) {
        conflict(table.find(key), std::string("`") + key + "` belongs to type = \"http\"");
      }
    }
    // Over TLS a host is the name that is asked for, where there is no fixed one.
    const bool names = upstream.tls.enabled ? upstream.tls.sni.empty() : type == HealthType::kTls;
    if (!asks && !names) conflict(table.find("host"), "`host` belongs to type = \"http\"");
    if (type != HealthType::kGrpc) {
      return conflict(table.find("service"), "`service` belongs to type = \"grpc\"");
    }
    if (upstream.protocol == Protocol::kTcp || upstream.speaks(HttpVersion::kHttp2)) return;
    const Node* at = table.find("type");
    conflict(at != nullptr ? at : &table,
             "type = \"grpc\" speaks HTTP/2, which this upstream does not",
             "add \"h2\" to `http_versions`");
  }

  void check_route(const Route& route, const Node& node) {
    check_protocols(route, node);
    const bool sends = node.find("upstream") != nullptr;
    for (const char* key : {"rewrite", "request_headers", "response_headers", "timeouts"}) {
      if (sends || (route.action == Action::kUpstream)) break;
      conflict(node.find(key), std::string("`") + key +
                                   "` has no effect on a route without "
                                   "`upstream`");
    }
    if (const Node* redirect = node.find("redirect");
        redirect != nullptr && redirect->kind == Node::Kind::kTable &&
        redirect->find("scheme") == nullptr && redirect->find("host") == nullptr &&
        redirect->find("path") == nullptr) {
      conflict(redirect, "this redirect leads back to itself", "give `scheme`, `host` or `path`");
    }
    const uint16_t status = route.respond.status;
    if (route.action == Action::kRespond && (status == 204 || status == 304)) {
      conflict(find(node, "respond", "body"),
               "a response with status " + std::to_string(status) + " has no body");
    }
    check_prefix(route, node);
    check_edits(route.request_headers, node.find("request_headers"));
    check_edits(route.response_headers, node.find("response_headers"));
  }

  // A head is written into a bounded buffer.
  void check_edits(const http1::HeaderEdits& edits, const Node* node) {
    size_t bytes = 0;
    for (const auto* list : {&edits.set, &edits.add}) {
      for (const auto& field : *list) bytes += field.name.size() + field.value.size() + 4;
    }
    if (node == nullptr || bytes <= kEditBytesMax) return;
    report_.error("E0304", node->key_span,
                  "the fields of `" + node->key + "` take " + std::to_string(bytes) +
                      " bytes, at most " + std::to_string(kEditBytesMax) + " are allowed");
  }

  // What is stripped should be something that the route takes.
  void check_prefix(const Route& route, const Node& node) {
    const Match& match = route.match;
    if (route.strip_prefix.empty() || !match.path_regex.empty()) return;
    if (match.path.empty() && match.path_prefix.empty()) return;
    const auto begins = [&](const std::string& path) {
      return path.starts_with(route.strip_prefix) || route.strip_prefix.starts_with(path);
    };
    if (std::any_of(match.path.begin(), match.path.end(), begins)) return;
    if (std::any_of(match.path_prefix.begin(), match.path_prefix.end(), begins)) return;
    const Node* at = find(node, "rewrite", "strip_prefix");
    if (at != nullptr) {
      report_.warning("W0406", at->span, "no path that this route takes begins like that");
    }
  }

  void check_protocols(const Route& route, const Node& node) {
    const Node* name = node.find("upstream");
    const bool known = name != nullptr && route.upstream < draft_.config.upstreams.size() &&
                       draft_.config.upstreams[route.upstream].name == name->text;
    const Upstream* upstream = known ? &draft_.config.upstreams[route.upstream] : nullptr;
    bool tcp = upstream != nullptr && upstream->protocol == Protocol::kTcp;
    for (const uint32_t index : route.listeners) {
      const Listener& listener = draft_.config.listeners[index];
      tcp = tcp || listener.protocol == Protocol::kTcp;
      if (upstream == nullptr || listener.protocol == upstream->protocol) continue;
      if (tcp && listener.preread.sni) {  // Passed through, beside what is decrypted.
        check_pass_through(route, node, listener);
        continue;
      }
      report_
          .error("E0215", name->span,
                 "listener \"" + listener.name + "\" has protocol = \"" +
                     word_of(listener.protocol) + "\", but upstream \"" + upstream->name +
                     "\" has \"" + word_of(upstream->protocol) + "\"")
          .notes.push_back("the listener is defined at " +
                           report_.place(draft_.listeners[index]->defined_at()));
      return;
    }
    check_tls_match(route, node, tcp);
    if (!tcp) return;
    for (const char* key :
         {"host", "path", "path_prefix", "path_regex", "method", "header", "client_certificate"}) {
      const Node* http = find(node, "match", key);
      if (http == nullptr) continue;
      report_.error("E0216", http->key_span,
                    std::string("`") + key + "` is for HTTP, but this route carries TCP");
    }
    for (const char* key : {"redirect", "respond", "reject", "rewrite", "request_headers",
                            "response_headers", "timeouts"}) {
      const Node* http = node.find(key);
      if (http == nullptr) continue;
      report_.error("E0216", http->key_span,
                    std::string("`") + key + "` is for HTTP, but this route carries TCP",
                    std::string(key) == "timeouts" ? "set them in the upstream" : "");
    }
  }

  // Without a name it would take everything, and nobody could be answered here.
  void check_pass_through(const Route& route, const Node& node, const Listener& listener) {
    if (!route.match.sni.empty() || !route.match.alpn.empty()) return;
    if (find(node, "match", "sni") != nullptr || find(node, "match", "alpn") != nullptr) return;
    conflict(node.find("upstream"),
             "listener \"" + listener.name +
                 "\" speaks HTTP, so a route to a TCP upstream needs `sni` or `alpn`",
             "or leave listener \"" + listener.name + "\" out");
  }

  // What a route can know of TLS, it knows from the hello that its listeners read.
  void check_tls_match(const Route& route, const Node& node, bool tcp) {
    for (const char* key : {"sni", "alpn"}) {
      const Node* wanted = find(node, "match", key);
      if (wanted == nullptr) continue;
      if (!tcp) {
        conflict(wanted, std::string("`") + key + "` is for TCP, but this route carries HTTP");
        continue;
      }
      for (const uint32_t index : route.listeners) {
        const Listener& listener = draft_.config.listeners[index];
        if (listener.preread.sni) continue;
        conflict(wanted, std::string("`") + key +
                             "` needs preread = { sni = true } on listener \"" + listener.name +
                             "\"");
        break;
      }
    }
  }

  void check_binds() {
    std::unordered_map<std::string, Span> seen;
    for (size_t i = 0; i < draft_.listeners.size(); ++i) {
      const Node* bind = draft_.listeners[i]->find("bind");
      if (bind == nullptr) continue;
      if (bind->kind == Node::Kind::kString) check_bind(seen, *bind);
      for (const Node& item : bind->children) check_bind(seen, item);
    }
    const Node* metrics = root_.find("metrics");
    const Node* prometheus = metrics != nullptr ? metrics->find("prometheus") : nullptr;
    if (prometheus != nullptr) check_bind(seen, *prometheus);
    const Node* admin = root_.find("admin");
    const Node* socket = admin != nullptr ? admin->find("socket") : nullptr;
    if (socket != nullptr && !draft_.config.admin.socket.empty()) {
      check_bound("unix:" + draft_.config.admin.socket, seen, *socket);
    }
  }

  void check_bind(std::unordered_map<std::string, Span>& seen, const Node& node) {
    ServerAddress address;
    if (node.kind != Node::Kind::kString || !parse_address(node.text, address)) return;
    const std::string text = address.text();
    if (text.ends_with(":0") && !text.starts_with("unix:")) return;  // the kernel chooses
    check_bound(text, seen, node);
  }

  void check_bound(const std::string& text, std::unordered_map<std::string, Span>& seen,
                   const Node& node) {
    const auto [known, fresh] = seen.emplace(text, node.span);
    if (fresh) return;
    report_.error("E0219", node.span, text + " is bound a second time")
        .notes.push_back("it is already bound at " + report_.place(known->second));
  }

  void check_admin() {
    const Node* admin = root_.find("admin");
    const Node* mode = admin != nullptr ? admin->find("socket_mode") : nullptr;
    if (mode == nullptr) return;
    if (admin->find("socket") == nullptr) {
      conflict(mode, "`socket_mode` has no effect without `socket`");
    } else if ((draft_.config.admin.mode & 0002U) != 0) {
      report_.warning("W0407", mode->span, "every user of this machine may operate the process",
                      "\"0600\", or \"0660\" with a group");
    }
  }

  void check_route_names() {
    std::unordered_map<std::string_view, size_t> seen;
    for (size_t i = 0; i < draft_.routes.size(); ++i) {
      const Route& route = draft_.config.routes[i];
      if (route.name.empty()) continue;
      const auto [known, fresh] = seen.emplace(route.name, i);
      if (fresh) continue;
      report_
          .error("E0217", draft_.routes[i]->find("name")->span,
                 "two routes are called \"" + route.name + "\"")
          .notes.push_back("the first one is at " +
                           report_.place(draft_.routes[known->second]->defined_at()));
    }
  }

  void check_presence() {
    const Span top{root_.span.file, 1, 1, 1};
    if (draft_.listeners.empty() && root_.find("listeners") == nullptr) {
      report_.error("E0221", top, "there is no listener", "add [listeners.NAME] with `bind`");
    }
    if (draft_.routes.empty() && root_.find("routes") == nullptr) {
      report_.error("E0222", top, "there is no route", "add [[routes]]");
    }
  }

  // Warnings about what is there but never reached; only of interest once all else is right.
  void check_use() {
    std::vector<bool> listeners(draft_.listeners.size());
    std::vector<bool> upstreams(draft_.upstreams.size());
    for (const Route& route : draft_.config.routes) {
      for (const uint32_t index : route.listeners) listeners[index] = true;
      if (route.action == Action::kUpstream) upstreams[route.upstream] = true;
    }
    for (const Node* node : draft_.upstreams) {  // one that others extend is of use
      const Node* extends = node->find("extends");
      for (size_t i = 0; extends != nullptr && i < upstreams.size(); ++i) {
        if (draft_.config.upstreams[i].name == extends->text) upstreams[i] = true;
      }
    }
    for (size_t i = 0; i < listeners.size(); ++i) {
      if (listeners[i]) continue;
      report_.warning("W0401", draft_.listeners[i]->defined_at(),
                      "no route belongs to listener \"" + draft_.config.listeners[i].name + "\"");
    }
    for (size_t i = 0; i < upstreams.size(); ++i) {
      if (upstreams[i]) continue;
      report_.warning("W0402", draft_.upstreams[i]->defined_at(),
                      "no route sends to upstream \"" + draft_.config.upstreams[i].name + "\"");
    }
  }

  Report& report_;
  Draft& draft_;
  const Node& root_;
  bool complete_;
};

}  // namespace

void report_shadowed(Reader& reader, uint32_t route, uint32_t by) {
  const auto& routes = reader.draft.config.routes;
  const auto& nodes = reader.draft.routes;
  reader.report
      .warning("W0410", nodes[route]->defined_at(),
               "route \"" + routes[route].name + "\" can never match",
               "\"" + routes[by].name + "\" takes all that it would take")
      .notes.push_back("that route stands before it, at " +
                       reader.report.place(nodes[by]->defined_at()));
}

void check(Reader& reader, bool complete) {
  check_tls(reader, complete);
  Checker(reader, complete).run();
}

}  // namespace ringway::config
