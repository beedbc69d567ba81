// The experts of a shard's layers when not all of them are in memory.
//
// Unlike other matrices, which every step uses in the same order (residency.h), experts are used by
// some steps and not by others, and which ones is known only when the layer's router has spoken.
// So they share a number of equal places: an expert is read from its packed files when a step needs
// it and it is not there, and takes the place of the one that has been used least. Uses count for
// less the longer ago they were, so that what most texts use stays, as if it were pinned, and the
// rest passes through the other places. No expert is read that no row has chosen.
//
// All of a step's missing experts of a layer are asked for at once and read by several threads,
// while those that are there compute. One that the disk does not have yet, or has damaged, is
// packed from the source by the engine's thread, into its place and onto the disk: those of one
// layer are asked of the source together (WeightSource::Expect), so that what has to come from
// another machine comes in one go.
#ifndef RENGA_WORKER_ENGINE_EXPERT_CACHE_H_
#define RENGA_WORKER_ENGINE_EXPERT_CACHE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "model/expert_uses.h"
#include "model/residency_plan.h"
#include "worker/engine/bundle.h"
#include "worker/engine/expert_choice.h"
#include "worker/engine/shard.h"
#include "worker/engine/weight_loader.h"
#include "worker/kernels/backend.h"
#include "worker/kernels/page_memory.h"

namespace renga::engine {

// What an expert computes with; they stay where they are as long as who gave them says.
struct ExpertMatrices {
  const kernels::WeightMatrix* gate = nullptr;
  const kernels::WeightMatrix* up = nullptr;
  const kernels::WeightMatrix* down = nullptr;
};

// The engine's thread calls everything but report(), which is for any thread.
class ExpertCache {
 public:
  // Of each layer as many experts, layer after layer, none larger than the plan's places.
  // `backend` has a layout_name(); it and `source` outlive the cache.
  ExpertCache(std::vector<Bundle> experts, int64_t layers, const model::ExpertPlaces& places,
              kernels::Backend* backend, WeightSource* source);
  ~ExpertCache();
  ExpertCache(const ExpertCache&) = delete;
  ExpertCache& operator=(const ExpertCache&) = delete;

  // Bytes of weights that TryDisk will read.
  int64_t UnpackedBytes() const;
  // To hear now of a disk that will not take the experts that it does not have yet; they are packed
  // when they are wanted. Where the model is at hand one of them is packed, one matrix in memory at
  // a time; what has to be shipped for it is not shipped to try: there has to be room for all.
  // Errors of the source, its disk and the backend; kCancelled.
  absl::Status TryDisk(WeightLoader& loader);
  // Takes the memory and starts to wait for wishes. kResourceExhausted without memory or threads.
  absl::Status Start();

  // The experts of `layer` (counted from the shard's first) that a step's rows have chosen. Those
  // that are missing begin to come. What was wanted before and not handed out is wanted no more.
  void Want(size_t layer, std::span<const ExpertRows> rows);
  struct Here {
    size_t index = 0;  // in `rows` of Want
    ExpertMatrices matrices;
  };
  // Those of the wanted ones that have come and were not handed out yet; waits for one at least.
  // Empty when there are no more. They stay until Release. What cannot be read, or is damaged, is
  // packed anew; when that fails too the status says both.
  absl::StatusOr<std::vector<Here>> Next();
  // What Next has handed out may go. Waits for the device.
  absl::Status Release();

  // Shard::Unpacked.
  std::vector<MatrixKey> Unpacked() const;

  struct Report {
    int64_t held_bytes = 0;      // in memory now
    double read_per_second = 0;  // bytes, of late; 0: nothing was read yet
    std::string places;          // a letter for each expert, of one layer after the other
  };
  Report report() const;

 private:
  // One that is wanted and not there is asked for, or the disk lacks it: then it has to be packed.
  enum class State { kAbsent, kLacking, kAsked, kOnItsWay, kHere };
  struct Expert {
    Bundle bundle;
    BundleFiles files;  // whose it is that brings it, while kOnItsWay
    State state = State::kAbsent;
    absl::Status failure;  // of reading it, while kLacking
    bool packed = false;   // on disk: of each matrix there was a file
    bool wanted = false;   // by the present step, which has not released it
    bool handed_out = false;
    std::optional<size_t> place;  // from kOnItsWay to kHere
    std::vector<std::unique_ptr<kernels::WeightMatrix>> matrices;
  };

  // The one that TryDisk packs; null: none.
  const Expert* ToTry() const;

  // The readers.
  void ReadUntilEnd();
  bool CanRead() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Read(Expert& expert) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Counts a read that has ended: the disk's time runs while some reader reads.
  void Measure(int64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Whoever brings an expert: where to, and how it ended.
  std::byte* RoomOf(size_t place) {
    return memory_->data() + static_cast<int64_t>(place) * plan_.bytes;
  }
  std::byte* TakePlace(Expert& expert) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A free one, or that of the expert that goes.
  size_t FindPlace() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Came(Expert& expert) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DidNotCome(Expert& expert) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  double UsesOf(const Expert& expert) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return uses_.of(static_cast<size_t>(&expert - experts_.data()));
  }

  // The engine's thread.
  void Choose(size_t layer, std::span<const ExpertRows> rows);
  void Forget() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CountUses(size_t layer, std::span<const ExpertRows> rows)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool CanGoOn() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return ready_ > 0 || (lacking_ > 0 && may_go_ > 0);
  }
  // `failure`: of reading it, if that is why.
  void Lack(Expert& expert, absl::Status failure) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Expert& FirstLacking() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Asks the source for all that are to be packed, in the order in which they will be.
  void ExpectLacking();
  absl::Status Pack(Expert& expert);
  absl::Status PackInto(Expert& expert, std::byte* room);
  absl::StatusOr<std::vector<Here>> HandOut();

  const size_t per_layer_;
  const model::ExpertPlaces plan_;
  kernels::Backend* const backend_;
  WeightSource* const source_;
  std::optional<kernels::PageMemory> memory_;

  mutable absl::Mutex mutex_;
  // `wanted`, `state`, `packed`, `failure` and `place` are guarded by mutex_.
  std::vector<Expert> experts_;
  model::ExpertUses uses_ ABSL_GUARDED_BY(mutex_);         // by their numbers
  std::vector<Expert*> in_place_ ABSL_GUARDED_BY(mutex_);  // null: free
  std::deque<Expert*> asked_ ABSL_GUARDED_BY(mutex_);      // first come, first read
  std::vector<Expert*> wanted_ ABSL_GUARDED_BY(mutex_);    // in the order of Want
  size_t last_layer_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t ready_ ABSL_GUARDED_BY(mutex_) = 0;    // wanted, here, not handed out
  int64_t lacking_ ABSL_GUARDED_BY(mutex_) = 0;  // kLacking
  int64_t may_go_ ABSL_GUARDED_BY(mutex_) = 0;   // places that are free or whose expert may go
  int reading_ ABSL_GUARDED_BY(mutex_) = 0;      // readers
  absl::Time reading_since_ ABSL_GUARDED_BY(mutex_);
  double recent_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  double recent_seconds_ ABSL_GUARDED_BY(mutex_) = 0;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> readers_;  // last: they use the rest
};

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_EXPERT_CACHE_H_
