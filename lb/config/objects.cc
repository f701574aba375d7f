// lb/config/objects.cc - reads named objects: listeners, routes, upstreams, servers, TLS.
#include <algorithm>
#include <string>
#include <vector>

#include "lb/config/store.h"
#include "lb/config/suggest.h"

namespace ringway::config {
namespace {

constexpr uint32_t kExtendsMax = 3;

// Names become metric labels and parts of paths.
void check_name(Reader& reader, const Node& node) {
  const std::string_view name = node.key;
  const bool good =
      !name.empty() && name.size() <= kWordMax && std::all_of(name.begin(), name.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_' || c == '-' || c == '.';
      });
  if (good) return;
  reader.report.error("E0319", node.key_span,
                      "a name has 1 to 64 letters, digits, `_`, `-` and `.`");
}

// The upstream called `name` in the file, or null.
const Node* find_upstream(const Reader& reader, const std::string& name) {
  const Node* upstreams = reader.root.find("upstreams");
  if (upstreams == nullptr || upstreams->kind != Node::Kind::kTable) return nullptr;
  const Node* found = upstreams->find(name);
  return found != nullptr && found->kind == Node::Kind::kTable ? found : nullptr;
}

void report_no_base(Reader& reader, const Node& extends) {
  std::vector<std::string_view> names;
  const Node* upstreams = reader.root.find("upstreams");
  for (const Node& child : upstreams->children) names.emplace_back(child.key);
  const std::string near(closest(extends.text, names));
  reader.report.error("E0213", extends.span,
                      "upstream \"" + extends.text + "\", which this one extends, does not exist",
                      near.empty() ? "" : "did you mean \"" + near + "\"?");
}

// The upstreams that `node` extends, nearest first.
std::vector<const Node*> bases_of(Reader& reader, const Node& node) {
  std::vector<const Node*> bases;
  const Node* at = &node;
  for (;;) {
    const Node* extends = at->find("extends");
    if (extends == nullptr || extends->kind != Node::Kind::kString || extends->unresolved) {
      return bases;
    }
    const Node* base = find_upstream(reader, extends->text);
    if (base == nullptr) {
      if (at == &node) report_no_base(reader, *extends);
      return bases;
    }
    const bool circle = base == &node || std::find(bases.begin(), bases.end(), base) != bases.end();
    if (circle || bases.size() == kExtendsMax) {
      reader.report.error(
          "E0214", node.find("extends")->span,
          circle ? "upstreams that extend each other in a circle" : "`extends` is at most 3 deep");
      return bases;
    }
    bases.push_back(base);
    at = base;
  }
}

}  // namespace

namespace object {

void listener(Reader& reader, const Key& key, const Node& node, const std::string& where,
              void* /*parent*/) {
  check_name(reader, node);
  Listener& listener = reader.draft.config.listeners.emplace_back();
  reader.draft.listeners.push_back(&node);
  listener.name = node.key;
  listener.position = reader.report.position(node.defined_at());
  listener.timeouts = reader.draft.timeouts;
  read_section(reader, *key.section, node, where, &listener);
}

void upstream(Reader& reader, const Key& key, const Node& node, const std::string& where,
              void* /*parent*/) {
  check_name(reader, node);
  Upstream& upstream = reader.draft.config.upstreams.emplace_back();
  reader.draft.upstreams.push_back(&node);
  upstream.name = node.key;
  upstream.position = reader.report.position(node.defined_at());
  upstream.timeouts = reader.draft.timeouts;
  upstream.health = reader.draft.health;
  const std::vector<const Node*> bases = bases_of(reader, node);
  reader.report.mute(true);  // each base is reported where it stands itself
  for (size_t i = bases.size(); i-- > 0;) {
    read_section(reader, *key.section, *bases[i], where, &upstream);
  }
  reader.report.mute(false);
  read_section(reader, *key.section, node, where, &upstream);
}

void route(Reader& reader, const Key& key, const Node& node, const std::string& where,
           void* /*parent*/) {
  Route& route = reader.draft.config.routes.emplace_back();
  reader.draft.routes.push_back(&node);
  route.position = reader.report.position(node.defined_at());
  const Node* name = node.find("name");
  const bool named = name != nullptr && name->kind == Node::Kind::kString;
  read_section(reader, *key.section, node, named ? where + " \"" + name->text + "\"" : where,
               &route);
}

void server(Reader& reader, const Key& key, const Node& node, const std::string& where,
            void* parent) {
  Server server;
  server.position = reader.report.position(node.span);
  read_section(reader, *key.section, node, where, &server);
  if (server.name.empty()) server.name = server.address_text;
  member<&Upstream::servers>(parent).push_back(std::move(server));
}

void tls_profile(Reader& reader, const Key& key, const Node& node, const std::string& where,
                 void* /*parent*/) {
  check_name(reader, node);
  TlsProfile& profile = reader.draft.config.tls_profiles.emplace_back();
  reader.draft.tls_profiles.push_back(&node);
  profile.name = node.key;
  profile.position = reader.report.position(node.defined_at());
  read_section(reader, *key.section, node, where, &profile);
}

void tls_certificates(Reader& reader, const Key& key, const Node& node, const std::string& where,
                      void* /*parent*/) {
  check_name(reader, node);
  TlsCertificates& certificates = reader.draft.config.tls_certificates.emplace_back();
  reader.draft.tls_certificates.push_back(&node);
  certificates.name = node.key;
  certificates.position = reader.report.position(node.defined_at());
  read_section(reader, *key.section, node, where, &certificates);
}

}  // namespace object
}  // namespace ringway::config
