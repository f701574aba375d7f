// tests/fuzz/certificate_fuzz.cc - any text as certificate, key and OCSP response: no crash, line
// endings do not matter, and what is loaded can be looked up.
//
// The input is up to three texts with a NUL between them. The key in the corpus is nobody's.
#include <openssl/err.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "core/base/check.h"
#include "core/tls_names.h"
#include "core/tls_ocsp.h"

using namespace ringway;

namespace {

std::string_view take(std::string_view& rest) {
  const size_t end = rest.find('\0');
  const std::string_view part = rest.substr(0, end);
  rest = end == std::string_view::npos ? std::string_view{} : rest.substr(end + 1);
  return part;
}

std::string with_crlf(std::string_view text) {
  std::string result;
  for (const char c : text) result.append(c == '\n' ? "\r\n" : std::string(1, c));
  return result;
}

void check_error(const TlsLoadError& error, const TlsLoadError& other) {
  RW_CHECK(error.cause == other.cause);
  RW_CHECK(error.in_key == other.in_key);
  RW_CHECK(error.line == other.line);
  RW_CHECK(!error.text().empty());
}

void check_loaded(const TlsCertificate& loaded, const TlsCertificate& other) {
  RW_CHECK(!loaded.chain.empty() && loaded.chain.size() <= kChainMax);
  RW_CHECK(loaded.chain == other.chain);
  RW_CHECK(!loaded.key.empty());
  RW_CHECK(loaded.key.view() == other.key.view());
  RW_CHECK(loaded.names == other.names);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(bytes), size);
  const std::string_view cert = take(rest);
  const std::string_view key = take(rest);
  auto loaded = load_certificate({.cert_pem = cert, .key_pem = key, .ocsp = rest});
  const std::string cert_crlf = with_crlf(cert);
  const std::string key_crlf = with_crlf(key);
  const auto other = load_certificate({.cert_pem = cert_crlf, .key_pem = key_crlf, .ocsp = rest});
  RW_CHECK(ERR_peek_error() == 0);
  RW_CHECK(loaded.has_value() == other.has_value());
  const OcspFacts facts = check_ocsp(rest, "\x01");
  RW_CHECK(facts.problem == nullptr || *facts.problem != '\0');
  if (!loaded) {
    check_error(loaded.error(), other.error());
    return 0;
  }
  check_loaded(*loaded, *other);
  const auto certificate = std::make_shared<const TlsCertificate>(std::move(*loaded));
  const TlsNames names({certificate});
  for (const std::string& name : certificate->names) {
    const bool wild = name.starts_with('*');
    const std::string asked = wild ? "x" + name.substr(1) : name;
    RW_CHECK(names.find(name).empty() == wild);
    if (!wild || name.starts_with("*.")) RW_CHECK(!names.find(asked).empty());
  }
  RW_CHECK(!names.fallback().empty());
  return 0;
}
