// How a layer's experts compute their rows.
#include <algorithm>
#include <vector>

#include "base/status_macros.h"
#include "worker/engine/layer_stack.h"

namespace renga::engine {

using kernels::RowsView;
using model::Op;

absl::Status LayerStack::RunExperts(const Layer& layer, const Op& op, const Call& call) {
  RENGA_ASSIGN_OR_RETURN(const std::vector<float> scores, Fetch(op.in2, call));
  const std::vector<ExpertRow> chosen =
      ChooseExperts(scores, config_.n_experts, config_.n_experts_used);
  // One row is every expert's input as it is.
  if (call.rows > 1) RENGA_RETURN_IF_ERROR(GatherRows(op, chosen, call));
  RENGA_RETURN_IF_ERROR(ComputeExperts(layer, op, RowsByExpert(chosen), call));
  return AddExperts(op, chosen, call);
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

absl::Status LayerStack::ComputeExperts(const Layer& layer, const Op& op,
                                        std::span<const ExpertRows> groups, const Call& call) {
  const model::ExpertTensors& buffers = program_.experts;
  std::vector<kernels::LinearOutput> outputs;
  for (const ExpertRows& group : groups) {
    const Expert& expert = layer.experts[static_cast<size_t>(group.expert)];
    outputs.push_back({.matrix = expert.gate.get(), .out = ExpertView(buffers.gates, group, call)});
    outputs.push_back({.matrix = expert.up.get(), .out = ExpertView(buffers.ups, group, call)});
    if (call.rows == 1) continue;
    RENGA_RETURN_IF_ERROR(backend_->Linear(ExpertView(buffers.rows, group, call), outputs));
    outputs.clear();
  }
  if (!outputs.empty()) RENGA_RETURN_IF_ERROR(backend_->Linear(View(op.in, call), outputs));
  for (const ExpertRows& group : groups) {
    const Expert& expert = layer.experts[static_cast<size_t>(group.expert)];
    const RowsView gates = ExpertView(buffers.gates, group, call);
    const kernels::LinearOutput down = {.matrix = expert.down.get(),
                                        .out = ExpertView(buffers.rows, group, call)};
    RENGA_RETURN_IF_ERROR(backend_->SiluGateLinear(gates, ExpertView(buffers.ups, group, call),
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
