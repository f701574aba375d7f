// proto/http1_bytes.h - byte classes and small text helpers shared by the HTTP/1 files.
//
// Affinity:  pure functions, any thread. Internal to proto.
// Source:    RFC 9110 5.6 (token, OWS), RFC 3986 (hexadecimal digits).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace ringway::http1 {

namespace bytes_internal {

constexpr std::array<bool, 256> make_token_table() {
  std::array<bool, 256> table{};
  for (const char c : std::string_view("!#$%&'*+-.^_`|~0123456789"
                                       "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")) {
    table[static_cast<uint8_t>(c)] = true;
  }
  return table;
}

inline constexpr std::array<bool, 256> kToken = make_token_table();

}  // namespace bytes_internal

// tchar of RFC 9110 5.6.2.
constexpr bool is_token_byte(char c) {
  return bytes_internal::kToken[static_cast<uint8_t>(c)];
}

// A token: one tchar or more.
constexpr bool is_token(std::string_view text) {
  for (const char c : text) {
    if (!is_token_byte(c)) return false;
  }
  return !text.empty();
}

constexpr bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

constexpr bool is_blank(char c) {
  return c == ' ' || c == '\t';
}

// US-ASCII control bytes: 0x00-0x1f and 0x7f.
constexpr bool is_control(char c) {
  return static_cast<uint8_t>(c) < 0x20 || static_cast<uint8_t>(c) == 0x7f;
}

constexpr char to_lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
}

// The value of a hexadecimal digit, or -1.
constexpr int hex_value(char c) {
  if (is_digit(c)) return c - '0';
  const char lower = to_lower(c);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// Equal when US-ASCII case is ignored.
inline bool equal_nocase(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (to_lower(a[i]) != to_lower(b[i])) return false;
  }
  return true;
}

// `text` without leading and trailing SP and HTAB (OWS, RFC 9110 5.6.3).
constexpr std::string_view trim(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

// Walks a comma list. Quoted strings are not looked into: for lists of tokens only.
class ListReader {
 public:
  constexpr explicit ListReader(std::string_view list) : rest_(list) {}

  // The next element, trimmed and maybe empty, as an empty list has one. False at the end.
  constexpr bool next(std::string_view& element) {
    if (!more_) return false;
    const size_t comma = rest_.find(',');
    element = trim(rest_.substr(0, comma));
    more_ = comma != std::string_view::npos;
    rest_.remove_prefix(more_ ? comma + 1 : rest_.size());
    return true;
  }

 private:
  std::string_view rest_;
  bool more_ = true;
};

// True if any of 8 bytes is a control byte. A borrow can only come from a byte that is one.
inline bool any_control(uint64_t bytes) {
  constexpr uint64_t kOnes = 0x0101010101010101;
  constexpr uint64_t kHigh = 0x80 * kOnes;
  const uint64_t below_space = (bytes - 0x20 * kOnes) & ~bytes;
  const uint64_t from_del = bytes ^ (0x7f * kOnes);
  return ((below_space | ((from_del - kOnes) & ~from_del)) & kHigh) != 0;
}

// The first control byte (HTAB included) in [at, end), or `end`. Reads 16 bytes at a time.
inline const char* find_control(const char* at, const char* end) {
#if defined(__SSE2__)
  const __m128i below_space = _mm_set1_epi8(0x1f);
  const __m128i del = _mm_set1_epi8(0x7f);
  while (end - at >= 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    const __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(bytes, below_space), bytes);
    const int hits = _mm_movemask_epi8(_mm_or_si128(low, _mm_cmpeq_epi8(bytes, del)));
    if (hits != 0) return at + __builtin_ctz(static_cast<unsigned>(hits));
    at += 16;
  }
#endif
  if (end - at >= 8) {
    uint64_t bytes;
    memcpy(&bytes, at, sizeof bytes);
    if (!any_control(bytes)) at += 8;
  }
  while (at < end && !is_control(*at)) ++at;
  return at;
}

// The first byte in [at, end) that no token holds, or `end`. Reads 16 bytes at a time while they
// are letters, digits or '-', as in nearly all names of fields.
inline const char* find_not_token(const char* at, const char* end) {
#if defined(__SSE2__)
  while (end - at >= 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    const __m128i lower = _mm_or_si128(bytes, _mm_set1_epi8(0x20));
    const __m128i letter = _mm_sub_epi8(lower, _mm_set1_epi8('a'));
    const __m128i digit = _mm_sub_epi8(bytes, _mm_set1_epi8('0'));
    const __m128i letters = _mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8(25)), letter);
    const __m128i digits = _mm_cmpeq_epi8(_mm_min_epu8(digit, _mm_set1_epi8(9)), digit);
    const __m128i dashes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('-'));
    const int held = _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(letters, digits), dashes));
    if (held != 0xffff) {
      at += __builtin_ctz(~static_cast<unsigned>(held));
      if (!is_token_byte(*at)) return at;
      ++at;
      continue;
    }
    at += 16;
  }
#endif
  while (at < end && is_token_byte(*at)) ++at;
  return at;
}

// The first byte in [at, end) that no request target holds: control bytes, space, "#" (a fragment)
// and everything that is not US-ASCII; or `end`. Reads 16 bytes at a time.
inline const char* find_not_target(const char* at, const char* end) {
#if defined(__SSE2__)
  const __m128i from = _mm_set1_epi8(0x21);
  const __m128i del = _mm_set1_epi8(0x7f);
  const __m128i hash = _mm_set1_epi8('#');
  while (end - at >= 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    const __m128i low = _mm_cmplt_epi8(bytes, from);  // signed: bytes from 0x80 on are below, too
    const __m128i odd = _mm_or_si128(_mm_cmpeq_epi8(bytes, del), _mm_cmpeq_epi8(bytes, hash));
    const int hits = _mm_movemask_epi8(_mm_or_si128(low, odd));
    if (hits != 0) return at + __builtin_ctz(static_cast<unsigned>(hits));
    at += 16;
  }
#endif
  while (at<end&& static_cast<uint8_t>(*at)> 0x20 && static_cast<uint8_t>(*at) < 0x7f &&
         *at != '#') {
    ++at;
  }
  return at;
}

// True if `text` may be written as a part of one line: no control byte but HTAB.
inline bool is_line_text(std::string_view text) {
  const char* at = text.data();
  const char* const end = at + text.size();
  for (;;) {
    at = find_control(at, end);
    if (at == end) return true;
    if (*at != '\t') return false;
    ++at;
  }
}

}  // namespace ringway::http1
