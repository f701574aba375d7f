// lb/config/resolve.cc
#include "lb/config/resolve.h"

#include <algorithm>
#include <string>
#include <vector>

#include "lb/config/missing.h"

namespace ringway::config {
namespace {

class RouteResolver {
 public:
  RouteResolver(Reader& reader, uint32_t index, bool complete)
      : reader_(reader),
        route_(reader.draft.config.routes[index]),
        node_(*reader.draft.routes[index]),
        complete_(complete) {}

  void run() {
    resolve_action();
    resolve_listeners();
    const Node* timeouts = node_.find("timeouts");
    route_.has_timeouts = timeouts != nullptr && timeouts->kind == Node::Kind::kTable;
    if (!route_.has_timeouts || !has_upstream_) return;
    route_.timeouts = reader_.draft.config.upstreams[route_.upstream].timeouts;
    reader_.report.mute(true);  // reported when it was read for the first time
    read_section(reader_, timeouts_section(), *timeouts, "", &route_.timeouts);
    reader_.report.mute(false);
  }

 private:
  std::string title() const {
    return route_.name.empty() ? "this route" : "route \"" + route_.name + "\"";
  }

  void resolve_action() {
    const Node* first = nullptr;
    for (const char* name : {"upstream", "redirect", "respond", "reject"}) {
      const Node* action = node_.find(name);
      if (action == nullptr) continue;
      if (first != nullptr) {
        reader_.report
            .error("E0220", action->key_span,
                   title() + " has both `" + first->key + "` and `" + action->key + "`",
                   "a route does one thing")
            .notes.push_back("`" + first->key + "` is at " + reader_.report.place(first->key_span));
        continue;
      }
      first = action;
    }
    if (first == nullptr) {
      reader_.report.error("E0220", node_.defined_at(), title() + " does nothing",
                           "add `upstream`, `redirect`, `respond` or `reject`");
      return;
    }
    if (first->key == "upstream") {
      resolve_upstream(*first);
    } else if (first->key == "redirect") {
      route_.action = Action::kRedirect;
    } else {
      route_.action = Action::kRespond;
      if (first->key == "reject") {
        auto& respond = route_.respond;
        respond.body = std::to_string(respond.status) + " ";
        respond.body.append(http1::reason_phrase(respond.status)).append("\n");
      }
    }
  }

  void resolve_upstream(const Node& name) {
    if (name.kind != Node::Kind::kString || name.unresolved) return;
    if (name.text.find('{') != std::string::npos) {
      reader_.report.error("E0105", name.span, "expressions in `{...}` are not supported yet");
      return;
    }
    const auto& upstreams = reader_.draft.config.upstreams;
    const int64_t index = index_of(upstreams, name.text);
    if (index >= 0) {
      route_.upstream = static_cast<uint32_t>(index);
      has_upstream_ = true;
    } else if (complete_) {
      report_missing(reader_, "E0211", name,
                     title() + " sends to upstream \"" + name.text + "\", which does not exist",
                     upstreams, std::span<const Node* const>(reader_.draft.upstreams));
    }
  }

  void resolve_listeners() {
    const Node* names = node_.find("listeners");
    if (names == nullptr) {
      take_all_listeners();
      return;
    }
    if (names->kind == Node::Kind::kString) add_listener(*names);
    for (const Node& name : names->children) {
      if (name.kind == Node::Kind::kString) add_listener(name);
    }
    if (names->kind == Node::Kind::kArray && names->children.empty()) {
      reader_.report.error("E0212", names->span, title() + " has an empty list of listeners",
                           "leave `listeners` out to mean all of them");
    }
  }

  void add_listener(const Node& name) {
    if (name.unresolved) return;
    const auto& listeners = reader_.draft.config.listeners;
    const int64_t index = index_of(listeners, name.text);
    if (index >= 0) {
      const auto number = static_cast<uint32_t>(index);
      auto& mine = route_.listeners;
      if (std::find(mine.begin(), mine.end(), number) == mine.end()) mine.push_back(number);
    } else if (complete_) {
      report_missing(reader_, "E0212", name,
                     title() + " belongs to listener \"" + name.text + "\", which does not exist",
                     listeners, std::span<const Node* const>(reader_.draft.listeners));
    }
  }

  void take_all_listeners() {
    const Config& config = reader_.draft.config;
    const Protocol protocol =
        has_upstream_ ? config.upstreams[route_.upstream].protocol : Protocol::kHttp;
    for (uint32_t i = 0; i < config.listeners.size(); ++i) {
      if (config.listeners[i].protocol == protocol) route_.listeners.push_back(i);
    }
    if (!route_.listeners.empty() || !complete_ || config.listeners.empty()) return;
    const char* name = protocol == Protocol::kHttp ? "http" : "tcp";
    reader_.report.error(
        "E0215", node_.defined_at(),
        title() + " needs a listener with protocol = \"" + name + "\", and there is none");
  }

  Reader& reader_;
  Route& route_;
  const Node& node_;
  bool complete_;
  bool has_upstream_ = false;
};

// Servers that were inherited come with what was theirs there, and with the sources of this one.
void resolve_local(const Upstream& upstream, Server& server) {
  if (server.source_text.empty()) server.source_text = upstream.source_text;
  if (!server.source_text.empty()) (void)parse_source(server.source_text, server.local.source);
  server.local.interface = upstream.socket.interface;
  server.local.mark = upstream.socket.mark;
}

}  // namespace

void resolve(Reader& reader, bool complete) {
  resolve_tls(reader, complete);
  for (Upstream& upstream : reader.draft.config.upstreams) {
    for (Server& server : upstream.servers) {
      server.max_connections = upstream.pool.max_connections_per_server;
      resolve_local(upstream, server);
    }
    if (!upstream.health.send_proxy_given) upstream.health.send_proxy = upstream.send_proxy;
    // An inherited `choices` has no meaning for another algorithm.
    if (upstream.balance.algorithm != Algorithm::kLeastRequests) upstream.balance.choices = 0;
  }
  const auto routes = static_cast<uint32_t>(reader.draft.config.routes.size());
  for (uint32_t i = 0; i < routes; ++i) RouteResolver(reader, i, complete).run();
}

}  // namespace ringway::config
