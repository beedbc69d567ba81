// Where the time of steps goes, as measured: moving averages over recent steps.
#ifndef RENGA_COORDINATOR_CLUSTER_STEP_TIMES_H_
#define RENGA_COORDINATOR_CLUSTER_STEP_TIMES_H_

#include <cstdint>
#include <vector>

#include "coordinator/cluster/pipeline.h"
#include "model/step.h"

namespace renga::cluster {

// An average in which a step's weight halves about every eleven steps. 0 before the first.
class MovingAverage {
 public:
  void Add(double value);
  double value() const { return value_; }

 private:
  double value_ = 0;
  bool any_ = false;
};

// Decode steps (one token per sequence) and prefill steps are averaged apart: a chunk of a prompt
// costs many times a token, and predictions are for tokens. Steps that verify guesses are neither,
// and in neither average.
struct WorkerTimes {
  double decode_layers_us = 0;    // compute per decode step
  double decode_head_us = 0;      // of its head block
  double decode_exchange_us = 0;  // of decode_layers_us: waiting for the other members of its group
  double decode_queue_us = 0;     // waiting for the worker's earlier steps
  double prefill_layers_us_per_token = 0;
};

// Sums over all decode steps since the pipeline began: two readings, subtracted, say where the time
// between them went.
struct DecodeTotals {
  uint64_t steps = 0;
  double round_trip_us = 0;
  double compute_us = 0;  // of all stages, and of each step's slowest head block
  double queue_us = 0;    // waiting on workers for their earlier steps
};

struct PipelineTimes {
  uint64_t steps = 0;
  double decode_round_trip_us = 0;
  // What is left of the round trip after all stages' and the slowest head block's time: the
  // network's share, and the coordinator's own.
  double decode_network_us = 0;
  double prefill_round_trip_us_per_token = 0;
  std::vector<WorkerTimes> workers;  // by worker index
  DecodeTotals decode_totals;
};

// The part of a round trip that was spent on workers: stages one after the other, members of a
// stage and head blocks side by side.
struct WorkerMicroseconds {
  double compute = 0;
  double queue = 0;
  double total() const { return compute + queue; }
};
// `stages`: the members of each stage, by worker index.
WorkerMicroseconds SpentOnWorkers(const std::vector<StageTiming>& timings,
                                  const std::vector<std::vector<uint32_t>>& stages);

// Not thread-safe.
class StepTimes {
 public:
  // `stages`: the members of each stage. They work side by side.
  StepTimes(size_t workers, const std::vector<std::vector<uint32_t>>& stages)
      : stages_(stages), workers_(workers) {}
  // `step`'s slots count. Timings of unknown workers are passed over.
  void Add(const model::Step& step, const StepOutcome& outcome);
  PipelineTimes Read() const;

 private:
  struct Averages {
    MovingAverage decode_layers;
    MovingAverage decode_head;
    MovingAverage decode_exchange;
    MovingAverage decode_queue;
    MovingAverage prefill_layers;
  };
  uint64_t steps_ = 0;
  MovingAverage decode_round_trip_;
  MovingAverage decode_network_;
  MovingAverage prefill_round_trip_;
  const std::vector<std::vector<uint32_t>> stages_;
  std::vector<Averages> workers_;
  DecodeTotals totals_;
};

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_STEP_TIMES_H_
