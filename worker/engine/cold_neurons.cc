#include "worker/engine/cold_neurons.h"

#include <algorithm>
#include <cstddef>
#include <numeric>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/data_type.h"
#include "base/status_macros.h"
#include "worker/engine/three_bits.h"

namespace renga::engine {

NeuronOrder OrderNeurons(const model::NeuronSet& cold, int64_t first, const model::Range& range) {
  NeuronOrder order;
  std::vector<int32_t>& neurons = order.neurons;
  neurons.resize(static_cast<size_t>(range.size()));
  std::iota(neurons.begin(), neurons.end(), static_cast<int32_t>(range.begin));
  const auto hot_end = std::stable_partition(neurons.begin(), neurons.end(), [&](int32_t neuron) {
    return !std::binary_search(cold.begin(), cold.end(), static_cast<int32_t>(first + neuron));
  });
  order.hot = hot_end - neurons.begin();
  if (hot_end == neurons.end()) neurons.clear();
  return order;
}

absl::StatusOr<MatrixByHeat> LoadByHeat(const model::TensorSpec& tensor, const model::Range& rows,
                                        const NeuronOrder& order, WeightLoader& loader) {
  RENGA_ASSIGN_OR_RETURN(const base::DataType type, loader.TensorType(tensor));
  const int64_t block = base::GetDataTypeInfo(base::DataType::kR3).block_elements;
  if (tensor.must_be_f32 || tensor.columns % block != 0) {
    return absl::UnimplementedError(absl::StrCat(
        "cold neurons with 3 bits need matrices whose width is a multiple of ", block, ", and ",
        tensor.name, " has ", tensor.columns, " columns: run without --approximate cold-neurons"));
  }
  const std::span<const int32_t> neurons = order.neurons;
  const auto hot = static_cast<size_t>(order.hot);
  MatrixByHeat matrix;
  if (hot > 0) {
    RENGA_ASSIGN_OR_RETURN(matrix.hot, loader.LoadRowSet(tensor, rows, neurons.first(hot)));
  }
  std::vector<float> numbers(static_cast<size_t>(tensor.columns));
  const WeightLoader::RowFormat three_bits = {
      .type = base::DataType::kR3,
      .convert = [&](std::span<const std::byte> stored, std::span<std::byte> out) {
        base::GetDataTypeInfo(type).to_float(stored.data(), numbers.data(), tensor.columns);
        StoreThreeBits(numbers, out);
      }};
  RENGA_ASSIGN_OR_RETURN(const int64_t stored_bytes, base::RowBytes(type, tensor.columns));
  RENGA_ASSIGN_OR_RETURN(const int64_t bytes, base::RowBytes(base::DataType::kR3, tensor.columns));
  // Formats with as few bits stay what they are.
  RENGA_ASSIGN_OR_RETURN(matrix.cold,
                         loader.LoadRowSet(tensor, rows, neurons.subspan(hot),
                                           bytes < stored_bytes ? &three_bits : nullptr));
  return matrix;
}

std::vector<float> InModelOrder(const NeuronOrder& order, std::span<const float> given) {
  const std::vector<int32_t>& neurons = order.neurons;
  const int32_t first = *std::min_element(neurons.begin(), neurons.end());
  std::vector<float> ordered(given.size());
  for (size_t row = 0; row < given.size(); row += neurons.size()) {
    for (size_t i = 0; i < neurons.size(); ++i) {
      ordered[row + static_cast<size_t>(neurons[i] - first)] = given[row + i];
    }
  }
  return ordered;
}

}  // namespace renga::engine
