// tests/lb/balancer_test.cc - what each policy promises, not how it does it.
#include "lb/balance/balancer.h"

#include <doctest/doctest.h>

#include <map>
#include <string>
#include <vector>

#include "core/base/prng.h"

using namespace ringway;

namespace {

std::vector<std::string> names(size_t count) {
  std::vector<std::string> all;
  for (size_t i = 0; i < count; ++i) all.push_back("server" + std::to_string(i));
  return all;
}

config::Balance policy(config::Algorithm algorithm, uint32_t choices = 0) {
  config::Balance balance;
  balance.algorithm = algorithm;
  balance.choices = choices;
  return balance;
}

const config::Balance kAll[] = {
    policy(config::Algorithm::kRoundRobin), policy(config::Algorithm::kLeastRequests),
    policy(config::Algorithm::kLeastRequests, 2), policy(config::Algorithm::kHash),
    policy(config::Algorithm::kFirst)};

}  // namespace

TEST_CASE("Balancer: round robin with weights 1, 2, 3 -> exact shares, no long runs") {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Balancer balancer(policy(config::Algorithm::kRoundRobin), seed);
    const std::vector<Candidate> servers{{.weight = 1}, {.weight = 2}, {.weight = 3}};
    balancer.rebuild(servers, names(3));
    std::vector<int> got(3);
    uint32_t last = Balancer::kNone;
    int run = 0;
    for (int i = 0; i < 600; ++i) {
      const uint32_t server = balancer.pick(servers, 0, {});
      REQUIRE(server < 3);
      ++got[server];
      run = server == last ? run + 1 : 1;
      last = server;
      CHECK(run <= 2);
    }
    for (int i = 0; i < 3; ++i) CHECK(abs(got[static_cast<size_t>(i)] - 100 * (i + 1)) <= 1);
  }
}

TEST_CASE("Balancer: least requests -> the least loaded per weight; two choices stay close") {
  Balancer all(policy(config::Algorithm::kLeastRequests), 1);
  std::vector<Candidate> servers{
      {.weight = 100, .in_flight = 5}, {.weight = 300, .in_flight = 8}, {.weight = 100}};
  servers[2].in_flight = 3;
  all.rebuild(servers, names(3));
  CHECK(all.pick(servers, 0, {}) == 1);  // 9/300 beats 4/100 and 6/100.
  Balancer two(policy(config::Algorithm::kLeastRequests, 2), 1);
  std::vector<Candidate> many(20);
  two.rebuild(many, names(20));
  for (int i = 0; i < 2000; ++i) ++many[two.pick(many, 0, {})].in_flight;
  for (const Candidate& server : many) {
    CHECK(server.in_flight > 85);
    CHECK(server.in_flight < 115);
  }
}

TEST_CASE("Balancer: hash -> the same key, the same server; one down moves only its own keys") {
  Balancer balancer(policy(config::Algorithm::kHash), 1);
  std::vector<Candidate> servers(10);
  balancer.rebuild(servers, names(10));
  Prng prng(3);
  std::map<uint64_t, uint32_t> home;
  std::vector<int> share(10);
  for (int i = 0; i < 10'000; ++i) {
    const uint64_t key = prng.next();
    home[key] = balancer.pick(servers, key, {});
    ++share[home[key]];
  }
  for (const int keys : share) CHECK(keys > 500);  // A tenth each, more or less.
  servers[4].up = false;
  balancer.rebuild(servers, names(10));
  for (const auto& [key, server] : home) {
    const uint32_t now = balancer.pick(servers, key, {});
    CHECK((server == 4 ? now != 4 : now == server));
  }
  servers[4].up = true;
  balancer.rebuild(servers, names(10));
  for (const auto& [key, server] : home) CHECK(balancer.pick(servers, key, {}) == server);
}

TEST_CASE("Balancer: every policy -> usable servers only, none that was tried, backups last") {
  Prng prng(5);
  for (const config::Balance& balance : kAll) {
    CAPTURE(static_cast<int>(balance.algorithm));
    for (int round = 0; round < 300; ++round) {
      Balancer balancer(balance, prng.next());
      std::vector<Candidate> servers(1 + prng.below(6));
      for (Candidate& server : servers) {
        server.weight = prng.below(4) == 0 ? 0 : static_cast<uint32_t>(1 + prng.below(300));
        server.up = prng.below(3) > 0;
        server.backup = prng.below(3) == 0;
        server.in_flight = static_cast<uint32_t>(prng.below(5));
      }
      balancer.rebuild(servers, names(servers.size()));
      bool primary = false;
      for (const Candidate& s : servers) primary = primary || (s.up && s.weight > 0 && !s.backup);
      size_t usable = 0;
      for (const Candidate& s : servers) {
        usable += s.up && s.weight > 0 && s.backup != primary ? 1 : 0;
      }
      std::vector<uint32_t> tried;
      const uint64_t key = prng.next();
      for (size_t i = 0; i < usable; ++i) {
        const uint32_t server = balancer.pick(servers, key, tried);
        REQUIRE(server != Balancer::kNone);
        CHECK(servers[server].up);
        CHECK(servers[server].weight > 0);
        CHECK(servers[server].backup != primary);
        for (const uint32_t before : tried) CHECK(before != server);
        tried.push_back(server);
      }
      CHECK(balancer.pick(servers, key, tried) == Balancer::kNone);
    }
  }
}
