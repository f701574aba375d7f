// core/pem.cc
#include "core/pem.h"

#include <openssl/base64.h>
#include <openssl/mem.h>

#include <cstring>
#include <utility>

#include "core/base/check.h"

namespace ringway {
namespace {

constexpr std::string_view kBegin = "-----BEGIN ";
constexpr std::string_view kEnd = "-----END ";
constexpr std::string_view kDashes = "-----";

std::string_view trim(std::string_view line) {
  while (!line.empty() && (line.back() == ' ' || line.back() == '\t' || line.back() == '\r')) {
    line.remove_suffix(1);
  }
  while (!line.empty() && (line.front() == ' ' || line.front() == '\t')) line.remove_prefix(1);
  return line;
}

// The label of a boundary line, or "" if it is none.
std::string_view label_of(std::string_view line, std::string_view start) {
  if (!line.starts_with(start) || !line.ends_with(kDashes)) return {};
  if (line.size() <= start.size() + kDashes.size()) return {};
  line.remove_prefix(start.size());
  line.remove_suffix(kDashes.size());
  return line;
}

bool is_base64(std::string_view line) {
  for (const char c : line) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!letter && !(c >= '0' && c <= '9') && c != '+' && c != '/' && c != '=') return false;
  }
  return true;
}

}  // namespace

SecretBytes::SecretBytes(size_t size)
    : bytes_(size == 0 ? nullptr : new uint8_t[size]()), size_(size), capacity_(size) {}

SecretBytes::SecretBytes(std::string_view bytes) : SecretBytes(bytes.size()) {
  if (!bytes.empty()) std::memcpy(bytes_.get(), bytes.data(), bytes.size());
}

SecretBytes::~SecretBytes() {
  if (bytes_ != nullptr) OPENSSL_cleanse(bytes_.get(), capacity_);
}

SecretBytes::SecretBytes(SecretBytes&& other) noexcept
    : bytes_(std::move(other.bytes_)),
      size_(std::exchange(other.size_, 0)),
      capacity_(std::exchange(other.capacity_, 0)) {}

SecretBytes& SecretBytes::operator=(SecretBytes&& other) noexcept {
  if (this == &other) return *this;
  if (bytes_ != nullptr) OPENSSL_cleanse(bytes_.get(), capacity_);
  bytes_ = std::move(other.bytes_);
  size_ = std::exchange(other.size_, 0);
  capacity_ = std::exchange(other.capacity_, 0);
  return *this;
}

void SecretBytes::shrink(size_t size) {
  RW_CHECK(size <= size_);
  if (size < size_) OPENSSL_cleanse(bytes_.get() + size, size_ - size);
  size_ = size;
}

bool PemReader::next_line(std::string_view& line) {
  if (at_ >= text_.size()) return false;
  const size_t end = text_.find('\n', at_);
  line = trim(text_.substr(at_, end == std::string_view::npos ? end : end - at_));
  at_ = end == std::string_view::npos ? text_.size() : end + 1;
  ++line_;
  return true;
}

bool PemReader::fail(PemError error, uint32_t line) {
  error_ = error;
  error_line_ = line;
  at_ = text_.size();
  return false;
}

bool PemReader::next(PemBlock& block) {
  std::string_view line;
  while (next_line(line)) {
    if (!line.starts_with(kDashes)) continue;
    block.label = label_of(line, kBegin);
    if (!block.label.empty()) return read_body(block);
    if (!label_of(line, kEnd).empty()) return fail(PemError::kStrayEnd, line_);
    if (line.starts_with(kBegin) || line.starts_with(kEnd)) {
      return fail(PemError::kBadBoundary, line_);
    }
  }
  return false;
}

// Reads behind BEGIN up to END. Lines of base64 are joined, then decoded at once.
bool PemReader::read_body(PemBlock& block) {
  block.line = line_;
  block.encrypted = false;
  block.bytes = SecretBytes();
  SecretBytes joined(text_.size() - at_ < (64U << 10U) ? text_.size() - at_ : 64U << 10U);
  size_t length = 0;
  std::string_view line;
  for (;;) {
    if (!next_line(line)) return fail(PemError::kNoEnd, block.line);
    if (line.starts_with(kDashes)) break;
    if (line.find(':') != std::string_view::npos) {  // RFC 1421 4.6: a header
      block.encrypted = block.encrypted || line.find("ENCRYPTED") != std::string_view::npos;
      continue;
    }
    if (block.encrypted) continue;
    if (!is_base64(line) || length + line.size() > joined.size()) {
      return fail(PemError::kBadBase64, line_);
    }
    if (!line.empty()) std::memcpy(joined.data() + length, line.data(), line.size());
    length += line.size();
  }
  if (label_of(line, kEnd) != block.label) return fail(PemError::kNoEnd, block.line);
  if (block.encrypted) return true;
  size_t size = 0;
  SecretBytes decoded(length);
  if (length == 0 || EVP_DecodeBase64(decoded.data(), &size, length, joined.data(), length) != 1) {
    return fail(PemError::kBadBase64, block.line);
  }
  decoded.shrink(size);
  block.bytes = std::move(decoded);
  return true;
}

}  // namespace ringway
