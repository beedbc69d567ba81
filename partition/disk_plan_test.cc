#include "partition/disk_plan.h"

#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/testing/status_matchers.h"
#include "model/residency_plan.h"
#include "partition/explain.h"
#include "partition/planner.h"
#include "partition/test_models.h"

namespace renga::partition {
namespace {

using ::renga::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kDiskMiB = int64_t{1} << 20;

WorkerProfile DiskWorker(std::string id, int64_t mib, double disk_gb_per_second) {
  return {.id = std::move(id),
          .memory_bytes = mib * kDiskMiB,
          .bytes_per_second = 20e9,
          .disk_bytes_per_second = disk_gb_per_second * 1e9};
}

PlanRequest Lazy(bool lazy = true) {
  PlanRequest request;
  request.context_tokens = 256;
  request.max_step_tokens = 64;
  request.lazy = lazy;
  return request;
}

// 20 layers of 50 MiB.
const TestModel& ThousandMib() {
  static const auto* const kModel =
      new TestModel(MakeTestModel(std::vector<int64_t>(20, 50 * kDiskMiB), 32000, /*slices=*/true));
  return *kModel;
}

absl::StatusOr<Plan> LazyPlanFor(const std::vector<WorkerProfile>& workers,
                                 const PlanRequest& request) {
  return MakePlan(ThousandMib().model, ThousandMib().footprint, workers, request);
}

TEST(DiskPlanTest, AModelThatFitsIsPlannedAsEver) {
  const std::vector<WorkerProfile> workers = {DiskWorker("a", 800, 1), DiskWorker("b", 800, 1)};
  ASSERT_OK_AND_ASSIGN(const Plan lazy, LazyPlanFor(workers, Lazy()));
  ASSERT_OK_AND_ASSIGN(const Plan plan, LazyPlanFor(workers, Lazy(false)));
  EXPECT_EQ(lazy.stream_ms, plan.stream_ms);
  for (const WorkerPlan& worker : lazy.workers) EXPECT_EQ(worker.streamed_bytes, 0);
}

TEST(DiskPlanTest, OneWorkersDiskSetsThePace) {
  const std::vector<WorkerProfile> workers = {DiskWorker("a", 600, 1)};
  ASSERT_OK_AND_ASSIGN(const Plan plan, LazyPlanFor(workers, Lazy()));
  const WorkerPlan& worker = plan.workers[0];
  EXPECT_EQ(worker.spec.layers, (model::Range{0, 20}));
  EXPECT_LE(worker.bytes.total(), 600 * kDiskMiB);
  // More than what is missing, for the buffers it is read into.
  EXPECT_GT(worker.streamed_bytes, 400 * kDiskMiB);
  EXPECT_LT(worker.streamed_bytes, 600 * kDiskMiB);
  EXPECT_NEAR(plan.stream_ms, static_cast<double>(worker.streamed_bytes) / 1e6, 0.5);
  const double disk_ms = plan.times.stages[0].disk;
  EXPECT_GT(disk_ms, 400);
  EXPECT_THAT(ExplainPlan(plan, workers),
              AllOf(HasSubstr("bound by reading weights from disk"),
                    HasSubstr("of weights from disk for every step"),
                    HasSubstr(absl::StrFormat("waits %.2f ms for them", disk_ms))));
}

TEST(DiskPlanTest, SlowTokensAreNotRoundedAway) {
  const std::vector<WorkerProfile> workers = {DiskWorker("a", 600, 0.02)};
  ASSERT_OK_AND_ASSIGN(const Plan plan, LazyPlanFor(workers, Lazy()));
  EXPECT_GT(plan.stream_ms, 20'000);
  EXPECT_THAT(ExplainPlan(plan, workers),
              HasSubstr(absl::StrFormat("(%.2g tok/s)", 1e3 / plan.stream_ms)));
}

TEST(DiskPlanTest, TheFasterDiskReadsMore) {
  const std::vector<WorkerProfile> workers = {DiskWorker("slow", 300, 0.5),
                                              DiskWorker("fast", 300, 2)};
  ASSERT_OK_AND_ASSIGN(const Plan plan, LazyPlanFor(workers, Lazy()));
  EXPECT_GT(plan.workers[1].streamed_bytes, 2 * plan.workers[0].streamed_bytes);
  for (const WorkerPlan& worker : plan.workers) EXPECT_LE(worker.bytes.total(), 300 * kDiskMiB);
}

TEST(DiskPlanTest, AStageFillsItsBuffersWhileTheOtherWaitsForItsDisk) {
  const std::vector<WorkerProfile> workers = {DiskWorker("a", 300, 1), DiskWorker("b", 300, 1)};
  ASSERT_OK_AND_ASSIGN(const Plan plan, LazyPlanFor(workers, Lazy()));
  // Of each there is in memory what it offers when its turn comes, buffers included: all else is
  // read while it is its turn, and then the other's disk stands still.
  const WorkerPlan& first = plan.workers[0];
  const model::ModelFootprint& footprint = ThousandMib().footprint;
  const int64_t ring_bytes = first.bytes.weights + first.streamed_bytes - footprint.shared_bytes -
                             first.spec.layers.size() * footprint.layers[0].total() -
                             first.spec.head_rows.size() * footprint.head_row_bytes;
  EXPECT_GT(ring_bytes, 0);
  const int64_t streamed = plan.workers[0].streamed_bytes + plan.workers[1].streamed_bytes;
  EXPECT_NEAR(plan.stream_ms, static_cast<double>(streamed - 2 * ring_bytes) / 1e6, 10);
  EXPECT_LT(plan.slowest_ms, plan.stream_ms * 0.7);
}

TEST(DiskPlanTest, WorkersOfOneMachineShareItsDisk) {
  std::vector<WorkerProfile> workers = {DiskWorker("a", 300, 1), DiskWorker("b", 300, 1)};
  for (WorkerProfile& worker : workers) worker.machine = "attic";
  ASSERT_OK_AND_ASSIGN(const Plan plan, LazyPlanFor(workers, Lazy()));
  const int64_t streamed = plan.workers[0].streamed_bytes + plan.workers[1].streamed_bytes;
  EXPECT_NEAR(plan.stream_ms, static_cast<double>(streamed) / 1e6, 0.5);
  EXPECT_NEAR(plan.slowest_ms, static_cast<double>(streamed) / 1e6, 0.5);
  // Beside a worker with a disk of its own they read less each.
  workers.push_back(DiskWorker("c", 300, 1));
  ASSERT_OK_AND_ASSIGN(const Plan three, LazyPlanFor(workers, Lazy()));
  EXPECT_GT(three.workers[2].streamed_bytes, three.workers[0].streamed_bytes * 3 / 2);
  EXPECT_GT(three.workers[2].streamed_bytes, three.workers[1].streamed_bytes * 3 / 2);
}

TEST(DiskPlanTest, AWorkerThatIsTooSmallReadsNothing) {
  const std::vector<WorkerProfile> workers = {DiskWorker("large", 500, 1),
                                              DiskWorker("tiny", 30, 5)};
  ASSERT_OK_AND_ASSIGN(const Plan plan, LazyPlanFor(workers, Lazy()));
  EXPECT_EQ(plan.workers[1].streamed_bytes, 0);
  EXPECT_GT(plan.workers[0].streamed_bytes, 0);
}

TEST(DiskPlanTest, ACardHoldsWhatFitsAndReadsNothing) {
  std::vector<WorkerProfile> workers = {DiskWorker("card", 300, 5), DiskWorker("host", 300, 1)};
  workers[0].streams = false;
  ASSERT_OK_AND_ASSIGN(const Plan plan, LazyPlanFor(workers, Lazy()));
  EXPECT_EQ(plan.workers[0].streamed_bytes, 0);
  EXPECT_GT(plan.workers[0].spec.layers.size(), 0);
  EXPECT_LE(plan.workers[0].bytes.total(), 300 * kDiskMiB);
  EXPECT_GT(plan.workers[1].streamed_bytes, 400 * kDiskMiB);
  workers.pop_back();
  EXPECT_THAT(LazyPlanFor(workers, Lazy()),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("not even --lazy")));
}

TEST(DiskPlanTest, ARefusalSaysWhatLazyWouldDo) {
  const std::vector<WorkerProfile> workers = {DiskWorker("a", 600, 1)};
  ASSERT_OK_AND_ASSIGN(const Plan plan, LazyPlanFor(workers, Lazy()));
  EXPECT_THAT(LazyPlanFor(workers, Lazy(false)),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("or --lazy, which reads"),
                             HasSubstr(absl::StrFormat("%.3g tokens/s", 1e3 / plan.stream_ms)))));
  EXPECT_THAT(LazyPlanFor({DiskWorker("a", 20, 1)}, Lazy(false)),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("not even --lazy")));
  EXPECT_THAT(LazyPlanFor({DiskWorker("a", 20, 1)}, Lazy()),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("not even --lazy")));
}

TEST(DiskPlanTest, AnUnmeasuredDiskIsNamed) {
  ASSERT_OK_AND_ASSIGN(const Plan plan, LazyPlanFor({DiskWorker("a", 600, 0)}, Lazy()));
  ASSERT_EQ(plan.notes.size(), 1u);
  EXPECT_THAT(plan.notes[0], HasSubstr("a is not measured"));
  EXPECT_NEAR(
      plan.stream_ms,
      static_cast<double>(plan.workers[0].streamed_bytes) / kAssumedDiskBytesPerSecond * 1e3, 0.5);
}

}  // namespace
}  // namespace renga::partition
