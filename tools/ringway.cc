// tools/ringway.cc - the command line.
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <vector>

#include "core/engine_report.h"
#include "core/version.h"
#include "lb/config/load.h"
#include "lb/tls/cert_check.h"
#include "tools/demo.h"
#include "tools/serve.h"

namespace {

using namespace ringway;  // NOLINT(google-build-using-namespace): a main() of ours

constexpr const char* kHelp =
    R"(RINGWAY(8)

NAME
    ringway - an io_uring load balancer for layer 4 and HTTP/1.1

SYNOPSIS
    ringway run FILE
    ringway check [--json] [--strict] FILE
    ringway explain CODE
    ringway schema [--markdown]
    ringway engine
    ringway demo
    ringway tcp [--engine=auto|io_uring|epoll] LISTEN SERVER...
    ringway --version | --help

COMMANDS
    run FILE    Loads FILE, starts one shard per core and serves until it is told to stop.
    check FILE  Loads FILE and says everything that is wrong with it, each with file, line, column,
                the source line and what to write instead; certificates that it names are read and
                checked too. Opens no socket.
                --json     the same as one JSON document, for editors and scripts
                --strict   warnings make the exit code 2
    explain C   What the diagnostic code C (E0104, say) means and how to mend it.
    schema      Prints a JSON Schema of the configuration file; --markdown prints the reference.
    engine      Prints what this kernel offers, what is used, what is not, and why.
    demo        Three origins and a balancer on a free loopback port, to try it out.
    tcp         Relays LISTEN to the SERVERs in turn, without a file.
                Addresses: 127.0.0.1:80, [::1]:80, unix:/path.

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
)";

int usage() {
  fputs(
      "usage: ringway run FILE | check [--json] [--strict] FILE | explain CODE | schema | engine |"
      " demo |\n       tcp [--engine=E] LISTEN SERVER... | --version | --help\n",
      stderr);
  return kExitUsage;
}

bool color_on(int fd) {
  return isatty(fd) != 0 && getenv("NO_COLOR") == nullptr;  // NOLINT(concurrency-mt-unsafe)
}

int run_file(const std::string& path) {
  config::LoadResult loaded = config::load_file(path);
  if (!loaded.diagnostics.empty()) {
    fputs(config::render(loaded, color_on(STDERR_FILENO)).c_str(), stderr);
  }
  if (loaded.config == nullptr) return kExitInvalid;
  const int code = serve(path, std::move(loaded.config));
  if (code != kExitInvalid) return code;
  // Perhaps a file that it names for TLS: the same words as `check` has for it.
  loaded = config::load_file(path);
  DiskCertFiles files;
  check_tls_files(loaded, files, time(nullptr));
  if (loaded.config == nullptr) {
    fputs(config::render(loaded, color_on(STDERR_FILENO)).c_str(), stderr);
  }
  return code;
}

int check(int argc, char** argv) {
  bool json = false;
  bool strict = false;
  const option options[] = {
      {"json", no_argument, nullptr, 'j'}, {"strict", no_argument, nullptr, 's'}, {}};
  for (int c; (c = getopt_long(argc, argv, "", options, nullptr)) != -1;) {  // NOLINT
    if (c == 'j') json = true;
    if (c == 's') strict = true;
    if (c == '?') return usage();
  }
  if (optind + 1 != argc) return usage();
  config::LoadResult loaded = config::load_file(argv[optind]);
  DiskCertFiles files;
  check_tls_files(loaded, files, time(nullptr));
  fputs((json ? config::render_json(loaded) : config::render(loaded, color_on(STDOUT_FILENO)))
            .c_str(),
        stdout);
  if (loaded.config == nullptr) return kExitInvalid;
  return strict && loaded.warnings() > 0 ? kExitUsage : kExitOk;
}

int explain(const char* code) {
  const std::string text = config::explain(code);
  if (text.empty()) {
    fprintf(stderr, "ringway: there is no diagnostic %s\n", code);
    return kExitUsage;
  }
  puts(text.c_str());
  return kExitOk;
}

// `tcp LISTEN SERVER...` is a configuration like any other; it is only written for the user.
int run_tcp(std::vector<std::string> words) {
  std::string engine = "auto";
  if (!words.empty() && words[0].starts_with("--engine=")) {
    engine = words[0].substr(9);
    words.erase(words.begin());
  }
  if (words.size() < 2) return usage();
  for (const std::string& word : words) {
    ServerAddress address;
    if (parse_address(word, address)) continue;
    fprintf(stderr, "ringway: \"%s\" is no address (127.0.0.1:80, [::1]:80, unix:/path)\n",
            word.c_str());
    return kExitUsage;
  }
  std::string text = "version = 1\n[engine]\nkind = \"" + engine +
                     "\"\n[process]\ndrain_timeout = \"10s\"\n[listeners.tcp]\nprotocol = \"tcp\"\n"
                     "bind = \"" +
                     words[0] +
                     "\"\n[[routes]]\nname = \"all\"\nupstream = \"servers\"\n"
                     "[upstreams.servers]\nprotocol = \"tcp\"\nservers = [";
  for (size_t i = 1; i < words.size(); ++i) {
    text += "{ name = \"s" + std::to_string(i) + "\", address = \"" + words[i] + "\" }, ";
  }
  text += "]\n";
  config::LoadResult loaded = config::load_text(text, "command line");
  if (loaded.config == nullptr) {
    fputs(config::render(loaded, color_on(STDERR_FILENO)).c_str(), stderr);
    return kExitUsage;
  }
  return serve("", std::move(loaded.config));
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  const std::vector<std::string> words(argv + std::min(argc, 2), argv + argc);
  if (command == "--version") return printf("ringway %s\n", kVersion), kExitOk;
  if (command == "--help") return fputs(kHelp, stdout), kExitOk;
  if (command == "run" && words.size() == 1) return run_file(words[0]);
  if (command == "check") return check(argc - 1, argv + 1);
  if (command == "explain" && words.size() == 1) return explain(words[0].c_str());
  if (command == "schema" && words.empty()) return puts(config::schema_json().c_str()), kExitOk;
  if (command == "schema" && words.size() == 1 && words[0] == "--markdown") {
    return puts(config::schema_markdown().c_str()), kExitOk;
  }
  if (command == "engine" && words.empty()) return puts(engine_report().c_str()), kExitOk;
  if (command == "demo" && words.empty()) return run_demo();
  if (command == "tcp") return run_tcp(words);
  return usage();
}
