// tests/proto/http1_body_test.cc - where bodies end, chunked coding, trailers, truncation.
#include "proto/http1_body.h"

#include <doctest/doctest.h>

#include <random>
#include <string>

using namespace std::literals;

namespace ringway::http1 {
namespace {

using Kind = BodyReader::Kind;

struct Result {
  std::string body;
  std::string trailers;
  size_t consumed = 0;
  bool ended = false;
  BodyError error = BodyError::kNone;

  bool operator==(const Result&) const = default;
};

// Reads `in` in parts of `step()` bytes; each part is handed over until it is used up.
template <typename Step>
Result read_in_parts(BodyReader& reader, std::string_view in, Step step) {
  Result result;
  while (!result.ended && result.error == BodyError::kNone) {
    if (result.consumed == in.size() && !in.empty()) break;
    const size_t size = std::min<size_t>(step(), in.size() - result.consumed);
    const std::string part(in.substr(result.consumed, size));
    size_t used = 0;
    for (;;) {
      const BodyReader::Step next = reader.next(std::string_view(part).substr(used));
      used += next.consumed;
      REQUIRE(used <= part.size());
      if (next.kind == Kind::kPiece) {
        REQUIRE_FALSE(next.piece.empty());
        result.body += next.piece;
        continue;
      }
      if (next.kind == Kind::kNeedMore) CHECK(used == part.size());
      result.ended = next.kind == Kind::kEnd;
      if (next.kind == Kind::kError) result.error = reader.error();
      break;
    }
    result.consumed += used;
    if (in.empty()) break;
  }
  CHECK(reader.body_bytes() == result.body.size());
  if (result.ended) {
    CHECK(reader.ended());
    result.trailers = reader.trailers();
  }
  return result;
}

Result read_all_ways(BodyKind kind, uint64_t length, std::string_view in,
                     const BodyLimits& limits = {}) {
  BodyReader reader;
  reader.start(kind, length, limits);
  const Result whole = read_in_parts(reader, in, [] { return SIZE_MAX; });
  reader.start(kind, length, limits);
  CHECK(read_in_parts(reader, in, [] { return size_t{1}; }) == whole);
  std::minstd_rand random(static_cast<unsigned>(in.size()) + 1);
  for (int round = 0; round < 8; ++round) {
    reader.start(kind, length, limits);
    CHECK(read_in_parts(reader, in, [&] { return size_t{1} + random() % 9; }) == whole);
  }
  return whole;
}

struct ChunkRow {
  const char* about;
  std::string_view in;
  BodyError error;
  const char* body;  // delivered, also before an error
};

constexpr ChunkRow kChunks[] = {
    {"one chunk", "5\r\nhello\r\n0\r\n\r\n"sv, BodyError::kNone, "hello"},
    {"two chunks", "5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"sv, BodyError::kNone, "hello!"},
    {"empty body", "0\r\n\r\n"sv, BodyError::kNone, ""},
    {"zeros", "0000\r\n\r\n"sv, BodyError::kNone, ""},
    {"16 digits", "0000000000000001\r\nx\r\n0\r\n\r\n"sv, BodyError::kNone, "x"},
    {"hexadecimal digits", "a\r\n0123456789\r\nB\r\n0123456789x\r\n0\r\n\r\n"sv, BodyError::kNone,
     "01234567890123456789x"},
    {"extension", "1;a=b\r\nx\r\n0;c\r\n\r\n"sv, BodyError::kNone, "x"},
    {"extension behind blanks", "1 \t;a=\"b;c\"\r\nx\r\n0\r\n\r\n"sv, BodyError::kNone, "x"},
    {"data with CRLF and digits", "7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n"sv, BodyError::kNone,
     "\r\n0\r\n\r\n"},
    {"17 digits", "00000000000000001\r\nx\r\n0\r\n\r\n"sv, BodyError::kBadChunk, ""},
    {"overflow", "10000000000000005\r\nhello"sv, BodyError::kBadChunk, ""},
    {"no size", "\r\nhello\r\n0\r\n\r\n"sv, BodyError::kBadChunk, ""},
    {"extension without size", ";a\r\nhello"sv, BodyError::kBadChunk, ""},
    {"space before the size", " 5\r\nhello"sv, BodyError::kBadChunk, ""},
    {"space behind the size", "5 \r\nhello"sv, BodyError::kBadChunk, ""},
    {"space and text", "5 a\r\nhello"sv, BodyError::kBadChunk, ""},
    {"space, text, extension", "5 a;b\r\nhello"sv, BodyError::kBadChunk, ""},
    {"0x", "0x5\r\nhello"sv, BodyError::kBadChunk, ""},
    {"plus", "+5\r\nhello"sv, BodyError::kBadChunk, ""},
    {"minus", "-5\r\nhello"sv, BodyError::kBadChunk, ""},
    {"underscore", "1_0\r\nhello"sv, BodyError::kBadChunk, ""},
    {"vertical tab", "5\v\r\nhello"sv, BodyError::kBadChunk, ""},
    {"NUL", "5\0\r\nhello"sv, BodyError::kBadChunk, ""},
    {"bare LF behind the size", "5\nhello\r\n0\r\n\r\n"sv, BodyError::kBadChunk, ""},
    {"bare LF in an extension", "5;a\nhello\r\n0\r\n\r\n"sv, BodyError::kBadChunk, ""},
    {"bare CR in an extension", "5;a\rb\r\nhello"sv, BodyError::kBadChunk, ""},
    {"NUL in an extension", "5;a\0\r\nhello"sv, BodyError::kBadChunk, ""},
    {"bare LF behind the data", "5\r\nhello\n0\r\n\r\n"sv, BodyError::kBadChunk, "hello"},
    {"CR CR LF behind the data", "5\r\nhello\r\r\n0\r\n\r\n"sv, BodyError::kBadChunk, "hello"},
    {"data longer than said", "4\r\nhello\r\n0\r\n\r\n"sv, BodyError::kBadChunk, "hell"},
    {"data shorter than said", "6\r\nhello\r\n0\r\n\r\n"sv, BodyError::kBadChunk, "hello\r"},
    {"two zero chunks", "0\r\n0\r\n\r\n"sv, BodyError::kBadTrailer, ""},
    {"bare LF at the end", "0\r\n\n"sv, BodyError::kBadTrailer, ""},
    {"bare LF behind the last size", "0\n\r\n"sv, BodyError::kBadChunk, ""},
    {"trailer", "0\r\nX: y\r\n\r\n"sv, BodyError::kNone, ""},
    {"trailer with a bare LF", "0\r\nX: y\n\r\n"sv, BodyError::kBadTrailer, ""},
    {"trailer with a bare CR", "0\r\nX: y\rz\r\n\r\n"sv, BodyError::kBadTrailer, ""},
    {"trailer with NUL", "0\r\nX: y\0\r\n\r\n"sv, BodyError::kBadTrailer, ""},
    {"trailer without a colon", "0\r\nX\r\n\r\n"sv, BodyError::kBadTrailer, ""},
    {"trailer without a name", "0\r\n: y\r\n\r\n"sv, BodyError::kBadTrailer, ""},
    {"trailer with a space before the colon", "0\r\nX : y\r\n\r\n"sv, BodyError::kBadTrailer, ""},
    {"folded trailer", "0\r\nX: y\r\n z\r\n\r\n"sv, BodyError::kBadTrailer, ""},
    {"request in the trailers", "0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"sv, BodyError::kBadTrailer,
     ""},
};

TEST_CASE("BodyReader: chunked -> pieces or the expected error, however it is cut (RFC 9112 7.1)") {
  for (const ChunkRow& row : kChunks) {
    INFO(std::string(row.about));
    const Result result = read_all_ways(BodyKind::kChunked, 0, row.in);
    CHECK(result.error == row.error);
    CHECK(result.body == row.body);
    CHECK(result.ended == (row.error == BodyError::kNone));
    if (result.ended) CHECK(result.consumed == row.in.size());
  }
}

TEST_CASE("BodyReader: bytes behind the last chunk -> left for the next message") {
  const Result result =
      read_all_ways(BodyKind::kChunked, 0, "1\r\nx\r\n0\r\n\r\nGET / HTTP/1.1\r\n");
  CHECK(result.ended);
  CHECK(result.consumed == 11);
}

TEST_CASE("BodyReader: known length -> ends after it, and once more when asked again") {
  const Result result = read_all_ways(BodyKind::kLength, 5, "helloGET");
  CHECK(result.ended);
  CHECK(result.body == "hello");
  CHECK(result.consumed == 5);

  BodyReader reader;
  reader.start(BodyKind::kLength, 2, {});
  CHECK(reader.next("ab").kind == Kind::kPiece);
  CHECK(reader.ended());
  CHECK(reader.next("cd").kind == Kind::kEnd);
  CHECK(reader.next("cd").consumed == 0);
}

TEST_CASE("BodyReader: no body, or a length of 0 -> ended at once") {
  for (const BodyKind kind : {BodyKind::kNone, BodyKind::kLength}) {
    BodyReader reader;
    reader.start(kind, 0, {});
    CHECK(reader.ended());
    CHECK(reader.next("x").kind == Kind::kEnd);
    CHECK(reader.finish_at_close());
  }
}

TEST_CASE("BodyReader: the connection ends -> complete only if the framing says so") {
  BodyReader reader;
  reader.start(BodyKind::kUntilClose, 0, {});
  CHECK(reader.next("abc").kind == Kind::kPiece);
  CHECK(reader.next("").kind == Kind::kNeedMore);
  CHECK_FALSE(reader.ended());
  CHECK(reader.finish_at_close());
  CHECK(reader.ended());

  reader.start(BodyKind::kLength, 5, {});
  CHECK(reader.next("abc").kind == Kind::kPiece);
  CHECK_FALSE(reader.finish_at_close());
  CHECK(reader.error() == BodyError::kTruncated);
  CHECK(reader.next("de").kind == Kind::kError);

  constexpr std::string_view kChunked = "3;x\r\nabc\r\n0\r\nX: y\r\n\r\n";
  for (size_t size = 0; size <= kChunked.size(); ++size) {
    reader.start(BodyKind::kChunked, 0, {});
    read_in_parts(reader, kChunked.substr(0, size), [] { return SIZE_MAX; });
    CHECK(reader.finish_at_close() == (size == kChunked.size()));
  }
}

TEST_CASE("BodyReader: limits are met exactly -> taken; exceeded -> refused") {
  CHECK(read_all_ways(BodyKind::kLength, 5, "hello", {.body_bytes = 5}).ended);
  const Result length = read_all_ways(BodyKind::kLength, 6, "hello!", {.body_bytes = 5});
  CHECK(length.error == BodyError::kTooLarge);
  CHECK(length.body.empty());
  constexpr std::string_view kTwo = "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
  CHECK(read_all_ways(BodyKind::kChunked, 0, kTwo, {.body_bytes = 5}).ended);
  const Result chunked = read_all_ways(BodyKind::kChunked, 0, kTwo, {.body_bytes = 4});
  CHECK(chunked.error == BodyError::kTooLarge);
  CHECK(chunked.body == "abc");
  CHECK(read_all_ways(BodyKind::kChunked, 0, "ffffffffffffffff\r\n").error == BodyError::kNone);
  CHECK(read_all_ways(BodyKind::kChunked, 0, "1\r\na\r\nffffffffffffffff\r\n").error ==
        BodyError::kTooLarge);

  // The extension bytes of all chunks together: ";ab" twice are 6.
  constexpr std::string_view kExtended = "1;ab\r\nx\r\n0;ab\r\n\r\n";
  CHECK(read_all_ways(BodyKind::kChunked, 0, kExtended, {.extension_bytes = 6}).ended);
  CHECK(read_all_ways(BodyKind::kChunked, 0, kExtended, {.extension_bytes = 5}).error ==
        BodyError::kBadChunk);

  constexpr std::string_view kTrailers = "0\r\nA: b\r\nC: d\r\n\r\n";
  CHECK(read_all_ways(BodyKind::kChunked, 0, kTrailers, {.trailer_bytes = 14}).ended);
  CHECK(read_all_ways(BodyKind::kChunked, 0, kTrailers, {.trailer_bytes = 13}).error ==
        BodyError::kBadTrailer);
  CHECK(read_all_ways(BodyKind::kChunked, 0, kTrailers, {.trailer_fields = 2}).ended);
  CHECK(read_all_ways(BodyKind::kChunked, 0, kTrailers, {.trailer_fields = 1}).error ==
        BodyError::kBadTrailer);
}

TEST_CASE("BodyReader: trailers -> what may be merged late is kept (RFC 9110 6.5.1)") {
  const Result result = read_all_ways(
      BodyKind::kChunked, 0,
      "0\r\nGrpc-Status:0\r\nContent-Length: 5\r\nHOST: b\r\nTransfer-Encoding: chunked\r\n"
      "Authorization: x\r\nX-Forwarded-For: 1\r\nSet-Cookie: a\r\ngrpc-message: \t all well \r\n"
      "Server-Timing:\r\n\r\n");
  CHECK(result.ended);
  CHECK(result.trailers == "Grpc-Status: 0\r\ngrpc-message: all well\r\nServer-Timing: \r\n");
}

TEST_CASE("BodyReader: trailers that only the balancer may say -> gone, in any spelling") {
  const std::vector<std::string> own{"x-ssl-client-verify"};
  BodyReader reader;
  reader.start(BodyKind::kChunked, 0, {.own_names = own});
  const Result result =
      read_in_parts(reader,
                    "0\r\nX-SSL-Client-Verify: SUCCESS\r\nA: b\r\nx_ssl_client_verify: SUCCESS\r\n"
                    "X-SSL-Client-Verify2: c\r\n\r\n",
                    [] { return SIZE_MAX; });
  CHECK(result.ended);
  CHECK(result.trailers == "A: b\r\nX-SSL-Client-Verify2: c\r\n");
}

TEST_CASE("BodyReader: started again -> forgets the body before") {
  BodyReader reader;
  reader.start(BodyKind::kChunked, 0, {});
  read_in_parts(reader, "1;a\r\nx\r\n0\r\nX: y\r\n", [] { return size_t{3}; });
  reader.start(BodyKind::kChunked, 0, {});
  const Result result = read_in_parts(reader, "0\r\n\r\n", [] { return SIZE_MAX; });
  CHECK(result.ended);
  CHECK(result.trailers.empty());
  CHECK(reader.body_bytes() == 0);
}

TEST_CASE("chunk_header: sizes -> read back as they were written") {
  char room[18];
  CHECK(chunk_header(1, room) == "1\r\n");
  CHECK(chunk_header(0x10, room) == "10\r\n");
  CHECK(chunk_header(0xabcdef, room) == "abcdef\r\n");
  CHECK(chunk_header(UINT64_MAX, room) == "ffffffffffffffff\r\n");
}

}  // namespace
}  // namespace ringway::http1
