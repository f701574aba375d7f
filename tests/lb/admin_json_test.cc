// tests/lb/admin_json_test.cc - what the admin API understands, and how it says what changed.
#include "lb/admin/admin_json.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <string>

using namespace ringway;
using config::ServerState;

namespace {

const ServerOverrides kSome{.state = ServerState::kDrain, .weight = 5, .max_requests = 7};

}  // namespace

TEST_CASE("parse_server_patch: what is named changes, null is as configured, the rest stays") {
  struct Case {
    const char* text;
    ServerOverrides wanted;
  };
  const Case cases[] = {
      {R"({"state": "ready"})",
       {.state = ServerState::kReady, .weight = 5, .max_requests = 7, .max_connections = {}}},
      {R"({"state": "maintenance", "weight": 0})",
       {.state = ServerState::kMaintenance, .weight = 0, .max_requests = 7}},
      {R"({"state": null, "weight": null})", {.max_requests = 7}},
      {R"({"max_requests": "off", "max_connections": 1000000000})",
       {.state = ServerState::kDrain,
        .weight = 5,
        .max_requests = config::kUnlimited,
        .max_connections = 1'000'000'000}},
      {R"({"weight": 1000, "max_requests": 1})",
       {.state = ServerState::kDrain, .weight = 1000, .max_requests = 1}},
  };
  for (const Case& one : cases) {
    CAPTURE(one.text);
    ServerOverrides overrides = kSome;
    ApiError error;
    CHECK(parse_server_patch(one.text, overrides, error));
    CHECK(overrides == one.wanted);
  }
}

TEST_CASE("parse_server_patch: anything else -> refused with a hint, nothing changed") {
  for (const char* text : {
           "",
           "{",
           "null",
           "[]",
           "{}",
           "1",
           "\"state\"",
           R"({"state": "down"})",
           R"({"state": 1})",
           R"({"state": {}})",
           R"({"state": "drain", "wieght": 3})",
           R"({"weight": 1001})",
           R"({"weight": -1})",
           R"({"weight": 1.0})",
           R"({"weight": "5"})",
           R"({"weight": "off"})",
           R"({"weight": true})",
           R"({"weight": 18446744073709551616})",
           R"({"max_requests": 0})",
           R"({"max_requests": 1000000001})",
           R"({"max_requests": "on"})",
           R"({"max_connections": []})",
           "{\"\xff\": 1}",
           R"({"state": "drain"} x)",
       }) {
    CAPTURE(text);
    ServerOverrides overrides = kSome;
    ApiError error;
    CHECK_FALSE(parse_server_patch(text, overrides, error));
    CHECK(overrides == kSome);
    CHECK(error.status == 400);
    CHECK_FALSE(error.error.empty());
    CHECK_FALSE(error.hint.empty());
    const auto json = nlohmann::json::parse(error_json(error), nullptr, false);
    CHECK(json.is_object());
  }
  // As deep as a body can be.
  ServerOverrides overrides;
  ApiError error;
  CHECK_FALSE(parse_server_patch(std::string(16 * 1024, '['), overrides, error));
}

TEST_CASE("percent_decode: names of any bytes -> back; malformed -> refused") {
  std::string out;
  CHECK(percent_decode("a%2Fb%20%25%c3%BC+", out));
  CHECK(out == "a/b %\xc3\xbc+");
  CHECK(percent_decode("", out));
  CHECK(out.empty());
  for (const char* bad : {"%", "%2", "a%", "%zz", "%2g", "%g2"}) {
    CAPTURE(bad);
    CHECK_FALSE(percent_decode(bad, out));
  }
}

TEST_CASE("describe_change: only what differs, from what held to what holds") {
  config::Server server;
  server.weight = 80;
  CHECK(describe_change(kSome, kSome, server).empty());
  CHECK(describe_change({}, {.state = ServerState::kMaintenance}, server) ==
        "state ready -> maintenance");
  CHECK(describe_change({.state = ServerState::kDrain, .weight = 3}, {.weight = 4}, server) ==
        "state drain -> ready (as configured), weight 3 -> 4");
  CHECK(describe_change({.max_requests = 5}, {.max_requests = config::kUnlimited}, server) ==
        "max_requests 5 -> off");
  // Set to what is configured anyhow: it stays so when the file changes something else.
  CHECK(describe_change({}, {.weight = 80}, server) == "weight 80 -> 80");
}

TEST_CASE("pools_json: named counts -> members, whatever they are called") {
  std::vector<std::unique_ptr<PoolOrder>> orders;
  orders.push_back(std::make_unique<PoolOrder>());
  PoolReport& report = orders[0]->reports.emplace_back();
  report.shard = 3;
  report.upstream = "u";
  report.server = "bad \xff name";
  report.counts = {{"connections", {{"idle", 4}, {"busy", 0}}}, {"missed", {{"no_key", 9}}}};
  report.keys = {{"sni=a", {{"idle", 1}}}};
  orders[0]->done.store(true);
  const auto json = nlohmann::json::parse(pools_json(orders), nullptr, false);
  REQUIRE(json.is_object());
  const auto& pool = json["pools"][0];
  CHECK(pool["shard"] == 3);
  CHECK(pool["connections"]["idle"] == 4);
  CHECK(pool["connections"]["busy"] == 0);
  CHECK(pool["missed"]["no_key"] == 9);
  CHECK(pool["keys"][0]["key"] == "sni=a");
  CHECK(pool["keys"][0]["idle"] == 1);
}

TEST_CASE("load_of: removable -> nothing in flight and no connection on any shard") {
  ServerObject server(2, true, {}, {});
  CHECK(load_of(server).removable());
  const auto at = [&](uint32_t shard, Place place) {
    return &server.shard.at(shard).pool.places[static_cast<size_t>(place)];
  };
  for (Counter* gauge : {&server.shard.at(1).sessions, at(0, Place::kConnecting),
                         at(1, Place::kBusy), at(0, Place::kIdleSafe), at(1, Place::kIdleUnproven),
                         at(0, Place::kSessionIdle), at(1, Place::kDraining), at(0, Place::kHeld),
                         at(1, Place::kTransit), at(0, Place::kClosing)}) {
    gauge->add();
    CHECK_FALSE(load_of(server).removable());
    gauge->sub();
    CHECK(load_of(server).removable());
  }
}

TEST_CASE("removed_server_json: what blocks the removal is named, and only that") {
  ServerObject server(2, true, {}, {});
  const auto blocks = [&] {
    const auto json =
        nlohmann::json::parse(removed_server_json("u", "s", server, {}), nullptr, false);
    return json["blocks_removal"].dump();
  };
  CHECK(blocks() == "{}");
  server.shard.at(0).sessions.add(2);
  server.shard.at(1).sessions.add();
  server.shard.at(1).pool.places[static_cast<size_t>(Place::kSessionIdle)].add(4);
  server.shard.at(0).pool.places[static_cast<size_t>(Place::kClosing)].add();
  CHECK(blocks() == R"({"closing":1,"private_idle":4,"requests":3})");
}
