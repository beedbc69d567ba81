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
  if (status.epoch != last_epoch_ && !status.plan_text.empty()) {
    last_epoch_ = status.epoch;
    std::fputs(status.plan_text.c_str(), stdout);
  }
  // "loading ..." has its numbers in the bar.
  const std::string line =
      status.state == cluster::ClusterState::kLoading ? "loading" : LineOf(status);
  if (line == last_line_) return;
  last_line_ = line;
  std::printf("%s\n", line.c_str());
  for (const std::string& warning : status.warnings) std::printf("warning: %s\n", warning.c_str());
  std::fflush(stdout);
}

void StatePrinter::ShowReading(int64_t done_bytes, int64_t total_bytes) {
  reading_.Update(done_bytes, total_bytes);
  if (done_bytes == total_bytes) reading_.Finish();
}

}  // namespace renga::cli
