// tests/support/hpack.h - header blocks written by hand, so that they may hold anything, and sinks.
#pragma once

#include <nghttp2/nghttp2.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proto/http2_hpack.h"

namespace ringway::h2 {

using Pairs = std::vector<std::pair<std::string, std::string>>;

// RFC 7541 5.1, with `first` as the bits in front of the prefix of `bits` bits.
inline std::string hpack_integer(uint8_t first, unsigned bits, uint64_t number) {
  const uint64_t most = (uint64_t{1} << bits) - 1;
  if (number < most) return {static_cast<char>(first | number)};
  std::string out{static_cast<char>(first | most)};
  for (number -= most; number >= 128; number >>= 7) out += static_cast<char>((number & 127) | 128);
  return out + static_cast<char>(number);
}

// RFC 7541 5.2, without Huffman coding.
inline std::string hpack_string(std::string_view text) {
  return hpack_integer(0, 7, text.size()).append(text);
}

inline constexpr uint8_t kWithoutIndexing = 0x00;
inline constexpr uint8_t kNeverIndexed = 0x10;
inline constexpr uint8_t kWithIndexing = 0x40;

// A literal with a new name (RFC 7541 6.2).
inline std::string hpack_literal(std::string_view name, std::string_view value,
                                 uint8_t kind = kWithoutIndexing) {
  return static_cast<char>(kind) + hpack_string(name) + hpack_string(value);
}

inline std::string hpack_block(const Pairs& fields) {
  std::string block;
  for (const auto& [name, value] : fields) block += hpack_literal(name, value);
  return block;
}

inline std::string from_hex(std::string_view hex) {
  std::string bytes;
  int high = -1;
  for (const char c : hex) {
    if (c == ' ') continue;
    const int digit = c >= 'a' ? c - 'a' + 10 : c - '0';
    if (high >= 0) bytes += static_cast<char>(high << 4 | digit);
    high = high >= 0 ? -1 : digit;
  }
  return bytes;
}

// Keeps what it is handed.
struct Collector final : FieldSink {
  bool on_field(const HeaderField& field) override {
    fields.emplace_back(field.name, field.value);
    sensitive.push_back(field.sensitive);
    bytes += field.name.size() + field.value.size() + 32;
    return fields.size() < fields_max;
  }
  void on_cut() override { ++cuts; }

  Pairs fields;
  std::vector<bool> sensitive;
  size_t fields_max = SIZE_MAX;
  size_t bytes = 0;
  int cuts = 0;
};

// Decodes one block by nghttp2 alone. False: it is broken; `fields` has those in front of that.
inline bool decode_straight(std::string_view block, Pairs& fields) {
  nghttp2_hd_inflater* inflater = nullptr;
  bool good = nghttp2_hd_inflate_new(&inflater) == 0;
  const auto* at = reinterpret_cast<const uint8_t*>(block.data());
  size_t left = block.size();
  int flags = 0;
  while (good && (flags & NGHTTP2_HD_INFLATE_FINAL) == 0) {
    nghttp2_nv field;
    const ssize_t taken = nghttp2_hd_inflate_hd2(inflater, &field, &flags, at, left, 1);
    good = taken >= 0;
    if (!good) break;
    at += taken;
    left -= static_cast<size_t>(taken);
    if ((flags & NGHTTP2_HD_INFLATE_EMIT) == 0) continue;
    fields.emplace_back(std::string(reinterpret_cast<char*>(field.name), field.namelen),
                        std::string(reinterpret_cast<char*>(field.value), field.valuelen));
  }
  nghttp2_hd_inflate_del(inflater);
  return good;
}

// The views of `pairs`.
inline std::vector<HeaderField> fields_of(const Pairs& pairs) {
  std::vector<HeaderField> fields;
  for (const auto& [name, value] : pairs) fields.push_back({.name = name, .value = value});
  return fields;
}

}  // namespace ringway::h2
