#include "model/residency_plan.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/testing/status_matchers.h"
#include "model/linear_runs.h"

namespace renga::model {
namespace {

using ::renga::testing::StatusIs;

// 24 layers of matrices in the proportions of a Llama.
std::vector<int64_t> Bundles() {
  std::vector<int64_t> bundles;
  for (int layer = 0; layer < 24; ++layer) bundles.insert(bundles.end(), {56, 45, 245, 123});
  return bundles;
}

TEST(ResidencyPlanTest, ExpertsShareWhatOthersLeave) {
  const std::vector<int64_t> experts = {40, 50, 40, 50, 40, 50};
  // Room for six of the largest, and for a damaged one beside.
  ASSERT_OK_AND_ASSIGN(ExpertPlaces places, PlanExpertPlaces(experts, 2, 100, 100 + 7 * 50));
  EXPECT_EQ(places.count, 6);
  EXPECT_EQ(places.bytes, 50);
  EXPECT_EQ(places.memory_bytes(), 350);
  // Never more than there are, never more bytes than there are.
  ASSERT_OK_AND_ASSIGN(places, PlanExpertPlaces(experts, 2, 100, 5000));
  EXPECT_EQ(places.count, 6);
  for (int64_t budget = 250; budget < 500; ++budget) {
    ASSERT_OK_AND_ASSIGN(places, PlanExpertPlaces(experts, 2, 100, budget));
    EXPECT_LE(100 + places.memory_bytes(), budget);
    EXPECT_GE(places.count, 2);
  }
  for (const int64_t budget : {int64_t{-9}, int64_t{0}, int64_t{99}, int64_t{249}}) {
    EXPECT_THAT(PlanExpertPlaces(experts, 2, 100, budget),
                StatusIs(absl::StatusCode::kResourceExhausted, ::testing::HasSubstr("experts")));
  }
}

TEST(ResidencyPlanTest, PinsEverythingThatFits) {
  const std::vector<int64_t> bundles = Bundles();
  const int64_t total = std::accumulate(bundles.begin(), bundles.end(), int64_t{0});
  ASSERT_OK_AND_ASSIGN(const ResidencyPlan plan, PlanResidency(bundles, total));
  EXPECT_EQ(plan.memory_bytes(), total);
  EXPECT_EQ(plan.streamed_bytes, 0);
  EXPECT_EQ(std::count(plan.pinned.begin(), plan.pinned.end(), false), 0);
}

TEST(ResidencyPlanTest, UsesTheBudgetAndKeepsTheDiskEvenlyBusy) {
  const std::vector<int64_t> bundles = Bundles();
  const int64_t total = std::accumulate(bundles.begin(), bundles.end(), int64_t{0});
  for (const int64_t percent : {95, 75, 50, 30, 10, 5}) {
    SCOPED_TRACE(percent);
    const int64_t budget = total * percent / 100;
    ASSERT_OK_AND_ASSIGN(const ResidencyPlan plan, PlanResidency(bundles, budget));
    EXPECT_LE(plan.memory_bytes(), budget);
    EXPECT_EQ(plan.ring_bytes, 2 * 245);
    EXPECT_EQ(plan.pinned_bytes + plan.streamed_bytes, total);
    // Less is left over than the smallest bundle takes, unless all are pinned.
    EXPECT_LT(budget - plan.memory_bytes(), 245);
    // Up to any bundle, what was streamed is its share, give or take two large bundles.
    const double share = static_cast<double>(plan.streamed_bytes) / static_cast<double>(total);
    double seen = 0;
    double streamed = 0;
    for (size_t i = 0; i < bundles.size(); ++i) {
      seen += static_cast<double>(bundles[i]);
      if (!plan.pinned[i]) streamed += static_cast<double>(bundles[i]);
      EXPECT_NEAR(streamed, share * seen, 2 * 245) << "bundle " << i;
    }
  }
}

TEST(ResidencyPlanTest, NeedsRoomForTheLargestBundle) {
  const std::vector<int64_t> bundles = {10, 30, 20};
  ASSERT_OK_AND_ASSIGN(const ResidencyPlan plan, PlanResidency(bundles, 30));
  EXPECT_EQ(plan.ring_bytes, 30);
  EXPECT_EQ(plan.streamed_bytes, 60);
  EXPECT_THAT(PlanResidency(bundles, 29), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(PlanResidency(bundles, -5), StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST(LinearCallsTest, QueriesKeysAndValuesAreOneCall) {
  ASSERT_OK_AND_ASSIGN(const Architecture* llama, FindArchitecture("llama"));
  ModelConfig config;
  config.n_layers = 1;
  config.d_model = 256;
  config.n_heads = 4;
  config.n_kv_heads = 2;
  config.head_dim = 64;
  config.d_ff = 512;
  const LayerProgram program = llama->Program(config);
  std::vector<size_t> counts;
  for (const LinearCall& call : LinearCalls(program)) counts.push_back(call.count);
  EXPECT_EQ(counts, (std::vector<size_t>{3, 1, 2, 1}));
}

}  // namespace
}  // namespace renga::model
