// tests/fuzz/h2_head_fuzz.cc - any bytes as an HTTP/2 header block: decoded, built, taken, written.
//
// What is accepted is written as HTTP/1, which must parse to the same head, and as a block again,
// which must build the same head. Rewritten without Huffman coding, nghttp2 reads the same from it.
#include <string>
#include <string_view>
#include <vector>

#include "proto/http1_write.h"
#include "proto/http2_head.h"
#include "proto/http2_huffman.h"
#include "tests/fuzz/h1_fuzz.h"
#include "tests/support/hpack.h"

namespace ringway::h2 {
namespace {

using http1::BodyKind;
using http1::Head;
using http1::HeadError;
using http1::HeadParser;

constexpr size_t kDecodedMax = 8192;

// Decodes `block` into `builder`, which was started. False: the connection would be over.
bool decode(std::string_view block, HeadBuilder& builder) {
  Inflater inflater(4096);
  return inflater.decode(block, kDecodedMax, builder);
}

// Writes `fields` as a block and hands it to `builder`, which was started.
void encode_and_decode(std::span<const HeaderField> fields, HeadBuilder& builder) {
  Deflater deflater(4096);
  std::vector<char> block(64 * 1024);
  const size_t size = deflater.encode(fields, block);
  RW_CHECK(size > 0);
  Inflater inflater(4096);
  RW_CHECK(inflater.decode({block.data(), size}, 64 * 1024, builder));
}

struct Room {
  std::vector<HeaderField> fields = std::vector<HeaderField>(160);
  std::vector<char> names = std::vector<char>(32 * 1024);

  [[nodiscard]] BlockRoom get() { return {.fields = fields, .names = names}; }
};

// The fields that both sides see, in order.
void check_same_fields(const Head& a, const Head& b) {
  size_t j = 0;
  for (const http1::Field& field : a.fields) {
    if (field.hop_by_hop || field.id == http1::FieldId::kHost ||
        field.id == http1::FieldId::kContentLength) {
      continue;
    }
    while (j < b.fields.size() && b.name(b.fields[j]) != a.name(field)) ++j;
    RW_CHECK(j < b.fields.size());
    RW_CHECK(b.value(b.fields[j]) == a.value(field));
    ++j;
  }
}

void check_same_request(const Head& a, const Head& b) {
  RW_CHECK(a.method == b.method);
  RW_CHECK(a.view(a.method_text) == b.view(b.method_text));
  RW_CHECK(a.view(a.path) == b.view(b.path));
  RW_CHECK(a.view(a.query) == b.view(b.query));
  RW_CHECK(a.has_query == b.has_query);
  RW_CHECK(a.view(a.authority) == b.view(b.authority));
  RW_CHECK(a.te_trailers == b.te_trailers);
  RW_CHECK(a.expect_continue == b.expect_continue);
  RW_CHECK(a.upgrade == b.upgrade);
  check_same_fields(a, b);
}

void check_written_request(const Head& head, bool extended) {
  std::vector<char> bytes(head.head_len + 1024);
  http1::Out out(bytes);
  http1::RequestPlan plan{.body = head.body, .content_length = head.content_length};
  if (head.body == BodyKind::kUntilClose) plan.body = BodyKind::kChunked;
  plan.upgrade = head.upgrade;
  plan.forwarded.x_forwarded = false;
  RW_CHECK(http1::write_request_head(head, plan, out));
  const std::string_view text = out.written();
  http1::check_lines(text);
  RW_CHECK(http1::count_fields(text, "host") == 1);
  RW_CHECK(http1::count_fields(text, "content-length") +
               http1::count_fields(text, "transfer-encoding") <=
           1);
  RW_CHECK(http1::count_fields(text, "connection") == (extended ? 1 : 0));

  HeadParser parser(160);
  parser.start_request({.header_bytes = 1 << 20, .fields = 160, .uri_bytes = 1 << 20});
  RW_CHECK(parser.parse(text) == HeadParser::Status::kDone);
  RW_CHECK(parser.head().head_len == text.size());
  RW_CHECK(parser.head().body == plan.body || head.body == BodyKind::kNone);
  check_same_request(head, parser.head());

  Room room;
  const size_t number = fields_of_request(text, "https", extended, room.get());
  RW_CHECK(number > 0);
  HeadBuilder builder(64 * 1024, 160);
  builder.start_request({.header_bytes = 1 << 20, .fields = 160, .uri_bytes = 1 << 20});
  encode_and_decode(std::span(room.fields).first(number), builder);
  RW_CHECK(builder.finish(extended) == BlockError::kNone);
  RW_CHECK(builder.is_extended_connect() == extended);
  HeadParser again(160);
  again.start_request({.header_bytes = 1 << 20, .fields = 160, .uri_bytes = 1 << 20});
  const bool body = plan.body != BodyKind::kNone;
  RW_CHECK(again.take_built(builder.built(), body) == HeadError::kNone);
  if (!extended) check_same_request(head, again.head());
}

void run_rewritten(std::string_view block) {
  std::vector<char> room(64 * 1024);
  const std::string_view plain = block_without_huffman(block, room);
  if (plain.empty()) return;
  Pairs fields;
  Pairs from_plain;
  const bool good = decode_straight(block, fields);
  RW_CHECK(decode_straight(plain, from_plain) == good);
  RW_CHECK(from_plain == fields);
}

void run_request(std::string_view block, const http1::HeadLimits& limits, bool websocket) {
  HeadBuilder builder(8192, 64);
  builder.start_request(limits);
  if (!decode(block, builder) || builder.finish(websocket) != BlockError::kNone) return;
  http1::check_lines(builder.text());
  RW_CHECK(builder.text().size() <= limits.header_bytes);
  RW_CHECK(builder.built().fields.size() <= limits.fields);
  RW_CHECK(builder.built().target.len <= limits.uri_bytes);
  RW_CHECK(websocket || !builder.is_extended_connect());
  for (const bool body : {false, true}) {
    HeadParser parser(64);
    parser.start_request(limits);
    const HeadError error = parser.take_built(builder.built(), body);
    // All but framing has been judged before.
    RW_CHECK(error == HeadError::kNone || error == HeadError::kBadFraming);
    if (error != HeadError::kNone) continue;
    RW_CHECK(parser.head().upgrade == (builder.is_extended_connect() && !body));
    if (builder.is_extended_connect() && body) continue;
    check_written_request(parser.head(), builder.is_extended_connect());
  }
}

void run_response(std::string_view block, bool body, http1::Method method) {
  HeadBuilder builder(8192, 64);
  builder.start_response({});
  if (!decode(block, builder) || builder.finish() != BlockError::kNone) return;
  http1::check_lines(builder.text());
  const http1::ResponseContext context{.request_method = method};
  HeadParser parser(64);
  parser.start_response({}, context);
  const HeadError error = parser.take_built(builder.built(), body);
  RW_CHECK(error == HeadError::kNone || error == HeadError::kBadFraming);
  if (error != HeadError::kNone) return;
  const Head& head = parser.head();
  RW_CHECK(head.keep_alive && !head.upgrade && head.status != 101);
  std::vector<char> bytes(head.head_len + 1024);
  http1::Out out(bytes);
  http1::ResponsePlan plan{.body = head.body, .content_length = head.content_length};
  if (head.body == BodyKind::kUntilClose) plan.body = BodyKind::kChunked;
  RW_CHECK(http1::write_response_head(head, plan, out));
  http1::check_lines(out.written());
  HeadParser again(160);
  again.start_response({.header_bytes = 1 << 20, .fields = 160, .uri_bytes = 0}, context);
  RW_CHECK(again.parse(out.written()) == HeadParser::Status::kDone);
  RW_CHECK(again.head().status == head.status);
  RW_CHECK(again.head().body == plan.body);
  check_same_fields(head, again.head());

  Room room;
  const size_t number = fields_of_response(out.written(), false, room.get());
  // A head that is no response's own: Host has no place in one.
  if (number == 0) {
    RW_CHECK(head.find(http1::FieldId::kHost) != nullptr);
    return;
  }
  HeadBuilder rebuilt(64 * 1024, 160);
  rebuilt.start_response({.header_bytes = 1 << 20, .fields = 160, .uri_bytes = 0});
  encode_and_decode(std::span(room.fields).first(number), rebuilt);
  RW_CHECK(rebuilt.finish() == BlockError::kNone);
}

void run_trailers(std::string_view block) {
  HeadBuilder builder(8192, 64);
  builder.start_trailers({});
  if (!decode(block, builder) || builder.finish() != BlockError::kNone) return;
  if (builder.text().empty()) return;
  http1::check_lines(std::string(builder.text()) + "\r\n");
  Room room;
  const size_t number = fields_of_trailers(builder.text(), room.get());
  RW_CHECK(number == builder.built().fields.size());
  HeadBuilder again(64 * 1024, 160);
  again.start_trailers({.header_bytes = 1 << 20, .fields = 160, .uri_bytes = 0});
  encode_and_decode(std::span(room.fields).first(number), again);
  RW_CHECK(again.finish() == BlockError::kNone);
  RW_CHECK(again.text() == builder.text());
}

}  // namespace
}  // namespace ringway::h2

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ringway;
  const std::string_view block(reinterpret_cast<const char*>(data), size);
  h2::run_rewritten(block);
  h2::run_request(block, {}, false);
  h2::run_request(block, {}, true);
  h2::run_request(block, {.header_bytes = 96, .fields = 3, .uri_bytes = 12}, true);
  h2::run_response(block, true, http1::Method::kGet);
  h2::run_response(block, false, http1::Method::kGet);
  h2::run_response(block, false, http1::Method::kHead);
  h2::run_trailers(block);
  return 0;
}
