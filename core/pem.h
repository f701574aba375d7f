// core/pem.h - takes PEM text apart, block by block, and says at which line it is broken.
//
// Affinity:  pure, any thread. Ownership: views into the caller's text; decoded bytes are the
//            caller's and cleared when they are destroyed.
// Why:       BoringSSL's reader knows no line numbers, and "bad PEM" in a file of thirty
//            certificates helps nobody.
// Source:    RFC 7468.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

namespace ringway {

// Bytes that are overwritten with zeros before their memory is freed: keys, and files with keys.
class SecretBytes {
 public:
  SecretBytes() = default;
  explicit SecretBytes(size_t size);
  explicit SecretBytes(std::string_view bytes);
  ~SecretBytes();
  SecretBytes(SecretBytes&& other) noexcept;
  SecretBytes& operator=(SecretBytes&& other) noexcept;
  SecretBytes(const SecretBytes&) = delete;
  SecretBytes& operator=(const SecretBytes&) = delete;

  [[nodiscard]] uint8_t* data() { return bytes_.get(); }
  [[nodiscard]] const uint8_t* data() const { return bytes_.get(); }
  [[nodiscard]] size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] std::string_view view() const {
    return {reinterpret_cast<const char*>(bytes_.get()), size_};
  }
  // Keeps the first `size` bytes and clears the others. REQUIRES: size <= size().
  void shrink(size_t size);

 private:
  std::unique_ptr<uint8_t[]> bytes_;
  size_t size_ = 0;      // in use
  size_t capacity_ = 0;  // allocated
};

enum class PemError : uint8_t {
  kNone,
  kNoEnd,       // a BEGIN line without its END line, or an END line of another label
  kStrayEnd,    // an END line without a BEGIN line
  kBadBase64,   // a character or a length that base64 does not have
  kBadBoundary  // a line that begins like a boundary but is none
};

// One block. `label` is what stands behind BEGIN: "CERTIFICATE".
struct PemBlock {
  std::string_view label;
  uint32_t line = 0;       // of BEGIN, from 1
  bool encrypted = false;  // by the headers of RFC 1421; `bytes` is then empty
  SecretBytes bytes;       // decoded
};

// Walks over the blocks of a text. Anything outside of blocks is skipped, as RFC 7468 2 allows.
class PemReader {
 public:
  explicit PemReader(std::string_view text) : text_(text) {}

  // Reads the next block. False at the end of the text, or when it is broken: see error().
  bool next(PemBlock& block);

  [[nodiscard]] PemError error() const { return error_; }
  [[nodiscard]] uint32_t line() const { return error_line_; }  // of the error, from 1

 private:
  bool next_line(std::string_view& line);
  bool fail(PemError error, uint32_t line);
  bool read_body(PemBlock& block);

  std::string_view text_;
  size_t at_ = 0;
  uint32_t line_ = 0;  // of the line that was read last
  PemError error_ = PemError::kNone;
  uint32_t error_line_ = 0;
};

}  // namespace ringway
