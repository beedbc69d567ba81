// The sending end of an edge: frames to one worker, in order, as fast as it gives credits.
#ifndef RENGA_TRANSPORT_EDGE_SENDER_H_
#define RENGA_TRANSPORT_EDGE_SENDER_H_

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "proto/step.pb.h"

namespace grpc {
class Channel;
}  // namespace grpc

namespace renga::transport {

// Thread-safe. One Worker.Steps stream: frames wait in a queue until the one before is written and
// the receiver has room. A broken stream stays broken: whoever sends steps must decide what
// follows (a new epoch), so nothing is ever sent twice.
class EdgeSender {
 public:
  // More frames than this in the queue means that the sender ignores its window.
  static constexpr size_t kMaxQueuedFrames = 1024;

  // Opens the stream. `on_broken` runs at most once, on a gRPC thread, when the stream ends for
  // any other reason than this object's end; it must neither block nor destroy this object.
  EdgeSender(std::shared_ptr<grpc::Channel> channel,
             std::function<void(const absl::Status&)> on_broken);
  // Cancels the stream and waits until gRPC is done with it.
  ~EdgeSender();
  EdgeSender(const EdgeSender&) = delete;
  EdgeSender& operator=(const EdgeSender&) = delete;

  // Never blocks. The stream's error when it is broken; kResourceExhausted when the queue is full.
  absl::Status Send(proto::StepFrame frame);

 private:
  class Reactor;
  const std::unique_ptr<Reactor> reactor_;
};

}  // namespace renga::transport

#endif  // RENGA_TRANSPORT_EDGE_SENDER_H_
