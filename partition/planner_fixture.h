// Requests, workers and what must hold for every plan, for tests of the planner.
#ifndef RENGA_PARTITION_PLANNER_FIXTURE_H_
#define RENGA_PARTITION_PLANNER_FIXTURE_H_

#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "partition/planner.h"
#include "partition/test_models.h"

namespace renga::partition {

inline constexpr int64_t kMiB = int64_t{1} << 20;

inline WorkerProfile Worker(std::string id, int64_t mib, double gb_per_second) {
  return {.id = std::move(id), .memory_bytes = mib * kMiB, .bytes_per_second = gb_per_second * 1e9};
}

inline PlanRequest Request() {
  PlanRequest request;
  request.context_tokens = 256;
  request.max_step_tokens = 64;
  return request;
}

inline absl::StatusOr<Plan> PlanFor(const TestModel& model,
                                    const std::vector<WorkerProfile>& workers,
                                    const PlanRequest& request) {
  return MakePlan(model.model, model.footprint, workers, request);
}

// What must hold for every plan.
inline void ExpectSound(const Plan& plan, const TestModel& model,
                        const std::vector<WorkerProfile>& workers, const PlanRequest& request) {
  int64_t next_layer = 0;
  std::set<int> used;
  for (const StagePlan& stage : plan.stages) {
    ASSERT_EQ(stage.layers.begin, next_layer);
    ASSERT_FALSE(stage.layers.empty());
    next_layer = stage.layers.end;
    ASSERT_FALSE(stage.members.empty());
    for (const StageMember& member : stage.members) {
      ASSERT_TRUE(used.insert(member.worker).second);
      ASSERT_EQ(plan.workers[member.worker].spec.layers, stage.layers);
    }
  }
  ASSERT_EQ(next_layer, model.model.config.n_layers);
  int64_t next_row = 0;
  std::set<int> heads;
  for (const HeadPlan& head : plan.heads) {
    ASSERT_EQ(head.rows.begin, next_row);
    ASSERT_FALSE(head.rows.empty());
    next_row = head.rows.end;
    ASSERT_TRUE(heads.insert(head.worker).second);
    ASSERT_EQ(plan.workers[head.worker].spec.head_rows, head.rows);
  }
  ASSERT_EQ(next_row, model.model.config.vocab_size);
  if (request.head_blocks > 0) {
    ASSERT_LE(static_cast<int64_t>(plan.heads.size()), request.head_blocks);
  }
  used.insert(heads.begin(), heads.end());
  if (request.max_workers > 0) {
    ASSERT_LE(static_cast<int64_t>(used.size()), request.max_workers);
  }
  ASSERT_EQ(plan.workers.size(), workers.size());
  for (size_t i = 0; i < workers.size(); ++i) {
    const WorkerPlan& worker = plan.workers[i];
    ASSERT_EQ(worker.idle(), !used.contains(static_cast<int>(i)));
    ASSERT_EQ(worker.idle(), !worker.idle_reason.empty());
    if (worker.idle()) continue;
    const model::ShardBytes bytes =
        model::MeasureShard(model.model, model.footprint, worker.spec, plan.limits);
    ASSERT_EQ(worker.bytes.total(), bytes.total());
    ASSERT_LE(bytes.total(), workers[i].memory_bytes);
    ASSERT_LE(worker.predicted_ms, plan.slowest_ms * (1 + 1e-9));
  }
}

inline PlanRequest OneStream(double latency_us) {
  PlanRequest request = Request();
  request.objective = Objective::kOneStream;
  request.links.default_link = {.latency_us = latency_us, .bytes_per_second = 1e9};
  return request;
}

}  // namespace renga::partition

#endif  // RENGA_PARTITION_PLANNER_FIXTURE_H_
