#include "worker/engine/expert_choice.h"

#include <cmath>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace renga::engine {
namespace {

using ::testing::ElementsAre;

TEST(ExpertChoiceTest, TakesTheBestAndWeighsThemAmongThemselves) {
  const std::vector<float> scores = {0, 2, 1, -5,  //
                                     3, 0, 0, 4};
  const std::vector<ExpertRow> chosen = ChooseExperts(scores, 4, 2);
  const auto share = [](double a, double b) {
    return static_cast<float>(std::exp(a) / (std::exp(a) + std::exp(b)));
  };
  ASSERT_EQ(chosen.size(), 4u);
  // By expert, then by row.
  EXPECT_EQ(chosen[0].expert, 0);
  EXPECT_EQ(chosen[0].row, 1);
  EXPECT_FLOAT_EQ(chosen[0].weight, share(3, 4));
  EXPECT_EQ(chosen[1].expert, 1);
  EXPECT_EQ(chosen[1].row, 0);
  EXPECT_FLOAT_EQ(chosen[1].weight, share(2, 1));
  EXPECT_EQ(chosen[2].expert, 2);
  EXPECT_FLOAT_EQ(chosen[2].weight, share(1, 2));
  EXPECT_EQ(chosen[3].expert, 3);
  EXPECT_FLOAT_EQ(chosen[3].weight, share(4, 3));

  const std::vector<ExpertRows> groups = RowsByExpert(ChooseExperts(scores, 4, 3));
  int64_t rows = 0;
  for (const ExpertRows& group : groups) {
    EXPECT_EQ(group.first, rows);
    rows += group.count;
  }
  EXPECT_EQ(rows, 6);
  ASSERT_EQ(groups.size(), 4u);
  EXPECT_EQ(groups[0].count, 2);
  EXPECT_EQ(groups[3].count, 1);
}

TEST(ExpertChoiceTest, EqualScoresGoToTheLowerNumber) {
  const std::vector<float> scores = {1, 2, 2, 1, 2};
  const auto experts = [&](int64_t used) {
    std::vector<int32_t> found;
    for (const ExpertRow& row : ChooseExperts(scores, 5, used)) found.push_back(row.expert);
    return found;
  };
  EXPECT_THAT(experts(1), ElementsAre(1));
  EXPECT_THAT(experts(2), ElementsAre(1, 2));
  EXPECT_THAT(experts(4), ElementsAre(0, 1, 2, 4));
}

TEST(ExpertChoiceTest, WhateverIsDamagedGivesDistinctExperts) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> scores = {nan,   1,      nan,      2,          //
                                     nan,   nan,    nan,      nan,        //
                                     0,     0,      infinity, -infinity,  //
                                     1e38f, -1e38f, 3e38f,    0};
  const std::vector<ExpertRow> chosen = ChooseExperts(scores, 4, 3);
  ASSERT_EQ(chosen.size(), 12u);
  for (size_t i = 1; i < chosen.size(); ++i) {
    EXPECT_FALSE(chosen[i].expert == chosen[i - 1].expert && chosen[i].row == chosen[i - 1].row);
    EXPECT_TRUE(chosen[i].expert >= 0 && chosen[i].expert < 4);
  }
  EXPECT_TRUE(ChooseExperts({}, 4, 3).empty());
}

}  // namespace
}  // namespace renga::engine
