// tests/core/cpus_test.cc
#include "core/cpus.h"

#include <doctest/doctest.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

using namespace ringway;

namespace {

using Cpus = std::vector<int>;

// A made-up /proc and /sys.
struct Tree {
  Tree() { REQUIRE(mkdtemp(path) != nullptr); }
  ~Tree() { std::filesystem::remove_all(path); }

  void put(const std::string& name, const std::string& text) const {
    const std::filesystem::path file = std::string(path) + name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  void siblings(int cpu, const std::string& list) const {
    put("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list",
        list + "\n");
  }
  // Unified hierarchy with us in `group`.
  void v2(const std::string& group, const std::string& mount_root = "/") const {
    put("/proc/self/cgroup", "0::" + group + "\n");
    put("/proc/self/mountinfo",
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        "30 22 0:26 " +
            mount_root + " /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
  }
  CpuPlan plan(Cpus allowed) const { return plan_cpus({.root = path, .allowed = allowed}); }

  char path[64] = "/tmp/ringway-cpus-XXXXXX";
};

}  // namespace

TEST_CASE("parse_cpu_list: the kernel's format, and what is none") {
  Cpus cpus;
  CHECK(parse_cpu_list("0", cpus));
  CHECK(cpus == Cpus{0});
  CHECK(parse_cpu_list("0-3,8,10-11", cpus));
  CHECK(cpus == Cpus{0, 1, 2, 3, 8, 10, 11});
  for (const char* bad : {"", ",", "1,", ",1", "1-", "-1", "3-1", "a", "1 2", "0-65536", "1-2-3"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_cpu_list(bad, cpus));
  }
}

TEST_CASE("plan_cpus: hyper-threads -> one shard per core, on its lowest allowed CPU") {
  const Tree tree;
  for (int cpu = 0; cpu < 4; ++cpu) {
    tree.siblings(cpu, std::to_string(cpu) + "," + std::to_string(cpu + 4));
    tree.siblings(cpu + 4, std::to_string(cpu) + "," + std::to_string(cpu + 4));
  }
  CpuPlan plan = tree.plan({0, 1, 2, 3, 4, 5, 6, 7});
  CHECK(plan.shard_cpus == Cpus{0, 1, 2, 3});
  CHECK(plan.num_cores == 4);
  CHECK(plan.quota_cpus == 0);
  // A cpuset that has one thread of some cores and both of another.
  plan = tree.plan({6, 5, 2, 7});
  CHECK(plan.allowed == Cpus{2, 5, 6, 7});
  CHECK(plan.shard_cpus == Cpus{2, 5, 7});
  CHECK(plan.num_cores == 3);
}

TEST_CASE("plan_cpus: topology unknown or unreadable -> every CPU is a core") {
  const Tree tree;
  tree.siblings(1, "nonsense");
  CHECK(tree.plan({0, 1, 2}).shard_cpus == Cpus{0, 1, 2});
}

TEST_CASE("plan_cpus: cgroup v2 quota -> shards rounded down, at least one") {
  const Tree tree;
  tree.v2("/system.slice/ringway.service");
  const std::string group = "/sys/fs/cgroup/system.slice/ringway.service/cpu.max";
  struct Case {
    const char* text;
    double quota;
    size_t shards;
  };
  for (const Case& c :
       {Case{"max 100000\n", 0, 4}, Case{"250000 100000\n", 2.5, 2}, Case{"50000 100000\n", 0.5, 1},
        Case{"800000 100000\n", 8, 4}, Case{"400000 100000\n", 4, 4}, Case{"", 0, 4},
        Case{"100000\n", 0, 4}, Case{"1 0\n", 0, 4}, Case{"x y\n", 0, 4}}) {
    CAPTURE(c.text);
    tree.put(group, c.text);
    const CpuPlan plan = tree.plan({0, 1, 2, 3});
    CHECK(plan.quota_cpus == doctest::Approx(c.quota));
    CHECK(plan.shard_cpus.size() == c.shards);
    CHECK(plan.num_cores == 4);
  }
}

TEST_CASE("plan_cpus: quota on an ancestor -> the tightest one counts") {
  const Tree tree;
  tree.v2("/a/b/c");
  tree.put("/sys/fs/cgroup/a/b/c/cpu.max", "300000 100000\n");
  tree.put("/sys/fs/cgroup/a/cpu.max", "200000 100000\n");
  CHECK(tree.plan({0, 1, 2, 3}).shard_cpus == Cpus{0, 1});
}

TEST_CASE("plan_cpus: container without cgroup namespace -> the mount's root is stripped") {
  const Tree tree;
  tree.v2("/docker/abc", "/docker/abc");
  tree.put("/sys/fs/cgroup/cpu.max", "100000 100000\n");
  CHECK(tree.plan({0, 1, 2}).shard_cpus == Cpus{0});
}

TEST_CASE("plan_cpus: our group lies outside the namespace -> only the mount point is read") {
  const Tree tree;
  tree.v2("/../other");
  tree.put("/sys/fs/cgroup/cpu.max", "200000 100000\n");
  tree.put("/sys/fs/other/cpu.max", "100000 100000\n");
  CHECK(tree.plan({0, 1, 2}).shard_cpus == Cpus{0, 1});
}

TEST_CASE("plan_cpus: cgroup v1 quota -> found by controller, -1 is none") {
  const Tree tree;
  tree.put("/proc/self/cgroup", "9:cpuset:/x\n4:cpu,cpuacct:/web\n0::/\n");
  tree.put("/proc/self/mountinfo",
           "31 22 0:28 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
           "32 22 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
           "41 22 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
  const std::string group = "/sys/fs/cgroup/cpu,cpuacct/web";
  tree.put(group + "/cpu.cfs_period_us", "100000\n");
  tree.put(group + "/cpu.cfs_quota_us", "-1\n");
  CHECK(tree.plan({0, 1, 2}).quota_cpus == 0);
  tree.put(group + "/cpu.cfs_quota_us", "200000\n");
  const CpuPlan plan = tree.plan({0, 1, 2});
  CHECK(plan.quota_cpus == doctest::Approx(2));
  CHECK(plan.shard_cpus == Cpus{0, 1});
}

TEST_CASE("plan_cpus: this machine -> within its affinity") {
  const CpuPlan plan = plan_cpus();
  CHECK_FALSE(plan.shard_cpus.empty());
  CHECK(plan.shard_cpus.size() <= plan.allowed.size());
  CHECK(plan.num_cores >= 1);
}

TEST_CASE("pin_this_thread: allowed CPU -> runs there; impossible one -> EINVAL") {
  const int cpu = plan_cpus().shard_cpus.back();
  int pinned = -1;
  int ran_on = -1;
  int impossible = 0;
  std::thread([&] {
    pinned = pin_this_thread(cpu);
    ran_on = sched_getcpu();
    impossible = pin_this_thread(60'000);
  }).join();
  CHECK(pinned == 0);
  CHECK(ran_on == cpu);
  CHECK(impossible == EINVAL);
  CHECK(pin_this_thread(-1) == EINVAL);
}
