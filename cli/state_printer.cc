#include "cli/state_printer.h"

#include <cstdio>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace renga::cli {
namespace {

// "ready: tinyllama is ready on 2 workers", "waiting for workers: there are none".
std::string LineOf(const cluster::ClusterStatus& status) {
  const std::string state(cluster::ClusterStateName(status.state));
  if (absl::StartsWith(status.sentence, state)) return status.sentence;
  return absl::StrCat(state, ": ", status.sentence);
}

}  // namespace

void StatePrinter::Show(const cluster::ClusterStatus& status) {
  if (quiet_) return;
  if (status.state == cluster::ClusterState::kLoading) {
    int64_t done = 0;
    int64_t total = 0;
    for (const cluster::WorkerStatus& worker : status.workers) {
      done += worker.load.done;
      total += worker.load.total;
    }
    loading_.Update(done, total);
  } else {
    loading_.Finish();
  }
  absl::MutexLock lock(&mutex_);
  // A load that failed is tried again and again with the same plan.
  if (status.plan_text != last_plan_ && !status.plan_text.empty()) {
    last_plan_ = status.plan_text;
    std::fputs(last_plan_.c_str(), stdout);
  }
  // "loading ..." has its numbers in the bar.
  const std::string line =
      status.state == cluster::ClusterState::kLoading ? "loading" : LineOf(status);
  if (line == last_line_) return;
  last_line_ = line;
  std::printf("%s\n", line.c_str());
  if (status.warnings != last_warnings_) {
    last_warnings_ = status.warnings;
    // Some are notes of the plan.
    for (const std::string& warning : last_warnings_) {
      if (absl::StrContains(last_plan_, warning)) continue;
      std::printf("warning: %s\n", warning.c_str());
    }
  }
  std::fflush(stdout);
}

void StatePrinter::ShowReading(int64_t done_bytes, int64_t total_bytes) {
  reading_.Update(done_bytes, total_bytes);
  if (done_bytes == total_bytes) reading_.Finish();
}

}  // namespace renga::cli
