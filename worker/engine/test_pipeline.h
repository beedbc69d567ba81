// A whole model cut into shards in one process, for tests: stages, head blocks and the exact merge
// of their answers, with nothing between them.
#ifndef RENGA_WORKER_ENGINE_TEST_PIPELINE_H_
#define RENGA_WORKER_ENGINE_TEST_PIPELINE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "model/embedding.h"
#include "model/gguf_file.h"
#include "worker/engine/local_weights.h"
#include "worker/engine/memory_budget.h"
#include "worker/engine/shard.h"
#include "worker/kernels/backend_factory.h"

namespace renga::engine {

struct PipelineOptions {
  std::string device = "cpu";
  int threads = 1;
  int stages = 1;
  int head_blocks = 1;  // of uneven sizes
  model::RuntimeLimits limits = {.kv_blocks = 64,
                                 .max_step_tokens = 256,
                                 .max_step_outputs = 256,
                                 .kv_type = base::DataType::kF32};
};

class TestPipeline {
 public:
  static absl::StatusOr<std::unique_ptr<TestPipeline>> Create(const std::string& path,
                                                              const PipelineOptions& options);

  // Runs the step; `tokens` are those of all its slots. One merged row per output.
  absl::StatusOr<std::vector<model::HeadRow>> Run(const model::Step& step,
                                                  std::span<const int32_t> tokens);

  // Appends `tokens` to the sequence (blocks and all) in steps of at most `chunk` tokens; all
  // logits of each token.
  absl::StatusOr<std::vector<std::vector<float>>> Feed(model::SequenceId sequence,
                                                       std::span<const int32_t> tokens,
                                                       int64_t chunk);
  // Greedy continuation of a sequence that ends with `last_token`, which is not yet fed.
  absl::StatusOr<std::vector<int32_t>> Greedy(model::SequenceId sequence, int32_t last_token,
                                              int count);

  // For steps made by hand. The blocks that let `sequence` grow by `tokens`, nullopt when it has
  // room; and a slot at its end that asks for all logits of all tokens.
  std::optional<model::KvCommand> Extend(model::SequenceId sequence, int64_t tokens);
  model::StepSlot Slot(model::SequenceId sequence, int64_t tokens) const;
  // Records what a command does to a sequence's length.
  void SetLength(model::SequenceId sequence, int64_t length, int64_t blocks);

  void Reset();
  int stage_count() const { return static_cast<int>(stages_.size()); }
  const model::Model& model() const { return model_; }

 private:
  struct Growth {
    int64_t length = 0;
    int64_t blocks = 0;
  };

  explicit TestPipeline(const PipelineOptions& options) : options_(options) {}
  absl::Status LoadShards();
  absl::StatusOr<std::vector<model::HeadRow>> RunHeads(const model::Step& step,
                                                       std::span<const float> outputs);

  const PipelineOptions options_;
  std::unique_ptr<model::GgufFile> file_;
  model::Model model_;
  std::optional<model::EmbeddingTable> embedding_;
  std::unique_ptr<LocalWeights> weights_;
  std::unique_ptr<kernels::Backend> backend_;
  MemoryBudget budget_{int64_t{1} << 30};
  std::vector<std::unique_ptr<Shard>> shards_;  // as loaded
  std::vector<Shard*> stages_;
  std::vector<Shard*> heads_;  // in order of rows
  absl::flat_hash_map<model::SequenceId, Growth> sequences_;
  int32_t next_block_ = 0;
};

// The best `top_k` of the blocks' answers to one output, or with 0 all logits in order.
model::HeadRow MergeBlocks(const std::vector<model::HeadRow>& blocks, int64_t top_k);

}  // namespace renga::engine

#endif  // RENGA_WORKER_ENGINE_TEST_PIPELINE_H_
