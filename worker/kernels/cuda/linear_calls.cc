#include "worker/kernels/cuda/linear_calls.h"

#include <algorithm>
#include <cstdint>

#include "base/status_macros.h"
#include "worker/kernels/cuda/launch_shapes.h"
#include "worker/kernels/op_checks.h"

namespace renga::kernels::cuda {
namespace {

// Tokens whose activations are rounded and multiplied at a time: bounds the working memory.
constexpr int64_t kLinearTokens = 256;
// Floats that have to be copied take 4 bytes a number, where model::ScratchParts counts 2: half of
// the tokens, but enough for a tile.
constexpr int64_t kFewestPaddedTokens = kTileTokens;

ConstRowsView RowsOf(ConstRowsView rows, int64_t first, int64_t count) {
  return {rows.data + first * rows.stride, count, rows.columns, rows.stride};
}

// Whether kernels of plain types can read the rows where they are: whole groups, aligned.
bool IsReadable(ConstRowsView in) {
  constexpr int64_t kAlignedFloats = 4;
  return in.columns % kGroup == 0 && in.stride % kAlignedFloats == 0 &&
         reinterpret_cast<uintptr_t>(in.data) % (kAlignedFloats * sizeof(float)) == 0;
}

}  // namespace

absl::Status LinearCalls::Round(ConstRowsView in, LinearArgs& args) {
  const int64_t groups = Ceil(in.columns, kGroup);
  const int64_t items = in.rows * groups;
  const int64_t bytes = items * (kGroup + static_cast<int64_t>(sizeof(ActivationGroup)));
  RENGA_ASSIGN_OR_RETURN(std::byte* const memory, activations_.Reserve(launcher_.device(), bytes));
  auto* const codes = reinterpret_cast<int8_t*>(memory);
  auto* const scales = reinterpret_cast<ActivationGroup*>(memory + items * kGroup);
  args.codes = codes;
  args.scales = scales;
  return launcher_.LaunchWarps(Kernel::kQuantize, items,
                               QuantizeArgs{.in = in.data,
                                            .in_stride = in.stride,
                                            .tokens = in.rows,
                                            .groups = groups,
                                            .codes = codes,
                                            .scales = scales});
}

absl::Status LinearCalls::Pad(ConstRowsView in, LinearArgs& args) {
  const int64_t groups = Ceil(in.columns, kGroup);
  const int64_t numbers = in.rows * groups * kGroup;
  RENGA_ASSIGN_OR_RETURN(std::byte* const memory,
                         activations_.Reserve(launcher_.device(), numbers * 4));
  auto* const floats = reinterpret_cast<float*>(memory);
  args.floats = floats;
  args.floats_stride = groups * kGroup;
  return launcher_.LaunchThreads(Kernel::kPad, numbers,
                                 PadArgs{.in = in.data,
                                         .in_stride = in.stride,
                                         .tokens = in.rows,
                                         .columns = in.columns,
                                         .groups = groups,
                                         .out = floats});
}

absl::Status LinearCalls::Launch(const CudaMatrix& matrix, const LinearArgs& args) const {
  if (tensor_use_.f16 && matrix.type() == base::DataType::kF16) {
    return launcher_.Launch(
        Kernel::kHalfTiles_F16,
        {Ceil(args.tokens, kTileTokens), Ceil(matrix.rows(), kTileRows), kTileThreads}, args);
  }
  if (args.tokens <= kFewTokens) {
    return launcher_.Launch(matrix.KernelFor(args.tokens),
                            {Ceil(matrix.rows(), kVectorRows), 1, kVectorThreads}, args);
  }
  const bool tensor = tensor_use_.quantized && matrix.quantized();
  return launcher_.Launch(tensor ? matrix.TensorKernel() : matrix.KernelFor(args.tokens),
                          {Ceil(args.tokens, tensor ? kTensorTokens : kTileTokens),
                           Ceil(matrix.rows(), kTileRows), kTileThreads},
                          args);
}

absl::Status LinearCalls::Multiply(const LinearOutput& output, int64_t first_token,
                                   LinearArgs args) const {
  const auto& matrix = *static_cast<const CudaMatrix*>(output.matrix);
  args.matrix = matrix.planes();
  args.bias = output.bias;
  args.out = output.out.data + first_token * output.out.stride;
  args.out_stride = output.out.stride;
  return Launch(matrix, args);
}

absl::Status LinearCalls::MultiplyAll(ConstRowsView in, std::span<const LinearOutput> outputs,
                                      bool quantized, int64_t step) {
  for (int64_t first = 0; first < in.rows; first += step) {
    const ConstRowsView rows = RowsOf(in, first, std::min(step, in.rows - first));
    LinearArgs args = {};
    args.tokens = rows.rows;
    if (quantized) {
      RENGA_RETURN_IF_ERROR(Round(rows, args));
    } else if (IsReadable(in)) {
      args.floats = rows.data;
      args.floats_stride = rows.stride;
    } else {
      RENGA_RETURN_IF_ERROR(Pad(rows, args));
    }
    for (const LinearOutput& output : outputs) {
      if (static_cast<const CudaMatrix*>(output.matrix)->quantized() != quantized) continue;
      RENGA_RETURN_IF_ERROR(Multiply(output, first, args));
    }
  }
  return absl::OkStatus();
}

absl::Status LinearCalls::Linear(ConstRowsView in, std::span<const LinearOutput> outputs) {
  RENGA_RETURN_IF_ERROR(CheckLinear(in, outputs));
  bool quantized = false;
  bool plain = false;
  for (const LinearOutput& output : outputs) {
    const auto* matrix = dynamic_cast<const CudaMatrix*>(output.matrix);
    if (matrix == nullptr) return absl::InvalidArgumentError("a matrix of another backend");
    (matrix->quantized() ? quantized : plain) = true;
  }
  // One after the other: both take the same working memory.
  if (quantized) RENGA_RETURN_IF_ERROR(MultiplyAll(in, outputs, true, kLinearTokens));
  if (!plain) return absl::OkStatus();
  const int64_t padded = std::clamp((in.rows + 1) / 2, kFewestPaddedTokens, kLinearTokens);
  return MultiplyAll(in, outputs, false, IsReadable(in) ? kLinearTokens : padded);
}

}  // namespace renga::kernels::cuda
