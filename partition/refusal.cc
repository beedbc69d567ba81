#include "partition/refusal.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/byte_size.h"
#include "model/step.h"
#include "partition/plan_search.h"
#include "partition/planner.h"
#include "partition/shard_costs.h"

namespace renga::partition {
namespace {

using base::FormatByteSize;

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr size_t kMaxWorkersNamed = 3;
constexpr int64_t kMaxWorkersSuggested = 128;
// A shorter context is no use to anybody.
constexpr int64_t kLeastContextSuggested = 128;

// The question asked again with other numbers.
class WhatIf {
 public:
  // `costs` are those of `request`.
  WhatIf(const model::Model& model, const model::ModelFootprint& footprint, const ShardCosts& costs,
         const std::vector<WorkerProfile>& workers, const PlanRequest& request)
      : model_(model), footprint_(footprint), costs_(costs), workers_(workers), request_(request) {}

  // Layers by speed over workers of whatever memory.
  std::optional<Candidate> PlaceBySpeed(const std::vector<WorkerProfile>& workers) const {
    PlanRequest request = request_;
    request.objective = Objective::kManyStreams;
    return PlanSearch(costs_, workers, request).Run();
  }

  std::vector<WorkerProfile> WorkersOffering(int64_t bytes) const {
    std::vector<WorkerProfile> workers = workers_;
    for (WorkerProfile& worker : workers) worker.memory_bytes = bytes;
    return workers;
  }

  // The least whole MiB that, offered by each of the workers, would do; `enough_bytes` does.
  int64_t LeastMemoryMib(int64_t enough_bytes) const {
    int64_t low = 0;
    int64_t high = enough_bytes / kMiB + 1;
    while (low + 1 < high) {
      const int64_t middle = low + (high - low) / 2;
      const std::vector<WorkerProfile> workers = WorkersOffering(middle * kMiB);
      (PlanSearch(costs_, workers, request_).Fits() ? high : low) = middle;
    }
    return high;
  }

  // The longest shorter context, in whole KV blocks, that would fit; 0 when none worth having does.
  int64_t LongestContext() const {
    const auto fits = [this](int64_t blocks) {
      PlanRequest request = request_;
      request.context_tokens = blocks * model::kKvBlockTokens;
      const ShardCosts costs(model_, footprint_, LimitsOf(request));
      return PlanSearch(costs, workers_, request).Fits();
    };
    int64_t low = kLeastContextSuggested / model::kKvBlockTokens;
    int64_t high = (request_.context_tokens + model::kKvBlockTokens - 1) / model::kKvBlockTokens;
    if (low >= high || !fits(low)) return 0;
    while (low + 1 < high) {
      const int64_t middle = low + (high - low) / 2;
      (fits(middle) ? low : high) = middle;
    }
    return low * model::kKvBlockTokens;
  }

  // How many more workers like `kind` would do; 0 when not even many would.
  int64_t MoreWorkers(const WorkerProfile& kind) const {
    PlanRequest request = request_;
    request.max_workers = 0;
    const auto fits = [&](int64_t more) {
      std::vector<WorkerProfile> workers = workers_;
      workers.insert(workers.end(), more, kind);
      return PlanSearch(costs_, workers, request).Fits();
    };
    int64_t high = 1;
    while (high <= kMaxWorkersSuggested && !fits(high)) high *= 2;
    if (high > kMaxWorkersSuggested) return 0;
    int64_t low = high / 2;  // does not fit
    while (low + 1 < high) {
      const int64_t middle = low + (high - low) / 2;
      (fits(middle) ? high : low) = middle;
    }
    return high;
  }

 private:
  const model::Model& model_;
  const model::ModelFootprint& footprint_;
  const ShardCosts& costs_;
  const std::vector<WorkerProfile>& workers_;
  const PlanRequest& request_;
};

struct Needs {
  model::ShardBytes total;
  std::vector<std::string> lacking;  // a clause for each worker that offers too little
};

// What each worker would hold if memory were no question: layers by speed.
Needs NeedsBySpeed(const ShardCosts& costs, const std::vector<WorkerProfile>& workers,
                   const Candidate& by_speed) {
  const std::vector<model::ShardSpec> specs = SpecsOf(by_speed, workers.size());
  Needs needs;
  size_t unnamed = 0;
  for (size_t i = 0; i < workers.size(); ++i) {
    if (specs[i] == model::ShardSpec{}) continue;
    const model::ShardBytes bytes = costs.Bytes(specs[i]);
    needs.total.weights += bytes.weights;
    needs.total.kv += bytes.kv;
    needs.total.scratch += bytes.scratch;
    const int64_t lack = bytes.total() - workers[i].memory_bytes;
    if (lack <= 0) continue;
    if (needs.lacking.size() == kMaxWorkersNamed) {
      ++unnamed;
      continue;
    }
    needs.lacking.push_back(absl::StrCat("worker '", workers[i].id, "' would hold ",
                                         FormatByteSize(bytes.total()), ", ", FormatByteSize(lack),
                                         " more than the ", FormatByteSize(workers[i].memory_bytes),
                                         " it offers"));
  }
  if (unnamed > 0) needs.lacking.push_back(absl::StrCat(unnamed, " more workers lack memory too"));
  return needs;
}

std::string Count(int64_t n, absl::string_view what) {
  return absl::StrCat(n, " ", what, n == 1 ? "" : "s");
}

// What would fit, as clauses.
std::vector<std::string> Remedies(const WhatIf& what_if, int64_t enough_bytes,
                                  const std::vector<WorkerProfile>& workers) {
  std::vector<std::string> remedies;
  const int64_t mib = what_if.LeastMemoryMib(enough_bytes);
  remedies.push_back(absl::StrCat("--memory ", mib, "MiB", workers.size() > 1 ? " on each" : ""));
  if (const int64_t context = what_if.LongestContext(); context > 0) {
    remedies.push_back(absl::StrCat("--context ", context));
  }
  const WorkerProfile& largest = *std::max_element(
      workers.begin(), workers.end(), [](const WorkerProfile& a, const WorkerProfile& b) {
        return a.memory_bytes < b.memory_bytes;
      });
  if (const int64_t more = what_if.MoreWorkers(largest); more > 0) {
    remedies.push_back(
        absl::StrCat(Count(more, "more worker"), " of ", FormatByteSize(largest.memory_bytes)));
  }
  return remedies;
}

// What the same workers would do with --lazy.
std::string LazyRemedy(const model::Model& model, const model::ModelFootprint& footprint,
                       const std::vector<WorkerProfile>& workers, const PlanRequest& request) {
  const std::string none =
      "; not even --lazy would do: keys and values, scratch and the output "
      "matrix do not fit";
  if (request.lazy) return none;
  const std::optional<Plan> plan = MakeDiskPlan(model, footprint, workers, request);
  if (!plan) return none;
  int64_t streamed = 0;
  for (const WorkerPlan& worker : plan->workers) streamed += worker.streamed_bytes;
  return absl::StrFormat(
      ", or --lazy, which reads %s of weights from disk for every token: about %.3g tokens/s",
      FormatByteSize(streamed), 1e3 / plan->stream_ms);
}

}  // namespace

absl::Status ExplainRefusal(const model::Model& model, const model::ModelFootprint& footprint,
                            const std::vector<WorkerProfile>& workers, const PlanRequest& request) {
  const ShardCosts costs(model, footprint, LimitsOf(request));
  const WhatIf what_if(model, footprint, costs, workers, request);
  // A quarter of int64: several of them can be added.
  constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max() / 4;
  const std::optional<Candidate> by_speed = what_if.PlaceBySpeed(what_if.WorkersOffering(kNoLimit));
  if (!by_speed) {
    const auto count = static_cast<int64_t>(workers.size());
    if (request.tensor_parallel > count) {
      return absl::InvalidArgumentError(
          absl::StrCat("a group of ", request.tensor_parallel, " needs ", request.tensor_parallel,
                       " workers, and there ", count == 1 ? "is " : "are ", count,
                       ": add workers, or ask for smaller groups (--tensor-parallel 0 takes what "
                       "is fastest)"));
    }
    if (request.tensor_parallel > 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          "this model's layers cannot be divided over groups of ", request.tensor_parallel, " of ",
          Count(workers.size(), "worker"), ": ask for smaller groups, or for none"));
    }
    return absl::InternalError("no plan was found even with unlimited memory");
  }
  const Needs needs = NeedsBySpeed(costs, workers, *by_speed);
  // Enough for anybody: the whole model on one worker.
  const int64_t enough =
      costs.Bytes({.layers = {0, costs.layer_count()}, .head_rows = {0, costs.vocab_size()}})
          .total();
  int64_t offered = 0;
  for (const WorkerProfile& worker : workers) offered += worker.memory_bytes;
  return absl::ResourceExhaustedError(absl::StrCat(
      "the model does not fit: with a context of ", request.context_tokens, " for ",
      Count(request.max_sequences, "sequence"), " it needs ", FormatByteSize(needs.total.total()),
      " (weights ", FormatByteSize(needs.total.weights), ", KV cache ",
      FormatByteSize(needs.total.kv), ", scratch ", FormatByteSize(needs.total.scratch), "), but ",
      Count(workers.size(), "worker"), workers.size() == 1 ? " offers " : " offer ",
      FormatByteSize(offered), "; divided by speed, ", absl::StrJoin(needs.lacking, ", "),
      "; what would fit: ", absl::StrJoin(Remedies(what_if, enough, workers), ", or "),
      LazyRemedy(model, footprint, workers, request)));
}

}  // namespace renga::partition
