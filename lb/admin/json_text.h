// lb/admin/json_text.h - what the admin interface sends of a JSON value.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace ringway {

// Names are the user's bytes: what is not UTF-8 is replaced.
[[nodiscard]] inline std::string text_of(const nlohmann::ordered_json& json) {
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace ringway
