// tools/ringctl.cc - operates a running ringway over its admin socket.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <string>

#include "core/version.h"
#include "tools/ringctl_client.h"
#include "tools/ringctl_tables.h"

using namespace ringway;

namespace {

constexpr int kExitOk = 0;
constexpr int kExitRefused = 1;  // wrong usage, or the process refused
constexpr int kExitNobody = 2;   // cannot connect

constexpr const char* kFooter =
    "\nEnvironment:\n"
    "  RINGWAY_ADMIN_SOCKET   the socket, if --socket is not given\n"
    "\nExit codes:\n"
    "  0  done\n"
    "  1  wrong usage, the process refused, or a --wait ran out\n"
    "  2  nobody can be reached at the socket\n"
    "\nExamples:\n"
    "  ringctl servers app\n"
    "  ringctl server app/s1 maintenance --wait 30 && reboot-it\n"
    "  ringctl server app/s1 enable\n"
    "  ringctl --json servers | jq '.servers[] | select(.health == \"down\")'\n"
    "\nThe socket is [admin] socket of the configuration. Whoever may open it may do all of this; "
    "every change\nis a line \"audit\" in the process log with the uid and pid that made it.\n";

constexpr const char* kServerHelp =
    "\nACTION:\n"
    "  enable                takes new work again\n"
    "  drain                 no new work; running requests finish, idle connections are closed\n"
    "  maintenance           the same, and it is not checked either; enabled again, it begins "
    "with\n"
    "                        what health.initial says\n"
    "  weight N              its share of the work, 0 to 1000\n"
    "  max-requests N|off    requests in flight\n"
    "  max-connections N|off connections\n"
    "  reset                 everything back to the configuration\n\n"
    "N may be \"configured\": back to the configuration. When the command returns, all shards "
    "have\n"
    "acted: none starts a request on a server that was taken out. What is set stays over reloads,\n"
    "unless one changes that very key.";

struct Options {
  std::string socket;
  bool json = false;
  std::string upstream;
  std::string target;
  std::string action;
  std::string value;
  int64_t wait_s = -1;
};

int complain(const std::string& text) {
  fputs(("ringctl: " + text).c_str(), stderr);
  return kExitRefused;
}

int usage_error(const std::string& text) {
  return complain(text + "\nTry: ringctl server --help\n");
}

using Render = std::string (*)(const std::string& json, bool bold);

// Asks, and prints the answer as JSON or through `render` (null: as it is).
int run(const Options& options, const AdminRequest& request, Render render,
        std::string* body = nullptr) {
  AdminReply reply;
  std::string error;
  if (!ask_admin(options.socket, request, reply, error)) {
    fprintf(stderr, "ringctl: %s: %s\n", options.socket.c_str(), error.c_str());
    return kExitNobody;
  }
  const bool good = reply.status >= 200 && reply.status < 300;
  if (!good && !options.json) return complain(error_text(reply.status, reply.body));
  const bool bold = isatty(STDOUT_FILENO) != 0;
  fputs((options.json || render == nullptr ? reply.body : render(reply.body, bold)).c_str(),
        stdout);
  if (body != nullptr) *body = reply.body;
  return good ? kExitOk : kExitRefused;
}

std::string members(const std::string& json, bool /*bold*/) {
  return members_table(json);
}

// The body of a PATCH for ACTION and VALUE, or "" with `error`.
std::string patch_of(const Options& options, std::string& error) {
  const std::string& action = options.action;
  const bool state = action == "enable" || action == "drain" || action == "maintenance";
  if (state || action == "reset") {
    if (!options.value.empty()) {
      error = "`" + action + "` takes no value";
      return "";
    }
    if (state) return "{\"state\": \"" + (action == "enable" ? "ready" : action) + "\"}";
    return "{\"state\": null, \"weight\": null, \"max_requests\": null, \"max_connections\": null}";
  }
  const std::string key = action == "weight"            ? "weight"
                          : action == "max-requests"    ? "max_requests"
                          : action == "max-connections" ? "max_connections"
                                                        : "";
  if (key.empty()) {
    error = "unknown action `" + action +
            "`: enable, drain, maintenance, weight, max-requests, max-connections or reset";
    return "";
  }
  const std::string& value = options.value;
  const bool number = !value.empty() && value.size() <= 10 &&
                      value.find_first_not_of("0123456789") == std::string::npos &&
                      (value.size() == 1 || value[0] != '0');
  if (number) return "{\"" + key + "\": " + value + "}";
  if (value == "configured") return "{\"" + key + "\": null}";
  if (value == "off" && key != "weight") return "{\"" + key + "\": \"off\"}";
  error = "`" + action + "` takes a number" + (key == "weight" ? "" : ", off") + " or configured";
  return "";
}

int run_server(const Options& options) {
  const size_t slash = options.target.find('/');
  if (slash == std::string::npos || slash == 0 || slash + 1 == options.target.size()) {
    return usage_error("`" + options.target + "` is no UPSTREAM/NAME");
  }
  AdminRequest request;
  request.target = "/v1/servers/" + percent_encode(options.target.substr(0, slash)) + "/" +
                   percent_encode(options.target.substr(slash + 1));
  if (options.wait_s >= 0) {
    request.target += "?wait=" + std::to_string(options.wait_s);
    request.patience_s += options.wait_s;
  }
  if (!options.action.empty()) {
    std::string error;
    request.method = "PATCH";
    request.body = patch_of(options, error);
    if (request.body.empty()) return usage_error(error);
  }
  std::string body;
  const int code = run(options, request, servers_table, &body);
  if (code != kExitOk) return code;
  const ChangeOutcome outcome = outcome_of(body);
  if (outcome.timed_out) {
    return complain("the server is not empty after " + std::to_string(options.wait_s) +
                    " s; the change is in force\n");
  }
  if (!outcome.acknowledged) {
    return complain("a connection to the server is still being made; the change is in force\n");
  }
  return kExitOk;
}

int run_reload(const Options& options) {
  return run(options, {.method = "POST", .target = "/v1/reload", .body = {}}, members);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  const char* from_environment = getenv("RINGWAY_ADMIN_SOCKET");  // NOLINT(concurrency-mt-unsafe)
  options.socket = from_environment != nullptr && *from_environment != '\0'
                       ? from_environment
                       : "/run/ringway/admin.sock";

  CLI::App app("Operates a running ringway: servers, pools, shards, metrics, reload.", "ringctl");
  app.set_version_flag("--version", std::string("ringctl ") + kVersion);
  app.add_option("--socket", options.socket, "The admin socket")->capture_default_str();
  app.add_flag("--json", options.json, "The API's JSON instead of tables");
  app.require_subcommand(1);
  app.fallthrough();

  CLI::App* servers = app.add_subcommand("servers", "Lists servers: state, health, load");
  servers->add_option("UPSTREAM", options.upstream, "Only those of this upstream");
  CLI::App* server = app.add_subcommand("server", "Shows one server, or changes it");
  server->footer(kServerHelp);
  server->add_option("UPSTREAM/NAME", options.target, "As `ringctl servers` lists it")->required();
  server->add_option("ACTION", options.action, "What to do; absent: show it");
  server->add_option("VALUE", options.value, "Of weight, max-requests and max-connections");
  server
      ->add_option("--wait", options.wait_s,
                   "Seconds to wait until nothing is left on the server: no request, no connection")
      ->check(CLI::Range(0, 86'400));
  CLI::App* pools = app.add_subcommand(
      "pools", "Where every server connection is: per shard, server and key; why closed");
  pools->add_option("UPSTREAM", options.upstream, "Only those of this upstream");
  CLI::App* shards = app.add_subcommand("shards", "Threads: CPU, engine, clients, ring counters");
  CLI::App* metrics = app.add_subcommand("metrics", "The metrics, in Prometheus' text format");
  CLI::App* config = app.add_subcommand("config", "The configuration in force: number, reloads");
  CLI::App* reload =
      app.add_subcommand("reload", "Loads the configuration again; an invalid one changes nothing");
  CLI::App* version = app.add_subcommand("version", "The version of the running process");
  app.footer(kFooter);  // After the commands, which would inherit it.

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitRefused;
  }
  const std::string filter =
      options.upstream.empty() ? "" : "?upstream=" + percent_encode(options.upstream);
  const auto get = [](std::string target) {
    AdminRequest request;
    request.target = std::move(target);
    return request;
  };
  if (servers->parsed()) return run(options, get("/v1/servers" + filter), servers_table);
  if (server->parsed()) return run_server(options);
  if (pools->parsed()) return run(options, get("/v1/pools" + filter), pools_table);
  if (shards->parsed()) return run(options, get("/v1/shards"), shards_table);
  if (metrics->parsed()) return run(options, get("/v1/metrics"), nullptr);
  if (config->parsed()) return run(options, get("/v1/config"), members);
  if (reload->parsed()) return run_reload(options);
  if (version->parsed()) return run(options, get("/v1/version"), members);
  return kExitRefused;
}
