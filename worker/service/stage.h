// One epoch's work on this worker: runs frames through the shard and sends what comes out along
// the plan's routes.
#ifndef RENGA_WORKER_SERVICE_STAGE_H_
#define RENGA_WORKER_SERVICE_STAGE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/data_type.h"
#include "model/step.h"
#include "proto/step.pb.h"
#include "transport/dialer.h"
#include "transport/edge_sender.h"
#include "worker/engine/shard.h"
#include "worker/service/load_order.h"
#include "worker/service/stage_group.h"
#include "worker/service/withdrawn_steps.h"

namespace renga::worker {

// Used by the engine's thread only. Opens its outgoing edges when made.
//
// Withdrawn steps take the same road as others, in order and with their commands, but are not
// computed. Where a frame's only receiver sees that its step was withdrawn, it says so in what it
// sends on, and whoever gets that goes by it. The members of a group do nothing else: each sees
// a withdrawal at another time, and all of them must compute a step, or none.
class Stage {
 public:
  struct Options {
    uint64_t epoch = 0;
    uint32_t worker_index = 0;
    int64_t d_model = 0;
    int64_t vocab_size = 0;
    base::DataType wire_type = base::DataType::kF32;  // of activations, sent and taken
    Routes routes;
    engine::Shard* shard = nullptr;  // outlives the stage
    // Of the members that hold slices of the same layers; null: whole layers. Outlives the stage.
    StageGroup* group = nullptr;
    // Steps that need no answer; null: every step needs one. May change at any time.
    std::shared_ptr<const WithdrawnSteps> withdrawn = nullptr;
    transport::Dialer* dialer = nullptr;  // outlives the stage
    // Takes answers and failures for the coordinator.
    std::function<void(proto::StepResult)> emit;
    // An outgoing edge to the named worker broke. On any thread; must not block.
    std::function<void(const std::string& peer, const absl::Status&)> on_edge_broken;
  };
  explicit Stage(Options options);
  ~Stage();
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;

  uint64_t epoch() const { return options_.epoch; }

  // Does what the frame asks, if it is of this epoch and was not done before; failures become
  // results. `queue_us`: how long the frame waited here. True when a step was done.
  bool Run(proto::StepFrame frame, uint64_t queue_us);

  // Tells the coordinator that steps sent to `peer` may be lost.
  void ReportBrokenEdge(const std::string& peer, const absl::Status& status);

 private:
  struct Edge {
    std::string peer;
    uint64_t last_sent = 0;                         // number of the last step sent
    std::unique_ptr<transport::EdgeSender> sender;  // null: this worker itself
  };

  Edge OpenEdge(const RoutePeer& peer);
  bool IsWithdrawn(uint64_t number) const {
    return options_.withdrawn != nullptr && options_.withdrawn->Contains(number);
  }
  // The number of the last step done for such frames.
  uint64_t& LastOf(proto::FrameTarget target);
  absl::Status RunEmbedding(proto::StepFrame& frame, uint64_t queue_us);
  absl::Status SkipEmbedding(const model::Step& step, proto::StepFrame& frame);
  absl::Status RunLayersFrame(proto::StepFrame& frame, uint64_t queue_us);
  // As RunLayers, but computes nothing.
  absl::Status SkipLayers(const model::Step& step, proto::StepFrame& frame);
  // `frame` is the one that brought the step: what goes on is made from it.
  absl::Status RunLayers(const model::Step& step, std::vector<float> rows, proto::StepFrame& frame,
                         uint64_t queue_us);
  // What has become of the step's rows, or that it was skipped, to the next stage or the heads.
  absl::Status SendOn(const model::Step& step, std::span<const float> rows,
                      proto::StepFrame& frame);
  // To all of the edges but this worker itself.
  absl::Status SendToAll(std::vector<Edge>& edges, proto::StepFrame frame);
  absl::Status SendToHeads(const model::Step& step, const proto::StepFrame& frame,
                           std::span<const float> rows);
  absl::Status RunHeadFrame(proto::StepFrame& frame, uint64_t queue_us);
  // `frame` says what became of the step before.
  absl::Status RunHead(const model::Step& step, std::span<const float> outputs,
                       const proto::StepFrame& frame, uint64_t queue_us);
  absl::Status Send(Edge& edge, proto::StepFrame frame);
  void EmitError(uint64_t number, const absl::Status& status);

  const Options options_;
  std::vector<Edge> next_;   // members of the next stage that this one sends to
  std::vector<Edge> heads_;  // of the last stage, this worker perhaps among them
  std::vector<Edge> first_;  // of the embedding: the first stage, this worker perhaps among them
  bool embeds_for_itself_ = false;  // this worker is among first_
  uint64_t last_layers_ = 0;        // number of the last step done, by what it asked
  uint64_t last_head_ = 0;
  uint64_t last_embedding_ = 0;
};

}  // namespace renga::worker

#endif  // RENGA_WORKER_SERVICE_STAGE_H_
