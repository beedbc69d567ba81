// The synthetic models that tests and benchmarks rely on.
#include "model/testing/synthetic_model.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <set>
#include <span>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "model/architecture.h"
#include "model/testing/random_blocks.h"

namespace renga::model {
namespace {

using ::renga::testing::StatusIs;
using ::testing::HasSubstr;

class RandomBlocksTest : public ::testing::TestWithParam<base::DataType> {};

TEST_P(RandomBlocksTest, HaveTheWantedSpreadAndMeanZero) {
  const base::DataTypeInfo& info = base::GetDataTypeInfo(GetParam());
  constexpr int64_t kCount = 256 * 400;
  constexpr float kDeviation = 0.02f;
  std::vector<std::byte> blocks(
      static_cast<size_t>(kCount / info.block_elements * info.block_bytes));
  RandomSource random(3);
  FillRandomBlocks(GetParam(), kDeviation, random, blocks);
  std::vector<float> numbers(kCount);
  info.to_float(blocks.data(), numbers.data(), kCount);
  double sum = 0;
  double squares = 0;
  for (const float number : numbers) {
    ASSERT_TRUE(std::isfinite(number));
    sum += number;
    squares += static_cast<double>(number) * number;
  }
  EXPECT_NEAR(std::sqrt(squares / kCount), kDeviation, kDeviation * 0.08);
  EXPECT_NEAR(sum / kCount, 0, kDeviation * 0.05);
}

std::vector<base::DataType> EveryType() {
  std::vector<base::DataType> types;
  for (const base::DataTypeInfo& info : base::AllDataTypes()) types.push_back(info.type);
  return types;
}

INSTANTIATE_TEST_SUITE_P(EveryType, RandomBlocksTest, ::testing::ValuesIn(EveryType()),
                         [](const ::testing::TestParamInfo<base::DataType>& param_info) {
                           return std::string(base::GetDataTypeInfo(param_info.param).name);
                         });

std::string BytesOf(const SyntheticModelOptions& options) {
  const std::string path = absl::StrCat(::testing::TempDir(), "renga_synthetic_bytes.gguf");
  EXPECT_OK(WriteSyntheticModel(path, options));
  auto bytes = base::ReadFile(path);
  std::remove(path.c_str());
  return bytes.ok() ? *std::move(bytes) : "";
}

TEST(SyntheticModelTest, SameOptionsGiveTheSameBytes) {
  SyntheticModelOptions options;
  options.type = base::DataType::kQ4_K;
  const std::string first = BytesOf(options);
  EXPECT_FALSE(first.empty());
  EXPECT_EQ(first, BytesOf(options));
  options.seed = 2;
  EXPECT_NE(first, BytesOf(options));
}

TEST(SyntheticModelTest, RowsThatDoNotFitABlockFallBack) {
  SyntheticModelOptions options;
  options.type = base::DataType::kQ4_K;
  options.d_model = 96;  // Q8_0
  options.n_heads = 2;
  options.d_ff = 72;  // F16
  const std::string path = absl::StrCat(::testing::TempDir(), "renga_synthetic_fallback.gguf");
  ASSERT_OK(WriteSyntheticModel(path, options));
  ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(path));
  std::remove(path.c_str());
  ASSERT_OK(ReadModel(*file));
  EXPECT_EQ(file->FindTensor("blk.0.attn_q.weight")->type, base::DataType::kQ8_0);
  EXPECT_EQ(file->FindTensor("blk.0.ffn_down.weight")->type, base::DataType::kF16);
}

TEST(SyntheticModelTest, SkewedRoutersHaveFavourites) {
  SyntheticModelOptions options = {.n_layers = 2, .n_experts = 8, .n_experts_used = 2};
  options.router_skew = 2;
  const std::string path = absl::StrCat(::testing::TempDir(), "renga_synthetic_router.gguf");
  ASSERT_OK(WriteSyntheticModel(path, options));
  ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(path));
  std::remove(path.c_str());
  std::set<int64_t> favourites;
  for (const char* const name : {"blk.0.ffn_gate_inp.weight", "blk.1.ffn_gate_inp.weight"}) {
    const std::span<const std::byte> bytes = file->TensorBytes(*file->FindTensor(name));
    std::vector<double> squares(8);
    for (size_t i = 0; i < 8 * 256; ++i) {
      float number = 0;
      std::memcpy(&number, bytes.data() + i * sizeof(number), sizeof(number));
      squares[i / 256] += double{number} * number;
    }
    favourites.insert(std::max_element(squares.begin(), squares.end()) - squares.begin());
    std::sort(squares.begin(), squares.end(), std::greater<>());
    // By rank r the squares are (1 + r)^-4 of the first one's.
    EXPECT_NEAR(squares[1] / squares[0], 1.0 / 16, 0.02);
    EXPECT_NEAR(squares[3] / squares[0], 1.0 / 256, 0.002);
  }
  EXPECT_EQ(favourites.size(), 2u);
}

TEST(SyntheticModelTest, NamedShapes) {
  for (const char* name : {"tiny", "tiny-moe", "1.1b", "7b"}) {
    ASSERT_OK_AND_ASSIGN(SyntheticModelOptions options, SyntheticShape(name));
    options.type = base::DataType::kQ4_K;
    ASSERT_OK(MakeSyntheticModel(options));
  }
  EXPECT_THAT(SyntheticShape("13b"), StatusIs(absl::StatusCode::kInvalidArgument,
                                              HasSubstr("known are tiny, tiny-moe, 1.1b")));
}

TEST(SyntheticModelTest, RefusesShapesWithoutAModel) {
  const auto refused = [](SyntheticModelOptions options, const char* text) {
    EXPECT_THAT(MakeSyntheticModel(options),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(text)));
  };
  refused({.n_layers = 0}, "at least 1");
  refused({.vocab_size = 259}, "at least 260");
  refused({.router_skew = -1}, "skew");
  refused({.n_heads = 3}, "cannot be divided into 3 heads");
  EXPECT_THAT(MakeSyntheticModel({.architecture = "gpt5"}),
              StatusIs(absl::StatusCode::kUnimplemented));
}

}  // namespace
}  // namespace renga::model
