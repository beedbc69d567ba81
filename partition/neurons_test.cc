#include "partition/neurons.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "base/testing/status_matchers.h"

namespace renga::partition {
namespace {

using ::renga::testing::StatusIs;

constexpr int64_t kNeurons = 40;  // two of them active

// Texts of 8 tokens in which neurons 2 topic and 2 topic + 1 of both layers are strong together,
// and all others weak; `swap` exchanges strong ones in the second half of a text.
NeuronRecord Record(const std::vector<int>& topics, bool swap = false) {
  NeuronRecorder recorder(2, kNeurons, std::vector<float>(2 * kNeurons, 1.0F));
  for (size_t t = 0; t < topics.size(); ++t) {
    recorder.BeginText(std::string(1, static_cast<char>('a' + t)), 8);
    for (int64_t position = 0; position < 8; ++position) {
      std::vector<float> row(kNeurons, 0.1F);
      const int topic = swap && position >= 4 ? topics[t] + 10 : topics[t];
      row[2 * topic] = 3;
      row[2 * topic + 1] = -3;
      for (int64_t layer = 0; layer < 2; ++layer) recorder.Add(layer, position, row);
    }
  }
  return recorder.Finish();
}

TEST(NeuronsTest, CountsWhatWasActive) {
  ASSERT_OK_AND_ASSIGN(const NeuronReport report, StudyNeurons(Record({0, 1, 1}), 0.9));
  EXPECT_EQ(report.active, 2);
  EXPECT_EQ(report.working_set.front().positions, 1);
  EXPECT_DOUBLE_EQ(report.working_set.front().share, 2.0 / kNeurons);
  EXPECT_EQ(report.working_set.back().positions, 24);
  EXPECT_DOUBLE_EQ(report.working_set.back().share, 4.0 / kNeurons);
}

TEST(NeuronsTest, HotOnesComeFromFirstHalvesAndAreCountedOnSecondOnes) {
  ASSERT_OK_AND_ASSIGN(const NeuronReport report, StudyNeurons(Record({0, 1}), 0.9));
  // Two of forty have nearly all of a token's; two topics need four.
  const double strong = 18 / (18 + 38 * 0.01);
  EXPECT_NEAR(report.caches[0].strongest, strong, 1e-4);
  EXPECT_NEAR(report.caches[0].of_text, strong, 1e-4);
  EXPECT_NEAR(report.caches[0].hottest, strong / 2, 1e-3);
  EXPECT_NEAR(report.caches[1].hottest, strong, 1e-2);
  EXPECT_DOUBLE_EQ(report.recommended_share, 0.1);
  EXPECT_THAT(std::vector<int32_t>(report.by_heat[1].begin(), report.by_heat[1].begin() + 4),
              ::testing::UnorderedElementsAre(0, 1, 2, 3));
  EXPECT_EQ(report.by_heat[0].size(), static_cast<size_t>(kNeurons));

  ASSERT_OK_AND_ASSIGN(const NeuronReport swapped, StudyNeurons(Record({0, 1}, true), 0.9));
  EXPECT_LT(swapped.caches[0].of_text, 0.1);
  EXPECT_NEAR(swapped.caches[0].strongest, strong, 1e-4);
  EXPECT_GT(swapped.recommended_share, 0.2);
}

TEST(NeuronsTest, GroupsAreWhatIsActiveTogetherInOtherTextsToo) {
  ASSERT_OK_AND_ASSIGN(const NeuronReport report, StudyNeurons(Record({0, 1, 2, 0, 1, 2}), 0.9));
  ASSERT_FALSE(report.groups.empty());
  const NeuronGroups& groups = report.groups.front();
  EXPECT_EQ(std::accumulate(groups.sizes.begin(), groups.sizes.end(), int64_t{0}), kNeurons);
  for (int topic = 0; topic < 3; ++topic) {
    EXPECT_EQ(groups.group_of[2 * topic], groups.group_of[2 * topic + 1]);
  }
  EXPECT_NE(groups.group_of[0], groups.group_of[2]);
  EXPECT_NE(groups.group_of[2], groups.group_of[4]);
  EXPECT_DOUBLE_EQ(groups.inside, 1);
  EXPECT_NEAR(groups.inside_by_chance, 1.0 / 3, 1e-9);
  const size_t own = static_cast<size_t>(groups.group_of[0]);
  EXPECT_NEAR(groups.lift[own * groups.sizes.size() + own], 3, 1e-9);
  EXPECT_EQ(groups.texts[own], "a");
  // Texts a and d are alike, c is another.
  EXPECT_DOUBLE_EQ(report.together[3], 1);
  EXPECT_LT(report.together[2], 0.5);
}

TEST(NeuronsTest, TheSameAgain) {
  ASSERT_OK_AND_ASSIGN(const NeuronReport a, StudyNeurons(Record({3, 1, 4, 1, 5}), 0.9));
  ASSERT_OK_AND_ASSIGN(const NeuronReport b, StudyNeurons(Record({3, 1, 4, 1, 5}), 0.9));
  EXPECT_EQ(a.groups[0].group_of, b.groups[0].group_of);
  EXPECT_EQ(a.by_heat, b.by_heat);
}

TEST(NeuronsTest, NeedsTwoTexts) {
  EXPECT_THAT(StudyNeurons(Record({1}), 0.9), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(StudyNeurons({}, 0.9), StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace renga::partition
