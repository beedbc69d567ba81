// Approximate modes compute what they say, and nothing else when they are off.
#include <algorithm>
#include <cmath>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_folder.h"
#include "model/late_program.h"
#include "model/testing/synthetic_model.h"
#include "worker/engine/golden_files.h"
#include "worker/engine/local_weights.h"
#include "worker/engine/shard.h"
#include "worker/engine/test_pipeline.h"
#include "worker/kernels/backend_factory.h"

namespace renga::engine {
namespace {

using ::renga::testing::StatusIs;
using Rows = std::vector<float>;
using Logits = std::vector<std::vector<float>>;

constexpr int64_t kTokens = 12;

// The model file, with some inputs of the first layer's feed-forward output set to zero.
class WithoutColumns : public WeightSource {
 public:
  WithoutColumns(WeightSource* file, const model::Range& columns, int64_t width)
      : file_(file), columns_(columns), width_(width) {}
  absl::StatusOr<base::DataType> TensorType(const std::string& name) override {
    return file_->TensorType(name);
  }
  absl::Status Read(const std::string& name, int64_t offset, std::span<std::byte> out) override {
    RENGA_RETURN_IF_ERROR(file_->Read(name, offset, out));
    if (name != "blk.0.ffn_down.weight") return absl::OkStatus();
    for (size_t i = 0; i < out.size(); ++i) {
      const int64_t column = (offset + static_cast<int64_t>(i)) / 4 % width_;
      if (column >= columns_.begin && column < columns_.end) out[i] = std::byte{0};
    }
    return absl::OkStatus();
  }

 private:
  WeightSource* const file_;
  const model::Range columns_;
  const int64_t width_;
};

// (architecture, device, late percent)
class LateSliceTest
    : public ::testing::TestWithParam<std::tuple<std::string, std::string, int64_t>> {
 protected:
  void SetUp() override {
    path_ = ::renga::testing::NewTempFolder() + "/model.gguf";
    model::SyntheticModelOptions options;
    options.architecture = std::get<0>(GetParam());
    options.n_layers = 2;
    options.d_model = 64;
    options.d_ff = 160;
    ASSERT_OK(model::WriteSyntheticModel(path_, options));
    ASSERT_OK_AND_ASSIGN(file_, model::GgufFile::Open(path_));
    ASSERT_OK_AND_ASSIGN(model_, model::ReadModel(*file_));
    ASSERT_OK_AND_ASSIGN(weights_, LocalWeights::Create(file_.get()));
    ASSERT_OK_AND_ASSIGN(backend_,
                         kernels::CreateBackend({.device = std::get<1>(GetParam()), .threads = 1}));
    limits_ = {.kv_blocks = 4,
               .max_step_tokens = 64,
               .max_step_outputs = 64,
               .kv_type = base::DataType::kF32};
  }

  int64_t percent() const { return std::get<2>(GetParam()); }

  // The rows that layers [0, layers) make of fixed inputs.
  absl::StatusOr<Rows> Run(int64_t layers, WeightSource* source,
                           const model::Approximation& approximation) {
    MemoryBudget budget(int64_t{1} << 30);
    model::RuntimeLimits limits = limits_;
    limits.approximation = approximation;
    RENGA_ASSIGN_OR_RETURN(const auto shard,
                           Shard::Load(model_, {.layers = {0, layers}, .head_rows = {}}, limits,
                                       backend_.get(), &budget, source, nullptr));
    model::Step step;
    step.commands.push_back(
        {.kind = model::KvCommand::Kind::kAppendBlocks, .sequence = 1, .blocks = {0}});
    step.slots.push_back({.sequence = 1, .token_count = kTokens});
    Rows rows(static_cast<size_t>(kTokens * model_.config.d_model));
    for (size_t i = 0; i < rows.size(); ++i) {
      rows[i] = std::sin(static_cast<float>(i) * 0.37f + static_cast<float>(i % 7));
    }
    RENGA_RETURN_IF_ERROR(shard->RunLayers(step, rows, nullptr));
    return rows;
  }

  std::string path_;
  std::unique_ptr<model::GgufFile> file_;
  model::Model model_;
  std::unique_ptr<LocalWeights> weights_;
  std::unique_ptr<kernels::Backend> backend_;
  model::RuntimeLimits limits_;
};

// The second layer sees the first one's output as if the late neurons were not there; what they add
// comes after it. Computed here from shards that know of no approximation.
TEST_P(LateSliceTest, TheNextLayerBeginsWithoutTheSlice) {
  const model::Range late = model::LateColumns(model_.config, percent());
  WithoutColumns without(weights_.get(), late, model_.config.d_ff);
  ASSERT_OK_AND_ASSIGN(const Rows first, Run(1, weights_.get(), {}));
  ASSERT_OK_AND_ASSIGN(const Rows first_without, Run(1, &without, {}));
  Rows expected;
  ASSERT_OK_AND_ASSIGN(expected, Run(2, &without, {}));
  for (size_t i = 0; i < expected.size(); ++i) expected[i] += first[i] - first_without[i];

  ASSERT_OK_AND_ASSIGN(const Rows rows, Run(2, weights_.get(), {.late_percent = percent()}));
  ASSERT_OK_AND_ASSIGN(const Rows exact, Run(2, weights_.get(), {}));
  // Only sums of the same numbers in another order, or their rounding to 8 bits on the CPU.
  EXPECT_LT(NormalisedError({rows}, {expected}), 1e-9);
  EXPECT_GT(NormalisedError({rows}, {exact}), 1e-6);
}

TEST_P(LateSliceTest, NothingIsLateAtTheEndOfAStage) {
  ASSERT_OK_AND_ASSIGN(const Rows exact, Run(1, weights_.get(), {}));
  ASSERT_OK_AND_ASSIGN(const Rows rows, Run(1, weights_.get(), {.late_percent = percent()}));
  EXPECT_LT(NormalisedError({rows}, {exact}), 1e-9);
}

TEST_P(LateSliceTest, PositionsBeyondTheCapAreExact) {
  ASSERT_OK_AND_ASSIGN(const Rows exact, Run(2, weights_.get(), {}));
  ASSERT_OK_AND_ASSIGN(Rows rows,
                       Run(2, weights_.get(), {.late_percent = percent(), .at_most_percent = 0}));
  EXPECT_LT(NormalisedError({rows}, {exact}), 1e-9);
  // Of the first four positions the fourth is the first that may be approximated.
  ASSERT_OK_AND_ASSIGN(rows,
                       Run(2, weights_.get(), {.late_percent = percent(), .at_most_percent = 25}));
  const auto part = [&](const Rows& all, int64_t first, int64_t count) {
    const auto begin = all.begin() + first * model_.config.d_model;
    return Rows(begin, begin + count * model_.config.d_model);
  };
  EXPECT_LT(NormalisedError({part(rows, 0, 3)}, {part(exact, 0, 3)}), 1e-9);
  EXPECT_GT(NormalisedError({part(rows, 3, 1)}, {part(exact, 3, 1)}), 1e-6);
}

TEST_P(LateSliceTest, ChunksChangeNoBit) {
  PipelineOptions options;
  options.device = std::get<1>(GetParam());
  options.limits.approximation = {.late_percent = percent(), .at_most_percent = 60};
  ASSERT_OK_AND_ASSIGN(const auto pipeline, TestPipeline::Create(path_, options));
  const std::vector<int32_t> tokens = {5, 9, 300, 12, 7, 44, 120, 8, 31, 6, 77, 211, 5, 19};
  ASSERT_OK_AND_ASSIGN(const Logits expected, pipeline->Feed(1, tokens, 256));
  for (const int64_t chunk : {1, 3, 5}) {
    pipeline->Reset();
    ASSERT_OK_AND_ASSIGN(const Logits logits, pipeline->Feed(1, tokens, chunk));
    EXPECT_EQ(logits, expected) << chunk;
  }
}

TEST_P(LateSliceTest, GroupsAreRefused) {
  MemoryBudget budget(int64_t{1} << 30);
  limits_.approximation.late_percent = percent();
  const model::ShardSpec spec = {.layers = {0, 2},
                                 .slice = model::LayerSlice{.heads = {0, 2}, .ff = {0, 96}},
                                 .head_rows = {}};
  EXPECT_THAT(Shard::Load(model_, spec, limits_, backend_.get(), &budget, weights_.get(), nullptr),
              StatusIs(absl::StatusCode::kUnimplemented));
}

INSTANTIATE_TEST_SUITE_P(All, LateSliceTest,
                         ::testing::Combine(::testing::Values("llama", "gemma3"),
                                            ::testing::Values("reference", "cpu"),
                                            ::testing::Values(20, 100)),
                         [](const auto& test) {
                           return std::get<0>(test.param) + "_" + std::get<1>(test.param) + "_" +
                                  std::to_string(std::get<2>(test.param));
                         });

// (device, head blocks)
class HotRowsTest : public ::testing::TestWithParam<std::tuple<std::string, int>> {
 protected:
  static constexpr int64_t kVocabulary = 320;

  void SetUp() override {
    path_ = ::renga::testing::NewTempFolder() + "/model.gguf";
    model::SyntheticModelOptions options;
    options.n_layers = 1;
    options.d_model = 64;
    options.d_ff = 96;
    options.vocab_size = kVocabulary;
    options.output_type = base::DataType::kQ8_0;
    ASSERT_OK(model::WriteSyntheticModel(path_, options));
    auto rows = std::make_shared<model::RowSet>();
    for (int32_t row = 0; row < kVocabulary; ++row) {
      if (row % 7 == 0 || (row > 100 && row < 120)) rows->push_back(row);
    }
    hot_ = std::move(rows);
    ASSERT_OK_AND_ASSIGN(exact_, Create({}));
    ASSERT_OK_AND_ASSIGN(expected_, exact_->Feed(1, tokens_, 256));
  }

  absl::StatusOr<std::unique_ptr<TestPipeline>> Create(const model::Approximation& approximation) {
    PipelineOptions options;
    options.device = std::get<0>(GetParam());
    options.head_blocks = std::get<1>(GetParam());
    options.limits.approximation = approximation;
    return TestPipeline::Create(path_, options);
  }

  // All tokens in one step.
  absl::StatusOr<std::vector<model::HeadRow>> Answer(TestPipeline& pipeline, int64_t top_k,
                                                     bool all_rows) {
    model::Step step;
    step.commands.push_back(*pipeline.Extend(1, static_cast<int64_t>(tokens_.size())));
    step.slots.push_back(pipeline.Slot(1, static_cast<int64_t>(tokens_.size())));
    step.slots[0].top_k = top_k;
    step.slots[0].all_rows = all_rows;
    auto rows = pipeline.Run(step, tokens_);
    pipeline.Reset();
    return rows;
  }

  bool IsHot(int64_t row) const { return std::binary_search(hot_->begin(), hot_->end(), row); }

  const std::vector<int32_t> tokens_ = {5, 9, 300, 12, 7, 44, 120, 8};
  std::string path_;
  std::shared_ptr<const model::RowSet> hot_;
  std::unique_ptr<TestPipeline> exact_;
  Logits expected_;
};

TEST_P(HotRowsTest, HotRowsHaveTheirLogitsAndOthersAreLessLikely) {
  ASSERT_OK_AND_ASSIGN(const auto pipeline, Create({.hot_rows = hot_}));
  ASSERT_OK_AND_ASSIGN(const Logits logits, pipeline->Feed(1, tokens_, 256));
  for (size_t i = 0; i < logits.size(); ++i) {
    const float best_hot = expected_[i][static_cast<size_t>(
        *std::max_element(hot_->begin(), hot_->end(), [&](int32_t a, int32_t b) {
          return expected_[i][static_cast<size_t>(a)] < expected_[i][static_cast<size_t>(b)];
        }))];
    for (size_t row = 0; row < logits[i].size(); ++row) {
      if (IsHot(static_cast<int64_t>(row))) {
        ASSERT_EQ(logits[i][row], expected_[i][row]) << i << " " << row;
      } else {
        // Each block has a least likely row of its own.
        ASSERT_LT(logits[i][row], best_hot) << i << " " << row;
      }
    }
  }
  pipeline->Reset();
  ASSERT_OK_AND_ASSIGN(const auto best, Answer(*pipeline, 5, false));
  for (size_t i = 0; i < best.size(); ++i) {
    std::vector<int32_t> hot = *hot_;
    std::stable_sort(hot.begin(), hot.end(), [&](int32_t a, int32_t b) {
      return expected_[i][static_cast<size_t>(a)] > expected_[i][static_cast<size_t>(b)];
    });
    hot.resize(5);
    EXPECT_EQ(best[i].ids, hot) << i;
  }
}

TEST_P(HotRowsTest, AllRowsAnswerAsTheExactHeadDoes) {
  ASSERT_OK_AND_ASSIGN(const auto guarded, Create({.hot_rows = hot_}));
  ASSERT_OK_AND_ASSIGN(const auto capped, Create({.hot_rows = hot_, .at_most_percent = 0}));
  for (const int64_t top_k : {int64_t{0}, int64_t{7}, kVocabulary}) {
    exact_->Reset();
    ASSERT_OK_AND_ASSIGN(const auto expected, Answer(*exact_, top_k, false));
    ASSERT_OK_AND_ASSIGN(const auto by_slot, Answer(*guarded, top_k, true));
    ASSERT_OK_AND_ASSIGN(const auto by_cap, Answer(*capped, top_k, false));
    for (size_t i = 0; i < expected.size(); ++i) {
      for (const model::HeadRow& row : {by_slot[i], by_cap[i]}) {
        EXPECT_EQ(row.ids, expected[i].ids);
        EXPECT_EQ(row.logits, expected[i].logits);
      }
    }
  }
}

TEST_P(HotRowsTest, MoreRowsThanAreHotMayBeAskedFor) {
  ASSERT_OK_AND_ASSIGN(const auto pipeline, Create({.hot_rows = hot_}));
  ASSERT_OK_AND_ASSIGN(const auto rows, Answer(*pipeline, kVocabulary, false));
  for (const model::HeadRow& row : rows) {
    ASSERT_EQ(row.ids.size(), static_cast<size_t>(kVocabulary));
    EXPECT_TRUE(IsHot(row.ids[0]));
    EXPECT_TRUE(std::is_sorted(row.logits.rbegin(), row.logits.rend()));
    EXPECT_EQ(std::set<int32_t>(row.ids.begin(), row.ids.end()).size(), row.ids.size());
  }
}

TEST_P(HotRowsTest, EveryFourthPositionUnderACapOfAQuarter) {
  ASSERT_OK_AND_ASSIGN(const auto pipeline, Create({.hot_rows = hot_, .at_most_percent = 25}));
  ASSERT_OK_AND_ASSIGN(const Logits logits, pipeline->Feed(1, tokens_, 3));
  for (size_t i = 0; i < logits.size(); ++i) {
    EXPECT_EQ(logits[i] == expected_[i], i % 4 != 3) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(All, HotRowsTest,
                         ::testing::Combine(::testing::Values("reference", "cpu"),
                                            ::testing::Values(1, 3)),
                         [](const auto& test) {
                           return std::get<0>(test.param) + "_" +
                                  std::to_string(std::get<1>(test.param));
                         });

}  // namespace
}  // namespace renga::engine
