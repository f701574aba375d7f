// tests/lb/engine_lines_test.cc - who is told to be without a ring, and why.
#include "lb/engine_lines.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace ringway;

namespace {

using Lines = std::vector<std::string>;

}  // namespace

TEST_CASE("engine_warnings: everybody got what was asked for -> no line") {
  CHECK(engine_warnings(Lines(3), "").empty());
}

TEST_CASE("engine_warnings: one reason -> one line that names all whom it concerns") {
  CHECK(engine_warnings(Lines(1, "no"), "no") == Lines{"shard 0 and control: no"});
  CHECK(engine_warnings(Lines(2, "no"), "no") == Lines{"shards 0, 1 and control: no"});
  CHECK(engine_warnings(Lines(64, "no"), "") == Lines{"shards 0-63: no"});
  CHECK(engine_warnings(Lines(2), "no") == Lines{"control: no"});
  CHECK(engine_warnings(Lines{"", "", "no"}, "") == Lines{"shard 2: no"});
  CHECK(engine_warnings(Lines{"no", "", "no", "no", "no", "", "no", "no"}, "") ==
        Lines{"shards 0, 2-4, 6, 7: no"});
}

TEST_CASE("engine_warnings: several reasons -> a line each, shards before the control thread") {
  CHECK(engine_warnings(Lines{"", "memory", "files", "memory"}, "forbidden") ==
        Lines{"shards 1, 3: memory", "shard 2: files", "control: forbidden"});
  CHECK(engine_warnings(Lines{"memory", "files"}, "files") ==
        Lines{"shard 0: memory", "shard 1 and control: files"});
}

TEST_CASE("engine_summary: one engine -> its name; two -> how many have which") {
  CHECK(engine_summary(Lines(4, "epoll")) == "epoll");
  CHECK(engine_summary(Lines{"io_uring", "epoll", "io_uring"}) ==
        "io_uring (2 shards), epoll (1 shard)");
}
