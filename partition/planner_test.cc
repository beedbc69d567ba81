#include "partition/planner.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "partition/explain.h"
#include "partition/planner_fixture.h"

namespace renga::partition {
namespace {

using ::renga::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(PlannerTest, DividesLayersBySpeed) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(12, 10 * kMiB), 1000);
  const std::vector<WorkerProfile> workers = {Worker("a", 500, 10), Worker("b", 500, 20)};
  ASSERT_OK_AND_ASSIGN(const Plan plan, PlanFor(model, workers, Request()));
  ExpectSound(plan, model, workers, Request());
  ASSERT_EQ(plan.stages.size(), 2u);
  EXPECT_EQ(plan.workers[0].spec.layers.size(), 4);
  EXPECT_EQ(plan.workers[1].spec.layers.size(), 8);
  // One head block, on the last stage.
  ASSERT_EQ(plan.heads.size(), 1u);
  EXPECT_EQ(plan.heads[0].worker, plan.stages[1].members[0].worker);
}

TEST(PlannerTest, ShiftsLayersToWhereThereIsMemory) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(12, 10 * kMiB), 1000);
  const std::vector<WorkerProfile> workers = {Worker("big", 500, 10), Worker("small", 40, 20)};
  ASSERT_OK_AND_ASSIGN(const Plan plan, PlanFor(model, workers, Request()));
  ExpectSound(plan, model, workers, Request());
  EXPECT_GE(plan.workers[0].spec.layers.size(), 9);
}

TEST(PlannerTest, LimitsFollowFromTheRequest) {
  PlanRequest request = Request();
  request.context_tokens = 65;
  request.max_sequences = 3;
  const model::RuntimeLimits limits = LimitsOf(request);
  EXPECT_EQ(limits.kv_blocks, 9);
  EXPECT_EQ(limits.max_step_tokens, 64);
  EXPECT_EQ(limits.max_step_outputs, 3);
  request.max_step_outputs = 64;
  EXPECT_EQ(LimitsOf(request).max_step_outputs, 64);
}

TEST(PlannerTest, MoreWorkersThanLayersLeavesTheRestIdle) {
  const TestModel model = MakeTestModel({kMiB, kMiB}, 100);
  const std::vector<WorkerProfile> workers = {Worker("a", 100, 1), Worker("b", 100, 1),
                                              Worker("c", 100, 1), Worker("d", 100, 1)};
  ASSERT_OK_AND_ASSIGN(const Plan plan, PlanFor(model, workers, Request()));
  ExpectSound(plan, model, workers, Request());
  EXPECT_EQ(plan.stages.size(), 2u);
  const std::string text = ExplainPlan(plan, workers);
  EXPECT_THAT(text, AllOf(HasSubstr("c  idle: the model has only 2 layers"),
                          HasSubstr("d  idle: the model has only 2 layers")));
}

TEST(PlannerTest, SmallWorkersAreIdleAndToldWhy) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(4, 50 * kMiB), 100);
  const std::vector<WorkerProfile> workers = {Worker("tiny", 20, 5), Worker("a", 300, 5)};
  ASSERT_OK_AND_ASSIGN(const Plan plan, PlanFor(model, workers, Request()));
  ExpectSound(plan, model, workers, Request());
  EXPECT_THAT(plan.workers[0].idle_reason, AllOf(HasSubstr("one layer"), HasSubstr("20.0 MiB")));
}

TEST(PlannerTest, MuchTooSlowWorkersAreIdleUnlessWanted) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(8, 10 * kMiB), 100);
  const std::vector<WorkerProfile> workers = {Worker("fast", 300, 10), Worker("slow", 300, 0.1),
                                              Worker("fast2", 300, 10)};
  ASSERT_OK_AND_ASSIGN(const Plan plan, PlanFor(model, workers, Request()));
  ExpectSound(plan, model, workers, Request());
  EXPECT_THAT(plan.workers[1].idle_reason, HasSubstr("too slow"));
  PlanRequest request = Request();
  request.use_every_worker = true;
  ASSERT_OK_AND_ASSIGN(const Plan all, PlanFor(model, workers, request));
  ExpectSound(all, model, workers, request);
  EXPECT_EQ(all.stages.size(), 3u);
}

// Memory beside cards is slow: it is for what fits nowhere else, however the plan is asked for.
TEST(PlannerTest, SpareMemoryIsForWhatFitsNowhereElse) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(8, 10 * kMiB), 100);
  for (const Objective objective : {Objective::kOneStream, Objective::kManyStreams}) {
    for (const bool every_worker : {false, true}) {
      PlanRequest request = Request();
      request.objective = objective;
      request.use_every_worker = every_worker;
      std::vector<WorkerProfile> workers = {Worker("card", 300, 10), Worker("host", 300, 9)};
      workers[1].spare = true;
      ASSERT_OK_AND_ASSIGN(const Plan fits, PlanFor(model, workers, request));
      ExpectSound(fits, model, workers, request);
      EXPECT_TRUE(fits.workers[1].idle());
      EXPECT_THAT(fits.workers[1].idle_reason, HasSubstr("fits without it"));

      workers[0].memory_bytes = 60 * kMiB;
      ASSERT_OK_AND_ASSIGN(const Plan spills, PlanFor(model, workers, request));
      ExpectSound(spills, model, workers, request);
      EXPECT_FALSE(spills.workers[0].idle());
      EXPECT_GT(spills.workers[1].bytes.total(), 20 * kMiB);

      workers[1].memory_bytes = 10 * kMiB;
      EXPECT_THAT(PlanFor(model, workers, request), StatusIs(absl::StatusCode::kResourceExhausted));
      // Nothing else is there.
      workers = {Worker("host", 300, 9)};
      workers[0].spare = true;
      ASSERT_OK_AND_ASSIGN(const Plan alone, PlanFor(model, workers, request));
      ExpectSound(alone, model, workers, request);
    }
  }
}

// Speeds of equal machines, measured while they disturb each other, differ by a factor of two.
TEST(PlannerTest, NoisyMeasurementsDropNobody) {
  std::mt19937 random(3);
  for (int round = 0; round < 60; ++round) {
    const TestModel model = MakeTestModel(std::vector<int64_t>(4 + random() % 30, 10 * kMiB), 100);
    std::vector<WorkerProfile> workers;
    for (int i = 0; i < 4; ++i) {
      workers.push_back(Worker(absl::StrCat(i), 1000, 10.0 + static_cast<double>(random() % 10)));
    }
    ASSERT_OK_AND_ASSIGN(const Plan plan, PlanFor(model, workers, Request()));
    EXPECT_EQ(plan.stages.size(), 4u) << round;
  }
}

TEST(PlannerTest, OneStreamLeavesOutWhoOnlyAddsAHop) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(8, 10 * kMiB), 100);
  std::vector<WorkerProfile> workers = {Worker("slow", 300, 9), Worker("fast", 300, 10)};
  ASSERT_OK_AND_ASSIGN(const Plan alone, PlanFor(model, workers, OneStream(500)));
  ExpectSound(alone, model, workers, OneStream(500));
  EXPECT_EQ(alone.stages.size(), 1u);
  EXPECT_THAT(alone.workers[0].idle_reason, HasSubstr("only add a hop"));
  EXPECT_TRUE(alone.exact);
  EXPECT_NEAR(alone.stream_ms, alone.bound_ms, 1e-6);
  // Without room for all layers on the fast one, it is needed.
  workers[1].memory_bytes = 60 * kMiB;
  ASSERT_OK_AND_ASSIGN(const Plan both, PlanFor(model, workers, OneStream(500)));
  ExpectSound(both, model, workers, OneStream(500));
  EXPECT_EQ(both.stages.size(), 2u);
  EXPECT_EQ(both.workers[1].spec.layers.size(), both.workers[0].spec.layers.size())
      << "both work on prompts, and a layer more on the fast one gains little";
  PlanRequest tokens_only = OneStream(500);
  tokens_only.for_prompts = 0;
  ASSERT_OK_AND_ASSIGN(const Plan filled, PlanFor(model, workers, tokens_only));
  EXPECT_GT(filled.workers[1].spec.layers.size(), filled.workers[0].spec.layers.size());
  EXPECT_LT(filled.stream_ms, both.stream_ms);
  EXPECT_NEAR(both.given_up_ms, both.stream_ms - filled.stream_ms, 1e-9);
  EXPECT_GT(both.prompts_gain, 0.1) << "from five layers of eight to four";
  EXPECT_THAT(ExplainPlan(both, workers), HasSubstr("are given up so that prompts take"));
  EXPECT_EQ(filled.given_up_ms, 0);
  EXPECT_THAT(ExplainPlan(filled, workers), Not(HasSubstr("given up")));
}

TEST(PlannerTest, GroupsWhereTheNetworkIsFastEnough) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(8, 10 * kMiB), 100, true);
  const std::vector<WorkerProfile> workers = {Worker("a", 300, 10), Worker("b", 300, 10)};
  PlanRequest fast = OneStream(10);
  fast.tensor_parallel = 0;
  ASSERT_OK_AND_ASSIGN(const Plan group, PlanFor(model, workers, fast));
  ExpectSound(group, model, workers, fast);
  ASSERT_EQ(group.stages.size(), 1u);
  EXPECT_EQ(group.stages[0].members.size(), 2u);
  EXPECT_THAT(ExplainPlan(group, workers), AllOf(HasSubstr("ff columns"), HasSubstr("0-255")));
  PlanRequest slow = OneStream(5000);
  slow.tensor_parallel = 0;
  ASSERT_OK_AND_ASSIGN(const Plan alone, PlanFor(model, workers, slow));
  EXPECT_EQ(alone.stages[0].members.size(), 1u);
  // Groups that nobody asked for are not made, and a group is kept as it was.
  ASSERT_OK_AND_ASSIGN(const Plan off, PlanFor(model, workers, OneStream(10)));
  EXPECT_EQ(off.stages[0].members.size(), 1u);
  fast.previous = {{"b", group.workers[0].spec}, {"a", group.workers[1].spec}};
  ASSERT_OK_AND_ASSIGN(const Plan kept, PlanFor(model, workers, fast));
  ExpectSound(kept, model, workers, fast);
  EXPECT_EQ(kept.workers[1].spec, group.workers[0].spec);
  fast.tensor_parallel = 3;
  fast.previous.clear();
  EXPECT_THAT(PlanFor(model, workers, fast),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("a group of 3 needs 3 workers, and there are 2")));
}

TEST(PlannerTest, TheEmbeddingGoesWhereItIsAskedForOrPays) {
  const TestModel model = MakeTestModel({kMiB, kMiB, kMiB, kMiB}, 2000);
  const std::vector<WorkerProfile> workers = {Worker("a", 16, 10), Worker("b", 16, 10)};
  PlanRequest request = Request();
  request.max_workers = 2;
  request.use_every_worker = true;
  ASSERT_OK_AND_ASSIGN(const Plan plain, PlanFor(model, workers, request));
  EXPECT_EQ(plain.embedding_worker, kCoordinator);

  for (const int64_t stage : {1, 2}) {
    request.embedding_stage = stage;
    ASSERT_OK_AND_ASSIGN(const Plan plan, PlanFor(model, workers, request));
    ExpectSound(plan, model, workers, request);
    const int holder = plan.stages[stage - 1].members[0].worker;
    EXPECT_EQ(plan.embedding_worker, holder);
    EXPECT_TRUE(plan.workers[holder].spec.embedding);
    EXPECT_FALSE(plan.workers[1 - holder].spec.embedding);
    EXPECT_EQ(plan.workers[holder].bytes.weights,
              plain.workers[holder].bytes.weights + model.footprint.embedding_bytes);
  }
  // A stage or room that is not there: the coordinator keeps it and says so.
  request.embedding_stage = 3;
  ASSERT_OK_AND_ASSIGN(const Plan no_stage, PlanFor(model, workers, request));
  EXPECT_EQ(no_stage.embedding_worker, kCoordinator);
  EXPECT_THAT(no_stage.notes, ::testing::ElementsAre(HasSubstr("the plan has 2")));
  std::vector<WorkerProfile> small = workers;
  for (WorkerProfile& worker : small) {
    worker.memory_bytes = std::max(plain.workers[0].bytes.total(), plain.workers[1].bytes.total());
  }
  request.embedding_stage = 1;
  ASSERT_OK_AND_ASSIGN(const Plan no_room, PlanFor(model, small, request));
  EXPECT_EQ(no_room.embedding_worker, kCoordinator);
  EXPECT_THAT(no_room.notes, ::testing::ElementsAre(HasSubstr("no room")));

  // By itself only where rows take long to send.
  request.embedding_stage = kWhereItPays;
  ASSERT_OK_AND_ASSIGN(const Plan fast, PlanFor(model, workers, request));
  EXPECT_EQ(fast.embedding_worker, kCoordinator);
  request.links.default_link = {.latency_us = 100, .bytes_per_second = 1e5};
  ASSERT_OK_AND_ASSIGN(const Plan slow, PlanFor(model, workers, request));
  EXPECT_EQ(slow.embedding_worker, slow.stages[0].members[0].worker);
  // A token's four bytes instead of a row's 1024.
  EXPECT_NEAR(slow.times.stages[0].hop, 0.1 + 4 / 1e5 * 1e3, 1e-9);
  request.embedding_stage = 0;
  ASSERT_OK_AND_ASSIGN(const Plan rows, PlanFor(model, workers, request));
  EXPECT_NEAR(rows.stream_ms - slow.stream_ms, 1020 / 1e5 * 1e3, 1e-9);
  EXPECT_LE(slow.bound_ms, slow.slowest_ms);
}

TEST(PlannerTest, OneStreamSpreadsALargeHead) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(4, 50 * kMiB), 100 * 1024);
  const std::vector<WorkerProfile> workers = {Worker("a", 250, 10), Worker("b", 250, 10)};
  ASSERT_OK_AND_ASSIGN(const Plan plan, PlanFor(model, workers, OneStream(100)));
  ExpectSound(plan, model, workers, OneStream(100));
  EXPECT_EQ(plan.heads.size(), 2u);
}

TEST(PlannerTest, ChangesAreThePlansOfOtherClusters) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(8, 10 * kMiB), 100);
  const std::vector<WorkerProfile> workers = {Worker("a", 60, 10), Worker("b", 60, 20)};
  const PlanRequest request = OneStream(500);
  ASSERT_OK_AND_ASSIGN(const Plan plan, PlanFor(model, workers, request));
  const Replicas now{.plans = {plan}, .steps_per_second = 1e3 / plan.slowest_ms};
  ASSERT_OK_AND_ASSIGN(const std::vector<Change> changes,
                       ExploreChanges(model.model, model.footprint, workers, request, now));
  ASSERT_EQ(changes.size(), 6u);
  EXPECT_EQ(changes[0].name, "without 'a'");
  EXPECT_FALSE(changes[0].fits);
  EXPECT_EQ(changes[3].name, "one more like 'b'");
  ASSERT_OK_AND_ASSIGN(const Plan more,
                       PlanFor(model, {workers[0], workers[1], Worker("c", 60, 20)}, request));
  EXPECT_NEAR(changes[3].ms, more.stream_ms, 1e-9);
  EXPECT_LT(changes[4].ms, plan.stream_ms);
  EXPECT_THAT(ExplainChanges(now, request.objective, changes),
              AllOf(HasSubstr("does not fit"), HasSubstr("links twice as fast"),
                    Not(HasSubstr("replica"))));
}

TEST(PlannerTest, FormatsHaveTheirOwnSpeed) {
  TestModel model = MakeTestModel(std::vector<int64_t>(8, 10 * kMiB), 100);
  model.footprint.layer_bytes_of = {{base::DataType::kQ4_K, 60 * kMiB},
                                    {base::DataType::kQ6_K, 20 * kMiB}};
  std::vector<WorkerProfile> workers = {Worker("a", 300, 10)};
  ASSERT_OK_AND_ASSIGN(const Plan same, PlanFor(model, workers, Request()));
  workers[0].bytes_per_second_of = {{base::DataType::kQ6_K, 5e9}};
  ASSERT_OK_AND_ASSIGN(const Plan slower, PlanFor(model, workers, Request()));
  EXPECT_NEAR(slower.times.stages[0].compute, 1.25 * same.times.stages[0].compute, 1e-9);
}

TEST(PlannerTest, WorkerLimitKeepsTheStrongest) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(8, 10 * kMiB), 100);
  const std::vector<WorkerProfile> workers = {Worker("a", 300, 1), Worker("b", 300, 9),
                                              Worker("c", 300, 8)};
  PlanRequest request = Request();
  request.max_workers = 2;
  ASSERT_OK_AND_ASSIGN(const Plan plan, PlanFor(model, workers, request));
  ExpectSound(plan, model, workers, request);
  EXPECT_THAT(plan.workers[0].idle_reason, HasSubstr("only 2 workers"));
}

std::vector<PreviousShard> ShardsOf(const Plan& plan, const std::vector<WorkerProfile>& workers) {
  std::vector<PreviousShard> shards;
  for (size_t i = 0; i < workers.size(); ++i) {
    shards.push_back({workers[i].id, plan.workers[i].spec});
  }
  return shards;
}

// A restart measures slightly different speeds and workers join in another order.
TEST(PlannerTest, TheLastPlanIsKeptWhileItIsNearlyAsGood) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(22, 10 * kMiB), 1000);
  const std::vector<WorkerProfile> workers = {Worker("a", 500, 10), Worker("b", 500, 10),
                                              Worker("c", 500, 10)};
  ASSERT_OK_AND_ASSIGN(const Plan first, PlanFor(model, workers, Request()));
  PlanRequest request = Request();
  request.previous = ShardsOf(first, workers);
  std::vector<WorkerProfile> later = {Worker("c", 500, 9), Worker("a", 500, 11.5),
                                      Worker("b", 500, 10)};
  ASSERT_OK_AND_ASSIGN(const Plan kept, PlanFor(model, later, request));
  ExpectSound(kept, model, later, request);
  EXPECT_EQ(kept.workers[0].spec, first.workers[2].spec);
  EXPECT_EQ(kept.workers[1].spec, first.workers[0].spec);
  EXPECT_EQ(kept.workers[2].spec, first.workers[1].spec);
  EXPECT_TRUE(kept.kept);
  EXPECT_FALSE(kept.exact);
  EXPECT_THAT(ExplainPlan(kept, later), AllOf(HasSubstr("kept as it was placed last"),
                                              Not(HasSubstr("not every plan was looked at"))));
  // It is the best one where nothing has changed.
  ASSERT_OK_AND_ASSIGN(const Plan same, PlanFor(model, workers, request));
  EXPECT_FALSE(same.kept);
  EXPECT_TRUE(same.exact);
  EXPECT_THAT(ExplainPlan(same, workers), Not(HasSubstr("no plan can take")));

  // Another worker, one less, too little memory, other head blocks, a worker grown slow: anew.
  const auto changes = [&](const std::vector<WorkerProfile>& now, const PlanRequest& asked) {
    auto plan = PlanFor(model, now, asked);
    ASSERT_OK(plan);
    ExpectSound(*plan, model, now, asked);
    bool changed = now.size() != workers.size();
    for (size_t i = 0; i < std::min(now.size(), workers.size()); ++i) {
      changed |= plan->workers[i].spec != first.workers[i].spec;
    }
    EXPECT_TRUE(changed);
  };
  std::vector<WorkerProfile> now = workers;
  now.push_back(Worker("d", 500, 10));
  changes(now, request);
  now.resize(2);
  changes(now, request);
  now = workers;
  now[1].memory_bytes = 50 * kMiB;
  changes(now, request);
  now = workers;
  now[0].bytes_per_second /= 2;
  changes(now, request);
  PlanRequest two_blocks = request;
  two_blocks.head_blocks = 2;
  changes(workers, two_blocks);
}

TEST(PlannerTest, ADamagedLastPlanIsIgnored) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(4, 10 * kMiB), 100);
  const std::vector<WorkerProfile> workers = {Worker("a", 500, 10), Worker("b", 500, 10)};
  ASSERT_OK_AND_ASSIGN(const Plan expected, PlanFor(model, workers, Request()));
  const std::vector<std::vector<PreviousShard>> damaged = {
      {{"a", {.layers = {0, 4}, .head_rows = {}}}},
      {{"a", {.layers = {0, 2}, .head_rows = {}}},
       {"b", {.layers = {3, 4}, .head_rows = {0, 100}}}},
      {{"a", {.layers = {0, 3}, .head_rows = {}}},
       {"b", {.layers = {2, 4}, .head_rows = {0, 100}}}},
      {{"a", {.layers = {0, 3}, .head_rows = {}}},
       {"b", {.layers = {3, 5}, .head_rows = {0, 100}}}},
      {{"a", {.layers = {-1, 3}, .head_rows = {}}},
       {"b", {.layers = {3, 4}, .head_rows = {0, 100}}}},
      {{"a", {.layers = {0, 3}, .head_rows = {}}}, {"b", {.layers = {3, 4}, .head_rows = {0, 99}}}},
      {{"a", {.layers = {0, 3}, .head_rows = {}}},
       {"x", {.layers = {3, 4}, .head_rows = {0, 100}}}},
      {{"a", {.layers = {0, 3}, .head_rows = {}}},
       {"a", {.layers = {3, 4}, .head_rows = {0, 100}}}},
  };
  for (const std::vector<PreviousShard>& previous : damaged) {
    PlanRequest request = Request();
    request.previous = previous;
    ASSERT_OK_AND_ASSIGN(const Plan plan, PlanFor(model, workers, request));
    EXPECT_EQ(ExplainPlan(plan, workers), ExplainPlan(expected, workers));
  }
}

TEST(PlannerTest, BadInputIsRefusedInWords) {
  const TestModel model = MakeTestModel({kMiB}, 100);
  const std::vector<WorkerProfile> good = {Worker("a", 100, 1)};
  EXPECT_THAT(PlanFor(model, {}, Request()), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(PlanFor(model, {Worker("zero", 100, 0)}, Request()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'zero'")));
  EXPECT_THAT(PlanFor(model, {Worker("nan", 100, NAN)}, Request()),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(PlanFor(model, {Worker("less", -1, 1)}, Request()),
              StatusIs(absl::StatusCode::kInvalidArgument));
  const auto refuses = [&](auto change) {
    PlanRequest request = Request();
    change(request);
    EXPECT_THAT(PlanFor(model, good, request), StatusIs(absl::StatusCode::kInvalidArgument));
  };
  refuses([](PlanRequest& r) { r.context_tokens = 0; });
  refuses([](PlanRequest& r) { r.context_tokens = INT64_MAX; });
  refuses([](PlanRequest& r) { r.max_sequences = 0; });
  refuses([](PlanRequest& r) { r.max_sequences = INT64_MAX; });
  refuses([](PlanRequest& r) { r.max_step_tokens = 0; });
  refuses([](PlanRequest& r) { r.max_step_outputs = r.max_step_tokens + 1; });
  refuses([](PlanRequest& r) { r.head_blocks = -1; });
  refuses([](PlanRequest& r) { r.max_workers = -1; });
  refuses([](PlanRequest& r) { r.kv_type = base::DataType::kQ4_0; });
  refuses([](PlanRequest& r) { r.wire_type = base::DataType::kQ4_0; });
  refuses([](PlanRequest& r) { r.tensor_parallel = -1; });
  refuses([](PlanRequest& r) { r.coordinator_us = NAN; });
  refuses([](PlanRequest& r) { r.worth_dropping = 0; });
  refuses([](PlanRequest& r) { r.for_prompts = -0.1; });
  refuses([](PlanRequest& r) { r.for_prompts = NAN; });
  refuses([](PlanRequest& r) { r.links.default_link.latency_us = -1; });
  refuses([](PlanRequest& r) { r.links.pairs = {{0, 1, {}}}; });
}

struct Cluster {
  TestModel model;
  std::vector<WorkerProfile> workers;
  PlanRequest request;
};

Cluster RandomCluster(uint32_t seed) {
  std::mt19937 random(seed);
  const auto pick = [&](int64_t n) { return static_cast<int64_t>(random() % n); };
  Cluster cluster;
  std::vector<int64_t> layers(1 + pick(pick(2) == 0 ? 4 : 40));
  const int64_t size = (1 + pick(30)) * kMiB;
  for (int64_t& bytes : layers) bytes = size + pick(3) * kMiB / 2;
  cluster.model = MakeTestModel(layers, 1 + pick(60000));
  int64_t whole = cluster.model.footprint.head_row_bytes * cluster.model.model.config.vocab_size;
  whole = std::accumulate(layers.begin(), layers.end(), whole);
  cluster.workers.resize(1 + pick(pick(2) == 0 ? 3 : 9));
  const int64_t count = static_cast<int64_t>(cluster.workers.size());
  for (int64_t i = 0; i < count; ++i) {
    cluster.workers[i] = {.id = absl::StrCat("w", i),
                          .memory_bytes = whole / count * (20 + pick(200)) / 100 + pick(40) * kMiB,
                          .bytes_per_second = 1e9 * static_cast<double>(1 + pick(20))};
  }
  cluster.request.context_tokens = 1 + pick(3000);
  cluster.request.max_sequences = 1 + pick(3);
  cluster.request.max_step_tokens = 1 + pick(256);
  cluster.request.head_blocks = pick(2) * pick(5);
  cluster.request.max_workers = pick(2) * pick(count + 1);
  cluster.request.use_every_worker = pick(2) == 0;
  return cluster;
}

TEST(PlannerTest, EveryPlanIsSoundAndTheSameTwice) {
  int planned = 0;
  int refused = 0;
  for (uint32_t seed = 1; seed <= 400; ++seed) {
    SCOPED_TRACE(seed);
    const Cluster cluster = RandomCluster(seed);
    const auto plan = PlanFor(cluster.model, cluster.workers, cluster.request);
    const auto again = PlanFor(cluster.model, cluster.workers, cluster.request);
    if (!plan.ok()) {
      ASSERT_THAT(plan, StatusIs(absl::StatusCode::kResourceExhausted));
      ASSERT_EQ(plan.status(), again.status());
      ++refused;
      continue;
    }
    ++planned;
    ASSERT_NO_FATAL_FAILURE(ExpectSound(*plan, cluster.model, cluster.workers, cluster.request));
    ASSERT_EQ(ExplainPlan(*plan, cluster.workers), ExplainPlan(*again, cluster.workers));
    // Who leaves makes room for another plan or a clear refusal, never for anything else.
    if (cluster.workers.size() > 1) {
      std::vector<WorkerProfile> fewer(cluster.workers.begin() + 1, cluster.workers.end());
      const auto without = PlanFor(cluster.model, fewer, cluster.request);
      if (without.ok()) {
        ASSERT_NO_FATAL_FAILURE(ExpectSound(*without, cluster.model, fewer, cluster.request));
      } else {
        ASSERT_THAT(without, StatusIs(absl::StatusCode::kResourceExhausted));
      }
    }
  }
  EXPECT_GT(planned, 100);
  EXPECT_GT(refused, 50);
}

// More memory never turns a plan into a refusal.
TEST(PlannerTest, MoreMemoryNeverHurts) {
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(seed);
    Cluster cluster = RandomCluster(seed);
    if (!PlanFor(cluster.model, cluster.workers, cluster.request).ok()) continue;
    for (WorkerProfile& worker : cluster.workers) worker.memory_bytes += 10 * kMiB;
    EXPECT_OK(PlanFor(cluster.model, cluster.workers, cluster.request));
  }
}

TEST(ExplainPlanTest, IsATable) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(12, 10 * kMiB), 1000);
  const std::vector<WorkerProfile> workers = {Worker("a", 500, 10), Worker("longer-name", 500, 20)};
  ASSERT_OK_AND_ASSIGN(const Plan plan, PlanFor(model, workers, Request()));
  const std::string text = ExplainPlan(plan, workers);
  std::printf("%s", text.c_str());
  EXPECT_THAT(text, AllOf(HasSubstr("layers"), HasSubstr("0-3"), HasSubstr("4-11"),
                          HasSubstr("0-999"), HasSubstr("500.0 MiB"), HasSubstr("256 positions")));
  // The columns line up.
  EXPECT_EQ(text.find('\n'), text.find('\n', text.find('\n') + 1) - text.find('\n') - 1);
}

}  // namespace
}  // namespace renga::partition
