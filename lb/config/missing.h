// lb/config/missing.h - looks objects up by name, and says so when there is none.
//
// Affinity: one thread. O(n) in the number of objects.
#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lb/config/schema.h"
#include "lb/config/suggest.h"

namespace ringway::config {

// The index of the object called `name`, or -1.
template <class Object>
int64_t index_of(const std::vector<Object>& objects, std::string_view name) {
  const auto found = std::find_if(objects.begin(), objects.end(),
                                  [&](const Object& object) { return object.name == name; });
  return found == objects.end() ? -1 : found - objects.begin();
}

// Reports that `node` names an object that does not exist, and which one was probably meant.
// `nodes` are those of `objects`, in the same order.
template <class Object>
void report_missing(Reader& reader, const char* code, const Node& node, std::string message,
                    const std::vector<Object>& objects, std::span<const Node* const> nodes) {
  std::vector<std::string_view> names;
  names.reserve(objects.size());
  for (const Object& object : objects) names.emplace_back(object.name);
  const std::string near(closest(node.text, names));
  Diagnostic& diagnostic = reader.report.error(
      code, node.span, std::move(message), near.empty() ? "" : "did you mean \"" + near + "\"?");
  if (near.empty()) return;
  const Node& defined = *nodes[static_cast<size_t>(index_of(objects, near))];
  diagnostic.notes.push_back("\"" + near + "\" is defined at " +
                             reader.report.place(defined.defined_at()));
}

}  // namespace ringway::config
