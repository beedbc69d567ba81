#include "partition/embedding_place.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/byte_size.h"

namespace renga::partition {
namespace {

// Part of a token's time that has to be saved before a matrix is shipped for it.
constexpr double kWorthShipping = 0.01;

bool HasRoom(const CostModel& costs, const WorkerProfile& worker, const WorkerPlan& plan) {
  model::ShardSpec spec = plan.spec;
  spec.embedding = true;
  return costs.bytes().Fits(worker, spec);
}

void Give(const CostModel& costs, int worker, const PlanTimes& times, Plan& plan) {
  const double saved = plan.stream_ms - times.stream();
  WorkerPlan& holder = plan.workers[worker];
  holder.spec.embedding = true;
  holder.bytes = costs.bytes().Bytes(holder.spec);
  plan.embedding_worker = worker;
  plan.times = times;
  plan.stream_ms = times.stream();
  plan.slowest_ms = times.slowest;
  const double now =
      costs.request().objective == Objective::kOneStream ? plan.stream_ms : plan.slowest_ms;
  plan.bound_ms = std::min(plan.bound_ms - std::max(saved, 0.0), now);
}

}  // namespace

void PlaceEmbedding(const CostModel& costs, const std::vector<WorkerProfile>& workers, Plan& plan) {
  const int64_t asked = costs.request().embedding_stage;
  if (asked == 0) return;
  const auto stage_count = static_cast<int64_t>(plan.stages.size());
  if (asked > stage_count) {
    plan.notes.push_back(absl::StrCat("the embedding stays with the coordinator: stage ", asked,
                                      " was asked for, but the plan has ", stage_count));
    return;
  }
  const StagePlan& stage = plan.stages[asked == kWhereItPays ? 0 : asked - 1];
  const int worker = stage.members[0].worker;
  const bool has_room = HasRoom(costs, workers[worker], plan.workers[worker]);
  if (asked == kWhereItPays && (!has_room || stage.members.size() > 1)) return;
  if (!has_room) {
    plan.notes.push_back(absl::StrCat(
        "the embedding stays with the coordinator: ", workers[worker].id, " has no room for its ",
        base::FormatByteSize(costs.bytes().footprint().embedding_bytes)));
    return;
  }
  const PlanTimes times = costs.Price(plan.stages, plan.heads, 1, worker);
  if (asked == kWhereItPays && times.stream() > (1 - kWorthShipping) * plan.stream_ms) return;
  Give(costs, worker, times, plan);
}

}  // namespace renga::partition
