// How much of this machine the process may use, as the kernel enforces it: affinity masks,
// containers (cgroups v1 and v2) and the memory that is left.
#ifndef RENGA_BASE_MACHINE_LIMITS_H_
#define RENGA_BASE_MACHINE_LIMITS_H_

#include <cstdint>
#include <optional>
#include <string>

namespace renga::base {

// CPUs this process may use: the smaller of its affinity mask and its cgroup's CPU quota (rounded
// up), at least 1.
int UsableCpuCount();

// Bytes this process may still allocate: the smaller of the system's available memory and what its
// cgroup leaves. 0 when the kernel says nothing at all.
int64_t AvailableMemoryBytes();

// What the cgroups of this process allow; nullopt where there is no limit. A limit of a parent
// holds for its children, so the tightest on the way up to the mount counts.
struct CgroupLimits {
  std::optional<double> cpus;          // quota / period
  std::optional<int64_t> memory_left;  // limit - usage, page cache counted as free; >= 0
  std::optional<int64_t> memory;       // the least limit, whoever uses how much of it
};

// Reads `root`/proc/self/{cgroup,mountinfo} and the cgroup files below `root`. `root` is "" for
// the real system; tests give a folder with a made-up one. Unreadable or odd files are no limit.
CgroupLimits ReadCgroupLimits(const std::string& root);

}  // namespace renga::base

#endif  // RENGA_BASE_MACHINE_LIMITS_H_
