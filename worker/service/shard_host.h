// The worker's one shard and the thread that works on it: loads, steps and unloads run there, in
// the order they came; everybody else only hands over.
#ifndef RENGA_WORKER_SERVICE_SHARD_HOST_H_
#define RENGA_WORKER_SERVICE_SHARD_HOST_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "proto/worker.pb.h"
#include "transport/dialer.h"
#include "worker/engine/memory_budget.h"
#include "worker/engine/shard.h"
#include "worker/kernels/backend.h"
#include "worker/service/job_queue.h"
#include "worker/service/load_order.h"
#include "worker/service/local_model.h"
#include "worker/service/result_outbox.h"
#include "worker/service/server_stream.h"
#include "worker/service/stage.h"

namespace renga::worker {

// Thread-safe.
class ShardHost {
 public:
  struct Options {
    kernels::Backend* backend = nullptr;      // outlives the host, which alone uses it
    engine::MemoryBudget* budget = nullptr;   // outlives the host
    transport::Dialer* dialer = nullptr;      // outlives the host
    transport::PeerAddress coordinator;       // has the pieces
    std::string cache_directory;              // "": none
    const LocalModel* local_model = nullptr;  // null: none; outlives the host
    // A plan was loaded: edges may send, with this window. On the engine's thread.
    std::function<void(uint32_t window)> on_loaded;
    // A line for people when a shard is held. On the engine's thread; may be empty.
    std::function<void(const std::string& line)> on_event;
  };
  explicit ShardHost(Options options);
  ~ShardHost();

  using LoadStream = ServerStream<proto::LoadProgress>;
  // Cancels a load that is under way. A shard of the same model, range and limits stays; another
  // one is freed before the new one is loaded.
  void Load(proto::LoadRequest request, std::shared_ptr<LoadStream> stream);
  // Frees the shard if it is of that epoch. `done` runs on the engine's thread.
  void Unload(uint64_t epoch, std::function<void()> done);
  // `done` runs on the engine's thread when the frame's memory is free again.
  void RunFrame(proto::StepFrame frame, std::function<void()> done);
  void AttachResults(uint64_t epoch, std::shared_ptr<ResultOutbox::Stream> stream);

  // Cancels, then waits for the thread. Frames and loads that come later are dropped.
  void Stop();

  // Frames an edge may have on its way here; 0 before the first load.
  uint32_t edge_window() const { return edge_window_; }
  // Bytes of activations in the largest frame the plan allows; 0 before the first load.
  size_t max_frame_bytes() const { return max_frame_bytes_; }
  // Of the plan that is loaded; 0: none.
  uint64_t epoch() const { return loaded_epoch_; }
  uint64_t steps_done() const { return steps_done_; }

 private:
  class LoadTicket;

  void RunJobs();
  absl::Status DoLoad(const proto::LoadRequest& request, LoadTicket& ticket, LoadStream& stream);
  // Fills `last` with what came from where.
  absl::Status LoadShard(const LoadOrder& order, LoadTicket& ticket, LoadStream& stream,
                         proto::LoadProgress& last);
  void StartStage(const LoadOrder& order);
  void TellHolding(const LoadOrder& order, const proto::LoadProgress& progress) const;
  void DropStage();

  const Options options_;
  ResultOutbox outbox_;
  JobQueue jobs_;
  std::atomic<uint32_t> edge_window_ = 0;
  std::atomic<size_t> max_frame_bytes_ = 0;
  std::atomic<uint64_t> loaded_epoch_ = 0;
  std::atomic<uint64_t> steps_done_ = 0;

  absl::Mutex mutex_;
  std::shared_ptr<LoadTicket> ticket_ ABSL_GUARDED_BY(mutex_);  // of the newest load
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;

  // The engine thread's own.
  uint64_t newest_epoch_ = 0;  // ever ordered: older orders are refused
  std::string model_id_;       // of shard_
  model::RuntimeLimits limits_;
  std::unique_ptr<engine::Shard> shard_;
  std::unique_ptr<Stage> stage_;  // uses shard_

  std::thread thread_;  // last: it uses the rest
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_SHARD_HOST_H_
