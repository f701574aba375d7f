// lb/engine_lines.cc
#include "lb/engine_lines.h"

#include <algorithm>

namespace ringway {
namespace {

// Each text once, in the order of their first places.
std::vector<std::string> distinct(std::span<const std::string> texts) {
  std::vector<std::string> found;
  for (const std::string& text : texts) {
    if (std::find(found.begin(), found.end(), text) == found.end()) found.push_back(text);
  }
  return found;
}

// "shard 3", "shards 0, 2-7"; empty for none.
std::string shards_with(std::span<const std::string> shards, const std::string& reason) {
  std::string text;
  size_t count = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    if (shards[i] != reason) continue;
    size_t last = i;
    while (last + 1 < shards.size() && shards[last + 1] == reason) ++last;
    if (count > 0) text += ", ";
    text += std::to_string(i);
    if (last > i) text += (last == i + 1 ? ", " : "-") + std::to_string(last);
    count += last - i + 1;
    i = last;
  }
  if (count == 0) return "";
  return (count == 1 ? "shard " : "shards ") + text;
}

}  // namespace

std::vector<std::string> engine_warnings(std::span<const std::string> shards,
                                         const std::string& control) {
  std::vector<std::string> all(shards.begin(), shards.end());
  all.push_back(control);
  std::vector<std::string> lines;
  for (const std::string& reason : distinct(all)) {
    if (reason.empty()) continue;
    std::string who = shards_with(shards, reason);
    if (control == reason) who += who.empty() ? "control" : " and control";
    who += ": ";
    lines.push_back(who + reason);
  }
  return lines;
}

std::string engine_summary(std::span<const std::string> names) {
  const std::vector<std::string> kinds = distinct(names);
  if (kinds.size() == 1) return kinds[0];
  std::string text;
  for (const std::string& kind : kinds) {
    const auto count = std::count(names.begin(), names.end(), kind);
    if (!text.empty()) text += ", ";
    text += kind + " (" + std::to_string(count) + (count == 1 ? " shard)" : " shards)");
  }
  return text;
}

}  // namespace ringway
