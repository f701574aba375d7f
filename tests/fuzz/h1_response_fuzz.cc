// tests/fuzz/h1_response_fuzz.cc - any bytes as a response head; what is accepted is rewritten and
// must be accepted again with the same framing.
#include <string>
#include <vector>

#include "proto/http1_write.h"
#include "tests/fuzz/h1_fuzz.h"

namespace ringway::http1 {
namespace {

void check_rewritten(const Head& head, const ResponseContext& context) {
  ResponsePlan plan;
  plan.body = head.body;
  plan.content_length = head.content_length;
  plan.has_content_length = head.find(FieldId::kContentLength) != nullptr;
  plan.keep_alive = head.keep_alive;
  plan.upgrade = head.upgrade;
  std::vector<char> room(head.head_len + 256);
  Out out(room);
  RW_CHECK(write_response_head(head, plan, out));
  const std::string text(out.written());
  check_lines(text);
  RW_CHECK(count_fields(text, "content-length") + count_fields(text, "transfer-encoding") <= 1);
  RW_CHECK(count_fields(text, "connection") <= 1);

  HeadParser parser(128);
  parser.start_response({.header_bytes = 1 << 20, .fields = 128, .uri_bytes = 0}, context);
  RW_CHECK(parser.parse(text) == HeadParser::Status::kDone);
  const Head& again = parser.head();
  RW_CHECK(again.head_len == text.size());
  RW_CHECK(again.status == head.status);
  RW_CHECK(again.view(again.reason) == head.view(head.reason));
  RW_CHECK(again.body == head.body);
  RW_CHECK(again.upgrade == head.upgrade);
  if (head.status >= 200) RW_CHECK(again.keep_alive == head.keep_alive);
  if (head.body == BodyKind::kLength) RW_CHECK(again.content_length == head.content_length);
}

void run(std::string_view text, const HeadLimits& limits, const ResponseContext& context) {
  FuzzParse whole;
  parse_and_compare(whole, text,
                    [&](HeadParser& parser) { parser.start_response(limits, context); });
  if (whole.status != HeadParser::Status::kDone) return;
  const Head& head = whole.parser.head();
  RW_CHECK(head.head_len <= limits.header_bytes);
  RW_CHECK(head.fields.size() <= limits.fields);
  RW_CHECK(head.status >= 100 && head.status <= 599);
  RW_CHECK(head.status != 101 || (context.upgrade_forwarded && head.upgrade));
  if (context.request_method == Method::kHead) RW_CHECK(head.body == BodyKind::kNone);
  check_lines(text.substr(0, head.head_len));
  check_rewritten(head, context);
}

}  // namespace
}  // namespace ringway::http1

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace ringway::http1;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  run(text, {}, {});
  run(text, {}, {.request_method = Method::kHead, .upgrade_forwarded = false});
  run(text, {}, {.request_method = Method::kGet, .upgrade_forwarded = true});
  run(text, {.header_bytes = 96, .fields = 3, .uri_bytes = 12}, {});
  return 0;
}
