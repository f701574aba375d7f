// tests/proto/grpc_test.cc - proto/grpc.h.
#include "proto/grpc.h"

#include <doctest/doctest.h>

#include <span>
#include <string>
#include <utility>

#include "proto/http1_write.h"

namespace ringway::grpc {
namespace {

std::string trailers_only(uint16_t status, std::string_view message, size_t room = 256) {
  std::string buffer(room, '\0');
  http1::Out out(std::span<char>(buffer.data(), buffer.size()));
  put_trailers_only(status, message, out);
  return out.full() ? "full" : std::string(out.written());
}

TEST_CASE("grpc: content types") {
  for (const char* yes : {"application/grpc", "application/grpc+proto", "application/grpc;a=b",
                          "Application/GRPC", "application/grpc ; a=b"}) {
    CAPTURE(yes);
    CHECK(is_content_type(yes));
  }
  for (const char* no : {"", "application/grp", "application/grpc-web", "application/grpcx",
                         "application/json", "text/application/grpc"}) {
    CAPTURE(no);
    CHECK_FALSE(is_content_type(no));
  }
}

TEST_CASE("grpc: codes of HTTP statuses") {
  constexpr std::pair<uint16_t, int> kCodes[] = {
      {400, 13}, {401, 16}, {403, 7},  {404, 12}, {408, 4},  {413, 8},  {421, 2},
      {429, 14}, {431, 8},  {500, 13}, {501, 2},  {502, 14}, {503, 14}, {504, 4}};
  for (const auto& [status, code] : kCodes) {
    CAPTURE(status);
    CHECK(code_of(status) == code);
  }
}

TEST_CASE("grpc: an error without messages; what is not printable is encoded") {
  CHECK(trailers_only(503, "no server is available") ==
        "Content-Type: application/grpc\r\nGrpc-Status: 14\r\n"
        "Grpc-Message: no server is available\r\n");
  CHECK(trailers_only(404, "100% \r\n\x7f\xc3\xa4~") ==
        "Content-Type: application/grpc\r\nGrpc-Status: 12\r\n"
        "Grpc-Message: 100%25 %0D%0A%7F%C3%A4~\r\n");
  CHECK(trailers_only(503, "x", 20) == "full");
}

}  // namespace
}  // namespace ringway::grpc
