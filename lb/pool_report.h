// lb/pool_report.h - where the server connections of a shard are, for an administrator.
//
// Affinity:  a PoolOrder is made and owned by the control thread; in between one shard fills it
//            (Mail::kReport) and sets `done` last, after which it is control's again. No locks.
// Why:       counts carry their names, so that what writes JSON and tables needs no change when the
//            pool counts something more.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

namespace ringway {

struct NamedCount {
  const char* name;  // a constant: lower case, words joined by "_"
  uint64_t value;
};

// Counts of one kind, "connections" by state say.
struct CountGroup {
  const char* name;
  std::vector<NamedCount> counts;
};

// The connections that may stand in for each other.
struct KeyGroupReport {
  std::string key;  // for people: "default", or what tells it from the others
  std::vector<NamedCount> counts;
};

// One server on one shard.
struct PoolReport {
  uint32_t shard = 0;
  std::string upstream;
  std::string server;
  bool retired = false;  // no longer configured; its last connections are finishing
  std::vector<CountGroup> counts;
  std::vector<KeyGroupReport> keys;
};

struct PoolOrder {
  std::string upstream;  // only this one; "": all
  std::vector<PoolReport> reports;
  std::atomic<bool> done{false};
};

}  // namespace ringway
