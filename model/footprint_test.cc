#include "model/footprint.h"

#include <cstdio>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "model/step.h"
#include "model/testing/synthetic_model.h"

namespace renga::model {
namespace {

class FootprintTest : public ::testing::Test {
 protected:
  void Open(const SyntheticModelOptions& options) {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    const std::string path =
        absl::StrCat(::testing::TempDir(), "renga_footprint_", test->name(), ".gguf");
    ASSERT_OK(WriteSyntheticModel(path, options));
    auto file = GgufFile::Open(path);
    std::remove(path.c_str());  // the mapping keeps it
    ASSERT_OK_AND_ASSIGN(file_, std::move(file));
    ASSERT_OK_AND_ASSIGN(model_, ReadModel(*file_));
    ASSERT_OK_AND_ASSIGN(footprint_, MeasureModel(*file_, model_));
  }

  std::unique_ptr<GgufFile> file_;
  Model model_;
  ModelFootprint footprint_;
};

TEST_F(FootprintTest, PartsAddUpToTheFile) {
  for (const bool tied : {false, true}) {
    SyntheticModelOptions options;
    options.type = base::DataType::kQ4_K;
    options.output_type = base::DataType::kQ6_K;
    options.rope_factors = true;
    options.tied_output = tied;
    Open(options);
    int64_t total = footprint_.embedding_bytes + footprint_.shared_bytes;
    for (const LayerWeightBytes& layer : footprint_.layers) total += layer.total();
    if (!tied) total += footprint_.head_row_bytes * options.vocab_size;
    EXPECT_EQ(total, file_->total_tensor_bytes());
    EXPECT_EQ(footprint_.head_row_bytes, 210);  // one Q6_K block
    EXPECT_EQ(footprint_.shared_bytes, 256 * 4 + 32 * 4);
    EXPECT_EQ(footprint_.layers.size(), 4u);
  }
}

TEST_F(FootprintTest, FormulasAsWritten) {
  SyntheticModelOptions options;  // 256 wide, 128 for keys, 512 feed-forward, vocabulary 512
  Open(options);
  EXPECT_EQ(KvBlockBytesPerLayer(model_.config, base::DataType::kF16),
            2 * kKvBlockTokens * 128 * 2);
  EXPECT_EQ(KvBlockBytesPerLayer(model_.config, base::DataType::kF32),
            2 * kKvBlockTokens * 128 * 4);
  // A scale for each head's every 32 codes.
  EXPECT_EQ(KvBlockBytesPerLayer(model_.config, base::DataType::kQ8_0),
            2 * kKvBlockTokens * (128 + 2 * 128 / 32));

  const ShardSpec spec{.layers = {1, 3}, .head_rows = {100, 200}};
  const RuntimeLimits limits{.kv_blocks = 10, .max_step_tokens = 64, .max_step_outputs = 8};
  const ScratchParts parts = MeasureScratch(model_, spec, limits);
  EXPECT_EQ(parts.activations, 64 * (3 * 256 + 2 * 128 + 2 * 512) * 4);
  EXPECT_EQ(parts.quantised, 64 * 512 * 2);  // ffn_down has the widest input
  EXPECT_EQ(parts.head, 8 * (100 + 256) * 4);
  EXPECT_EQ(parts.staging, 64 * 256 * 4);
  EXPECT_EQ(parts.fixed, 4 << 20);
  EXPECT_EQ(ScratchBytes(model_, spec, limits), parts.total());

  const ShardBytes bytes = MeasureShard(model_, footprint_, spec, limits);
  EXPECT_EQ(bytes.weights, footprint_.layers[1].total() + footprint_.layers[2].total() +
                               100 * footprint_.head_row_bytes + footprint_.shared_bytes);
  EXPECT_EQ(bytes.kv, 10 * 2 * 2 * kKvBlockTokens * 128 * 2);
  EXPECT_EQ(bytes.total(), bytes.weights + bytes.kv + parts.total());
}

TEST_F(FootprintTest, HeadOnlyAndEmptyShards) {
  Open({});
  const RuntimeLimits limits{.kv_blocks = 10, .max_step_tokens = 64, .max_step_outputs = 8};
  const ShardSpec head_only{.layers = {}, .head_rows = {0, 512}};
  const ShardBytes head = MeasureShard(model_, footprint_, head_only, limits);
  EXPECT_EQ(head.kv, 0);
  EXPECT_EQ(head.weights, 512 * footprint_.head_row_bytes + footprint_.shared_bytes);
  const ScratchParts parts = MeasureScratch(model_, head_only, limits);
  EXPECT_EQ(parts.activations, 0);
  EXPECT_EQ(parts.quantised, 64 * 256 * 2);
  EXPECT_EQ(MeasureShard(model_, footprint_, {}, limits).total(), 0);
}

TEST_F(FootprintTest, AbsurdLimitsStopInsteadOfWrapping) {
  Open({});
  const int64_t max = std::numeric_limits<int64_t>::max();
  const RuntimeLimits limits{.kv_blocks = max, .max_step_tokens = max, .max_step_outputs = max};
  const ShardBytes bytes =
      MeasureShard(model_, footprint_, {.layers = {0, 4}, .head_rows = {0, 512}}, limits);
  EXPECT_EQ(bytes.kv, int64_t{1} << 58);
  EXPECT_EQ(bytes.scratch, int64_t{1} << 58);
  EXPECT_GT(bytes.total(), int64_t{1} << 58);
}

TEST_F(FootprintTest, CountsWhatAnApproximationHolds) {
  SyntheticModelOptions options;
  options.type = base::DataType::kQ8_0;
  Open(options);
  ModelFootprint held = footprint_;
  ASSERT_OK(CountApproximation(*file_, model_, {}, held));
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(held.layers[i].total(), footprint_.layers[i].total());
    EXPECT_EQ(held.layers[i].feed_forward, footprint_.layers[i].feed_forward);
  }
  Approximation approximation{.without_attention = {1, 2}, .without_feed_forward = {2, 3}};
  // Of a layer's 512 neurons 100, and then all.
  NeuronSet cold;
  for (int32_t neuron = 0; neuron < 100; ++neuron) cold.push_back(neuron);
  for (int32_t neuron = 512; neuron < 1024; ++neuron) cold.push_back(neuron);
  for (int32_t neuron = 1024; neuron < 1500; ++neuron) cold.push_back(neuron);
  approximation.cold_neurons = std::make_shared<const NeuronSet>(cold);
  ASSERT_OK(CountApproximation(*file_, model_, approximation, held));
  // Rows of 256 numbers with 8.5 and with 3.5 bits, of two matrices.
  const int64_t saved_by_row = 2 * (256 / 32 * 34 - 256 / 32 * 14);
  const LayerWeightBytes whole = footprint_.layers[0];
  EXPECT_EQ(held.layers[0].total(), whole.total() - 100 * saved_by_row);
  EXPECT_EQ(held.layers[1].total(),
            whole.total() - whole.query_heads - whole.kv_heads - 512 * saved_by_row);
  EXPECT_EQ(held.layers[2].total(), whole.uncut) << "vectors are held all the same";
  EXPECT_EQ(held.layers[3].total(), whole.uncut + whole.query_heads + whole.kv_heads);
  // A slice has few bits where it has them, which nobody counts.
  const LayerSlice half{.heads = {0, model_.config.n_heads / 2}, .ff = {0, 256}};
  EXPECT_EQ(SliceBytes(held.layers[0], model_.config, half),
            SliceBytes(whole, model_.config, half));
}

TEST_F(FootprintTest, NamesATensorOfAnotherModel) {
  Open({});
  model_.config.n_layers = 5;
  const auto measured = MeasureModel(*file_, model_);
  EXPECT_EQ(measured.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(measured.status().message()), ::testing::HasSubstr("blk.4."));
}

}  // namespace
}  // namespace renga::model
