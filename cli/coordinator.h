// The coordinator's parts put together: the model's file, the members, the plan, the scheduler.
// `run` and its kin use it through LocalCluster, `up` directly.
#ifndef RENGA_CLI_COORDINATOR_H_
#define RENGA_CLI_COORDINATOR_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/data_type.h"
#include "cli/draft.h"
#include "cli/plan_flags.h"
#include "coordinator/cluster/cluster_manager.h"
#include "coordinator/cluster/coordinator_server.h"
#include "coordinator/cluster/link_survey.h"
#include "coordinator/cluster/membership.h"
#include "coordinator/cluster/model_store.h"
#include "coordinator/serving/scheduler.h"
#include "coordinator/serving/text_engine.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"
#include "transport/dialer.h"
#include "transport/identity.h"

namespace renga::cli {

struct CoordinatorOptions {
  std::string model_path;
  PlanFlags plan;
  int expected_workers = 0;  // 0: as soon as the model fits
  bool use_every_worker = false;
  // Where workers join: "host:port", or "" for workers inside this process only.
  std::string listen_address;
  // Null: plain text, for loopback and in-process channels.
  std::unique_ptr<transport::Authority> authority;
  // Where the coordinator remembers over restarts which worker held what; empty: nowhere.
  std::string state_directory;
  // For clusters of several machines: measures the links before plans are made.
  bool measure_links = false;
  // Every worker keeps the output matrix on disk behind the model's screen in this folder, where
  // there is one; empty: workers hold it, or do what their own command lines say.
  std::string screen_directory;
  // With a screen: it is used only where the model with its whole head has no plan in the memory of
  // workers that offer so many bytes each. Empty: it is used.
  std::vector<int64_t> whole_head_within;
  std::unique_ptr<Draft> draft;  // null: none
  std::function<void(const cluster::ClusterStatus&)> on_change;
  std::function<void(int64_t done_bytes, int64_t total_bytes)> on_hash_progress;
};

// Thread-safe once made. Members are destroyed in the reverse order of their declaration: whatever
// is used is declared before its user.
class Coordinator {
 public:
  // Opens the model and listens; does not wait for workers.
  static absl::StatusOr<std::unique_ptr<Coordinator>> Start(CoordinatorOptions options);
  ~Coordinator();
  Coordinator(const Coordinator&) = delete;
  Coordinator& operator=(const Coordinator&) = delete;

  const cluster::ModelStore& store() const { return *store_; }
  // Workers are to leave the output matrix on disk: of CoordinatorOptions::screen_directory.
  bool uses_screen() const { return uses_screen_; }
  const model::Tokenizer& tokenizer() const { return *tokenizer_; }
  cluster::ClusterManager& manager() { return *manager_; }
  serving::Scheduler& scheduler() { return *scheduler_; }
  serving::TextEngine& text() { return *text_; }
  // Also reaches this process's own servers, as "inproc:NAME".
  transport::InProcessDialer& dialer() { return *dialer_; }
  const transport::Authority* authority() const { return authority_.get(); }
  int port() const { return server_->port(); }

 private:
  Coordinator() = default;
  absl::Status OpenModel(const CoordinatorOptions& options);
  absl::Status StartServer(const CoordinatorOptions& options);
  cluster::LinkSurvey::Options LinkOptions(const CoordinatorOptions& options,
                                           base::DataType wire_type);
  absl::Status StartServing(CoordinatorOptions options);

  std::unique_ptr<Draft> draft_;
  std::unique_ptr<transport::Authority> authority_;
  std::unique_ptr<cluster::ModelStore> store_;
  bool uses_screen_ = false;
  std::unique_ptr<model::Tokenizer> tokenizer_;
  std::unique_ptr<model::ChatTemplate> chat_template_;  // null when the model's can't be used
  cluster::Membership membership_;
  std::unique_ptr<cluster::CoordinatorServer> server_;
  std::unique_ptr<transport::InProcessDialer> dialer_;
  std::unique_ptr<cluster::LinkSurvey> links_;  // null: not measured
  std::unique_ptr<cluster::ClusterManager> manager_;
  std::unique_ptr<serving::Scheduler> scheduler_;
  std::unique_ptr<serving::TextEngine> text_;
};

}  // namespace renga::cli

#endif  // RENGA_CLI_COORDINATOR_H_
