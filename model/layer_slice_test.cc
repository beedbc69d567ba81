#include "model/layer_slice.h"

#include <vector>

#include "base/testing/status_matchers.h"
#include "model/footprint.h"

namespace renga::model {
namespace {

using base::DataType;
using ::testing::HasSubstr;

// 12 query heads in 3 groups.
ModelConfig SmallConfig() {
  ModelConfig config;
  config.architecture = "llama";
  config.n_layers = 1;
  config.d_model = 768;
  config.n_heads = 12;
  config.n_kv_heads = 3;
  config.head_dim = 64;
  config.d_ff = 2048;
  config.vocab_size = 300;
  return config;
}

std::vector<TensorSpec> Tensors(const ModelConfig& config) {
  return (*FindArchitecture("llama"))->LayerTensors(config, 0);
}

SliceUnits UnitsOf(const ModelConfig& config, DataType type) {
  SliceUnits units;
  for (const TensorSpec& tensor : Tensors(config)) {
    if (!tensor.must_be_f32) Widen(tensor, type, config, units);
  }
  return units;
}

TEST(LayerSliceTest, BlocksSetTheUnits) {
  ModelConfig config = SmallConfig();
  EXPECT_EQ(UnitsOf(config, DataType::kF32), (SliceUnits{.heads = 1, .ff = 1}));
  EXPECT_EQ(UnitsOf(config, DataType::kQ4_0), (SliceUnits{.heads = 1, .ff = 32}));
  EXPECT_EQ(UnitsOf(config, DataType::kQ4_K), (SliceUnits{.heads = 4, .ff = 256}));
  config.head_dim = 96;
  EXPECT_EQ(UnitsOf(config, DataType::kQ4_K), (SliceUnits{.heads = 8, .ff = 256}));
}

TEST(LayerSliceTest, HeadsAreWholeGroupsOrInsideOne) {
  const ModelConfig config = SmallConfig();
  const auto check = [&](Range heads, Range ff) {
    return CheckSlice(config, {.heads = 1, .ff = 32}, {.heads = heads, .ff = ff});
  };
  EXPECT_OK(check({0, 12}, {0, 2048}));
  EXPECT_OK(check({4, 12}, {0, 32}));
  EXPECT_OK(check({5, 7}, {0, 32}));
  EXPECT_OK(check({0, 0}, {0, 32}));
  EXPECT_OK(check({4, 8}, {64, 64}));
  EXPECT_THAT(std::string(check({2, 6}, {0, 32}).message()), HasSubstr("whole groups of 4"));
  EXPECT_THAT(std::string(check({0, 5}, {0, 32}).message()), HasSubstr("whole groups of 4"));
  EXPECT_THAT(std::string(check({0, 4}, {0, 33}).message()), HasSubstr("multiples of 32"));
  for (const Range& bad : {Range{-4, 4}, Range{8, 16}, Range{8, 4}, Range{INT64_MIN, INT64_MAX}}) {
    EXPECT_FALSE(check(bad, {0, 32}).ok());
    EXPECT_FALSE(check({0, 4}, {bad.begin * 32, bad.end}).ok());
  }
  EXPECT_FALSE(check({4, 4}, {32, 32}).ok());
}

TEST(LayerSliceTest, AGroupCoversEverythingOnce) {
  const ModelConfig config = SmallConfig();
  const auto check = [&](std::vector<LayerSlice> members) {
    return CheckGroup(config, {.heads = 2, .ff = 32}, members);
  };
  EXPECT_OK(check({{{0, 4}, {0, 1024}}, {{4, 12}, {1024, 2048}}}));
  EXPECT_OK(check({{{0, 2}, {0, 64}}, {{2, 4}, {64, 64}}, {{4, 12}, {64, 2048}}}));
  EXPECT_FALSE(check({{{0, 4}, {0, 1024}}, {{4, 12}, {1024, 2016}}}).ok());
  EXPECT_FALSE(check({{{0, 4}, {0, 1024}}, {{8, 12}, {1024, 2048}}}).ok());
  EXPECT_FALSE(check({{{4, 12}, {1024, 2048}}, {{0, 4}, {0, 1024}}}).ok());
  EXPECT_FALSE(check({}).ok());
}

TEST(LayerSliceTest, PartsHaveTheShapesOfTheSlicedModel) {
  const ModelConfig config = SmallConfig();
  const std::vector<TensorSpec> whole = Tensors(config);
  for (const LayerSlice& slice :
       {LayerSlice{{4, 12}, {32, 96}}, LayerSlice{{6, 8}, {0, 2048}}, WholeLayer(config)}) {
    const std::vector<TensorSpec> sliced = Tensors(SlicedConfig(config, slice));
    for (size_t i = 0; i < whole.size(); ++i) {
      SCOPED_TRACE(whole[i].name);
      const TensorPart part = PartOf(whole[i], config, slice);
      EXPECT_EQ(part.rows.size(), sliced[i].rows);
      EXPECT_EQ(part.columns.size(), sliced[i].columns);
      EXPECT_LE(part.rows.end, whole[i].rows);
      EXPECT_LE(part.columns.end, whole[i].columns);
    }
  }
  // The heads of one group share a KV head; both members hold it.
  EXPECT_EQ(KvHeadsOf(config, {4, 6}), (Range{1, 2}));
  EXPECT_EQ(KvHeadsOf(config, {6, 8}), (Range{1, 2}));
  EXPECT_EQ(KvHeadsOf(config, {4, 12}), (Range{1, 3}));
  EXPECT_TRUE(KvHeadsOf(config, {4, 4}).empty());
}

TEST(LayerSliceTest, BytesOfPartsAddUp) {
  const ModelConfig config = SmallConfig();
  LayerWeightBytes layer;
  const auto bytes_of = [](const TensorSpec& tensor, const TensorPart& part) {
    const DataType type = tensor.must_be_f32 ? DataType::kF32 : DataType::kQ4_0;
    return part.rows.size() * *base::RowBytes(type, part.columns.size());
  };
  int64_t uncut = 0;
  for (const TensorSpec& tensor : Tensors(config)) {
    AddTensor(tensor, bytes_of(tensor, WholeTensor(tensor)), layer);
    if (tensor.cut == Cut::kNone) uncut += bytes_of(tensor, WholeTensor(tensor));
  }
  const std::vector<LayerSlice> members = {{{0, 4}, {0, 96}}, {{4, 12}, {96, 2048}}};
  int64_t total = 0;
  for (const LayerSlice& slice : members) {
    int64_t expected = 0;
    for (const TensorSpec& tensor : Tensors(config)) {
      expected += bytes_of(tensor, PartOf(tensor, config, slice));
    }
    EXPECT_EQ(SliceBytes(layer, config, slice), expected);
    total += expected;
  }
  EXPECT_EQ(total, layer.total() + uncut);
}

}  // namespace
}  // namespace renga::model
