// Builds a path's kernel table from the templates. Included by one or two translation units per
// instruction set: the formats may live in another one than the rest, to build in parallel.
#ifndef RENGA_WORKER_KERNELS_CPU_PATH_KERNELS_H_
#define RENGA_WORKER_KERNELS_CPU_PATH_KERNELS_H_

#include "base/data_type.h"
#include "worker/kernels/cpu/attention_kernel.h"
#include "worker/kernels/cpu/formats_256.h"
#include "worker/kernels/cpu/formats_32.h"
#include "worker/kernels/cpu/kernel_table.h"
#include "worker/kernels/cpu/matmul_float.h"
#include "worker/kernels/cpu/matmul_quantized.h"
#include "worker/kernels/cpu/quantize_activations.h"
#include "worker/kernels/cpu/row_kernels.h"

namespace renga::kernels::cpu {

template <class Matmul>
constexpr FormatKernels KernelsOf() {
  return {Matmul::kActivations, &Matmul::Run};
}

template <class Isa>
FormatKernels FormatKernelsOf(base::DataType type) {
  using base::DataType;
  switch (type) {
    case DataType::kInvalid:
      return {};
    case DataType::kF32:
      return KernelsOf<FloatMatmul<F32Column<Isa>>>();
    case DataType::kF16:
      return KernelsOf<FloatMatmul<F16Column<Isa>>>();
    case DataType::kBF16:
      return KernelsOf<FloatMatmul<Bf16Column<Isa>>>();
    case DataType::kQ8_0:
      return KernelsOf<QuantizedMatmul<Q8_0<Isa>>>();
    case DataType::kQ4_0:
      return KernelsOf<QuantizedMatmul<Q4_0<Isa>>>();
    case DataType::kQ4_1:
      return KernelsOf<QuantizedMatmul<Q4_1<Isa>>>();
    case DataType::kQ5_0:
      return KernelsOf<QuantizedMatmul<Q5_0<Isa>>>();
    case DataType::kQ5_1:
      return KernelsOf<QuantizedMatmul<Q5_1<Isa>>>();
    case DataType::kQ2_K:
      return KernelsOf<QuantizedMatmul<Q2K<Isa>>>();
    case DataType::kQ3_K:
      return KernelsOf<QuantizedMatmul<Q3K<Isa>>>();
    case DataType::kQ4_K:
      return KernelsOf<QuantizedMatmul<Q4K<Isa>>>();
    case DataType::kQ5_K:
      return KernelsOf<QuantizedMatmul<Q5K<Isa>>>();
    case DataType::kQ6_K:
      return KernelsOf<QuantizedMatmul<Q6K<Isa>>>();
    case DataType::kIQ4_NL:
      return KernelsOf<QuantizedMatmul<Iq4Nl<Isa>>>();
    case DataType::kIQ4_XS:
      return KernelsOf<QuantizedMatmul<Iq4Xs<Isa>>>();
    case DataType::kR3:
      return KernelsOf<QuantizedMatmul<R3<Isa>>>();
  }
  return {};
}

template <class Isa>
constexpr CpuKernels PathKernels(const char* path_name,
                                 FormatKernels (*format)(base::DataType type)) {
  return {.path_name = path_name,
          .lanes = Isa::kLanes,
          .format = format,
          .quantize = &Quantizer<Isa>::Row,
          .rms_norm = &RowKernels<Isa>::RmsNorm,
          .silu_gate = &RowKernels<Isa>::SiluGate,
          .gelu_gate = &RowKernels<Isa>::GeluGate,
          .add = &RowKernels<Isa>::Add,
          .rotate = &RowKernels<Isa>::Rotate,
          .to_half = &RowKernels<Isa>::ToHalf,
          .largest = &RowKernels<Isa>::Largest,
          .sum_exp = &RowKernels<Isa>::SumExp,
          .attention_scratch = &AttentionKernel<Isa>::ScratchBytes,
          .attention_part = &AttentionKernel<Isa>::PartBytes,
          .attention = &AttentionKernel<Isa>::Run,
          .attention_span = &AttentionKernel<Isa>::RunSpan,
          .attention_join = &AttentionKernel<Isa>::JoinSpans};
}

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_PATH_KERNELS_H_
