// Streams pieces of a model from whoever holds them (Pieces.Fetch).
#ifndef RENGA_WORKER_SERVICE_PIECE_FETCHER_H_
#define RENGA_WORKER_SERVICE_PIECE_FETCHER_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
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

// One thread calls Begin and Next; any thread may call SetCancelled. What comes is not verified.
// The other side sends ahead of Next as far as the channel's flow-control window goes, so little
// more than that is ever held in memory, however long nobody calls Next.
class PieceFetcher {
 public:
  PieceFetcher(const std::shared_ptr<grpc::Channel>& channel, std::string model_id);
  ~PieceFetcher();
  PieceFetcher(const PieceFetcher&) = delete;
  PieceFetcher& operator=(const PieceFetcher&) = delete;

  // Asks for pieces, in this order; what was asked before and hasn't come is given up. Waits for
  // nothing that is on its way.
  void Begin(const std::vector<PieceId>& wanted);
  // The piece that Next will bring, or nullptr when nothing is on its way.
  const PieceId* Expected() const { return expected_.empty() ? nullptr : &expected_.front(); }
  // Waits for it, at most for `patience` (kDeadlineExceeded). After an error nothing is on its way.
  absl::StatusOr<std::string> Next(absl::Duration patience);

  // Makes Next fail now, with kCancelled, and whenever it is called until this is taken back.
  void SetCancelled(bool cancelled);

 private:
  struct Call;
  // Of a call that is not wanted any more, or brings no more: its status.
  static absl::Status Finish(Call& call);
  void End();
  std::unique_ptr<Call> TakeCall() ABSL_LOCKS_EXCLUDED(mutex_);

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
