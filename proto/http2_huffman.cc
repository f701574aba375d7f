// proto/http2_huffman.cc
#include "proto/http2_huffman.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

namespace ringway::h2 {
namespace {

constexpr size_t kSymbols = 257;
constexpr size_t kEndOfString = 256;
constexpr unsigned kLongest = 30;
// Two of the commonest letters, whose codes have 5 to 7 bits, are one step.
constexpr unsigned kTableBits = 14;

// The bits of each symbol's code (RFC 7541 appendix B). The code is canonical: codes of one length
// follow each other in the order of their symbols, behind those that are shorter.
constexpr std::array<uint8_t, kSymbols> kBits = {
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6,  10, 10, 12, 13, 6,  8,  11, 10, 10, 8,  11, 8,  6,  6,  6,
    5,  5,  5,  6,  6,  6,  6,  6,  6,  6,  7,  8,  15, 6,  12, 10, 13, 6,  7,  7,  7,  7,  7,  7,
    7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  8,  7,  8,  13, 19, 13, 14, 6,
    15, 5,  6,  5,  6,  5,  6,  6,  6,  5,  7,  7,  6,  6,  6,  5,  6,  7,  6,  5,  5,  6,  7,  7,
    7,  7,  7,  15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30};

// What the next kTableBits bits begin with.
struct Step {
  char first = 0;
  char second = 0;
  uint8_t letters = 0;  // 0: the first code is longer than the table knows
  uint8_t bits = 0;     // of all letters
};

// By length: the first code, and where its symbols begin in `symbols`.
struct Codes {
  std::array<uint32_t, kLongest + 1> first{};
  std::array<uint16_t, kLongest + 2> begin{};
  std::array<uint16_t, kSymbols> symbols{};
  std::array<uint32_t, kSymbols> code_of{};
};

constexpr Codes make_codes() {
  Codes codes;
  uint32_t code = 0;
  uint16_t at = 0;
  for (unsigned bits = 1; bits <= kLongest; ++bits) {
    code <<= 1;
    codes.first[bits] = code;
    codes.begin[bits] = at;
    for (uint16_t symbol = 0; symbol < kSymbols; ++symbol) {
      if (kBits[symbol] != bits) continue;
      codes.code_of[symbol] = code++;
      codes.symbols[at++] = symbol;
    }
  }
  codes.begin[kLongest + 1] = at;
  return codes;
}

constexpr Codes kCodes = make_codes();

using Table = std::array<Step, size_t{1} << kTableBits>;

constexpr void fill(Table& table, uint32_t code, unsigned bits, Step step) {
  const unsigned free = kTableBits - bits;
  step.bits = static_cast<uint8_t>(bits);
  for (uint32_t rest = 0; rest < uint32_t{1} << free; ++rest) table[code << free | rest] = step;
}

constexpr Table make_table() {
  Table table{};
  for (size_t first = 0; first < kEndOfString; ++first) {
    if (kBits[first] > kTableBits) continue;
    const uint32_t code = kCodes.code_of[first];
    fill(table, code, kBits[first], {.first = static_cast<char>(first), .letters = 1});
    for (size_t second = 0; second < kEndOfString; ++second) {
      const unsigned bits = kBits[first] + kBits[second];
      if (bits > kTableBits) continue;
      fill(table, code << kBits[second] | kCodes.code_of[second], bits,
           {.first = static_cast<char>(first), .second = static_cast<char>(second), .letters = 2});
    }
  }
  return table;
}

constexpr Table kTable = make_table();

uint64_t load64(const char* from) {
  uint64_t bytes;
  memcpy(&bytes, from, sizeof bytes);
  return std::endian::native == std::endian::little ? __builtin_bswap64(bytes) : bytes;
}

class Decoder {
 public:
  Decoder(std::string_view coded, char* out) : coded_(coded), end_(coded.size() * 8), out_(out) {}

  // Where the text ends; nullptr: no code.
  char* run() {
    while (at_ + 64 <= end_) {
      many_steps();
      if (!one_letter()) return nullptr;
    }
    while (at_ < end_) {
      if (is_padding()) return out_;
      if (!one_letter()) return nullptr;
    }
    return out_;
  }

 private:
  // The bits from here on, at least 57 of them, behind the end ones, as padding is.
  [[nodiscard]] uint64_t window() const {
    const size_t byte = at_ / 8;
    const size_t left = coded_.size() - byte;
    if (left >= 8) return load64(coded_.data() + byte) << (at_ % 8);
    char bytes[8];
    memset(bytes, 0xff, sizeof bytes);
    memcpy(bytes, coded_.data() + byte, left);
    return load64(bytes) << (at_ % 8);
  }

  // As long as 64 bits are left and the codes are short. What moves is kept out of memory, which
  // the letters written might be, for all the compiler knows.
  void many_steps() {
    char* out = out_;
    size_t at = at_;
    while (at + 64 <= end_) {
      uint64_t bits = load64(coded_.data() + at / 8) << (at % 8);
      Step step;
      for (int i = 0; i < 4; ++i) {  // at most 56 bits of 57
        step = kTable[bits >> (64 - kTableBits)];
        out[0] = step.first;
        out[1] = step.second;
        out += step.letters;
        bits <<= step.bits;
        at += step.bits;
      }
      if (step.letters == 0) break;  // A long code, which steps by nothing.
    }
    out_ = out;
    at_ = at;
  }

  bool one_letter() {
    const uint64_t bits = window();
    unsigned length = 5;
    uint32_t symbol = kEndOfString;
    if (const Step step = kTable[bits >> (64 - kTableBits)]; step.letters > 0) {
      symbol = static_cast<uint8_t>(step.first);
      length = kBits[symbol];
    } else {
      for (length = kTableBits + 1; length <= kLongest; ++length) {
        const auto code = static_cast<uint32_t>(bits >> (64 - length));
        const uint32_t place = kCodes.begin[length] + (code - kCodes.first[length]);
        if (code < kCodes.first[length] || place >= kCodes.begin[length + 1]) continue;
        symbol = kCodes.symbols[place];
        break;
      }
    }
    if (symbol == kEndOfString || at_ + length > end_) return false;
    *out_++ = static_cast<char>(symbol);
    at_ += length;
    return true;
  }

  // Less than a byte is left, and all of it ones.
  [[nodiscard]] bool is_padding() const {
    const size_t left = end_ - at_;
    return left < 8 && window() >> (64 - left) == (uint64_t{1} << left) - 1;
  }

  std::string_view coded_;
  size_t at_ = 0;  // in bits
  size_t end_;
  char* out_;
};

// Copies a block's representations, their strings plain.
class PlainWriter {
 public:
  PlainWriter(std::string_view block, std::span<char> room)
      : in_(block.data()),
        in_end_(in_ + block.size()),
        out_(room.data()),
        out_end_(out_ + room.size()) {}

  // Where the text ends; nullptr: broken, or no room.
  char* run() {
    while (in_ != in_end_) {
      const auto kind = static_cast<uint8_t>(*in_);
      uint32_t index = 0;
      if ((kind & 0x80) != 0) {  // 6.1: a field of the tables
        if (!copy_integer(7, index)) return nullptr;
      } else if ((kind & 0xe0) == 0x20) {  // 6.3: the size of the table
        if (!copy_integer(5, index)) return nullptr;
      } else {  // 6.2: with indexing, without, never
        if (!copy_integer((kind & 0x40) != 0 ? 6 : 4, index)) return nullptr;
        if (index == 0 && !copy_string()) return nullptr;
        if (!copy_string()) return nullptr;
      }
    }
    return out_;
  }

 private:
  static constexpr size_t kIntegerMax = 4;  // bytes: more than any table or string has

  // RFC 7541 5.1.
  bool read_integer(unsigned bits, uint32_t& value) {
    if (in_ == in_end_) return false;
    const uint32_t most = (1U << bits) - 1;
    value = static_cast<uint8_t>(*in_++) & most;
    if (value < most) return true;
    for (size_t i = 0; i + 1 < kIntegerMax && in_ != in_end_; ++i) {
      const auto byte = static_cast<uint8_t>(*in_++);
      value += static_cast<uint32_t>(byte & 0x7f) << (7 * i);
      if ((byte & 0x80) == 0) return true;
    }
    return false;
  }

  bool copy(const char* from, size_t size) {
    if (size > static_cast<size_t>(out_end_ - out_)) return false;
    memcpy(out_, from, size);
    out_ += size;
    return true;
  }

  bool copy_integer(unsigned bits, uint32_t& value) {
    const char* const from = in_;
    return read_integer(bits, value) && copy(from, static_cast<size_t>(in_ - from));
  }

  bool copy_string() {
    const char* const from = in_;
    uint32_t size = 0;
    if (in_ == in_end_ || !read_integer(7, size)) return false;
    if (size > static_cast<size_t>(in_end_ - in_)) return false;
    const std::string_view bytes(in_, size);
    in_ += size;
    if ((static_cast<uint8_t>(*from) & 0x80) == 0) {
      return copy(from, static_cast<size_t>(in_ - from));
    }
    return put_decoded(bytes);
  }

  // The length goes in front of what is not decoded yet: room is left for the one that is likely.
  bool put_decoded(std::string_view coded) {
    if (kIntegerMax + huffman_room(coded.size()) > static_cast<size_t>(out_end_ - out_)) {
      return false;
    }
    const size_t guess = coded.size() < 80 ? 1 : 2;
    char* const text = out_ + guess;
    size_t size = 0;
    if (!huffman_decode(coded, {text, static_cast<size_t>(out_end_ - text)}, size)) return false;
    char head[kIntegerMax];
    const size_t head_size = write_integer(size, head);
    if (head_size != guess) memmove(out_ + head_size, text, size);
    memcpy(out_, head, head_size);
    out_ += head_size + size;
    return true;
  }

  // With a prefix of 7 bits. `number` is less than 2 MiB, as what fits a room is.
  static size_t write_integer(size_t number, char* to) {
    if (number < 127) {
      *to = static_cast<char>(number);
      return 1;
    }
    size_t at = 0;
    to[at++] = 127;
    for (number -= 127; number >= 128; number >>= 7) {
      to[at++] = static_cast<char>((number & 127) | 128);
    }
    to[at++] = static_cast<char>(number);
    return at;
  }

  const char* in_;
  const char* in_end_;
  char* out_;
  char* out_end_;
};

}  // namespace

bool huffman_decode(std::string_view coded, std::span<char> room, size_t& size) {
  if (room.size() < huffman_room(coded.size())) return false;
  char* const end = Decoder(coded, room.data()).run();
  if (end == nullptr) return false;
  size = static_cast<size_t>(end - room.data());
  return true;
}

std::string_view block_without_huffman(std::string_view block, std::span<char> room) {
  const char* const end = PlainWriter(block, room).run();
  if (end == nullptr) return {};
  return {room.data(), static_cast<size_t>(end - room.data())};
}

}  // namespace ringway::h2
