// Progress of long work: a bar that redraws itself on a terminal, a plain line now and then
// elsewhere. On standard error, so that standard output stays the command's answer.
#ifndef RENGA_CLI_PROGRESS_PRINTER_H_
#define RENGA_CLI_PROGRESS_PRINTER_H_

#include <cstdint>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace renga::cli {

// Thread-safe.
class ProgressPrinter {
 public:
  // `label` is what goes on: "loading". A quiet printer prints nothing.
  explicit ProgressPrinter(std::string label, bool quiet = false);
  ~ProgressPrinter();
  ProgressPrinter(const ProgressPrinter&) = delete;
  ProgressPrinter& operator=(const ProgressPrinter&) = delete;

  // Bytes done of a total that may still grow. Cheap: prints at most ten times a second.
  void Update(int64_t done_bytes, int64_t total_bytes);
  // The same for things that are counted: `unit` is "windows".
  void UpdateCount(int64_t done, int64_t total, const std::string& unit);
  // Clears the bar; nothing is printed afterwards until the next Update.
  void Finish();

 private:
  void Draw(double share, const std::string& amount);

  const std::string label_;
  const bool quiet_;
  const bool terminal_;
  absl::Mutex mutex_;
  absl::Time last_print_ ABSL_GUARDED_BY(mutex_);
  bool drawn_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace renga::cli

#endif  // RENGA_CLI_PROGRESS_PRINTER_H_
