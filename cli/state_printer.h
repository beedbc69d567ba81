// What happens to a cluster, line by line, for the terminal that runs `renga up`.
#ifndef RENGA_CLI_STATE_PRINTER_H_
#define RENGA_CLI_STATE_PRINTER_H_

#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "cli/progress_printer.h"
#include "coordinator/cluster/cluster_status.h"

namespace renga::cli {

// Thread-safe.
class StatePrinter {
 public:
  explicit StatePrinter(bool quiet)
      : quiet_(quiet), reading_("reading", quiet), loading_("loading", quiet) {}

  // Prints a line when state or sentence changed, the plan when it is new, progress while loading.
  void Show(const cluster::ClusterStatus& status);
  void ShowReading(int64_t done_bytes, int64_t total_bytes);

 private:
  const bool quiet_;
  ProgressPrinter reading_;
  ProgressPrinter loading_;
  absl::Mutex mutex_;
  std::string last_line_ ABSL_GUARDED_BY(mutex_);
  std::string last_plan_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> last_warnings_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace renga::cli

#endif  // RENGA_CLI_STATE_PRINTER_H_
