#include "base/machine_limits.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <memory>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace renga::base {
namespace {

// Lines of a small file of the kernel's, whose size cannot be asked beforehand.
std::vector<std::string> ReadLines(const std::string& path) {
  std::ifstream stream(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::optional<int64_t> ReadNumber(const std::string& path) {
  const std::vector<std::string> lines = ReadLines(path);
  int64_t value = 0;
  if (lines.empty() || !absl::SimpleAtoi(lines[0], &value)) return std::nullopt;
  return value;
}

// The number after `key` in lines of "key number", or 0.
int64_t NumberOfKey(const std::vector<std::string>& lines, absl::string_view key) {
  for (const std::string& line : lines) {
    const std::vector<absl::string_view> parts =
        absl::StrSplit(line, absl::ByAnyChar(" \t:"), absl::SkipEmpty());
    int64_t value = 0;
    if (parts.size() >= 2 && parts[0] == key && absl::SimpleAtoi(parts[1], &value)) return value;
  }
  return 0;
}

bool ContainsItem(absl::string_view comma_separated, absl::string_view item) {
  for (absl::string_view part : absl::StrSplit(comma_separated, ',')) {
    if (part == item) return true;
  }
  return false;
}

// This process's cgroup in the hierarchy of a controller ("cpu", "memory"); the unified (v2)
// hierarchy has the empty name.
std::optional<std::string> CgroupPath(const std::string& root, absl::string_view controller) {
  for (const std::string& line : ReadLines(absl::StrCat(root, "/proc/self/cgroup"))) {
    const std::vector<absl::string_view> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() == 3 && ContainsItem(parts[1], controller)) return std::string(parts[2]);
  }
  return std::nullopt;
}

struct Mount {
  std::string cgroup_root;  // the cgroup that appears at `folder`
  std::string folder;
};

std::optional<Mount> FindMount(const std::string& root, absl::string_view controller) {
  for (const std::string& line : ReadLines(absl::StrCat(root, "/proc/self/mountinfo"))) {
    const std::vector<absl::string_view> halves = absl::StrSplit(line, absl::MaxSplits(" - ", 1));
    if (halves.size() != 2) continue;
    const std::vector<absl::string_view> where = absl::StrSplit(halves[0], ' ');
    const std::vector<absl::string_view> what = absl::StrSplit(halves[1], ' ');
    if (where.size() < 5 || what.size() < 3) continue;
    const bool fits = controller.empty() ? what[0] == "cgroup2"
                                         : what[0] == "cgroup" && ContainsItem(what[2], controller);
    if (fits) return Mount{std::string(where[3]), absl::StrCat(root, where[4])};
  }
  return std::nullopt;
}

// The folder of this process's cgroup and those of its parents, up to the mount. In a container
// without a cgroup namespace the path is the host's and the mount shows just the container's own.
std::vector<std::string> CgroupFolders(const std::string& root, absl::string_view controller) {
  const std::optional<std::string> path = CgroupPath(root, controller);
  const std::optional<Mount> mount = FindMount(root, controller);
  if (!path || !mount) return {};
  absl::string_view below = *path;
  if (mount->cgroup_root != "/") {
    below = absl::StartsWith(below, mount->cgroup_root) ? below.substr(mount->cgroup_root.size())
                                                        : absl::string_view();
  }
  std::vector<std::string> folders;
  while (!below.empty() && below != "/") {
    folders.push_back(absl::StrCat(mount->folder, below));
    below = below.substr(0, below.rfind('/'));
  }
  folders.push_back(mount->folder);
  return folders;
}

template <typename T>
void Tighten(std::optional<T>& limit, T value) {
  if (!limit || value < *limit) limit = value;
}

void TightenCpus(std::optional<double>& cpus, int64_t quota, int64_t period) {
  if (quota > 0 && period > 0)
    Tighten(cpus, static_cast<double>(quota) / static_cast<double>(period));
}

// What is left below `limit`. Page cache is charged to the group but given back under pressure.
void TightenMemory(CgroupLimits& limits, const std::string& folder, int64_t limit,
                   const char* usage_file, absl::string_view stat_prefix) {
  const int64_t usage = ReadNumber(absl::StrCat(folder, "/", usage_file)).value_or(0);
  const std::vector<std::string> stat = ReadLines(absl::StrCat(folder, "/memory.stat"));
  const int64_t cache = NumberOfKey(stat, absl::StrCat(stat_prefix, "inactive_file")) +
                        NumberOfKey(stat, absl::StrCat(stat_prefix, "active_file"));
  Tighten(limits.memory_left, std::max<int64_t>(0, limit - std::max<int64_t>(0, usage - cache)));
  Tighten(limits.memory, limit);
}

void ReadUnified(const std::string& root, CgroupLimits& limits) {
  for (const std::string& folder : CgroupFolders(root, "")) {
    const std::vector<std::string> lines = ReadLines(absl::StrCat(folder, "/cpu.max"));
    int64_t quota = 0;
    int64_t period = 0;
    if (!lines.empty()) {
      const std::vector<absl::string_view> parts = absl::StrSplit(lines[0], ' ');
      if (parts.size() == 2 && absl::SimpleAtoi(parts[0], &quota) &&
          absl::SimpleAtoi(parts[1], &period)) {
        TightenCpus(limits.cpus, quota, period);
      }
    }
    if (const auto limit = ReadNumber(absl::StrCat(folder, "/memory.max"))) {
      TightenMemory(limits, folder, *limit, "memory.current", "");
    }
  }
}

void ReadPerController(const std::string& root, CgroupLimits& limits) {
  for (const std::string& folder : CgroupFolders(root, "cpu")) {
    TightenCpus(limits.cpus, ReadNumber(absl::StrCat(folder, "/cpu.cfs_quota_us")).value_or(-1),
                ReadNumber(absl::StrCat(folder, "/cpu.cfs_period_us")).value_or(0));
  }
  for (const std::string& folder : CgroupFolders(root, "memory")) {
    // "No limit" is written as a number near 2^63; the minimum with the system's memory undoes it.
    if (const auto limit = ReadNumber(absl::StrCat(folder, "/memory.limit_in_bytes"))) {
      TightenMemory(limits, folder, *limit, "memory.usage_in_bytes", "total_");
    }
  }
}

// CPUs in the affinity mask; the kernel refuses masks smaller than its own, so grow until it fits.
int AffinityCpuCount() {
  for (int cpus = CPU_SETSIZE; cpus <= 64 * CPU_SETSIZE; cpus *= 2) {
    const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(CPU_ALLOC(cpus),
                                                               [](cpu_set_t* s) { CPU_FREE(s); });
    const size_t bytes = CPU_ALLOC_SIZE(cpus);
    if (set != nullptr && sched_getaffinity(0, bytes, set.get()) == 0) {
      return CPU_COUNT_S(bytes, set.get());
    }
  }
  return static_cast<int>(std::thread::hardware_concurrency());
}

}  // namespace

CgroupLimits ReadCgroupLimits(const std::string& root) {
  CgroupLimits limits;
  ReadUnified(root, limits);
  ReadPerController(root, limits);
  return limits;
}

int UsableCpuCount() {
  int count = AffinityCpuCount();
  if (const std::optional<double> quota = ReadCgroupLimits("").cpus; quota && *quota < count) {
    count = static_cast<int>(std::ceil(*quota));
  }
  return std::max(1, count);
}

int64_t AvailableMemoryBytes() {
  const int64_t system = NumberOfKey(ReadLines("/proc/meminfo"), "MemAvailable") * 1024;
  const std::optional<int64_t> group = ReadCgroupLimits("").memory_left;
  return group && (system == 0 || *group < system) ? *group : system;
}

}  // namespace renga::base
