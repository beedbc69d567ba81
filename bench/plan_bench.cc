// renga-plan-bench: how long planning takes, for clusters from easy to hard. 80 layers each.
#include <chrono>
#include <cstdio>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "partition/device_library.h"
#include "partition/known_models.h"
#include "partition/planner.h"

namespace renga {
namespace {

using partition::PlanRequest;
using partition::WorkerProfile;

struct Case {
  std::string name;
  std::vector<WorkerProfile> workers;
  PlanRequest request;
};

// `kinds` different speeds and memories, in turn.
std::vector<WorkerProfile> Workers(int count, int kinds) {
  const WorkerProfile card = *partition::FindDevice("gtx-1050-ti");
  std::vector<WorkerProfile> workers;
  for (int i = 0; i < count; ++i) {
    WorkerProfile worker = card;
    worker.id = std::to_string(i);
    worker.memory_bytes += int64_t{100} * (i % kinds) << 20;
    worker.bytes_per_second *= 1 + 0.07 * (i % kinds);
    workers.push_back(worker);
  }
  return workers;
}

// A link of its own between every two machines.
void AddLinks(Case& made) {
  const auto count = static_cast<int>(made.workers.size());
  for (int from = partition::kCoordinator; from < count; ++from) {
    for (int to = partition::kCoordinator; to < count; ++to) {
      made.request.links.pairs.push_back(
          {from, to, {.latency_us = 100.0 + (from * 7 + to * 13) % 50, .bytes_per_second = 1e8}});
    }
  }
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const auto objective :
       {partition::Objective::kOneStream, partition::Objective::kManyStreams}) {
    const std::string asked =
        objective == partition::Objective::kOneStream ? "one stream" : "many streams";
    for (const int64_t groups : {1, 0}) {
      const std::string with = asked + (groups == 0 ? ", groups" : "");
      for (const auto& [kinds, links, name] :
           {std::tuple(1, false, "16 equal"), std::tuple(4, false, "16 of 4 kinds"),
            std::tuple(16, false, "16 different"),
            std::tuple(16, true, "16 different, own links")}) {
        Case made{
            .name = std::string(name) + ", " + with, .workers = Workers(16, kinds), .request = {}};
        made.request.objective = objective;
        made.request.context_tokens = 2048;
        made.request.tensor_parallel = groups;
        made.request.links.default_link = *partition::FindLink("1gbe");
        if (links) AddLinks(made);
        cases.push_back(std::move(made));
      }
    }
  }
  return cases;
}

int Run() {
  const auto known = partition::FindKnownModel("llama-3-70b");
  if (!known.ok()) return 1;
  for (const Case& made : Cases()) {
    const auto start = std::chrono::steady_clock::now();
    const auto plan =
        partition::MakePlan(known->model, known->footprint, made.workers, made.request);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    if (!plan.ok()) {
      std::printf("%-48s %6.3f s  %s\n", made.name.c_str(), taken.count(),
                  std::string(plan.status().message()).c_str());
      continue;
    }
    const double ms = made.request.objective == partition::Objective::kOneStream ? plan->stream_ms
                                                                                 : plan->slowest_ms;
    std::printf("%-48s %6.3f s  %8.2f ms, %s, bound %.2f ms\n", made.name.c_str(), taken.count(),
                ms, plan->exact ? "exact" : "searched", plan->bound_ms);
  }
  return 0;
}

}  // namespace
}  // namespace renga

int main() { return renga::Run(); }
