#include "model/expert_uses.h"

#include <gtest/gtest.h>

#include <cmath>

namespace renga::model {
namespace {

TEST(ExpertUsesTest, AUseCountsHalfAfterAHalfLife) {
  ExpertUses uses(2, 3);
  uses.BeginStep();
  const double first = uses.Count(0, 4);
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(uses.BeginStep());
  EXPECT_NEAR(uses.Count(1, 2), first, first * 1e-12);
  EXPECT_EQ(uses.of(0), first);
}

TEST(ExpertUsesTest, LongRunsKeepTheOrder) {
  ExpertUses uses(3, 1);
  int scaled = 0;
  for (int i = 0; i < 5000; ++i) {
    scaled += uses.BeginStep() ? 1 : 0;
    uses.Count(0, 3);
    uses.Count(1, 2);
    if (i == 0) uses.Count(2, 1000);
    ASSERT_TRUE(std::isfinite(uses.of(0)));
    if (i > 20) {
      ASSERT_GT(uses.of(0), uses.of(1));
      ASSERT_GT(uses.of(1), uses.of(2));
    }
  }
  EXPECT_EQ(scaled, 7);  // 2^5000 is 10^1505
}

}  // namespace
}  // namespace renga::model
