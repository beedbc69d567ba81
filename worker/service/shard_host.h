// The worker's one shard and the thread that works on it: loads, steps and unloads run there, in
// the order they came; everybody else only hands over.
#ifndef RENGA_WORKER_SERVICE_SHARD_HOST_H_
#define RENGA_WORKER_SERVICE_SHARD_HOST_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "proto/worker.pb.h"
#include "transport/dialer.h"
#include "transport/peer_listener.h"
#include "transport/secure_socket.h"
#include "worker/engine/memory_budget.h"
#include "worker/engine/shard.h"
#include "worker/kernels/backend.h"
#include "worker/service/job_queue.h"
#include "worker/service/load_order.h"
#include "worker/service/local_model.h"
#include "worker/service/packed_cache.h"
#include "worker/service/packed_saver.h"
#include "worker/service/piece_collector.h"
#include "worker/service/result_outbox.h"
#include "worker/service/server_stream.h"
#include "worker/service/shipped_weights.h"
#include "worker/service/speed_probe.h"
#include "worker/service/stage.h"
#include "worker/service/stage_group.h"
#include "worker/service/withdrawn_steps.h"

namespace renga::worker {

// Thread-safe.
class ShardHost {
 public:
  struct Options {
    kernels::Backend* backend = nullptr;      // outlives the host, which alone uses it
    engine::MemoryBudget* budget = nullptr;   // outlives the host
    transport::Dialer* dialer = nullptr;      // outlives the host
    transport::PeerAddress coordinator;       // has the pieces
    std::string cache_directory;              // of pieces; "": none
    std::string packed_directory;             // of packed matrices; "": none
    const LocalModel* local_model = nullptr;  // null: none; outlives the host
    // Where screens of heads are (engine::ScreenPath); "": heads are loaded whole.
    std::string screen_directory;
    // For tensor-parallel groups; null: this worker joins none. Both outlive the host.
    transport::PeerListener* listener = nullptr;
    std::shared_ptr<const transport::SocketCredentials> socket_credentials;
    // A plan was loaded: edges may send, with this window. On the engine's thread.
    std::function<void(uint32_t window)> on_loaded;
    // Takes frames that have come to RunFrame, on the engine's thread while it waits for some; may
    // be empty: they come without it, a little later.
    JobQueue::Looker frame_looker;
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
  void AttachResults(uint64_t epoch, std::shared_ptr<transport::ResultSink> sink);
  // Nobody waits for the answers to these steps of that epoch: what is not computed of them, now
  // and when they come, is left out.
  void WithdrawSteps(uint64_t epoch, std::span<const uint64_t> numbers);

  // Runs `work`, which uses the backend, on the engine's thread where nothing else waits there, and
  // waits for its end. It has to return soon after `give_way` says so: then something came. False
  // when it did not run at all.
  bool RunQuietly(absl::FunctionRef<void(const GiveWay& give_way)> work);
  // Changes whenever this worker is asked to do something.
  uint64_t orders() const { return orders_; }

  // Cancels, then waits for the thread. Frames and loads that come later are dropped.
  void Stop();

  // Frames an edge may have on its way here; 0 before the first load.
  uint32_t edge_window() const { return edge_window_; }
  // Bytes of activations in the largest frame the plan allows; 0 before the first load.
  size_t max_frame_bytes() const { return max_frame_bytes_; }
  // Of the plan that is loaded; 0: none.
  uint64_t epoch() const { return loaded_epoch_; }
  uint64_t steps_done() const { return steps_done_; }
  // Of the shard that is held; zeros without one.
  engine::ResidencyReport residency() const;
  // Whether the engine's thread goes on.
  struct Progress {
    uint64_t step = 0;         // that it is at; 0: none
    int64_t weight_bytes = 0;  // ShippedWeights::read_bytes of the shard that is held
  };
  Progress progress() const;

 private:
  class LoadTicket;

  void RunJobs();
  // Whether shard_ does for an order, as it is.
  bool Holds(const LoadOrder& order) const;
  // kInvalidArgument, kUnimplemented; kAborted for an old epoch.
  absl::StatusOr<LoadOrder> CheckOrder(const proto::LoadRequest& request) const;
  absl::Status DoLoad(const proto::LoadRequest& request, LoadTicket& ticket, LoadStream& stream);
  // Fills `last` with what came from where.
  absl::Status LoadShard(const LoadOrder& order, LoadTicket& ticket, LoadStream& stream,
                         proto::LoadProgress& last);
  absl::Status JoinGroup(const LoadOrder& order);
  void StartStage(const LoadOrder& order);
  void TellHolding(const LoadOrder& order, const proto::LoadProgress& progress) const;
  void DropStage();
  void DropShard();
  // Goes on with a lazy shard whenever nothing else is to do.
  void PushLoadMore();
  void LoadMore();
  void StartSaver();
  // What a newer load had interrupted may go on, unless an even newer one is waiting.
  void ResumeFetching(const LoadTicket& ticket);

  const Options options_;
  ResultOutbox outbox_;
  JobQueue jobs_;
  std::atomic<uint32_t> edge_window_ = 0;
  std::atomic<size_t> max_frame_bytes_ = 0;
  std::atomic<uint64_t> loaded_epoch_ = 0;
  std::atomic<uint64_t> steps_done_ = 0;
  std::atomic<uint64_t> step_ = 0;  // that is run; 0: none
  std::atomic<uint64_t> orders_ = 0;

  mutable absl::Mutex mutex_;
  std::shared_ptr<LoadTicket> ticket_ ABSL_GUARDED_BY(mutex_);  // of the newest load
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  // shard_, weights_ and collector_, for others than the engine's thread.
  const engine::Shard* reported_shard_ ABSL_GUARDED_BY(mutex_) = nullptr;
  ShippedWeights* cancelled_weights_ ABSL_GUARDED_BY(mutex_) = nullptr;
  const PieceCollector* reported_collector_ ABSL_GUARDED_BY(mutex_) = nullptr;
  // Of stage_, which the engine's thread may be waiting in: Cancel is for the others.
  std::shared_ptr<StageGroup> group_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<WithdrawnSteps> withdrawn_ ABSL_GUARDED_BY(mutex_);  // of stage_

  // The engine thread's own.
  uint64_t newest_epoch_ = 0;  // ever ordered: older orders are refused
  // Of shard_, which goes on reading from its weights_ when it is lazy.
  std::unique_ptr<const LoadOrder> order_;
  std::unique_ptr<PackedCache> packed_;
  std::unique_ptr<ShippedWeights> weights_;  // uses order_ and packed_
  std::unique_ptr<engine::Shard> shard_;
  uint64_t shards_loaded_ = 0;
  int64_t offered_bytes_ = 0;           // the budget that shard_ was loaded within
  std::unique_ptr<PackedSaver> saver_;  // uses packed_ and shard_
  std::unique_ptr<PieceCollector>
      collector_;                 // uses weights_; null: all of the shard comes at once
  std::unique_ptr<Stage> stage_;  // uses shard_

  std::thread thread_;  // last: it uses the rest
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_SHARD_HOST_H_
