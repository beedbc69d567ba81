// Feed-forwards that come too late, or that are said to be missing, add nothing to their tokens,
// and nothing else changes.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/match.h"
#include "model/footprint.h"
#include "worker/engine/residency_fixture.h"
#include "worker/engine/test_pipeline.h"

namespace renga::engine {
namespace {

using ::renga::testing::StatusIs;

// The model file, some tensors of it all zero.
class WithoutTensors : public WeightSource {
 public:
  WithoutTensors(WeightSource* file, std::set<std::string> names)
      : file_(file), names_(std::move(names)) {}
  absl::StatusOr<base::DataType> TensorType(const std::string& name) override {
    return file_->TensorType(name);
  }
  absl::Status Read(const std::string& name, int64_t offset, std::span<std::byte> out) override {
    if (!names_.contains(name)) return file_->Read(name, offset, out);
    std::memset(out.data(), 0, out.size());
    return absl::OkStatus();
  }

 private:
  WeightSource* const file_;
  const std::set<std::string> names_;
};

class DeadlineTest : public ResidencyTest {
 protected:
  // A tensor of a feed-forward that is read from disk for every step, of the matrices whose names
  // end with `kind`.
  std::string FindStreamed(const std::string& kind) {
    std::string found;
    disk_->before_read = [&](const std::string& tensor) {
      if (absl::EndsWith(tensor, kind)) found = tensor;
    };
    auto shard = Load(30);
    EXPECT_OK(shard);
    if (shard.ok()) {
      EXPECT_OK(Feed(**shard));
    }
    shard->reset();
    disk_->before_read = nullptr;
    EXPECT_FALSE(found.empty()) << kind;
    return found;
  }

  // A chunk of a prompt and a token, of two sequences each.
  absl::StatusOr<std::vector<float>> FeedTwoSteps(Shard& shard) {
    std::vector<float> all;
    RENGA_RETURN_IF_ERROR(Step(shard, 0, 7, all));
    RENGA_RETURN_IF_ERROR(Step(shard, 7, 1, all));
    return all;
  }

  absl::StatusOr<std::vector<float>> FeedWithout(const std::string& tensor) {
    WithoutTensors without(weights_.get(), {tensor});
    MemoryBudget plenty(int64_t{1} << 30);
    model::RuntimeLimits exact = limits_;
    exact.approximation = {};
    RENGA_ASSIGN_OR_RETURN(
        auto shard, Shard::Load(model_, whole_, exact, backend_.get(), &plenty, &without, nullptr));
    return FeedTwoSteps(*shard);
  }

  // The disk brings `late` only when the step has gone on without it.
  void ExpectLeftOut(const std::string& late) {
    SCOPED_TRACE(late);
    const std::string layer = late.substr(0, late.find(".ffn"));
    ASSERT_OK_AND_ASSIGN(const std::vector<float> expected,
                         FeedWithout(layer + ".ffn_down.weight"));
    // Long enough for everything else, on a busy machine too.
    limits_.approximation.deadline_ms = 1000;
    std::atomic<Shard*> reading = nullptr;
    std::atomic<bool> slow = true;
    int64_t seen = 0;  // the reader's
    disk_->before_read = [&](const std::string& tensor) {
      if (tensor != late) return;
      const absl::Time give_up = absl::Now() + absl::Seconds(60);
      while (slow && (reading == nullptr || reading.load()->residency().left_out == seen)) {
        if (absl::Now() > give_up) return;
        absl::SleepFor(absl::Milliseconds(1));
      }
      if (slow) seen = reading.load()->residency().left_out;
    };
    ASSERT_OK_AND_ASSIGN(auto shard, Load(30));
    reading = shard.get();
    const auto actual = FeedTwoSteps(*shard);
    EXPECT_EQ(shard->left_out(), 1u);
    EXPECT_EQ(shard->residency().left_out, 2 * 7 + 2 * 1);
    slow = false;
    EXPECT_OK(actual);
    if (actual.ok()) {
      EXPECT_EQ(*actual, expected);
    }
    ExpectSameBits(*shard);
    EXPECT_EQ(shard->left_out(), 0u);
    shard.reset();
    disk_->before_read = nullptr;
    limits_.approximation = {};
  }
};

TEST_F(DeadlineTest, WhatComesTooLateAddsNothing) {
  ASSERT_NO_FATAL_FAILURE(ExpectLeftOut(FindStreamed("ffn_up.weight")));
  ASSERT_NO_FATAL_FAILURE(ExpectLeftOut(FindStreamed("ffn_down.weight")));
}

TEST_F(DeadlineTest, WhatComesInTimeIsExact) {
  limits_.approximation.deadline_ms = model::kMaxDeadlineMs;
  for (const int percent : {100, 30}) {
    ASSERT_OK_AND_ASSIGN(auto shard, Load(percent));
    ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
    EXPECT_EQ(shard->residency().left_out, 0);
  }
}

TEST_F(DeadlineTest, ASlowDiskLeavesOutNothingBeyondTheCap) {
  limits_.approximation = {.deadline_ms = 1, .at_most_percent = 0};
  disk_->delay = absl::Milliseconds(3);
  ASSERT_OK_AND_ASSIGN(auto shard, Load(30));
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
  EXPECT_EQ(shard->residency().left_out, 0);

  limits_.approximation.at_most_percent = 50;
  ASSERT_OK_AND_ASSIGN(shard, Load(30));
  std::vector<float> ignored;
  ASSERT_OK(Step(*shard, 0, 8, ignored));
  EXPECT_EQ(shard->left_out(), 0u);
  for (int64_t position = 8; position < 24; ++position) {
    ASSERT_OK(Step(*shard, position, 1, ignored));
    if (!limits_.approximation.Applies(position)) {
      EXPECT_EQ(shard->left_out(), 0u) << position;
    }
  }
  EXPECT_GT(shard->residency().left_out, 0);
}

TEST_F(DeadlineTest, AFileThatFailsIsRepairedHoweverLongThatTakes) {
  limits_.approximation.deadline_ms = model::kMaxDeadlineMs;
  ASSERT_OK_AND_ASSIGN(auto shard, Load(30));
  disk_->FailReads(5, 1, absl::DataLossError("injected"));
  ASSERT_NO_FATAL_FAILURE(ExpectSameBits(*shard));
  EXPECT_EQ(shard->residency().left_out, 0);
}

// (architecture, device)
class MissingTest : public ::testing::TestWithParam<std::tuple<std::string, std::string>> {
 protected:
  void SetUp() override {
    path_ = ::renga::testing::NewTempFolder() + "/model.gguf";
    model::SyntheticModelOptions options;
    options.architecture = std::get<0>(GetParam());
    options.n_layers = 4;
    options.d_model = 64;
    options.d_ff = 96;
    ASSERT_OK(model::WriteSyntheticModel(path_, options));
  }

  absl::StatusOr<std::vector<std::vector<float>>> Logits(const model::Approximation& approximation,
                                                         int stages = 1, int64_t chunk = 256) {
    PipelineOptions options;
    options.device = std::get<1>(GetParam());
    options.stages = stages;
    options.limits.approximation = approximation;
    RENGA_ASSIGN_OR_RETURN(const auto pipeline, TestPipeline::Create(path_, options));
    return pipeline->Feed(1, tokens_, chunk);
  }

  // The rows after all layers, of fixed inputs.
  absl::StatusOr<std::vector<float>> Rows(WeightSource* source, const model::Model& model,
                                          const model::Approximation& approximation) {
    RENGA_ASSIGN_OR_RETURN(
        const auto backend,
        kernels::CreateBackend({.device = std::get<1>(GetParam()), .threads = 1}));
    MemoryBudget budget(int64_t{1} << 30);
    const model::RuntimeLimits limits = {.kv_blocks = 4,
                                         .max_step_tokens = 64,
                                         .max_step_outputs = 64,
                                         .kv_type = base::DataType::kF32,
                                         .approximation = approximation};
    RENGA_ASSIGN_OR_RETURN(
        const auto shard,
        Shard::Load(model, {.layers = {0, model.config.n_layers}, .head_rows = {}}, limits,
                    backend.get(), &budget, source, nullptr));
    model::Step step;
    step.commands.push_back(
        {.kind = model::KvCommand::Kind::kAppendBlocks, .sequence = 1, .blocks = {0}});
    step.slots.push_back({.sequence = 1, .token_count = 12});
    std::vector<float> rows(static_cast<size_t>(12 * model.config.d_model));
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = std::sin(static_cast<float>(i) * 0.37f);
    RENGA_RETURN_IF_ERROR(shard->RunLayers(step, rows, nullptr));
    return rows;
  }

  const std::vector<int32_t> tokens_ = {5, 9, 300, 12, 7, 44, 120, 8, 31, 6, 77, 211, 5, 19};
  std::string path_;
};

TEST_P(MissingTest, AllMissingIsAModelWithoutFeedForwards) {
  ASSERT_OK_AND_ASSIGN(const auto file, model::GgufFile::Open(path_));
  ASSERT_OK_AND_ASSIGN(const model::Model model, model::ReadModel(*file));
  ASSERT_OK_AND_ASSIGN(const auto weights, LocalWeights::Create(file.get()));
  std::set<std::string> downs;
  for (int64_t layer = 0; layer < model.config.n_layers; ++layer) {
    downs.insert(absl::StrCat("blk.", layer, ".ffn_down.weight"));
  }
  WithoutTensors without(weights.get(), downs);
  ASSERT_OK_AND_ASSIGN(const auto expected, Rows(&without, model, {}));
  ASSERT_OK_AND_ASSIGN(const auto rows, Rows(weights.get(), model, {.missing_percent = 100}));
  EXPECT_EQ(rows, expected);
  ASSERT_OK_AND_ASSIGN(const auto exact, Rows(weights.get(), model, {}));
  EXPECT_NE(rows, exact);
}

TEST_P(MissingTest, LayersWithoutPartsAddNothing) {
  ASSERT_OK_AND_ASSIGN(const auto file, model::GgufFile::Open(path_));
  ASSERT_OK_AND_ASSIGN(const model::Model model, model::ReadModel(*file));
  ASSERT_OK_AND_ASSIGN(const auto weights, LocalWeights::Create(file.get()));
  const model::Approximation approximation = {.without_attention = {1, 3},
                                              .without_feed_forward = {0, 1}};
  WithoutTensors without(weights.get(), {"blk.1.attn_output.weight", "blk.3.attn_output.weight",
                                         "blk.0.ffn_down.weight", "blk.1.ffn_down.weight"});
  ASSERT_OK_AND_ASSIGN(const auto expected, Rows(&without, model, {}));
  EXPECT_THAT(Rows(weights.get(), model, approximation), ::renga::testing::IsOkAndHolds(expected));
  ASSERT_OK_AND_ASSIGN(const auto exact, Rows(weights.get(), model, {}));
  EXPECT_NE(expected, exact);

  ASSERT_OK_AND_ASSIGN(const auto logits, Logits(approximation));
  EXPECT_THAT(Logits(approximation, 3, 1), ::renga::testing::IsOkAndHolds(logits));
}

TEST_P(MissingTest, NeitherChunksNorStagesChangeABit) {
  const model::Approximation some = {.missing_percent = 40, .at_most_percent = 60};
  ASSERT_OK_AND_ASSIGN(const auto expected, Logits(some));
  ASSERT_OK_AND_ASSIGN(auto logits, Logits(some, 1, 3));
  EXPECT_EQ(logits, expected);
  ASSERT_OK_AND_ASSIGN(logits, Logits(some, 3, 1));
  EXPECT_EQ(logits, expected);
  ASSERT_OK_AND_ASSIGN(logits, Logits({}));
  EXPECT_NE(logits, expected);
}

TEST_P(MissingTest, NothingIsMissingBeyondTheCap) {
  ASSERT_OK_AND_ASSIGN(const auto exact, Logits({}));
  ASSERT_OK_AND_ASSIGN(auto logits, Logits({.missing_percent = 100, .at_most_percent = 0}));
  EXPECT_EQ(logits, exact);
  // Of the first four positions the fourth is the first that may be approximated.
  ASSERT_OK_AND_ASSIGN(logits, Logits({.missing_percent = 100, .at_most_percent = 25}));
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(logits[i] == exact[i], i < 3) << i;
}

INSTANTIATE_TEST_SUITE_P(All, MissingTest,
                         ::testing::Combine(::testing::Values("llama", "gemma3"),
                                            ::testing::Values("reference", "cpu")),
                         [](const auto& test) {
                           return std::get<0>(test.param) + "_" + std::get<1>(test.param);
                         });

TEST(IsMissingTest, TheShareIsTheOneAskedFor) {
  for (const int64_t percent : {0, 1, 10, 50, 99, 100}) {
    const model::Approximation approximation = {.missing_percent = percent};
    int64_t missing = 0;
    for (int64_t position = 0; position < 1000; ++position) {
      for (int64_t layer = 0; layer < 30; ++layer) {
        missing += approximation.IsMissing(position, layer) ? 1 : 0;
      }
    }
    // Four standard deviations of 30,000 draws.
    EXPECT_NEAR(static_cast<double>(missing), 300.0 * static_cast<double>(percent), 350) << percent;
    EXPECT_EQ(missing == 0, percent == 0);
    EXPECT_EQ(missing == 30'000, percent == 100);
  }
}

// Two layers and a budget: what is left out is neither read nor held.
TEST(LeftOutTest, LayersWithoutPartsAreNotHeld) {
  const std::string path = ::renga::testing::NewTempFolder() + "/model.gguf";
  ASSERT_OK(model::WriteSyntheticModel(path, {.n_layers = 2, .d_model = 64, .d_ff = 160}));
  ASSERT_OK_AND_ASSIGN(const auto file, model::GgufFile::Open(path));
  ASSERT_OK_AND_ASSIGN(const model::Model model, model::ReadModel(*file));
  ASSERT_OK_AND_ASSIGN(const auto weights, LocalWeights::Create(file.get()));
  ASSERT_OK_AND_ASSIGN(const auto footprint, model::MeasureModel(*file, model));
  ASSERT_OK_AND_ASSIGN(const auto backend, kernels::CreateBackend({.device = "cpu", .threads = 1}));
  const auto held = [&](const model::Approximation& approximation, LoadMode mode) {
    MemoryBudget budget(int64_t{1} << 30);
    const model::RuntimeLimits limits = {
        .kv_blocks = 4, .max_step_tokens = 64, .approximation = approximation};
    const auto shard = Shard::Load(model, {.layers = {0, 2}, .head_rows = {}}, limits,
                                   backend.get(), &budget, weights.get(), nullptr, mode);
    return shard.ok() ? absl::StatusOr<int64_t>(budget.used_bytes()) : shard.status();
  };
  ASSERT_OK_AND_ASSIGN(const int64_t all, held({}, LoadMode::kEager));
  ASSERT_OK_AND_ASSIGN(
      const int64_t less,
      held({.without_attention = {1}, .without_feed_forward = {0, 1}}, LoadMode::kEager));
  const model::LayerWeightBytes& layer = footprint.layers[1];
  EXPECT_EQ(all - less, layer.query_heads + layer.kv_heads + 2 * layer.feed_forward);
  EXPECT_THAT(held({.without_attention = {1}}, LoadMode::kLazy),
              StatusIs(absl::StatusCode::kUnimplemented));
}

TEST(LeftOutTest, SlicesOfLayersAreRefused) {
  const std::string path = ::renga::testing::NewTempFolder() + "/model.gguf";
  ASSERT_OK(model::WriteSyntheticModel(path, {.n_layers = 2, .d_model = 64, .d_ff = 160}));
  ASSERT_OK_AND_ASSIGN(const auto file, model::GgufFile::Open(path));
  ASSERT_OK_AND_ASSIGN(const model::Model model, model::ReadModel(*file));
  ASSERT_OK_AND_ASSIGN(const auto weights, LocalWeights::Create(file.get()));
  ASSERT_OK_AND_ASSIGN(const auto backend, kernels::CreateBackend({.device = "cpu", .threads = 1}));
  for (const model::Approximation& approximation :
       {model::Approximation{.deadline_ms = 5}, model::Approximation{.missing_percent = 5}}) {
    MemoryBudget budget(int64_t{1} << 30);
    const model::ShardSpec spec = {.layers = {0, 2},
                                   .slice = model::LayerSlice{.heads = {0, 2}, .ff = {0, 96}},
                                   .head_rows = {}};
    const model::RuntimeLimits limits = {.kv_blocks = 4,
                                         .max_step_tokens = 64,
                                         .max_step_outputs = 0,
                                         .kv_type = base::DataType::kF32,
                                         .approximation = approximation};
    EXPECT_THAT(Shard::Load(model, spec, limits, backend.get(), &budget, weights.get(), nullptr),
                StatusIs(absl::StatusCode::kUnimplemented));
  }
}

}  // namespace
}  // namespace renga::engine
