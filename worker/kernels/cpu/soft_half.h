// IEEE halves for processors without F16C, in words of an instruction set and a few more:
// AsI (a float vector's bits), Greater, Choose and StoreWords.
#ifndef RENGA_WORKER_KERNELS_CPU_SOFT_HALF_H_
#define RENGA_WORKER_KERNELS_CPU_SOFT_HALF_H_

#include "worker/kernels/cpu/unroll.h"

namespace renga::kernels::cpu {

template <class Isa>
struct SoftHalf {
  using F = typename Isa::F;
  using I = typename Isa::I;

  // kLanes halves, all values exact: the bits in float's place, times 2^112; infinity and NaN get
  // float's exponent.
  RENGA_WORD F Load(const void* p) {
    const I bits = Isa::WidenU16(p);
    const I magnitude = Isa::And(bits, Isa::SetI(0x7fff));
    const F scaled = Isa::MulF(Isa::AsF(Isa::template ShiftLeft<13>(magnitude)),
                               Isa::AsF(Isa::SetI(0x77800000)));
    const I special = Isa::And(Isa::Greater(magnitude, 0x7bff), Isa::SetI(0x7f800000));
    const I sign = Isa::template ShiftLeft<16>(Isa::And(bits, Isa::SetI(0x8000)));
    return Isa::AsF(Isa::Or(Isa::AsI(scaled), Isa::Or(special, sign)));
  }

  // To the nearest half, ties to even, beyond 65504 infinity.
  RENGA_WORD void Store(void* p, F v) {
    const I bits = Isa::AsI(v);
    const I magnitude = Isa::And(bits, Isa::SetI(0x7fffffff));
    const I odd = Isa::And(Isa::template ShiftRight<13>(magnitude), Isa::SetI(1));
    const I normal = Isa::template ShiftRight<13>(
        Isa::AddI(Isa::AddI(magnitude, Isa::SetI(0xfff - (112 << 23))), odd));
    // Subnormal halves count in the units of floats in [0.5, 1): the addition rounds.
    const I tiny =
        Isa::SubI(Isa::AsI(Isa::AddF(Isa::AsF(magnitude), Isa::SetF(0.5f))), Isa::SetI(0x3f000000));
    const I nan = Isa::Or(Isa::And(Isa::template ShiftRight<13>(magnitude), Isa::SetI(0x3ff)),
                          Isa::SetI(0x7e00));
    I half = Isa::Choose(Isa::Greater(magnitude, 0x387fffff), normal, tiny);
    half = Isa::Choose(Isa::Greater(magnitude, 0x477fefff), Isa::SetI(0x7c00), half);
    half = Isa::Choose(Isa::Greater(magnitude, 0x7f800000), nan, half);
    half = Isa::Or(half, Isa::And(Isa::template ShiftRight<16>(bits), Isa::SetI(0x8000)));
    Isa::StoreWords(p, half);
  }
};

}  // namespace renga::kernels::cpu

#endif  // RENGA_WORKER_KERNELS_CPU_SOFT_HALF_H_
