#include "coordinator/cluster/step_times.h"

#include <algorithm>

namespace renga::cluster {
namespace {

constexpr double kWeight = 1.0 / 16;

bool IsDecode(const model::Step& step) {
  return std::all_of(step.slots.begin(), step.slots.end(),
                     [](const model::StepSlot& slot) { return slot.token_count == 1; });
}

// The part of the round trip that was spent on workers: stages one after the other, head blocks
// side by side.
double WorkerMicroseconds(const std::vector<StageTiming>& timings) {
  double stages = 0;
  double slowest_head = 0;
  for (const StageTiming& timing : timings) {
    const double us = static_cast<double>(timing.queue_us) + static_cast<double>(timing.compute_us);
    if (timing.head) {
      slowest_head = std::max(slowest_head, us);
    } else {
      stages += us;
    }
  }
  return stages + slowest_head;
}

}  // namespace

void MovingAverage::Add(double value) {
  value_ = any_ ? value_ + kWeight * (value - value_) : value;
  any_ = true;
}

void StepTimes::Add(const model::Step& step, const StepOutcome& outcome) {
  ++steps_;
  const auto tokens = static_cast<double>(step.token_count());
  if (tokens == 0) return;
  const bool decode = IsDecode(step);
  const auto round_trip = static_cast<double>(outcome.round_trip_us);
  if (decode) {
    decode_round_trip_.Add(round_trip);
    decode_network_.Add(std::max(0.0, round_trip - WorkerMicroseconds(outcome.timings)));
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
    if (!timing.head) worker.decode_queue.Add(static_cast<double>(timing.queue_us));
  }
}

PipelineTimes StepTimes::Read() const {
  PipelineTimes times;
  times.steps = steps_;
  times.decode_round_trip_us = decode_round_trip_.value();
  times.decode_network_us = decode_network_.value();
  times.prefill_round_trip_us_per_token = prefill_round_trip_.value();
  for (const Averages& worker : workers_) {
    times.workers.push_back({.decode_layers_us = worker.decode_layers.value(),
                             .decode_head_us = worker.decode_head.value(),
                             .decode_queue_us = worker.decode_queue.value(),
                             .prefill_layers_us_per_token = worker.prefill_layers.value()});
  }
  return times;
}

}  // namespace renga::cluster
