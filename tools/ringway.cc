// tools/ringway.cc - the command line.
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "core/engine_report.h"
#include "core/version.h"
#include "lb/config/load.h"
#include "lb/tls/cert_check.h"
#include "tools/demo.h"
#include "tools/help.h"
#include "tools/serve.h"

namespace {

using namespace ringway;  // NOLINT(google-build-using-namespace): a main() of ours

int usage(std::string_view command) {
  fputs(usage_of(command).c_str(), stderr);
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
    if (c == '?') return usage("check");
  }
  if (optind + 1 != argc) return usage("check");
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
  if (words.size() < 2) return usage("tcp");
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

// A file of such a name can be given as ./--help.
bool is_help(std::string_view word) {
  return word == "--help" || word == "-h";
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  const std::vector<std::string> words(argv + std::min(argc, 2), argv + argc);
  if (command == "--version") return printf("ringway %s\n", kVersion), kExitOk;
  if (is_help(command)) return fputs(manual().c_str(), stdout), kExitOk;
  if (is_command(command) && std::any_of(words.begin(), words.end(), is_help)) {
    return fputs(help_of(command).c_str(), stdout), kExitOk;
  }
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
  return usage(command);
}
