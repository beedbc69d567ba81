// Who holds the rows of the output matrix.
#include "base/testing/status_matchers.h"
#include "partition/planner_fixture.h"

namespace renga::partition {
namespace {

TEST(HeadPlacementTest, ForcedHeadBlocksGoFromTheLastStageBackwards) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(6, 10 * kMiB), 1001);
  const std::vector<WorkerProfile> workers = {Worker("a", 300, 5), Worker("b", 300, 5),
                                              Worker("c", 300, 5)};
  for (int64_t blocks = 1; blocks <= 4; ++blocks) {
    PlanRequest request = Request();
    request.head_blocks = blocks;
    ASSERT_OK_AND_ASSIGN(const Plan plan, PlanFor(model, workers, request));
    ExpectSound(plan, model, workers, request);
    ASSERT_EQ(static_cast<int64_t>(plan.heads.size()), std::min<int64_t>(blocks, 3));
    for (size_t i = 0; i < plan.heads.size(); ++i) {
      EXPECT_EQ(plan.heads[i].worker, plan.stages[2 - i].members[0].worker);
    }
    EXPECT_EQ(plan.notes.size(), blocks == 4 ? 1u : 0u);
  }
}

TEST(HeadPlacementTest, WorkersWithoutLayersMayHoldForcedHeadBlocks) {
  const TestModel model = MakeTestModel({kMiB, kMiB}, 900);
  const std::vector<WorkerProfile> workers = {Worker("a", 100, 1), Worker("b", 100, 1),
                                              Worker("c", 100, 1)};
  PlanRequest request = Request();
  request.head_blocks = 3;
  ASSERT_OK_AND_ASSIGN(const Plan plan, PlanFor(model, workers, request));
  ExpectSound(plan, model, workers, request);
  EXPECT_EQ(plan.heads.size(), 3u);
  EXPECT_TRUE(plan.workers[2].spec.layers.empty());
  EXPECT_FALSE(plan.workers[2].idle());
}

TEST(HeadPlacementTest, NearRowsAreWithTheLastStageAndOthersElsewhere) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(4, 10 * kMiB), 1000);
  const std::vector<WorkerProfile> workers = {Worker("a", 300, 5), Worker("b", 300, 5),
                                              Worker("c", 300, 5)};
  for (const int64_t blocks : {0, 2, 3}) {
    for (const bool every_worker : {false, true}) {
      PlanRequest request = Request();
      request.head_blocks = blocks;
      request.use_every_worker = every_worker;
      request.near_rows = std::make_shared<const model::RowSet>(model::RowSet{3, 4, 5, 900});
      ASSERT_OK_AND_ASSIGN(const Plan plan, PlanFor(model, workers, request));
      ExpectSound(plan, model, workers, request);
      ASSERT_EQ(plan.heads.size(), blocks == 3 ? 3u : 2u);
      EXPECT_EQ(plan.heads[0].rows, (model::Range{0, 4}));
      EXPECT_EQ(plan.heads[0].worker, plan.stages.back().members[0].worker);
      // Far rows put no stage behind their links.
      for (size_t i = 1; i < plan.heads.size(); ++i) {
        EXPECT_TRUE(plan.workers[plan.heads[i].worker].spec.layers.empty());
      }
      ASSERT_NE(plan.limits.near_rows, nullptr);
    }
  }
}

TEST(HeadPlacementTest, AHeadBehindAScreenTakesLessMemoryAndNoLessTime) {
  TestModel model = MakeTestModel(std::vector<int64_t>(4, 10 * kMiB), 100 * 1024);
  const std::vector<WorkerProfile> workers = {Worker("a", 300, 5)};
  ASSERT_OK_AND_ASSIGN(const Plan whole, PlanFor(model, workers, Request()));
  model.footprint.head_row_work_bytes = model.footprint.head_row_bytes;
  model.footprint.head_row_bytes /= 4;
  ASSERT_OK_AND_ASSIGN(const Plan screened, PlanFor(model, workers, Request()));
  EXPECT_LT(screened.workers[0].bytes.weights, whole.workers[0].bytes.weights - 70 * kMiB);
  EXPECT_EQ(screened.stream_ms, whole.stream_ms);
}

TEST(HeadPlacementTest, FarRowsGoBesideLayersWhereThereIsNoOtherRoom) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(6, 10 * kMiB), 1000);
  // Neither has room for all layers.
  const std::vector<WorkerProfile> workers = {Worker("a", 55, 5), Worker("b", 55, 5)};
  PlanRequest request = Request();
  request.near_rows = std::make_shared<const model::RowSet>(model::RowSet{3, 4, 5, 900});
  ASSERT_OK_AND_ASSIGN(const Plan plan, PlanFor(model, workers, request));
  ExpectSound(plan, model, workers, request);
  ASSERT_EQ(plan.stages.size(), 2u);
  ASSERT_EQ(plan.heads.size(), 2u);
  EXPECT_EQ(plan.heads[0].worker, plan.stages[1].members[0].worker);
  EXPECT_EQ(plan.heads[1].worker, plan.stages[0].members[0].worker);
  // One machine holds all rows, and the plan says so.
  ASSERT_OK_AND_ASSIGN(const Plan alone, PlanFor(model, {Worker("a", 300, 5)}, request));
  EXPECT_EQ(alone.heads.size(), 1u);
  EXPECT_EQ(alone.notes.size(), 1u);
}

TEST(HeadPlacementTest, AHeadThatFitsNowhereWholeIsSpread) {
  // 100 MiB of head; each worker has room for two layers and some 50 MiB more.
  const TestModel model = MakeTestModel(std::vector<int64_t>(6, 10 * kMiB), 100 * 1024);
  const std::vector<WorkerProfile> workers = {Worker("a", 75, 5), Worker("b", 75, 5),
                                              Worker("c", 75, 5)};
  ASSERT_OK_AND_ASSIGN(const Plan plan, PlanFor(model, workers, Request()));
  ExpectSound(plan, model, workers, Request());
  EXPECT_GE(plan.heads.size(), 2u);
}

}  // namespace
}  // namespace renga::partition
