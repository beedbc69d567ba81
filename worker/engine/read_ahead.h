// Reads from a WeightSource on a thread of its own while the caller does something else.
#ifndef RENGA_WORKER_ENGINE_READ_AHEAD_H_
#define RENGA_WORKER_ENGINE_READ_AHEAD_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "worker/engine/shard.h"

namespace renga::engine {

// One read at a time. Start and Finish are called by one thread, in turn.
class ReadAhead {
 public:
  // `source` outlives this.
  explicit ReadAhead(WeightSource* source);
  // Waits for a read that was started.
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // Begins to read; `out` stays until Finish.
  void Start(const std::string& tensor, int64_t offset, std::span<std::byte> out);
  // Waits for it: WeightSource::Read's status.
  absl::Status Finish();

 private:
  enum class State { kIdle, kWanted, kDone, kEnding };
  void ReadUntilEnd();

  WeightSource* const source_;
  absl::Mutex mutex_;
  State state_ ABSL_GUARDED_BY(mutex_) = State::kIdle;
  std::string tensor_ ABSL_GUARDED_BY(mutex_);
  int64_t offset_ ABSL_GUARDED_BY(mutex_) = 0;
  std::span<std::byte> out_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;  // none where the system allows no more: Finish reads
};

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_READ_AHEAD_H_
