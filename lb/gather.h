// lb/gather.h - pieces of one message on their way out, with the chunk headers between them.
//
// Affinity: a local variable of one call. Bounds: kPieces; full() says when to send first.
#pragma once

#include <sys/uio.h>

#include <array>
#include <span>
#include <string_view>

#include "core/base/check.h"
#include "proto/http1_body.h"

namespace ringway {

// NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init): written before they are read
class Gather {
 public:
  // Room for one more chunk (header, bytes, CRLF) and the last one is needed.
  [[nodiscard]] bool full() const { return count_ + 6 > kPieces; }
  [[nodiscard]] bool empty() const { return count_ == 0; }
  [[nodiscard]] size_t bytes() const { return bytes_; }
  [[nodiscard]] std::span<const iovec> pieces() const { return std::span(pieces_).first(count_); }

  void add(std::string_view text) {
    if (text.empty()) return;
    RW_CHECK(count_ < kPieces);
    pieces_[count_++] = {.iov_base = const_cast<char*>(text.data()), .iov_len = text.size()};
    bytes_ += text.size();
  }
  void add_chunk(std::string_view text) {
    RW_CHECK(chunks_ < headers_.size());
    add(http1::chunk_header(text.size(), headers_[chunks_++]));
    add(text);
    add("\r\n");
  }
  // `trailers` must live until the pieces are sent.
  void add_last_chunk(std::string_view trailers) {
    add("0\r\n");
    add(trailers);
    add("\r\n");
  }
  void clear() { count_ = chunks_ = bytes_ = 0; }

 private:
  static constexpr size_t kPieces = 64;

  std::array<iovec, kPieces> pieces_;
  std::array<char[18], kPieces / 3> headers_;
  size_t count_ = 0;
  size_t chunks_ = 0;
  size_t bytes_ = 0;
};

}  // namespace ringway
