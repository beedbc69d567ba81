// A coordinator and its workers on this machine: in one process over gRPC's in-process channel, or
// with worker processes over loopback with mutual TLS. Or, for benchmarks, with workers that others
// start, on this machine or elsewhere.
#ifndef RENGA_CLI_LOCAL_CLUSTER_H_
#define RENGA_CLI_LOCAL_CLUSTER_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/child_process.h"
#include "cli/cluster_flags.h"
#include "cli/coordinator.h"
#include "worker/service/worker_server.h"

namespace renga::cli {

// Ready when made: the model is loaded and steps can run. Everything ends with the object, worker
// processes included.
class LocalCluster {
 public:
  // Blocks while loading, with progress. kCancelled on Ctrl-C.
  static absl::StatusOr<std::unique_ptr<LocalCluster>> Start(const ClusterFlags& flags);
  ~LocalCluster();
  LocalCluster(const LocalCluster&) = delete;
  LocalCluster& operator=(const LocalCluster&) = delete;

  const model::ModelConfig& config() const { return coordinator_->store().model().config; }
  const model::Tokenizer& tokenizer() const { return coordinator_->tokenizer(); }
  serving::Scheduler& scheduler() { return coordinator_->scheduler(); }
  Coordinator& coordinator() { return *coordinator_; }

 private:
  LocalCluster() = default;
  absl::Status StartWorkersInProcess(const ClusterFlags& flags,
                                     const std::vector<DeviceOffer>& offers);
  absl::Status InviteWorkers(const ClusterFlags& flags);
  // `flags.workers` of the first offer, and one of each other.
  absl::Status StartWorkerProcesses(const ClusterFlags& flags,
                                    const std::vector<DeviceOffer>& offers);
  absl::Status WaitUntilReady();
  void SayWhatWasPlanned(const ClusterFlags& flags);

  std::unique_ptr<Coordinator> coordinator_;
  std::vector<std::unique_ptr<worker::WorkerServer>> workers_;
  std::vector<std::unique_ptr<ChildProcess>> processes_;
};

}  // namespace renga::cli

#endif  // RENGA_CLI_LOCAL_CLUSTER_H_
