// tests/proto/http2_huffman_test.cc - Huffman-coded strings, and blocks rewritten without them,
// against nghttp2's decoder.
#include "proto/http2_huffman.h"

#include <doctest/doctest.h>

#include <set>
#include <string>
#include <vector>

#include "core/base/prng.h"
#include "tests/support/hpack.h"

namespace ringway::h2 {
namespace {

constexpr size_t kPlenty = 64 * 1024;

// The text, or "no code".
std::string decoded(std::string_view coded) {
  std::vector<char> room(huffman_room(coded.size()));
  size_t size = 0;
  if (!huffman_decode(coded, room, size)) return "no code";
  return {room.data(), size};
}

// By nghttp2: the value of a field.
std::string decoded_by_nghttp2(std::string_view coded) {
  const std::string block = '\x00' + hpack_string("x") + hpack_integer(0x80, 7, coded.size());
  Pairs fields;
  if (!decode_straight(block + std::string(coded), fields)) return "no code";
  return fields.at(0).second;
}

std::string rewritten(std::string_view block, size_t room_bytes = kPlenty) {
  std::vector<char> room(room_bytes);
  return std::string(block_without_huffman(block, room));
}

TEST_CASE("huffman_decode: RFC 7541 C.4, C.6 -> their texts") {
  CHECK(decoded(from_hex("f1e3c2e5f23a6ba0ab90f4ff")) == "www.example.com");
  CHECK(decoded(from_hex("a8eb10649cbf")) == "no-cache");
  CHECK(decoded(from_hex("25a849e95ba97d7f")) == "custom-key");
  CHECK(decoded(from_hex("d07abe941054d444a8200595040b8166e082a62d1bff")) ==
        "Mon, 21 Oct 2013 20:13:21 GMT");
  CHECK(decoded(from_hex(
            "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003e"
            "d4ee5b1063d5007")) == "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");
  CHECK(decoded("").empty());
}

TEST_CASE("huffman_decode: padding -> less than a byte of ones, or it is no code") {
  CHECK(decoded(from_hex("07")) == "0");              // 00000 111
  CHECK(decoded(from_hex("06")) == "no code");        // 00000 110
  CHECK(decoded(from_hex("ff")) == "no code");        // eight ones
  CHECK(decoded(from_hex("07ff")) == "no code");      // eleven
  CHECK(decoded(from_hex("fffffffc")) == "no code");  // the end of a string
  CHECK(decoded(from_hex("fffffffcffffffff")) == "no code");
  CHECK(decoded(std::string(16, '\xff')) == "no code");
}

TEST_CASE("huffman_decode: too little room -> false") {
  std::vector<char> room(huffman_room(6) - 1);
  size_t size = 0;
  CHECK_FALSE(huffman_decode(from_hex("a8eb10649cbf"), room, size));
}

TEST_CASE("huffman_decode: any bytes -> what nghttp2 says, all letters seen") {
  Prng prng(7);
  std::set<char> seen;
  int good = 0;
  for (int round = 0; round < 60'000; ++round) {
    std::string coded;
    const size_t size = prng.below(24);
    // Codes of over 14 bits begin with as many ones.
    for (size_t i = 0; i < size; ++i) {
      coded += static_cast<char>(prng.below(2) == 0 ? 0xff : prng.below(256));
    }
    // The last byte as an encoder would leave it, every other time.
    if (!coded.empty() && prng.below(2) == 0) coded.back() |= static_cast<char>(0x0f);
    const std::string text = decoded(coded);
    REQUIRE(text == decoded_by_nghttp2(coded));
    if (text == "no code") continue;
    ++good;
    seen.insert(text.begin(), text.end());
  }
  CHECK(good > 2'000);
  CHECK(seen.size() == 256);
}

TEST_CASE("block_without_huffman: each kind of representation -> the same, strings plain") {
  // Of the table; resized; indexed with a coded name, without indexing by number, never.
  const std::string coded = from_hex("84 3fe11f 4088 25a849e95ba97d7f 89 25a849e95bb8e8b4bf") +
                            from_hex("0486 a8eb10649cbf 10 0161 86 a8eb10649cbf");
  const std::string plain = from_hex("84 3fe11f 40") + hpack_string("custom-key") +
                            hpack_string("custom-value") + '\x04' + hpack_string("no-cache") +
                            '\x10' + hpack_string("a") + hpack_string("no-cache");
  CHECK(rewritten(coded) == plain);
  CHECK(rewritten(plain) == plain);
}

TEST_CASE("block_without_huffman: lengths around where they take a byte more -> right") {
  for (const size_t letters : {1, 79, 80, 100, 126, 127, 128, 200, 254, 255, 5000}) {
    CAPTURE(letters);
    const std::string text(letters, 'v');
    std::vector<char> room(kPlenty);
    Deflater deflater(0);
    const HeaderField field{.name = "x-long", .value = text};
    const size_t size = deflater.encode({&field, 1}, room);
    const std::string_view block(room.data(), size);
    REQUIRE(size < text.size() + 12);
    const std::string plain = rewritten(block);
    CHECK(plain.ends_with(hpack_string(text)));
    Pairs fields;
    CHECK(decode_straight(plain, fields));
    CHECK(fields == Pairs{{"x-long", text}});
  }
}

TEST_CASE("block_without_huffman: cut anywhere, or too little room -> nothing") {
  const std::string coded = from_hex("4088 25a849e95ba97d7f 89 25a849e95bb8e8b4bf");
  for (size_t size = 1; size < coded.size(); ++size) {
    CHECK(rewritten(coded.substr(0, size)).empty());
  }
  CHECK_FALSE(rewritten(coded).empty());
  for (size_t room = 0; room < 24; ++room) CHECK(rewritten(coded, room).empty());
  CHECK(rewritten(from_hex("ffffffffffffffff")).empty());  // an endless number
  CHECK(rewritten(from_hex("0001788461ffffff")).empty());  // a string that is no code
}

// Blocks as encoders write them, decoded by an Inflater, which rewrites them, and by nghttp2.
TEST_CASE("Inflater: large blocks of any fields -> the fields that were encoded") {
  Prng prng(11);
  Deflater deflater(4096);
  Inflater inflater(4096);
  for (int round = 0; round < 300; ++round) {
    Pairs pairs;
    const size_t number = 1 + prng.below(60);
    for (size_t i = 0; i < number; ++i) {
      std::string name = "x-" + std::to_string(prng.below(80));
      std::string value;
      for (size_t left = prng.below(prng.below(20) == 0 ? 2000 : 120); left > 0; --left) {
        value += static_cast<char>(prng.below(8) == 0 ? prng.below(256) : 'a' + prng.below(26));
      }
      pairs.emplace_back(std::move(name), std::move(value));
    }
    std::vector<char> room(2 * kPlenty);
    const size_t size = deflater.encode(fields_of(pairs), room);
    REQUIRE(size > 0);
    Collector sink;
    REQUIRE(inflater.decode({room.data(), size}, 4 * kPlenty, sink));
    REQUIRE(sink.fields == pairs);
  }
}

}  // namespace
}  // namespace ringway::h2
