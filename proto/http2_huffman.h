// proto/http2_huffman.h - Huffman-coded strings of header blocks, decoded several bits at a time.
//
// nghttp2 decodes four bits at a time, which made up a third of what a request with 5 KB of fresh
// fields cost (docs/performance.md). So large blocks are rewritten before it gets them: the same
// fields, their strings plain. It keeps the tables and judges what is wrong with a block.
//
// Affinity:  pure functions, any thread.
// Source:    RFC 7541 5.1, 5.2, 6, appendix B.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace ringway::h2 {

// Room for the text of `coded_bytes`: the shortest code has 5 bits.
constexpr size_t huffman_room(size_t coded_bytes) {
  return coded_bytes * 8 / 5 + 2;
}

// Decodes one string into `room` of at least huffman_room() bytes, and sets `size`. False: it is
// not a code, has the end-of-string symbol in it, or more padding than the rest of a byte.
[[nodiscard]] bool huffman_decode(std::string_view coded, std::span<char> room, size_t& size);

// Rewrites `block` into `room` with all strings plain, and returns what was written. Empty: the
// block is broken or does not fit; nothing is said about why.
[[nodiscard]] std::string_view block_without_huffman(std::string_view block, std::span<char> room);

}  // namespace ringway::h2
