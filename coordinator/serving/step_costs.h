// What a step costs, by the number of its rows: measured on the steps of answers as they come back,
// hops and all, because nobody can tell beforehand. On a card or over slow links eight rows may
// cost what one does; on a processor that is short of arithmetic they may cost three times as much.
// Internal to serving/.
#ifndef RENGA_COORDINATOR_SERVING_STEP_COSTS_H_
#define RENGA_COORDINATOR_SERVING_STEP_COSTS_H_

#include <array>
#include <cstdint>
#include <optional>

#include "coordinator/cluster/pipeline.h"

namespace renga::serving {

struct StepCost {
  double round_trip_us = 0;  // from sending to the answer
  double compute_us = 0;     // of it: stages one after the other, then the slowest head block
  double busiest_us = 0;     // compute of the worker that has the most to do: steps come no faster
};
StepCost CostOf(const cluster::StepOutcome& outcome);

// Not thread-safe.
class StepCosts {
 public:
  static constexpr int64_t kMaxRows = 64;
  // What a row is taken to add to the compute of one row where nothing was measured.
  static constexpr double kAssumedSlope = 0.25;

  // A step of `rows` rows; more than kMaxRows are passed over.
  void Add(int64_t rows, const StepCost& cost);
  // What `rows` rows, at least 1, are going to cost: as measured, between measured numbers of rows
  // interpolated, beyond them with kAssumedSlope. Nullopt before anything was measured.
  std::optional<StepCost> Predict(int64_t rows) const;

 private:
  struct Entry {
    int64_t samples = 0;
    StepCost cost;
  };
  std::array<Entry, kMaxRows + 1> entries_;  // by rows; the first is not used
};

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_STEP_COSTS_H_
