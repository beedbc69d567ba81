#include "cli/interrupt.h"

#include <csignal>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace renga::cli {
namespace {

constexpr int kInterruptedExitCode = 130;

// Signals are the process's own, so their state is too; leaked on purpose, the thread outlives
// main's locals.
struct SignalState {
  std::atomic<bool> interrupted = false;
  absl::Mutex mutex;
  std::function<void()> callback ABSL_GUARDED_BY(mutex);
};

SignalState& State() {
  static SignalState* const state = new SignalState;
  return *state;
}

void HandleSignal() {
  SignalState& state = State();
  // Before the lock: a second signal ends the process even while the callback of the first hangs.
  if (state.interrupted.exchange(true)) ::_exit(kInterruptedExitCode);
  // The callback runs under the lock so that ~InterruptScope waits for it.
  absl::MutexLock lock(&state.mutex);
  if (state.callback) state.callback();
}

}  // namespace

void StartInterruptThread() {
  std::signal(SIGPIPE, SIG_IGN);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread([signals] {
    for (;;) {
      int signal = 0;
      if (sigwait(&signals, &signal) == 0) std::thread(HandleSignal).detach();
    }
  }).detach();
}

bool Interrupted() { return State().interrupted; }

absl::Status InterruptedError() { return absl::CancelledError("interrupted"); }

InterruptScope::InterruptScope(std::function<void()> on_interrupt) {
  absl::MutexLock lock(&State().mutex);
  if (State().interrupted) on_interrupt();
  else State().callback = std::move(on_interrupt);
}

InterruptScope::~InterruptScope() {
  absl::MutexLock lock(&State().mutex);
  State().callback = nullptr;
}

}  // namespace renga::cli
