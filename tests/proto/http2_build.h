// tests/proto/http2_build.h - builds heads of fields, and takes them by HeadParser.
#pragma once

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <vector>

#include "proto/http2_head.h"
#include "tests/support/hpack.h"

namespace ringway::h2 {

enum class BlockKind : uint8_t { kRequest, kResponse, kTrailers };

struct BuildSetup {
  BlockKind kind = BlockKind::kRequest;
  bool websocket = false;
  http1::HeadLimits limits{};
};

struct Built {
  BlockError error = BlockError::kNone;
  std::string text{};  // if there is no error
  bool extended_connect = false;
};

inline void start(HeadBuilder& builder, const BuildSetup& setup) {
  switch (setup.kind) {
    case BlockKind::kRequest: builder.start_request(setup.limits); return;
    case BlockKind::kResponse: builder.start_response(setup.limits); return;
    case BlockKind::kTrailers: builder.start_trailers(setup.limits); return;
  }
}

// Hands fields to a builder until it has enough, as Inflater does.
inline BlockError build(HeadBuilder& builder, const Pairs& fields, const BuildSetup& setup = {}) {
  start(builder, setup);
  for (const auto& [name, value] : fields) {
    if (!builder.on_field({.name = name, .value = value})) break;
  }
  return builder.finish(setup.websocket);
}

inline Built build(const Pairs& fields, const BuildSetup& setup = {}) {
  HeadBuilder builder(64 * 1024, 128);
  Built built{.error = build(builder, fields, setup)};
  if (built.error != BlockError::kNone) return built;
  built.text = builder.text();
  built.extended_connect = builder.is_extended_connect();
  return built;
}

// Two lists, one behind the other.
inline Pairs operator+(Pairs a, const Pairs& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

inline const Pairs kGet = {
    {":method", "GET"}, {":scheme", "https"}, {":authority", "a"}, {":path", "/"}};

}  // namespace ringway::h2
