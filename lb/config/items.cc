// lb/config/items.cc - strings of the configuration that have a grammar of their own.
#include <net/if.h>
#include <re2/re2.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <utility>

#include "lb/config/store.h"
#include "lb/config/suggest.h"
#include "lb/config/values.h"

namespace ringway::config {
namespace {

constexpr size_t kBodyBytesMax = 16U << 10U;
constexpr size_t kPathBytesMax = 4096;
constexpr size_t kFieldBytesMax = 4096;
constexpr int64_t kRegexMemory = 1 << 20;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

std::string in_quotes(std::string_view text) {
  return "\"" + std::string(text) + "\"";
}

// Expressions in braces are part of the language, but not of this version.
bool refuse_expression(Reader& reader, const Node& node) {
  if (node.text.find('{') == std::string::npos) return false;
  reader.report.error("E0105", node.span, "expressions in `{...}` are not supported yet");
  return true;
}

// An absolute path of ASCII without query, fragment, blanks or control bytes.
bool valid_path(std::string_view text, bool query) {
  if (!text.starts_with('/') || text.size() > kPathBytesMax) return false;
  return std::all_of(text.begin(), text.end(), [query](char c) {
    return c > 0x20 && c < 0x7f && c != '#' && (query || c != '?');
  });
}

bool check_path(Reader& reader, const Key& key, const Node& node, bool query) {
  if (valid_path(node.text, query)) return true;
  const bool slash = node.text.starts_with('/');
  reader.report.error("E0311", node.span,
                      std::string("`") + key.name + "` must be an absolute path" +
                          (query ? "" : " without a query"),
                      slash ? "at most 4096 bytes; blanks, `#` and other bytes are percent-encoded"
                            : "it must begin with `/`");
  return false;
}

bool check_address(Reader& reader, const Node& node, ServerAddress& out) {
  if (parse_address(node.text, out)) return true;
  const std::string_view text = node.text;
  std::string label = "IP:port, [IPv6]:port or unix:/path";
  const size_t colon = text.rfind(':');
  const std::string_view port = colon == std::string_view::npos ? text : text.substr(colon + 1);
  const std::string_view host = colon == std::string_view::npos ? text : text.substr(0, colon);
  const bool number =
      !port.empty() && port.find_first_not_of("0123456789") == std::string_view::npos;
  if (number && (host.empty() || host == "*" || colon == std::string_view::npos)) {
    label = "write \"0.0.0.0:" + std::string(port) + "\" or \"[::]:" + std::string(port) + "\"";
  } else if (host.find(':') != std::string_view::npos && !host.starts_with('[')) {
    label = "an IPv6 address stands in brackets: \"[" + std::string(host) +
            "]:" + std::string(port) + "\"";
  } else if (number && host.find_first_not_of("0123456789.[]:") != std::string_view::npos) {
    label = "host names are not resolved: write the IP address";
  } else if (text.find_first_not_of("0123456789.") == std::string_view::npos) {
    label = "the port is missing";
  }
  reader.report.error("E0306", node.span, in_quotes(text) + " is no address", std::move(label));
  return false;
}

// Host names, "*.name" where `wildcard`, IPv6 literals in brackets.
bool valid_host(std::string_view host, bool wildcard) {
  if (wildcard && host.starts_with("*.")) host.remove_prefix(2);
  const bool literal = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (literal) {
    ServerAddress address;
    return parse_address(std::string(host) + ":1", address);
  }
  if (host.empty() || host.size() > 253) return false;
  if (host.front() == '.' || host.back() == '.' || host.find("..") != std::string_view::npos) {
    return false;
  }
  return std::all_of(host.begin(), host.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
  });
}

// "host" or "host:port".
bool valid_authority(std::string_view text) {
  const size_t colon = text.rfind(':');
  const size_t bracket = text.rfind(']');
  if (colon == std::string_view::npos || (bracket != std::string_view::npos && colon < bracket)) {
    return valid_host(text, false);
  }
  uint16_t port = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data() + colon + 1, end, port);
  return parsed.ec == std::errc{} && parsed.ptr == end && port != 0 &&
         valid_host(text.substr(0, colon), false);
}

bool check_output(Reader& reader, const Node& node, bool off) {
  const std::string_view text = node.text;
  if (text == "stdout" || text == "stderr" || (off && text == "off")) return true;
  if (text.starts_with("file:/") && text.size() > 6 && !has_control(text)) return true;
  for (const char* later : {"syslog+udp:", "syslog+tcp:", "unix:"}) {
    if (!text.starts_with(later)) continue;
    reader.report.error("E0105", node.span,
                        "`output = " + in_quotes(text) + "` is not supported yet");
    return false;
  }
  reader.report.error("E0305", node.span,
                      std::string("`output` must be \"stdout\", \"stderr\"") +
                          (off ? ", \"off\"" : "") + " or \"file:/path\"",
                      text.starts_with('/') ? "write \"file:" + node.text + "\"" : "");
  return false;
}

// Fields that the balancer writes itself: editing them would break framing or routing.
bool is_owned_field(std::string_view name) {
  constexpr std::string_view kOwned[] = {"connection",
                                         "content-length",
                                         "early-data",
                                         "host",
                                         "http2-settings",
                                         "keep-alive",
                                         "te",
                                         "trailer",
                                         "upgrade",
                                         "proxy-connection",
                                         "transfer-encoding"};
  return std::find(std::begin(kOwned), std::end(kOwned), name) != std::end(kOwned);
}

// Checks a field name of header edits; `span` is where it stands. "" if it is wrong.
std::string edited_field(Reader& reader, std::string_view text, const Span& span) {
  std::string name = lower(text);
  if (!http1::valid_field_name(name)) {
    reader.report.error("E0309", span, in_quotes(text) + " is no field name");
    return {};
  }
  if (is_owned_field(name)) {
    reader.report.error("E0318", span, "`" + name + "` cannot be changed",
                        "the balancer writes it itself");
    return {};
  }
  return name;
}

constexpr const char* kBadValue =
    "a field value has no line ends, no NUL, no blanks around it, and at most 4096 bytes";

bool valid_value(std::string_view text) {
  return text.size() <= kFieldBytesMax && http1::valid_field_value(text);
}

void edit(Reader& reader, const Node& node, std::vector<http1::HeaderEdits::NameValue>& out) {
  std::string name = edited_field(reader, node.key, node.key_span);
  if (refuse_expression(reader, node)) return;
  if (!valid_value(node.text)) {
    reader.report.error("E0309", node.span, kBadValue);
    return;
  }
  if (!name.empty()) out.push_back({std::move(name), node.text});
}

bool valid_method(std::string_view text) {
  return !text.empty() && text.size() <= 32 && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
  });
}

bool check_method(Reader& reader, const Node& node) {
  if (valid_method(node.text)) return true;
  std::string upper = node.text;
  for (char& c : upper) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  reader.report.error("E0303", node.span, in_quotes(node.text) + " is no method",
                      valid_method(upper) ? "methods are upper case: \"" + upper + "\"" : "");
  return false;
}

}  // namespace

namespace item {

void accept(Reader& /*reader*/, const Key& /*key*/, const Node& /*node*/, void* /*object*/) {}

void cpus(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  std::vector<uint32_t> parsed;
  if (node.text != "auto" && !parse_cpus(node.text, parsed)) {
    reader.report.error("E0314", node.span, in_quotes(node.text) + " is no list of CPUs",
                        "such as \"0-3,8\", each CPU once, or \"auto\"");
    return;
  }
  member<&Process::cpus>(object) = std::move(parsed);
}

void bind(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  Listener::Bind entry;
  if (!check_address(reader, node, entry.address)) return;
  entry.text = node.text;
  entry.position = reader.report.position(node.span);
  member<&Listener::bind>(object).push_back(std::move(entry));
}

void trusted_proxy(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  Network network;
  if (Network::parse(node.text, network)) {
    member<&Listener::trusted_proxies>(object).push_back(network);
    return;
  }
  reader.report.error("E0307", node.span, in_quotes(node.text) + " is no IP network",
                      "such as \"10.0.0.0/8\" or \"fd00::/8\", with no bits beyond the prefix");
}

void proxy_from(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  Network network;
  if (node.text == "unix") {
    member<&ProxyProtocol::from_unix>(object) = true;
  } else if (Network::parse(node.text, network)) {
    member<&ProxyProtocol::from>(object).push_back(network);
  } else {
    reader.report.error("E0307", node.span, in_quotes(node.text) + " is no IP network",
                        "such as \"10.0.0.0/8\" or \"fd00::/8\", or \"unix\"");
  }
}

void host(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  std::string name = lower(node.text);
  if (valid_host(name, true)) {
    member<&Match::host>(object).push_back(std::move(name));
    return;
  }
  std::string label = "such as \"example.com\" or \"*.example.com\"";
  if (name == "*") label = "leave `host` out to match any host";
  if (name.find(':') != std::string::npos && !name.starts_with('[')) {
    label = "hosts are compared without a port";
  }
  reader.report.error("E0310", node.span, in_quotes(node.text) + " is no host name",
                      std::move(label));
}

void sni(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  std::string name = lower(node.text);
  if (valid_host(name, true) && !name.starts_with('[')) {
    member<&Match::sni>(object).push_back(std::move(name));
    return;
  }
  reader.report.error("E0310", node.span, in_quotes(node.text) + " is no server name",
                      name == "*" ? "leave `sni` out to match any name, and none"
                                  : "such as \"db.example.com\" or \"*.example.com\"");
}

void alpn(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  if (!node.text.empty() && node.text.size() <= 255 && !has_control(node.text)) {
    member<&Match::alpn>(object).push_back(node.text);
    return;
  }
  reader.report.error("E0303", node.span, in_quotes(node.text) + " is no ALPN protocol name",
                      "such as \"h2\"");
}

void path(Reader& reader, const Key& key, const Node& node, void* object) {
  if (check_path(reader, key, node, false)) member<&Match::path>(object).push_back(node.text);
}

void path_prefix(Reader& reader, const Key& key, const Node& node, void* object) {
  if (check_path(reader, key, node, false)) {
    member<&Match::path_prefix>(object).push_back(node.text);
  }
}

void path_regex(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  re2::RE2::Options options;
  options.set_log_errors(false);
  options.set_max_mem(kRegexMemory);
  const re2::RE2 regex(node.text, options);
  if (!regex.ok()) {
    reader.report.error("E0308", node.span, "this regular expression does not compile",
                        regex.error());
    return;
  }
  member<&Match::path_regex>(object).push_back(node.text);
}

void method(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  if (check_method(reader, node)) member<&Match::method>(object).push_back(node.text);
}

void header_match(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  HeaderMatch match;
  match.name = lower(node.key);
  match.present = node.kind == Node::Kind::kBoolean;
  match.value = node.text;
  if (!http1::valid_field_name(match.name)) {
    reader.report.error("E0309", node.key_span, in_quotes(node.key) + " is no field name");
  } else if (!valid_value(match.value)) {
    reader.report.error("E0309", node.span, kBadValue);
  } else {
    member<&Match::headers>(object).push_back(std::move(match));
  }
}

void header_set(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  edit(reader, node, member<&http1::HeaderEdits::set>(object));
}

void header_add(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  edit(reader, node, member<&http1::HeaderEdits::add>(object));
}

void header_remove(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  std::string name = edited_field(reader, node.text, node.span);
  if (!name.empty()) member<&http1::HeaderEdits::remove>(object).push_back(std::move(name));
}

void route_name(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  if (node.text.empty() || node.text.size() > kWordMax || has_control(node.text)) {
    reader.report.error("E0319", node.span, "a name has 1 to 64 characters and no control bytes");
    return;
  }
  member<&Route::name>(object) = node.text;
}

void redirect_host(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  if (refuse_expression(reader, node)) return;
  const std::string host = lower(node.text);
  if (!valid_authority(host)) {
    reader.report.error("E0310", node.span, in_quotes(node.text) + " is no host name");
    return;
  }
  member<&Route::Redirect::host>(object) = host;
}

void redirect_path(Reader& reader, const Key& key, const Node& node, void* object) {
  if (refuse_expression(reader, node)) return;
  if (check_path(reader, key, node, true)) member<&Route::Redirect::path>(object) = node.text;
}

void respond_body(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  if (node.text.size() > kBodyBytesMax) {
    reader.report.error("E0304", node.span, "the body is longer than 16 KiB");
    return;
  }
  member<&Route::Respond::body>(object) = node.text;
}

void respond_content_type(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  if (node.text.find('/') == std::string::npos || node.text.size() > 256 ||
      !http1::valid_field_value(node.text)) {
    reader.report.error("E0309", node.span, in_quotes(node.text) + " is no media type",
                        "such as \"text/html\"");
    return;
  }
  member<&Route::Respond::content_type>(object) = node.text;
}

void strip_prefix(Reader& reader, const Key& key, const Node& node, void* object) {
  if (check_path(reader, key, node, false)) member<&Route::strip_prefix>(object) = node.text;
}

void server_name(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  if (node.text.empty() || node.text.size() > kWordMax || has_control(node.text)) {
    reader.report.error("E0319", node.span, "a name has 1 to 64 characters and no control bytes");
    return;
  }
  member<&Server::name>(object) = node.text;
}

void server_address(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  auto& server = *static_cast<Server*>(object);
  if (!check_address(reader, node, server.address)) return;
  if (node.text.ends_with(":0") && !node.text.starts_with("unix:")) {
    reader.report.error("E0306", node.span, "a server has no port 0");
    return;
  }
  server.address_text = node.text;
}

namespace {

// An address of this machine; the kernel chooses the port, so that there is one for each server.
bool check_source(Reader& reader, const Node& node) {
  ServerAddress address;
  if (parse_source(node.text, address)) return true;
  const bool ported = parse_address(node.text, address) && !node.text.starts_with("unix:");
  reader.report.error("E0306", node.span,
                      ported ? "a source has no port: the kernel chooses one per connection"
                             : in_quotes(node.text) + " is no IP address",
                      "\"10.0.0.5\" or \"2001:db8::5\"");
  return false;
}

}  // namespace

void server_source(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  if (check_source(reader, node)) member<&Server::source_text>(object) = node.text;
}

void upstream_source(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  if (check_source(reader, node)) member<&Upstream::source_text>(object) = node.text;
}

// As the kernel's dev_valid_name().
void socket_interface(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  const std::string& name = node.text;
  const bool valid = !name.empty() && name.size() < IFNAMSIZ && name != "." && name != ".." &&
                     std::none_of(name.begin(), name.end(), [](unsigned char c) {
                       return c <= ' ' || c == '/' || c == ':' || c == 0x7f;
                     });
  if (!valid) {
    reader.report.error("E0303", node.span, in_quotes(name) + " is no network interface",
                        "1 to 15 characters, such as \"eth1\"");
    return;
  }
  member<&ServerSocket::interface>(object) = name;
}

void health_method(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  if (check_method(reader, node)) member<&Health::method>(object) = node.text;
}

void health_path(Reader& reader, const Key& key, const Node& node, void* object) {
  if (check_path(reader, key, node, true)) member<&Health::path>(object) = node.text;
}

void health_host(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  const std::string host = lower(node.text);
  if (!valid_authority(host)) {
    reader.report.error("E0310", node.span, in_quotes(node.text) + " is no host name");
    return;
  }
  member<&Health::host>(object) = host;
}

// Names of gRPC services are made of identifiers and dots; health checks know no other rule.
void health_service(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  const bool printable = std::all_of(node.text.begin(), node.text.end(),
                                     [](unsigned char c) { return c > 0x20 && c < 0x7f; });
  if (node.text.empty() || node.text.size() > 255 || !printable) {
    reader.report.error("E0304", node.span,
                        "a service name has 1 to 255 printable characters and no space",
                        "such as \"package.Service\"; without `service` the whole server is asked");
    return;
  }
  member<&Health::service>(object) = node.text;
}

void pool_key(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  constexpr std::pair<std::string_view, PoolKey> kParts[] = {
      {"request.host", PoolKey::kRequestHost}, {"client.ip", PoolKey::kClientIp}};
  std::vector<PoolKey>& parts = member<&Pool::key>(object);
  for (const auto& [name, part] : kParts) {
    if (node.text != name) continue;
    if (std::find(parts.begin(), parts.end(), part) == parts.end()) parts.push_back(part);
    return;
  }
  reader.report.error("E0304", node.span,
                      in_quotes(node.text) + " is no part of a connection's key",
                      "\"request.host\" or \"client.ip\"");
}

void proxy_tlv(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  constexpr std::pair<std::string_view, bool ProxyTlvs::*> kWords[] = {
      {"alpn", &ProxyTlvs::alpn},           {"authority", &ProxyTlvs::authority},
      {"unique_id", &ProxyTlvs::unique_id}, {"ssl", &ProxyTlvs::ssl},
      {"netns", &ProxyTlvs::netns},         {"custom", &ProxyTlvs::custom},
      {"crc32c", &ProxyTlvs::crc32c}};
  for (const auto& [word, flag] : kWords) {
    if (node.text != word) continue;
    member<&Upstream::send_proxy_tlvs>(object).*flag = true;
    return;
  }
  reader.report.error("E0305", node.span, in_quotes(node.text) + " is no TLV",
                      "\"alpn\", \"authority\", \"unique_id\", \"ssl\", \"netns\", \"custom\" or "
                      "\"crc32c\"");
}

void expect_status(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  StatusRange range;
  const std::string_view text = node.text;
  const size_t dash = text.find('-');
  const auto number = [](std::string_view part, uint16_t& out) {
    const auto parsed = std::from_chars(part.data(), part.data() + part.size(), out);
    return parsed.ec == std::errc{} && parsed.ptr == part.data() + part.size() && out >= 100 &&
           out <= 599;
  };
  bool good = number(text.substr(0, dash), range.first);
  range.last = range.first;
  if (good && dash != std::string_view::npos) good = number(text.substr(dash + 1), range.last);
  if (!good || range.first > range.last) {
    reader.report.error("E0315", node.span, in_quotes(text) + " is no status or range of them",
                        "such as \"200\" or \"200-299\"");
    return;
  }
  member<&Health::expect_status>(object).push_back(range);
}

void expect_body(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  if (node.text.empty() || node.text.size() > 1024) {
    reader.report.error("E0304", node.span, "the expected text has 1 to 1024 bytes");
    return;
  }
  member<&Health::expect_body>(object) = node.text;
}

void access_output(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  if (!check_output(reader, node, true)) return;
  if (node.text == "off") {
    member<&AccessLog::enabled>(object) = false;
  } else {
    member<&AccessLog::output>(object) = node.text;
  }
}

void process_output(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  if (check_output(reader, node, false)) member<&ProcessLog::output>(object) = node.text;
}

void metrics_address(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  auto& metrics = *static_cast<Metrics*>(object);
  if (node.text == "off" || !check_address(reader, node, metrics.address)) return;
  metrics.enabled = true;
  metrics.address_text = node.text;
  metrics.position = reader.report.position(node.span);
}

void admin_socket(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  if (node.text == "off") return;
  ServerAddress address;
  const bool absolute = node.text.starts_with('/') && !has_control(node.text);
  if (!absolute || !parse_address("unix:" + node.text, address)) {
    reader.report.error("E0306", node.span, in_quotes(node.text) + " is no path of a socket",
                        absolute ? "at most 107 bytes" : "an absolute path, without \"unix:\"");
    return;
  }
  member<&Admin::socket>(object) = node.text;
}

void admin_mode(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  uint32_t mode = 0;
  const char* end = node.text.data() + node.text.size();
  const auto parsed = std::from_chars(node.text.data(), end, mode, 8);
  const bool good = parsed.ec == std::errc{} && parsed.ptr == end && node.text.size() <= 4;
  if (!good || mode > 0777 || (mode & 0600U) != 0600U) {
    reader.report.error("E0303", node.span, in_quotes(node.text) + " is no mode of a socket",
                        good ? "the owner must be able to read and write: \"0600\", \"0660\""
                             : "octal digits, such as \"0600\" or \"0660\"");
    return;
  }
  member<&Admin::mode>(object) = mode;
}

}  // namespace item
}  // namespace ringway::config
