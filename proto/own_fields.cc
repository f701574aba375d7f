// proto/own_fields.cc
#include "proto/own_fields.h"

#include <algorithm>

namespace ringway::http1 {
namespace {

char fold(char c) {
  if (c >= 'A' && c <= 'Z') return static_cast<char>(c - 'A' + 'a');
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ? c : '-';
}

bool alike(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                            [](char x, char y) { return fold(x) == fold(y); });
}

}  // namespace

std::string fold_name(std::string_view name) {
  std::string folded(name);
  std::transform(folded.begin(), folded.end(), folded.begin(), fold);
  return folded;
}

bool is_own_name(std::string_view name, std::span<const std::string> folded) {
  return std::any_of(folded.begin(), folded.end(),
                     [name](const std::string& own) { return alike(name, own); });
}

bool OwnFields::removes(std::string_view name) const {
  const std::span<const Field> mine = fields();
  return is_own_name(name, removed_) ||
         std::any_of(mine.begin(), mine.end(),
                     [name](const Field& field) { return alike(name, field.name); });
}

}  // namespace ringway::http1
