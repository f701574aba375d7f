// tests/core/pem_test.cc
#include "core/pem.h"

#include <doctest/doctest.h>

#include <string>

using namespace ringway;

namespace {

constexpr const char* kTwo =
    "A comment is skipped.\n"
    "-----BEGIN CERTIFICATE-----\r\n"
    "AAEC\r\n"
    "  AwQF  \r\n"
    "-----END CERTIFICATE-----\r\n"
    "\n"
    "-----BEGIN EC PARAMETERS-----\n"
    "Bg==\n"
    "-----END EC PARAMETERS-----";

PemError error_of(const std::string& text, uint32_t& line) {
  PemReader reader(text);
  PemBlock block;
  while (reader.next(block)) {
  }
  line = reader.line();
  return reader.error();
}

}  // namespace

TEST_CASE("PemReader: two blocks among other text -> their labels, lines and bytes") {
  PemReader reader(kTwo);
  PemBlock block;
  REQUIRE(reader.next(block));
  CHECK(block.label == "CERTIFICATE");
  CHECK(block.line == 2);
  CHECK(block.bytes.view() == std::string_view("\0\1\2\3\4\5", 6));
  REQUIRE(reader.next(block));
  CHECK(block.label == "EC PARAMETERS");
  CHECK(block.line == 7);
  CHECK(block.bytes.view() == "\6");
  CHECK_FALSE(reader.next(block));
  CHECK(reader.error() == PemError::kNone);
}

// RFC 1421 4.6.1.1: the old way to encrypt a key.
TEST_CASE("PemReader: Proc-Type 4,ENCRYPTED -> encrypted, nothing decoded") {
  PemReader reader(
      "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: DES-EDE3-CBC,00\n\n"
      "AAAA\n-----END RSA PRIVATE KEY-----\n");
  PemBlock block;
  REQUIRE(reader.next(block));
  CHECK(block.encrypted);
  CHECK(block.bytes.empty());
}

TEST_CASE("PemReader: broken text -> the kind of error and its line") {
  uint32_t line = 0;
  CHECK(error_of("x\n-----BEGIN A-----\nAAAA\n", line) == PemError::kNoEnd);
  CHECK(line == 2);
  CHECK(error_of("-----BEGIN A-----\nAAAA\n-----END B-----\n", line) == PemError::kNoEnd);
  CHECK(line == 1);
  CHECK(error_of("-----BEGIN A-----\nAAAA\n-----BEGIN A-----\n", line) == PemError::kNoEnd);
  CHECK(line == 1);
  CHECK(error_of("\n\n-----END A-----\n", line) == PemError::kStrayEnd);
  CHECK(line == 3);
  CHECK(error_of("-----BEGIN A-----\nAAAA\nAA!A\n-----END A-----\n", line) == PemError::kBadBase64);
  CHECK(line == 3);
  CHECK(error_of("-----BEGIN A-----\nAAAAA\n-----END A-----\n", line) == PemError::kBadBase64);
  CHECK(line == 1);
  CHECK(error_of("-----BEGIN A-----\n-----END A-----\n", line) == PemError::kBadBase64);
  CHECK(error_of("-----BEGIN A----\nAAAA\n-----END A-----\n", line) == PemError::kBadBoundary);
  CHECK(line == 1);
  CHECK(error_of("", line) == PemError::kNone);
}

TEST_CASE("PemReader: more than 64 KiB of base64 in a block -> refused") {
  std::string text = "-----BEGIN A-----\n";
  for (int i = 0; i < 1025; ++i) text += std::string(64, 'A') + "\n";
  text += "-----END A-----\n";
  uint32_t line = 0;
  CHECK(error_of(text, line) == PemError::kBadBase64);
  CHECK(line == 1026);
}

TEST_CASE("SecretBytes: moved and shrunk -> the bytes move along, the rest is cleared") {
  SecretBytes first(std::string_view("secret"));
  const uint8_t* where = first.data();
  SecretBytes second(std::move(first));
  CHECK(second.data() == where);
  CHECK(second.view() == "secret");
  second.shrink(2);
  CHECK(second.view() == "se");
  CHECK(where[2] == 0);
  CHECK(where[5] == 0);
  second = SecretBytes();
  CHECK(second.empty());
}
