#include "partition/regions.h"

#include "base/testing/status_matchers.h"

namespace renga::partition {
namespace {

using ::renga::testing::StatusIs;
using ::testing::ElementsAre;

// Each position's best rows are `row` and its neighbour above, three to one.
TextTrace Trace(const std::string& name, const std::vector<int32_t>& rows) {
  TextTrace trace{.name = name, .tokens = rows, .best = {}, .shares = {}};
  for (const int32_t row : rows) {
    trace.best.push_back({row, row + 1});
    trace.shares.push_back({0.75F, 0.25F});
  }
  return trace;
}

TEST(RegionsTest, CountsWorkingSets) {
  ASSERT_OK_AND_ASSIGN(const RegionReport report,
                       StudyRegions({Trace("a", {1, 1, 4}), Trace("b", {4, 9})}, 100, 0.9));
  EXPECT_EQ(report.positions, 5);
  ASSERT_EQ(report.working_set.size(), 5u);
  EXPECT_EQ(report.working_set[1].input_rows, 1);
  EXPECT_EQ(report.working_set[4].input_rows, 3);
  EXPECT_EQ(report.working_set[4].first_rows, 3);
  EXPECT_EQ(report.working_set[4].best_rows, 6);
}

TEST(RegionsTest, HotRowsComeFromFirstHalvesAndAreCountedOnSecondOnes) {
  // The first half heats rows 200 to 249; the second takes every other best row from there, and one
  // of its own again and again.
  std::vector<int32_t> rows;
  for (int32_t i = 0; i < 50; ++i) rows.push_back(200 + i);
  for (int32_t i = 0; i < 25; ++i) {
    rows.push_back(200 + i);
    rows.push_back(700);
  }
  ASSERT_OK_AND_ASSIGN(const RegionReport report,
                       StudyRegions({Trace("a", rows), Trace("b", rows)}, 1000, 0.95));
  ASSERT_EQ(report.caches.size(), 5u);  // 64, 128, 256, 512, 1000
  EXPECT_DOUBLE_EQ(report.caches[0].first_in_hot, 0.5);
  EXPECT_DOUBLE_EQ(report.caches[0].first_in_hot_or_seen, 1);
  EXPECT_DOUBLE_EQ(report.caches[0].first_in_recent, 0.74);  // all but each row's first time
  EXPECT_DOUBLE_EQ(report.caches[0].mass_in_hot, 0.5);
  EXPECT_DOUBLE_EQ(report.caches[4].first_in_hot, 1);
  EXPECT_EQ(report.recommended_rows, 64);
  EXPECT_EQ(report.hot_rows.size(), 64u);
}

TEST(RegionsTest, TopicsKnowTheirOwnRows) {
  ASSERT_OK_AND_ASSIGN(
      const RegionReport report,
      StudyRegions({Trace("a", {10, 10, 50}), Trace("b", {20, 20, 50})}, 100, 0.9));
  ASSERT_EQ(report.topics.size(), 2u);
  EXPECT_THAT(report.topics[0].typical, ElementsAre(10, 11));
  EXPECT_THAT(report.topics[1].typical, ElementsAre(20, 21));
  EXPECT_THAT(report.together,
              ElementsAre(1, ::testing::DoubleEq(2.0 / 6), ::testing::DoubleEq(2.0 / 6), 1));
}

TEST(RegionsTest, RefusesWhatMakesNoSense) {
  const auto bad = StatusIs(absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(StudyRegions({}, 10, 0.9), bad);
  EXPECT_THAT(StudyRegions({Trace("a", {1})}, 10, 0.9), bad);
  EXPECT_THAT(StudyRegions({Trace("a", {1}), Trace("b", {9})}, 10, 0.9), bad);
  TextTrace cut = Trace("b", {1, 2});
  cut.best.pop_back();
  EXPECT_THAT(StudyRegions({Trace("a", {1}), cut}, 10, 0.9), bad);
}

}  // namespace
}  // namespace renga::partition
