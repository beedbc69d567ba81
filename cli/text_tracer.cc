#include "cli/text_tracer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/step.h"
#include "worker/kernels/backend_factory.h"

namespace renga::cli {
namespace {

constexpr int64_t kWindow = 512;
// Rows kept of each position: as many as a top-k sampler usually looks at.
constexpr int64_t kBestRows = 40;
// Rows that go through layers and head at a time.
constexpr int64_t kStepTokens = 64;

}  // namespace

absl::StatusOr<std::unique_ptr<TextTracer>> TextTracer::Create(const cluster::ModelStore& store,
                                                               const model::Tokenizer& tokenizer,
                                                               const std::string& device,
                                                               int threads, int64_t memory_bytes) {
  std::unique_ptr<TextTracer> tracer(new TextTracer(store, tokenizer, memory_bytes));
  const model::Model& model = store.model();
  RENGA_ASSIGN_OR_RETURN(tracer->weights_, engine::LocalWeights::Create(&store.file()));
  RENGA_ASSIGN_OR_RETURN(tracer->backend_,
                         kernels::CreateBackend({.device = device, .threads = threads}));
  RENGA_RETURN_IF_ERROR(tracer->LoadNorm());
  const model::ShardSpec spec{.layers = {0, model.config.n_layers},
                              .head_rows = {0, model.config.vocab_size}};
  const model::RuntimeLimits limits{.kv_blocks = kWindow / model::kKvBlockTokens,
                                    .max_step_tokens = kStepTokens,
                                    .max_step_outputs = kStepTokens};
  RENGA_ASSIGN_OR_RETURN(tracer->shard_,
                         engine::Shard::Load(model, spec, limits, tracer->backend_.get(),
                                             &tracer->budget_, tracer->weights_.get(), nullptr));
  RENGA_RETURN_IF_ERROR(model.config.has_experts() ? tracer->WatchExperts()
                                                   : tracer->WatchNeurons());
  return tracer;
}

absl::Status TextTracer::WatchNeurons() {
  const model::ModelConfig& config = store_.model().config;
  RENGA_ASSIGN_OR_RETURN(std::vector<float> lengths, NeuronLengths());
  neurons_ =
      std::make_unique<partition::NeuronRecorder>(config.n_layers, config.d_ff, std::move(lengths));
  return shard_->ObserveNeurons([this](int64_t layer, std::span<const float> rows) {
    neurons_->Add(layer, position_, rows);
  });
}

absl::Status TextTracer::WatchExperts() {
  const model::ModelConfig& config = store_.model().config;
  experts_ = std::make_unique<partition::ExpertRecorder>(config.n_layers, config.n_experts,
                                                         config.n_experts_used);
  return shard_->ObserveExperts([this](int64_t layer, std::span<const engine::ExpertRow> chosen) {
    for (const engine::ExpertRow& row : chosen) {
      experts_->Add(layer, position_ + row.row, row.expert);
    }
  });
}

absl::StatusOr<std::vector<float>> TextTracer::NeuronLengths() {
  const model::Model& model = store_.model();
  std::vector<float> squares(static_cast<size_t>(model.config.n_layers * model.config.d_ff));
  std::vector<std::byte> stored;
  std::vector<float> row(static_cast<size_t>(model.config.d_ff));
  for (int64_t layer = 0; layer < model.config.n_layers; ++layer) {
    for (const model::TensorSpec& tensor : model.architecture->LayerTensors(model.config, layer)) {
      if (tensor.cut != model::Cut::kFeedForwardColumns || tensor.must_be_f32) continue;
      RENGA_ASSIGN_OR_RETURN(const base::DataType type, weights_->TensorType(tensor.name));
      RENGA_ASSIGN_OR_RETURN(const int64_t bytes, base::RowBytes(type, tensor.columns));
      stored.resize(static_cast<size_t>(bytes));
      float* const sums = squares.data() + layer * model.config.d_ff;
      for (int64_t r = 0; r < tensor.rows; ++r) {
        RENGA_RETURN_IF_ERROR(weights_->Read(tensor.name, r * bytes, stored));
        base::GetDataTypeInfo(type).to_float(stored.data(), row.data(), tensor.columns);
        for (size_t n = 0; n < row.size(); ++n) sums[n] += row[n] * row[n];
      }
    }
  }
  for (float& square : squares) square = std::sqrt(square);
  return squares;
}

absl::Status TextTracer::LoadNorm() {
  const model::TensorSpec norm = model::OutputNormTensor(store_.model().config);
  norm_.resize(static_cast<size_t>(norm.columns));
  return weights_->Read(norm.name, 0, std::as_writable_bytes(std::span(norm_)));
}

absl::StatusOr<partition::TextTrace> TextTracer::Trace(const std::string& name,
                                                       const std::string& text) {
  RENGA_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, tokenizer_.Encode(text, {}));
  partition::TextTrace trace;
  trace.name = name;
  position_ = 0;
  const bool with_bos = tokenizer_.adds_bos() && tokenizer_.bos().has_value();
  const size_t room = static_cast<size_t>(kWindow) - (with_bos ? 1 : 0);
  const size_t windows = (tokens.size() + room - 1) / room;
  const auto positions = static_cast<int64_t>(tokens.size() + (with_bos ? windows : 0));
  if (neurons_ != nullptr) neurons_->BeginText(name, positions);
  if (experts_ != nullptr) experts_->BeginText(name, positions);
  for (size_t at = 0; at < tokens.size(); at += room) {
    std::vector<int32_t> window;
    if (with_bos) window.push_back(*tokenizer_.bos());
    const size_t count = std::min(room, tokens.size() - at);
    window.insert(window.end(), tokens.begin() + static_cast<int64_t>(at),
                  tokens.begin() + static_cast<int64_t>(at + count));
    RENGA_RETURN_IF_ERROR(RunWindow(window, trace));
  }
  return trace;
}

absl::Status TextTracer::RunWindow(const std::vector<int32_t>& tokens,
                                   partition::TextTrace& trace) {
  shard_->ResetSequences();
  const auto size = static_cast<int64_t>(tokens.size());
  for (int64_t done = 0; done < size; done += kStepTokens) {
    const int64_t count = std::min(kStepTokens, size - done);
    model::Step step{.epoch = 1, .number = ++steps_, .commands = {}, .slots = {}};
    model::KvCommand grow;
    grow.kind = model::KvCommand::Kind::kAppendBlocks;
    grow.sequence = 1;
    for (int64_t block = done / model::kKvBlockTokens; block * model::kKvBlockTokens < done + count;
         ++block) {
      grow.blocks.push_back(static_cast<int32_t>(block));
    }
    step.commands.push_back(std::move(grow));
    step.slots.push_back({.sequence = 1,
                          .first_position = done,
                          .token_count = count,
                          .output_count = count,
                          .top_k = kBestRows});
    const auto ids =
        std::span(tokens).subspan(static_cast<size_t>(done), static_cast<size_t>(count));
    RENGA_ASSIGN_OR_RETURN(std::vector<float> rows, store_.embeddings().Rows(ids));
    RENGA_RETURN_IF_ERROR(shard_->RunLayers(step, rows, nullptr));
    position_ += count;
    RENGA_ASSIGN_OR_RETURN(const std::vector<model::HeadRow> answers, shard_->RunHead(step, rows));
    for (int64_t i = 0; i < count; ++i) {
      const model::HeadRow& answer = answers[static_cast<size_t>(i)];
      std::vector<float> shares;
      for (const float logit : answer.logits) {
        shares.push_back(
            static_cast<float>(std::exp(double{logit} - answer.max_logit) / answer.sum_exp));
      }
      trace.tokens.push_back(ids[static_cast<size_t>(i)]);
      trace.best.push_back(answer.ids);
      trace.shares.push_back(std::move(shares));
    }
    Norm(rows);
    moments_.Add(rows);
  }
  return absl::OkStatus();
}

void TextTracer::Norm(std::vector<float>& rows) const {
  for (size_t at = 0; at < rows.size(); at += norm_.size()) {
    double squares = 0;
    for (size_t i = 0; i < norm_.size(); ++i) squares += double{rows[at + i]} * rows[at + i];
    const double mean = squares / static_cast<double>(norm_.size());
    const double scale = 1 / std::sqrt(mean + store_.model().config.norm_epsilon);
    for (size_t i = 0; i < norm_.size(); ++i) {
      rows[at + i] = static_cast<float>(rows[at + i] * scale * norm_[i]);
    }
  }
}

}  // namespace renga::cli
