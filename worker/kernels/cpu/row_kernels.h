// The kernels that work on one row of numbers: norms, gates, rotations, conversions.
#ifndef RENGA_WORKER_KERNELS_CPU_ROW_KERNELS_H_
#define RENGA_WORKER_KERNELS_CPU_ROW_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "worker/kernels/cpu/unroll.h"
#include "worker/kernels/cpu/vector_math.h"

namespace renga::kernels::cpu {

template <class Isa>
struct RowKernels {
  using F = typename Isa::F;
  using Math = VectorMath<Isa>;
  static constexpr int kLanes = Isa::kLanes;

  // Four chains per lane, so that the processor need not wait for each addition.
  static float SumOfSquares(const float* in, int64_t n) {
    F sums[4] = {Isa::ZeroF(), Isa::ZeroF(), Isa::ZeroF(), Isa::ZeroF()};
    int64_t i = 0;
    for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
      Unroll<4>([&](auto k) RENGA_INLINE_LAMBDA {
        const F x = Isa::LoadF(in + i + k * kLanes);
        sums[k] = Isa::MulAddF(x, x, sums[k]);
      });
    }
    for (; i < n; i += kLanes) {
      const F x = i + kLanes <= n ? Isa::LoadF(in + i) : Math::LoadFirst(in + i, n - i);
      sums[0] = Isa::MulAddF(x, x, sums[0]);
    }
    return Isa::SumF(Isa::AddF(Isa::AddF(sums[0], sums[1]), Isa::AddF(sums[2], sums[3])));
  }

  static void RmsNorm(const float* in, const float* weight, float epsilon, int64_t n, float* out) {
    const float mean = SumOfSquares(in, n) / static_cast<float>(n);
    const float inverse = 1.0f / __builtin_sqrtf(mean + epsilon);
    const F scale = Isa::SetF(inverse);
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      Isa::StoreF(out + i, Isa::MulF(Isa::MulF(Isa::LoadF(in + i), scale), Isa::LoadF(weight + i)));
    }
    for (; i < n; ++i) out[i] = in[i] * inverse * weight[i];
  }

  // Below -88 it is as good as zero and Exp is no longer exact; NaN, as the second operand, stays.
  RENGA_WORD F Silu(F x) {
    const F e = Math::Exp(Isa::SubF(Isa::ZeroF(), x));
    return Isa::DivF(Isa::MaxF(Isa::SetF(-88.0f), x), Isa::AddF(Isa::SetF(1.0f), e));
  }

  // x / 2 * (1 + tanh(u)) = x / (1 + exp(-2u)), u = sqrt(2 / pi) * (x + 0.044715 x^3). From -16
  // down it is as good as zero; NaN, as the second operand, stays.
  RENGA_WORD F Gelu(F x) {
    const F inner = Isa::MulAddF(Isa::MulF(x, x), Isa::SetF(0.044715f), Isa::SetF(1.0f));
    const F e = Math::Exp(Isa::MulF(Isa::MulF(Isa::SetF(-1.59576912f), x), inner));
    return Isa::DivF(Isa::MaxF(Isa::SetF(-16.0f), x), Isa::AddF(Isa::SetF(1.0f), e));
  }

  static void SiluGate(const float* gate, const float* up, int64_t n, float* out) {
    Gate([](F x) RENGA_INLINE_LAMBDA { return Silu(x); }, gate, up, n, out);
  }
  static void GeluGate(const float* gate, const float* up, int64_t n, float* out) {
    Gate([](F x) RENGA_INLINE_LAMBDA { return Gelu(x); }, gate, up, n, out);
  }

  // out = activation(gate) * up
  template <class Activation>
  static void Gate(Activation activation, const float* gate, const float* up, int64_t n,
                   float* out) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      Isa::StoreF(out + i, Isa::MulF(activation(Isa::LoadF(gate + i)), Isa::LoadF(up + i)));
    }
    if (i == n) return;
    const F last =
        Isa::MulF(activation(Math::LoadFirst(gate + i, n - i)), Math::LoadFirst(up + i, n - i));
    Math::StoreFirst(out + i, n - i, last);
  }

  static void Add(const float* in, int64_t n, float* out) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      Isa::StoreF(out + i, Isa::AddF(Isa::LoadF(out + i), Isa::LoadF(in + i)));
    }
    for (; i < n; ++i) out[i] += in[i];
  }

  static void Rotate(bool neighbours, const float* cosines, const float* sines, int64_t pairs,
                     float* head) {
    const int64_t step = neighbours ? 2 : 1;
    const int64_t partner = neighbours ? 1 : pairs;
    for (int64_t i = 0; i < pairs; ++i) {
      const float x = head[i * step];
      const float y = head[i * step + partner];
      head[i * step] = x * cosines[i] - y * sines[i];
      head[i * step + partner] = x * sines[i] + y * cosines[i];
    }
  }

  static void ToHalf(const float* in, int64_t n, std::byte* out) {
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) Isa::StoreHalf(out + 2 * i, Isa::LoadF(in + i));
    if (i == n) return;
    std::byte last[2 * kLanes];
    Isa::StoreHalf(last, Math::LoadFirst(in + i, n - i));
    for (int64_t k = 0; k < 2 * (n - i); ++k) out[2 * i + k] = last[k];
  }

  static float Largest(const float* in, int64_t n) {
    F largest = Isa::SetF(in[0]);
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) largest = Isa::MaxF(largest, Isa::LoadF(in + i));
    if (i < n) largest = Isa::MaxF(largest, Math::LoadFirst(in + i, n - i, in[0]));
    return Isa::LargestF(largest);
  }

  static double SumExp(const float* in, int64_t n, float largest) {
    const F top = Isa::SetF(largest);
    double sum = 0;
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      sum += static_cast<double>(Isa::SumF(Math::Exp(Isa::SubF(Isa::LoadF(in + i), top))));
    }
    if (i == n) return sum;
    // Lanes beyond the end are so far below the largest that their exp is zero.
    const F last = Isa::SubF(Math::LoadFirst(in + i, n - i, -__builtin_inff()), top);
    return sum + static_cast<double>(Isa::SumF(Math::Exp(last)));
  }
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_ROW_KERNELS_H_
