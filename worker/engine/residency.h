// The matrices of a shard's layers when not all of them are in memory, or not yet.
//
// They are cut into bundles (bundle.h): the matrices that one call of a layer's program multiplies
// by. Every step uses all bundles in the same order. (So an expert of a mixture is one only where
// all of them are pinned; else expert_cache.h has them.) A pinned bundle is read once and stays; a
// streamed one passes through a ring of buffers for every step. A thread reads them in the order of
// use, from packed files on the disk (WeightSource::OpenPacked), past the end of a step on to the
// next one's beginning. A step waits for the bundle it needs, not for the whole shard: so the first
// token comes when its bytes have come.
//
// What is computed is what a resident shard computes, bit for bit: the same packed bytes.
#ifndef RENGA_WORKER_ENGINE_RESIDENCY_H_
#define RENGA_WORKER_ENGINE_RESIDENCY_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "model/residency_plan.h"
#include "worker/engine/bundle.h"
#include "worker/engine/byte_ring.h"
#include "worker/engine/shard.h"
#include "worker/engine/weight_loader.h"
#include "worker/kernels/backend.h"
#include "worker/kernels/page_memory.h"

namespace renga::engine {

// The engine's thread calls everything but report(), which is for any thread.
class Residency {
 public:
  // `backend` has a layout_name(); it and `source` outlive the residency. The plan is of the
  // bundles' RoomBytes.
  Residency(std::vector<Bundle> bundles, const model::ResidencyPlan& plan,
            kernels::Backend* backend, WeightSource* source);
  ~Residency();
  Residency(const Residency&) = delete;
  Residency& operator=(const Residency&) = delete;

  // Bytes of weights that PackStreamed will read.
  int64_t UnpackedBytes() const;
  // Packs the streamed bundles that the disk does not have yet, one matrix in memory at a time, and
  // keeps them there. Errors of the source, its disk and the backend; kCancelled.
  absl::Status PackStreamed(WeightLoader& loader);
  // Begins to read. kResourceExhausted when the system has no memory for the ring, or no thread.
  absl::Status Start();

  size_t bundle_count() const { return held_.size(); }

  // The matrices of a bundle, in memory while this lives, and for good when it is pinned.
  class Lease {
   public:
    Lease(Lease&& other) noexcept
        : residency_(std::exchange(other.residency_, nullptr)), matrices_(other.matrices_) {}
    Lease& operator=(Lease&&) = delete;
    ~Lease() {
      if (residency_ != nullptr) residency_->ReleaseFront();
    }
    const kernels::WeightMatrix* matrix(size_t index) const { return matrices_[index].get(); }

   private:
    friend class Residency;
    Lease(Residency* residency, std::span<const std::unique_ptr<kernels::WeightMatrix>> matrices)
        : residency_(residency), matrices_(matrices) {}
    Residency* residency_;  // null: the bundle is pinned
    std::span<const std::unique_ptr<kernels::WeightMatrix>> matrices_;
  };
  // Waits for the bundle. Any order works; that of the bundles is fast. One lease at a time. What
  // cannot be read, or is damaged, is packed anew from the source; when that fails too the status
  // says both, and the next Acquire tries again.
  absl::StatusOr<Lease> Acquire(size_t bundle);

  // Whether Acquire would not wait for the disk any more, before `deadline` has come. What must be
  // packed first, or anew, is not waited for here: Acquire does that, however long it takes.
  bool WaitFor(size_t bundle, absl::Time deadline);
  // This step does without `from` and what follows it up to `to`, where it goes on (the number of
  // bundles: at the next step's beginning). Of those that are streamed only the one that is being
  // read is still read.
  void Skip(size_t from, size_t to);
  // Counts what was skipped, in the report.
  void CountLeftOut(int64_t feed_forwards) { left_out_ += feed_forwards; }

  // Packs one more pinned bundle that the disk does not have; false when there is none left.
  absl::StatusOr<bool> LoadMore();

  // Shard::newly_packed of the pinned bundles packed since the last call.
  std::vector<HeldMatrix> TakeNewlyPacked() { return std::exchange(newly_packed_, {}); }
  ResidencyReport report() const;

 private:
  enum class State { kOnDisk, kToPack, kHere, kFailed };
  struct Held {
    Bundle bundle;
    bool pinned = false;
    bool prefetched = false;                  // or being read; guarded by mutex_
    State state = State::kOnDisk;             // of a pinned bundle; guarded by mutex_
    absl::Status failure;                     // kFailed; guarded by mutex_
    BundleFiles files;                        // null: not on disk, as long as kToPack
    std::vector<kernels::PackedBytes> bytes;  // pinned, read: the reader's while kOnDisk
    std::vector<std::unique_ptr<kernels::WeightMatrix>> matrices;  // the engine's thread's
  };
  // A streamed bundle in the ring.
  struct Entry {
    size_t bundle = 0;
    std::byte* room = nullptr;
    bool done = false;
    bool skipped = false;  // while it is being read: goes when it has come
    absl::Status status;
  };

  void FindFiles();
  absl::Status AllocateRing();
  std::string Places() const;

  // The reader.
  void ReadUntilEnd();
  std::optional<size_t> NextToRead() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasToRead() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReadPinned(size_t bundle) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReadStreamed(size_t bundle) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Measure(int64_t bytes, absl::Duration took);
  absl::Status HoldBundle(Held& held);

  // The prefetcher: the disk has something to do while the reader goes from file to file.
  void PrefetchUntilEnd();
  std::optional<size_t> NextToPrefetch() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasToPrefetch() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // The engine's thread.
  absl::StatusOr<Lease> AcquirePinned(Held& held);
  absl::StatusOr<Lease> AcquireStreamed(size_t bundle);
  // `bytes` of each matrix.
  absl::Status Adopt(Held& held, std::vector<kernels::PackedBytes> bytes);
  absl::Status PackPinned(Held& held);
  absl::Status Repair(size_t bundle);
  // Whether the reader has nothing to do with the bundle any more; it is the next one.
  bool FrontIsDone() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  bool Expects(size_t bundle) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Drops what was read ahead; the next streamed bundle is `bundle` or what follows it.
  void GoTo(size_t bundle) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReleaseFront();

  const model::ResidencyPlan plan_;
  kernels::Backend* const backend_;
  WeightSource* const source_;
  std::vector<Held> held_;
  std::optional<kernels::PageMemory> ring_memory_;  // changes only while the reader stands still
  std::vector<HeldMatrix> newly_packed_;
  std::atomic<int64_t> pinned_now_ = 0;  // bytes
  // Streamed reads, the last ones most; the reader's own but for the last.
  double recent_bytes_ = 0;
  double recent_seconds_ = 0;
  std::atomic<double> streamed_per_second_ = 0;
  std::atomic<int64_t> left_out_ = 0;

  mutable absl::Mutex mutex_;
  ByteRing ring_ ABSL_GUARDED_BY(mutex_);
  std::deque<Entry> entries_ ABSL_GUARDED_BY(mutex_);  // as in the ring, oldest first
  size_t cursor_ ABSL_GUARDED_BY(mutex_) = 0;          // the next bundle, in the order of use
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<size_t> holding_ ABSL_GUARDED_BY(mutex_);  // the pinned bundle read last
  // Nothing streamed is read until GoTo, or while the ring is not there.
  bool stalled_ ABSL_GUARDED_BY(mutex_) = false;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread prefetcher_;  // last, both: they use the rest
  std::thread reader_;
};

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_RESIDENCY_H_
