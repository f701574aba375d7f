// core/cpus.cc
#include "core/cpus.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>

namespace ringway {
namespace {

constexpr int kCpusMax = 65536;

// The content of a small file, or nothing. Bounded by 1 MiB.
std::optional<std::string> read_file(const std::string& path) {
  constexpr size_t kBytesMax = 1 << 20;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  std::string text;
  char buffer[4096];
  ssize_t got = 0;
  while (text.size() < kBytesMax && (got = read(fd, buffer, sizeof buffer)) > 0) {
    text.append(buffer, static_cast<size_t>(got));
  }
  close(fd);
  if (got < 0) return std::nullopt;
  return text;
}

// Cuts the part before `separator` off `text` and returns it; all of it if there is none.
std::string_view cut(std::string_view& text, char separator) {
  const size_t at = text.find(separator);
  const std::string_view part = text.substr(0, at);
  text.remove_prefix(at == std::string_view::npos ? text.size() : at + 1);
  return part;
}

template <typename Number>
std::optional<Number> parse_number(std::string_view text) {
  Number value{};
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec != std::errc{} || parsed.ptr != text.data() + text.size()) return std::nullopt;
  return value;
}

bool list_contains(std::string_view comma_list, std::string_view word) {
  while (!comma_list.empty()) {
    if (cut(comma_list, ',') == word) return true;
  }
  return false;
}

std::vector<int> affinity_of_this_thread() {
  std::vector<int> cpus;
  // The kernel refuses masks smaller than its own, whose size it does not tell.
  for (int size = 1024; size <= kCpusMax; size *= 2) {
    cpu_set_t* set = CPU_ALLOC(static_cast<size_t>(size));
    if (set == nullptr) break;
    const size_t bytes = CPU_ALLOC_SIZE(static_cast<size_t>(size));
    const bool known = sched_getaffinity(0, bytes, set) == 0;
    for (int cpu = 0; known && cpu < size; ++cpu) {
      if (CPU_ISSET_S(static_cast<size_t>(cpu), bytes, set)) cpus.push_back(cpu);
    }
    CPU_FREE(set);
    if (known) break;
  }
  return cpus;
}

// A cgroup hierarchy that may hold CPU quotas: where it is mounted and where we are inside.
struct Hierarchy {
  bool v2 = false;
  std::string mount_root;   // the cgroup that is visible at the mount point
  std::string mount_point;  // without the injected root
  std::string group;        // our cgroup, as /proc/self/cgroup says it
};

// The CPU hierarchies of /proc/self/mountinfo (proc_pid_mountinfo(5)): "36 35 98:0 /root /point
// options optional... - type source super-options".
std::vector<Hierarchy> find_hierarchies(std::string_view mountinfo) {
  std::vector<Hierarchy> found;
  while (!mountinfo.empty()) {
    std::string_view line = cut(mountinfo, '\n');
    const size_t dash = line.find(" - ");
    if (dash == std::string_view::npos) continue;
    std::string_view tail = line.substr(dash + 3);
    const std::string_view type = cut(tail, ' ');
    cut(tail, ' ');  // source
    const bool v2 = type == "cgroup2";
    if (!v2 && (type != "cgroup" || !list_contains(tail, "cpu"))) continue;
    for (int i = 0; i < 3; ++i) cut(line, ' ');
    Hierarchy hierarchy;
    hierarchy.v2 = v2;
    hierarchy.mount_root = cut(line, ' ');
    hierarchy.mount_point = cut(line, ' ');
    found.push_back(std::move(hierarchy));
  }
  return found;
}

// Our group in `hierarchy`, from the lines "4:cpu,cpuacct:/a/b" (v1) and "0::/a/b" (v2).
std::string find_group(std::string_view proc_cgroup, const Hierarchy& hierarchy) {
  while (!proc_cgroup.empty()) {
    std::string_view line = cut(proc_cgroup, '\n');
    const std::string_view id = cut(line, ':');
    const std::string_view controllers = cut(line, ':');
    const bool v2 = id == "0" && controllers.empty();
    if (v2 == hierarchy.v2 && (v2 || list_contains(controllers, "cpu"))) return std::string(line);
  }
  return "/";
}

// The quota set on one group, in CPUs.
std::optional<double> read_quota(const std::string& directory, bool v2) {
  std::optional<int64_t> quota;
  std::optional<int64_t> period;
  if (v2) {
    const auto text = read_file(directory + "/cpu.max");  // "max 100000" or "50000 100000"
    if (!text) return std::nullopt;
    std::string_view rest = *text;
    std::string_view line = cut(rest, '\n');
    quota = parse_number<int64_t>(cut(line, ' '));
    period = parse_number<int64_t>(line);
  } else {
    const auto quota_text = read_file(directory + "/cpu.cfs_quota_us");  // -1: none
    const auto period_text = read_file(directory + "/cpu.cfs_period_us");
    if (!quota_text || !period_text) return std::nullopt;
    std::string_view quota_line = *quota_text;
    std::string_view period_line = *period_text;
    quota = parse_number<int64_t>(cut(quota_line, '\n'));
    period = parse_number<int64_t>(cut(period_line, '\n'));
  }
  if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
  return static_cast<double>(*quota) / static_cast<double>(*period);
}

// The tightest quota from our group up to the mount point: each ancestor limits too.
double tightest_quota(const std::string& root, const Hierarchy& hierarchy) {
  std::string inside = hierarchy.group;
  if (hierarchy.mount_root != "/" && inside.starts_with(hierarchy.mount_root)) {
    inside.erase(0, hierarchy.mount_root.size());
  }
  // Outside of what our namespace shows: only the mount point can be read.
  if (inside.find("..") != std::string::npos) inside.clear();
  while (inside.ends_with('/')) inside.pop_back();
  double tightest = 0;
  for (;;) {
    const auto quota = read_quota((root + hierarchy.mount_point).append(inside), hierarchy.v2);
    if (quota && (tightest == 0 || *quota < tightest)) tightest = *quota;
    if (inside.empty()) return tightest;
    const size_t slash = inside.rfind('/');
    inside.resize(slash == std::string::npos ? 0 : slash);
  }
}

double find_quota(const std::string& root) {
  const std::string mountinfo = read_file(root + "/proc/self/mountinfo").value_or("");
  const std::string groups = read_file(root + "/proc/self/cgroup").value_or("");
  double tightest = 0;
  for (Hierarchy& hierarchy : find_hierarchies(mountinfo)) {
    hierarchy.group = find_group(groups, hierarchy);
    const double quota = tightest_quota(root, hierarchy);
    if (quota > 0 && (tightest == 0 || quota < tightest)) tightest = quota;
  }
  return tightest;
}

// The lowest allowed CPU of each physical core.
std::vector<int> one_per_core(const std::string& root, const std::vector<int>& allowed) {
  std::vector<int> chosen;
  std::vector<int> taken;  // CPUs of the cores chosen so far
  for (const int cpu : allowed) {
    if (std::find(taken.begin(), taken.end(), cpu) != taken.end()) continue;
    chosen.push_back(cpu);
    const auto text = read_file(root + "/sys/devices/system/cpu/cpu" + std::to_string(cpu) +
                                "/topology/thread_siblings_list");
    if (!text) continue;
    std::string_view rest = *text;
    std::vector<int> siblings;
    if (!parse_cpu_list(cut(rest, '\n'), siblings)) continue;
    taken.insert(taken.end(), siblings.begin(), siblings.end());
  }
  return chosen;
}

}  // namespace

bool parse_cpu_list(std::string_view text, std::vector<int>& out) {
  out.clear();
  if (text.empty() || text.ends_with(',')) return false;
  while (!text.empty()) {
    std::string_view range = cut(text, ',');
    const bool single = range.find('-') == std::string_view::npos;
    const auto first = parse_number<int>(cut(range, '-'));
    const auto last = single ? first : parse_number<int>(range);
    if (!first || !last || *first < 0 || *last < *first || *last >= kCpusMax) return false;
    for (int cpu = *first; cpu <= *last; ++cpu) out.push_back(cpu);
  }
  return true;
}

CpuPlan plan_cpus(const CpuSources& sources) {
  CpuPlan plan;
  plan.allowed = sources.allowed.empty() ? affinity_of_this_thread() : sources.allowed;
  if (plan.allowed.empty()) plan.allowed.push_back(0);
  std::sort(plan.allowed.begin(), plan.allowed.end());
  plan.shard_cpus = one_per_core(sources.root, plan.allowed);
  plan.num_cores = static_cast<int>(plan.shard_cpus.size());
  plan.quota_cpus = find_quota(sources.root);
  if (plan.quota_cpus > 0 && plan.quota_cpus < plan.num_cores) {
    plan.shard_cpus.resize(std::max<size_t>(static_cast<size_t>(plan.quota_cpus), 1));
  }
  return plan;
}

int pin_this_thread(int cpu) {
  if (cpu < 0 || cpu >= kCpusMax) return EINVAL;
  cpu_set_t* set = CPU_ALLOC(kCpusMax);
  if (set == nullptr) return ENOMEM;
  const size_t bytes = CPU_ALLOC_SIZE(kCpusMax);
  CPU_ZERO_S(bytes, set);
  CPU_SET_S(static_cast<size_t>(cpu), bytes, set);
  const int error = sched_setaffinity(0, bytes, set) == 0 ? 0 : errno;
  CPU_FREE(set);
  return error;
}

}  // namespace ringway
