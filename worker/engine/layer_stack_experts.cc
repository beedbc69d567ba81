// How a layer's experts compute their rows.
#include <algorithm>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "worker/engine/layer_stack.h"

namespace renga::engine {

using kernels::RowsView;
using model::Op;

absl::Status LayerStack::ObserveExperts(ExpertObserver observer) {
  if (!config_.has_experts()) {
    return absl::UnimplementedError("this model has no experts: its tokens choose nothing");
  }
  expert_observer_ = std::move(observer);
  return absl::OkStatus();
}

absl::Status LayerStack::RunExperts(const Layer& layer, const Op& op, const Call& call) {
  RENGA_ASSIGN_OR_RETURN(const std::vector<float> scores, Fetch(op.in2, call));
  const std::vector<ExpertRow> chosen =
      ChooseExperts(scores, config_.n_experts, config_.n_experts_used);
  if (expert_observer_ != nullptr) expert_observer_(NumberOf(layer), chosen);
  // One row is every expert's input as it is.
  if (call.rows > 1) RENGA_RETURN_IF_ERROR(GatherRows(op, chosen, call));
  const std::vector<ExpertRows> groups = RowsByExpert(chosen);
  if (lazy_.experts != nullptr) {
    RENGA_RETURN_IF_ERROR(ComputeAsTheyCome(layer, op, groups, call));
    return AddExperts(op, chosen, call);
  }
  std::vector<ComingExpert> experts;
  for (const ExpertRows& group : groups) {
    RENGA_ASSIGN_OR_RETURN(const ExpertMatrices matrices, MatricesOf(layer, group.expert));
    experts.push_back({.rows = group, .matrices = matrices});
  }
  RENGA_RETURN_IF_ERROR(ComputeExperts(op, experts, call));
  return AddExperts(op, chosen, call);
}

absl::Status LayerStack::ComputeAsTheyCome(const Layer& layer, const Op& op,
                                           std::span<const ExpertRows> groups, const Call& call) {
  lazy_.experts->Want(static_cast<size_t>(&layer - layers_.data()), groups);
  while (true) {
    // Others may have to come from another machine: nobody waits for them then.
    if (call.withdrawn != nullptr && (*call.withdrawn)()) return absl::OkStatus();
    RENGA_ASSIGN_OR_RETURN(const std::vector<ExpertCache::Here> here, lazy_.experts->Next());
    if (here.empty()) return absl::OkStatus();
    std::vector<ComingExpert> experts;
    for (const ExpertCache::Here& expert : here) {
      experts.push_back({.rows = groups[expert.index], .matrices = expert.matrices});
    }
    RENGA_RETURN_IF_ERROR(ComputeExperts(op, experts, call));
    RENGA_RETURN_IF_ERROR(lazy_.experts->Release());
  }
}

absl::StatusOr<ExpertMatrices> LayerStack::MatricesOf(const Layer& layer, int32_t expert) {
  if (lazy_.residency == nullptr) {
    const Expert& held = layer.experts[static_cast<size_t>(expert)];
    return ExpertMatrices{.gate = held.gate.get(), .up = held.up.get(), .down = held.down.get()};
  }
  const auto index = static_cast<size_t>(&layer - layers_.data());
  RENGA_ASSIGN_OR_RETURN(const Residency::Lease lease,
                         lazy_.residency->Acquire(index * bundles_per_layer_ + calls_per_layer_ +
                                                  static_cast<size_t>(expert)));
  // Pinned: they stay.
  return ExpertMatrices{.gate = lease.matrix(0), .up = lease.matrix(1), .down = lease.matrix(2)};
}

RowsView LayerStack::ExpertView(int buffer, const ExpertRows& rows, const Call& call) const {
  const int64_t width = Width(buffer) / config_.n_experts_used;
  return {.data = View(buffer, call).data + rows.first * width,
          .rows = rows.count,
          .columns = width,
          .stride = width};
}

absl::Status LayerStack::GatherRows(const Op& op, std::span<const ExpertRow> chosen,
                                    const Call& call) {
  RENGA_ASSIGN_OR_RETURN(const std::vector<float> rows, Fetch(op.in, call));
  const int64_t width = Width(op.in);
  std::vector<float> gathered;
  gathered.reserve(chosen.size() * static_cast<size_t>(width));
  for (const ExpertRow& row : chosen) {
    const auto begin = rows.begin() + row.row * width;
    gathered.insert(gathered.end(), begin, begin + width);
  }
  return Put(gathered, program_.experts.rows, call);
}

absl::Status LayerStack::ComputeExperts(const Op& op, std::span<const ComingExpert> experts,
                                        const Call& call) {
  const model::ExpertTensors& buffers = program_.experts;
  std::vector<kernels::LinearOutput> outputs;
  for (const auto& [rows, matrices] : experts) {
    outputs.push_back({.matrix = matrices.gate, .out = ExpertView(buffers.gates, rows, call)});
    outputs.push_back({.matrix = matrices.up, .out = ExpertView(buffers.ups, rows, call)});
    if (call.rows == 1) continue;
    RENGA_RETURN_IF_ERROR(backend_->Linear(ExpertView(buffers.rows, rows, call), outputs));
    outputs.clear();
  }
  if (!outputs.empty()) RENGA_RETURN_IF_ERROR(backend_->Linear(View(op.in, call), outputs));
  for (const auto& [rows, matrices] : experts) {
    const RowsView gates = ExpertView(buffers.gates, rows, call);
    const kernels::LinearOutput down = {.matrix = matrices.down,
                                        .out = ExpertView(buffers.rows, rows, call)};
    RENGA_RETURN_IF_ERROR(backend_->SiluGateLinear(gates, ExpertView(buffers.ups, rows, call),
                                                   gates, std::span(&down, 1)));
  }
  return absl::OkStatus();
}

absl::Status LayerStack::AddExperts(const Op& op, std::span<const ExpertRow> chosen,
                                    const Call& call) {
  RENGA_ASSIGN_OR_RETURN(const std::vector<float> given, Fetch(program_.experts.rows, call));
  const int64_t width = Width(op.out);
  std::vector<float> sums(static_cast<size_t>(call.rows * width));
  // By expert, whatever other rows there are: the order of each row's sum.
  const float* part = given.data();
  for (const ExpertRow& row : chosen) {
    float* const sum = sums.data() + row.row * width;
    for (int64_t c = 0; c < width; ++c) sum[c] += row.weight * part[c];
    part += width;
  }
  return Put(sums, op.out, call);
}

}  // namespace renga::engine
