#include "base/machine_limits.h"

#include <sched.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/testing/temp_folder.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace renga::base {
namespace {

using ::testing::Eq;
using ::testing::Optional;

// A made-up /proc and /sys in a temporary folder.
class CgroupLimitsTest : public ::testing::Test {
 protected:
  void Put(const std::string& path, const std::string& content) {
    const std::filesystem::path full = root_ + path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full) << content;
  }

  const std::string root_ = renga::testing::NewTempFolder();
};

constexpr char kUnifiedMount[] = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n";

TEST_F(CgroupLimitsTest, NothingThereIsNoLimit) {
  const CgroupLimits limits = ReadCgroupLimits(root_);
  EXPECT_FALSE(limits.cpus);
  EXPECT_FALSE(limits.memory_left);
  EXPECT_FALSE(limits.memory);
}

TEST_F(CgroupLimitsTest, UnifiedTakesTheTightestOfTheGroupAndItsParents) {
  Put("/proc/self/cgroup", "0::/user/job\n");
  Put("/proc/self/mountinfo", kUnifiedMount);
  Put("/sys/fs/cgroup/user/job/cpu.max", "max 100000\n");
  Put("/sys/fs/cgroup/user/cpu.max", "150000 100000\n");
  Put("/sys/fs/cgroup/user/job/memory.max", "1000000\n");
  Put("/sys/fs/cgroup/user/job/memory.current", "700000\n");
  Put("/sys/fs/cgroup/user/job/memory.stat",
      "anon 400000\nfile 300000\ninactive_file 200000\nactive_file 50000\n");
  Put("/sys/fs/cgroup/user/memory.max", "max\n");
  const CgroupLimits limits = ReadCgroupLimits(root_);
  EXPECT_THAT(limits.cpus, Optional(Eq(1.5)));
  EXPECT_THAT(limits.memory_left, Optional(Eq(1000000 - (700000 - 250000))));
  EXPECT_THAT(limits.memory, Optional(Eq(1000000)));
}

TEST_F(CgroupLimitsTest, ControllersOfTheirOwnHierarchy) {
  Put("/proc/self/cgroup", "5:memory:/box\n4:cpu,cpuacct:/box\n0::/\n");
  Put("/proc/self/mountinfo",
      "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
      "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
  Put("/sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "50000\n");
  Put("/sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n");
  Put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  Put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  Put("/sys/fs/cgroup/memory/box/memory.limit_in_bytes", "5000\n");
  Put("/sys/fs/cgroup/memory/box/memory.usage_in_bytes", "6000\n");
  const CgroupLimits limits = ReadCgroupLimits(root_);
  EXPECT_THAT(limits.cpus, Optional(Eq(0.5)));
  EXPECT_THAT(limits.memory_left, Optional(Eq(0)));
  EXPECT_THAT(limits.memory, Optional(Eq(5000)));
}

TEST_F(CgroupLimitsTest, AContainerSeesItsOwnGroupAtTheMount) {
  Put("/proc/self/cgroup", "4:memory:/docker/abc\n");
  Put("/proc/self/mountinfo",
      "35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
  Put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "5000\n");
  EXPECT_THAT(ReadCgroupLimits(root_).memory_left, Optional(Eq(5000)));
}

TEST_F(CgroupLimitsTest, OddFilesAreNoLimit) {
  Put("/proc/self/cgroup", "0::/a\nnonsense\n:\n");
  Put("/proc/self/mountinfo", absl::StrCat("nonsense\n1 2 - \n", kUnifiedMount));
  Put("/sys/fs/cgroup/a/cpu.max", "100000 0\n");
  Put("/sys/fs/cgroup/a/memory.max", "lots\n");
  const CgroupLimits limits = ReadCgroupLimits(root_);
  EXPECT_FALSE(limits.cpus);
  EXPECT_FALSE(limits.memory_left);
}

TEST(MachineLimitsTest, HonoursTheAffinityMask) {
  EXPECT_GE(UsableCpuCount(), 1);
  EXPECT_LE(UsableCpuCount(), static_cast<int>(std::thread::hardware_concurrency()));
  cpu_set_t old_mask;
  ASSERT_EQ(sched_getaffinity(0, sizeof(old_mask), &old_mask), 0);
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu) {
    if (CPU_ISSET(cpu, &old_mask)) CPU_SET(cpu, &one);
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  EXPECT_EQ(UsableCpuCount(), 1);
  ASSERT_EQ(sched_setaffinity(0, sizeof(old_mask), &old_mask), 0);
}

TEST(MachineLimitsTest, SomeMemoryIsAvailable) {
  EXPECT_GT(AvailableMemoryBytes(), int64_t{16} << 20);
  EXPECT_LT(AvailableMemoryBytes(), int64_t{1} << 50);
}

}  // namespace
}  // namespace renga::base
