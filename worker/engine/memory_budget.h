// The only thing on a worker that may say yes to an allocation of weights, KV or scratch.
#ifndef RENGA_WORKER_ENGINE_MEMORY_BUDGET_H_
#define RENGA_WORKER_ENGINE_MEMORY_BUDGET_H_

#include <cstdint>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"

namespace renga::engine {

// A number of bytes offered by the user, handed out as reservations. Thread-safe.
class MemoryBudget {
 public:
  // Gives its bytes back when destroyed. Movable.
  class Reservation {
   public:
    Reservation() = default;
    Reservation(Reservation&& other) noexcept;
    Reservation& operator=(Reservation&& other) noexcept;
    ~Reservation();
    int64_t bytes() const { return bytes_; }

   private:
    friend class MemoryBudget;
    Reservation(MemoryBudget* budget, int64_t bytes) : budget_(budget), bytes_(bytes) {}
    MemoryBudget* budget_ = nullptr;
    int64_t bytes_ = 0;
  };

  explicit MemoryBudget(int64_t total_bytes) : total_bytes_(total_bytes) {}
  MemoryBudget(const MemoryBudget&) = delete;
  MemoryBudget& operator=(const MemoryBudget&) = delete;

  // kResourceExhausted names what was asked for, what is left and what was offered.
  absl::StatusOr<Reservation> Reserve(int64_t bytes, absl::string_view what);

  // What is offered from now on. What is reserved stays, even where it is more than that: then
  // nothing is handed out before enough was given back.
  void SetTotal(int64_t total_bytes);
  int64_t total_bytes() const;
  int64_t used_bytes() const;

 private:
  void Release(int64_t bytes);

  mutable absl::Mutex mutex_;
  int64_t total_bytes_ ABSL_GUARDED_BY(mutex_);
  int64_t used_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_MEMORY_BUDGET_H_
