// tests/fuzz/chunked_fuzz.cc - any bytes as a chunked body, against a reference decoder.
#include <cstring>
#include <string>
#include <string_view>

#include "proto/http1_body.h"
#include "tests/fuzz/h1_fuzz.h"

namespace ringway::http1 {
namespace {

struct Decoded {
  enum class End : uint8_t { kMore, kEnd, kError };
  End end = End::kMore;
  size_t consumed = 0;
  std::string body;
};

// RFC 9112 7.1 once more, as plainly as possible: line by line over the whole text.
Decoded decode_reference(std::string_view in) {
  Decoded decoded;
  size_t at = 0;
  const auto fail = [&] {
    decoded.end = Decoded::End::kError;
    return decoded;
  };
  for (;;) {
    const size_t digits_end =
        std::min(in.find_first_not_of("0123456789abcdefABCDEF", at), in.size());
    const size_t digits = digits_end - at;
    if (digits > 16) return fail();
    if (digits_end == in.size()) return decoded;
    if (digits == 0) return fail();
    const uint64_t size = strtoull(std::string(in.substr(at, digits)).c_str(), nullptr, 16);
    size_t line_end = digits_end;
    while (line_end < in.size() && in[line_end] != '\r') {
      const auto c = static_cast<uint8_t>(in[line_end]);
      if ((c < 0x20 && c != '\t') || c == 0x7f) return fail();
      const std::string_view before = in.substr(digits_end, line_end + 1 - digits_end);
      const size_t first = before.find_first_not_of(" \t");
      if (first != std::string_view::npos && before[first] != ';') return fail();
      ++line_end;
    }
    if (line_end == in.size()) return decoded;
    const std::string_view extension = in.substr(digits_end, line_end - digits_end);
    if (!extension.empty() && extension.find(';') == std::string_view::npos) return fail();
    if (line_end + 1 == in.size()) return decoded;
    if (in[line_end + 1] != '\n') return fail();
    at = line_end + 2;
    if (size == 0) break;
    if (size > UINT64_MAX - decoded.body.size()) return fail();
    const std::string_view rest = in.substr(at);
    decoded.body += rest.substr(0, size);
    if (rest.size() <= size) return decoded;
    if (rest[size] != '\r') return fail();
    if (rest.size() == size + 1) return decoded;
    if (rest[size + 1] != '\n') return fail();
    at += size + 2;
  }
  for (;;) {
    const size_t lf = in.find('\n', at);
    if (lf == std::string_view::npos) return decoded;
    if (lf == at || in[lf - 1] != '\r') return fail();
    const std::string_view line = in.substr(at, lf - 1 - at);
    at = lf + 1;
    if (line.empty()) {
      decoded.end = Decoded::End::kEnd;
      decoded.consumed = at;
      return decoded;
    }
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos || colon == 0) return fail();
    for (size_t i = 0; i < line.size(); ++i) {
      const auto c = static_cast<uint8_t>(line[i]);
      if ((c < 0x20 && c != '\t') || c == 0x7f) return fail();
      if (i < colon && (c >= 0x80 || strchr(" \t\"(),/;<=>?@[\\]{}", c) != nullptr)) return fail();
    }
  }
}

Decoded decode(std::string_view in, const BodyLimits& limits, uint64_t step_max,
               std::string& trailers) {
  BodyReader reader;
  FuzzRandom random(in);
  reader.start(BodyKind::kChunked, 0, limits);
  Decoded decoded;
  size_t given = 0;
  while (decoded.end == Decoded::End::kMore && given < in.size()) {
    given = std::min<size_t>(in.size(), given + 1 + random.next(step_max));
    const std::string part(in.substr(decoded.consumed, given - decoded.consumed));
    std::string_view rest = part;
    BodyReader::Step step{};
    do {
      step = reader.next(rest);
      RW_CHECK(step.consumed <= rest.size());
      RW_CHECK((step.kind == BodyReader::Kind::kPiece) == !step.piece.empty());
      decoded.body += step.piece;
      decoded.consumed += step.consumed;
      rest.remove_prefix(step.consumed);
    } while (step.kind == BodyReader::Kind::kPiece);
    if (step.kind == BodyReader::Kind::kNeedMore) RW_CHECK(rest.empty());
    if (step.kind == BodyReader::Kind::kEnd) decoded.end = Decoded::End::kEnd;
    if (step.kind == BodyReader::Kind::kError) decoded.end = Decoded::End::kError;
  }
  RW_CHECK(reader.body_bytes() == decoded.body.size());
  RW_CHECK(decoded.body.size() <= limits.body_bytes);
  RW_CHECK(reader.ended() == (decoded.end == Decoded::End::kEnd));
  RW_CHECK(reader.finish_at_close() == (decoded.end == Decoded::End::kEnd));
  trailers = reader.trailers();
  return decoded;
}

void check_equal(const Decoded& a, const Decoded& b) {
  RW_CHECK(a.end == b.end);
  RW_CHECK(a.body == b.body);
  RW_CHECK(a.consumed == b.consumed);
}

void run(std::string_view in) {
  std::string trailers;
  std::string others;
  const BodyLimits wide{.body_bytes = UINT64_MAX,
                        .extension_bytes = UINT32_MAX,
                        .trailer_bytes = UINT32_MAX,
                        .trailer_fields = UINT32_MAX};
  const Decoded whole = decode(in, wide, in.size() + 1, trailers);
  for (const uint64_t step_max : {1, 7}) {
    check_equal(whole, decode(in, wide, step_max, others));
    RW_CHECK(others == trailers);
  }
  const Decoded reference = decode_reference(in);
  RW_CHECK(reference.end == whole.end);
  RW_CHECK(reference.body == whole.body);
  if (whole.end == Decoded::End::kEnd) RW_CHECK(reference.consumed == whole.consumed);

  const BodyLimits tight{
      .body_bytes = 8, .extension_bytes = 4, .trailer_bytes = 16, .trailer_fields = 1};
  const Decoded bounded = decode(in, tight, in.size() + 1, trailers);
  RW_CHECK(trailers.size() <= 2 * 16);
  check_equal(bounded, decode(in, tight, 1, others));
  if (bounded.end == Decoded::End::kEnd) RW_CHECK(whole.end == Decoded::End::kEnd);
}

}  // namespace
}  // namespace ringway::http1

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ringway::http1::run({reinterpret_cast<const char*>(data), size});
  return 0;
}
