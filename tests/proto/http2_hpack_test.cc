// tests/proto/http2_hpack_test.cc - header compression: RFC 7541's examples, bounds, bombs.
#include "proto/http2_hpack.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "tests/support/hpack.h"

using namespace std::literals;

namespace ringway::h2 {
namespace {

constexpr size_t kPlenty = 64 * 1024;

Collector decode(Inflater& inflater, std::string_view block) {
  Collector sink;
  REQUIRE(inflater.decode(block, kPlenty, sink));
  return sink;
}

bool refused(std::string_view block) {
  Inflater inflater(4096);
  Collector sink;
  const bool good = inflater.decode(block, kPlenty, sink);
  CHECK_FALSE(inflater.too_big());
  return !good;
}

std::string encode(Deflater& deflater, const std::vector<HeaderField>& fields) {
  std::vector<char> room(kPlenty);
  return {room.data(), deflater.encode(fields, room)};
}

TEST_CASE("Inflater: RFC 7541 C.2 -> each kind of field") {
  Inflater inflater(4096);
  CHECK(decode(inflater, from_hex("400a637573746f6d2d6b65790d637573746f6d2d686561646572")).fields ==
        Pairs{{"custom-key", "custom-header"}});
  CHECK(decode(inflater, from_hex("040c2f73616d706c652f70617468")).fields ==
        Pairs{{":path", "/sample/path"}});
  const Collector secret = decode(inflater, from_hex("100870617373776f726406736563726574"));
  CHECK(secret.fields == Pairs{{"password", "secret"}});
  CHECK(secret.sensitive == std::vector<bool>{true});
  const Collector method = decode(inflater, from_hex("82"));
  CHECK(method.fields == Pairs{{":method", "GET"}});
  CHECK(method.sensitive == std::vector<bool>{false});
}

const Pairs kRequests[] = {
    {{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "www.example.com"}},
    {{":method", "GET"},
     {":scheme", "http"},
     {":path", "/"},
     {":authority", "www.example.com"},
     {"cache-control", "no-cache"}},
    {{":method", "GET"},
     {":scheme", "https"},
     {":path", "/index.html"},
     {":authority", "www.example.com"},
     {"custom-key", "custom-value"}}};
const std::string kHuffmanRequests[] = {
    from_hex("828684418cf1e3c2e5f23a6ba0ab90f4ff"), from_hex("828684be5886a8eb10649cbf"),
    from_hex("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf")};

TEST_CASE("Inflater: RFC 7541 C.3 and C.4 -> requests, without and with Huffman coding") {
  const std::string plain[] = {
      from_hex("828684410f7777772e6578616d706c652e636f6d"),
      from_hex("828684be58086e6f2d6361636865"),
      from_hex("828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565")};
  Inflater first(4096);
  Inflater second(4096);
  for (size_t i = 0; i < 3; ++i) {
    CHECK(decode(first, plain[i]).fields == kRequests[i]);
    CHECK(decode(second, kHuffmanRequests[i]).fields == kRequests[i]);
  }
}

TEST_CASE("Deflater: RFC 7541 C.4 -> the same bytes") {
  Deflater deflater(4096);
  for (size_t i = 0; i < 3; ++i) {
    CHECK(encode(deflater, fields_of(kRequests[i])) == kHuffmanRequests[i]);
  }
}

TEST_CASE("Inflater: RFC 7541 C.5 and C.6 -> responses that evict from a table of 256 bytes") {
  const std::string date21 = "Mon, 21 Oct 2013 20:13:21 GMT";
  const std::string site = "https://www.example.com";
  const Pairs expected[] = {
      {{":status", "302"}, {"cache-control", "private"}, {"date", date21}, {"location", site}},
      {{":status", "307"}, {"cache-control", "private"}, {"date", date21}, {"location", site}},
      {{":status", "200"},
       {"cache-control", "private"},
       {"date", "Mon, 21 Oct 2013 20:13:22 GMT"},
       {"location", site},
       {"content-encoding", "gzip"},
       {"set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"}}};
  const std::string plain[] = {
      from_hex("4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a3231"
               "20474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d"),
      from_hex("4803333037c1c0bf"),
      from_hex("88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a697077"
               "38666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d616765"
               "3d333630303b2076657273696f6e3d31")};
  const std::string huffman[] = {
      from_hex("488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad17"
               "1863c78f0b97c8e9ae82ae43d3"),
      from_hex("4883640effc1c0bf"),
      from_hex("88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6"
               "c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007")};
  for (const auto* blocks : {&plain, &huffman}) {
    Inflater inflater(256);
    inflater.on_settings_ack();
    const std::string update = hpack_integer(0x20, 5, 256);
    for (size_t i = 0; i < 3; ++i) {
      CHECK(decode(inflater, (i == 0 ? update : "") + (*blocks)[i]).fields == expected[i]);
    }
  }
}

TEST_CASE("Inflater: what no encoder may write -> false, for ever") {
  CHECK(refused("\x80"sv));                                          // index 0
  CHECK(refused("\xbe"sv));                                          // beyond both tables
  CHECK(refused("\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"sv));  // a number without end
  CHECK(refused("\x00\x03xy"sv));                                    // cut inside a name
  CHECK(refused("\x40\x01x"sv));                                     // a name without a value
  CHECK(refused("\x00\x01x\x81\x1e"sv));                             // padding with a zero
  CHECK(refused("\x00\x01x\x84\xff\xff\xff\xff"sv));                 // EOS
  CHECK(refused(hpack_integer(0x20, 5, 4097)));                      // a larger table than ours
  CHECK(refused("\x82\x20"sv));                                      // a table size behind a field
  CHECK_FALSE(refused(""sv));
  CHECK_FALSE(refused(hpack_integer(0x20, 5, 4096)));

  Inflater inflater(4096);
  Collector sink;
  CHECK_FALSE(inflater.decode("\x80"sv, kPlenty, sink));
  CHECK_FALSE(inflater.decode("\x82"sv, kPlenty, sink));
  CHECK(sink.fields.empty());
}

TEST_CASE("Inflater: a table larger than the default -> usable at once") {
  Inflater inflater(65536);
  const std::string value(5000, 'v');
  decode(inflater, hpack_integer(0x20, 5, 65536) + hpack_literal("x", value, kWithIndexing));
  CHECK(decode(inflater, "\xbe"sv).fields == Pairs{{"x", value}});
}

TEST_CASE("Inflater: a smaller table -> holds from the acknowledgement on, which must be heeded") {
  Inflater inflater(0);
  decode(inflater, hpack_literal("x", "y", kWithIndexing));
  CHECK(decode(inflater, "\xbe"sv).fields == Pairs{{"x", "y"}});
  inflater.on_settings_ack();
  decode(inflater, "\x20\x82"sv);
  decode(inflater, hpack_literal("x", "y", kWithIndexing));
  Collector sink;
  CHECK_FALSE(inflater.decode("\xbe"sv, kPlenty, sink));

  Inflater heedless(100);
  decode(heedless, "\x82"sv);
  heedless.on_settings_ack();
  CHECK_FALSE(heedless.decode("\x82"sv, kPlenty, sink));
}

// 16 KiB of block stand for 64 MB: one entry of 4 KB, named again and again by one byte.
TEST_CASE("Inflater: a bomb of references -> cut at the limit, refused at 16 times of it") {
  Inflater inflater(4096);
  Collector sink;
  const std::string bomb =
      hpack_literal("x", std::string(4000, 'v'), kWithIndexing) + std::string(16000, '\xbe');
  CHECK_FALSE(inflater.decode(bomb, kPlenty, sink));
  CHECK(inflater.too_big());
  CHECK(sink.cuts == 1);
  CHECK(sink.bytes <= kPlenty);
  CHECK(sink.fields.size() == kPlenty / 4033);
  CHECK_FALSE(inflater.decode("\x82"sv, kPlenty, sink));
}

TEST_CASE("Inflater: a bomb of small fields -> counted with 32 bytes each") {
  Inflater inflater(4096);
  Collector sink;
  CHECK_FALSE(inflater.decode(std::string(16000, '\x82'), 1024, sink));  // 42 bytes each
  CHECK(inflater.too_big());
  CHECK(sink.fields.size() == 1024 / 42);
}

TEST_CASE("Inflater: exactly the limit -> not cut; one byte more -> cut, but still decoded") {
  const std::string block = hpack_literal("a", "b", kWithIndexing) + hpack_literal("c", "de");
  Inflater inflater(4096);
  Collector exact;
  CHECK(inflater.decode(block, 34 + 35, exact));
  CHECK(exact.fields.size() == 2);
  CHECK(exact.cuts == 0);
  Collector cut;
  CHECK(inflater.decode(block + hpack_literal("f", "g", kWithIndexing), 34 + 34, cut));
  CHECK(cut.fields == Pairs{{"a", "b"}});
  CHECK(cut.cuts == 1);
  CHECK_FALSE(inflater.too_big());
  CHECK(decode(inflater, "\xbe"sv).fields == Pairs{{"f", "g"}});
}

TEST_CASE("Inflater: a sink that has enough -> gets no more, the tables still agree") {
  Inflater inflater(4096);
  Collector sink;
  sink.fields_max = 1;
  CHECK(inflater.decode("\x82\x86" + hpack_literal("a", "b", kWithIndexing), kPlenty, sink));
  CHECK(sink.fields.size() == 1);
  CHECK(sink.cuts == 0);
  CHECK(decode(inflater, "\xbe"sv).fields == Pairs{{"a", "b"}});
}

TEST_CASE("Inflater: names and values may hold any byte; judging them is not its business") {
  Inflater inflater(4096);
  const Pairs odd = {{"", ""}, {"A\r\n\0 :"s, "\r\n\0 \xff"s}};
  CHECK(decode(inflater, hpack_block(odd)).fields == odd);
}

TEST_CASE("Deflater: a sensitive field -> never indexed, and said so") {
  Deflater deflater(4096);
  Inflater inflater(4096);
  const std::vector<HeaderField> fields = {{.name = "x-token", .value = "abc", .sensitive = true}};
  const std::string block = encode(deflater, fields);
  CHECK((static_cast<uint8_t>(block[0]) & 0xf0) == kNeverIndexed);
  CHECK(encode(deflater, fields) == block);
  const Collector sink = decode(inflater, block);
  CHECK(sink.fields == Pairs{{"x-token", "abc"}});
  CHECK(sink.sensitive == std::vector<bool>{true});
}

TEST_CASE("Deflater: no room -> 0, and the next block is as if nothing had been tried") {
  Deflater deflater(4096);
  Deflater other(4096);
  const std::vector<HeaderField> fields = fields_of(kRequests[2]);
  std::vector<char> room(kPlenty);
  size_t bytes = 12;
  for (const HeaderField& field : fields) bytes += field.name.size() + field.value.size() + 12;
  CHECK(deflater.encode(fields, {room.data(), bytes - 1}) == 0);
  CHECK(deflater.encode(fields, {}) == 0);
  const std::string block = encode(other, fields);
  CHECK(deflater.encode(fields, {room.data(), bytes}) == block.size());
  CHECK(std::string(room.data(), block.size()) == block);
}

TEST_CASE("Deflater: more fields than nghttp2 is given at once -> one block") {
  Pairs pairs;
  for (int i = 0; i < 150; ++i) pairs.emplace_back("x-" + std::to_string(i), std::string(i, 'v'));
  Deflater deflater(4096);
  Inflater inflater(4096);
  for (int round = 0; round < 3; ++round) {
    CHECK(decode(inflater, encode(deflater, fields_of(pairs))).fields == pairs);
  }
}

TEST_CASE("Deflater: the peer's table bound -> announced, kept, and at most our own") {
  const Pairs pairs{{"x-a", "first"}, {"x-b", "second"}};
  const std::vector<HeaderField> fields = fields_of(pairs);
  Deflater deflater(4096);
  Inflater inflater(0);
  decode(inflater, encode(deflater, fields));
  deflater.limit_table(0);
  inflater.on_settings_ack();
  const std::string block = encode(deflater, fields);
  CHECK(block[0] == '\x20');
  CHECK(decode(inflater, block).fields.size() == 2);
  CHECK(encode(deflater, fields) == block.substr(1));  // nothing was indexed

  // The inflater's bound is 4096: a larger update would be an error.
  Deflater large(4096);
  Inflater small(4096);
  large.limit_table(1'000'000);
  CHECK(decode(small, encode(large, fields)).fields.size() == 2);
}

TEST_CASE("Deflater and Inflater: steady state -> no malloc, with new values in each block") {
  Deflater deflater(4096);
  Inflater inflater(4096);
  std::vector<char> room(kPlenty);
  Collector sink;
  uint64_t deflater_mallocs = 0;
  uint64_t inflater_mallocs = 0;
  for (int round = 0; round < 2000; ++round) {
    if (round == 1000) {
      deflater_mallocs = deflater.mallocs();
      inflater_mallocs = inflater.mallocs();
    }
    const std::string number = std::to_string(10000 + round);
    const HeaderField fields[] = {{.name = ":method", .value = "GET"},
                                  {.name = ":path", .value = number},
                                  {.name = "user-agent", .value = "tests of Ringway"},
                                  {.name = "x-request-id", .value = number}};
    const size_t size = deflater.encode(fields, room);
    sink.fields.clear();
    REQUIRE(inflater.decode({room.data(), size}, kPlenty, sink));
    REQUIRE(sink.fields.size() == 4);
    REQUIRE(sink.fields[3].second == number);
  }
  CHECK(deflater.mallocs() == deflater_mallocs);
  CHECK(inflater.mallocs() == inflater_mallocs);
  CHECK(inflater.mallocs() > 0);
}

}  // namespace
}  // namespace ringway::h2
