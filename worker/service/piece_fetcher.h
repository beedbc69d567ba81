// Streams pieces of a model from whoever holds them (Pieces.Fetch).
#ifndef RENGA_WORKER_SERVICE_PIECE_FETCHER_H_
#define RENGA_WORKER_SERVICE_PIECE_FETCHER_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace grpc {
class Channel;
}  // namespace grpc

namespace renga::worker {

struct PieceId {
  uint32_t tensor = 0;  // TensorEntry.index
  uint32_t piece = 0;
  friend bool operator==(const PieceId&, const PieceId&) = default;
};

// One thread calls Begin and Next; any thread may call Cancel. What comes is not verified. The
// other side sends ahead of Next as far as the channel's flow-control window goes, so little more
// than that is ever held in memory.
class PieceFetcher {
 public:
  PieceFetcher(const std::shared_ptr<grpc::Channel>& channel, std::string model_id);
  ~PieceFetcher();
  PieceFetcher(const PieceFetcher&) = delete;
  PieceFetcher& operator=(const PieceFetcher&) = delete;

  // Asks for pieces, in this order; what was asked before and hasn't come is given up. What has not
  // come at `deadline` does not come any more (kDeadlineExceeded).
  void Begin(const std::vector<PieceId>& wanted, absl::Time deadline = absl::InfiniteFuture());
  // The piece that Next will bring, or nullptr when nothing is on its way.
  const PieceId* Expected() const { return expected_.empty() ? nullptr : &expected_.front(); }
  // Waits for it. After an error nothing is on its way.
  absl::StatusOr<std::string> Next();

  // Makes Next fail now and from now on, with kCancelled.
  void Cancel();

 private:
  struct Call;
  void End();

  struct Stub;
  const std::unique_ptr<Stub> stub_;
  const std::string model_id_;
  std::deque<PieceId> expected_;

  absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::unique_ptr<Call> call_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_PIECE_FETCHER_H_
