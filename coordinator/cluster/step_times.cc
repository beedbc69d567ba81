#include "coordinator/cluster/step_times.h"

#include <algorithm>

namespace renga::cluster {
namespace {

constexpr double kWeight = 1.0 / 16;

bool IsDecode(const model::Step& step) {
  return std::all_of(step.slots.begin(), step.slots.end(),
                     [](const model::StepSlot& slot) { return slot.token_count == 1; });
}

// Tokens of answers and guesses of what follows them: few rows, all of which go through the head.
bool IsVerification(const model::Step& step) {
  constexpr int64_t kMostRows = 8;
  return std::all_of(step.slots.begin(), step.slots.end(), [](const model::StepSlot& slot) {
    return slot.token_count == slot.output_count && slot.token_count <= kMostRows;
  });
}

// Of the slowest worker that `counts`.
template <typename Counts>
WorkerMicroseconds Slowest(const std::vector<StageTiming>& timings, const Counts& counts) {
  WorkerMicroseconds slowest;
  for (const StageTiming& timing : timings) {
    const WorkerMicroseconds us = {.compute = static_cast<double>(timing.compute_us),
                                   .queue = static_cast<double>(timing.queue_us)};
    if (counts(timing) && us.total() > slowest.total()) slowest = us;
  }
  return slowest;
}

}  // namespace

WorkerMicroseconds SpentOnWorkers(const std::vector<StageTiming>& timings,
                                  const std::vector<std::vector<uint32_t>>& stages) {
  WorkerMicroseconds sum = Slowest(timings, [](const StageTiming& timing) { return timing.head; });
  for (const std::vector<uint32_t>& stage : stages) {
    const WorkerMicroseconds us = Slowest(timings, [&](const StageTiming& timing) {
      return !timing.head &&
             std::find(stage.begin(), stage.end(), timing.worker_index) != stage.end();
    });
    sum.compute += us.compute;
    sum.queue += us.queue;
  }
  return sum;
}

void MovingAverage::Add(double value) {
  value_ = any_ ? value_ + kWeight * (value - value_) : value;
  any_ = true;
}

void StepTimes::Add(const model::Step& step, const StepOutcome& outcome) {
  ++steps_;
  const auto tokens = static_cast<double>(step.token_count());
  if (tokens == 0) return;
  const bool decode = IsDecode(step);
  if (!decode && IsVerification(step)) return;
  const auto round_trip = static_cast<double>(outcome.round_trip_us);
  if (decode) {
    decode_round_trip_.Add(round_trip);
    const WorkerMicroseconds spent = SpentOnWorkers(outcome.timings, stages_);
    decode_network_.Add(std::max(0.0, round_trip - spent.total()));
    ++totals_.steps;
    totals_.round_trip_us += round_trip;
    totals_.compute_us += spent.compute;
    totals_.queue_us += spent.queue;
  } else {
    prefill_round_trip_.Add(round_trip / tokens);
  }
  for (const StageTiming& timing : outcome.timings) {
    if (timing.worker_index >= workers_.size()) continue;
    Averages& worker = workers_[timing.worker_index];
    const auto compute = static_cast<double>(timing.compute_us);
    if (!decode) {
      if (!timing.head) worker.prefill_layers.Add(compute / tokens);
      continue;
    }
    (timing.head ? worker.decode_head : worker.decode_layers).Add(compute);
    if (timing.head) continue;
    worker.decode_exchange.Add(static_cast<double>(timing.exchange_us));
    worker.decode_queue.Add(static_cast<double>(timing.queue_us));
  }
}

PipelineTimes StepTimes::Read() const {
  PipelineTimes times;
  times.steps = steps_;
  times.decode_round_trip_us = decode_round_trip_.value();
  times.decode_network_us = decode_network_.value();
  times.prefill_round_trip_us_per_token = prefill_round_trip_.value();
  times.decode_totals = totals_;
  for (const Averages& worker : workers_) {
    times.workers.push_back({.decode_layers_us = worker.decode_layers.value(),
                             .decode_head_us = worker.decode_head.value(),
                             .decode_exchange_us = worker.decode_exchange.value(),
                             .decode_queue_us = worker.decode_queue.value(),
                             .prefill_layers_us_per_token = worker.prefill_layers.value()});
  }
  return times;
}

}  // namespace renga::cluster
