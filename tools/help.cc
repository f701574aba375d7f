// tools/help.cc
#include "tools/help.h"

#include "core/base/check.h"

namespace ringway {
namespace {

struct Command {
  std::string_view name;
  std::string_view arguments;
  std::string_view text;  // lines that end in a newline
};

constexpr Command kCommands[] = {
    {.name = "run",
     .arguments = "FILE",
     .text = "Loads FILE, starts one shard per core and serves until it is told to stop.\n"},
    {.name = "check",
     .arguments = "[--json] [--strict] FILE",
     .text = "Loads FILE and says everything that is wrong with it, each with file, line, column,\n"
             "the source line and what to write instead; certificates that it names are read and\n"
             "checked too. Opens no socket.\n"
             "--json     the same as one JSON document, for editors and scripts\n"
             "--strict   warnings make the exit code 2\n"},
    {.name = "explain",
     .arguments = "CODE",
     .text = "What the diagnostic CODE (E0104, say) means and how to mend it.\n"},
    {.name = "schema",
     .arguments = "[--markdown]",
     .text = "Prints a JSON Schema of the configuration file; --markdown prints the reference.\n"},
    {.name = "engine",
     .arguments = "",
     .text = "Prints what this kernel offers, what is used, what is not, and why.\n"},
    {.name = "demo",
     .arguments = "",
     .text = "Three origins and a balancer on a free loopback port, to try it out.\n"},
    {.name = "tcp",
     .arguments = "[--engine=auto|io_uring|epoll] LISTEN SERVER...",
     .text = "Relays LISTEN to the SERVERs in turn, without a file.\n"
             "Addresses: 127.0.0.1:80, [::1]:80, unix:/path.\n"},
};

constexpr std::string_view kName =
    R"(RINGWAY(8)

NAME
    ringway - an io_uring load balancer for layer 4, HTTP/1.1 and HTTP/2, with TLS on either side
)";

constexpr std::string_view kRest = R"(
FILE
    TOML; docs/configuration.md is the reference, docs/examples/ has complete ones. The shortest:

        version = 1
        [listeners.web]
        bind = "0.0.0.0:80"
        [[routes]]
        name = "all"
        upstream = "app"
        [upstreams.app]
        servers = [{ address = "10.0.0.1:8080" }, { address = "10.0.0.2:8080" }]

SIGNALS
    SIGHUP      Reload: the file is validated whole, compared by object name, and swapped in. An
                invalid file changes nothing. Log files are opened again as well.
    SIGUSR1     Opens the log files again.
    SIGTERM, SIGINT
                Drain: stop accepting, finish what runs (at most process.drain_timeout), exit 0.
                A second one closes everything at once.

EXIT STATUS
    0   stopped as asked; a valid file (check)
    1   invalid configuration, or an address that cannot be bound
    2   wrong usage; warnings under check --strict
    71  the environment forbids it: engine.kind = "io_uring" where the kernel refuses it

ENVIRONMENT
    NO_COLOR    No colours in diagnostics, which are otherwise used on a terminal only.

SEE ALSO
    ringctl     Operates a running ringway over the socket of [admin]: servers in and out, weights,
                limits, pools, metrics, reload. `ringctl --help`.
)";

const Command* find(std::string_view name) {
  for (const Command& command : kCommands) {
    if (command.name == name) return &command;
  }
  return nullptr;
}

std::string synopsis(const Command& command) {
  std::string text = "ringway " + std::string(command.name);
  if (!command.arguments.empty()) text += " " + std::string(command.arguments);
  return text;
}

// `name` in a column of its own, the lines of `text` beside it.
std::string entry(std::string_view name, std::string_view text) {
  constexpr size_t kColumn = 12;
  std::string out = "    " + std::string(name) + std::string(kColumn - name.size(), ' ');
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at) + 1;
    if (at > 0) out += std::string(4 + kColumn, ' ');
    out += text.substr(at, end - at);
    at = end;
  }
  return out;
}

}  // namespace

bool is_command(std::string_view name) {
  return find(name) != nullptr;
}

std::string manual() {
  std::string text = std::string(kName) + "\nSYNOPSIS\n";
  for (const Command& command : kCommands) text += "    " + synopsis(command) + "\n";
  text += "    ringway COMMAND --help\n    ringway --version | --help\n\nCOMMANDS\n";
  for (const Command& command : kCommands) text += entry(command.name, command.text);
  return text + std::string(kRest);
}

std::string help_of(std::string_view command) {
  const Command* found = find(command);
  RW_CHECK(found != nullptr);
  return "usage: " + synopsis(*found) + "\n\n" + std::string(found->text);
}

std::string usage_of(std::string_view command) {
  if (const Command* found = find(command); found != nullptr) {
    return "usage: " + synopsis(*found) + "\n";
  }
  std::string text = "usage: ringway COMMAND, which is one of";
  for (const Command& one : kCommands) text += " " + std::string(one.name);
  return text + "\n       ringway COMMAND --help | --version | --help\n";
}

}  // namespace ringway
