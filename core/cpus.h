// core/cpus.h - how many shards this process should run, and on which CPUs.
//
// Affinity: start-up code, any thread; reads small files, so never on a shard.
// Why:      one shard per physical core: two hyper-threads of a core share its caches and units,
// and
//           a cgroup quota below the number of threads makes the kernel stop them all in turns.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ringway {

// Where to look. The defaults ask the running kernel; tests give a tree of their own.
struct CpuSources {
  std::string root;          // prepended to /proc and /sys paths
  std::vector<int> allowed;  // empty: sched_getaffinity(2) of the calling thread
};

struct CpuPlan {
  // One CPU per recommended shard, ascending, each on a core of its own. Never empty.
  std::vector<int> shard_cpus;
  std::vector<int> allowed;  // the CPUs that the process may run on (cpuset, taskset)
  int num_cores = 0;         // physical cores among them
  double quota_cpus = 0;     // the tightest CFS quota of our cgroups, in CPUs; 0: none
};

// Reads affinity, topology and quota (cgroup v2 cpu.max, v1 cpu.cfs_quota_us, ancestors included).
// What cannot be read does not limit: an unknown CPU counts as a core, no quota file as no quota.
// A quota of q CPUs allows floor(q) shards, at least 1.
[[nodiscard]] CpuPlan plan_cpus(const CpuSources& sources = {});

// Parses the kernel's list format, "0-3,8". False if malformed; CPUs are below 65536.
[[nodiscard]] bool parse_cpu_list(std::string_view text, std::vector<int>& out);

// Keeps the calling thread on `cpu`. Returns 0 or a positive errno (EINVAL: no such CPU for us).
[[nodiscard]] int pin_this_thread(int cpu);

}  // namespace ringway
