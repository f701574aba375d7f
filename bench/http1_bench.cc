// bench/http1_bench.cc - what one HTTP/1 head costs: parsed, and written again for the other side.
//
// Budgets: a small GET 400 ns, 40 fields 6 us, per parse and write. Run: ninja http1_bench.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "core/base/check.h"
#include "proto/http1_body.h"
#include "proto/http1_write.h"

namespace ringway::http1 {
namespace {

std::string small_get() {
  return "GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n";
}

std::string browser_get() {
  return "GET /assets/app.4f7c1d.js?v=12 HTTP/1.1\r\n"
         "Host: www.example.com\r\n"
         "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
         "Accept: */*\r\n"
         "Accept-Language: en-GB,en;q=0.5\r\n"
         "Accept-Encoding: gzip, deflate, br, zstd\r\n"
         "Referer: https://www.example.com/start\r\n"
         "Connection: keep-alive\r\n"
         "Cookie: session=4f7c1d0e9a8b4c6d8e2f1a3b5c7d9e0f; theme=dark\r\n"
         "Sec-Fetch-Dest: script\r\n"
         "Sec-Fetch-Mode: no-cors\r\n"
         "Sec-Fetch-Site: same-origin\r\n"
         "If-None-Match: \"5e1f-60a7c2b1\"\r\n"
         "Priority: u=2\r\n"
         "Pragma: no-cache\r\n"
         "Cache-Control: no-cache\r\n\r\n";
}

std::string large_get() {
  std::string text = "GET /api/v1/items?page=2&sort=name HTTP/1.1\r\nHost: www.example.com\r\n";
  for (int i = 0; i < 39; ++i) {
    text += "X-Custom-Field-" + std::to_string(i) + ": " + std::string(132, 'v') + "\r\n";
  }
  return text + "\r\n";
}

std::string small_response() {
  return "HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Fri, 27 Nov 2026 12:00:00 GMT\r\n"
         "Content-Type: text/html; charset=utf-8\r\nContent-Length: 1024\r\n"
         "Connection: keep-alive\r\nETag: \"5e1f-60a7\"\r\nAccept-Ranges: bytes\r\n\r\n";
}

void parse_request(HeadParser& parser, const std::string& text) {
  parser.start_request({});
  RW_CHECK(parser.parse(text) == HeadParser::Status::kDone);
}

void bm_parse(benchmark::State& state, const std::string& text) {
  HeadParser parser(128);
  for (auto _ : state) {
    parse_request(parser, text);
    benchmark::DoNotOptimize(parser.head());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(text.size()));
}

void bm_parse_write(benchmark::State& state, const std::string& text) {
  HeadParser parser(128);
  std::vector<char> buffer(64 * 1024);
  const RequestPlan plan{
      .forwarded = {.client_ip = "192.0.2.17", .scheme = "https", .host = "www.example.com"}};
  for (auto _ : state) {
    parse_request(parser, text);
    Out out(buffer);
    RW_CHECK(write_request_head(parser.head(), plan, out));
    benchmark::DoNotOptimize(out.written().data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(text.size()));
}

void bm_response(benchmark::State& state, const std::string& text) {
  HeadParser parser(128);
  std::vector<char> buffer(64 * 1024);
  for (auto _ : state) {
    parser.start_response({}, {});
    RW_CHECK(parser.parse(text) == HeadParser::Status::kDone);
    const ResponsePlan plan{.body = parser.head().body,
                            .content_length = parser.head().content_length};
    Out out(buffer);
    RW_CHECK(write_response_head(parser.head(), plan, out));
    benchmark::DoNotOptimize(out.written().data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(text.size()));
}

// A body of 64 KiB in chunks of `state.range(0)` bytes, all in one buffer.
void bm_chunked(benchmark::State& state) {
  const std::string chunk(static_cast<size_t>(state.range(0)), 'x');
  char room[18];
  std::string text;
  for (int64_t size = 0; size < 65536; size += state.range(0)) {
    text += std::string(chunk_header(chunk.size(), room)) + chunk + "\r\n";
  }
  text += "0\r\n\r\n";
  BodyReader reader;
  for (auto _ : state) {
    reader.start(BodyKind::kChunked, 0, {});
    std::string_view rest = text;
    BodyReader::Step step{};
    do {
      step = reader.next(rest);
      rest.remove_prefix(step.consumed);
    } while (step.kind == BodyReader::Kind::kPiece);
    RW_CHECK(step.kind == BodyReader::Kind::kEnd);
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(text.size()));
}

BENCHMARK_CAPTURE(bm_parse, small_get, small_get());
BENCHMARK_CAPTURE(bm_parse, browser_get, browser_get());
BENCHMARK_CAPTURE(bm_parse, large_get, large_get());
BENCHMARK_CAPTURE(bm_parse_write, small_get, small_get());
BENCHMARK_CAPTURE(bm_parse_write, browser_get, browser_get());
BENCHMARK_CAPTURE(bm_parse_write, large_get, large_get());
BENCHMARK_CAPTURE(bm_response, small_response, small_response());
BENCHMARK(bm_chunked)->Arg(128)->Arg(4096);

}  // namespace
}  // namespace ringway::http1

BENCHMARK_MAIN();
