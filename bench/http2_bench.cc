// bench/http2_bench.cc - what one HTTP/2 header block costs: decoded to a head, and made of one.
//
// Budgets, 20 fields: block to head 3 us, head to block 3 us. Run: ninja bench/http2_bench.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "core/base/check.h"
#include "proto/http1_write.h"
#include "proto/http2_head.h"

namespace ringway::h2 {
namespace {

constexpr size_t kPlenty = 64 * 1024;

// What a browser sends for a script of a page: four pseudo-headers, 16 fields with two crumbs.
std::vector<HeaderField> browser_get(std::string_view path) {
  return {
      {.name = ":method", .value = "GET"},
      {.name = ":authority", .value = "www.example.com"},
      {.name = ":scheme", .value = "https"},
      {.name = ":path", .value = path},
      {.name = "sec-ch-ua", .value = "\"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\""},
      {.name = "sec-ch-ua-mobile", .value = "?0"},
      {.name = "user-agent",
       .value = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
                "Chrome/130.0.0.0 Safari/537.36"},
      {.name = "sec-ch-ua-platform", .value = "\"Linux\""},
      {.name = "accept", .value = "*/*"},
      {.name = "sec-fetch-site", .value = "same-origin"},
      {.name = "sec-fetch-mode", .value = "no-cors"},
      {.name = "sec-fetch-dest", .value = "script"},
      {.name = "referer", .value = "https://www.example.com/start"},
      {.name = "accept-encoding", .value = "gzip, deflate, br, zstd"},
      {.name = "accept-language", .value = "en-GB,en;q=0.9"},
      {.name = "cookie", .value = "session=4f7c1d0e9a8b4c6d8e2f1a3b5c7d9e0f"},
      {.name = "cookie", .value = "theme=dark-and-quite-long"},
      {.name = "if-none-match", .value = "\"5e1f-60a7c2b1\""},
      {.name = "cache-control", .value = "no-cache"},
      {.name = "priority", .value = "u=1"},
  };
}

void bm_request(benchmark::State& state) {
  Deflater deflater(4096);
  Inflater inflater(4096);
  HeadBuilder builder(kPlenty, 128);
  http1::HeadParser parser(128);
  std::vector<char> room(kPlenty);
  const std::string path = "/assets/app.4f7c1d.js?v=12";
  // The second block of a connection: all is in the tables but the path.
  size_t size = deflater.encode(browser_get("/"), room);
  builder.start_request({});
  RW_CHECK(inflater.decode({room.data(), size}, kPlenty, builder));
  size = deflater.encode(browser_get(path), room);
  const std::string_view block(room.data(), size);
  builder.start_request({});
  RW_CHECK(inflater.decode(block, kPlenty, builder));
  const uint64_t mallocs = inflater.mallocs();
  for (auto _ : state) {
    builder.start_request({});
    RW_CHECK(inflater.decode(block, kPlenty, builder));
    RW_CHECK(builder.finish() == BlockError::kNone);
    parser.start_request({});
    RW_CHECK(parser.take_built(builder.built(), false) == http1::HeadError::kNone);
    benchmark::DoNotOptimize(parser.head());
  }
  RW_CHECK(inflater.mallocs() == mallocs);
  state.counters["block"] = static_cast<double>(size);
  state.counters["text"] = static_cast<double>(builder.text().size());
}

// 40 fields of 100 bytes that no table has room for, in Huffman code: what large cookies, tokens
// and h2load with many fields are.
void bm_request_fresh(benchmark::State& state) {
  std::vector<HeaderField> fields = browser_get("/");
  std::vector<std::string> names;
  const std::string value = "v" + std::string(100, 'v');
  for (int i = 0; i < 40; ++i) names.push_back("x-bench-field-" + std::to_string(10 + i));
  for (const std::string& name : names) fields.push_back({.name = name, .value = value});
  Deflater deflater(0);
  Inflater inflater(4096);
  HeadBuilder builder(kPlenty, 128);
  std::vector<char> room(kPlenty);
  const std::string_view block(room.data(), deflater.encode(fields, room));
  for (auto _ : state) {
    builder.start_request({});
    RW_CHECK(inflater.decode(block, kPlenty, builder));
    RW_CHECK(builder.finish() == BlockError::kNone);
  }
  state.counters["block"] = static_cast<double>(block.size());
}

// The same head by HTTP/1, to compare with.
void bm_request_as_text(benchmark::State& state) {
  HeadBuilder builder(kPlenty, 128);
  builder.start_request({});
  for (const HeaderField& field : browser_get("/assets/app.4f7c1d.js?v=12")) {
    RW_CHECK(builder.on_field(field));
  }
  RW_CHECK(builder.finish() == BlockError::kNone);
  http1::HeadParser parser(128);
  for (auto _ : state) {
    parser.start_request({});
    RW_CHECK(parser.parse(builder.text()) == http1::HeadParser::Status::kDone);
    benchmark::DoNotOptimize(parser.head());
  }
}

std::string response() {
  std::string text =
      "HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Fri, 27 Nov 2026 12:00:00 GMT\r\n"
      "Content-Type: text/html; charset=utf-8\r\nLast-Modified: Fri, 27 Nov 2026 11:00:00 GMT\r\n"
      "ETag: \"5e1f-60a7\"\r\nAccept-Ranges: bytes\r\nVary: Accept-Encoding\r\n"
      "Cache-Control: max-age=600\r\nStrict-Transport-Security: max-age=31536000\r\n"
      "X-Content-Type-Options: nosniff\r\n";
  for (int i = 0; i < 8; ++i) text += "X-Header-" + std::to_string(i) + ": some value of it\r\n";
  return text + "Content-Length: 1024\r\n\r\n";
}

void bm_response(benchmark::State& state) {
  const std::string text = response();
  Deflater deflater(4096);
  std::vector<HeaderField> fields(128);
  std::vector<char> names(kPlenty);
  std::vector<char> room(kPlenty);
  size_t size = 0;
  for (auto _ : state) {
    const size_t number = fields_of_response(text, false, {.fields = fields, .names = names});
    RW_CHECK(number == 20);
    size = deflater.encode({fields.data(), number}, room);
    RW_CHECK(size > 0);
    benchmark::DoNotOptimize(room.data());
  }
  state.counters["block"] = static_cast<double>(size);
  state.counters["text"] = static_cast<double>(text.size());
}

void bm_response_fields(benchmark::State& state) {
  const std::string text = response();
  std::vector<HeaderField> fields(128);
  std::vector<char> names(kPlenty);
  for (auto _ : state) {
    RW_CHECK(fields_of_response(text, false, {.fields = fields, .names = names}) == 20);
    benchmark::DoNotOptimize(fields.data());
  }
}

BENCHMARK(bm_request);
BENCHMARK(bm_request_fresh);
BENCHMARK(bm_request_as_text);
BENCHMARK(bm_response);
BENCHMARK(bm_response_fields);

}  // namespace
}  // namespace ringway::h2

BENCHMARK_MAIN();
