// Cold neurons are computed from rounded weights, everything else from the file's; and what
// neurons give can be watched.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/status_macros.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_folder.h"
#include "model/testing/synthetic_model.h"
#include "worker/engine/local_weights.h"
#include "worker/engine/low_bits.h"
#include "worker/engine/shard.h"
#include "worker/kernels/backend_factory.h"

namespace renga::engine {
namespace {

using ::renga::testing::StatusIs;
using ColdRows = std::vector<float>;

constexpr int64_t kColdTokens = 6;
constexpr int64_t kColdWidth = 64;
constexpr int64_t kColdNeurons = 160;

// The model file with all its tensors in memory, and the cold neurons' numbers rounded there.
class RoundedFile : public WeightSource {
 public:
  RoundedFile(WeightSource* file, const model::Model& model, const std::set<int32_t>& cold)
      : file_(file) {
    for (int64_t layer = 0; layer < model.config.n_layers; ++layer) {
      for (const model::TensorSpec& tensor :
           model.architecture->LayerTensors(model.config, layer)) {
        if (tensor.must_be_f32) continue;
        const int64_t row_bytes = *base::RowBytes(*file->TensorType(tensor.name), tensor.columns);
        std::vector<std::byte>& bytes = tensors_[tensor.name];
        bytes.resize(static_cast<size_t>(tensor.rows * row_bytes));
        EXPECT_OK(file->Read(tensor.name, 0, bytes));
        for (int64_t row = 0; row < tensor.rows; ++row) {
          std::vector<int32_t> columns;
          for (int32_t c = 0; c < tensor.columns; ++c) {
            const bool down = tensor.cut == model::Cut::kFeedForwardColumns;
            const bool up = tensor.cut == model::Cut::kFeedForward;
            const auto neuron = static_cast<int32_t>(layer * kColdNeurons + (down ? c : row));
            if ((down || up) && cold.contains(neuron)) columns.push_back(c);
          }
          EXPECT_OK(RoundToThreeBits(*file->TensorType(tensor.name),
                                     std::span(bytes).subspan(static_cast<size_t>(row * row_bytes),
                                                              static_cast<size_t>(row_bytes)),
                                     columns));
        }
      }
    }
  }
  absl::StatusOr<base::DataType> TensorType(const std::string& name) override {
    return file_->TensorType(name);
  }
  absl::Status Read(const std::string& name, int64_t offset, std::span<std::byte> out) override {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) return file_->Read(name, offset, out);
    std::memcpy(out.data(), found->second.data() + offset, out.size());
    return absl::OkStatus();
  }

 private:
  WeightSource* const file_;
  std::map<std::string, std::vector<std::byte>> tensors_;
};

class ColdNeuronsTest : public ::testing::TestWithParam<base::DataType> {
 protected:
  void SetUp() override {
    const std::string path = ::renga::testing::NewTempFolder() + "/model.gguf";
    model::SyntheticModelOptions options;
    options.n_layers = 2;
    options.d_model = kColdWidth;
    options.d_ff = kColdNeurons;
    options.type = GetParam();
    ASSERT_OK(model::WriteSyntheticModel(path, options));
    ASSERT_OK_AND_ASSIGN(file_, model::GgufFile::Open(path));
    ASSERT_OK_AND_ASSIGN(model_, model::ReadModel(*file_));
    ASSERT_OK_AND_ASSIGN(weights_, LocalWeights::Create(file_.get()));
    ASSERT_OK_AND_ASSIGN(backend_, kernels::CreateBackend({.device = "cpu", .threads = 1}));
  }

  absl::StatusOr<std::unique_ptr<Shard>> Load(WeightSource* source,
                                              const model::Approximation& approximation,
                                              LoadMode mode = LoadMode::kEager) {
    const model::RuntimeLimits limits = {
        .kv_blocks = 4, .max_step_tokens = 64, .approximation = approximation};
    return Shard::Load(model_, {.layers = {0, 2}, .head_rows = {}}, limits, backend_.get(),
                       &budget_, source, nullptr, mode);
  }
  // The rows that the layers make of fixed inputs.
  static absl::StatusOr<ColdRows> Run(Shard& shard) {
    shard.ResetSequences();
    model::Step step;
    step.commands.push_back(
        {.kind = model::KvCommand::Kind::kAppendBlocks, .sequence = 1, .blocks = {0}});
    step.slots.push_back({.sequence = 1, .token_count = kColdTokens});
    ColdRows rows(static_cast<size_t>(kColdTokens * kColdWidth));
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = std::sin(static_cast<float>(i) * 0.37f);
    RENGA_RETURN_IF_ERROR(shard.RunLayers(step, rows, nullptr));
    return rows;
  }

  std::unique_ptr<model::GgufFile> file_;
  model::Model model_;
  std::unique_ptr<LocalWeights> weights_;
  std::unique_ptr<kernels::Backend> backend_;
  MemoryBudget budget_{int64_t{1} << 30};
};

TEST_P(ColdNeuronsTest, AreRoundedAndNothingElseIs) {
  auto cold = std::make_shared<model::NeuronSet>();
  for (int32_t neuron = 0; neuron < 2 * kColdNeurons; ++neuron) {
    if (neuron % 5 != 0 && neuron != 77) cold->push_back(neuron);
  }
  RoundedFile rounded(weights_.get(), model_, std::set<int32_t>(cold->begin(), cold->end()));
  ASSERT_OK_AND_ASSIGN(const auto expected_shard, Load(&rounded, {}));
  ASSERT_OK_AND_ASSIGN(const ColdRows expected, Run(*expected_shard));
  model::Approximation approximation;
  approximation.cold_neurons = cold;
  ASSERT_OK_AND_ASSIGN(const auto shard, Load(weights_.get(), approximation));
  ASSERT_OK_AND_ASSIGN(const ColdRows rows, Run(*shard));
  EXPECT_EQ(rows, expected);
  EXPECT_TRUE(std::none_of(
      shard->newly_packed().begin(), shard->newly_packed().end(),
      [](const HeldMatrix& held) { return held.key.tensor.find("ffn") != std::string::npos; }))
      << "rounded matrices must not be kept as the model's";

  ASSERT_OK_AND_ASSIGN(const auto exact_shard, Load(weights_.get(), {}));
  ASSERT_OK_AND_ASSIGN(const ColdRows exact, Run(*exact_shard));
  EXPECT_NE(rows, exact);
  EXPECT_THAT(Load(weights_.get(), approximation, LoadMode::kLazy),
              StatusIs(absl::StatusCode::kUnimplemented));
  approximation.cold_neurons = std::make_shared<const model::NeuronSet>();
  ASSERT_OK_AND_ASSIGN(const auto none, Load(weights_.get(), approximation));
  EXPECT_THAT(Run(*none), ::renga::testing::IsOkAndHolds(exact));
}

TEST_P(ColdNeuronsTest, WhatNeuronsGiveIsToldAndChangesNothing) {
  ASSERT_OK_AND_ASSIGN(const auto shard, Load(weights_.get(), {}));
  ASSERT_OK_AND_ASSIGN(const ColdRows expected, Run(*shard));
  std::map<int64_t, ColdRows> told;
  ASSERT_OK(shard->ObserveNeurons([&](int64_t layer, std::span<const float> rows) {
    told[layer].assign(rows.begin(), rows.end());
  }));
  EXPECT_THAT(Run(*shard), ::renga::testing::IsOkAndHolds(expected));
  ASSERT_EQ(told.size(), 2u);
  for (const auto& [layer, rows] : told) {
    EXPECT_EQ(rows.size(), static_cast<size_t>(kColdTokens * kColdNeurons)) << layer;
    EXPECT_GT(std::set<float>(rows.begin(), rows.end()).size(), rows.size() / 2) << layer;
  }
  told.clear();
  ASSERT_OK(shard->ObserveNeurons(nullptr));
  EXPECT_THAT(Run(*shard), ::renga::testing::IsOkAndHolds(expected));
  EXPECT_TRUE(told.empty());
}

INSTANTIATE_TEST_SUITE_P(Formats, ColdNeuronsTest,
                         ::testing::Values(base::DataType::kF32, base::DataType::kQ8_0,
                                           base::DataType::kQ4_1),
                         [](const auto& tested) {
                           return std::string(base::GetDataTypeInfo(tested.param).name);
                         });

}  // namespace
}  // namespace renga::engine
