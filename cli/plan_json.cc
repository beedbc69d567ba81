#include "cli/plan_json.h"

#include <optional>
#include <utility>

namespace renga::cli {
namespace {

nlohmann::json RangeJson(const model::Range& range) {
  return nlohmann::json::array({range.begin, range.end});
}

// What lies on spare workers: weights that fit on no card.
int64_t SpilledBytes(const partition::Plan& plan,
                     const std::vector<partition::WorkerProfile>& workers) {
  int64_t bytes = 0;
  for (size_t i = 0; i < workers.size(); ++i) {
    if (workers[i].spare) bytes += plan.workers[i].bytes.weights;
  }
  return bytes;
}

nlohmann::json WorkerPlanJson(const partition::WorkerPlan& worker,
                              const partition::WorkerProfile& profile) {
  nlohmann::json json = {{"name", profile.id}, {"offered_bytes", profile.memory_bytes}};
  if (worker.idle()) {
    json["idle"] = worker.idle_reason;
    return json;
  }
  const model::ShardSpec& spec = worker.spec;
  if (!spec.layers.empty()) json["layers"] = RangeJson(spec.layers);
  if (spec.slice.has_value()) {
    json["heads"] = RangeJson(spec.slice->heads);
    json["ff_columns"] = RangeJson(spec.slice->ff);
  }
  if (!spec.head_rows.empty()) json["head_rows"] = RangeJson(spec.head_rows);
  if (spec.embedding) json["embedding"] = true;
  json["weight_bytes"] = worker.bytes.weights;
  json["kv_bytes"] = worker.bytes.kv;
  json["scratch_bytes"] = worker.bytes.scratch;
  json["streamed_bytes"] = worker.streamed_bytes;
  json["predicted_ms"] = worker.predicted_ms;
  return json;
}

nlohmann::json OnePlanJson(const partition::Plan& plan,
                           const std::vector<partition::WorkerProfile>& workers) {
  nlohmann::json json = {{"ms_per_token", plan.stream_ms},
                         {"slowest_ms", plan.slowest_ms},
                         {"bound_ms", plan.bound_ms},
                         {"exact", plan.exact},
                         {"head_ms", plan.times.head},
                         {"head_blocks", plan.heads.size()},
                         {"spilled_bytes", SpilledBytes(plan, workers)},
                         {"given_up_for_prompts_ms", plan.given_up_ms},
                         {"prompts_take_less_by", plan.prompts_gain},
                         {"notes", plan.notes}};
  json["stages"] = nlohmann::json::array();
  for (size_t i = 0; i < plan.stages.size(); ++i) {
    const partition::StageTimes& times = plan.times.stages[i];
    nlohmann::json names = nlohmann::json::array();
    for (const partition::StageMember& member : plan.stages[i].members) {
      names.push_back(workers[static_cast<size_t>(member.worker)].id);
    }
    json["stages"].push_back({{"workers", plan.stages[i].members.size()},
                              {"names", std::move(names)},
                              {"layers", plan.stages[i].layers.size()},
                              {"hop_ms", times.hop},
                              {"compute_ms", times.compute},
                              {"sums_ms", times.sums},
                              {"disk_ms", times.disk}});
  }
  json["workers"] = nlohmann::json::array();
  for (size_t i = 0; i < workers.size(); ++i) {
    json["workers"].push_back(WorkerPlanJson(plan.workers[i], workers[i]));
  }
  return json;
}

}  // namespace

nlohmann::json PlanJson(const partition::Replicas& replicas,
                        const std::vector<partition::WorkerProfile>& workers,
                        const std::vector<partition::SimulationResult>& simulated) {
  const bool one = replicas.plans.size() == 1;
  nlohmann::json json = one ? OnePlanJson(replicas.plans[0], workers) : nlohmann::json::object();
  json["replicas"] = replicas.plans.size();
  json["steps_per_second"] = replicas.steps_per_second;
  for (size_t i = 0; i < replicas.plans.size(); ++i) {
    nlohmann::json of_one = one ? nlohmann::json() : OnePlanJson(replicas.plans[i], workers);
    nlohmann::json& target = one ? json : of_one;
    if (i < simulated.size()) {
      target["simulated"] = {{"first_token_ms", simulated[i].first_token_ms},
                             {"ms_per_token", simulated[i].ms_per_token},
                             {"tokens_per_second", simulated[i].tokens_per_second}};
    }
    if (!one) json["plans"].push_back(std::move(of_one));
  }
  return json;
}

nlohmann::json ChangesJson(const std::vector<partition::Change>& changes) {
  nlohmann::json json = nlohmann::json::array();
  for (const partition::Change& change : changes) {
    nlohmann::json entry = {{"name", change.name}, {"fits", change.fits}};
    if (change.fits) {
      entry["ms"] = change.ms;
      entry["replicas"] = change.replicas;
    }
    if (change.link.has_value()) {
      const auto profile = [](const partition::LinkProfile& link) {
        return nlohmann::json{{"latency_us", link.latency_us},
                              {"mb_per_s", link.bytes_per_second / 1e6}};
      };
      entry["link"] = {{"between", {change.link->one, change.link->other}},
                       {"now", profile(change.link->now)},
                       {"then", profile(change.link->then)}};
    }
    json.push_back(std::move(entry));
  }
  return json;
}

}  // namespace renga::cli
