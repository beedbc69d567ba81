#include "worker/service/speed_probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_folder.h"
#include "worker/kernels/backend_factory.h"
#include "worker/service/disk_probe.h"
#include "worker/service/layer_probe.h"
#include "worker/service/testing/test_setup.h"

namespace renga::worker {
namespace {

using ::renga::testing::StatusIs;
using ::testing::Gt;
using ::testing::IsEmpty;
using ::testing::Not;

TEST(SpeedProbe, MeasuresEveryFormatAndFreesEverything) {
  ASSERT_OK_AND_ASSIGN(const auto backend, kernels::CreateBackend({.device = "cpu", .threads = 1}));
  engine::MemoryBudget budget(int64_t{8} << 20);
  const std::string folder = renga::testing::NewTempFolder();
  // Enough for all formats on a busy machine with small matrices.
  ASSERT_OK_AND_ASSIGN(const DeviceSpeed speed,
                       MeasureDevice(*backend, budget, folder, absl::Seconds(3)));
  ASSERT_THAT(speed.kernels, Not(IsEmpty()));
  EXPECT_EQ(speed.kernels[0].type, base::DataType::kQ4_K);
  for (const KernelSpeed& kernel : speed.kernels) {
    EXPECT_THAT(kernel.decode_bytes_per_second, Gt(0));
    EXPECT_THAT(kernel.prefill_bytes_per_second, Gt(0));
  }
  EXPECT_THAT(speed.copy_bytes_per_second, Gt(0));
  EXPECT_THAT(speed.layer_us, Gt(0));
  EXPECT_EQ(budget.used_bytes(), 0);
  EXPECT_TRUE(std::filesystem::is_empty(folder));
}

TEST(LayerProbe, TakesSomeTimeAndFreesEverything) {
  for (const char* device : {"cpu", "reference"}) {
    ASSERT_OK_AND_ASSIGN(const auto backend,
                         kernels::CreateBackend({.device = device, .threads = 2}));
    engine::MemoryBudget budget(int64_t{64} << 20);
    ASSERT_OK_AND_ASSIGN(const double us, MeasureLayer(*backend, budget, absl::Milliseconds(1)));
    EXPECT_THAT(us, Gt(0));
    EXPECT_EQ(budget.used_bytes(), 0);
  }
}

TEST(SpeedProbe, WithoutTimeTheFirstFormatIsMeasuredAllTheSame) {
  ASSERT_OK_AND_ASSIGN(const auto backend, kernels::CreateBackend({.device = "cpu", .threads = 1}));
  engine::MemoryBudget budget(int64_t{8} << 20);
  ASSERT_OK_AND_ASSIGN(const DeviceSpeed speed,
                       MeasureDevice(*backend, budget, "", absl::Nanoseconds(1)));
  EXPECT_EQ(speed.kernels.size(), 1u);
  EXPECT_EQ(speed.disk_bytes_per_second, 0);
}

TEST(SpeedProbe, GivesWayWheneverItIsAskedAndFreesEverything) {
  ASSERT_OK_AND_ASSIGN(const auto backend, kernels::CreateBackend({.device = "cpu", .threads = 1}));
  engine::MemoryBudget budget(int64_t{8} << 20);
  int asked = 0;
  ASSERT_OK(MeasureComputing(*backend, budget, absl::Milliseconds(5), [&] {
    ++asked;
    return false;
  }));
  EXPECT_GT(asked, 40) << "each of many small pieces asks, however slow the machine is";
  for (const int last : {1, 2, 3, 5, 8, 13, 21, 34}) {
    int left = last;
    EXPECT_THAT(
        MeasureComputing(*backend, budget, absl::Milliseconds(5), [&] { return --left == 0; }),
        StatusIs(absl::StatusCode::kCancelled));
    EXPECT_EQ(left, 0) << "it went on after being told to give way";
    EXPECT_EQ(budget.used_bytes(), 0);
  }
}

TEST(SpeedProbe, TakesNothingThatAShardHas) {
  ASSERT_OK_AND_ASSIGN(const auto backend, kernels::CreateBackend({.device = "cpu", .threads = 1}));
  engine::MemoryBudget budget(int64_t{64} << 20);
  ASSERT_OK_AND_ASSIGN(const auto shard, budget.Reserve(int64_t{60} << 20, "a shard"));
  EXPECT_THAT(MeasureComputing(*backend, budget, absl::Milliseconds(5), {}),
              StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(budget.used_bytes(), shard.bytes());
}

TEST(LayerProbe, GivesWay) {
  ASSERT_OK_AND_ASSIGN(const auto backend, kernels::CreateBackend({.device = "cpu", .threads = 1}));
  engine::MemoryBudget budget(int64_t{64} << 20);
  EXPECT_THAT(MeasureLayer(*backend, budget, absl::Seconds(60), [] { return true; }),
              StatusIs(absl::StatusCode::kCancelled));
  EXPECT_EQ(budget.used_bytes(), 0);
}

TEST(LayerProbe, WithoutRoomThereIsNoMeasurement) {
  ASSERT_OK_AND_ASSIGN(const auto backend, kernels::CreateBackend({.device = "cpu", .threads = 1}));
  engine::MemoryBudget budget(int64_t{1} << 20);
  ASSERT_OK_AND_ASSIGN(const double us, MeasureLayer(*backend, budget, absl::Milliseconds(1)));
  EXPECT_EQ(us, 0);
}

// Not promised on every file system; where there is no speed, planners assume one and say so.
TEST(DiskProbe, ReadsWhatIsThereAndLeavesNothing) {
  EXPECT_EQ(MeasureDisk("", absl::Milliseconds(1)), 0);
  const std::string folder = renga::testing::NewTempFolder();
  const double written = MeasureDisk(folder, absl::Milliseconds(1));
  EXPECT_GE(written, 0);
  EXPECT_TRUE(std::filesystem::is_empty(folder));
  ASSERT_OK(base::CreateDirectories(folder + "/packed/model/layout"));
  ASSERT_OK(base::WriteFileAtomically(folder + "/packed/model/layout/small", "too little to read"));
  ASSERT_OK(base::WriteFileAtomically(folder + "/packed/model/layout/large",
                                      std::string((5 << 20) + 1, 'x')));
  const double read = MeasureDisk(folder, absl::Milliseconds(1));
  EXPECT_EQ(read > 0, written > 0);
  EXPECT_EQ(MeasureDisk(folder, absl::Seconds(60), [] { return true; }), 0);
}

TEST(DiskProbe, TurnsAreTaken) {
  const std::string folder = renga::testing::NewTempFolder();
  {
    const auto mine = TryToTakeTurn(folder);
    EXPECT_TRUE(mine.has_value());
    EXPECT_FALSE(TryToTakeTurn(folder).has_value());
  }
  EXPECT_TRUE(TryToTakeTurn(folder).has_value());
  EXPECT_TRUE(TryToTakeTurn("").has_value());
}

}  // namespace
}  // namespace renga::worker
