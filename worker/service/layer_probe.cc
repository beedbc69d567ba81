#include "worker/service/layer_probe.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "base/status_macros.h"
#include "model/architecture.h"
#include "model/step.h"
#include "worker/engine/shard.h"

namespace renga::worker {
namespace {

using Clock = std::chrono::steady_clock;

// Layers, so that what a step takes once is small beside them.
constexpr int64_t kLayers = 8;
constexpr int64_t kWidth = 128;
constexpr int64_t kPositions = 8 * model::kKvBlockTokens;
constexpr int kFewestSteps = 4;

// Weights that are there at once: matrices of Q8_0 with a scale near 0.004, norms near 0.75. No
// arithmetic on them runs into denormals or NaN.
class PlainWeights : public engine::WeightSource {
 public:
  absl::StatusOr<base::DataType> TensorType(const std::string& name) override {
    return absl::StrContains(name, "norm") ? base::DataType::kF32 : base::DataType::kQ8_0;
  }
  absl::Status Read(const std::string& name, int64_t /*offset*/,
                    std::span<std::byte> out) override {
    std::memset(out.data(), absl::StrContains(name, "norm") ? 0x3f : 0x1c, out.size());
    return absl::OkStatus();
  }
};

absl::StatusOr<model::Model> SmallModel() {
  model::Model model;
  RENGA_ASSIGN_OR_RETURN(model.architecture, model::FindArchitecture("llama"));
  model::ModelConfig& config = model.config;
  config.architecture = "llama";
  config.n_layers = kLayers;
  config.d_model = kWidth;
  config.n_heads = 4;
  config.n_kv_heads = 2;
  config.head_dim = kWidth / config.n_heads;
  config.d_ff = 2 * kWidth;
  config.vocab_size = 32;
  config.context_length = kPositions;
  config.norm_epsilon = 1e-5;
  config.rope.dims = config.head_dim;
  return model;
}

}  // namespace

absl::StatusOr<double> MeasureLayer(kernels::Backend& backend, engine::MemoryBudget& budget,
                                    absl::Duration duration,
                                    const std::function<bool()>& give_way) {
  RENGA_ASSIGN_OR_RETURN(const model::Model model, SmallModel());
  PlainWeights weights;
  const model::RuntimeLimits limits = {
      .kv_blocks = kPositions / model::kKvBlockTokens, .max_step_tokens = 1, .max_step_outputs = 0};
  auto shard = engine::Shard::Load(model, {.layers = {0, kLayers}, .head_rows = {}}, limits,
                                   &backend, &budget, &weights, nullptr);
  if (absl::IsResourceExhausted(shard.status()) || absl::IsUnimplemented(shard.status())) return 0;
  if (!shard.ok()) return shard.status();
  std::vector<double> microseconds;
  const Clock::time_point begin = Clock::now();
  for (int64_t position = 0; position < kPositions; ++position) {
    if (give_way && give_way()) return absl::CancelledError("there is something to do");
    const Clock::time_point step_begin = Clock::now();
    if (position >= kFewestSteps && absl::FromChrono(step_begin - begin) > duration) break;
    model::Step step;
    if (position % model::kKvBlockTokens == 0) {
      model::KvCommand& grow = step.commands.emplace_back();
      grow.kind = model::KvCommand::Kind::kAppendBlocks;
      grow.sequence = 1;
      grow.blocks = {static_cast<int32_t>(position / model::kKvBlockTokens)};
    }
    step.slots.push_back({.sequence = 1, .first_position = position, .token_count = 1});
    std::vector<float> row(kWidth, 1.0f);
    RENGA_RETURN_IF_ERROR((*shard)->RunLayers(step, row, nullptr));
    microseconds.push_back(
        std::chrono::duration<double, std::micro>(Clock::now() - step_begin).count());
  }
  // The faster half's slowest: other processes on the machine make the other half.
  std::nth_element(microseconds.begin(), microseconds.begin() + microseconds.size() / 2,
                   microseconds.end());
  return microseconds[microseconds.size() / 2] / kLayers;
}

}  // namespace renga::worker
