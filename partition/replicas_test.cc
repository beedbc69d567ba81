#include "partition/replicas.h"

#include <algorithm>
#include <set>
#include <string>

#include "base/testing/status_matchers.h"
#include "partition/explain.h"
#include "partition/planner.h"
#include "partition/random_cluster.h"
#include "partition/replica_search.h"
#include "partition/test_models.h"
#include "partition/what_if.h"

namespace renga::partition {
namespace {

using ::renga::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kMebi = int64_t{1} << 20;

WorkerProfile Offer(std::string id, int64_t mib, double gb_per_second) {
  return {
      .id = std::move(id), .memory_bytes = mib * kMebi, .bytes_per_second = gb_per_second * 1e9};
}

PlanRequest ReplicaRequest(int64_t min_replicas, int64_t max_replicas) {
  PlanRequest request;
  request.context_tokens = 256;
  request.max_step_tokens = 32;
  request.max_sequences = 4;
  request.worth_dropping = 1;
  request.for_prompts = 0;
  request.min_replicas = min_replicas;
  request.max_replicas = max_replicas;
  return request;
}

// Every layer and every row of the output matrix once in each replica, and no worker in two.
void ExpectSound(const Replicas& replicas, const model::Model& model) {
  std::set<int> used;
  double sum = 0;
  for (const Plan& plan : replicas.plans) {
    sum += 1e3 / plan.slowest_ms;
    int64_t next_layer = 0;
    for (const StagePlan& stage : plan.stages) {
      EXPECT_EQ(stage.layers.begin, next_layer);
      next_layer = stage.layers.end;
    }
    EXPECT_EQ(next_layer, model.config.n_layers);
    int64_t rows = 0;
    for (const HeadPlan& head : plan.heads) rows += head.rows.size();
    EXPECT_EQ(rows, model.config.vocab_size);
    for (size_t i = 0; i < plan.workers.size(); ++i) {
      if (plan.workers[i].idle()) {
        EXPECT_FALSE(plan.workers[i].idle_reason.empty());
      } else {
        EXPECT_TRUE(used.insert(static_cast<int>(i)).second) << "worker " << i << " is in two";
      }
    }
  }
  EXPECT_NEAR(sum, replicas.steps_per_second, 1e-9 * sum);
  EXPECT_LE(replicas.steps_per_second, replicas.bound_steps_per_second * (1 + 1e-9));
}

// The best of all ways to give each worker to one of `replicas`, or to none: 0 when none fits.
double TryEverything(const Instance& instance, const PlanRequest& request, int64_t replicas) {
  const auto count = static_cast<int>(instance.workers.size());
  const PlanRequest share = ShareOfRequest(request, replicas);
  std::vector<double> rate_of(size_t{1} << count);
  for (size_t set = 1; set < rate_of.size(); ++set) {
    std::vector<WorkerProfile> others_offer_nothing = instance.workers;
    for (int i = 0; i < count; ++i) {
      if ((set >> i & 1) == 0) others_offer_nothing[i].memory_bytes = 0;
    }
    const auto plan =
        MakePlan(instance.model.model, instance.model.footprint, others_offer_nothing, share);
    if (plan.ok()) rate_of[set] = 1e3 / plan->slowest_ms;
  }
  double best = 0;
  std::vector<int64_t> place(count);  // of each worker; `replicas`: none
  while (true) {
    std::vector<size_t> sets(replicas);
    for (int i = 0; i < count; ++i) {
      if (place[i] < replicas) sets[place[i]] |= size_t{1} << i;
    }
    double sum = 0;
    bool fits = true;
    for (const size_t set : sets) {
      fits = fits && rate_of[set] > 0;
      sum += rate_of[set];
    }
    if (fits) best = std::max(best, sum);
    int digit = 0;
    while (digit < count && ++place[digit] > replicas) place[digit++] = 0;
    if (digit == count) return best;
  }
}

TEST(ReplicasTest, EqualTryingEverythingOnRandomClusters) {
  int divided = 0;
  int found_nearby = 0;
  int refused = 0;
  for (uint32_t seed = 0; seed < 60; ++seed) {
    const class RandomCluster random(seed, {.max_workers = 5, .max_layers = 5});
    const Instance& instance = random.instance();
    for (const auto& [least, most] : {std::pair<int64_t, int64_t>{2, 2}, {1, 3}, {3, 3}}) {
      PlanRequest request = instance.request;
      request.objective = Objective::kManyStreams;
      request.max_sequences = 4;
      request.min_replicas = least;
      request.max_replicas = most;
      double best = 0;
      for (int64_t replicas = least; replicas <= most; ++replicas) {
        best = std::max(best, TryEverything(instance, request, replicas));
      }
      const auto made =
          PlanReplicas(instance.model.model, instance.model.footprint, instance.workers, request);
      ASSERT_EQ(made.ok(), best > 0) << "seed " << seed << ": " << made.status();
      SetPlanner sets(instance.model.model, instance.model.footprint, instance.workers, request);
      EXPECT_LE(best, sets.Bound() * (1 + 1e-9)) << "seed " << seed;
      if (const auto nearby = DivideNearby(sets, most)) {
        EXPECT_LE(nearby->worth.steps_per_second, best * (1 + 1e-9)) << "seed " << seed;
        ++found_nearby;
      }
      if (!made.ok()) {
        EXPECT_EQ(made.status().code(), absl::StatusCode::kResourceExhausted);
        ++refused;
        continue;
      }
      EXPECT_TRUE(made->exact);
      EXPECT_NEAR(made->steps_per_second, best, 1e-6 * best) << "seed " << seed;
      ExpectSound(*made, instance.model.model);
      divided += made->plans.size() > 1 ? 1 : 0;
    }
  }
  EXPECT_GT(divided, 20);
  EXPECT_GT(found_nearby, 20);
  EXPECT_GT(refused, 20);
}

// Six workers, of which two hold the model.
TEST(ReplicasTest, LeftOverMemoryHoldsTheModelAgain) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(8, 10 * kMebi), 2000);
  std::vector<WorkerProfile> workers;
  for (int i = 0; i < 6; ++i) workers.push_back(Offer("w" + std::to_string(i), 60, 1));
  PlanRequest request = ReplicaRequest(1, kMaxReplicas);
  // What goes from worker to worker takes time, so that long pipelines have a busy link.
  request.links.default_link = {.latency_us = 100, .bytes_per_second = 50'000};
  ASSERT_OK_AND_ASSIGN(const Replicas made,
                       PlanReplicas(model.model, model.footprint, workers, request));
  EXPECT_EQ(made.plans.size(), 3u);
  ExpectSound(made, model.model);
  for (const Plan& plan : made.plans) EXPECT_EQ(plan.stages.size(), 2u);
  EXPECT_THAT(ExplainReplicas(made, workers),
              AllOf(HasSubstr("replicas 1 to 3, each:"), HasSubstr("all 3 replicas: ")));
}

TEST(ReplicasTest, WhatIsTheSameOfNeighboursIsSaidOnce) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(4, 10 * kMebi), 2000);
  const std::vector<WorkerProfile> workers = {Offer("fast", 100, 8), Offer("a", 100, 1),
                                              Offer("b", 100, 1)};
  ASSERT_OK_AND_ASSIGN(const Replicas made,
                       PlanReplicas(model.model, model.footprint, workers, ReplicaRequest(3, 3)));
  const std::string text = ExplainReplicas(made, workers);
  EXPECT_THAT(text, AllOf(HasSubstr("replica 1:"), HasSubstr("replicas 2 to 3, each:")));
  const auto count = [&](const std::string& what) {
    size_t times = 0;
    for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) {
      ++times;
    }
    return times;
  };
  EXPECT_EQ(count("one stream: "), 2u);
}

TEST(ReplicasTest, NoMoreReplicasThanSequences) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(4, kMebi), 2000);
  const std::vector<WorkerProfile> workers(5, Offer("w", 100, 1));
  PlanRequest request = ReplicaRequest(1, kMaxReplicas);
  request.max_sequences = 2;
  ASSERT_OK_AND_ASSIGN(const Replicas made,
                       PlanReplicas(model.model, model.footprint, workers, request));
  EXPECT_LE(made.plans.size(), 2u);
}

TEST(ReplicasTest, ReplicasShareTheSequences) {
  PlanRequest request = ReplicaRequest(3, 3);
  request.max_sequences = 7;
  request.max_step_outputs = 7 + 7;  // seven for guesses
  const PlanRequest share = ShareOfRequest(request, 3);
  EXPECT_EQ(share.max_sequences, 3);
  EXPECT_EQ(share.max_step_outputs, 3 + 7);
  EXPECT_EQ(share.max_replicas, 1);
}

TEST(ReplicasTest, TheRefusalSaysHowManyFit) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(8, 10 * kMebi), 2000);
  const std::vector<WorkerProfile> workers = {Offer("a", 60, 1), Offer("b", 60, 1),
                                              Offer("c", 60, 1), Offer("d", 60, 1)};
  EXPECT_THAT(PlanReplicas(model.model, model.footprint, workers, ReplicaRequest(3, 3)),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("3 replicas do not fit"), HasSubstr("say --replicas 2"))));
  // Where not even one fits, that is what is said.
  EXPECT_THAT(PlanReplicas(model.model, model.footprint, {Offer("a", 60, 1)}, ReplicaRequest(2, 2)),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("the model does not fit")));
}

TEST(ReplicasTest, OneStreamHasNoUseForThem) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(4, kMebi), 2000);
  PlanRequest request = ReplicaRequest(2, 2);
  request.objective = Objective::kOneStream;
  EXPECT_THAT(PlanReplicas(model.model, model.footprint, {Offer("a", 60, 1)}, request),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("many streams")));
}

TEST(ReplicasTest, ChangesAreThoseOfAllReplicas) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(4, 10 * kMebi), 100);
  // Each holds the model once.
  const std::vector<WorkerProfile> workers = {Offer("a", 100, 10), Offer("b", 100, 10),
                                              Offer("c", 100, 5)};
  const PlanRequest request = ReplicaRequest(1, 4);
  ASSERT_OK_AND_ASSIGN(const Replicas now,
                       PlanReplicas(model.model, model.footprint, workers, request));
  ASSERT_EQ(now.plans.size(), 3u);
  ASSERT_OK_AND_ASSIGN(const std::vector<Change> changes,
                       ExploreChanges(model.model, model.footprint, workers, request, now));
  ASSERT_EQ(changes.size(), 4u);
  const auto expect = [&](const Change& change, const std::string& name,
                          const std::vector<WorkerProfile>& others) {
    EXPECT_EQ(change.name, name);
    ASSERT_OK_AND_ASSIGN(const Replicas then,
                         PlanReplicas(model.model, model.footprint, others, request));
    EXPECT_EQ(change.replicas, then.plans.size());
    EXPECT_NEAR(change.ms, 1e3 / then.steps_per_second, 1e-9);
  };
  expect(changes[0], "without 'b'", {workers[0], workers[2]});
  expect(changes[1], "one more like 'a'", {workers[0], workers[1], workers[2], workers[0]});
  expect(changes[2], "without 'c'", {workers[0], workers[1]});
  expect(changes[3], "one more like 'c'", {workers[0], workers[1], workers[2], workers[2]});
  EXPECT_LT(changes[1].ms, TimeToCompare(now, request.objective));
  EXPECT_THAT(ExplainChanges(now, request.objective, changes),
              AllOf(HasSubstr("of all replicas, now"), HasSubstr("3 replica(s)"),
                    HasSubstr("2 replica(s)"), HasSubstr("4 replica(s)")));
}

TEST(ReplicasTest, MemoryBesideCardsIsForWhatFitsNowhereElse) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(4, kMebi), 2000);
  std::vector<WorkerProfile> workers = {Offer("card", 100, 10), Offer("host", 100, 1),
                                        Offer("other", 100, 10)};
  workers[1].spare = true;
  ASSERT_OK_AND_ASSIGN(const Replicas made,
                       PlanReplicas(model.model, model.footprint, workers, ReplicaRequest(1, 3)));
  for (const Plan& plan : made.plans) EXPECT_TRUE(plan.workers[1].idle());
  EXPECT_OK(PlanReplicas(model.model, model.footprint, workers, ReplicaRequest(3, 3)));
}

// Speeds are measured anew at each start: weights should stay where they are.
TEST(ReplicasTest, TheLastDivisionStays) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(8, 10 * kMebi), 2000);
  std::vector<WorkerProfile> workers = {Offer("a", 60, 1), Offer("b", 60, 1.1), Offer("c", 60, 1.2),
                                        Offer("d", 60, 1.3)};
  PlanRequest request = ReplicaRequest(2, 2);
  ASSERT_OK_AND_ASSIGN(const Replicas first,
                       PlanReplicas(model.model, model.footprint, workers, request));
  for (size_t replica = 0; replica < first.plans.size(); ++replica) {
    for (size_t i = 0; i < workers.size(); ++i) {
      const WorkerPlan& worker = first.plans[replica].workers[i];
      if (worker.idle()) continue;
      request.previous.push_back({.worker_id = workers[i].id,
                                  .spec = worker.spec,
                                  .replica = static_cast<int64_t>(replica)});
    }
  }
  std::swap(workers[0].bytes_per_second, workers[1].bytes_per_second);
  std::swap(workers[2].bytes_per_second, workers[0].bytes_per_second);
  ASSERT_OK_AND_ASSIGN(const Replicas second,
                       PlanReplicas(model.model, model.footprint, workers, request));
  for (size_t i = 0; i < workers.size(); ++i) {
    const auto spec = [i](const Replicas& made) {
      return made.plans[0].workers[i].idle() ? made.plans[1].workers[i].spec
                                             : made.plans[0].workers[i].spec;
    };
    EXPECT_EQ(spec(second).layers, spec(first).layers) << workers[i].id;
  }
}

// Far too many divisions to look at all of them.
TEST(ReplicasTest, ManyDifferentWorkersAreDividedNearTheBound) {
  const TestModel model = MakeTestModel(std::vector<int64_t>(32, 4 * kMebi), 2000);
  std::vector<WorkerProfile> workers;
  for (int i = 0; i < 14; ++i) {
    workers.push_back(Offer("w" + std::to_string(i), 40 + 7 * (i % 5), 1 + 0.13 * i));
  }
  ASSERT_OK_AND_ASSIGN(const Replicas made,
                       PlanReplicas(model.model, model.footprint, workers, ReplicaRequest(4, 4)));
  EXPECT_EQ(made.plans.size(), 4u);
  EXPECT_FALSE(made.exact);
  ExpectSound(made, model.model);
  EXPECT_GT(made.steps_per_second, 0.8 * made.bound_steps_per_second);
  EXPECT_THAT(ExplainReplicas(made, workers), HasSubstr("none can give more than"));
}

}  // namespace
}  // namespace renga::partition
