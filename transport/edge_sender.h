// The sending end of an edge: frames to one worker, in order, as fast as it gives credits.
#ifndef RENGA_TRANSPORT_EDGE_SENDER_H_
#define RENGA_TRANSPORT_EDGE_SENDER_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "proto/step.pb.h"
#include "transport/dialer.h"
#include "transport/local_worker.h"
#include "transport/message_socket.h"

namespace renga::transport {

// Thread-safe. One connection to the worker's data port, where frames wait until the receiver has
// room; or a call to a worker of this process, which needs no room: whoever sends steps bounds how
// many are on their way. A broken edge stays broken: whoever sends steps must decide what follows
// (a new epoch), so nothing is ever sent twice.
class EdgeSender {
 public:
  // More frames than this in the queue means that the sender ignores its window.
  static constexpr size_t kMaxQueuedFrames = 1024;

  // Connects meanwhile. `on_broken` runs at most once, on a thread of the edge, when it ends for
  // any other reason than this object's end; it must neither block nor destroy this object. Not for
  // a worker of this process, whose Send fails.
  EdgeSender(Dialer& dialer, const PeerAddress& worker,
             std::function<void(const absl::Status&)> on_broken);
  // Hangs up, and waits until on_broken does not run.
  ~EdgeSender();
  EdgeSender(const EdgeSender&) = delete;
  EdgeSender& operator=(const EdgeSender&) = delete;

  // Never blocks. The edge's error when it is broken; kResourceExhausted when the queue is full.
  absl::Status Send(proto::StepFrame frame);

 private:
  absl::Status TakeCredit(const std::string& message);
  void Broke(const absl::Status& reason);

  const std::function<void(const absl::Status&)> on_broken_;
  const std::shared_ptr<LocalWorker> local_;  // null: a worker elsewhere
  absl::Mutex mutex_;
  std::deque<proto::StepFrame> queue_ ABSL_GUARDED_BY(mutex_);  // without a credit
  int64_t credits_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status broken_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<MessageSocket> socket_;  // last: its thread uses the rest; null with local_
};

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_EDGE_SENDER_H_
