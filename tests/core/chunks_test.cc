// tests/core/chunks_test.cc
#include "core/chunks.h"

#include <doctest/doctest.h>

#include <array>
#include <string>

#include "core/base/prng.h"

namespace ringway {
namespace {

std::string bytes_of(size_t count, size_t from) {
  std::string text(count, '\0');
  for (size_t i = 0; i < count; ++i) text[i] = static_cast<char>((from + i) * 31 % 251);
  return text;
}

iovec piece_of(const std::string& text) {
  return {.iov_base = const_cast<char*>(text.data()), .iov_len = text.size()};
}

// Everything that waits, by peek() as send(2) sees it.
std::string take_all(OutQueue& queue, ChunkPool& pool) {
  std::string all;
  while (!queue.empty()) {
    std::array<iovec, 3> out{};
    size_t seen = 0;
    const size_t filled = queue.peek(out);
    REQUIRE(filled > 0);
    for (size_t i = 0; i < filled; ++i) {
      all.append(static_cast<const char*>(out[i].iov_base), out[i].iov_len);
      seen += out[i].iov_len;
    }
    queue.consume(pool, seen);
  }
  return all;
}

}  // namespace

TEST_CASE(
    "ChunkPool: as many as allowed, then none; what comes back is used again, the last first") {
  ChunkPool pool(2);
  Chunk* one = pool.take();
  Chunk* two = pool.take();
  REQUIRE(one != nullptr);
  REQUIRE(two != nullptr);
  CHECK(pool.in_use() == 2);
  CHECK(pool.take() == nullptr);
  CHECK(pool.refused() == 1);
  one->end = 7;
  pool.give_back(two);
  pool.give_back(one);
  CHECK(pool.take() == one);
  CHECK(one->end == 0);
  CHECK(pool.take() == two);
  pool.give_back(one);
  pool.give_back(two);
  CHECK(pool.in_use() == 0);
}

TEST_CASE("OutQueue: bytes come out in their order, whatever the sizes of what goes in and out") {
  ChunkPool pool(64);
  Prng prng(3);
  OutQueue queue;
  std::string expected;
  std::string got;
  for (int i = 0; i < 400; ++i) {
    const std::string first = bytes_of(prng.below(40'000), expected.size());
    const std::string second = bytes_of(prng.below(100), expected.size() + first.size());
    const std::string both = first + second;
    const size_t skip = prng.below(both.size() + 1);
    const iovec pieces[] = {piece_of(first), piece_of(second)};
    REQUIRE(queue.append(pool, pieces, skip));
    expected += both.substr(skip);
    CHECK(queue.bytes() == expected.size() - got.size());
    std::array<iovec, 2> out{};
    size_t seen = 0;
    for (size_t at = 0, filled = queue.peek(out); at < filled; ++at) seen += out[at].iov_len;
    const size_t part = prng.below(seen + 1);
    for (size_t at = 0, left = part; left > 0; ++at) {
      const size_t of_this = std::min(left, out[at].iov_len);
      got.append(static_cast<const char*>(out[at].iov_base), of_this);
      left -= of_this;
    }
    queue.consume(pool, part);
    if (queue.bytes() > 300'000) got += take_all(queue, pool);
  }
  got += take_all(queue, pool);
  CHECK(got == expected);
  CHECK(pool.in_use() == 0);
}

TEST_CASE("OutQueue: an exhausted pool refuses; what was appended stays until clear()") {
  ChunkPool pool(1);
  OutQueue queue;
  const std::string much(3 * Chunk::kBytes, 'x');
  const iovec piece = piece_of(much);
  CHECK_FALSE(queue.append(pool, {&piece, 1}, 0));
  CHECK(queue.bytes() == Chunk::kBytes);
  queue.clear(pool);
  CHECK(queue.empty());
  CHECK(pool.in_use() == 0);
}

TEST_CASE(
    "InBuffer: one piece of memory, in a chunk and beyond it; nothing is held when it is empty") {
  ChunkPool pool(1);
  InBuffer buffer;
  CHECK(buffer.view().empty());
  std::string expected;
  for (int i = 0; i < 50; ++i) {
    const std::string more = bytes_of(1'000, expected.size());
    REQUIRE(buffer.append(pool, more, 100'000));
    expected += more;
    REQUIRE(buffer.view() == expected);
  }
  buffer.consume(pool, 12'345);
  CHECK(buffer.view() == std::string_view(expected).substr(12'345));
  buffer.consume(pool, buffer.size());
  CHECK(buffer.empty());
  CHECK(pool.in_use() == 0);
}

TEST_CASE("InBuffer: above the limit, or without a chunk, nothing is appended") {
  ChunkPool pool(1);
  InBuffer buffer;
  REQUIRE(buffer.append(pool, "12345", 8));
  CHECK_FALSE(buffer.append(pool, "6789", 8));
  CHECK(buffer.view() == "12345");
  CHECK(buffer.append(pool, "678", 8));
  InBuffer other;
  CHECK_FALSE(other.append(pool, "x", 8));
  CHECK(other.empty());
  buffer.clear(pool);
  CHECK(pool.in_use() == 0);
}

}  // namespace ringway
