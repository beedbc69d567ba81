#include "worker/engine/test_pipeline.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/status_macros.h"

#if RENGA_EMULATED_CUDA
#include "worker/kernels/cuda/cuda_backend.h"
#include "worker/kernels/cuda/emulation/emulated_device.h"
#endif

namespace renga::engine {
namespace {

using model::kKvBlockTokens;

// Cuts [0, size) into `count` uneven parts, none empty.
std::vector<model::Range> UnevenParts(int64_t size, int count) {
  std::vector<model::Range> parts;
  int64_t begin = 0;
  for (int i = 0; i < count; ++i) {
    const int64_t left = size - begin;
    const int64_t parts_left = count - i;
    // A third of what is left, and whatever else it takes.
    const int64_t take = parts_left == 1 ? left : std::max<int64_t>(1, left / (parts_left + 1));
    parts.push_back({begin, begin + take});
    begin += take;
  }
  return parts;
}

}  // namespace

model::HeadRow MergeBlocks(const std::vector<model::HeadRow>& blocks, int64_t top_k) {
  model::HeadRow merged;
  merged.max_logit = blocks[0].max_logit;
  for (const model::HeadRow& block : blocks) {
    merged.max_logit = std::max(merged.max_logit, block.max_logit);
    merged.ids.insert(merged.ids.end(), block.ids.begin(), block.ids.end());
    merged.logits.insert(merged.logits.end(), block.logits.begin(), block.logits.end());
  }
  for (const model::HeadRow& block : blocks) {
    merged.sum_exp += block.sum_exp * std::exp(double{block.max_logit} - merged.max_logit);
  }
  if (top_k == 0) return merged;
  std::vector<size_t> order(merged.ids.size());
  std::iota(order.begin(), order.end(), 0);
  // Blocks come in order of ids, so a stable sort puts the lower id first.
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return merged.logits[a] > merged.logits[b]; });
  order.resize(std::min<size_t>(order.size(), top_k));
  model::HeadRow best = merged;
  best.ids.clear();
  best.logits.clear();
  for (const size_t i : order) {
    best.ids.push_back(merged.ids[i]);
    best.logits.push_back(merged.logits[i]);
  }
  return best;
}

// A device by name, or "emulated-cuda", "emulated-cuda-mma" and "emulated-cuda-half" where there
// are such.
static absl::StatusOr<std::unique_ptr<kernels::Backend>> MakeBackend(
    const PipelineOptions& options) {
#if RENGA_EMULATED_CUDA
  namespace emulation = kernels::cuda::emulation;
  if (options.device.starts_with("emulated-cuda")) {
    const bool plain = options.device == "emulated-cuda";
    const bool half = options.device == "emulated-cuda-half";
    return kernels::CreateCudaBackend(
        emulation::CreateEmulatedDevice(
            emulation::Turns::kForwards,
            plain ? emulation::TensorCores::kNone : emulation::TensorCores::kOf16Rows),
        half ? kernels::CudaPath::kHalf : kernels::CudaPath::kBest);
  }
#endif
  return kernels::CreateBackend({.device = options.device, .threads = options.threads});
}

absl::StatusOr<std::unique_ptr<TestPipeline>> TestPipeline::Create(const std::string& path,
                                                                   const PipelineOptions& options) {
  std::unique_ptr<TestPipeline> pipeline(new TestPipeline(options));
  RENGA_ASSIGN_OR_RETURN(pipeline->file_, model::GgufFile::Open(path));
  RENGA_ASSIGN_OR_RETURN(pipeline->model_, model::ReadModel(*pipeline->file_));
  RENGA_ASSIGN_OR_RETURN(pipeline->embedding_,
                         model::EmbeddingTable::Create(*pipeline->file_, pipeline->model_.config));
  RENGA_ASSIGN_OR_RETURN(pipeline->weights_, LocalWeights::Create(pipeline->file_.get()));
  RENGA_ASSIGN_OR_RETURN(pipeline->backend_, MakeBackend(options));
  RENGA_RETURN_IF_ERROR(pipeline->LoadShards());
  return pipeline;
}

// Head blocks go on the stages from the last backwards; those left over get shards of their own.
absl::Status TestPipeline::LoadShards() {
  const std::vector<model::Range> layers = UnevenParts(model_.config.n_layers, options_.stages);
  const std::vector<model::Range> rows =
      UnevenParts(model_.config.vocab_size, options_.head_blocks);
  std::vector<model::ShardSpec> specs(std::max(layers.size(), rows.size()));
  std::vector<size_t> holder_of(rows.size());
  for (size_t i = 0; i < layers.size(); ++i) specs[i].layers = layers[i];
  for (size_t i = 0; i < rows.size(); ++i) {
    holder_of[i] = i < layers.size() ? layers.size() - 1 - i : i;
    specs[holder_of[i]].head_rows = rows[i];
  }
  for (const model::ShardSpec& spec : specs) {
    RENGA_ASSIGN_OR_RETURN(auto shard, Shard::Load(model_, spec, options_.limits, backend_.get(),
                                                   &budget_, weights_.get(), nullptr));
    if (!spec.layers.empty()) stages_.push_back(shard.get());
    shards_.push_back(std::move(shard));
  }
  for (const size_t holder : holder_of) heads_.push_back(shards_[holder].get());
  return absl::OkStatus();
}

absl::StatusOr<std::vector<model::HeadRow>> TestPipeline::Run(const model::Step& step,
                                                              std::span<const int32_t> tokens) {
  RENGA_ASSIGN_OR_RETURN(std::vector<float> rows, embedding_->Rows(tokens));
  for (Shard* stage : stages_) RENGA_RETURN_IF_ERROR(stage->RunLayers(step, rows, nullptr));
  for (const model::StepSlot& slot : step.slots) {
    sequences_[slot.sequence].length += slot.token_count;
  }
  return RunHeads(step, GatherOutputs(step, rows, model_.config.d_model));
}

absl::StatusOr<std::vector<model::HeadRow>> TestPipeline::RunHeads(const model::Step& step,
                                                                   std::span<const float> outputs) {
  std::vector<std::vector<model::HeadRow>> answers;
  for (Shard* head : heads_) {
    RENGA_ASSIGN_OR_RETURN(auto answer, head->RunHead(step, outputs));
    answers.push_back(std::move(answer));
  }
  std::vector<model::HeadRow> merged;
  for (const model::StepSlot& slot : step.slots) {
    for (int64_t i = 0; i < slot.output_count; ++i) {
      std::vector<model::HeadRow> blocks;
      for (const auto& answer : answers) blocks.push_back(answer[merged.size()]);
      merged.push_back(MergeBlocks(blocks, slot.top_k));
    }
  }
  return merged;
}

absl::StatusOr<std::vector<std::vector<float>>> TestPipeline::Feed(model::SequenceId sequence,
                                                                   std::span<const int32_t> tokens,
                                                                   int64_t chunk) {
  std::vector<std::vector<float>> logits;
  for (size_t done = 0; done < tokens.size();) {
    const auto piece = tokens.subspan(done, std::min<size_t>(chunk, tokens.size() - done));
    model::Step step;
    if (auto more = Extend(sequence, piece.size())) step.commands.push_back(*std::move(more));
    step.slots.push_back(Slot(sequence, piece.size()));
    RENGA_ASSIGN_OR_RETURN(std::vector<model::HeadRow> rows, Run(step, piece));
    for (model::HeadRow& row : rows) logits.push_back(std::move(row.logits));
    done += piece.size();
  }
  return logits;
}

absl::StatusOr<std::vector<int32_t>> TestPipeline::Greedy(model::SequenceId sequence,
                                                          int32_t last_token, int count) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) {
    model::Step step;
    if (auto more = Extend(sequence, 1)) step.commands.push_back(*std::move(more));
    step.slots.push_back(Slot(sequence, 1));
    step.slots[0].top_k = 1;
    RENGA_ASSIGN_OR_RETURN(const auto rows, Run(step, std::span(&last_token, 1)));
    last_token = rows[0].ids[0];
    tokens.push_back(last_token);
  }
  return tokens;
}

std::optional<model::KvCommand> TestPipeline::Extend(model::SequenceId sequence, int64_t tokens) {
  Growth& growth = sequences_[sequence];
  model::KvCommand command;
  command.kind = model::KvCommand::Kind::kAppendBlocks;
  command.sequence = sequence;
  while (growth.blocks * kKvBlockTokens < growth.length + tokens) {
    // Not in order, so that a block's number and its place differ.
    command.blocks.push_back(
        static_cast<int32_t>((next_block_++ * 37) % options_.limits.kv_blocks));
    ++growth.blocks;
  }
  if (command.blocks.empty()) return std::nullopt;
  return command;
}

model::StepSlot TestPipeline::Slot(model::SequenceId sequence, int64_t tokens) const {
  const auto known = sequences_.find(sequence);
  model::StepSlot slot;
  slot.sequence = sequence;
  slot.first_position = known == sequences_.end() ? 0 : known->second.length;
  slot.token_count = tokens;
  slot.output_count = tokens;
  return slot;
}

void TestPipeline::SetLength(model::SequenceId sequence, int64_t length, int64_t blocks) {
  sequences_[sequence] = {.length = length, .blocks = blocks};
}

void TestPipeline::Reset() {
  for (Shard* stage : stages_) stage->ResetSequences();
  sequences_.clear();
  next_block_ = 0;
}

}  // namespace renga::engine
