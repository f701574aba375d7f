// tools/help.h - what `ringway --help` and `ringway COMMAND --help` print.
//
// Affinity: the main thread.
#pragma once

#include <string>
#include <string_view>

namespace ringway {

// True if there is a command of that name.
[[nodiscard]] bool is_command(std::string_view name);

// The whole manual.
[[nodiscard]] std::string manual();

// How `command` is called, and what it does. REQUIRES: is_command(command).
[[nodiscard]] std::string help_of(std::string_view command);

// The line that follows wrong usage: of `command`, or of all if there is none of that name.
[[nodiscard]] std::string usage_of(std::string_view command);

}  // namespace ringway
