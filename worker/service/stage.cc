#include "worker/service/stage.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "transport/wire.h"

namespace renga::worker {
namespace {

using Clock = std::chrono::steady_clock;

// A step passes at most this many workers.
constexpr int kMaxTimings = 8192;

uint64_t MicrosecondsSince(Clock::time_point begin) {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - begin).count());
}

void SetTiming(uint32_t worker_index, bool head, uint64_t queue_us, uint64_t compute_us,
               proto::StageTiming& timing) {
  timing.set_worker_index(worker_index);
  timing.set_head(head);
  timing.set_queue_us(queue_us);
  timing.set_compute_us(compute_us);
}

}  // namespace

Stage::Stage(Options options) : options_(std::move(options)) {
  const Routes& routes = options_.routes;
  for (const RoutePeer& next : routes.next_stage) next_.push_back(OpenEdge(next));
  for (const RoutePeer& first : routes.first_stage) {
    first_.push_back(OpenEdge(first));
    embeds_for_itself_ = embeds_for_itself_ || first_.back().sender == nullptr;
  }
  if (options_.shard->spec().layers.empty()) return;
  for (const RoutePeer& head : routes.heads) heads_.push_back(OpenEdge(head));
}

Stage::~Stage() = default;

Stage::Edge Stage::OpenEdge(const RoutePeer& peer) {
  Edge edge = {.peer = peer.address.name, .last_sent = 0, .sender = nullptr};
  if (peer.worker_index == options_.worker_index) return edge;
  edge.sender = std::make_unique<transport::EdgeSender>(
      *options_.dialer, peer.address,
      [tell = options_.on_edge_broken, name = peer.address.name](const absl::Status& status) {
        tell(name, status);
      });
  return edge;
}

uint64_t& Stage::LastOf(proto::FrameTarget target) {
  if (target == proto::FRAME_TARGET_HEAD) return last_head_;
  // Tokens for its own layers are another way to ask for these.
  if (target == proto::FRAME_TARGET_EMBEDDING && !embeds_for_itself_) return last_embedding_;
  return last_layers_;
}

bool Stage::Run(proto::StepFrame frame, uint64_t queue_us) {
  const uint64_t number = frame.step().number();
  if (frame.step().epoch() != options_.epoch) return false;
  const proto::FrameTarget target = frame.target();
  uint64_t& last = LastOf(target);
  // Done already; or without a number, so that no answer could name it.
  if (number <= last) return false;
  last = number;

  absl::Status status;
  if (frame.timings_size() > kMaxTimings) {
    status = absl::InvalidArgumentError("frame.timings has too many entries");
  } else if (frame.skipped() && (!frame.activations().empty() || frame.tokens_size() > 0)) {
    status = absl::InvalidArgumentError("frame.skipped, but it has something to compute");
  } else if (target == proto::FRAME_TARGET_HEAD) {
    status = RunHeadFrame(frame, queue_us);
  } else if (target == proto::FRAME_TARGET_EMBEDDING) {
    status = RunEmbedding(frame, queue_us);
  } else if (target == proto::FRAME_TARGET_LAYERS) {
    status = RunLayersFrame(frame, queue_us);
  } else {
    status = absl::InvalidArgumentError(absl::StrCat("frame.target is unknown: ", target));
  }
  if (!status.ok()) EmitError(number, status);
  return status.ok();
}

absl::Status Stage::RunEmbedding(proto::StepFrame& frame, uint64_t queue_us) {
  RENGA_ASSIGN_OR_RETURN(const model::Step step, transport::FromProto(frame.step()));
  if (frame.skipped() || IsWithdrawn(step.number)) return SkipEmbedding(step, frame);
  RENGA_ASSIGN_OR_RETURN(const std::vector<model::TokenId> tokens,
                         transport::UnpackTokens(frame, step.token_count(), options_.vocab_size));
  RENGA_ASSIGN_OR_RETURN(std::vector<float> rows, options_.shard->Embed(tokens));
  frame.clear_tokens();
  frame.set_target(proto::FRAME_TARGET_LAYERS);
  if (!embeds_for_itself_ || first_.size() > 1) {
    transport::PackActivations(rows, frame, options_.wire_type);
    RENGA_RETURN_IF_ERROR(SendToAll(first_, frame));
  }
  if (!embeds_for_itself_) return absl::OkStatus();
  // The same numbers wherever the embedding is: those that a wire brings.
  return RunLayers(step, transport::AsReceived(rows, options_.wire_type), frame, queue_us);
}

absl::Status Stage::SkipEmbedding(const model::Step& step, proto::StepFrame& frame) {
  frame.clear_tokens();
  frame.set_skipped(true);
  frame.set_target(proto::FRAME_TARGET_LAYERS);
  RENGA_RETURN_IF_ERROR(SendToAll(first_, frame));
  return embeds_for_itself_ ? SkipLayers(step, frame) : absl::OkStatus();
}

absl::Status Stage::RunLayersFrame(proto::StepFrame& frame, uint64_t queue_us) {
  RENGA_ASSIGN_OR_RETURN(const model::Step step, transport::FromProto(frame.step()));
  const bool in_group = options_.group != nullptr;
  if (frame.skipped() || (!in_group && IsWithdrawn(step.number))) return SkipLayers(step, frame);
  RENGA_ASSIGN_OR_RETURN(std::vector<float> rows,
                         transport::UnpackActivations(frame, step.token_count(), options_.d_model,
                                                      options_.wire_type));
  return RunLayers(step, std::move(rows), frame, queue_us);
}

absl::Status Stage::RunLayers(const model::Step& step, std::vector<float> rows,
                              proto::StepFrame& frame, uint64_t queue_us) {
  const Clock::time_point begin = Clock::now();
  base::Communicator* group = nullptr;
  if (options_.group != nullptr) {
    RENGA_ASSIGN_OR_RETURN(group, options_.group->Joined());
  }
  const auto watch = [&] {
    if (IsWithdrawn(step.number)) frame.set_skipped(true);
    return frame.skipped();
  };
  RENGA_RETURN_IF_ERROR(options_.shard->RunLayers(step, rows, group, watch));
  proto::StageTiming& timing = *frame.add_timings();
  SetTiming(options_.worker_index, false, queue_us, MicrosecondsSince(begin), timing);
  timing.set_left_out(options_.shard->left_out());
  if (group != nullptr) {
    timing.set_exchange_us(absl::ToInt64Microseconds(group->TakeExchangeTime()));
  }
  return SendOn(step, rows, frame);
}

absl::Status Stage::SkipLayers(const model::Step& step, proto::StepFrame& frame) {
  RENGA_RETURN_IF_ERROR(options_.shard->SkipLayers(step));
  frame.set_skipped(true);
  return SendOn(step, {}, frame);
}

absl::Status Stage::SendOn(const model::Step& step, std::span<const float> rows,
                           proto::StepFrame& frame) {
  if (next_.empty()) return SendToHeads(step, frame, rows);
  if (frame.skipped()) {
    frame.clear_activations();
  } else {
    transport::PackActivations(rows, frame, options_.wire_type);
  }
  return SendToAll(next_, std::move(frame));
}

absl::Status Stage::SendToAll(std::vector<Edge>& edges, proto::StepFrame frame) {
  for (size_t i = 0; i < edges.size(); ++i) {
    if (edges[i].sender == nullptr) continue;
    const bool last = i + 1 == edges.size();
    RENGA_RETURN_IF_ERROR(Send(edges[i], last ? std::move(frame) : frame));
  }
  return absl::OkStatus();
}

absl::Status Stage::SendToHeads(const model::Step& step, const proto::StepFrame& frame,
                                std::span<const float> rows) {
  std::vector<float> outputs;
  if (!frame.skipped()) outputs = engine::GatherOutputs(step, rows, options_.d_model);
  bool mine = false;
  bool others = false;
  for (Edge& head : heads_) {
    if (head.sender == nullptr) {
      mine = true;
      continue;
    }
    proto::StepFrame to;
    to.set_target(proto::FRAME_TARGET_HEAD);
    to.mutable_step()->set_epoch(step.epoch);
    to.mutable_step()->set_number(step.number);
    // Heads keep no sequences: commands stay behind.
    *to.mutable_step()->mutable_slots() = frame.step().slots();
    *to.mutable_timings() = frame.timings();
    to.set_skipped(frame.skipped());
    if (!frame.skipped()) transport::PackActivations(outputs, to, options_.wire_type);
    others = true;
    RENGA_RETURN_IF_ERROR(Send(head, std::move(to)));
  }
  // Blocks of one matrix are merged: all of them must see the same numbers.
  if (mine && others) outputs = transport::AsReceived(outputs, options_.wire_type);
  // Own rows last: the others compute meanwhile.
  return mine ? RunHead(step, outputs, frame, /*queue_us=*/0) : absl::OkStatus();
}

absl::Status Stage::RunHeadFrame(proto::StepFrame& frame, uint64_t queue_us) {
  RENGA_ASSIGN_OR_RETURN(const model::Step step, transport::FromProto(frame.step()));
  if (frame.skipped()) return RunHead(step, {}, frame, queue_us);
  RENGA_ASSIGN_OR_RETURN(const std::vector<float> outputs,
                         transport::UnpackActivations(frame, step.output_count(), options_.d_model,
                                                      options_.wire_type));
  return RunHead(step, outputs, frame, queue_us);
}

absl::Status Stage::RunHead(const model::Step& step, std::span<const float> outputs,
                            const proto::StepFrame& frame, uint64_t queue_us) {
  const Clock::time_point begin = Clock::now();
  proto::StepResult result;
  result.set_epoch(options_.epoch);
  result.set_number(step.number);
  result.set_worker_index(options_.worker_index);
  *result.mutable_timings() = frame.timings();
  // Each head's owner answers for itself, so one may see a withdrawal and another not.
  result.set_skipped(frame.skipped() || IsWithdrawn(step.number));
  if (!result.skipped()) {
    RENGA_ASSIGN_OR_RETURN(const std::vector<model::HeadRow> rows,
                           options_.shard->RunHead(step, outputs));
    for (const model::HeadRow& row : rows) *result.add_rows() = transport::ToProto(row);
    SetTiming(options_.worker_index, true, queue_us, MicrosecondsSince(begin),
              *result.add_timings());
  }
  options_.emit(std::move(result));
  return absl::OkStatus();
}

absl::Status Stage::Send(Edge& edge, proto::StepFrame frame) {
  edge.last_sent = frame.step().number();
  const absl::Status status = edge.sender->Send(std::move(frame));
  return base::Annotate(status, absl::StrCat("cannot send the step to worker ", edge.peer));
}

void Stage::ReportBrokenEdge(const std::string& peer, const absl::Status& status) {
  const absl::Status reason = absl::UnavailableError(
      absl::StrCat("the connection to worker ", peer, " broke: ", status.message()));
  // Whether that is a fault the coordinator knows: the other worker may have left.
  RENGA_LOG(INFO) << reason.message();
  for (std::vector<Edge>* edges : {&next_, &heads_, &first_}) {
    for (const Edge& edge : *edges) {
      // With nothing sent nothing is lost; the next Send says that the edge is broken.
      if (edge.peer == peer && edge.last_sent > 0) EmitError(edge.last_sent, reason);
    }
  }
}

void Stage::EmitError(uint64_t number, const absl::Status& status) {
  proto::StepResult result;
  result.set_epoch(options_.epoch);
  result.set_number(number);
  result.set_worker_index(options_.worker_index);
  result.set_error_code(static_cast<int>(status.code()));
  result.set_error_message(std::string(status.message()));
  options_.emit(std::move(result));
}

}  // namespace renga::worker
