// Matrix times activations for F32, F16 and BF16: no rounding of the activations.
//
// Each output (row, token) is one chain of MulAdd over the columns in order, in the lane of its
// row, whatever the tile, so the bits do not depend on the number of tokens or panels at once.
#ifndef RENGA_WORKER_KERNELS_CPU_MATMUL_FLOAT_H_
#define RENGA_WORKER_KERNELS_CPU_MATMUL_FLOAT_H_

#include <cstddef>
#include <cstdint>

#include "worker/kernels/cpu/kernel_table.h"
#include "worker/kernels/cpu/matmul_output.h"
#include "worker/kernels/cpu/unroll.h"

namespace renga::kernels::cpu {

// A column of a panel as floats.
template <class IsaT>
struct F32Column {
  using Isa = IsaT;
  static constexpr int kBytes = 4;
  RENGA_WORD typename Isa::F Load(const std::byte* p) {
    return Isa::LoadF(reinterpret_cast<const float*>(p));
  }
};
template <class IsaT>
struct F16Column {
  using Isa = IsaT;
  static constexpr int kBytes = 2;
  RENGA_WORD typename Isa::F Load(const std::byte* p) { return Isa::LoadHalf(p); }
};
template <class IsaT>
struct Bf16Column {
  using Isa = IsaT;
  static constexpr int kBytes = 2;
  RENGA_WORD typename Isa::F Load(const std::byte* p) {
    return Isa::AsF(Isa::template ShiftLeft<16>(Isa::WidenU16(p)));
  }
};

template <class Column>
struct FloatMatmul {
  using Isa = typename Column::Isa;
  using F = typename Isa::F;
  static constexpr int kLanes = Isa::kLanes;
  static constexpr ActivationKind kActivations = ActivationKind::kFloat;

  static void Run(const MatmulTask& task, int64_t begin, int64_t end) {
    if (task.tokens == 1) {
      int64_t panel = begin;
      for (; panel + 4 <= end; panel += 4) Tile<4, 1>(task, panel, 0);
      for (; panel < end; ++panel) Tile<1, 1>(task, panel, 0);
      return;
    }
    int64_t panel = begin;
    for (; panel + 2 <= end; panel += 2) Panels<2>(task, panel);
    if (panel < end) Panels<1>(task, panel);
  }

 private:
  template <int panels>
  static void Panels(const MatmulTask& task, int64_t panel) {
    int64_t token = 0;
    for (; token + 6 <= task.tokens; token += 6) Tile<panels, 6>(task, panel, token);
    for (; token + 2 <= task.tokens; token += 2) Tile<panels, 2>(task, panel, token);
    if (token < task.tokens) Tile<panels, 1>(task, panel, token);
  }

  template <int panels, int tokens>
  static void Tile(const MatmulTask& task, int64_t panel, int64_t token) {
    const int64_t panel_bytes = task.columns * kLanes * Column::kBytes;
    const std::byte* weights = task.panels + panel * panel_bytes;
    const float* in = reinterpret_cast<const float*>(task.activations) + token * task.input_stride;
    F sums[tokens][panels];
    Unroll<tokens * panels>(
        [&](auto i) RENGA_INLINE_LAMBDA { sums[i / panels][i % panels] = Isa::ZeroF(); });
    for (int64_t c = 0; c < task.columns; ++c, weights += kLanes * Column::kBytes) {
      F column[panels];
      Unroll<panels>(
          [&](auto p) RENGA_INLINE_LAMBDA { column[p] = Column::Load(weights + p * panel_bytes); });
      Unroll<tokens>([&](auto t) RENGA_INLINE_LAMBDA {
        const F x = Isa::SetF(in[t * task.input_stride + c]);
        Unroll<panels>([&](auto p) RENGA_INLINE_LAMBDA {
          sums[t][p] = Isa::MulAddF(column[p], x, sums[t][p]);
        });
      });
    }
    for (int t = 0; t < tokens; ++t) {
      for (int p = 0; p < panels; ++p) StoreSum<Isa>(task, panel + p, token + t, sums[t][p]);
    }
  }
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_MATMUL_FLOAT_H_
