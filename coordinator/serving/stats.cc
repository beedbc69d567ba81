#include "coordinator/serving/stats.h"

#include <algorithm>

namespace renga::serving {

void ServingStats::Add(const ServingStats& other) {
  requests_waiting += other.requests_waiting;
  requests_running += other.requests_running;
  steps_in_flight += other.steps_in_flight;
  kv_blocks += other.kv_blocks;
  kv_blocks_free += other.kv_blocks_free;
  replicas += other.replicas;
  epoch = std::max(epoch, other.epoch);
  stage_count += other.stage_count;
  requests_finished += other.requests_finished;
  requests_cancelled += other.requests_cancelled;
  requests_failed += other.requests_failed;
  prompt_tokens += other.prompt_tokens;
  generated_tokens += other.generated_tokens;
  steps += other.steps;
  preemptions += other.preemptions;
  drafted_tokens += other.drafted_tokens;
  accepted_tokens += other.accepted_tokens;
  saved_steps += other.saved_steps;
  skipped_steps += other.skipped_steps;
  left_out += other.left_out;
  step_time.Add(other.step_time);
  first_token_time.Add(other.first_token_time);
}

}  // namespace renga::serving
