// Brings the pieces of a shard that its worker does not need yet onto its disk, while the worker
// has nothing to do: so that what a step needs later is there, and a lost coordinator or a restart
// ships nothing again.
//
// Steps come first. No piece is asked for while a step runs or soon after one, and what is on its
// way then is little (AskedAtOnce); what a step needs comes by streams of its own.
#ifndef RENGA_WORKER_SERVICE_PIECE_COLLECTOR_H_
#define RENGA_WORKER_SERVICE_PIECE_COLLECTOR_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "worker/service/piece_fetcher.h"
#include "worker/service/shipped_weights.h"

namespace renga::worker {

// Thread-safe. Works on a thread of the lowest priority from Begin on, until the disk takes no more
// or all is there.
class PieceCollector {
 public:
  // `weights` outlives the collector; `pieces` in the order in which they come.
  PieceCollector(ShippedWeights* weights, std::vector<PieceId> pieces);
  ~PieceCollector();
  PieceCollector(const PieceCollector&) = delete;
  PieceCollector& operator=(const PieceCollector&) = delete;

  void Begin();
  // The worker computes; and does no more.
  void StepBegins();
  void StepEnds();
  // How many pieces are asked for together when one takes so long: on a slow link fewer.
  static size_t AskedAtOnce(absl::Duration of_one);
  // Of pieces that have not come, or whose turn has not.
  int64_t missing_bytes() const { return missing_bytes_; }

 private:
  void Collect();
  // Waits until nothing is to be computed and `earliest` is over; false when the object ends.
  bool WaitForQuiet(absl::Time earliest);
  bool Ending() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return ending_; }
  bool MayGoOn() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return ending_ || !computing_; }

  ShippedWeights* const weights_;
  const std::vector<PieceId> pieces_;
  std::atomic<int64_t> missing_bytes_ = 0;
  mutable absl::Mutex mutex_;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  bool computing_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time quiet_since_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  std::thread thread_;  // last: it uses the rest
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_PIECE_COLLECTOR_H_
