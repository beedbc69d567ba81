// A run of a plan, simulated: steps of several sequences move through stages and links, each of
// which does one thing at a time, in the order in which things arrive. Discrete events over the
// times of the cost model; no chance, so the same request gives the same run.
//
// What it is for: queues. One stream's decode is a sum that the planner prints; prompts in chunks,
// streams that wait for each other and speculation are not.
#ifndef RENGA_PARTITION_SIMULATOR_H_
#define RENGA_PARTITION_SIMULATOR_H_

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "model/architecture.h"
#include "model/footprint.h"
#include "partition/plan.h"

namespace renga::partition {

struct SimulationRequest {
  int64_t streams = 1;  // sequences that start together
  int64_t prompt_tokens = 128;
  int64_t answer_tokens = 128;
  int64_t chunk_tokens = 256;  // of a prompt, in one step
  // Speculation: so many tokens are guessed, of which each is right with this probability,
  // independently. A step then computes draft_tokens + 1 rows and gives
  // (1 - a^(d+1)) / (1 - a) tokens; that expectation is what the simulation counts.
  int64_t draft_tokens = 0;
  double acceptance = 0;
  double draft_ms = 0;  // to guess them all
};

struct SimulationResult {
  double first_token_ms = 0;     // until every stream's first token: the slowest's
  double ms_per_token = 0;       // of one stream, after its first token; the mean over streams
  double tokens_per_second = 0;  // of all streams, from the first token of the first to the end
  double busiest_stage = 0;      // its share of the time
};

// Times of a step of `rows` rows; rows is at least 1.
using StepTimes = std::function<PlanTimes(int64_t rows)>;

// kInvalidArgument for numbers that make no sense, or more than kMaxSimulatedSteps steps.
absl::StatusOr<SimulationResult> Simulate(const StepTimes& times, const SimulationRequest& request);

inline constexpr int64_t kMaxSimulatedSteps = 1'000'000;

// The plan's times for steps of any number of rows. What it is made from outlives it.
StepTimes StepTimesOf(const model::Model& model, const model::ModelFootprint& footprint,
                      const std::vector<WorkerProfile>& workers, const PlanRequest& request,
                      const Plan& plan);

}  // namespace renga::partition

#endif  // RENGA_PARTITION_SIMULATOR_H_
