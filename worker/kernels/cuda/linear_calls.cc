#include "worker/kernels/cuda/linear_calls.h"

#include <algorithm>
#include <vector>

#include "base/status_macros.h"
#include "worker/kernels/cuda/launch_shapes.h"
#include "worker/kernels/op_checks.h"

namespace renga::kernels::cuda {
namespace {

// Tokens whose activations are rounded and multiplied at a time: bounds the working memory.
constexpr int64_t kLinearTokens = 256;
// Floats take 4 bytes a number, where model::ScratchParts counts 2: half of the tokens, but enough
// for the tiles.
constexpr int64_t kFewestPlainTokens = 64;

}  // namespace

absl::Status LinearCalls::PrepareActivations(ConstRowsView in, bool quantized, bool plain,
                                             LinearArgs& args) {
  const int64_t groups = Ceil(in.columns, kGroup);
  const int64_t items = in.rows * groups;
  if (quantized) {
    const int64_t bytes = items * (kGroup + static_cast<int64_t>(sizeof(ActivationGroup)));
    RENGA_ASSIGN_OR_RETURN(std::byte* const memory, codes_.Reserve(launcher_.device(), bytes));
    auto* const codes = reinterpret_cast<int8_t*>(memory);
    auto* const scales = reinterpret_cast<ActivationGroup*>(memory + items * kGroup);
    args.codes = codes;
    args.scales = scales;
    RENGA_RETURN_IF_ERROR(launcher_.LaunchWarps(Kernel::kQuantize, items,
                                                QuantizeArgs{.in = in.data,
                                                             .in_stride = in.stride,
                                                             .tokens = in.rows,
                                                             .groups = groups,
                                                             .codes = codes,
                                                             .scales = scales}));
  }
  if (!plain) return absl::OkStatus();
  RENGA_ASSIGN_OR_RETURN(std::byte* const memory,
                         floats_.Reserve(launcher_.device(), items * kGroup * 4));
  auto* const floats = reinterpret_cast<float*>(memory);
  args.floats = floats;
  return launcher_.LaunchThreads(Kernel::kPad, items * kGroup,
                                 PadArgs{.in = in.data,
                                         .in_stride = in.stride,
                                         .tokens = in.rows,
                                         .columns = in.columns,
                                         .groups = groups,
                                         .out = floats});
}

absl::Status LinearCalls::LaunchLinear(const CudaMatrix& matrix, const LinearArgs& args) {
  if (args.tokens <= kFewTokens) {
    return launcher_.Launch(matrix.KernelFor(args.tokens),
                            {Ceil(matrix.rows(), kVectorRows), 1, kVectorThreads}, args);
  }
  const bool tensor = tensor_cores_ && matrix.quantized();
  return launcher_.Launch(tensor ? matrix.TensorKernel() : matrix.KernelFor(args.tokens),
                          {Ceil(args.tokens, tensor ? kTensorTokens : kTileTokens),
                           Ceil(matrix.rows(), kTileRows), kTileThreads},
                          args);
}

absl::Status LinearCalls::LinearOfTokens(ConstRowsView in, std::span<const LinearOutput> outputs) {
  bool quantized = false;
  bool plain = false;
  for (const LinearOutput& output : outputs) {
    (static_cast<const CudaMatrix*>(output.matrix)->quantized() ? quantized : plain) = true;
  }
  LinearArgs args = {};
  RENGA_RETURN_IF_ERROR(PrepareActivations(in, quantized, plain, args));
  args.tokens = in.rows;
  for (const LinearOutput& output : outputs) {
    const auto& matrix = *static_cast<const CudaMatrix*>(output.matrix);
    args.matrix = matrix.planes();
    args.bias = output.bias;
    args.out = output.out.data;
    args.out_stride = output.out.stride;
    RENGA_RETURN_IF_ERROR(LaunchLinear(matrix, args));
  }
  return absl::OkStatus();
}

absl::Status LinearCalls::Linear(ConstRowsView in, std::span<const LinearOutput> outputs) {
  RENGA_RETURN_IF_ERROR(CheckLinear(in, outputs));
  bool plain = false;
  for (const LinearOutput& output : outputs) {
    const auto* matrix = dynamic_cast<const CudaMatrix*>(output.matrix);
    if (matrix == nullptr) return absl::InvalidArgumentError("a matrix of another backend");
    plain = plain || !matrix->quantized();
  }
  if (outputs.empty()) return absl::OkStatus();
  const int64_t step =
      plain ? std::clamp((in.rows + 1) / 2, kFewestPlainTokens, kLinearTokens) : kLinearTokens;
  std::vector<LinearOutput> part(outputs.begin(), outputs.end());
  for (int64_t first = 0; first < in.rows; first += step) {
    const int64_t count = std::min(step, in.rows - first);
    for (size_t i = 0; i < part.size(); ++i) {
      part[i].out = outputs[i].out;
      part[i].out.data += first * part[i].out.stride;
      part[i].out.rows = count;
    }
    RENGA_RETURN_IF_ERROR(
        LinearOfTokens({in.data + first * in.stride, count, in.columns, in.stride}, part));
  }
  return absl::OkStatus();
}

}  // namespace renga::kernels::cuda
