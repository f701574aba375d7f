// tests/lb/config_schema_test.cc - every key of the schema is read, used and documented.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "lb/config/load.h"
#include "lb/config/schema.h"
#include "tests/lb/config_dump.h"

using namespace ringway::config;

namespace {

// The section's place in a complete document: what stands before the key and what after it.
struct Around {
  std::string before;
  std::string after;
};

const std::string kListener = "[listeners.web]\nbind = '127.0.0.1:80'\n";
const std::string kRoute = "[[routes]]\nname = 'r'\n";
const std::string kUpstream = "[upstreams.u]\nservers = [{ address = '127.0.0.1:81' }]\n";
const std::string kBase =
    "version = 1\n[tls.certificates]\nmain = { pem = '/m.pem' }\ntenants = { directory = '/d' }\n"
    "[tls.profiles.public]\ncertificates = 'main'\n";
const std::string kTcp = "protocol = 'tcp'\n";

std::string table(const Section& section) {
  std::string path = section.path;
  const auto replace = [&path](std::string_view from, std::string_view to) {
    const size_t at = path.find(from);
    if (at != std::string::npos) path.replace(at, from.size(), to);
  };
  replace("listeners.NAME", "listeners.web");
  replace("upstreams.NAME", "upstreams.u");
  replace("profiles.NAME", "profiles.p");
  replace("certificates.NAME", "certificates.c");
  return "[" + path + "]\n";
}

// What a key needs beside it to mean something.
std::string company(const std::string& path, std::string_view key) {
  if (path == "upstreams.NAME.balance" && key == "choices") return "algorithm = 'least_requests'\n";
  if (path == "upstreams.NAME.balance" && key == "key") return "algorithm = 'hash'\n";
  if (path == "upstreams.NAME.health" && key == "service") return "type = 'grpc'\n";
  if (path == "upstreams.NAME.health" && key != "type") return "type = 'http'\n";
  if (path == "listeners.NAME.limits" && key == "uri_bytes") return "header_bytes = '64KiB'\n";
  if (path == "listeners.NAME.proxy_protocol") {
    return std::string(key == "accept" ? "" : "accept = 'required'\n") +
           (key == "from" ? "" : "from = '10.0.0.0/8'\n");
  }
  if (path == "listeners.NAME.preread" && key != "sni") return "sni = true\n";
  if (path == "upstreams.NAME" && key == "send_proxy_tlvs") return "send_proxy_protocol = 'v2'\n";
  if (path == "tls.profiles.NAME" && key != "certificates") return "certificates = 'main'\n";
  if (path == "tls.certificates.NAME" && key == "watch") return "pem = '/c.pem'\n";
  if (path == "admin" && key == "socket_mode") return "socket = '/run/x'\n";
  return "";
}

Around place_of_route_key(const std::string& path, std::string_view key) {
  const std::string rest = kListener + kUpstream;
  if (path == "routes[]") {
    if (key == "name") return {kBase + rest + "[[routes]]\nupstream = 'u'\n", ""};
    return {kBase + rest + kRoute + (key == "upstream" ? "" : "upstream = 'u'\n"), ""};
  }
  const std::string inner = path.substr(9);
  if (inner == "match" && (key == "sni" || key == "alpn")) {
    return {kBase + kListener + kTcp + "preread = { sni = true }\n" + kUpstream + kTcp + kRoute +
                "upstream = 'u'\nmatch = { ",
            " }\n"};
  }
  if (inner == "redirect") {
    const char* other = key == "host" ? "path = '/x'" : "host = 'x'";
    return {kBase + rest + kRoute + "redirect = { " + other + ", ", " }\n"};
  }
  if (inner == "respond" || inner == "reject") {
    return {kBase + rest + kRoute + inner + " = { ", " }\n"};
  }
  return {kBase + rest + kRoute + "upstream = 'u'\n" + inner + " = { ", " }\n"};
}

Around place_of(const Section& section, std::string_view key) {
  const std::string path = section.path;
  const std::string route = kRoute + "upstream = 'u'\n";
  if (path.starts_with("routes[]")) return place_of_route_key(path, key);
  if (path == "upstreams.NAME.servers[]") {
    const char* address = key == "address" ? "" : "address = '127.0.0.1:81', ";
    return {kBase + kListener + route + "[upstreams.u]\nservers = [{ " + address, " }]\n"};
  }
  if (path == "listeners.NAME") {
    return {kBase + route + kUpstream + (key == "bind" ? "[listeners.web]\n" : kListener), ""};
  }
  if (path == "upstreams.NAME") {
    return {kBase + kListener + route + kUpstream + company(path, key), ""};
  }
  if (path == "listeners.NAME.preread") {
    return {
        kBase + kListener + kTcp + route + kUpstream + kTcp + table(section) + company(path, key),
        ""};
  }
  const bool header = path == "listeners.NAME.timeouts" && key == "proxy_header";
  const std::string extra = header ? "proxy_protocol = { accept = 'required', from = 'unix' }\n"
                            : key == "tls_handshake" ? "tls = 'public'\n"
                                                     : "";
  std::string head = table(section) + company(path, key);
  if (path == "upstreams.NAME.health.tls") {
    head = "[upstreams.u.health]\ntype = 'tls'\nhost = 'x'\n" + table(section);
  }
  if (path == "upstreams.NAME.health.expect") {
    head = "[upstreams.u.health]\ntype = 'http'\n" + table(section);
  }
  if ((path == "upstreams.NAME.pool" &&
       (key == "max_streams_per_connection" || key == "header_table" || key == "idle_ping")) ||
      (path == "upstreams.NAME.health" && key == "service")) {
    head = "http_versions = 'h2'\n" + head;
  }
  if (path.starts_with("tls.profiles.NAME.")) {
    head = "[tls.profiles.p]\ncertificates = 'main'\n" + head;
  }
  return {kBase + kListener + extra + route + kUpstream + head, ""};
}

bool is_leaf(const Key& key) {
  return key.section == nullptr;
}

std::string load(const std::string& text) {
  const LoadResult result = load_text(text, "test");
  INFO(text);
  INFO(render(result, false));
  REQUIRE(result.config != nullptr);
  return dump(*result.config);
}

// Keys that the walk below cannot vary alone; each has its own test.
bool has_own_test(const Section& section, std::string_view key) {
  const std::string path = section.path;
  return path.empty() || key == "protocol" || key == "extends" ||
         (path == "upstreams.NAME.balance" && key == "key") ||
         (path == "listeners.NAME.proxy_protocol" && key != "header_bytes") ||
         (path == "upstreams.NAME.health" && key == "type") ||
         (path == "routes[]" && (key == "listeners" || key == "upstream")) ||
         (path == "routes[]" && key == "name") ||
         (path == "tls.profiles.NAME" && key == "certificates") ||
         (path == "tls.certificates.NAME" && key != "watch") ||
         path == "tls.profiles.NAME.client_auth" || path == "upstreams.NAME.tls.certificate";
}

}  // namespace

// Goal: no key is accepted and then ignored. Each is set to its example, which differs from the
// default, and must change the Config.
TEST_CASE("schema: every key set to its example -> another Config") {
  uint32_t keys = 0;
  for (const Section* section : all_sections()) {
    for (const Key& key : section->keys) {
      if (!is_leaf(key) || has_own_test(*section, key.name)) continue;
      INFO("key " << section->path << " " << key.name);
      const Around place = place_of(*section, key.name);
      const std::string line = std::string(key.name) + " = ";
      const bool list = !place.after.empty();
      std::string plain = place.before + place.after;
      if (key.required) {
        plain = place.before + line + "'127.0.0.9:9'" + (list ? "" : "\n") + place.after;
      } else if (list) {
        plain = place.before.substr(0, place.before.find_last_not_of(", ") + 1) + place.after;
      }
      const std::string changed =
          place.before + line + key.example + (list ? "" : "\n") + place.after;
      CHECK(load(plain) != load(changed));
      ++keys;
    }
  }
  CHECK(keys > 60);
}

// Goal: the default that the documentation states is the one that holds.
TEST_CASE("schema: every key set to its documented default -> the same Config") {
  for (const Section* section : all_sections()) {
    for (const Key& key : section->keys) {
      if (!is_leaf(key) || *key.initial == '\0' || has_own_test(*section, key.name)) continue;
      INFO("key " << section->path << " " << key.name);
      const Around place = place_of(*section, key.name);
      const bool list = !place.after.empty();
      const std::string initial = key.initial;
      const bool bare = key.kind == Kind::kBoolean || initial.starts_with('[') ||
                        (key.kind == Kind::kInteger && initial.find_first_of("0123456789") == 0);
      const std::string line =
          std::string(key.name) + " = " + (bare ? initial : "'" + initial + "'");
      std::string plain = place.before + place.after;
      if (list)
        plain = place.before.substr(0, place.before.find_last_not_of(", ") + 1) + place.after;
      CHECK(load(plain) == load(place.before + line + (list ? "" : "\n") + place.after));
    }
  }
}

TEST_CASE("schema: a number just outside of its range -> E0304") {
  for (const Section* section : all_sections()) {
    for (const Key& key : section->keys) {
      if (key.kind != Kind::kInteger || !key.choices.empty() || *section->path == '\0') continue;
      INFO("key " << section->path << " " << key.name);
      const Around place = place_of(*section, key.name);
      const std::string end = place.after.empty() ? "\n" : place.after;
      const int64_t beyond[] = {static_cast<int64_t>(key.min) - 1,
                                static_cast<int64_t>(key.max) + 1};
      for (const int64_t number : beyond) {
        const LoadResult result =
            load_text(place.before + key.name + " = " + std::to_string(number) + end, "test");
        REQUIRE(result.errors() == 1);
        CHECK(result.diagnostics[0].code == "E0304");
      }
    }
  }
}

TEST_CASE("schema: a value of another type -> E0301 or E0302, for every key") {
  for (const Section* section : all_sections()) {
    for (const Key& key : section->keys) {
      if (!is_leaf(key) || *section->path == '\0') continue;
      INFO("key " << section->path << " " << key.name);
      const Around place = place_of(*section, key.name);
      const std::string end = place.after.empty() ? "\n" : place.after;
      const LoadResult result = load_text(place.before + key.name + " = 1979-05-27" + end, "test");
      REQUIRE(result.errors() >= 1);
      CHECK(std::any_of(result.diagnostics.begin(), result.diagnostics.end(),
                        [](const Diagnostic& d) { return d.code == "E0301"; }));
    }
  }
}

TEST_CASE("schema: every key that is not supported yet -> E0105 at the key") {
  for (const Section* section : all_sections()) {
    for (const std::string_view name : section->later) {
      INFO("key " << section->path << " " << name);
      const Around place =
          *section->path == '\0' ? Around{"version = 1\n", ""} : place_of(*section, name);
      const std::string end = place.after.empty() ? "\n" : place.after;
      const LoadResult result = load_text(place.before + std::string(name) + " = {}" + end, "test");
      CHECK(std::any_of(result.diagnostics.begin(), result.diagnostics.end(),
                        [](const Diagnostic& d) { return d.code == "E0105"; }));
    }
  }
}

TEST_CASE("schema: every word that is not supported yet -> E0105") {
  for (const Section* section : all_sections()) {
    for (const Key& key : section->keys) {
      for (const std::string_view word : key.later) {
        const Around place = place_of(*section, key.name);
        const LoadResult result = load_text(
            place.before + key.name + " = '" + std::string(word) + "'\n" + place.after, "test");
        CHECK(std::any_of(result.diagnostics.begin(), result.diagnostics.end(),
                          [](const Diagnostic& d) { return d.code == "E0105"; }));
      }
    }
  }
}

TEST_CASE("schema: all sections are reachable and listed once") {
  for (const Section* section : all_sections()) {
    for (const Key& key : section->keys) {
      CHECK(*key.doc != '\0');
      if (is_leaf(key)) CHECK(*key.example != '\0');
      if (is_leaf(key)) continue;
      CHECK(std::count(all_sections().begin(), all_sections().end(), key.section) == 1);
    }
  }
}
