// A coordinator and its workers on this machine, put together: in one process over gRPC's
// in-process channel, or with worker processes over loopback with mutual TLS.
#ifndef RENGA_CLI_LOCAL_CLUSTER_H_
#define RENGA_CLI_LOCAL_CLUSTER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "cli/cluster_flags.h"
#include "coordinator/cluster/cluster_manager.h"
#include "coordinator/cluster/model_store.h"
#include "coordinator/serving/scheduler.h"
#include "coordinator/serving/text_engine.h"
#include "model/chat_template.h"
#include "model/model_config.h"
#include "model/tokenizer.h"
#include "transport/dialer.h"

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

  const model::ModelConfig& config() const;
  const model::Tokenizer& tokenizer() const;
  serving::Scheduler& scheduler();
  serving::TextEngine& text();
  cluster::ClusterManager& manager();
  // Channels as the coordinator makes them.
  transport::Dialer& dialer();

 private:
  struct Parts;
  explicit LocalCluster(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace renga::cli

#endif  // RENGA_CLI_LOCAL_CLUSTER_H_
