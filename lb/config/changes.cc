// lb/config/changes.cc
#include "lb/config/changes.h"

#include <map>
#include <string_view>
#include <vector>

namespace ringway::config {
namespace {

constexpr size_t kNamesMax = 20;

using Names = std::vector<std::string_view>;

// "added listeners a, b and 3 more", behind what is there already.
void put(std::string& text, std::string_view verb, std::string_view kind, const Names& names) {
  if (names.empty()) return;
  if (!text.empty()) text += "; ";
  text += std::string(verb) + " " + std::string(kind) + (names.size() > 1 ? "s " : " ");
  for (size_t i = 0; i < names.size() && i < kNamesMax; ++i) {
    if (i > 0) text += ", ";
    text += names[i];
  }
  if (names.size() > kNamesMax) {
    text += " and " + std::to_string(names.size() - kNamesMax) + " more";
  }
}

template <typename Object>
std::map<std::string_view, const Object*> by_name(const std::vector<Object>& objects) {
  std::map<std::string_view, const Object*> found;
  for (const Object& object : objects) found.emplace(object.name, &object);
  return found;
}

// `same(old, now)` tells whether two of one name say the same.
template <typename Object, typename Same>
void compare(std::string& text, std::string_view kind, const std::vector<Object>& before,
             const std::vector<Object>& after, Same same) {
  const auto old = by_name(before);
  const auto now = by_name(after);
  Names added;
  Names changed;
  Names removed;
  for (const Object& object : after) {
    const auto found = old.find(object.name);
    if (found == old.end()) {
      added.push_back(object.name);
    } else if (!same(*found->second, object)) {
      changed.push_back(object.name);
    }
  }
  for (const Object& object : before) {
    if (!now.contains(object.name)) removed.push_back(object.name);
  }
  put(text, "added", kind, added);
  put(text, "changed", kind, changed);
  put(text, "removed", kind, removed);
}

// The names of those of `listeners` that `other` has too. A route without `listeners` stands for
// all that there are, and is not changed by one that comes or goes.
Names common(const Config& config, const std::vector<uint32_t>& listeners,
             const std::map<std::string_view, const Listener*>& other) {
  Names names;
  for (const uint32_t index : listeners) {
    const std::string& name = config.listeners[index].name;
    if (other.contains(name)) names.push_back(name);
  }
  return names;
}

// Indices mean something within their own configuration only, so what they stand for is compared.
class Pair {
 public:
  Pair(const Config& before, const Config& after)
      : before_(before),
        after_(after),
        old_listeners_(by_name(before.listeners)),
        new_listeners_(by_name(after.listeners)) {}

  [[nodiscard]] bool same(const Listener& old, const Listener& now) const {
    Listener aligned = old;
    aligned.tls = now.tls;
    if (!(aligned == now) || old.tls.has_value() != now.tls.has_value()) return false;
    return !old.tls || before_.tls_profiles[*old.tls].name == after_.tls_profiles[*now.tls].name;
  }
  [[nodiscard]] bool same(const Route& old, const Route& now) const {
    Route aligned = old;
    aligned.upstream = now.upstream;
    aligned.listeners = now.listeners;
    if (!(aligned == now) || common(before_, old.listeners, new_listeners_) !=
                                 common(after_, now.listeners, old_listeners_)) {
      return false;
    }
    return now.action != Action::kUpstream ||
           before_.upstreams[old.upstream].name == after_.upstreams[now.upstream].name;
  }
  [[nodiscard]] bool same(const TlsProfile& old, const TlsProfile& now) const {
    TlsProfile aligned = old;
    aligned.certificates = now.certificates;
    if (!(aligned == now) || old.certificates.size() != now.certificates.size()) return false;
    for (size_t i = 0; i < now.certificates.size(); ++i) {
      if (before_.tls_certificates[old.certificates[i]].name !=
          after_.tls_certificates[now.certificates[i]].name) {
        return false;
      }
    }
    return true;
  }

 private:
  const Config& before_;
  const Config& after_;
  const std::map<std::string_view, const Listener*> old_listeners_;
  const std::map<std::string_view, const Listener*> new_listeners_;
};

// The names of `routes` that `other` has too, in their order.
Names order_of(const std::vector<Route>& routes, const std::vector<Route>& other) {
  const auto there = by_name(other);
  Names names;
  for (const Route& route : routes) {
    if (there.contains(route.name)) names.push_back(route.name);
  }
  return names;
}

}  // namespace

std::string changes(const Config& before, const Config& after) {
  std::string text;
  const Pair pair(before, after);
  const auto equal = [](const auto& old, const auto& now) { return old == now; };
  const auto aligned = [&](const auto& old, const auto& now) { return pair.same(old, now); };
  compare(text, "listener", before.listeners, after.listeners, aligned);
  compare(text, "route", before.routes, after.routes, aligned);
  compare(text, "upstream", before.upstreams, after.upstreams, equal);
  compare(text, "TLS profile", before.tls_profiles, after.tls_profiles, aligned);
  compare(text, "TLS certificate", before.tls_certificates, after.tls_certificates, equal);
  Names rest;
  if (order_of(before.routes, after.routes) != order_of(after.routes, before.routes)) {
    rest.push_back("the order of the routes");
  }
  if (!(before.process == after.process)) rest.push_back("[process]");
  if (!(before.engine == after.engine)) rest.push_back("[engine]");
  if (!(before.access_log == after.access_log)) rest.push_back("[logs.access]");
  if (!(before.process_log == after.process_log)) rest.push_back("[logs.process]");
  if (!(before.metrics == after.metrics)) rest.push_back("[metrics]");
  if (!(before.admin == after.admin)) rest.push_back("[admin]");
  for (const std::string_view what : rest) {
    text += (text.empty() ? "changed " : "; changed ") + std::string(what);
  }
  return text;
}

}  // namespace ringway::config
