// Functions of vectors that the kernels share: exp, partial loads and stores.
#ifndef RENGA_WORKER_KERNELS_CPU_VECTOR_MATH_H_
#define RENGA_WORKER_KERNELS_CPU_VECTOR_MATH_H_

#include <cstdint>

#include "worker/kernels/cpu/unroll.h"

namespace renga::kernels::cpu {

template <class Isa>
struct VectorMath {
  using F = typename Isa::F;
  using I = typename Isa::I;
  static constexpr int kLanes = Isa::kLanes;

  // e^x to about one unit in the last place for -87 <= x <= 88; 0 below, e^88 above.
  // x = n * ln 2 + r, |r| <= 0.35; e^r by its series, 2^n by the exponent's bits.
  RENGA_WORD F Exp(F x) {
    const F lowest = Isa::SetF(-87.0f);
    const F bounded = Isa::MinF(Isa::MaxF(x, lowest), Isa::SetF(88.0f));
    const I n = Isa::Round(Isa::MulF(bounded, Isa::SetF(1.44269504f)));
    const F nf = Isa::ToF(n);
    // ln 2 in two parts; n times the first is exact.
    F r = Isa::MulAddF(nf, Isa::SetF(-0.693359375f), bounded);
    r = Isa::MulAddF(nf, Isa::SetF(2.12194440e-4f), r);
    F p = Isa::SetF(1.0f / 5040);
    p = Isa::MulAddF(p, r, Isa::SetF(1.0f / 720));
    p = Isa::MulAddF(p, r, Isa::SetF(1.0f / 120));
    p = Isa::MulAddF(p, r, Isa::SetF(1.0f / 24));
    p = Isa::MulAddF(p, r, Isa::SetF(1.0f / 6));
    p = Isa::MulAddF(p, r, Isa::SetF(0.5f));
    p = Isa::MulAddF(p, r, Isa::SetF(1.0f));
    p = Isa::MulAddF(p, r, Isa::SetF(1.0f));
    const F power = Isa::AsF(Isa::template ShiftLeft<23>(Isa::AddI(n, Isa::SetI(127))));
    return Isa::KeepWhereAtLeast(Isa::MulF(p, power), x, lowest);
  }

  // The first n < kLanes numbers at p; the other lanes are `fill`.
  RENGA_WORD F LoadFirst(const float* p, int64_t n, float fill = 0.0f) {
    float lanes[kLanes];
    for (int i = 0; i < kLanes; ++i) lanes[i] = i < n ? p[i] : fill;
    return Isa::LoadF(lanes);
  }
  RENGA_WORD void StoreFirst(float* p, int64_t n, F v) {
    float lanes[kLanes];
    Isa::StoreF(lanes, v);
    for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
  }
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_VECTOR_MATH_H_
