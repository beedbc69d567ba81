// The pipeline of one loaded plan: sends steps to the first stage, gathers what the head blocks
// answer, and breaks for good when any worker fails.
#ifndef RENGA_COORDINATOR_CLUSTER_PIPELINE_IMPL_H_
#define RENGA_COORDINATOR_CLUSTER_PIPELINE_IMPL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/cluster/membership.h"
#include "coordinator/cluster/pipeline.h"
#include "coordinator/cluster/step_times.h"
#include "coordinator/cluster/step_tracker.h"
#include "model/architecture.h"
#include "model/block_rows.h"
#include "model/shard_spec.h"
#include "transport/dialer.h"

namespace renga::cluster {

struct PipelineOptions {
  struct Worker {
    std::string id;
    std::string name;          // in errors: "ada (w-12ab)"
    std::string address = "";  // of its data port, or "inproc:NAME"
    model::BlockRows head_rows;
  };

  uint64_t epoch = 0;
  transport::Dialer* dialer = nullptr;  // outlives the pipeline
  model::Model model;
  model::RuntimeLimits limits;
  std::vector<Worker> workers;  // by worker index
  // The members of each stage.
  std::vector<std::vector<uint32_t>> stages;
  // Who turns tokens into rows: a worker, which then gets every step from here instead, or, where
  // there is none, this function: tokens.size() x d_model (model::EmbeddingTable::Rows).
  std::optional<uint32_t> embedding_worker = std::nullopt;
  std::function<absl::StatusOr<std::vector<float>>(std::span<const model::TokenId>)> embed;
  // The worker whose head block is told to EarlyCallbacks; none: nobody's.
  std::optional<uint32_t> near_head = std::nullopt;
  // A step that nothing is known to go on with for so long breaks the pipeline.
  absl::Duration step_deadline = absl::InfiniteDuration();
  Membership::Clock clock = Membership::SteadyClock();  // of step_deadline and all measured times
  // Once, on a thread of the pipeline, after it broke. It may run after everybody else has
  // forgotten the pipeline.
  std::function<void()> on_broken;
};

// Answers are judged and merged, and callbacks run, on the thread that brings the last of them,
// since waking another one takes a good part of a hop; one thread at a time. A thread of the
// pipeline's own looks after deadlines, refused steps and the end. A step that fails on a worker
// leaves the stages in different states, so that breaks the pipeline as the loss of a worker does.
// Destroying it (from any thread, a callback too) fails the steps that are on their way.
class PipelineImpl : public Pipeline {
 public:
  explicit PipelineImpl(PipelineOptions options);
  ~PipelineImpl() override;
  PipelineImpl(const PipelineImpl&) = delete;
  PipelineImpl& operator=(const PipelineImpl&) = delete;

  uint64_t epoch() const override;
  const model::Model& model() const override;
  const model::RuntimeLimits& limits() const override;
  int64_t stage_count() const override;
  absl::Status status() const override;
  uint64_t Submit(model::Step step, std::vector<model::TokenId> tokens, Callback done,
                  EarlyCallback early) override;
  void Withdraw(std::span<const uint64_t> numbers) override;

  // What a worker (by its index) told of itself lately, of this epoch.
  void Heard(uint32_t worker, const StepTracker::Progress& progress);
  // From now on every step fails with `why`. The first reason stays.
  void Break(const absl::Status& why);
  PipelineTimes times() const;

 private:
  class Core;
  const std::shared_ptr<Core> core_;
};

}  // namespace renga::cluster

#endif  // RENGA_COORDINATOR_CLUSTER_PIPELINE_IMPL_H_
