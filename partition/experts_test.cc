// Plans for mixtures of experts: all of them are held, and few are read for a token.
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/testing/status_matchers.h"
#include "partition/explain.h"
#include "partition/planner_fixture.h"

namespace renga::partition {
namespace {

using ::renga::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

// Layers of which some bytes are experts', two of eight for each token.
TestModel MakeMixture(int64_t other_bytes, int64_t expert_bytes) {
  TestModel mixture = MakeTestModel(std::vector<int64_t>(6, other_bytes), 256);
  mixture.model.config.n_experts = 8;
  mixture.model.config.n_experts_used = 2;
  for (model::LayerWeightBytes& layer : mixture.footprint.layers) layer.experts = expert_bytes;
  return mixture;
}

double LayersMs(const Plan& plan) {
  double ms = 0;
  for (const StageTimes& stage : plan.times.stages) ms += stage.compute;
  return ms;
}

TEST(ExpertsPlanTest, ATokenReadsTheExpertsItUsesAndMemoryHoldsAll) {
  const TestModel mixture = MakeMixture(4 * kMiB, 32 * kMiB);
  const TestModel dense = MakeTestModel(std::vector<int64_t>(6, 12 * kMiB), 256);
  const std::vector<WorkerProfile> workers = {Worker("a", 150, 10), Worker("b", 150, 20)};
  ASSERT_OK_AND_ASSIGN(const Plan plan, PlanFor(mixture, workers, OneStream(100)));
  ExpectSound(plan, mixture, workers, OneStream(100));
  // On one that is large enough, beside a dense model that is read whole.
  const std::vector<WorkerProfile> one = {Worker("c", 1024, 10)};
  ASSERT_OK_AND_ASSIGN(const Plan whole, PlanFor(mixture, one, OneStream(100)));
  ASSERT_OK_AND_ASSIGN(const Plan of_dense, PlanFor(dense, one, OneStream(100)));
  EXPECT_NEAR(LayersMs(whole), LayersMs(of_dense), 1e-9);
  EXPECT_GE(whole.workers[0].bytes.weights, 6 * 36 * kMiB);
  EXPECT_LE(whole.bound_ms, whole.stream_ms);
  EXPECT_THAT(PlanFor(mixture, {Worker("d", 200, 10)}, OneStream(100)),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("does not fit")));
}

TEST(ExpertsPlanTest, BoundsStayBelowPlansOfManyWorkers) {
  const TestModel mixture = MakeMixture(2 * kMiB, 64 * kMiB);
  std::vector<WorkerProfile> workers;
  for (int i = 0; i < 9; ++i) {
    workers.push_back(Worker(std::string(1, static_cast<char>('a' + i)), 80 + 7 * i, 5 + i));
  }
  for (const Objective objective : {Objective::kOneStream, Objective::kManyStreams}) {
    PlanRequest request = OneStream(50);
    request.objective = objective;
    ASSERT_OK_AND_ASSIGN(const Plan plan, PlanFor(mixture, workers, request));
    ExpectSound(plan, mixture, workers, request);
    const double ms = objective == Objective::kOneStream ? plan.stream_ms : plan.slowest_ms;
    EXPECT_LE(plan.bound_ms, ms * (1 + 1e-9));
  }
}

TEST(ExpertsPlanTest, MoreRowsReadMoreExperts) {
  const TestModel mixture = MakeMixture(0, 80 * kMiB);
  const model::ModelConfig& config = mixture.model.config;
  EXPECT_DOUBLE_EQ(model::ShareOfExpertsRead(config, 1), 0.25);
  EXPECT_DOUBLE_EQ(model::ShareOfExpertsRead(config, 2), 1 - 0.75 * 0.75);
  EXPECT_GT(model::ShareOfExpertsRead(config, 32), 0.999);
  const std::vector<WorkerProfile> workers = {Worker("a", 1024, 10)};
  const MachineKinds kinds(workers, {});
  const PlanRequest request = OneStream(0);
  const ShardCosts bytes(mixture.model, mixture.footprint, LimitsOf(request));
  const CostModel costs(bytes, kinds, request);
  const StageShape shape = {.kinds = {0}, .slices = {}};
  const double whole_ms = 80.0 * kMiB / 10e9 * 1e3;
  EXPECT_NEAR(costs.LayerMs(shape, 0, 1), 0.25 * whole_ms, 1e-9);
  // The two rows' experts, less those that they share; which cost as one more row of a prompt.
  const double both = 1 - 0.75 * 0.75;
  EXPECT_NEAR(costs.LayerMs(shape, 0, 2), (both + (0.5 - both) / kAssumedPrefillGain) * whole_ms,
              1e-9);
}

TEST(ExpertsPlanTest, DisksBringTheExpertsThatATokenMisses) {
  const TestModel mixture = MakeMixture(4 * kMiB, 32 * kMiB);
  WorkerProfile worker = Worker("a", 110, 1000);
  worker.disk_bytes_per_second = 1e9;
  PlanRequest request = OneStream(0);
  request.lazy = true;
  const std::vector<WorkerProfile> one = {worker};
  ASSERT_OK_AND_ASSIGN(const Plan plan, PlanFor(mixture, one, request));
  const model::ShardBytes whole =
      model::MeasureShard(mixture.model, mixture.footprint, plan.workers[0].spec, plan.limits);
  EXPECT_LE(plan.workers[0].bytes.total(), worker.memory_bytes);
  // A quarter of what does not fit, and of the place for a damaged expert.
  const int64_t missing = whole.total() - worker.memory_bytes + 4 * kMiB;
  EXPECT_NEAR(static_cast<double>(plan.workers[0].streamed_bytes), static_cast<double>(missing) / 4,
              1e3);
  EXPECT_NEAR(plan.times.stages[0].disk, static_cast<double>(missing) / 4 / 1e6, 0.01);
  EXPECT_THAT(ExplainPlan(plan, one), HasSubstr("taken to be used alike"));
  // What every token reads stays in memory, with room for the experts of a layer's token.
  for (int64_t mib = 20; mib < 60; ++mib) {
    WorkerProfile small = worker;
    small.memory_bytes = mib * kMiB;
    const auto planned = PlanFor(mixture, {small}, request);
    const int64_t least = whole.total() - 6 * 32 * kMiB + 3 * 4 * kMiB;
    EXPECT_EQ(planned.ok(), small.memory_bytes >= least) << mib;
    if (planned.ok()) {
      EXPECT_LE(planned->workers[0].bytes.total(), small.memory_bytes);
    }
  }
  // On two machines each reads what it misses.
  WorkerProfile other = worker;
  other.id = "b";
  const std::vector<WorkerProfile> two = {worker, other};
  request.objective = Objective::kManyStreams;
  ASSERT_OK_AND_ASSIGN(const Plan both, PlanFor(mixture, two, request));
  EXPECT_LT(both.times.stages[0].disk, plan.times.stages[0].disk);
}

TEST(ExpertsPlanTest, MeasuredUsageSaysWhatATokenMisses) {
  const TestModel mixture = MakeMixture(4 * kMiB, 32 * kMiB);
  WorkerProfile worker = Worker("a", 110, 1000);
  worker.disk_bytes_per_second = 1e9;
  PlanRequest request = OneStream(0);
  request.lazy = true;
  const std::vector<WorkerProfile> one = {worker};
  ASSERT_OK_AND_ASSIGN(const Plan alike, PlanFor(mixture, one, request));
  // A cache of half of the experts has nine tenths of what is chosen.
  const ExpertHits hits = {.points = {{.share = 0.5, .hits = 0.9}, {.share = 1, .hits = 0.99}}};
  request.expert_hits = std::make_shared<const ExpertHits>(hits);
  ASSERT_OK_AND_ASSIGN(const Plan plan, PlanFor(mixture, one, request));
  EXPECT_EQ(plan.workers[0].bytes.total(), alike.workers[0].bytes.total());
  EXPECT_TRUE(plan.workers[0].by_measured_usage);
  EXPECT_FALSE(alike.workers[0].by_measured_usage);
  // Of 192 MiB of experts, by what was measured for so many of them; a token chooses a quarter.
  const double all = 192.0 * kMiB;
  const double on_disk = 4.0 * static_cast<double>(alike.workers[0].streamed_bytes);
  const double missed = MissedChoices(&hits, 1 - on_disk / all);
  EXPECT_NEAR(static_cast<double>(plan.workers[0].streamed_bytes), missed * all / 4, 1e3);
  EXPECT_LT(plan.workers[0].streamed_bytes, alike.workers[0].streamed_bytes / 2);
  EXPECT_NEAR(plan.times.stages[0].disk, missed * all / 4 / 1e6, 0.01);
  const std::string text = ExplainPlan(plan, one);
  EXPECT_THAT(text, HasSubstr(absl::StrFormat("misses %.0f %% of the experts", 100 * missed)));
  EXPECT_THAT(text, Not(HasSubstr("taken to be used alike")));
  // Of two machines each is planned by it, and what fits without disks is planned as ever.
  WorkerProfile other = worker;
  other.id = "b";
  other.memory_bytes = 60 * kMiB;
  const std::vector<WorkerProfile> two = {worker, other};
  ASSERT_OK_AND_ASSIGN(const Plan both, PlanFor(mixture, two, request));
  for (size_t i = 0; i < two.size(); ++i) {
    EXPECT_LE(both.workers[i].bytes.total(), two[i].memory_bytes);
  }
  EXPECT_LT(both.workers[0].streamed_bytes, plan.workers[0].streamed_bytes);
  ASSERT_OK_AND_ASSIGN(const Plan enough, PlanFor(mixture, {Worker("c", 1024, 10)}, request));
  EXPECT_EQ(enough.workers[0].streamed_bytes, 0);
  // A mixture that needs its disk for nearly everything is planned with any measurement.
  for (const double share : {0.01, 0.5, 1.0}) {
    for (const double there : {0.0, 0.5, 1.0}) {
      request.expert_hits = std::make_shared<const ExpertHits>(
          ExpertHits{.points = {{.share = share, .hits = there}}});
      EXPECT_OK(PlanFor(mixture, one, request)) << share << " " << there;
      EXPECT_OK(PlanFor(mixture, two, request)) << share << " " << there;
    }
  }
}

TEST(ExpertsPlanTest, LayersAreNeverCutForGroups) {
  const TestModel mixture = MakeMixture(4 * kMiB, 32 * kMiB);
  std::vector<WorkerProfile> workers = {Worker("a", 512, 10), Worker("b", 512, 10)};
  PlanRequest request = OneStream(1);
  request.tensor_parallel = 2;
  EXPECT_THAT(PlanFor(mixture, workers, request),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("--tensor-parallel")));
  request.tensor_parallel = 0;
  ASSERT_OK_AND_ASSIGN(const Plan plan, PlanFor(mixture, workers, request));
  for (const StagePlan& stage : plan.stages) EXPECT_EQ(stage.members.size(), 1u);
}

TEST(ExpertsPlanTest, ALineSaysWhatATokenReads) {
  const TestModel mixture = MakeMixture(4 * kMiB, 32 * kMiB);
  const std::string line = ExplainExperts(mixture.model, mixture.footprint);
  EXPECT_THAT(line, HasSubstr("8 in each layer, a token uses 2"));
  EXPECT_THAT(line, HasSubstr("72.0 MiB of the layers' 216.0 MiB"));
  const TestModel dense = MakeTestModel({kMiB}, 100);
  EXPECT_EQ(ExplainExperts(dense.model, dense.footprint), "");
}

}  // namespace
}  // namespace renga::partition
