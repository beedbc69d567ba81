#include "worker/service/testing/test_setup.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "base/testing/temp_folder.h"
#include "model/testing/synthetic_model.h"
#include "transport/grpc_status.h"
#include "transport/wire.h"
#include "worker/engine/local_weights.h"
#include "worker/engine/memory_budget.h"
#include "worker/engine/shard.h"
#include "worker/kernels/backend_factory.h"

namespace renga::worker::testing {

const TestModel& SmallModel() {
  static const TestModel* const model = [] {
    model::SyntheticModelOptions options;
    options.n_layers = 4;
    options.d_model = 128;
    options.n_heads = 4;
    options.n_kv_heads = 2;
    options.d_ff = 2560;  // 1.25 MiB: two pieces
    options.vocab_size = 5000;
    options.context_length = 256;
    const std::string path = renga::testing::NewTempFolder() + "/small.gguf";
    if (!model::WriteSyntheticModel(path, options).ok()) std::abort();
    return new TestModel(path);
  }();
  return *model;
}

const TestModel& SmallMixture() {
  static const TestModel* const model = [] {
    model::SyntheticModelOptions options;
    options.n_layers = 2;
    options.d_model = 128;
    options.n_heads = 4;
    options.n_kv_heads = 2;
    options.d_ff = 1536;
    options.n_experts = 6;
    options.n_experts_used = 2;
    options.vocab_size = 1000;
    options.context_length = 256;
    const std::string path = renga::testing::NewTempFolder() + "/mixture.gguf";
    if (!model::WriteSyntheticModel(path, options).ok()) std::abort();
    return new TestModel(path);
  }();
  return *model;
}

model::RuntimeLimits SmallLimits() {
  return {.kv_blocks = 8,
          .max_step_tokens = 32,
          .max_step_outputs = 32,
          .kv_type = base::DataType::kF16};
}

model::ShardSpec WholeSpec(const TestModel& model) {
  return {.layers = {0, model.model().config.n_layers},
          .head_rows = {0, model.model().config.vocab_size}};
}

model::Step MakeStep(uint64_t epoch, uint64_t number, int64_t position, int64_t tokens) {
  model::Step step;
  step.epoch = epoch;
  step.number = number;
  if (position == 0) {
    step.commands.push_back({.kind = model::KvCommand::Kind::kAppendBlocks,
                             .sequence = 1,
                             .source = 0,
                             .tokens = 0,
                             .blocks = {3, 0, 5}});
  }
  step.slots.push_back({.sequence = 1,
                        .first_position = position,
                        .token_count = tokens,
                        .output_count = tokens,
                        .top_k = 0});
  return step;
}

std::vector<float> MakeRows(int64_t rows, int64_t d_model, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> values(static_cast<size_t>(rows * d_model));
  for (float& value : values) value = static_cast<float>(random() % 2001) / 1000.0f - 1.0f;
  return values;
}

std::vector<std::vector<model::HeadRow>> ReferenceAnswers(const TestModel& model,
                                                          const std::vector<model::Step>& steps) {
  const auto backend = kernels::CreateBackend({.device = "cpu", .threads = 1});
  engine::MemoryBudget budget(int64_t{1} << 30);
  const auto weights = engine::LocalWeights::Create(&model.file());
  if (!backend.ok() || !weights.ok()) std::abort();
  const auto shard =
      engine::Shard::Load(model.model(), WholeSpec(model), SmallLimits(), backend->get(), &budget,
                          weights->get(), engine::LoadProgress());
  if (!shard.ok()) std::abort();
  const int64_t d_model = model.model().config.d_model;
  std::vector<std::vector<model::HeadRow>> answers;
  for (const model::Step& step : steps) {
    std::vector<float> rows =
        MakeRows(step.token_count(), d_model, static_cast<uint32_t>(step.number));
    if (!(*shard)->RunLayers(step, rows, nullptr).ok()) std::abort();
    auto answer = (*shard)->RunHead(step, engine::GatherOutputs(step, rows, d_model));
    if (!answer.ok()) std::abort();
    answers.push_back(*std::move(answer));
  }
  return answers;
}

absl::Status ErrorOf(const proto::StepResult& result) {
  return absl::Status(transport::StatusCodeFromWire(result.error_code()), result.error_message());
}

std::vector<std::vector<float>> LogitsOf(const proto::StepResult& result, int64_t vocab_size) {
  std::vector<model::HeadRow> rows;
  for (const proto::HeadRow& row : result.rows()) {
    const auto checked = transport::FromProto(row, vocab_size);
    if (!checked.ok()) std::abort();
    rows.push_back(*checked);
  }
  return LogitsOf(rows);
}

std::vector<std::vector<float>> LogitsOf(const std::vector<model::HeadRow>& rows) {
  std::vector<std::vector<float>> logits;
  for (const model::HeadRow& row : rows) logits.push_back(row.logits);
  return logits;
}

}  // namespace renga::worker::testing
