// Ctrl-C and SIGTERM as an ordinary callback on an ordinary thread.
#ifndef RENGA_CLI_INTERRUPT_H_
#define RENGA_CLI_INTERRUPT_H_

#include <functional>

#include "absl/status/status.h"

namespace renga::cli {

// Blocks SIGINT and SIGTERM in this and every later thread and starts the thread that waits for
// them. Call once, first thing in main. SIGPIPE is ignored: a closed pipe is an error to handle.
void StartInterruptThread();

// True once a signal has come.
bool Interrupted();
// kCancelled, "interrupted": what a command returns then.
absl::Status InterruptedError();

// Runs `on_interrupt` (once, on the signal thread) when a signal comes while this object lives, or
// at once when one has come already. A second signal ends the process immediately.
class InterruptScope {
 public:
  explicit InterruptScope(std::function<void()> on_interrupt);
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;
};

}  // namespace renga::cli

#endif  // RENGA_CLI_INTERRUPT_H_
