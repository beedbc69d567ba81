// Runs texts through a model on this machine and keeps what `renga regions` is about: the best rows
// of every position, what feed-forward neurons did or which experts were chosen, and the hidden
// states' second moments. Steps go straight to a shard: hidden states never leave a worker
// otherwise.
#ifndef RENGA_CLI_TEXT_TRACER_H_
#define RENGA_CLI_TEXT_TRACER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/cluster/model_store.h"
#include "model/tokenizer.h"
#include "partition/expert_usage.h"
#include "partition/neuron_recorder.h"
#include "partition/regions.h"
#include "worker/engine/local_weights.h"
#include "worker/engine/screen_builder.h"
#include "worker/engine/shard.h"

namespace renga::cli {

// Not thread-safe.
class TextTracer {
 public:
  // `store` and `tokenizer` outlive the tracer. Errors of the device, and kResourceExhausted when
  // the model does not fit into `memory_bytes`.
  static absl::StatusOr<std::unique_ptr<TextTracer>> Create(const cluster::ModelStore& store,
                                                            const model::Tokenizer& tokenizer,
                                                            const std::string& device, int threads,
                                                            int64_t memory_bytes);

  // The text in windows of at most 512 tokens, each begun with BOS where the vocabulary has one.
  absl::StatusOr<partition::TextTrace> Trace(const std::string& name, const std::string& text);

  const engine::HiddenMoments& moments() const { return moments_; }
  // Of all texts so far; then nothing more can be traced.
  // Neurons of a model without experts, experts of a mixture.
  partition::NeuronRecord FinishNeurons() { return neurons_->Finish(); }
  partition::ExpertRecord FinishExperts() { return experts_->Finish(); }
  engine::WeightSource& weights() { return *weights_; }

 private:
  TextTracer(const cluster::ModelStore& store, const model::Tokenizer& tokenizer,
             int64_t memory_bytes)
      : store_(store),
        tokenizer_(tokenizer),
        budget_(memory_bytes),
        moments_(store.model().config.d_model) {}
  absl::Status LoadNorm();
  absl::Status WatchNeurons();
  absl::Status WatchExperts();
  // By layer and neuron, the length of its column of the down projection.
  absl::StatusOr<std::vector<float>> NeuronLengths();
  absl::Status RunWindow(const std::vector<int32_t>& tokens, partition::TextTrace& trace);
  // As the head norms them.
  void Norm(std::vector<float>& rows) const;

  const cluster::ModelStore& store_;
  const model::Tokenizer& tokenizer_;
  std::unique_ptr<engine::LocalWeights> weights_;
  std::unique_ptr<kernels::Backend> backend_;
  engine::MemoryBudget budget_;
  std::unique_ptr<engine::Shard> shard_;
  std::vector<float> norm_;
  engine::HiddenMoments moments_;
  std::unique_ptr<partition::NeuronRecorder> neurons_;  // null for a mixture
  std::unique_ptr<partition::ExpertRecorder> experts_;  // null for other models
  int64_t position_ = 0;                                // of the step's first row, in its text
  uint64_t steps_ = 0;
};

}  // namespace renga::cli

#endif  // RENGA_CLI_TEXT_TRACER_H_
