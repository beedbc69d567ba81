#include "coordinator/http/metrics.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace renga::http {
namespace {

void AppendHead(std::string& out, absl::string_view name, absl::string_view type,
                absl::string_view help) {
  absl::StrAppend(&out, "# HELP ", name, " ", help, "\n# TYPE ", name, " ", type, "\n");
}

template <typename Number>
void AppendValue(std::string& out, absl::string_view name, absl::string_view type,
                 absl::string_view help, Number value) {
  AppendHead(out, name, type, help);
  absl::StrAppend(&out, name, " ", value, "\n");
}

void AppendHistogram(std::string& out, absl::string_view name, absl::string_view help,
                     const serving::DurationHistogram& histogram) {
  AppendHead(out, name, "histogram", help);
  uint64_t cumulative = 0;
  for (size_t i = 0; i < histogram.counts.size(); ++i) {
    cumulative += histogram.counts[i];
    absl::StrAppend(&out, name, "_bucket{le=\"", histogram.kBounds[i], "\"} ", cumulative, "\n");
  }
  absl::StrAppend(&out, name, "_bucket{le=\"+Inf\"} ", histogram.count, "\n", name, "_sum ",
                  histogram.sum_seconds, "\n", name, "_count ", histogram.count, "\n");
}

void AppendStages(std::string& out, const serving::ServingStats& stats) {
  AppendHead(out, "renga_stage_seconds", "gauge", "Where the newest step's time went.");
  for (const cluster::StageTiming& timing : stats.stage_timings) {
    const std::string labels = absl::StrCat("{worker=\"", timing.worker_index, "\",part=\"",
                                            timing.head ? "head" : "layers", "\",");
    absl::StrAppend(&out, "renga_stage_seconds", labels, "time=\"queue\"} ",
                    static_cast<double>(timing.queue_us) * 1e-6, "\n");
    absl::StrAppend(&out, "renga_stage_seconds", labels, "time=\"compute\"} ",
                    static_cast<double>(timing.compute_us) * 1e-6, "\n");
  }
}

}  // namespace

void RequestCounter::Count(const std::string& route, int http_status) {
  absl::MutexLock lock(&mutex_);
  ++counts_[{route, http_status}];
}

std::map<std::pair<std::string, int>, uint64_t> RequestCounter::Counts() const {
  absl::MutexLock lock(&mutex_);
  return counts_;
}

std::string MetricsText(const RequestCounter& counter, const serving::ServingStats& stats) {
  std::string out;
  AppendHead(out, "renga_http_requests_total", "counter", "Answered HTTP requests.");
  for (const auto& [key, count] : counter.Counts()) {
    absl::StrAppend(&out, "renga_http_requests_total{route=\"", key.first, "\",code=\"", key.second,
                    "\"} ", count, "\n");
  }
  AppendValue(out, "renga_requests_waiting", "gauge", "Requests that wait for KV blocks.",
              stats.requests_waiting);
  AppendValue(out, "renga_requests_running", "gauge", "Requests on the stages.",
              stats.requests_running);
  AppendHead(out, "renga_requests_total", "counter", "Requests that ended, by how.");
  absl::StrAppend(&out, "renga_requests_total{end=\"finished\"} ", stats.requests_finished,
                  "\nrenga_requests_total{end=\"cancelled\"} ", stats.requests_cancelled,
                  "\nrenga_requests_total{end=\"failed\"} ", stats.requests_failed, "\n");
  AppendValue(out, "renga_prompt_tokens_total", "counter", "Prompt tokens of accepted requests.",
              stats.prompt_tokens);
  AppendValue(out, "renga_generated_tokens_total", "counter", "Tokens drawn.",
              stats.generated_tokens);
  AppendValue(out, "renga_steps_total", "counter", "Steps sent to the stages.", stats.steps);
  AppendValue(out, "renga_steps_in_flight", "gauge", "Steps sent and not answered.",
              stats.steps_in_flight);
  AppendValue(out, "renga_preemptions_total", "counter",
              "Sequences sent back to wait for lack of KV blocks.", stats.preemptions);
  AppendValue(out, "renga_drafted_tokens_total", "counter",
              "Guesses of tokens that were sent to be verified.", stats.drafted_tokens);
  AppendValue(out, "renga_accepted_tokens_total", "counter", "Guesses that were right.",
              stats.accepted_tokens);
  AppendValue(out, "renga_saved_steps", "gauge",
              "Steps that answers did without thanks to guesses, less those that guesses wasted.",
              stats.saved_steps);
  AppendValue(out, "renga_skipped_steps_total", "counter",
              "Steps that some worker did not compute, as nobody wanted their rows any more.",
              stats.skipped_steps);
  AppendValue(out, "renga_left_out_total", "counter",
              "Feed-forwards that came after their deadline, each once for every token.",
              stats.left_out);
  AppendValue(out, "renga_kv_blocks", "gauge", "KV blocks of the plan.", stats.kv_blocks);
  AppendValue(out, "renga_kv_blocks_free", "gauge", "KV blocks in no sequence.",
              stats.kv_blocks_free);
  AppendValue(out, "renga_replicas", "gauge", "Pipelines with the whole model.", stats.replicas);
  AppendValue(out, "renga_epoch", "gauge", "The newest plan's epoch; 0 without a plan.",
              stats.epoch);
  AppendValue(out, "renga_stages", "gauge", "Stages of all replicas.", stats.stage_count);
  AppendHistogram(out, "renga_step_seconds", "Round trips of steps.", stats.step_time);
  AppendHistogram(out, "renga_first_token_seconds", "From a request's arrival to its first token.",
                  stats.first_token_time);
  AppendStages(out, stats);
  return out;
}

}  // namespace renga::http
