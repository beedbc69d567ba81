// What serving has done so far, for status and metrics.
#ifndef RENGA_COORDINATOR_SERVING_STATS_H_
#define RENGA_COORDINATOR_SERVING_STATS_H_

#include <array>
#include <cstdint>
#include <vector>

#include "coordinator/cluster/pipeline.h"

namespace renga::serving {

// Counts of durations in fixed classes, from a millisecond to a minute.
struct DurationHistogram {
  // Upper bounds in seconds; what is longer is only in `count` and `sum_seconds`.
  static constexpr std::array<double, 14> kBounds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                                     0.25,  0.5,    1,     2.5,  5,     10,   60};
  std::array<uint64_t, kBounds.size()> counts{};  // not cumulative
  uint64_t count = 0;
  double sum_seconds = 0;

  void Add(double seconds) {
    ++count;
    sum_seconds += seconds;
    for (size_t i = 0; i < kBounds.size(); ++i) {
      if (seconds <= kBounds[i]) {
        ++counts[i];
        return;
      }
    }
  }
  void Add(const DurationHistogram& other) {
    for (size_t i = 0; i < counts.size(); ++i) counts[i] += other.counts[i];
    count += other.count;
    sum_seconds += other.sum_seconds;
  }
};

struct ServingStats {
  // Now.
  int64_t requests_waiting = 0;
  int64_t requests_running = 0;
  int64_t steps_in_flight = 0;
  int64_t kv_blocks = 0;  // 0: no pipeline
  int64_t kv_blocks_free = 0;
  int64_t replicas = 0;     // pipelines in use
  uint64_t epoch = 0;       // the newest one's
  int64_t stage_count = 0;  // of all pipelines
  // Since the start.
  uint64_t requests_finished = 0;
  uint64_t requests_cancelled = 0;
  uint64_t requests_failed = 0;
  uint64_t prompt_tokens = 0;  // of requests let in
  uint64_t generated_tokens = 0;
  uint64_t steps = 0;
  uint64_t preemptions = 0;
  uint64_t drafted_tokens = 0;   // guesses sent to the stages
  uint64_t accepted_tokens = 0;  // of them, those that came true
  // Passes through the stages that answers did without: one for each guess that came true, less one
  // for each frame of nothing but guesses. Below 0 when most of those were void.
  int64_t saved_steps = 0;
  // Steps whose rows nobody wanted any more, and that some worker did not compute for that.
  uint64_t skipped_steps = 0;
  // Feed-forwards that came after their deadline, each once for every token that went without it
  // (Approximation::deadline_ms).
  uint64_t left_out = 0;
  DurationHistogram step_time;         // round trips
  DurationHistogram first_token_time;  // from arrival to the answer's first token
  // Of the newest step.
  std::vector<cluster::StageTiming> stage_timings;
  uint64_t round_trip_us = 0;

  // Adds the counts of another replica; the newest step stays.
  void Add(const ServingStats& other);
};

}  // namespace renga::serving

#endif  // RENGA_COORDINATOR_SERVING_STATS_H_
