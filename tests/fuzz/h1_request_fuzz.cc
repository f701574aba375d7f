// tests/fuzz/h1_request_fuzz.cc - any bytes as a request head; what is accepted is rewritten and
// must be accepted again with the same meaning.
#include <string>
#include <vector>

#include "proto/http1_write.h"
#include "tests/fuzz/h1_fuzz.h"

namespace ringway::http1 {
namespace {

RequestPlan plan_for(const Head& head) {
  RequestPlan plan;
  plan.body = head.body;
  plan.content_length = head.content_length;
  plan.upgrade = head.upgrade;
  if (head.authority.len == 0) plan.host = "none";
  plan.forwarded = {.client_ip = "2001:db8::1",
                    .scheme = "http",
                    .host = "a:1",
                    .trusted = true,
                    .forwarded = true};
  return plan;
}

void check_rewritten(const Head& head) {
  std::vector<char> room(head.head_len + 1024);
  Out out(room);
  RW_CHECK(write_request_head(head, plan_for(head), out));
  const std::string text(out.written());
  check_lines(text);
  RW_CHECK(count_fields(text, "host") == 1);
  RW_CHECK(count_fields(text, "content-length") + count_fields(text, "transfer-encoding") <= 1);
  RW_CHECK(count_fields(text, "http2-settings") == 0);
  RW_CHECK(count_fields(text, "connection") == (head.upgrade ? 1 : 0));

  HeadParser parser(128);
  parser.start_request({.header_bytes = 1 << 20, .fields = 128, .uri_bytes = 1 << 20});
  RW_CHECK(parser.parse(text) == HeadParser::Status::kDone);
  const Head& again = parser.head();
  RW_CHECK(again.head_len == text.size());
  RW_CHECK(again.view(again.method_text) == head.view(head.method_text));
  if (again.view(again.path) != "*") RW_CHECK(again.view(again.path) == head.view(head.path));
  RW_CHECK(again.view(again.query) == head.view(head.query));
  RW_CHECK(again.has_query == head.has_query);
  RW_CHECK(again.upgrade == head.upgrade);
  RW_CHECK(again.content_length == head.content_length);
  RW_CHECK(again.te_trailers == head.te_trailers);
  RW_CHECK(again.body == head.body);
  if (head.authority.len > 0) RW_CHECK(again.view(again.authority) == head.view(head.authority));
}

void run(std::string_view text, const HeadLimits& limits) {
  FuzzParse whole;
  parse_and_compare(whole, text, [&](HeadParser& parser) { parser.start_request(limits); });
  if (whole.status != HeadParser::Status::kDone) return;
  const Head& head = whole.parser.head();
  RW_CHECK(head.head_len <= limits.header_bytes);
  RW_CHECK(head.fields.size() <= limits.fields);
  RW_CHECK(head.target.len <= limits.uri_bytes);
  RW_CHECK(head.path.len > 0);
  RW_CHECK(head.body != BodyKind::kUntilClose);
  const std::string_view bytes = text.substr(0, head.head_len);
  check_lines(bytes.substr(bytes.find_first_not_of("\r\n")));
  check_rewritten(head);
}

}  // namespace
}  // namespace ringway::http1

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  ringway::http1::run(text, {});
  ringway::http1::run(text, {.header_bytes = 96, .fields = 3, .uri_bytes = 12});
  return 0;
}
