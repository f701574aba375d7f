// lb/config/items_tls.cc - strings of the configuration that are about TLS.
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <utility>

#include "core/tls_facts.h"
#include "lb/config/store.h"
#include "lb/config/suggest.h"
#include "lb/config/values.h"
#include "proto/http1_write.h"

namespace ringway::config {
namespace {

constexpr uint64_t kHandshakesMax = 1'000'000;
constexpr std::string_view kModern[] = {
    "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"};
constexpr std::string_view kOlder[] = {"ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES128-SHA",
                                       "ECDHE-ECDSA-AES256-SHA", "ECDHE-RSA-AES256-SHA"};
// For suggestions; which of them exist is BoringSSL's to say.
constexpr std::string_view kGroupNames[] = {"X25519", "P-256", "P-384", "P-521"};

// The ciphers of TLS 1.2 that this BoringSSL has, without those for pre-shared keys.
struct Cipher {
  std::string_view openssl;
  std::string_view iana;
};
std::vector<Cipher> known_ciphers() {
  std::vector<Cipher> known;
  const bssl::UniquePtr<SSL_CTX> context(SSL_CTX_new(TLS_method()));
  if (context == nullptr || SSL_CTX_set_cipher_list(context.get(), "ALL") != 1) return known;
  for (const SSL_CIPHER* cipher : SSL_CTX_get_ciphers(context.get())) {
    const Cipher names{SSL_CIPHER_get_name(cipher), SSL_CIPHER_standard_name(cipher)};
    if (names.openssl.find("PSK") == std::string_view::npos) known.push_back(names);
  }
  return known;
}

void unknown_cipher(Reader& reader, const Node& node, const std::vector<Cipher>& known) {
  std::string label;
  if (node.text.starts_with("TLS_AES_") || node.text.starts_with("TLS_CHACHA20_")) {
    label = "TLS 1.3's ciphers cannot be chosen: all three are on";
  } else {
    std::vector<std::string_view> names{"modern", "intermediate"};
    for (const Cipher& cipher : known) names.push_back(cipher.openssl);
    const std::string near(closest(node.text, names));
    if (!near.empty()) label = "did you mean \"" + near + "\"?";
  }
  reader.report.error("E0320", node.span, "there is no cipher \"" + node.text + "\" for TLS 1.2",
                      std::move(label));
}

bool valid_server_name(std::string_view name) {
  if (name.empty() || name.size() > 253 || name.front() == '.' || name.back() == '.') return false;
  if (name.find("..") != std::string_view::npos) return false;
  const bool letters = std::any_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || c == '-' || c == '_';
  });
  // RFC 6066 3: addresses are no server names.
  return letters && std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
                  c == '_';
         });
}

}  // namespace

void read_path(Reader& reader, const Key& key, const Node& node, FilePath& out) {
  if (!node.text.starts_with('/') || node.text.size() < 2 || has_control(node.text)) {
    reader.report.error("E0303", node.span,
                        std::string("`") + key.name + "` must be an absolute path",
                        "it must begin with `/`");
    return;
  }
  out = {.path = node.text,
         .place = {.position = reader.report.position(node.span),
                   .length = node.span.length,
                   .source_line = std::string(reader.report.line(node.span.file, node.span.line))}};
  if (out.place.source_line.size() > kLineBytesMax) out.place.source_line.clear();
}

void read_own_name(Reader& reader, const Key& key, const Node& node, std::string& out) {
  std::string name = node.text;
  for (char& c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  if (name == key.word) {
    out.clear();
  } else if (!http1::valid_field_name(name)) {
    reader.report.error("E0309", node.span, "\"" + node.text + "\" is no field name");
  } else if (!http1::is_editable_field_name(name)) {
    reader.report.error("E0318", node.span, "`" + name + "` cannot be changed",
                        "the balancer writes it itself");
  } else {
    out = std::move(name);
  }
}

std::vector<std::string> modern_ciphers() {
  return {std::begin(kModern), std::end(kModern)};
}

namespace item {

void cipher(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  auto& ciphers = member<&TlsProfile::ciphers>(object);
  const bool intermediate = node.text == "intermediate";
  if (intermediate || node.text == "modern") {
    ciphers.insert(ciphers.end(), std::begin(kModern), std::end(kModern));
    if (intermediate) ciphers.insert(ciphers.end(), std::begin(kOlder), std::end(kOlder));
    return;
  }
  const std::vector<Cipher> known = known_ciphers();
  for (const Cipher& cipher : known) {
    if (node.text != cipher.openssl && node.text != cipher.iana) continue;
    ciphers.emplace_back(cipher.openssl);
    return;
  }
  unknown_cipher(reader, node, known);
}

void group(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  const bssl::UniquePtr<SSL_CTX> context(SSL_CTX_new(TLS_method()));
  const bool single = node.text.find(':') == std::string::npos;
  if (single && SSL_CTX_set1_curves_list(context.get(), node.text.c_str()) == 1) {
    member<&TlsProfile::groups>(object).push_back(node.text);
    return;
  }
  ERR_clear_error();
  const std::string near(closest(node.text, kGroupNames));
  reader.report.error(
      "E0321", node.span, "the TLS library has no group \"" + node.text + "\"",
      near.empty() ? "X25519, P-256, P-384 or P-521" : "did you mean \"" + near + "\"?");
}

void client_certificate(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  auto& bits = member<&Match::client_certificate>(object);
  constexpr auto kCount = static_cast<uint32_t>(TlsVerdict::kCount);
  constexpr uint32_t kGood =
      1U << static_cast<unsigned>(TlsVerdict::kNone) | 1U << static_cast<unsigned>(TlsVerdict::kOk);
  if (node.text == "refused") {
    bits |= ((1U << kCount) - 1) & ~kGood;
    return;
  }
  std::vector<std::string_view> names{"refused"};
  for (uint32_t i = 0; i < kCount; ++i) {
    names.push_back(name_of(static_cast<TlsVerdict>(i)));
    if (node.text != names.back()) continue;
    bits |= 1U << i;
    return;
  }
  const std::string near(closest(node.text, names));
  reader.report.error(
      "E0303", node.span, "\"" + node.text + "\" is nothing that a certificate can be",
      near.empty() ? "such as \"ok\", \"none\", \"refused\"" : "did you mean \"" + near + "\"?");
}

void handshake_rate(Reader& reader, const Key& key, const Node& node, void* object) {
  auto& rate = member<&TlsProfile::handshakes_per_shard>(object);
  const std::string& text = node.text;
  if (text == key.word) {
    rate = UINT64_MAX;
    return;
  }
  uint64_t number = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, number);
  const std::string_view rest(parsed.ptr, static_cast<size_t>(end - parsed.ptr));
  if (parsed.ec != std::errc{} || rest != "/s") {
    reader.report.error("E0303", node.span, "\"" + text + "\" is no rate",
                        "a whole number and `/s`, or \"off\"");
  } else if (number == 0 || number > kHandshakesMax) {
    reader.report.error("E0304", node.span,
                        std::string("`") + key.name + "` must be from \"1/s\" to \"" +
                            std::to_string(kHandshakesMax) + "/s\", or \"off\"");
  } else {
    rate = number;
  }
}

namespace {

void read_ca(Reader& reader, const Key& key, const Node& node, FilePath& ca) {
  if (node.text == key.word) {
    ca = {};
  } else {
    read_path(reader, key, node, ca);
  }
}

}  // namespace

void upstream_ca(Reader& reader, const Key& key, const Node& node, void* object) {
  read_ca(reader, key, node, member<&UpstreamTls::ca>(object));
}

void health_ca(Reader& reader, const Key& key, const Node& node, void* object) {
  read_ca(reader, key, node, member<&HealthTls::ca>(object));
}

void upstream_sni(Reader& reader, const Key& /*key*/, const Node& node, void* object) {
  auto& tls = *static_cast<UpstreamTls*>(object);
  std::string name = node.text;
  tls.sni_from_request = name == "{request.host}";
  tls.sni.clear();
  if (tls.sni_from_request) return;
  if (name.find('{') != std::string::npos) {
    reader.report.error("E0105", node.span,
                        "of expressions, only `{request.host}` is supported here yet");
    return;
  }
  for (char& c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  if (valid_server_name(name)) {
    tls.sni = std::move(name);
    return;
  }
  reader.report.error("E0310", node.span, "\"" + node.text + "\" is no name of a server",
                      "a host name without a port, or \"{request.host}\"");
}

}  // namespace item
}  // namespace ringway::config
