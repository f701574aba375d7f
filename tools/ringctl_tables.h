// tools/ringctl_tables.h - the admin API's JSON as tables for people.
#pragma once

#include <string>

namespace ringway {

// Each takes the body of a successful answer and returns lines; `bold` marks headings for a
// terminal. What is no such body is returned as it is.
[[nodiscard]] std::string servers_table(const std::string& json, bool bold);
[[nodiscard]] std::string pools_table(const std::string& json, bool bold);
[[nodiscard]] std::string shards_table(const std::string& json, bool bold);
// Any flat object: one line per member.
[[nodiscard]] std::string members_table(const std::string& json);

// The text of an error body: "error\nhint: ...\n".
[[nodiscard]] std::string error_text(int status, const std::string& json);

// Whether a change is in force on all shards, and whether a wait ran out.
struct ChangeOutcome {
  bool acknowledged = true;
  bool timed_out = false;
};
[[nodiscard]] ChangeOutcome outcome_of(const std::string& json);

}  // namespace ringway
