// Mixtures of experts: the same bits however tokens are cut into chunks, stages and batches, and
// whoever else's rows an expert computes; devices agree.
#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_folder.h"
#include "model/testing/synthetic_model.h"
#include "worker/engine/golden_files.h"
#include "worker/engine/test_pipeline.h"

namespace renga::engine {
namespace {

using ::renga::testing::StatusIs;
using ::testing::HasSubstr;
using Logits = std::vector<std::vector<float>>;

struct MixtureShape {
  const char* architecture;
  base::DataType type;
  int64_t experts;
  int64_t used;
};

std::string WriteMixture(const MixtureShape& shape) {
  const std::string path = absl::StrCat(renga::testing::NewTempFolder(), "/model.gguf");
  const absl::Status status = model::WriteSyntheticModel(path, {.architecture = shape.architecture,
                                                                .n_layers = 4,
                                                                .d_ff = 96,
                                                                .n_experts = shape.experts,
                                                                .n_experts_used = shape.used,
                                                                .vocab_size = 300,
                                                                .type = shape.type,
                                                                .seed = 9});
  EXPECT_OK(status);
  return path;
}

std::vector<int32_t> SomeTokens(int count) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back((i * 37 + i * i) % 300);
  return tokens;
}

bool AreSameBits(const Logits& a, const Logits& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0;
  });
}

absl::StatusOr<Logits> LogitsOf(const std::string& path, const PipelineOptions& options,
                                int64_t chunk = 40) {
  auto pipeline = TestPipeline::Create(path, options);
  if (!pipeline.ok()) return pipeline.status();
  return (*pipeline)->Feed(1, SomeTokens(40), chunk);
}

class ExpertsTest : public ::testing::TestWithParam<MixtureShape> {};

TEST_P(ExpertsTest, SameBitsForAnyChunkStagesAndThreads) {
  const std::string path = WriteMixture(GetParam());
  ASSERT_OK_AND_ASSIGN(const Logits expected, LogitsOf(path, {}));
  for (const int64_t chunk : {1, 2, 7, 33}) {
    SCOPED_TRACE(chunk);
    ASSERT_OK_AND_ASSIGN(const Logits logits, LogitsOf(path, {}, chunk));
    EXPECT_TRUE(AreSameBits(logits, expected));
  }
  for (const int stages : {1, 2, 3}) {
    SCOPED_TRACE(stages);
    ASSERT_OK_AND_ASSIGN(
        const Logits logits,
        LogitsOf(path, {.threads = 3, .stages = stages, .head_blocks = stages}, 5));
    EXPECT_TRUE(AreSameBits(logits, expected));
  }
}

TEST_P(ExpertsTest, SameBitsBesideStrangers) {
  const std::string path = WriteMixture(GetParam());
  ASSERT_OK_AND_ASSIGN(auto pipeline, TestPipeline::Create(path, {}));
  const std::vector<int32_t> tokens = SomeTokens(12);
  ASSERT_OK_AND_ASSIGN(const Logits alone, pipeline->Feed(1, tokens, 12));
  // Another text's rows stand before and behind.
  model::Step step;
  std::vector<int32_t> all;
  for (const model::SequenceId id : {2, 3, 4}) {
    if (auto more = pipeline->Extend(id, 12)) step.commands.push_back(*std::move(more));
    step.slots.push_back(pipeline->Slot(id, 12));
    for (size_t i = 0; i < tokens.size(); ++i) {
      all.push_back(id == 3 ? tokens[i] : static_cast<int32_t>(i * 11 + 5));
    }
  }
  ASSERT_OK_AND_ASSIGN(const auto rows, pipeline->Run(step, all));
  Logits beside;
  for (size_t i = 12; i < 24; ++i) beside.push_back(rows[i].logits);
  EXPECT_TRUE(AreSameBits(beside, alone));
}

TEST_P(ExpertsTest, DevicesAgree) {
  const std::string path = WriteMixture(GetParam());
  ASSERT_OK_AND_ASSIGN(const Logits expected, LogitsOf(path, {.device = "reference"}));
  ASSERT_OK_AND_ASSIGN(const Logits logits, LogitsOf(path, {}));
  // An activation that is rounded to 8 bits may choose another expert where two are nearly as good.
  const double limit = GetParam().type == base::DataType::kF32 ? 1e-6 : 2e-2;
  EXPECT_LE(NormalisedError(logits, expected), limit);
#if RENGA_EMULATED_CUDA
  ASSERT_OK_AND_ASSIGN(const Logits card, LogitsOf(path, {.device = "emulated-cuda"}));
  EXPECT_LE(NormalisedError(card, expected), limit);
#endif
}

INSTANTIATE_TEST_SUITE_P(Kinds, ExpertsTest,
                         ::testing::Values(MixtureShape{"llama", base::DataType::kF32, 6, 2},
                                           MixtureShape{"llama", base::DataType::kQ4_0, 5, 1},
                                           MixtureShape{"qwen3moe", base::DataType::kQ8_0, 16, 4},
                                           MixtureShape{"qwen3moe", base::DataType::kQ5_1, 4, 4}),
                         [](const ::testing::TestParamInfo<MixtureShape>& param) {
                           return absl::StrCat(param.param.architecture, "_", param.param.experts,
                                               "_", base::GetDataTypeInfo(param.param.type).name);
                         });

TEST(MixtureTest, WhatIsNotForExpertsIsRefused) {
  const std::string path = WriteMixture({"qwen3moe", base::DataType::kQ8_0, 4, 2});
  const auto refusal = [&](const model::Approximation& approximation) {
    PipelineOptions options;
    options.limits.approximation = approximation;
    return TestPipeline::Create(path, options).status();
  };
  for (const model::Approximation& approximation :
       {model::Approximation{.late_percent = 30}, model::Approximation{.deadline_ms = 5},
        model::Approximation{.cold_neurons =
                                 std::make_shared<model::NeuronSet>(model::NeuronSet{1})}}) {
    EXPECT_THAT(refusal(approximation),
                StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("experts")));
  }
  // What leaves out whole feed-forwards works.
  ASSERT_OK_AND_ASSIGN(const Logits whole, LogitsOf(path, {}));
  PipelineOptions without;
  without.limits.approximation.without_feed_forward = {1};
  ASSERT_OK_AND_ASSIGN(const Logits less, LogitsOf(path, without));
  EXPECT_NE(less, whole);
}

}  // namespace
}  // namespace renga::engine
