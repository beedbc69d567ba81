#include "worker/service/memory_watch.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace renga::worker {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMebibyte = int64_t{1} << 20;

TEST(MemoryWatchTest, SaysOnceThatMemoryIsShortAndOnceThatItIsBack) {
  absl::StatusOr<int64_t> free_bytes = 128 * kMebibyte;
  int asked = 0;
  std::vector<std::string> told;
  MemoryWatch watch(
      [&] {
        ++asked;
        return free_bytes;
      },
      [&](const std::string& line) { told.push_back(line); });
  absl::Time now = absl::UnixEpoch();
  const auto look_later = [&] { return watch.Look(now += MemoryWatch::kInterval); };
  EXPECT_EQ(look_later(), "");
  free_bytes = 20 * kMebibyte;
  EXPECT_EQ(watch.Look(now), "") << "not asked so soon";
  EXPECT_EQ(asked, 1);
  EXPECT_THAT(look_later(), HasSubstr("20.0 MiB are left"));
  EXPECT_THAT(look_later(), HasSubstr("less --memory"));
  EXPECT_EQ(told.size(), 1u);
  free_bytes = 70 * kMebibyte;  // not yet enough
  EXPECT_THAT(look_later(), HasSubstr("70.0 MiB"));
  free_bytes = absl::InternalError("no answer");
  EXPECT_THAT(look_later(), HasSubstr("70.0 MiB"));
  free_bytes = 100 * kMebibyte;
  EXPECT_EQ(look_later(), "");
  EXPECT_EQ(look_later(), "");
  ASSERT_EQ(told.size(), 2u);
  EXPECT_THAT(told[1], HasSubstr("again"));
}

}  // namespace
}  // namespace renga::worker
