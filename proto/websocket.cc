// proto/websocket.cc
#include "proto/websocket.h"

#include <openssl/base64.h>
#include <openssl/sha.h>

#include <array>
#include <cstdint>

#include "core/base/check.h"
#include "proto/http1_bytes.h"

namespace ringway::http1 {
namespace {

constexpr size_t kKeyBytes = 24;  // 16 in base64
constexpr std::string_view kMagic = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

}  // namespace

bool is_websocket(const Head& request) {
  if (!request.upgrade || request.method != Method::kGet) return false;
  const Field* found = nullptr;
  for (const Field& field : request.fields) {
    if (field.id != FieldId::kUpgrade) continue;
    if (found != nullptr) return false;
    found = &field;
  }
  return found != nullptr && equal_nocase(request.value(*found), "websocket");
}

std::string_view websocket_key(const Head& request) {
  const Field* field = request.find("sec-websocket-key");
  const std::string_view key = field == nullptr ? std::string_view() : request.value(*field);
  return key.size() == kKeyBytes && key.ends_with("==") ? key : std::string_view();
}

std::string_view websocket_accept(std::string_view key,
                                  std::span<char, kWebSocketAcceptBytes + 1> out) {
  SHA_CTX context;
  std::array<uint8_t, SHA_DIGEST_LENGTH> digest{};
  SHA1_Init(&context);
  SHA1_Update(&context, key.data(), key.size());
  SHA1_Update(&context, kMagic.data(), kMagic.size());
  SHA1_Final(digest.data(), &context);
  const size_t written =
      EVP_EncodeBlock(reinterpret_cast<uint8_t*>(out.data()), digest.data(), digest.size());
  RW_CHECK(written == kWebSocketAcceptBytes);
  return {out.data(), written};
}

}  // namespace ringway::http1
