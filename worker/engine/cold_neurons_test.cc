// Cold neurons are computed from weights of three bits, everything else from the file's; and what
// neurons give can be watched.
#include "worker/engine/cold_neurons.h"

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
#include "worker/engine/shard.h"
#include "worker/engine/three_bits.h"
#include "worker/kernels/backend_factory.h"

namespace renga::engine {
namespace {

using ::renga::testing::StatusIs;
using ColdRows = std::vector<float>;

constexpr int64_t kColdTokens = 6;
constexpr int64_t kColdWidth = 64;
constexpr int64_t kColdNeurons = 160;

// The model file with the matrices that have a row for each neuron in float32, the rows of cold
// neurons as three bits leave them.
class RoundedFile : public WeightSource {
 public:
  RoundedFile(WeightSource* file, const model::Model& model, const std::set<int32_t>& cold)
      : file_(file) {
    for (int64_t layer = 0; layer < model.config.n_layers; ++layer) {
      for (const model::TensorSpec& tensor :
           model.architecture->LayerTensors(model.config, layer)) {
        if (tensor.cut != model::Cut::kFeedForward) continue;
        const base::DataType type = *file->TensorType(tensor.name);
        const int64_t row_bytes = *base::RowBytes(type, tensor.columns);
        std::vector<std::byte> stored(static_cast<size_t>(row_bytes));
        std::vector<float>& numbers = tensors_[tensor.name];
        for (int64_t row = 0; row < tensor.rows; ++row) {
          EXPECT_OK(file->Read(tensor.name, row * row_bytes, stored));
          std::vector<float> decoded(static_cast<size_t>(tensor.columns));
          base::GetDataTypeInfo(type).to_float(stored.data(), decoded.data(), tensor.columns);
          if (cold.contains(static_cast<int32_t>(layer * kColdNeurons + row))) Round(decoded);
          numbers.insert(numbers.end(), decoded.begin(), decoded.end());
        }
      }
    }
  }
  absl::StatusOr<base::DataType> TensorType(const std::string& name) override {
    return tensors_.contains(name) ? base::DataType::kF32 : file_->TensorType(name);
  }
  absl::Status Read(const std::string& name, int64_t offset, std::span<std::byte> out) override {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) return file_->Read(name, offset, out);
    std::memcpy(out.data(), std::as_bytes(std::span(found->second)).data() + offset, out.size());
    return absl::OkStatus();
  }

 private:
  static void Round(std::vector<float>& numbers) {
    const auto count = static_cast<int64_t>(numbers.size());
    std::vector<std::byte> stored(static_cast<size_t>(*base::RowBytes(base::DataType::kR3, count)));
    StoreThreeBits(numbers, stored);
    base::GetDataTypeInfo(base::DataType::kR3).to_float(stored.data(), numbers.data(), count);
  }

  WeightSource* const file_;
  std::map<std::string, std::vector<float>> tensors_;
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
    ASSERT_OK_AND_ASSIGN(reference_, kernels::CreateBackend({.device = "reference"}));
  }

  absl::StatusOr<std::unique_ptr<Shard>> Load(WeightSource* source,
                                              const model::Approximation& approximation,
                                              LoadMode mode = LoadMode::kEager,
                                              kernels::Backend* backend = nullptr) {
    const model::RuntimeLimits limits = {
        .kv_blocks = 4, .max_step_tokens = 64, .approximation = approximation};
    return Shard::Load(model_, {.layers = {0, 2}, .head_rows = {}}, limits,
                       backend == nullptr ? backend_.get() : backend, &budget_, source, nullptr,
                       mode);
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
  std::unique_ptr<kernels::Backend> reference_;  // which computes all formats alike
  MemoryBudget budget_{int64_t{1} << 30};
};

TEST_P(ColdNeuronsTest, HaveThreeBitsAndNothingElseHas) {
  // The second layer has cold neurons only.
  auto cold = std::make_shared<model::NeuronSet>();
  for (int32_t neuron = 0; neuron < 2 * kColdNeurons; ++neuron) {
    if ((neuron % 5 != 0 && neuron != 77) || neuron >= kColdNeurons) cold->push_back(neuron);
  }
  RoundedFile rounded(weights_.get(), model_, std::set<int32_t>(cold->begin(), cold->end()));
  ASSERT_OK_AND_ASSIGN(const auto expected_shard,
                       Load(&rounded, {}, LoadMode::kEager, reference_.get()));
  ASSERT_OK_AND_ASSIGN(const ColdRows expected, Run(*expected_shard));
  model::Approximation approximation;
  approximation.cold_neurons = cold;
  ASSERT_OK_AND_ASSIGN(const auto reference_shard,
                       Load(weights_.get(), approximation, LoadMode::kEager, reference_.get()));
  EXPECT_THAT(Run(*reference_shard), ::renga::testing::IsOkAndHolds(expected));

  ASSERT_OK_AND_ASSIGN(const auto shard, Load(weights_.get(), approximation));
  ASSERT_OK_AND_ASSIGN(const ColdRows rows, Run(*shard));
  ASSERT_OK_AND_ASSIGN(const auto exact_shard, Load(weights_.get(), {}));
  ASSERT_OK_AND_ASSIGN(const ColdRows exact, Run(*exact_shard));
  double off = 0;
  double rounding = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    off += std::pow(rows[i] - expected[i], 2);
    rounding += std::pow(exact[i] - expected[i], 2);
  }
  // Kernels round activations, which is little beside three bits.
  EXPECT_LT(off, 0.05 * rounding);
  EXPECT_TRUE(
      std::none_of(shard->newly_packed().begin(), shard->newly_packed().end(),
                   [](const HeldMatrix& held) { return held.key.type == base::DataType::kR3; }))
      << "such matrices must not be kept as the model's";
  EXPECT_THAT(Load(weights_.get(), approximation, LoadMode::kLazy),
              StatusIs(absl::StatusCode::kUnimplemented));
  approximation.cold_neurons = std::make_shared<const model::NeuronSet>();
  ASSERT_OK_AND_ASSIGN(const auto none, Load(weights_.get(), approximation));
  EXPECT_THAT(Run(*none), ::renga::testing::IsOkAndHolds(exact));
}

TEST_P(ColdNeuronsTest, TakeLessMemory) {
  const model::TensorSpec tensor = [&] {
    for (const model::TensorSpec& spec : model_.architecture->LayerTensors(model_.config, 0)) {
      if (spec.cut == model::Cut::kFeedForward) return spec;
    }
    return model::TensorSpec{};
  }();
  model::NeuronSet cold;
  for (int32_t neuron = 32; neuron < kColdNeurons; ++neuron) cold.push_back(neuron);
  const NeuronOrder order = OrderNeurons(cold, 0, {0, kColdNeurons});
  EXPECT_EQ(order.hot, 32);
  const LoadProgress no_progress;
  WeightLoader loader(backend_.get(), weights_.get(), no_progress, 0);
  ASSERT_OK_AND_ASSIGN(const MatrixByHeat matrix,
                       LoadByHeat(tensor, {0, kColdNeurons}, order, loader));
  const auto held = static_cast<double>(backend_->BytesOf(*matrix.hot).size() +
                                        backend_->BytesOf(*matrix.cold).size());
  const double whole =
      static_cast<double>(backend_->MatrixBytes(GetParam(), kColdNeurons, tensor.columns));
  const double bits = static_cast<double>(*base::RowBytes(GetParam(), 32)) * 8 / 32;
  EXPECT_NEAR(held / whole, 0.2 + 0.8 * 3.5 / bits, 0.1);
}

TEST_P(ColdNeuronsTest, WidthsThatDoNotFitAreRefused) {
  model::TensorSpec tensor = model_.architecture->LayerTensors(model_.config, 0).front();
  tensor.columns = 33;
  const LoadProgress no_progress;
  WeightLoader loader(backend_.get(), weights_.get(), no_progress, 0);
  tensor.must_be_f32 = false;
  EXPECT_THAT(LoadByHeat(tensor, {0, 2}, {.neurons = {0, 1}, .hot = 0}, loader).status(),
              StatusIs(absl::StatusCode::kUnimplemented));
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
  EXPECT_THAT(shard->ObserveExperts(nullptr), StatusIs(absl::StatusCode::kUnimplemented));
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
